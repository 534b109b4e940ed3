//! How often something may happen: so many times a second in the long run, and a burst
//! of them at once.
//!
//! Each time has a moment when it is due; whoever comes early waits for it. The time of
//! a bucket that fills by the second, kept as one instant (the generic cell rate
//! algorithm).

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The times at which something may happen.
#[derive(Debug)]
pub(super) struct Rate {
    interval: Duration,
    /// How far ahead of its evenly spread time something may happen.
    lead: Duration,
    /// When the next would be due if they were spread evenly.
    next: Mutex<Instant>,
}

impl Rate {
    /// `per_second` in the long run, `burst` at once; zero of the first is no bound.
    pub(super) fn new(per_second: u32, burst: u32) -> Option<Self> {
        let interval = Duration::from_secs(1).checked_div(per_second)?;
        let lead = interval * burst.saturating_sub(1);
        Some(Self { interval, lead, next: Mutex::new(Instant::now()) })
    }

    /// When it may happen once more; `None`, and it does not count, if that is later
    /// than `latest`.
    pub(super) fn reserve(&self, latest: Instant) -> Option<Instant> {
        let now = Instant::now();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let due = next.checked_sub(self.lead).unwrap_or(now).max(now);
        if due > latest {
            return None;
        }
        *next = (*next).max(now) + self.interval;
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_comes_at_once_and_the_rest_evenly() {
        let rate = Rate::new(10, 3).expect("a bound");
        let now = Instant::now();
        let latest = now + Duration::from_mins(1);
        let due = || rate.reserve(latest).expect("in time") - now;
        let millis: Vec<_> = (0..6).map(|_| due().as_millis()).collect();
        assert_eq!(millis, [0, 0, 0, 100, 200, 300]);
        tokio::time::advance(Duration::from_secs(10)).await;
        let later = || rate.reserve(latest).expect("in time") - now;
        let millis: Vec<_> = (0..4).map(|_| later().as_millis()).collect();
        assert_eq!(millis, [10_000, 10_000, 10_000, 10_100], "no more than the burst is saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn what_would_come_too_late_is_not_counted() {
        let rate = Rate::new(1, 1).expect("a bound");
        let now = Instant::now();
        assert_eq!(rate.reserve(now), Some(now));
        for _ in 0..100 {
            assert_eq!(rate.reserve(now + Duration::from_millis(999)), None);
        }
        let second = now + Duration::from_secs(1);
        assert_eq!(rate.reserve(second), Some(second));
    }

    #[test]
    fn zero_is_no_bound() {
        assert!(Rate::new(0, 5).is_none());
    }
}
