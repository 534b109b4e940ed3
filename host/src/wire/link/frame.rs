//! The frames of a link.
//!
//! A frame is its length (32 bits, little endian, of what follows), its kind (one byte), the
//! number of the question it is about (32 bits), and what its kind says.

use std::{sync::Arc, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3Default;

use super::fields::{
    failure, put, put_millis, put_terms, take, take_bytes, take_millis, take_terms, take_text,
    take_u64, why,
};
use crate::value::Head;

/// Bytes of a frame, its length left out. A key has room, and a chunk of a value.
pub const FRAME_MAX: usize = 96 << 10;

/// Bytes of an error's text.
pub const TEXT_MAX: usize = 4 << 10;

/// Bytes of news that travel with a question.
pub const NEWS_MAX: usize = 4 << 10;

const GET: u8 = 1;
const CANCEL: u8 = 2;
const WORKING: u8 = 3;
const FOUND: u8 = 4;
const CHUNK: u8 = 5;
const NOT_FOUND: u8 = 6;
const FAILED: u8 = 7;
const UNANSWERED: u8 = 8;
const PEEK: u8 = 9;
const NOT_HELD: u8 = 10;
const OFFER: u8 = 11;
const TAKEN: u8 = 12;

/// Bytes that are not a frame: the link is over.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a frame of a link: {0}")]
pub struct Broken(pub(super) &'static str);

/// A key that the other end is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Name of the group.
    pub group: Box<str>,
    /// The key: opaque bytes.
    pub key: Bytes,
    /// Time for which somebody waits for the answer.
    pub patience: Duration,
    /// Digest of the code that fills the group where the question comes from; 0 if an answer
    /// of any code will do.
    pub code: u64,
    /// What the other end must have heard before it looks for the answer, in words that
    /// are not the link's: at most [`NEWS_MAX`] bytes.
    pub news: Bytes,
}

/// What holds of a value, whose bytes follow in chunks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Time for which it stays fresh; `None` if it is not to be kept.
    pub ttl: Option<Duration>,
    /// Time after that for which it may be served stale.
    pub grace: Duration,
    /// Time since its getter gave it.
    pub age: Duration,
    /// Bytes of the value.
    pub length: u64,
    /// Whether the node that says this has it from another one's memory.
    pub is_given: bool,
    /// What describes it.
    pub head: Option<Arc<Head>>,
}

/// A value that the other end is to keep, since it owns the key from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Name of the group.
    pub group: Box<str>,
    /// The key: opaque bytes.
    pub key: Bytes,
    /// As in [`Question`].
    pub code: u64,
    /// As in [`Question`].
    pub news: Bytes,
    /// What holds of the value.
    pub terms: Terms,
}

/// Why a question goes unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is no such group here, or no room for the question.
    NoRoom,
    /// Other code fills the group here.
    OtherCode,
}

/// Why a getter failed, in a form that travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The key can never be valid.
    InvalidKey,
    /// The origin refused.
    Denied,
    /// The origin is down, slow or overloaded.
    Unavailable,
    /// There was no answer in time.
    TimedOut,
    /// The getter's own fault.
    Internal,
}

/// What is said about a question, and the question itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// A key is asked for.
    Get(Question),
    /// A key is asked for, and nothing but memory is to answer: with [`Frame::Found`] or
    /// [`Frame::NotHeld`], at once.
    Peek(Question),
    /// A value is handed over; its chunks follow. Answered with [`Frame::Taken`].
    Offer(Offer),
    /// Nobody waits for the answer any more, or the rest of an offer does not follow.
    Cancel,
    /// The answer takes time, and this node is at it.
    Working,
    /// The key has a value.
    Found {
        /// What was asked for, digested: see [`check`].
        check: u64,
        /// What holds of the value.
        terms: Terms,
    },
    /// Some of a value.
    Chunk(Bytes),
    /// There is no such key.
    NotFound {
        /// As in [`Frame::Found`].
        check: u64,
    },
    /// The getter failed.
    Failed {
        /// How.
        failure: Failure,
        /// Time for which the key is left alone.
        retry_after: Duration,
        /// In words.
        text: String,
    },
    /// This node cannot say anything about the key.
    Unanswered(Why),
    /// Memory holds no fresh value of the key.
    NotHeld,
    /// Whether what was offered is in memory now.
    Taken(bool),
}

/// A digest of what was asked for, and of the code that is to have answered it. An answer
/// repeats it, so that one that got to the wrong question is noticed.
pub fn check(group: &str, key: &[u8], code: u64) -> u64 {
    let mut hash = Xxh3Default::new();
    hash.update(&(group.len() as u64).to_le_bytes());
    hash.update(group.as_bytes());
    hash.update(&code.to_le_bytes());
    hash.update(key);
    hash.digest()
}

impl Frame {
    /// Appends this frame, about the question `id`, to `out`. `false` if it is larger than a
    /// frame may be; then nothing is appended.
    #[must_use]
    pub fn write(&self, id: u32, out: &mut Vec<u8>) -> bool {
        append(out, self.kind(), id, |out| self.write_body(out))
    }

