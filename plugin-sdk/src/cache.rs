//! Other groups of the cache, as far as the operator lets this plugin read them.

use crate::{Context, host};
use std::fmt;

/// The value of `key` in `group`, if this node holds it in memory. Never
/// starts a fill, never leaves the node.
pub fn peek(group: &str, key: &str) -> Result<Option<Vec<u8>>, Error> {
    host::cache_peek(group, key)
}

/// The value of `key` in `group`, from wherever in the cluster it is; may fill
/// it. `None` means that the group's getter says there is no such key.
///
/// The nested call has the time that is left to `ctx`.
pub fn get(ctx: &Context, group: &str, key: &str) -> Result<Option<Vec<u8>>, Error> {
    host::cache_get(ctx, group, key)
}

/// Why another group could not be read.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The node has no group of that name.
    NoSuchGroup,
    /// The operator has not granted this plugin that group.
    Denied,
    /// The nested gets came back to a key that is being filled, or are nested
    /// too deeply.
    Cycle,
    /// The value is larger than a plugin may be handed.
    TooLarge,
    /// The nested get failed; the text says how.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchGroup => f.write_str("there is no such group"),
            Self::Denied => f.write_str("this plugin may not read that group"),
            Self::Cycle => f.write_str("the nested gets form a cycle or are too deep"),
            Self::TooLarge => f.write_str("the value is too large for a plugin"),
            Self::Failed(why) => write!(f, "the nested get failed: {why}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Denied => Self::Denied(error.to_string()),
            Error::Failed(_) => Self::unavailable(error.to_string()),
            _ => Self::Internal(error.to_string()),
        }
    }
}
