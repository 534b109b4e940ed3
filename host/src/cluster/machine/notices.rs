//! Which notices this node has heard, and those of them that it can still hand over.
//!
//! Of each start of each publisher the numbers are kept that were heard, which is what makes
//! a notice come once, and what two members compare. The notices themselves are kept for
//! some minutes, for whoever was away. Whoever was away for longer learns from the numbers
//! that there was something.
//!
//! Times are milliseconds of this node's clock, and may lie before its start: a notice's age
//! travels with it.
//!
//! Invariants:
//! - a notice is news once, whichever ways it comes;
//! - numbers that another has heard, and that neither can hand over, are taken for heard, and
//!   that there was something is news;
//! - publishers, ranges, notices and their bytes are bounded, each by a constant or a setting.
//!
//! Not promised: that a notice comes once if more than [`ORIGINS_MAX`] starts of publishers
//! were heard within the [`Tuning::keep`] of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Tuning,
    broadcasts::Backlog,
    exchange::{Handed, Parcel, Version},
    identity::NodeId,
    seqs::Seqs,
};
use crate::cluster::{NOTICE_MAX, Notice, NoticeId};

/// Starts of publishers that are remembered.
pub(super) const ORIGINS_MAX: usize = 8_192;
/// Gaps in what was heard, of all of them.
pub(super) const RANGES_MAX: usize = 1_024;
/// How long others are told what was heard of a publisher that says nothing any more: whoever
/// is away for longer must take it that it missed something.
pub(super) const TOLD: Duration = Duration::from_hours(24);
/// How long it is remembered: longer, so that whoever is told of it does not take for news
/// what it has heard and forgotten.
const REMEMBERED: Duration = Duration::from_hours(25);
/// What a notice takes beside its body, roughly.
const NOTICE_COSTS: usize = 160;

/// One start of one publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Origin {
    pub(super) node: NodeId,
    pub(super) epoch: u64,
}

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    Notice(Notice),
    Missed,
}

/// What was heard of an origin.
#[derive(Clone, Debug, Default)]
struct Heard {
    seqs: Seqs,
    /// When the last of it was published.
    last: i64,
    /// The highest number that was called out.
    called: u64,
}

#[derive(Clone, Debug)]
struct Kept {
    body: Bytes,
    at: i64,
}

/// The table.
#[derive(Debug)]
pub(super) struct Notices {
    own: Origin,
    began: i64,
    now: i64,
    keep_time: i64,
    keep_count: usize,
    keep_bytes: usize,
    origins: BTreeMap<Origin, Heard>,
    /// Gaps, in all of them.
    gaps: usize,
    /// Whoever said nothing since was forgotten for want of room, and is not taken in again.
    forgotten: i64,
    kept: BTreeMap<NoticeId, Kept>,
    by_time: BTreeSet<(i64, NoticeId)>,
    bytes: usize,
    /// Of which there are numbers that were not heard.
    lacking: BTreeSet<Origin>,
    /// Who called out a notice that this node lacks.
    caller: Option<SocketAddr>,
    /// What came by gossip and is not passed on as it is, since too much is: to be called out.
    unpassed: BTreeMap<Origin, u64>,
    news: Vec<News>,
    /// What is being passed on by gossip.
    pub(super) backlog: Arc<Backlog>,
}

impl Origin {
    pub(super) fn of(id: NoticeId) -> Self {
        Self { node: id.node, epoch: id.epoch }
    }

    fn named(self, seq: u64) -> NoticeId {
        NoticeId { node: self.node, epoch: self.epoch, seq }
    }
}

impl Notices {
    pub(super) fn new(own: Origin, tuning: &Tuning, now: Duration) -> Self {
        Self {
            own,
            began: millis(now),
            now: millis(now),
            keep_time: millis(tuning.keep),
            keep_count: tuning.keep_notices,
            keep_bytes: tuning.keep_bytes,
            origins: BTreeMap::new(),
            gaps: 0,
            forgotten: i64::MIN,
            kept: BTreeMap::new(),
            by_time: BTreeSet::new(),
            bytes: 0,
            lacking: BTreeSet::new(),
            caller: None,
            unpassed: BTreeMap::new(),
            news: Vec::new(),
            backlog: Arc::default(),
        }
    }

    pub(super) fn set_now(&mut self, now: Duration) {
        self.now = millis(now);
    }

    /// A notice of this node's own.
    pub(super) fn issue(&mut self, body: Bytes) -> Notice {
        let seq = self.origins.get(&self.own).map_or(0, |it| it.seqs.last()) + 1;
        let id = self.own.named(seq);
        self.note(self.own, self.now, |seqs| seqs.add(seq, seq));
        self.keep(id, body.clone(), self.now);
        Notice { id, body }
    }