    /// As [`Frame::write`], for a [`Frame::Chunk`] of these bytes.
    #[must_use]
    pub fn write_chunk(bytes: &[u8], id: u32, out: &mut Vec<u8>) -> bool {
        append(out, CHUNK, id, |out| {
            out.extend_from_slice(bytes);
            Some(())
        })
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Get(_) => GET,
            Self::Peek(_) => PEEK,
            Self::Offer(_) => OFFER,
            Self::Cancel => CANCEL,
            Self::Working => WORKING,
            Self::Found { .. } => FOUND,
            Self::Chunk(_) => CHUNK,
            Self::NotFound { .. } => NOT_FOUND,
            Self::Failed { .. } => FAILED,
            Self::Unanswered(_) => UNANSWERED,
            Self::NotHeld => NOT_HELD,
            Self::Taken(_) => TAKEN,
        }
    }

    fn write_body(&self, out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Cancel | Self::Working | Self::NotHeld => {}
            Self::Get(question) | Self::Peek(question) => question.write(out)?,
            Self::Offer(offer) => offer.write(out)?,
            Self::Found { check, terms } => {
                out.extend_from_slice(&check.to_le_bytes());
                put_terms(out, terms)?;
            }
            Self::Chunk(bytes) => out.extend_from_slice(bytes),
            Self::NotFound { check } => out.extend_from_slice(&check.to_le_bytes()),
            Self::Failed { failure, retry_after, text } => {
                out.push(*failure as u8);
                put_millis(out, *retry_after);
                out.extend_from_slice(&text.as_bytes()[..text.floor_char_boundary(TEXT_MAX)]);
            }
            Self::Unanswered(why) => out.push(*why as u8),
            Self::Taken(is_kept) => out.push((*is_kept).into()),
        }
        Some(())
    }

    fn read(kind: u8, mut body: Bytes) -> Result<Self, Broken> {
        let frame = match kind {
            GET => Self::Get(Question::read(&mut body)?),
            PEEK => Self::Peek(Question::read(&mut body)?),
            OFFER => Self::Offer(Offer::read(&mut body)?),
            CANCEL => Self::Cancel,
            WORKING => Self::Working,
            FOUND => Self::Found { check: take_u64(&mut body)?, terms: take_terms(&mut body)? },
            CHUNK => Self::Chunk(std::mem::take(&mut body)),
            NOT_FOUND => Self::NotFound { check: take_u64(&mut body)? },
            FAILED => Self::Failed {
                failure: failure(take(&mut body, 1)?[0])?,
                retry_after: take_millis(&mut body)?,
                text: String::from_utf8_lossy(&std::mem::take(&mut body)).into_owned(),
            },
            UNANSWERED => Self::Unanswered(why(take(&mut body, 1)?[0])?),
            NOT_HELD => Self::NotHeld,
            TAKEN => Self::Taken(take(&mut body, 1)?[0] != 0),
            _ => return Err(Broken("an unknown kind")),
        };
        if body.is_empty() { Ok(frame) } else { Err(Broken("more than its kind has")) }
    }
}

/// Appends a frame, unless it has no body or is larger than a frame may be.
fn append(
    out: &mut Vec<u8>,
    kind: u8,
    id: u32,
    body: impl FnOnce(&mut Vec<u8>) -> Option<()>,
) -> bool {
    let begin = out.len();
    out.extend_from_slice(&[0; 4]);
    out.push(kind);
    out.extend_from_slice(&id.to_le_bytes());
    let fits = body(out).is_some() && out.len() - begin - 4 <= FRAME_MAX;
    match u32::try_from(out.len() - begin - 4) {
        Ok(length) if fits => {
            out[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
            true
        }
        _ => {
            out.truncate(begin);
            false
        }
    }
}

impl Question {
    fn write(&self, out: &mut Vec<u8>) -> Option<()> {
        put_millis(out, self.patience);
        out.extend_from_slice(&self.code.to_le_bytes());
        put(out, self.group.as_bytes())?;
        put_news(out, &self.news)?;
        out.extend_from_slice(&self.key);
        Some(())
    }

    fn read(body: &mut Bytes) -> Result<Self, Broken> {
        Ok(Self {
            patience: take_millis(body)?,
            code: take_u64(body)?,
            group: take_text(body)?,
            news: take_news(body)?,
            key: std::mem::take(body),
        })
    }
}

impl Offer {
    fn write(&self, out: &mut Vec<u8>) -> Option<()> {
        out.extend_from_slice(&self.code.to_le_bytes());
        put(out, self.group.as_bytes())?;
        put_news(out, &self.news)?;
        put_terms(out, &self.terms)?;
        out.extend_from_slice(&self.key);
        Some(())
    }

    fn read(body: &mut Bytes) -> Result<Self, Broken> {
        Ok(Self {
            code: take_u64(body)?,
            group: take_text(body)?,
            news: take_news(body)?,
            terms: take_terms(body)?,
            key: std::mem::take(body),
        })
    }
}

fn put_news(out: &mut Vec<u8>, news: &[u8]) -> Option<()> {
    if news.len() <= NEWS_MAX { put(out, news) } else { None }
}

fn take_news(body: &mut Bytes) -> Result<Bytes, Broken> {
    let news = take_bytes(body)?;
    if news.len() <= NEWS_MAX { Ok(news) } else { Err(Broken("more news than there may be")) }
}

/// Takes frames from the stream of a link.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What has arrived and was not taken yet.
    pub(super) stream: BytesMut,
}

impl Decoder {
    /// More of the stream.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.stream.extend_from_slice(bytes);
    }

    /// The next frame, with the number of its question, if all of it has arrived.
    ///
    /// # Errors
    /// What has arrived is no frame.
    pub fn take(&mut self) -> Result<Option<(u32, Frame)>, Broken> {
        let Some(&length) = self.stream.first_chunk() else { return Ok(None) };
        let length = u32::from_le_bytes(length) as usize;
        if length > FRAME_MAX {
            return Err(Broken("longer than a frame may be"));
        }
        if self.stream.len() < 4 + length {
            return Ok(None);
        }
        self.stream.advance(4);
        let mut body = self.stream.split_to(length).freeze();
        let kind = take(&mut body, 1)?[0];
        let id = take(&mut body, 4)?;
        let id = u32::from_le_bytes([id[0], id[1], id[2], id[3]]);
        Ok(Some((id, Frame::read(kind, body)?)))
    }
}

#[cfg(test)]
mod tests;
