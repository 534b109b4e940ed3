//! What a group asks of whoever speaks to the other nodes.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
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

    /// Looks for a key that this node owns in the memory of the node that owned it a moment
    /// ago, in a time that a fill can spare; `None` at once if there is no such node.
    fn peek_previous(&self, question: Question) -> Option<BoxFuture<'_, Option<Held>>> {
        drop(question);
        None
    }

    /// Tells the peers that hear of it in no other way, those of the groupcache family, that
    /// a key has changed; `None` at once if there are none. What is told goes on if nobody
    /// waits for it.
    fn tell(&self, group: &str, change: Change) -> Option<BoxFuture<'static, Told>> {
        let _ = (group, change);
        None
    }

    /// Whether this node is to keep a value of `key` that another one hands over: it owns
    /// the key, or will once that node is gone. Answers at once.
    fn takes_over(&self, group: &str, key: &[u8]) -> bool {
        !self.is_remote(group, key)
    }
}

/// What a node knows that the other one must hear before it answers: purges, of which this
/// room knows nothing but that they exist.
///
/// Whoever purges takes note here first and calls [`super::Group::purge`] then, so that a
/// value that arrives meanwhile is refused by one or forgotten by the other.
pub trait Tidings: Send + Sync + 'static {
    /// What whoever answers a question for this key must know first: empty for nothing,
    /// `None` if it is more than a question has room for, and then the answer is as good as
    /// expired. Answers at once.
    fn for_question(&self, group: &str, key: &[u8]) -> Option<Bytes>;

    /// Takes in what came with a question, before the answer is looked up. Answers at once,
    /// and bears with whatever the other end may have written.
    fn heard(&self, news: &[u8]);

    /// Whether a purge of `key` may have come after a value's fill began, which was `age`
    /// ago or less. Answers at once.
    fn is_outdated(&self, group: &str, key: &[u8], age: Duration) -> bool;
}

/// A key that another node owns.
#[derive(Clone, Debug)]
pub struct Question {
    /// Name of the group.
    pub group: Arc<str>,
    /// The key: opaque bytes.
    pub key: Arc<[u8]>,
    /// When it was put: its answer is due so soon after this.
    pub asked: Instant,
    /// When nobody waits for the answer any more.
    pub deadline: Instant,
    /// Digest of the code that fills the group here: see [`super::Getter::code`].
    pub code: u64,
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
    /// The owner fills the group by other code, and so may whoever stands in for it: this
    /// node fills the key itself.
    OtherCode,
}

/// A key whose value is another one from now on.
#[derive(Clone, Debug)]
pub struct Change {
    /// The key: opaque bytes.
    pub key: Arc<[u8]>,
    /// What it is, and for how long; `None` if that is for the owner's getter to say.
    pub value: Option<(Value, Option<Duration>)>,
}

/// How many peers have been told of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Those that have taken note.
    pub told: usize,
    /// Those that could not be told: what they hold stays until it expires.
    pub missed: usize,
}

impl Told {
    /// One more peer that was told, or was not.
    pub fn count(&mut self, is_told: bool) {
        if is_told {
            self.told += 1;
        } else {
            self.missed += 1;
        }
    }
}

/// A value that a node's memory holds, for another node.
#[derive(Clone, Debug)]
pub struct Held {
    /// The value.
    pub value: Value,
    /// Time for which it stays fresh.
    pub ttl: Duration,
    /// Time after that for which it may be served stale.
    pub grace: Duration,
    /// Time since its getter gave it.
    pub age: Duration,
    /// Whether that node has it from another one's memory in its turn.
    pub is_given: bool,
}
