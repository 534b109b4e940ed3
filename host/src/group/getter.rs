//! What a group asks of whoever fills its misses.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::time::Instant;

use crate::value::{Freshness, Head, Value};

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Fills the misses of a group: a plugin, or code of the program that embeds us.
///
/// A getter is called at most once at a time for a key, from a task that belongs to
/// nobody's request, and its future is dropped at [`Fill::deadline`]. It may panic:
/// that costs one fill an error.
pub trait Getter: Send + Sync + 'static {
    /// Loads one key from its origin.
    fn load(&self, fill: Fill) -> BoxFuture<'_, Result<Outcome, FillError>>;

    /// How many keys [`Getter::load_many`] takes at once; 1 when it is of no use.
    fn batch_max(&self) -> usize {
        1
    }

    /// Loads several keys in one trip: one result for each of `fills`, in order. All
    /// of them share a group; the trip ends by the earliest of their deadlines.
    fn load_many(&self, fills: Vec<Fill>) -> BoxFuture<'_, Vec<Result<Outcome, FillError>>> {
        Box::pin(async move {
            let mut results = Vec::with_capacity(fills.len());
            for fill in fills {
                results.push(self.load(fill).await);
            }
            results
        })
    }

    /// Why a load of `key` for `group` would be refused just now without a question to
    /// its origin, with [`FillError::NotAsked`]; `None` if it would be tried. A group
    /// looks at this before it sets a fill off, so that a getter that is left alone
    /// costs nothing. Answers at once.
    fn refusal(&self, group: &str, key: &[u8]) -> Option<FillError> {
        let _ = (group, key);
        None
    }

    /// Digest of the code that gives the answers: nodes whose code differs do not answer
    /// one another's questions. 0 where any code will do. Answers at once.
    fn code(&self) -> u64 {
        0
    }

    /// Whether `fill` is to be kept out of trips with others, which it might spoil.
    /// Answers at once.
    fn loads_alone(&self, fill: &Fill) -> bool {
        let _ = fill;
        false
    }

    /// Tries `fill` again, which failed with `error` in a trip that brought answers for
    /// other keys. A trip that brought none is the getter's own to repeat.
    fn retry(&self, fill: Fill, error: FillError) -> BoxFuture<'_, Result<Outcome, FillError>> {
        drop(fill);
        Box::pin(std::future::ready(Err(error)))
    }
}

/// Makes a getter of an async closure: the way to fill a group from code of this
/// program.
///
/// ```
/// use cachecluster::group::{Fill, FillError, Outcome, getter_fn};
///
/// let shout = getter_fn(|fill: Fill| async move {
///     let word = std::str::from_utf8(&fill.key)
///         .map_err(|_| FillError::InvalidKey("not a word".into()))?;
///     Ok(Outcome::found(word.to_uppercase()))
/// });
/// ```
pub fn getter_fn<F, L>(load: F) -> Arc<dyn Getter>
where
    F: Fn(Fill) -> L + Send + Sync + 'static,
    L: Future<Output = Result<Outcome, FillError>> + Send + 'static,
{
    Arc::new(FromFn(load))
}

struct FromFn<F>(F);

impl<F, L> Getter for FromFn<F>
where
    F: Fn(Fill) -> L + Send + Sync + 'static,
    L: Future<Output = Result<Outcome, FillError>> + Send + 'static,
{
    fn load(&self, fill: Fill) -> BoxFuture<'_, Result<Outcome, FillError>> {
        Box::pin((self.0)(fill))
    }
}

/// One key to load, and what is known about why.
#[derive(Clone, Debug)]
pub struct Fill {
    /// Name of the group.
    pub group: Arc<str>,
    /// The key: opaque bytes.
    pub key: Arc<[u8]>,
    /// When the fill is abandoned.
    pub deadline: Instant,
    /// 1 for the first try, 2 for the first retry, and so on.
    pub attempt: u32,
    /// Why the key is loaded.
    pub reason: Reason,
    /// Validator of the value being refreshed, for a conditional load.
    pub validator: Option<Box<str>>,
    /// The gets that led to this fill, outermost first.
    pub chain: Chain,
}

/// Why a key is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing usable is in memory: a caller waits.
    Miss,
    /// The value in memory is stale: nobody waits.
    Refresh,
    /// Nobody asked yet.
    Warm,
}

/// What an origin said. Each of these is a success: it was reached and spoke.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The key has this value.
    Found(Value, Freshness),
    /// There is no such key. Remembered, so that asking again costs nothing.
    NotFound(Freshness),
    /// The value named by [`Fill::validator`] still holds.
    NotModified(Freshness),
}

impl Outcome {
    /// A value without a media type, kept for the group's own TTL.
    pub fn found(body: impl AsRef<[u8]>) -> Self {
        Self::Found(Value::new(body.as_ref()), Freshness::default())
    }

    /// A value described by `head`, kept as `freshness` says. Values with the same
    /// media type and nothing else should be given the same head.
    pub fn described(
        body: impl AsRef<[u8]>,
        head: impl Into<Arc<Head>>,
        freshness: Freshness,
    ) -> Self {
        Self::Found(Value::with_head(body.as_ref(), head.into()), freshness)
    }

