//! How notices are written that are handed over when notes are compared.
//!
//! ```text
//! versions  4+n   node 8 · epoch 6 · age 4 · ranges 2+(8+8)n
//! parcel    is all 1 · notices 4+n
//! notice    node 8 · epoch 6 · number 8 · age 4 · body 4+n
//! ```
//!
//! Ages are in milliseconds, since clocks of two nodes agree on nothing else.

use bytes::{Buf, BufMut, Bytes};

use super::{Malformed, count, get_bool};
use crate::cluster::{
    NOTICE_MAX, Notice, NoticeId,
    machine::{
        identity::NodeId,
        notices::{ORIGINS_MAX, Origin, RANGES_MAX},
        seqs::Seqs,
    },
};

/// What a node has heard of one start of one publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster::machine) struct Version {
    pub(in crate::cluster::machine) origin: Origin,
    pub(in crate::cluster::machine) seqs: Seqs,
    /// Milliseconds since the last of them was published.
    pub(in crate::cluster::machine) age: u32,
}

/// A notice and the milliseconds since it was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster::machine) struct Handed {
    pub(in crate::cluster::machine) notice: Notice,
    pub(in crate::cluster::machine) age: u32,
}

/// Notices that the other lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cluster::machine) struct Parcel {
    /// Whether these are all that there are: what else it lacks is not to be had here.
    pub(in crate::cluster::machine) is_all: bool,
    pub(in crate::cluster::machine) notices: Vec<Handed>,
}

impl Version {
    /// How many bytes these take.
    pub(in crate::cluster::machine) fn len_of(versions: &[Self]) -> usize {
        4 + versions.iter().map(|it| 20 + 16 * it.seqs.ranges().len()).sum::<usize>()
    }

    pub(super) fn encode_all(versions: &[Self], to: &mut Vec<u8>) {
        to.put_u32(count(versions.len()));
        for Self { origin, seqs, age } in versions {
            origin.encode(to);
            to.put_u32(*age);
            to.put_u16(u16::try_from(seqs.ranges().len()).unwrap_or(u16::MAX));
            for (first, last) in seqs.ranges() {
                to.put_u64(*first);
                to.put_u64(*last);
            }
        }
    }

    pub(super) fn decode_all(from: &mut &[u8]) -> Result<Vec<Self>, Malformed> {
        let versions = from.try_get_u32()?;
        if versions as usize > ORIGINS_MAX {
            return Err(Malformed);
        }
        let mut ranges = 0;
        (0..versions)
            .map(|_| {
                let origin = Origin::decode(from)?;
                let age = from.try_get_u32()?;
                let count = from.try_get_u16()?;
                ranges += usize::from(count);
                if ranges > versions as usize + RANGES_MAX {
                    return Err(Malformed);
                }
                let mut seqs = Seqs::default();
                for _ in 0..count {
                    let (first, last) = (from.try_get_u64()?, from.try_get_u64()?);
                    // In order, as they were written: so each is added at the end.
                    if first > last || first <= seqs.last() {
                        return Err(Malformed);
                    }
                    seqs.add(first, last);
                }
                Ok(Self { origin, seqs, age })
            })
            .collect()
    }
}

impl Handed {
    /// How many bytes it takes.
    pub(in crate::cluster::machine) fn len(&self) -> usize {
        8 + 6 + 8 + 4 + 4 + self.notice.body.len()
    }
}

impl Parcel {
    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        to.put_u8(u8::from(self.is_all));
        to.put_u32(count(self.notices.len()));
        for Handed { notice: Notice { id, body }, age } in &self.notices {
            Origin::of(*id).encode(to);
            to.put_u64(id.seq);
            to.put_u32(*age);
            to.put_u32(count(body.len()));
            to.put_slice(body);
        }
    }

    pub(super) fn decode(from: &mut &[u8]) -> Result<Self, Malformed> {
        let is_all = get_bool(from)?;
        let notices = from.try_get_u32()?;
        // Not with capacity: the count is only a claim.
        let notices = (0..notices)
            .map(|_| {
                let Origin { node, epoch } = Origin::decode(from)?;
                let id = NoticeId { node, epoch, seq: from.try_get_u64()? };
                let age = from.try_get_u32()?;
                let len = from.try_get_u32()? as usize;
                if len > NOTICE_MAX {
                    return Err(Malformed);
                }
                let (body, rest) = from.split_at_checked(len).ok_or(Malformed)?;
                *from = rest;
                let notice = Notice { id, body: Bytes::copy_from_slice(body) };
                Ok(Handed { notice, age })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { is_all, notices })
    }
}

impl Origin {
    pub(in crate::cluster::machine) fn encode(self, to: &mut impl BufMut) {
        to.put_u64(self.node.0);
        to.put_uint(self.epoch, 6);
    }

    pub(in crate::cluster::machine) fn decode(from: &mut &[u8]) -> Result<Self, Malformed> {
        Ok(Self { node: NodeId(from.try_get_u64()?), epoch: from.try_get_uint(6)? })
    }
}
