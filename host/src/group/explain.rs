//! What a group knows about one key, for whoever asks why a get answers as it does.

use std::time::Duration;

use tokio::time::Instant;

use super::Group;
use crate::store::{Age, Entry, State};

/// What a group knows about one key. Finding it out changes nothing: no refresh, no
/// promotion, no metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What memory holds, if it may still be served.
    pub held: Option<Holding>,
    /// The failure that is served from memory instead of a fill, and for how long.
    pub failing: Option<(String, Duration)>,
    /// Whether a fill of the key is under way here.
    pub is_filling: bool,
    /// Why the getter would not be asked.
    pub refused: Option<String>,
}

/// An answer in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Bytes of its body; `None` when it says that there is no value.
    pub bytes: Option<usize>,
    /// Whether it is a copy of what another node owns.
    pub is_copy: bool,
    /// Whether this node has it from the memory of another one, which owned the key before.
    pub is_given: bool,
    /// Whether it is past its TTL, and served while it is refreshed.
    pub is_stale: bool,
    /// Time since the getter gave it.
    pub age: Duration,
    /// Time for which it stays fresh.
    pub ttl: Duration,
}

impl Group {
    /// What the group knows about `key` at this moment.
    pub fn explain(&self, key: &[u8]) -> Explanation {
        let now = Instant::now();
        let held = |is_copy: bool, found: Option<(Entry, Age)>| {
            let (entry, age) = found.filter(|(_, age)| age.state != State::Dead)?;
            let is_given = entry.is_given();
            Some(Holding {
                is_given,
                bytes: entry.value.map(|value| value.body().len()),
                is_copy,
                is_stale: age.state == State::Stale,
                age: age.age(),
                ttl: age.ttl(),
            })
        };
        let copied = || held(true, self.away.get()?.hot.peek(key, now));
        Explanation {
            held: held(false, self.store.peek(key, now)).or_else(copied),
            failing: self.failures.recall(key, now).map(|(error, rest)| (error.to_string(), rest)),
            is_filling: self.flights.is_open(key),
            refused: self.loads.refusal(&self.name, key).map(|error| error.to_string()),
        }
    }
}
