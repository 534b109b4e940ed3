//! A group: a keyspace with its own getter and its own memory.
mod getter;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::{runtime::Handle, time::Instant};

pub use getter::{BoxFuture, Chain, Fill, FillError, Getter, Outcome, Reason};

use crate::{
    config::Caching,
    metrics::GroupMetrics,
    value::{Hit, Provenance},
};

/// What a caller of [`Group::get`] brings along.
#[derive(Clone, Debug)]
pub struct Context {
    /// When this caller stops waiting. The fill it may have set off goes on.
    pub deadline: Instant,
    /// The fills this get is part of, when a getter asks.
    pub chain: Chain,
}

impl Context {
    /// A caller that waits until `deadline`.
    pub fn until(deadline: Instant) -> Self {
        Self { deadline, chain: Chain::default() }
    }

    /// A caller that waits for `patience` from now.
    pub fn within(patience: Duration) -> Self {
        Self::until(Instant::now() + patience)
    }
}

/// Why a get has no value.
#[derive(Clone, Debug, Error)]
pub enum GetError {
    /// The origin says that there is no such key. Final: asking again before
    /// [`Provenance::ttl`] has passed is answered from memory.
    #[error("no such key")]
    NotFound(Provenance),
    /// The fill failed, now or a moment ago.
    #[error("{error}")]
    Fill {
        /// What the getter reported.
        error: FillError,
        /// When the node will ask the origin again: until then the same error is
        /// answered from memory.
        retry_after: Duration,
    },
    /// The caller's own deadline passed. The fill goes on and serves the next caller.
    #[error("no answer within the caller's deadline")]
    Deadline,
    /// As many fills as the group allows are under way.
    #[error("too many fills under way")]
    Overloaded,
    /// The getter of this key, directly or through others, asks for the key itself,
    /// or asks through too many groups.
    #[error("the getters' own gets form a cycle or nest too deeply")]
    Cycle,
}

/// A keyspace with its own getter and its own memory.
#[derive(Debug)]
pub struct Group {
    name: Arc<str>,
}

impl Group {
    /// A group that fills its misses from `getter`, in tasks on `fills`.
    pub fn new(
        _name: &str,
        _settings: Caching,
        _getter: Arc<dyn Getter>,
        _fills: Handle,
        _metrics: GroupMetrics,
    ) -> Arc<Self> {
        todo!()
    }

    /// Name of the group.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Looks `key` up: in memory, then at the getter.
    pub async fn get(self: &Arc<Self>, _key: &[u8], _cx: &Context) -> Result<Hit, GetError> {
        todo!()
    }

    /// What memory alone answers: `None` when a get would have to wait for a fill.
    /// Never waits. This is the whole of a hit; [`Group::get`] begins with it.
    pub fn recall(self: &Arc<Self>, _key: &[u8]) -> Option<Result<Hit, GetError>> {
        todo!()
    }

    /// Looks into memory without a trace: no refresh, no promotion, no metric.
    pub fn peek(&self, _key: &[u8]) -> Option<Result<Hit, GetError>> {
        todo!()
    }

    /// Forgets `key`: its value, its failures, and the answer of any fill that began
    /// before now. Says whether memory held an answer.
    pub fn purge(&self, _key: &[u8]) -> bool {
        todo!()
    }

    /// Forgets every key, as [`Group::purge`] does for one.
    pub fn purge_all(&self) {
        todo!()
    }

    /// What the group holds and does at this moment.
    pub fn usage(&self) -> GroupUsage {
        todo!()
    }
}

/// What a group holds and does at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupUsage {
    /// Answers in memory, remembered not-founds included.
    pub items: u64,
    /// Bytes they count for: keys, values and bookkeeping.
    pub bytes: u64,
    /// The budget these bytes stay within.
    pub budget: u64,
    /// Answers dropped to stay within the budget since start.
    pub evictions: u64,
    /// Fills under way.
    pub flights: u64,
}

/// The groups of a node by name, replaced as a whole when they change.
#[derive(Debug, Default)]
pub struct Groups(ArcSwap<BTreeMap<String, Arc<Group>>>);

impl Groups {
    /// The group of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Group>> {
        self.0.load().get(name).cloned()
    }

    /// All groups in the order of their names.
    pub fn all(&self) -> Vec<Arc<Group>> {
        self.0.load().values().cloned().collect()
    }

    /// Puts `groups` in the place of all that were there.
    pub fn replace(&self, groups: impl IntoIterator<Item = Arc<Group>>) {
        let by_name = groups.into_iter().map(|group| (group.name().to_owned(), group)).collect();
        self.0.store(Arc::new(by_name));
    }
}
