//! The body of a reply: a cached value without a copy, or a short text.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use crate::{value::Value, wire::Head};

/// What a reply carries: nothing, or one chunk of known length.
#[derive(Debug, Default)]
pub(crate) struct ReplyBody(Option<Chunk>);

/// The bytes of a reply's body. A value stays where memory holds it.
#[derive(Debug)]
pub(crate) enum Chunk {
    /// A cached value, from the byte `at` on.
    Value {
        /// The value, shared with memory.
        value: Value,
        /// How much of it has been sent.
        at: usize,
    },
    /// A cached value with the end of a message behind it, from the byte `at` on.
    Framed {
        /// The value, shared with memory.
        value: Value,
        /// What follows it.
        after: Head,
        /// How much of both has been sent.
        at: usize,
    },
    /// Anything else.
    Text(Bytes),
}

impl ReplyBody {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self(None)
    }

    /// What it carries.
    pub(crate) fn into_chunk(self) -> Option<Chunk> {
        self.0
    }
}

impl From<Value> for ReplyBody {
    fn from(value: Value) -> Self {
        if value.body().is_empty() {
            return Self::empty();
        }
        Self(Some(Chunk::Value { value, at: 0 }))
    }
}

impl From<Bytes> for ReplyBody {
    fn from(text: Bytes) -> Self {
        if text.is_empty() {
            return Self::empty();
        }
        Self(Some(Chunk::Text(text)))
    }
}

impl Body for ReplyBody {
    type Data = Chunk;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, Infallible>>> {
        Poll::Ready(self.0.take().map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |chunk| chunk.remaining() as u64))
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        match self {
            Self::Framed { value, after, at } => value.body().len() + after.as_ref().len() - at,
            _ => self.chunk().len(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            // `advance` keeps `at` within the value.
            Self::Value { value, at } => &value.body()[*at..],
            Self::Framed { value, after, at } => match at.checked_sub(value.body().len()) {
                None => &value.body()[*at..],
                Some(at) => &after.as_ref()[at..],
            },
            Self::Text(text) => text,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Value { value, at } => {
                assert!(count <= value.body().len() - *at, "advanced past the end of a value");
                *at += count;
            }
            Self::Framed { value, after, at } => {
                let length = value.body().len() + after.as_ref().len();
                assert!(count <= length - *at, "advanced past the end of a message");
                *at += count;
            }
            Self::Text(text) => text.advance(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_sent_from_where_memory_holds_it() {
        let value = Value::new(b"hello");
        let mut body = ReplyBody::from(value.clone());
        assert_eq!(body.size_hint().exact(), Some(5));
        let mut chunk = body.0.take().expect("a value has a chunk");
        assert_eq!(chunk.chunk().as_ptr(), value.body().as_ptr());
        chunk.advance(2);
        assert_eq!((chunk.remaining(), chunk.chunk()), (3, &b"llo"[..]));
        assert!(body.is_end_stream());
    }

    #[test]
    fn the_end_of_a_message_follows_its_value() {
        let (_, after) = crate::wire::GetResponse::around(5, Some(0));
        let mut chunk = Chunk::Framed { value: Value::new(b"hello"), after, at: 0 };
        let mut sent = Vec::new();
        while chunk.has_remaining() {
            sent.push(chunk.chunk()[0]);
            chunk.advance(1);
        }
        assert_eq!(sent, b"hello\x18\x00");
    }

    #[test]
    fn an_empty_value_is_no_body_at_all() {
        assert!(ReplyBody::from(Value::new(b"")).is_end_stream());
        assert!(ReplyBody::from(Bytes::new()).is_end_stream());
    }
}
