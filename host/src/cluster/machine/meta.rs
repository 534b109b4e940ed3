//! What a member says of itself: where its peers find it, how much it carries, whether it
//! serves.
//!
//! ```text
//! kind 1 · format 1 · node 8 · gossip address · epoch 6 · version 4
//! peer address · weight 2 · state 1 · ring parameters 8
//! zone 1+n · version 1+n · plugins 1+8n · key fingerprints 1+4n
//! ```
//!
//! A record travels as the bytes its subject has written and is never written anew by
//! others, so that a newer version may add fields at its end.
//!
//! Invariants:
//! - a record takes [`RECORD_MAX`] bytes at most;
//! - only its subject makes one, and of two the one of the later start, then the one with
//!   the higher version holds.

use std::{net::SocketAddr, sync::Arc};

use bytes::{Buf, BufMut};

use super::{
    codec::Malformed,
    identity::{Id, NodeId, get_addr, put_addr},
};
use crate::cluster::keys::KEYS_MAX;

/// The longest record.
pub const RECORD_MAX: usize = 256;
/// The longest zone and version.
pub const TEXT_MAX: usize = 32;
/// Plugins that a record can tell of.
pub const PLUGINS_MAX: usize = 8;

/// The kind of broadcast that a record is.
pub(super) const KIND: u8 = 1;
const FORMAT: u8 = 1;

/// What a member is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It is there, and not ready to serve.
    #[default]
    Joining,
    /// It serves: it is to be in the ring.
    Serving,
    /// It is going: it answers, and is to get nothing new.
    Draining,
}

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Where its peers reach it.
    pub peer: SocketAddr,
    /// How much it carries beside others: 100 as a rule.
    pub weight: u16,
    /// The zone that it runs in; empty if there are none. [`TEXT_MAX`] bytes of it travel.
    pub zone: String,
    /// The version of the program. [`TEXT_MAX`] bytes of it travel.
    pub version: String,
    /// Digest of the parameters by which it builds the ring. Members with others are not in
    /// this node's ring.
    pub ring: u64,
    /// Digests of the plugins that it runs. [`PLUGINS_MAX`] of them travel.
    pub plugins: Vec<u64>,
    /// What it is doing.
    pub state: State,
}

/// Whom a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Subject {
    pub(super) node: NodeId,
    pub(super) addr: SocketAddr,
}

impl From<&Id> for Subject {
    fn from(id: &Id) -> Self {
        Self { node: id.node, addr: id.addr }
    }
}

/// A version of what a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) subject: Subject,
    /// The generation with which its process started.
    pub(super) epoch: u64,
    /// Counts the versions since then.
    pub(super) version: u32,
    pub(super) meta: Arc<Meta>,
    /// The keys that it can open.
    pub(super) keys: Vec<u32>,
}

impl Record {
    /// What tells which of two records of one subject holds.
    pub(super) fn order(&self) -> (u64, u32) {
        (self.epoch, self.version)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let Meta { peer, weight, zone, version, ring, plugins, state } = &*self.meta;
        let mut to = Vec::with_capacity(RECORD_MAX);
        to.put_u8(KIND);
        to.put_u8(FORMAT);
        to.put_u64(self.subject.node.0);
        put_addr(&mut to, self.subject.addr);
        to.put_uint(self.epoch, 6);
        to.put_u32(self.version);
        put_addr(&mut to, *peer);
        to.put_u16(*weight);
        to.put_u8(match state {
            State::Joining => 0,
            State::Serving => 1,
            State::Draining => 2,
        });
        to.put_u64(*ring);
        put_text(&mut to, zone);
        put_text(&mut to, version);
        put_list(&mut to, plugins, PLUGINS_MAX, |to, digest| to.put_u64(*digest));
        put_list(&mut to, &self.keys, KEYS_MAX, |to, print| to.put_u32(*print));
        to
    }

    /// Reads a record; what follows it was added by a later format.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > RECORD_MAX {
            return Err(Malformed);
        }
        let from = &mut &bytes[..];
        if from.try_get_u8()? != KIND || from.try_get_u8()? < FORMAT {
            return Err(Malformed);
        }
        let node = NodeId(from.try_get_u64()?);
        let subject = Subject { node, addr: get_addr(from)? };
        let epoch = from.try_get_uint(6)?;
        let version = from.try_get_u32()?;
        let meta = Meta {
            peer: get_addr(from)?,
            weight: from.try_get_u16()?,
            state: match from.try_get_u8()? {
                0 => State::Joining,
                1 => State::Serving,
                2 => State::Draining,
                _ => return Err(Malformed),
            },
            ring: from.try_get_u64()?,
            zone: get_text(from)?,
            version: get_text(from)?,
            plugins: get_list(from, |from| Ok(from.try_get_u64()?))?,
        };
        let keys = get_list(from, |from| Ok(from.try_get_u32()?))?;
        Ok(Self { subject, epoch, version, meta: Arc::new(meta), keys })
    }
}

/// Writes a text, cut to what may travel.
fn put_text(to: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(TEXT_MAX)];
    put_list(to, text.as_bytes(), TEXT_MAX, |to, byte| to.put_u8(*byte));
}

fn put_list<T>(to: &mut Vec<u8>, list: &[T], max: usize, put: impl Fn(&mut Vec<u8>, &T)) {
    let list = &list[..list.len().min(max)];
    to.put_u8(u8::try_from(list.len()).unwrap_or(u8::MAX));
    for item in list {
        put(to, item);
    }
}

fn get_text(from: &mut &[u8]) -> Result<String, Malformed> {
    let len = usize::from(from.try_get_u8()?);
    let (text, rest) = from.split_at_checked(len).ok_or(Malformed)?;
    *from = rest;
    String::from_utf8(text.to_vec()).map_err(|_| Malformed)
}

fn get_list<T>(
    from: &mut &[u8],
    get: impl Fn(&mut &[u8]) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let len = from.try_get_u8()?;
    (0..len).map(|_| get(from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(zone: &str) -> Record {
        let addr: SocketAddr = "[2001:db8::1]:9999".parse().unwrap();
        let meta = Meta {
            peer: addr,
            weight: 100,
            zone: zone.to_owned(),
            version: "1".repeat(40),
            ring: u64::MAX,
            plugins: vec![u64::MAX; 20],
            state: State::Serving,
        };
        let subject = Subject { node: NodeId(u64::MAX), addr };
        Record {
            subject,
            epoch: 1 << 40,
            version: u32::MAX,
            meta: Arc::new(meta),
            keys: vec![1; 9],
        }
    }

    #[test]
    fn the_longest_record_fits_and_comes_back() {
        let bytes = record(&"ü".repeat(TEXT_MAX)).encode();
        assert!(bytes.len() <= RECORD_MAX, "{} bytes", bytes.len());
        let back = Record::decode(&bytes).unwrap();
        assert_eq!(back.meta.zone, "ü".repeat(TEXT_MAX / 2));
        assert_eq!(back.meta.plugins.len(), PLUGINS_MAX);
        assert_eq!(back.encode(), bytes);
    }

    #[test]
    fn a_later_format_may_add_fields_and_a_cut_record_is_refused() {
        let mut bytes = record("a").encode();
        for end in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..end]), Err(Malformed), "cut at {end}");
        }
        let known = Record::decode(&bytes).unwrap();
        bytes[1] = FORMAT + 1;
        bytes.push(7);
        assert_eq!(Record::decode(&bytes).unwrap(), known);
    }
}
