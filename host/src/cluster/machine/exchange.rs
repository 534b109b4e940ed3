//! What members ask one another over TCP, and the answers.
//!
//! ```text
//! request   tag 1 · exchange 8 · asker's id · …
//!   challenge   asked id · incarnation 2 · verdict 1
//!   sync        asker's incarnation 2 · digests 8+8+8 · notes
//!   push        notes
//!   trade       versions · parcel, see `trade`
//! reply     tag 1 · exchange 8 · is current 1 · …
//!   alive       asked id · incarnation 2
//!   equal
//!   notes       digests 8+8+8 · notes · versions
//!   trade       versions · parcel
//! notes     members 4+n · records 4+(2+n)
//! ```
//!
//! Invariants:
//! - a reply names the exchange that it belongs to, and is sealed: it cannot be taken for
//!   the answer to anything else;
//! - reading takes memory in proportion to the bytes that are there, whatever they claim.

mod trade;

use bytes::{Buf, BufMut};
use foca::Member;

pub(super) use trade::{Handed, Parcel, Version};

use super::{
    codec::{Malformed, get_member, put_member},
    identity::Id,
    meta::RECORD_MAX,
};

/// The longest reply, sealed.
pub const REPLY_MAX: usize = 4 * 1024 * 1024;
/// The longest request, sealed. Anybody may send one, so it is shorter; but it has room for
/// the versions of as many publishers as there may be, and the longest notice.
pub const REQUEST_MAX: usize = 384 * 1024;
/// What members and records, or versions and notices, may take of a request.
pub(super) const PUSHED_MAX: usize = REQUEST_MAX - 1_024;
/// Members that are told of at once.
pub(super) const MEMBERS_MAX: usize = 10_000;

/// What the asker thinks of whom it challenges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was not heard of, and nobody has been told so.
    Unheard,
    /// It may be down, as others may have heard.
    Suspect,
    /// It is down: it must begin a new life.
    Down,
}

/// Digests of whom a node takes for alive, of what it knows of them, and of the notices that
/// it has heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digests {
    pub(super) members: u64,
    pub(super) records: u64,
    pub(super) notices: u64,
}

/// What a node knows, or a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    pub(super) members: Vec<Member<Id>>,
    pub(super) records: Vec<Vec<u8>>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The number of the exchange, which the reply repeats.
    pub(super) exchange: u64,
    /// Who asks.
    pub(super) from: Id,
    pub(super) question: Question,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Are you still there?
    Challenge { asked: Id, incarnation: u16, verdict: Verdict },
    /// Do we know the same? The notes are what the asker wants to be known at once: itself.
    Sync { incarnation: u16, digests: Digests, notes: Notes },
    /// This is what you did not know.
    Push { notes: Notes },
    /// These are notices that you lack. Which of yours do I lack, who has heard these?
    Trade { versions: Vec<Version>, parcel: Parcel },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) exchange: u64,
    /// Whether whoever answers has itself heard what the others have, as far as it can tell.
    pub(super) is_current: bool,
    pub(super) answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// I am: this is who I am now, after I have refuted.
    Alive { id: Id, incarnation: u16 },
    /// We know the same; or, to a push, thank you.
    Equal,
    /// We do not: this is what I know, as far as we differ. Of notices, it is only which ones
    /// I have heard.
    Notes { digests: Digests, notes: Notes, versions: Vec<Version> },
    /// These are notices that you lack, and which ones I have heard.
    Trade { versions: Vec<Version>, parcel: Parcel },
}

impl Request {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut to = Vec::new();
        let tag = match self.question {
            Question::Challenge { .. } => 0,
            Question::Sync { .. } => 1,
            Question::Push { .. } => 2,
            Question::Trade { .. } => 3,
        };
        to.put_u8(tag);
        to.put_u64(self.exchange);
        self.from.encode(&mut to);
        match &self.question {
            Question::Challenge { asked, incarnation, verdict } => {
                asked.encode(&mut to);
                to.put_u16(*incarnation);
                to.put_u8(match verdict {
                    Verdict::Suspect => 0,
                    Verdict::Down => 1,
                    Verdict::Unheard => 2,
                });
            }
            Question::Sync { incarnation, digests, notes } => {
                to.put_u16(*incarnation);
                digests.encode(&mut to);
                notes.encode(&mut to);
            }
            Question::Push { notes } => notes.encode(&mut to),
            Question::Trade { versions, parcel } => {
                Version::encode_all(versions, &mut to);
                parcel.encode(&mut to);
            }
        }
        to
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let from = &mut bytes;
        let tag = from.try_get_u8()?;
        let exchange = from.try_get_u64()?;
        let asker = Id::decode(from)?;
        let question = match tag {
            0 => Question::Challenge {
                asked: Id::decode(from)?,
                incarnation: from.try_get_u16()?,
                verdict: match from.try_get_u8()? {
                    0 => Verdict::Suspect,
                    1 => Verdict::Down,
                    2 => Verdict::Unheard,
                    _ => return Err(Malformed),
                },
            },
            1 => Question::Sync {
                incarnation: from.try_get_u16()?,
                digests: Digests::decode(from)?,
                notes: Notes::decode(from)?,
            },
            2 => Question::Push { notes: Notes::decode(from)? },
            3 => Question::Trade {
                versions: Version::decode_all(from)?,
                parcel: Parcel::decode(from)?,
            },
            _ => return Err(Malformed),
        };
        Ok(Self { exchange, from: asker, question })
    }
}

