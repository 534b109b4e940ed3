//! How foca's messages are written: fixed layouts, nothing that grows by itself.
//!
//! ```text
//! header   src id · src incarnation 2 · dst id · message 1 [· id] [· probe number 1]
//! member   id · incarnation 2 · state 1
//! id       4 or 6 · address 4 or 16 · port 2 · generation 6 · node 8
//! ```
//!
//! All numbers are big endian. A packet is a header, then for most messages a count of two
//! bytes and that many members, then broadcasts, each after its length in two bytes.
//!
//! Invariants:
//! - decoding takes no memory and no more than the bytes that are there;
//! - what does not fit is not begun: a buffer never ends in half an item.

use bytes::{Buf, BufMut, TryGetError};
use foca::{Header, Member, Message, State};

use super::identity::Id;

/// Bytes that nobody of our version has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed, or of another version")]
pub struct Malformed;

impl From<TryGetError> for Malformed {
    fn from(_: TryGetError) -> Self {
        Self
    }
}

/// Why something could not be written or read; foca wants one type for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Nobody of our version has written this.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The packet has no room for it.
    #[error("no room left")]
    Full,
}

/// The codec that foca is given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Codec;

impl foca::Codec<Id> for Codec {
    type Error = CodecError;

    fn encode_header(
        &mut self,
        header: &Header<Id>,
        mut to: impl BufMut,
    ) -> Result<(), CodecError> {
        let (tag, third, number) = parts(&header.message);
        let third_len = third.map_or(0, Id::encoded_len);
        let fixed = 2 + 1 + usize::from(number.is_some());
        let len = header.src.encoded_len() + header.dst.encoded_len() + third_len + fixed;
        if to.remaining_mut() < len {
            return Err(CodecError::Full);
        }
        header.src.encode(&mut to);
        to.put_u16(header.src_incarnation);
        header.dst.encode(&mut to);
        to.put_u8(tag);
        if let Some(third) = third {
            third.encode(&mut to);
        }
        if let Some(number) = number {
            to.put_u8(number);
        }
        Ok(())
    }

    fn decode_header(&mut self, from: impl Buf) -> Result<Header<Id>, CodecError> {
        Ok(header(from)?)
    }

    fn encode_member(
        &mut self,
        member: &Member<Id>,
        mut to: impl BufMut,
    ) -> Result<(), CodecError> {
        if to.remaining_mut() < member.id().encoded_len() + 3 {
            return Err(CodecError::Full);
        }
        put_member(member, &mut to);
        Ok(())
    }

    fn decode_member(&mut self, from: impl Buf) -> Result<Member<Id>, CodecError> {
        Ok(get_member(from)?)
    }
}

/// A packet as far as we look into it ourselves: its header, and the members it speaks of.
pub(super) fn peek(mut packet: &[u8]) -> Result<(Header<Id>, Members<'_>), Malformed> {
    let header = header(&mut packet)?;
    let left = match header.message {
        Message::Announce | Message::TurnUndead | Message::Broadcast => 0,
        _ => packet.try_get_u16()?,
    };
    Ok((header, Members { packet, left }))
}

/// The members in a packet, up to the first one that cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Members<'a> {
    packet: &'a [u8],
    left: u16,
}

impl Iterator for Members<'_> {
    type Item = Member<Id>;

    fn next(&mut self) -> Option<Member<Id>> {
        self.left = self.left.checked_sub(1)?;
        get_member(&mut self.packet).ok()
    }
}

/// The incarnation that the sender of `packet` has given itself.
pub(super) fn incarnation_of_sender(mut packet: &[u8]) -> Option<u16> {
    Id::decode(&mut packet).ok()?;
    packet.try_get_u16().ok()
}

pub(super) fn put_member(member: &Member<Id>, to: &mut impl BufMut) {
    member.id().encode(to);
    to.put_u16(member.incarnation());
    to.put_u8(match member.state() {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    });
}

pub(super) fn get_member(mut from: impl Buf) -> Result<Member<Id>, Malformed> {
    let id = Id::decode(&mut from)?;
    let incarnation = from.try_get_u16()?;
    let state = match from.try_get_u8()? {
        0 => State::Alive,
        1 => State::Suspect,
        2 => State::Down,
        _ => return Err(Malformed),
    };
    Ok(Member::new(id, incarnation, state))
}

fn header(mut from: impl Buf) -> Result<Header<Id>, Malformed> {
    let src = Id::decode(&mut from)?;
    let src_incarnation = from.try_get_u16()?;
    let dst = Id::decode(&mut from)?;
    let from = &mut from;
    let message = match from.try_get_u8()? {
        0 => Message::Ping(from.try_get_u8()?),
        1 => Message::Ack(from.try_get_u8()?),
        2 => Message::PingReq { target: Id::decode(from)?, probe_number: from.try_get_u8()? },
        3 => Message::IndirectPing { origin: Id::decode(from)?, probe_number: from.try_get_u8()? },
        4 => Message::IndirectAck { target: Id::decode(from)?, probe_number: from.try_get_u8()? },
        5 => Message::ForwardedAck { origin: Id::decode(from)?, probe_number: from.try_get_u8()? },
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        9 => Message::Broadcast,
        10 => Message::TurnUndead,
        _ => return Err(Malformed),
    };
    Ok(Header { src, src_incarnation, dst, message })
}

/// A message as its tag, the third node that it names, and its probe number.
fn parts(message: &Message<Id>) -> (u8, Option<&Id>, Option<u8>) {
    match message {
        Message::Ping(number) => (0, None, Some(*number)),
        Message::Ack(number) => (1, None, Some(*number)),
        Message::PingReq { target, probe_number } => (2, Some(target), Some(*probe_number)),
        Message::IndirectPing { origin, probe_number } => (3, Some(origin), Some(*probe_number)),
        Message::IndirectAck { target, probe_number } => (4, Some(target), Some(*probe_number)),
        Message::ForwardedAck { origin, probe_number } => (5, Some(origin), Some(*probe_number)),
        Message::Announce => (6, None, None),
        Message::Feed => (7, None, None),
        Message::Gossip => (8, None, None),
        Message::Broadcast => (9, None, None),
        Message::TurnUndead => (10, None, None),
    }
}
