//! Keys whose calls keep costing an instance, remembered so that they cost no more.
//!
//! A program that traps on one key or computes for ever on it does so each time. After
//! some such calls in a row the key is left alone for a while, which doubles with each
//! further one; a call that ends in any other way clears it. A trip for several keys
//! that went wrong so puts all of them under suspicion: each is loaded by itself until
//! it is cleared, which finds the one that spoils the trips of the others.
//!
//! Keys are remembered by a hash, and only so many of them: the one that was heard of
//! longest ago goes first, and costs an instance too many.
//!
//! Invariant: of a key's calls in a row that go wrong, only the first is news. The breaker
//! counts that one alone, so that no single key opens it.

use std::{num::NonZeroUsize, time::Duration};

use lru::LruCache;
use tokio::time::Instant;

use crate::config::Failure;

/// Keys remembered at once, at some sixty bytes each. A plugin that traps on more of
/// them is broken, and its breaker opens.
const KEYS_MAX: NonZeroUsize = NonZeroUsize::new(1_024).expect("not zero");

/// Share by which a pause is shortened at random.
const JITTER: f64 = 0.25;

/// The suspects and the poisonous keys of one plugin, by hash.
#[derive(Debug)]
pub(super) struct Poison {
    keys: LruCache<u64, Record>,
    /// How many of them are poisonous, and not just suspects.
    poisonous: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// Calls in a row that went wrong.
    strikes: u32,
    /// The last pause before jitter.
    pause: Duration,
    until: Option<Instant>,
}

impl Record {
    fn is_poisonous(&self) -> bool {
        self.until.is_some()
    }
}

impl Poison {
    /// Nothing is suspect.
    pub(super) fn new() -> Self {
        Self { keys: LruCache::sparse(KEYS_MAX), poisonous: 0 }
    }

    /// Whether nothing is suspect.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many keys are poisonous.
    pub(super) fn poisonous(&self) -> usize {
        self.poisonous
    }

    /// Whether `key` has gone wrong and was not cleared since.
    pub(super) fn is_suspect(&self, key: u64) -> bool {
        self.keys.contains(&key)
    }

    /// After how many calls `key` is left alone, and for how much longer.
    pub(super) fn left_alone(&self, key: u64, now: Instant) -> Option<(u32, Duration)> {
        let record = self.keys.peek(&key)?;
        let left = record.until?.checked_duration_since(now)?;
        (!left.is_zero()).then_some((record.strikes, left))
    }

    /// Counts a call for `key` alone that cost an instance. Whether it is the first one
    /// in a row.
    pub(super) fn strike(&mut self, key: u64, settings: &Failure, now: Instant) -> bool {
        let mut record = self.keys.get(&key).copied().unwrap_or_default();
        let was_poisonous = record.is_poisonous();
        record.strikes = record.strikes.saturating_add(1);
        if settings.poison_faults > 0 && record.strikes >= settings.poison_faults {
            let pause =
                if was_poisonous { record.pause.saturating_mul(2) } else { settings.poison };
            record.pause = pause.min(settings.poison_max);
            record.until = Some(now + record.pause.mul_f64(1.0 - JITTER * fastrand::f64()));
        }
        self.put(key, record);
        record.strikes == 1
    }

    /// Puts `key` under suspicion: it was one of several in a call that went wrong.
    pub(super) fn suspect(&mut self, key: u64) {
        let record = self.keys.get(&key).copied().unwrap_or_default();
        self.put(key, record);
    }

    /// A call for `key` left its instance whole.
    pub(super) fn clear(&mut self, key: u64) {
        if let Some(record) = self.keys.pop(&key) {
            self.poisonous -= usize::from(record.is_poisonous());
        }
    }

    /// Forgets everything, as for another program.
    pub(super) fn clear_all(&mut self) {
        *self = Self::new();
    }

    fn put(&mut self, key: u64, record: Record) {
        let replaced = self.keys.push(key, record);
        let was = replaced.is_some_and(|(_, replaced)| replaced.is_poisonous());
        self.poisonous += usize::from(record.is_poisonous());
        self.poisonous -= usize::from(was);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn settings() -> Failure {
        Failure {
            poison_faults: 3,
            poison: 10 * SECOND,
            poison_max: 40 * SECOND,
            ..Failure::default()
        }
    }

    fn left(poison: &Poison, key: u64, now: Instant) -> Duration {
        poison.left_alone(key, now).expect("left alone").1
    }

    #[test]
    fn a_key_that_keeps_going_wrong_is_left_alone_for_longer_each_time() {
        let (mut poison, mut now) = (Poison::new(), Instant::now());
        for _ in 0..2 {
            poison.strike(1, &settings(), now);
            assert_eq!(poison.left_alone(1, now), None);
        }
        for (strikes, seconds) in [(3, 10), (4, 20), (5, 40), (6, 40)] {
            poison.strike(1, &settings(), now);
            let pause = left(&poison, 1, now);
            let whole = seconds * SECOND;
            assert!((whole.mul_f64(1.0 - JITTER)..=whole).contains(&pause), "{pause:?}");
            assert_eq!(poison.left_alone(1, now), Some((strikes, pause)));
            now += pause;
            assert_eq!(poison.left_alone(1, now), None, "one more call finds out");
        }
        assert_eq!(poison.left_alone(2, now), None);
        assert_eq!(poison.poisonous(), 1);
    }

    #[test]
    fn a_call_that_ends_otherwise_clears_the_key() {
        let (mut poison, now) = (Poison::new(), Instant::now());
        for _ in 0..3 {
            poison.strike(1, &settings(), now);
        }
        poison.clear(1);
        assert!(poison.is_empty() && poison.poisonous() == 0);
        assert!(poison.strike(1, &settings(), now), "the first one again");
        assert_eq!(poison.left_alone(1, now), None);
    }

    #[test]
    fn only_the_first_call_in_a_row_is_news() {
        let (mut poison, now) = (Poison::new(), Instant::now());
        let news: Vec<_> = (0..5).map(|_| poison.strike(1, &settings(), now)).collect();
        assert_eq!(news, [true, false, false, false, false]);
    }

    #[test]
    fn suspicion_alone_costs_a_key_nothing() {
        let (mut poison, now) = (Poison::new(), Instant::now());
        for _ in 0..10 {
            poison.suspect(1);
        }
        assert!(poison.is_suspect(1) && poison.left_alone(1, now).is_none());
        assert_eq!(poison.poisonous(), 0);
        poison.strike(2, &settings(), now);
        poison.suspect(2);
        assert!(!poison.strike(2, &settings(), now), "strikes are not forgotten for it");
    }

    #[test]
    fn it_can_be_switched_off() {
        let (mut poison, now) = (Poison::new(), Instant::now());
        for _ in 0..100 {
            poison.strike(1, &Failure { poison_faults: 0, ..settings() }, now);
        }
        assert_eq!(poison.left_alone(1, now), None);
    }

    #[test]
    fn only_so_many_keys_are_remembered() {
        let (mut poison, now) = (Poison::new(), Instant::now());
        let settings = Failure { poison_faults: 1, ..settings() };
        for key in 0..3_000 {
            poison.strike(key, &settings, now);
        }
        assert_eq!((poison.keys.len(), poison.poisonous()), (1_024, 1_024));
        poison.clear_all();
        assert_eq!((poison.keys.len(), poison.poisonous()), (0, 0));
    }
}
