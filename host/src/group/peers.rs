//! What a group asks of whoever speaks to the other nodes.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{BoxFuture, FillError};
use crate::value::Value;

/// Asks other nodes for the keys that they own.
pub trait Peers: Send + Sync + 'static {
    /// Whether another node is to be asked for `key`. Answers at once.
    fn is_remote(&self, group: &str, key: &[u8]) -> bool;

    /// Asks the owner of a key, and whoever stands in for it if it cannot be reached.
    /// Ends by the question's deadline.
    fn ask(&self, question: Question) -> BoxFuture<'_, Asked>;
}

/// A key that another node owns.
#[derive(Clone, Debug)]
pub struct Question {
    /// Name of the group.
    pub group: Arc<str>,
    /// The key: opaque bytes.
    pub key: Arc<[u8]>,
    /// When nobody waits for the answer any more.
    pub deadline: Instant,
}

/// What came of a question.
#[derive(Clone, Debug)]
pub enum Asked {
    /// The key has this value, which holds for so long; without a time, it does not
    /// expire.
    Found(Value, Option<Duration>),
    /// There is no such key.
    NotFound,
    /// The owner's getter failed: the last word, since it has asked the origin.
    Failed(FillError),
    /// Nobody could be asked, or it is this node's turn: it fills the key itself.
    Unanswered,
}
