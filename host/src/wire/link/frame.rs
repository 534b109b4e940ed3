//! The frames of a link.
//!
//! A frame is its length (32 bits, little endian, of what follows), its kind (one byte), the
//! number of the question it is about (32 bits), and what its kind says.

use std::{sync::Arc, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderValue;
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3Default;

use crate::value::Head;

/// Bytes of a frame, its length left out. A key has room, and a chunk of a value.
pub const FRAME_MAX: usize = 96 << 10;

/// Bytes of an error's text.
pub const TEXT_MAX: usize = 4 << 10;

/// Labels of a value, of either kind.
const LABELS_MAX: usize = 1_024;

const GET: u8 = 1;
const CANCEL: u8 = 2;
const WORKING: u8 = 3;
const FOUND: u8 = 4;
const CHUNK: u8 = 5;
const NOT_FOUND: u8 = 6;
const FAILED: u8 = 7;
const UNANSWERED: u8 = 8;

/// Bytes that are not a frame: the link is over.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a frame of a link: {0}")]
pub struct Broken(&'static str);

/// A key that the other end is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Name of the group.
    pub group: Box<str>,
    /// The key: opaque bytes.
    pub key: Bytes,
    /// Time for which somebody waits for the answer.
    pub patience: Duration,
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
    /// Nobody waits for the answer any more.
    Cancel,
    /// The answer takes time, and this node is at it.
    Working,
    /// The key has a value, whose `length` bytes follow in chunks.
    Found {
        /// What was asked for, digested: see [`check`].
        check: u64,
        /// Time for which the value holds; `None` if it is not to be kept.
        ttl: Option<Duration>,
        /// Bytes of the value.
        length: u64,
        /// What describes it.
        head: Option<Arc<Head>>,
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
    /// This node cannot say anything about the key: it has no such group, or no room.
    Unanswered,
}

/// A digest of what was asked for. An answer repeats it, so that one that got to the wrong
/// question is noticed.
pub fn check(group: &str, key: &[u8]) -> u64 {
    let mut hash = Xxh3Default::new();
    hash.update(&(group.len() as u64).to_le_bytes());
    hash.update(group.as_bytes());
    hash.update(key);
    hash.digest()
}

impl Frame {
    /// Appends this frame, about the question `id`, to `out`. `false` if it is larger than a
    /// frame may be; then nothing is appended.
    #[must_use]
    pub fn write(&self, id: u32, out: &mut Vec<u8>) -> bool {
        let begin = out.len();
        out.extend_from_slice(&[0; 4]);
        out.push(self.kind());
        out.extend_from_slice(&id.to_le_bytes());
        let fits = self.write_body(out).is_some() && out.len() - begin - 4 <= FRAME_MAX;
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

    fn kind(&self) -> u8 {
        match self {
            Self::Get(_) => GET,
            Self::Cancel => CANCEL,
            Self::Working => WORKING,
            Self::Found { .. } => FOUND,
            Self::Chunk(_) => CHUNK,
            Self::NotFound { .. } => NOT_FOUND,
            Self::Failed { .. } => FAILED,
            Self::Unanswered => UNANSWERED,
        }
    }

    fn write_body(&self, out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Cancel | Self::Working | Self::Unanswered => {}
            Self::Get(Question { group, key, patience }) => {
                put_millis(out, *patience);
                put(out, group.as_bytes())?;
                out.extend_from_slice(key);
            }
            Self::Found { check, ttl, length, head } => {
                out.extend_from_slice(&check.to_le_bytes());
                put_millis(out, ttl.unwrap_or_default());
                out.extend_from_slice(&length.to_le_bytes());
                put_head(out, head.as_deref())?;
            }
            Self::Chunk(bytes) => out.extend_from_slice(bytes),
            Self::NotFound { check } => out.extend_from_slice(&check.to_le_bytes()),
            Self::Failed { failure, retry_after, text } => {
                out.push(*failure as u8);
                put_millis(out, *retry_after);
                out.extend_from_slice(&text.as_bytes()[..text.floor_char_boundary(TEXT_MAX)]);
            }
        }
        Some(())
    }

    fn read(kind: u8, mut body: Bytes) -> Result<Self, Broken> {
        let frame = match kind {
            GET => {
                let patience = take_millis(&mut body)?;
                let group = take_text(&mut body)?;
                let key = std::mem::take(&mut body);
                Self::Get(Question { group, key, patience })
            }
            CANCEL => Self::Cancel,
            WORKING => Self::Working,
            FOUND => Self::Found {
                check: take_u64(&mut body)?,
                ttl: Some(take_millis(&mut body)?).filter(|ttl| !ttl.is_zero()),
                length: take_u64(&mut body)?,
                head: take_head(&mut body)?.map(Arc::new),
            },
            CHUNK => Self::Chunk(std::mem::take(&mut body)),
            NOT_FOUND => Self::NotFound { check: take_u64(&mut body)? },
            FAILED => Self::Failed {
                failure: failure(take(&mut body, 1)?[0])?,
                retry_after: take_millis(&mut body)?,
                text: String::from_utf8_lossy(&std::mem::take(&mut body)).into_owned(),
            },
            UNANSWERED => Self::Unanswered,
            _ => return Err(Broken("an unknown kind")),
        };
        if body.is_empty() { Ok(frame) } else { Err(Broken("more than its kind has")) }
    }
}

/// Takes frames from the stream of a link.
#[derive(Debug, Default)]
pub struct Decoder(BytesMut);

impl Decoder {
    /// More of the stream.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next frame, with the number of its question, if all of it has arrived.
    ///
    /// # Errors
    /// What has arrived is no frame.
    pub fn take(&mut self) -> Result<Option<(u32, Frame)>, Broken> {
        let Some(&length) = self.0.first_chunk() else { return Ok(None) };
        let length = u32::from_le_bytes(length) as usize;
        if length > FRAME_MAX {
            return Err(Broken("longer than a frame may be"));
        }
        if self.0.len() < 4 + length {
            return Ok(None);
        }
        self.0.advance(4);
        let mut body = self.0.split_to(length).freeze();
        let kind = take(&mut body, 1)?[0];
        let id = take(&mut body, 4)?;
        let id = u32::from_le_bytes([id[0], id[1], id[2], id[3]]);
        Ok(Some((id, Frame::read(kind, body)?)))
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    out.extend_from_slice(&u16::try_from(bytes.len()).ok()?.to_le_bytes());
    out.extend_from_slice(bytes);
    Some(())
}

fn put_millis(out: &mut Vec<u8>, time: Duration) {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    // A time that is left is not none.
    let millis = if time.is_zero() { 0 } else { millis.max(1) };
    out.extend_from_slice(&millis.to_le_bytes());
}

fn put_head(out: &mut Vec<u8>, head: Option<&Head>) -> Option<()> {
    let Some(head) = head else {
        out.push(0);
        return Some(());
    };
    let text = |text: &Option<Box<str>>| text.as_deref().unwrap_or_default().as_bytes().to_vec();
    let has = |is: bool, flag: u8| if is { flag } else { 0 };
    out.push(1 | has(head.content_type.is_some(), 2) | has(head.validator.is_some(), 4));
    put(out, head.content_type.as_ref().map_or(&[], HeaderValue::as_bytes))?;
    put(out, &text(&head.validator))?;
    put_count(out, head.tags.len())?;
    for tag in &head.tags {
        put(out, tag.as_bytes())?;
    }
    put_count(out, head.metadata.len())?;
    for (name, value) in &head.metadata {
        put(out, name.as_bytes())?;
        put(out, value.as_bytes())?;
    }
    Some(())
}

fn put_count(out: &mut Vec<u8>, count: usize) -> Option<()> {
    let count = u16::try_from(count).ok().filter(|&count| usize::from(count) <= LABELS_MAX)?;
    out.extend_from_slice(&count.to_le_bytes());
    Some(())
}

fn take(body: &mut Bytes, length: usize) -> Result<Bytes, Broken> {
    if body.len() < length { Err(Broken("it ends early")) } else { Ok(body.split_to(length)) }
}

fn take_u16(body: &mut Bytes) -> Result<usize, Broken> {
    take(body, 2).map(|mut two| usize::from(two.get_u16_le()))
}

fn take_u64(body: &mut Bytes) -> Result<u64, Broken> {
    take(body, 8).map(|mut eight| eight.get_u64_le())
}

fn take_millis(body: &mut Bytes) -> Result<Duration, Broken> {
    take_u64(body).map(Duration::from_millis)
}

fn take_bytes(body: &mut Bytes) -> Result<Bytes, Broken> {
    let length = take_u16(body)?;
    take(body, length)
}

fn take_text(body: &mut Bytes) -> Result<Box<str>, Broken> {
    let bytes = take_bytes(body)?;
    std::str::from_utf8(&bytes).map(Box::from).map_err(|_| Broken("a text is none"))
}

fn take_head(body: &mut Bytes) -> Result<Option<Head>, Broken> {
    let flags = take(body, 1)?[0];
    if flags == 0 {
        return Ok(None);
    }
    let content_type = take_bytes(body)?;
    let validator = take_text(body)?;
    let mut tags = Vec::new();
    for _ in 0..take_count(body)? {
        tags.push(take_text(body)?);
    }
    let mut metadata = Vec::new();
    for _ in 0..take_count(body)? {
        metadata.push((take_text(body)?, take_text(body)?));
    }
    let content_type =
        HeaderValue::from_maybe_shared(content_type).map_err(|_| Broken("a media type is none"))?;
    Ok(Some(Head {
        content_type: (flags & 2 != 0).then_some(content_type),
        validator: (flags & 4 != 0).then_some(validator),
        tags,
        metadata,
    }))
}

fn take_count(body: &mut Bytes) -> Result<usize, Broken> {
    let count = take_u16(body)?;
    if count > LABELS_MAX { Err(Broken("too many labels")) } else { Ok(count) }
}

fn failure(number: u8) -> Result<Failure, Broken> {
    use Failure::{Denied, Internal, InvalidKey, TimedOut, Unavailable};
    [InvalidKey, Denied, Unavailable, TimedOut, Internal]
        .into_iter()
        .find(|failure| *failure as u8 == number)
        .ok_or(Broken("an unknown failure"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head() -> Head {
        Head {
            content_type: Some(HeaderValue::from_static("text/plain")),
            validator: Some("v1".into()),
            tags: vec!["a".into(), "".into()],
            metadata: vec![("name".into(), "value".into())],
        }
    }

    fn frames() -> Vec<Frame> {
        let key = Bytes::from_static(b"\xff//key");
        let patience = Duration::from_millis(1_500);
        vec![
            Frame::Get(Question { group: "words".into(), key, patience }),
            Frame::Cancel,
            Frame::Working,
            Frame::Found { check: 7, ttl: None, length: u64::MAX, head: None },
            Frame::Found {
                check: check("words", b"k"),
                ttl: Some(Duration::from_mins(1)),
                length: 5,
                head: Some(Arc::new(head())),
            },
            Frame::Found { check: 1, ttl: None, length: 0, head: Some(Arc::default()) },
            Frame::Chunk(Bytes::from_static(b"hello")),
            Frame::NotFound { check: 9 },
            Frame::Failed {
                failure: Failure::Unavailable,
                retry_after: Duration::from_secs(1),
                text: "down".to_owned(),
            },
            Frame::Unanswered,
        ]
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_the_stream_is_cut() {
        let mut stream = Vec::new();
        for (id, frame) in (0..).zip(frames()) {
            assert!(frame.write(id, &mut stream));
        }
        for step in [1, 3, 7, stream.len()] {
            let (mut decoder, mut read) = (Decoder::default(), Vec::new());
            for part in stream.chunks(step) {
                decoder.extend(part);
                while let Some(frame) = decoder.take().expect("a frame") {
                    read.push(frame);
                }
            }
            assert_eq!(read, (0..).zip(frames()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_frame_that_is_too_large_is_not_written() {
        let mut out = b"before".to_vec();
        let key = Bytes::from(vec![0; FRAME_MAX]);
        let patience = Duration::ZERO;
        let large = Frame::Get(Question { group: "g".into(), key, patience });
        assert!(!large.write(1, &mut out));
        let labels = vec!["t".into(); LABELS_MAX + 1];
        let head = Some(Arc::new(Head { tags: labels, ..Head::default() }));
        assert!(!Frame::Found { check: 0, ttl: None, length: 0, head }.write(1, &mut out));
        assert_eq!(out, b"before");
    }

    #[test]
    fn a_digest_tells_questions_apart() {
        assert_ne!(check("ab", b"c"), check("a", b"bc"));
        assert_ne!(check("", b"k"), check("k", b""));
    }

    proptest! {
        #[test]
        fn no_stream_panics_or_grows(bytes in prop::collection::vec(any::<u8>(), 0..4_096)) {
            let mut decoder = Decoder::default();
            decoder.extend(&bytes);
            while let Ok(Some(_)) = decoder.take() {}
        }

        #[test]
        fn damaged_frames_are_refused_or_read(
            which in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(),
            to in any::<u8>(),
        ) {
            let mut stream = Vec::new();
            prop_assert!(which.get(&frames()).write(3, &mut stream));
            let at = at.index(stream.len());
            stream[at] = to;
            let mut decoder = Decoder::default();
            decoder.extend(&stream);
            while let Ok(Some(_)) = decoder.take() {}
        }
    }
}
