//! Why a get has no value.

use std::time::Duration;

use thiserror::Error;

use super::FillError;
use crate::value::Provenance;

/// Why a get has no value.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
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
