//! How many calls a plugin serves at once, and how many may wait.
//!
//! Calls that serve another call of the node (a getter that gets from another group)
//! have a small reserve of their own for each depth of nesting: they never wait for
//! an instance that waits for them.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use crate::group::Chain;

/// Instances in reserve for each depth of nesting. One would be enough to go on; two
/// keep one slow origin from holding up all nested calls.
const NESTED: usize = 2;

/// Why a call is not admitted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Too many wait already.
    Full,
    /// Its deadline passed while it waited.
    Deadline,
}

/// The doorkeeper of one plugin.
pub(super) struct Admission {
    calls: Semaphore,
    nested: [Semaphore; Chain::DEPTH_MAX],
    waiting: AtomicU32,
    waiting_max: u32,
}

impl Admission {
    /// Admits `calls` at once and lets `waiting_max` more wait.
    pub(super) fn new(calls: u32, waiting_max: u32) -> Self {
        let calls = usize::try_from(calls).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            calls: Semaphore::new(calls),
            nested: std::array::from_fn(|_| Semaphore::new(NESTED)),
            waiting: AtomicU32::new(0),
            waiting_max,
        }
    }

    /// Calls that wait now.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// Waits for its turn until `deadline`. `depth`: how many fills this call stands in.
    pub(super) async fn enter(
        &self,
        depth: usize,
        deadline: Instant,
    ) -> Result<SemaphorePermit<'_>, Refused> {
        if let Ok(permit) = self.calls.try_acquire() {
            return Ok(permit);
        }
        let line = match depth.checked_sub(1) {
            None => &self.calls,
            Some(level) => &self.nested[level.min(Chain::DEPTH_MAX - 1)],
        };
        if let Ok(permit) = line.try_acquire() {
            return Ok(permit);
        }
        let _place = Place::take(&self.waiting, self.waiting_max).ok_or(Refused::Full)?;
        match timeout_at(deadline, line.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphores are never closed.
            Ok(Err(_)) => Err(Refused::Full),
            Err(_) => Err(Refused::Deadline),
        }
    }
}

/// A place in the queue, given up when dropped.
struct Place<'a>(&'a AtomicU32);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicU32, max: u32) -> Option<Self> {
        let joined = waiting.fetch_add(1, Relaxed);
        let place = Self(waiting);
        (joined < max).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_more_than_may_wait_is_refused_at_once() {
        let admission = Admission::new(1, 1);
        let soon = Instant::now() + Duration::from_secs(1);
        let serving = admission.enter(0, soon).await.expect("admitted");
        let (waited, refused) = tokio::join!(admission.enter(0, soon), admission.enter(0, soon));
        assert_eq!(waited.expect_err("timed out"), Refused::Deadline);
        assert_eq!(refused.expect_err("refused"), Refused::Full);
        drop(serving);
        let again = admission.enter(0, soon).await;
        assert!(again.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_nested_call_does_not_wait_for_the_calls_it_serves() {
        let admission = Admission::new(1, 10);
        let soon = Instant::now() + Duration::from_secs(1);
        let mut chain = vec![admission.enter(0, soon).await.expect("admitted")];
        for depth in 1..=Chain::DEPTH_MAX {
            chain.push(admission.enter(depth, soon).await.expect("nested"));
        }
        assert_eq!(chain.len(), Chain::DEPTH_MAX + 1);
    }
}
