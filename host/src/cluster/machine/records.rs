//! What every member says of itself, as far as this node has heard.
//!
//! Records travel as foca's broadcasts: each node sends what is news to it a few times,
//! and whoever joins later gets the rest when notes are compared. When a whole cluster
//! starts at once there is too much news to be passed on so, and notes carry most of it. The
//! table is shared with the handler that foca owns, see `broadcasts`.
//!
//! Invariants:
//! - what others say about this node itself is never believed, only outdone;
//! - the table is bounded, and forgets whoever is no member any more.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use xxhash_rust::xxh3::xxh3_64;

use super::{
    codec::Malformed,
    exchange::MEMBERS_MAX,
    meta::{Record, Subject},
};

/// A record and the bytes that it came in.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) record: Record,
    pub(super) bytes: Arc<[u8]>,
    hash: u64,
    /// Whether its subject was no member at the last sweep.
    is_stray: bool,
}

/// The table.
#[derive(Debug)]
pub(super) struct Records {
    own: Subject,
    entries: BTreeMap<Subject, Entry>,
    /// The version of a record about us that others hold and we did not make.
    outdo: Option<(u64, u32)>,
    has_news: bool,
    /// Whether so much is being passed on already that notes must carry the rest.
    pub(super) is_flooded: bool,
}

impl Records {
    fn new(own: Subject) -> Self {
        Self { own, entries: BTreeMap::new(), outdo: None, has_news: false, is_flooded: false }
    }

    pub(super) fn get(&self, subject: &Subject) -> Option<&Entry> {
        self.entries.get(subject)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Our own word.
    pub(super) fn put_own(&mut self, record: Record) {
        let bytes = record.encode();
        self.put(record, &bytes);
    }

    /// Takes a record in if it is news; whether it is.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> Result<Option<Subject>, Malformed> {
        let record = Record::decode(bytes)?;
        let subject = record.subject;
        let known = self.entries.get(&subject);
        if known.is_some_and(|known| known.record.order() >= record.order()) {
            return Ok(None);
        }
        if subject == self.own {
            self.outdo = self.outdo.max(Some(record.order()));
            return Ok(None);
        }
        if known.is_none() && self.entries.len() >= MEMBERS_MAX {
            return Ok(None);
        }
        self.put(record, bytes);
        Ok(Some(subject))
    }

    fn put(&mut self, record: Record, bytes: &[u8]) {
        let hash = xxh3_64(bytes);
        let subject = record.subject;
        let entry = Entry { record, bytes: bytes.into(), hash, is_stray: false };
        self.entries.insert(subject, entry);
        self.has_news = true;
    }

    /// Whether anything has changed since this was asked last.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// What our own record must be above, if others hold one that we did not make.
    pub(super) fn take_outdo(&mut self) -> Option<(u64, u32)> {
        self.outdo.take()
    }

    /// A digest of the records of `members`, whatever their order.
    pub(super) fn digest(&self, members: impl Iterator<Item = Subject>) -> u64 {
        members
            .filter_map(|subject| self.entries.get(&subject))
            .fold(0, |digest, entry| digest ^ entry.hash)
    }

    /// Forgets those who were no members at the last sweep and are none now.
    pub(super) fn sweep(&mut self, is_member: impl Fn(&Subject) -> bool) {
        let own = self.own;
        self.entries.retain(|subject, entry| {
            let was_stray = entry.is_stray;
            entry.is_stray = *subject != own && !is_member(subject);
            !(was_stray && entry.is_stray)
        });
    }
}

/// The table as the machine and foca share it.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<Mutex<Records>>);

impl Shared {
    pub(super) fn new(own: Subject) -> Self {
        Self(Arc::new(Mutex::new(Records::new(own))))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