    /// Takes in a notice that was published `age` milliseconds ago; whether it is news.
    pub(super) fn hear(&mut self, notice: Notice, age: u32) -> bool {
        let Notice { id, body } = &notice;
        let origin = Origin::of(*id);
        let is_none = origin == self.own || id.seq == 0 || body.len() > NOTICE_MAX;
        let known = self.origins.get(&origin);
        if is_none || known.is_some_and(|it| it.seqs.contains(id.seq)) {
            return false;
        }
        let at = self.now - i64::from(age);
        if known.is_none() && at <= self.forgotten {
            // It may have been told, and forgotten.
            return false;
        }
        if self.gaps >= RANGES_MAX
            && known.is_some_and(|it| it.seqs.last() > 0 && it.seqs.is_apart(id.seq))
        {
            // It comes again, in its turn, when notes are compared.
            return false;
        }
        let seq = id.seq;
        self.note(origin, at, |seqs| seqs.add(seq, seq));
        self.keep(*id, body.clone(), at);
        self.news.push(News::Notice(notice));
        true
    }

    /// Somebody says that there is a notice of this name; whether that is news.
    pub(super) fn hear_call(&mut self, id: NoticeId, from: SocketAddr) -> bool {
        let origin = Origin::of(id);
        if origin == self.own || id.seq == 0 {
            return false;
        }
        if !self.origins.contains_key(&origin) {
            self.make_room();
        }
        let heard = self.origins.entry(origin).or_default();
        if heard.called >= id.seq {
            return false;
        }
        heard.called = id.seq;
        heard.last = heard.last.max(self.now);
        if !heard.seqs.contains(id.seq) {
            self.lacking.insert(origin);
            self.caller = Some(from);
        }
        true
    }

    /// Changes what was heard of an origin.
    fn note(&mut self, origin: Origin, at: i64, change: impl FnOnce(&mut Seqs)) {
        if !self.origins.contains_key(&origin) {
            self.make_room();
        }
        let first = Heard { last: at, ..Heard::default() };
        let heard = self.origins.entry(origin).or_insert(first);
        let before = gaps(&heard.seqs);
        change(&mut heard.seqs);
        heard.last = heard.last.max(at);
        let after = gaps(&heard.seqs);
        self.gaps = self.gaps + after - before;
        if heard.seqs.has_gap() || heard.called > heard.seqs.last() {
            self.lacking.insert(origin);
        } else {
            self.lacking.remove(&origin);
        }
    }

    /// Forgets who said nothing for longest, if there are too many.
    fn make_room(&mut self) {
        if self.origins.len() < ORIGINS_MAX {
            return;
        }
        let others = self.origins.iter().filter(|(origin, _)| **origin != self.own);
        if let Some((&origin, last)) = others.map(|(o, it)| (o, it.last)).min_by_key(|it| it.1) {
            self.forgotten = self.forgotten.max(last);
            self.forget(origin);
        }
    }

    fn forget(&mut self, origin: Origin) {
        if let Some(heard) = self.origins.remove(&origin) {
            self.gaps -= gaps(&heard.seqs);
            self.lacking.remove(&origin);
        }
    }

    fn keep(&mut self, id: NoticeId, body: Bytes, at: i64) {
        self.bytes += body.len() + NOTICE_COSTS;
        self.by_time.insert((at, id));
        self.kept.insert(id, Kept { body, at });
        self.drop_old();
    }

    fn drop_old(&mut self) {
        while let Some(&(at, id)) = self.by_time.first() {
            let is_full = self.kept.len() > self.keep_count || self.bytes > self.keep_bytes;
            if !is_full && self.now - at <= self.keep_time {
                return;
            }
            self.by_time.pop_first();
            if let Some(kept) = self.kept.remove(&id) {
                self.bytes -= kept.body.len() + NOTICE_COSTS;
            }
        }
    }

    /// Forgets what is too old.
    pub(super) fn sweep(&mut self) {
        self.drop_old();
        let then = self.now - millis(REMEMBERED);
        let old = self.origins.iter().filter(|(origin, it)| it.last < then && **origin != self.own);
        let old: Vec<_> = old.map(|(origin, _)| *origin).collect();
        for origin in old {
            self.forget(origin);
        }
    }

    // === comparing ===

    /// What others are told of, and what was heard of it.
    fn told(&self) -> impl Iterator<Item = (Origin, &Heard)> {
        let then = self.now - millis(TOLD);
        let told = self.origins.iter().map(|(origin, heard)| (*origin, heard));
        told.filter(move |(_, it)| it.last >= then && it.seqs.last() > 0)
    }

