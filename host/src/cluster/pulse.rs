//! The cluster's pulse: when its thread ran last.
//!
//! A process that was stopped and goes on may run its serving threads before the cluster's
//! thread has noticed that the node was away. Whoever must not serve then looks here first.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// The longest time between two beats of a thread that is well.
pub const PULSE: Duration = Duration::from_millis(250);

/// When the cluster's thread ran last; cheap to ask and to clone.
#[derive(Clone, Debug)]
pub struct Pulse {
    began: Instant,
    /// Milliseconds since then.
    last: Arc<AtomicU64>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), last: Arc::default() }
    }

    /// The thread runs, and whoever [hears](super::Hear) has been told if it was away.
    pub(super) fn beat(&self) {
        self.last.store(millis(self.began.elapsed()), Ordering::Release);
    }

    /// How long ago, at `now`, the thread ran last. More than a second says that this node
    /// was or is held up; a thread that has died does not run again.
    pub fn age(&self, now: Instant) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Acquire));
        now.saturating_duration_since(self.began).saturating_sub(last)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
