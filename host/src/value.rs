//! A cached value: what a getter answered, and for how long it holds.
//!
//! A [`Value`] is immutable and shared: cloning one is a single atomic
//! increment, so a hit hands out the stored bytes without copying them. The body,
//! its length and its digest live in one allocation, because a cache of a million
//! small values pays for every separate one.
//!
//! Invariants:
//! - the body is opaque bytes, kept exactly as the getter gave them;
//! - equal bodies have equal [`Value::digest`]s on every node, whatever its version.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderValue;
use triomphe::ThinArc;
use xxhash_rust::xxh3::xxh3_64;

/// An immutable value as a getter gave it, shared by everyone who reads it.
#[derive(Clone)]
pub struct Value(ThinArc<Meta, u8>);

struct Meta {
    digest: u64,
    head: Option<Arc<Head>>,
}

/// What travels beside a body: its media type and the getter's own labels.
///
/// Most values of a group share one head (a media type and nothing else), so it is
/// kept behind an [`Arc`] and [`Value::with_head`] lets many values point at one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Media type, checked to be a legal header value and kept in the form a reply
    /// needs, so that a hit does not convert it.
    pub content_type: Option<HeaderValue>,
    /// Opaque version of the value at its origin, given back to the getter when the
    /// value is refreshed.
    pub validator: Option<Box<str>>,
    /// Labels by which values can be purged together.
    pub tags: Vec<Box<str>>,
    /// Free-form pairs for what is not modelled yet.
    pub metadata: Vec<(Box<str>, Box<str>)>,
}

impl Head {
    /// Whether this head says nothing about one particular value, so that many
    /// values may share it.
    pub fn is_plain(&self) -> bool {
        self.validator.is_none() && self.tags.is_empty() && self.metadata.is_empty()
    }

    /// Bytes on the heap that belong to this head alone.
    fn heap_bytes(&self) -> usize {
        let text = self.validator.as_ref().map_or(0, |v| v.len())
            + self.tags.iter().map(|tag| tag.len() + size_of::<Box<str>>()).sum::<usize>()
            + self
                .metadata
                .iter()
                .map(|(name, value)| name.len() + value.len() + 2 * size_of::<Box<str>>())
                .sum::<usize>();
        size_of::<Self>() + 2 * size_of::<usize>() + text
    }
}

impl Value {
    /// A value of `body` alone, without a media type or labels.
    pub fn new(body: &[u8]) -> Self {
        Self::build(body, None)
    }

    /// A value of `body` described by `head`, which other values may share.
    pub fn with_head(body: &[u8], head: Arc<Head>) -> Self {
        Self::build(body, Some(head))
    }

    fn build(body: &[u8], head: Option<Arc<Head>>) -> Self {
        let digest = xxh3_64(body);
        Self(ThinArc::from_header_and_slice(Meta { digest, head }, body))
    }

    /// The bytes, exactly as the getter gave them.
    pub fn body(&self) -> &[u8] {
        &self.0.slice
    }

    /// XXH3-64 of the body: the same on every node, so it serves as a strong
    /// validator (`ETag`) towards clients. Not a defence against forgery.
    pub fn digest(&self) -> u64 {
        self.0.header.header.digest
    }

    /// The media type, if the getter named one.
    pub fn content_type(&self) -> Option<&HeaderValue> {
        self.head()?.content_type.as_ref()
    }

    /// The getter's validator, for a conditional refresh.
    pub fn validator(&self) -> Option<&str> {
        self.head()?.validator.as_deref()
    }

    /// Everything that describes the body.
    pub fn head(&self) -> Option<&Head> {
        self.0.header.header.head.as_deref()
    }

    /// Bytes this value holds on the heap: body, bookkeeping and its own share of
    /// the head. A shared plain head costs its values nothing.
    pub fn heap_bytes(&self) -> usize {
        let own_head = self.head().filter(|head| !head.is_plain());
        // Reference count and length of the allocation, before the header.
        2 * size_of::<usize>()
            + size_of::<Meta>()
            + self.body().len()
            + own_head.map_or(0, Head::heap_bytes)
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self.body()
    }
}

impl From<Value> for Bytes {
    fn from(value: Value) -> Self {
        Self::from_owner(value)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value")
            .field("bytes", &self.body().len())
            .field("digest", &format_args!("{:016x}", self.digest()))
            .field("head", &self.head())
            .finish()
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.digest() == other.digest()
            && self.body() == other.body()
            && self.head() == other.head()
    }
}

impl Eq for Value {}

/// How long an answer may be served, as its getter says. `None` leaves the choice to
/// the group's settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// Serve as fresh for this long. Zero hands the answer to the waiting callers
    /// without keeping it.
    pub ttl: Option<Duration>,
    /// After the TTL, may still be served this long while a refresh runs or fails.
    pub grace: Option<Duration>,
}

impl Freshness {
    /// Fresh for `ttl`, with the group's own grace.
    pub fn ttl(ttl: Duration) -> Self {
        Self { ttl: Some(ttl), grace: None }
    }
}

/// Where an answer came from and how old it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// Which way the answer took.
    pub served: Served,
    /// Time since the getter gave it.
    pub age: Duration,
    /// Time for which it stays fresh; zero once it is stale or was not kept.
    pub ttl: Duration,
}

/// Which way an answer took to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// From memory, within its TTL.
    Hit,
    /// From memory, past its TTL but within its grace.
    Stale,
    /// From the getter, which this caller's request set off.
    Filled {
        /// Whether the answer was kept for the next caller.
        stored: bool,
    },
    /// From the getter, by a fill that another caller had set off.
    Collapsed {
        /// Whether the answer was kept for the next caller.
        stored: bool,
    },
    /// From the node that owns the key, which this caller's request was the first to ask.
    Peer {
        /// Whether a copy was kept for the next caller.
        stored: bool,
    },
}

impl Served {
    /// Whether memory holds the answer now.
    pub fn is_stored(self) -> bool {
        match self {
            Self::Hit | Self::Stale => true,
            Self::Filled { stored } | Self::Collapsed { stored } | Self::Peer { stored } => stored,
        }
    }
}

/// A value together with where it came from.
#[derive(Clone, Debug)]
pub struct Hit {
    /// What the getter answered.
    pub value: Value,
    /// The way it took and its age.
    pub provenance: Provenance,
}