impl Reply {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut to = Vec::new();
        let tag = match self.answer {
            Answer::Alive { .. } => 0,
            Answer::Equal => 1,
            Answer::Notes { .. } => 2,
            Answer::Trade { .. } => 3,
        };
        to.put_u8(tag);
        to.put_u64(self.exchange);
        to.put_u8(u8::from(self.is_current));
        match &self.answer {
            Answer::Alive { id, incarnation } => {
                id.encode(&mut to);
                to.put_u16(*incarnation);
            }
            Answer::Equal => {}
            Answer::Notes { digests, notes, versions } => {
                digests.encode(&mut to);
                notes.encode(&mut to);
                Version::encode_all(versions, &mut to);
            }
            Answer::Trade { versions, parcel } => {
                Version::encode_all(versions, &mut to);
                parcel.encode(&mut to);
            }
        }
        to
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let from = &mut bytes;
        let tag = from.try_get_u8()?;
        let exchange = from.try_get_u64()?;
        let is_current = get_bool(from)?;
        let answer = match tag {
            0 => Answer::Alive { id: Id::decode(from)?, incarnation: from.try_get_u16()? },
            1 => Answer::Equal,
            2 => Answer::Notes {
                digests: Digests::decode(from)?,
                notes: Notes::decode(from)?,
                versions: Version::decode_all(from)?,
            },
            3 => Answer::Trade {
                versions: Version::decode_all(from)?,
                parcel: Parcel::decode(from)?,
            },
            _ => return Err(Malformed),
        };
        Ok(Self { exchange, is_current, answer })
    }
}

impl Digests {
    /// Whether they are of the same members, and the same knowledge of them.
    pub(super) fn is_of_same_members(self, other: Self) -> bool {
        (self.members, self.records) == (other.members, other.records)
    }

    fn encode(self, to: &mut Vec<u8>) {
        to.put_u64(self.members);
        to.put_u64(self.records);
        to.put_u64(self.notices);
    }

    fn decode(from: &mut &[u8]) -> Result<Self, Malformed> {
        Ok(Self {
            members: from.try_get_u64()?,
            records: from.try_get_u64()?,
            notices: from.try_get_u64()?,
        })
    }
}

impl Notes {
    /// Takes out what does not fit into a request: the rest goes with the next one.
    pub(super) fn cut(&mut self) {
        let mut room = PUSHED_MAX;
        let mut fits = |len: usize| {
            let left = room.checked_sub(len);
            room = left.unwrap_or(0);
            left.is_some()
        };
        self.members.retain(|member| fits(member.id().encoded_len() + 3));
        self.records.retain(|record| fits(record.len() + 2));
    }

    fn encode(&self, to: &mut Vec<u8>) {
        to.put_u32(count(self.members.len()));
        for member in &self.members {
            put_member(member, to);
        }
        to.put_u32(count(self.records.len()));
        for record in &self.records {
            to.put_u16(u16::try_from(record.len()).unwrap_or(0));
            to.put_slice(record);
        }
    }

    fn decode(from: &mut &[u8]) -> Result<Self, Malformed> {
        let members = bounded(from.try_get_u32()?)?;
        // Not with capacity: the count is only a claim.
        let members = (0..members).map(|_| get_member(&mut *from)).collect::<Result<_, _>>()?;
        let records = bounded(from.try_get_u32()?)?;
        let records = (0..records)
            .map(|_| {
                let len = usize::from(from.try_get_u16()?);
                let (record, rest) = from.split_at_checked(len).ok_or(Malformed)?;
                *from = rest;
                if len > RECORD_MAX { Err(Malformed) } else { Ok(record.to_vec()) }
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { members, records })
    }
}

fn get_bool(from: &mut &[u8]) -> Result<bool, Malformed> {
    match from.try_get_u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed),
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn bounded(count: u32) -> Result<u32, Malformed> {
    if count as usize > 2 * MEMBERS_MAX { Err(Malformed) } else { Ok(count) }
}

#[cfg(test)]
mod tests;
