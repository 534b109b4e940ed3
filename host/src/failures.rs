//! Failures remembered for a while, so that a failing key does not hammer its origin.
//!
//! After a failure a key is left alone for a backoff window, which doubles with each
//! further failure in a row; whoever asks within it gets the same error from memory.
//! Only a bounded number of keys is remembered: the one that failed longest ago goes
//! first, and costs its origin one call too many.
//!
//! Invariant: between two failures of a remembered key lies at least its window.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lru::LruCache;
use tokio::time::Instant;

/// Keys remembered at once: enough for an origin that is down under a busy node, at
/// a few hundred bytes each.
const KEYS_MAX: NonZeroUsize = NonZeroUsize::new(4_096).expect("not zero");

/// Share by which a window is shortened at random, so that keys that failed together
/// are not tried again together.
const JITTER: f64 = 0.25;

/// The recent failures of one group, by key.
#[derive(Debug)]
pub struct Failures<E>(Mutex<Known<E>>);

#[derive(Debug)]
struct Known<E> {
    by_key: LruCache<Box<[u8]>, Failure<E>>,
    backoff: Duration,
    backoff_max: Duration,
}

#[derive(Debug)]
struct Failure<E> {
    error: E,
    /// The window before jitter, from which the next one is doubled.
    window: Duration,
    until: Instant,
}

impl<E: Clone> Failures<E> {
    /// Windows from `backoff`, doubling up to `backoff_max`.
    pub fn new(backoff: Duration, backoff_max: Duration) -> Self {
        Self(Mutex::new(Known { by_key: LruCache::sparse(KEYS_MAX), backoff, backoff_max }))
    }

    /// From the next failure on, windows from `backoff` up to `backoff_max`.
    pub fn set_windows(&self, backoff: Duration, backoff_max: Duration) {
        let mut known = self.lock();
        known.backoff = backoff;
        known.backoff_max = backoff_max;
    }

    /// The error that `key` is still left alone for, and for how much longer.
    pub fn recall(&self, key: &[u8], now: Instant) -> Option<(E, Duration)> {
        let known = self.lock();
        let failure = known.by_key.peek(key)?;
        let left = failure.until.checked_duration_since(now)?;
        (!left.is_zero()).then(|| (failure.error.clone(), left))
    }

    /// Remembers that `key` failed at `now`, and says for how long it is left alone:
    /// for its window, or for as long as its origin asked if that is longer.
    pub fn record(
        &self,
        key: &[u8],
        error: E,
        retry_after: Option<Duration>,
        now: Instant,
    ) -> Duration {
        let mut known = self.lock();
        let (backoff, backoff_max) = (known.backoff, known.backoff_max);
        let window = match known.by_key.peek(key) {
            // A key that failed long ago and has not been asked for since starts anew.
            Some(last) if now < last.until + backoff_max => last.window * 2,
            _ => backoff,
        }
        .min(backoff_max);
        let jittered = window.mul_f64(1.0 - JITTER * fastrand::f64());
        // An origin may ask for more than our own maximum, but not for ever.
        let asked = retry_after.unwrap_or_default().min(10 * backoff_max);
        let wait = jittered.max(asked);
        known.by_key.put(key.into(), Failure { error, window, until: now + wait });
        wait
    }

    /// Forgets the failures of `key`: it succeeded, or is to be tried at once.
    pub fn forget(&self, key: &[u8]) {
        self.lock().by_key.pop(key);
    }

    /// Forgets all failures.
    pub fn forget_all(&self) {
        self.lock().by_key.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Known<E>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn failures() -> Failures<&'static str> {
        Failures::new(SECOND, 8 * SECOND)
    }

    #[test]
    fn a_failing_key_is_left_alone_for_its_window() {
        let (failures, now) = (failures(), Instant::now());
        let wait = failures.record(b"k", "down", None, now);
        assert!(wait <= SECOND && wait >= SECOND.mul_f64(1.0 - JITTER));
        assert_eq!(failures.recall(b"k", now), Some(("down", wait)));
        assert_eq!(failures.recall(b"k", now + wait), None);
        assert_eq!(failures.recall(b"other", now), None);
    }

    #[test]
    fn the_window_doubles_up_to_its_bound_and_a_success_resets_it() {
        let (failures, mut now) = (failures(), Instant::now());
        let mut longest = Duration::ZERO;
        for _ in 0..10 {
            let wait = failures.record(b"k", "down", None, now);
            assert!(wait <= 8 * SECOND);
            longest = longest.max(wait);
            now += wait;
        }
        assert!(longest > 5 * SECOND);
        failures.forget(b"k");
        assert!(failures.record(b"k", "down", None, now) <= SECOND);
    }

    #[test]
    fn an_origin_may_ask_for_longer_but_not_for_ever() {
        let (failures, now) = (failures(), Instant::now());
        assert_eq!(failures.record(b"k", "busy", Some(20 * SECOND), now), 20 * SECOND);
        assert_eq!(failures.record(b"l", "busy", Some(Duration::MAX), now), 80 * SECOND);
    }

    #[test]
    fn a_failure_long_ago_does_not_lengthen_the_window() {
        let (failures, now) = (failures(), Instant::now());
        failures.record(b"k", "down", None, now);
        let later = now + 60 * SECOND;
        assert!(failures.record(b"k", "down", None, later) <= SECOND);
    }

    #[test]
    fn windows_can_be_changed_and_what_is_remembered_stays() {
        let (failures, now) = (failures(), Instant::now());
        let wait = failures.record(b"k", "down", None, now);
        failures.set_windows(60 * SECOND, 100 * SECOND);
        assert_eq!(failures.recall(b"k", now), Some(("down", wait)));
        let wait = failures.record(b"l", "down", None, now);
        assert!(wait > 40 * SECOND && wait <= 60 * SECOND, "{wait:?}");
        failures.set_windows(SECOND, SECOND);
        assert!(failures.record(b"l", "down", None, now + wait) <= SECOND);
    }

    #[test]
    fn only_so_many_keys_are_remembered() {
        let (failures, now) = (failures(), Instant::now());
        for key in 0..2 * KEYS_MAX.get() {
            failures.record(&key.to_le_bytes(), "down", None, now);
        }
        assert_eq!(failures.lock().by_key.len(), KEYS_MAX.get());
    }
}