    /// A digest of what was heard.
    pub(super) fn digest(&self) -> u64 {
        let mut bytes = Vec::new();
        self.told().fold(0, |digest, (origin, heard)| {
            bytes.clear();
            origin.encode(&mut bytes);
            for (first, last) in heard.seqs.ranges() {
                bytes.extend_from_slice(&first.to_be_bytes());
                bytes.extend_from_slice(&last.to_be_bytes());
            }
            digest ^ xxh3_64(&bytes)
        })
    }

    /// What was heard, as it is told to others.
    pub(super) fn versions(&self) -> Vec<Version> {
        let version = |(origin, heard): (Origin, &Heard)| Version {
            origin,
            seqs: heard.seqs.clone(),
            age: self.age(heard.last),
        };
        self.told().map(version).collect()
    }

    /// The notices that whoever has heard `theirs` lacks and that can be handed over, the
    /// first of each publisher first, as many as go into `room` bytes.
    pub(super) fn lacked_by(&self, theirs: &[Version], mut room: usize) -> Parcel {
        let theirs: HashMap<_, _> = theirs.iter().map(|it| (it.origin, &it.seqs)).collect();
        let lacks = |id: &NoticeId| {
            theirs.get(&Origin::of(*id)).is_none_or(|heard| !heard.contains(id.seq))
        };
        let mut parcel = Parcel { is_all: true, notices: Vec::new() };
        for (id, kept) in self.kept.iter().filter(|(id, _)| lacks(id)) {
            let notice = Notice { id: *id, body: kept.body.clone() };
            let handed = Handed { notice, age: self.age(kept.at) };
            let Some(left) = room.checked_sub(handed.len()) else {
                parcel.is_all = false;
                break;
            };
            room = left;
            parcel.notices.push(handed);
        }
        parcel
    }

    /// Takes in what was handed over by whoever has heard `theirs`; what was news.
    pub(super) fn merge(&mut self, theirs: &[Version], parcel: Parcel) -> Vec<Handed> {
        let handed = parcel.notices.into_iter();
        let news = handed.filter(|it| self.hear(it.notice.clone(), it.age)).collect();
        if parcel.is_all {
            self.adopt(theirs);
        }
        news
    }

    /// Takes for heard what another has heard and cannot hand over.
    fn adopt(&mut self, theirs: &[Version]) {
        let mut has_missed = false;
        for Version { origin, seqs, age } in theirs {
            let at = self.now - i64::from(*age);
            let known = self.origins.get(origin);
            if *origin == self.own
                || known.is_some_and(|it| it.seqs.covers(seqs))
                || known.is_none() && at <= self.forgotten
            {
                continue;
            }
            // What was published before this node began concerns nothing that it holds.
            has_missed |= at >= self.began;
            self.note(*origin, at, |ours| ours.add_all(seqs));
            if self.gaps > RANGES_MAX {
                has_missed = true;
                self.note(*origin, at, |ours| ours.add(1, ours.last()));
            }
        }
        if has_missed {
            self.miss();
        }
    }

    /// There may have been notices that nobody has any more.
    pub(super) fn miss(&mut self) {
        self.news.push(News::Missed);
    }

    fn age(&self, at: i64) -> u32 {
        u32::try_from((self.now - at).max(0)).unwrap_or(u32::MAX)
    }

    // === what is to be done ===

    pub(super) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Whether there are notices that this node has not heard, and should ask for.
    pub(super) fn is_lacking(&self) -> bool {
        !self.lacking.is_empty()
    }

    /// Nobody seems to have what is lacking.
    pub(super) fn give_up(&mut self) {
        self.lacking.clear();
    }

    pub(super) fn take_caller(&mut self) -> Option<SocketAddr> {
        self.caller.take()
    }

    pub(super) fn has_caller(&self) -> bool {
        self.caller.is_some()
    }

    /// Others are to hear that there is this notice, which is not passed on itself.
    pub(super) fn call_out(&mut self, id: NoticeId) {
        let seq = self.unpassed.entry(Origin::of(id)).or_default();
        *seq = (*seq).max(id.seq);
    }

    pub(super) fn take_unpassed(&mut self) -> Vec<NoticeId> {
        let unpassed = std::mem::take(&mut self.unpassed);
        unpassed.into_iter().map(|(origin, seq)| origin.named(seq)).collect()
    }

    // === sizes ===

    pub(super) fn kept(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn origins(&self) -> usize {
        self.origins.len()
    }

    pub(super) fn gaps(&self) -> usize {
        self.gaps
    }
}

/// Ranges beyond the first.
fn gaps(seqs: &Seqs) -> usize {
    seqs.ranges().len().saturating_sub(1)
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests;