    /// No such key, remembered for the group's own negative TTL.
    pub fn not_found() -> Self {
        Self::NotFound(Freshness::default())
    }
}

/// Why a fill failed. Never cached as an answer, but remembered for the group's
/// backoff so that a failing key does not hammer its origin.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FillError {
    /// The key can never be valid for this group.
    #[error("invalid key: {0}")]
    InvalidKey(String),
    /// The origin, or the plugin's grants, refused.
    #[error("denied: {0}")]
    Denied(String),
    /// The origin is slow, down or overloaded; a later try may succeed.
    #[error("origin unavailable: {message}")]
    Unavailable {
        /// What the getter says happened.
        message: String,
        /// The origin asked not to be tried again sooner.
        retry_after: Option<Duration>,
    },
    /// This node has no room for the fill now; the origin was not asked.
    #[error("overloaded: {0}")]
    Overloaded(String),
    /// The getter is left alone, with this key or altogether, because calls failed; the
    /// origin was not asked. Not remembered as a failure of the key.
    #[error("not asked: {message}")]
    NotAsked {
        /// What failed, and for how long it is left alone.
        message: String,
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// The deadline passed first.
    #[error("timed out: {0}")]
    TimedOut(String),
    /// The getter failed in a way that is its own fault: a trap, a panic, an answer
    /// out of bounds.
    #[error("getter failed: {0}")]
    Internal(String),
}

/// Bytes of an error's text that are kept: it is remembered for each failing key and
/// shown to clients.
const ERROR_TEXT_MAX: usize = 1_024;

impl FillError {
    /// The same error with its text cut to a length that can be remembered.
    #[must_use]
    pub(super) fn bounded(mut self) -> Self {
        let (Self::InvalidKey(text)
        | Self::Denied(text)
        | Self::Unavailable { message: text, .. }
        | Self::NotAsked { message: text, .. }
        | Self::Overloaded(text)
        | Self::TimedOut(text)
        | Self::Internal(text)) = &mut self;
        if text.len() > ERROR_TEXT_MAX {
            text.truncate(text.floor_char_boundary(ERROR_TEXT_MAX));
            text.push('…');
            text.shrink_to_fit();
        }
        self
    }

    /// Whether the origin was not even asked: this says nothing about the key.
    pub(super) fn is_unasked(&self) -> bool {
        matches!(self, Self::Overloaded(_) | Self::NotAsked { .. })
    }

    /// How long the origin asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The keys that are being filled on behalf of one another, outermost first.
///
/// A getter may get from other groups; a chain that came back to a key it already
/// holds would wait for itself, and one without a bound would exhaust the node.
#[derive(Clone, Debug, Default)]
pub struct Chain(Option<Arc<Link>>);

#[derive(Debug)]
struct Link {
    group: Arc<str>,
    key: Arc<[u8]>,
    /// Other keys of the group that the same call fills.
    beside: Box<[Arc<[u8]>]>,
    depth: usize,
    outer: Chain,
}

impl Link {
    fn keys(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        std::iter::once(&self.key).chain(&self.beside)
    }
}

impl Chain {
    /// How many fills may stand inside one another: more is a design error in the
    /// getters rather than a need.
    pub const DEPTH_MAX: usize = 4;

    /// How many fills are under way in this chain.
    pub fn depth(&self) -> usize {
        self.0.as_ref().map_or(0, |link| link.depth)
    }

    /// Whether `key` of `group` is already being filled in this chain.
    pub fn contains(&self, group: &str, key: &[u8]) -> bool {
        let mut chain = self;
        while let Some(link) = &chain.0 {
            if &*link.group == group && link.keys().any(|filled| **filled == *key) {
                return true;
            }
            chain = &link.outer;
        }
        false
    }

    /// This chain with one more fill inside.
    #[must_use]
    pub fn with(&self, group: Arc<str>, key: Arc<[u8]>) -> Self {
        let beside = Box::default();
        let depth = self.depth() + 1;
        Self(Some(Arc::new(Link { group, key, beside, depth, outer: self.clone() })))
    }

    /// This chain when the call that serves its innermost fill serves fills of `keys` of
    /// the same group with it.
    #[must_use]
    pub fn beside<'a>(&self, keys: impl IntoIterator<Item = &'a Arc<[u8]>>) -> Self {
        let Some(link) = &self.0 else { return self.clone() };
        let beside = keys.into_iter().filter(|key| !Arc::ptr_eq(key, &link.key)).cloned();
        Self(Some(Arc::new(Link {
            group: Arc::clone(&link.group),
            key: Arc::clone(&link.key),
            beside: beside.collect(),
            depth: link.depth,
            outer: link.outer.clone(),
        })))
    }

    /// The keys of the innermost fill, and of those that its call serves with it.
    pub(super) fn innermost(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.0.iter().flat_map(|link| link.keys())
    }
}
