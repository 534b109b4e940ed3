//! How often keys are asked for, roughly, in a fixed amount of memory.
//!
//! A count-min sketch (Cormode and Muthukrishnan 2005) of counters that are all halved
//! from time to time, as `TinyLFU` has it (Einziger et al. 2017): what was popular once
//! fades. An estimate is never below the truth since the last halvings, and above it only
//! where keys share all of their counters with others.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Counters that each key has, one in each row.
const ROWS: usize = 4;
/// Counters of a row.
const WIDTH: usize = 1 << 15;
/// Keys noted between two halvings: fewer than a row has counters, so that keys which are
/// asked for once do not make one another look popular, however many of them there are.
const PERIOD: u64 = WIDTH as u64 / 2;

/// Estimates of how often keys were asked for lately.
///
/// Any thread may count: a note that is lost to another one at the same moment does not
/// matter to an estimate.
#[derive(Debug)]
pub struct Sketch {
    counters: Box<[AtomicU8]>,
    noted: AtomicU64,
    /// Random, so that nobody can choose keys that share their counters.
    seed: u64,
}

impl Default for Sketch {
    fn default() -> Self {
        Self {
            counters: (0..ROWS * WIDTH).map(|_| AtomicU8::new(0)).collect(),
            noted: AtomicU64::new(0),
            seed: fastrand::u64(..),
        }
    }
}

impl Sketch {
    /// Notes that `key` was asked for; says how often that makes it, this time included.
    pub fn note(&self, key: &[u8]) -> u8 {
        if self.noted.fetch_add(1, Relaxed) % PERIOD == PERIOD - 1 {
            self.halve();
        }
        let mut least = u8::MAX;
        for index in self.places(key) {
            let counter = &self.counters[index];
            let count = counter.load(Relaxed).saturating_add(1);
            counter.store(count, Relaxed);
            least = least.min(count);
        }
        least
    }

    fn places(&self, key: &[u8]) -> [usize; ROWS] {
        let hash = xxh3_64_with_seed(key, self.seed);
        let mut row = 0;
        // 15 bits of the hash for each row: 60 of 64.
        [(); ROWS].map(|()| {
            let part = usize::try_from(hash >> (15 * row)).unwrap_or_default() % WIDTH;
            row += 1;
            (row - 1) * WIDTH + part
        })
    }

    fn halve(&self) {
        for counter in &self.counters {
            counter.store(counter.load(Relaxed) / 2, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_counted_apart() {
        let sketch = Sketch::default();
        for count in 1..=5 {
            assert_eq!(sketch.note(b"often"), count);
        }
        for key in 0..1_000_u32 {
            sketch.note(&key.to_le_bytes());
        }
        assert_eq!(sketch.note(b"once"), 1);
        assert!(sketch.note(b"often") >= 6, "never below the truth");
    }

    #[test]
    fn what_nobody_asks_for_any_more_fades() {
        let sketch = Sketch::default();
        for _ in 0..40 {
            sketch.note(b"old");
        }
        for key in 0..2 * PERIOD {
            sketch.note(&(key % 1_000).to_le_bytes());
        }
        assert!(sketch.note(b"old") <= 40 / 2, "it was halved at least once");
    }

    #[test]
    fn keys_that_are_asked_for_once_look_as_if_they_were_however_many_there_are() {
        let sketch = Sketch::default();
        let keys = 0..40 * PERIOD;
        let popular = keys.clone().filter(|key| sketch.note(&key.to_le_bytes()) >= 3).count();
        assert!((popular as u64) < 40 * PERIOD / 50, "{popular} of {}", keys.end);
    }

    #[test]
    fn a_count_does_not_turn_over() {
        let sketch = Sketch::default();
        let last = (0..1_000).map(|_| sketch.note(b"k")).last();
        assert_eq!(last, Some(u8::MAX));
    }
}
