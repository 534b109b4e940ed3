//! What a getter answers: a value, or the knowledge that there is none.

use std::time::Duration;

/// How long an answer may be served. `None` leaves the choice to the group.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Freshness {
    /// Served as fresh for this long, within the bounds the group sets. Zero
    /// hands the answer to the callers now waiting and stores nothing.
    pub ttl: Option<Duration>,
    /// How long after `ttl` the answer may still be served while a refresh
    /// runs, or when it fails.
    pub stale: Option<Duration>,
}

/// A value and what the cache should know about it.
///
/// ```
/// use cachecluster_plugin::Entry;
/// use std::time::Duration;
///
/// let entry = Entry::new("hello")
///     .ttl(Duration::from_mins(1))
///     .stale(Duration::from_secs(3600))
///     .validator("v7")
///     .content_type("text/plain; charset=utf-8")
///     .tag("greetings");
/// assert_eq!(entry.value, b"hello");
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// The value: any bytes, up to the group's limit.
    pub value: Vec<u8>,
    /// How long the value may be served.
    pub freshness: Freshness,
    /// The version of the value (an `ETag`, a row version), given back by
    /// [`Context::validator`](crate::Context::validator) on a refresh; at most
    /// 1 KiB.
    pub validator: Option<String>,
    /// The media type clients are told: at most 256 characters, printable ASCII.
    pub content_type: Option<String>,
    /// Labels to purge by; at most 32, each at most 128 bytes.
    pub tags: Vec<String>,
    /// Pairs kept beside the value; at most 32 and 8 KiB in all. Names are
    /// lower case, and those of the plugin's own begin with `x-`.
    pub metadata: Vec<(String, String)>,
}

impl Entry {
    /// An entry with the group's freshness and nothing else known.
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self { value: value.into(), ..Self::default() }
    }

    /// Serves the value as fresh for `ttl`; zero stores nothing.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.freshness.ttl = Some(ttl);
        self
    }

    /// Serves the value for `stale` more while a refresh runs or fails.
    #[must_use]
    pub fn stale(mut self, stale: Duration) -> Self {
        self.freshness.stale = Some(stale);
        self
    }

    /// Sets the whole freshness at once.
    #[must_use]
    pub fn freshness(mut self, freshness: Freshness) -> Self {
        self.freshness = freshness;
        self
    }

    /// Names the version of the value.
    #[must_use]
    pub fn validator(mut self, validator: impl Into<String>) -> Self {
        self.validator = Some(validator.into());
        self
    }

    /// Names the media type of the value.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Adds a tag to purge by.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Adds a pair of metadata.
    #[must_use]
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((name.into(), value.into()));
        self
    }
}

/// An answer. Each of these is a success: the source was reached and spoke.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The value of the key.
    Found(Entry),
    /// The source says that there is no such key; the cache remembers that.
    NotFound(Freshness),
    /// The value the cache already holds is still the right one. Only an
    /// answer to a call whose [`Context::validator`](crate::Context::validator)
    /// is set.
    NotModified(Freshness),
}

impl Outcome {
    /// The source knows no such key, for the group's negative time to live.
    pub fn not_found() -> Self {
        Self::NotFound(Freshness::default())
    }

    /// The cached value is still right, for the group's time to live.
    pub fn not_modified() -> Self {
        Self::NotModified(Freshness::default())
    }

    /// Lets the answer, whichever it is, stand for `ttl`.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.freshness_mut().ttl = Some(ttl);
        self
    }

    /// Lets the answer, whichever it is, be served `stale` longer.
    #[must_use]
    pub fn stale(mut self, stale: Duration) -> Self {
        self.freshness_mut().stale = Some(stale);
        self
    }

    /// How long the answer may stand.
    pub fn freshness(&self) -> Freshness {
        match self {
            Self::Found(entry) => entry.freshness,
            Self::NotFound(freshness) | Self::NotModified(freshness) => *freshness,
        }
    }

    fn freshness_mut(&mut self) -> &mut Freshness {
        match self {
            Self::Found(entry) => &mut entry.freshness,
            Self::NotFound(freshness) | Self::NotModified(freshness) => freshness,
        }
    }
}

impl From<Entry> for Outcome {
    fn from(entry: Entry) -> Self {
        Self::Found(entry)
    }
}

/// `None` is a key that does not exist.
impl From<Option<Entry>> for Outcome {
    fn from(entry: Option<Entry>) -> Self {
        entry.map_or_else(Self::not_found, Self::Found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_built_from_text_or_bytes() {
        assert_eq!(Entry::new("a").value, b"a");
        assert_eq!(Entry::new(String::from("a")).value, b"a");
        assert_eq!(Entry::new(vec![0xff, 0]).value, [0xff, 0]);
    }

    #[test]
    fn freshness_can_be_set_on_any_outcome() {
        let (ttl, stale) = (Duration::from_secs(1), Duration::from_secs(2));
        for outcome in [Outcome::not_found(), Outcome::not_modified(), Entry::new("a").into()] {
            let freshness = outcome.ttl(ttl).stale(stale).freshness();
            assert_eq!(freshness, Freshness { ttl: Some(ttl), stale: Some(stale) });
        }
    }

    #[test]
    fn no_entry_is_not_found() {
        assert_eq!(Outcome::from(None), Outcome::not_found());
    }
}
