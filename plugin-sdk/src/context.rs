//! What the host knows about the call in progress.

#[cfg(target_family = "wasm")]
use crate::bindings::CallHandle as Call;
#[cfg(not(target_family = "wasm"))]
use crate::testing::Call;
use std::time::Duration;

/// The call in progress: who asks, why, and how much time is left.
///
/// In a unit test, [`testing::context`](../testing/fn.context.html) makes one.
#[derive(Debug)]
pub struct Context {
    pub(crate) call: Call,
}

/// Why the host is asking.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// There is no usable entry: a client is waiting.
    #[default]
    Miss,
    /// The entry is stale or about to be: nobody is waiting.
    Refresh,
    /// The operator, or the host, is filling the cache in advance.
    Warm,
}

impl Context {
    /// The name of the cache group the key belongs to.
    pub fn group(&self) -> String {
        self.call.group()
    }

    /// The time left before the host abandons this call. Zero means that it
    /// is time to give up.
    pub fn remaining(&self) -> Duration {
        self.call.remaining()
    }

    /// 1 for the first try, 2 for the first retry, and so on.
    pub fn attempt(&self) -> u32 {
        self.call.attempt()
    }

    /// Why the host is asking.
    pub fn reason(&self) -> Reason {
        self.call.reason()
    }

    /// The validator of the entry being refreshed. When it still holds, the
    /// getter may answer [`Outcome::not_modified`](crate::Outcome::not_modified).
    pub fn validator(&self) -> Option<String> {
        self.call.validator()
    }

    /// The W3C `traceparent` of this call, when tracing is on: to be passed on
    /// to the source.
    pub fn traceparent(&self) -> Option<String> {
        self.call.traceparent()
    }
}
