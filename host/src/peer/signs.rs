//! When somebody who was asked has shown the first sign of life, and how long that takes
//! him as a rule.

use std::{
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Whether there was a sign of life since a question was put, and how soon.
#[derive(Debug)]
pub(super) struct Signs {
    began: Instant,
    first: OnceLock<Duration>,
}

impl Signs {
    pub(super) fn since(began: Instant) -> Self {
        Self { began, first: OnceLock::new() }
    }

    /// When the question was put.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// There is one now. The first counts.
    pub(super) fn show(&self) {
        self.first.get_or_init(|| self.began.elapsed());
    }

    /// How long the first one took.
    pub(super) fn first(&self) -> Option<Duration> {
        self.first.get().copied()
    }
}

/// Times in the estimate before it means something.
const SAMPLES_MIN: u32 = 100;

/// Times after which the older ones count half: the estimate is of the last one or two
/// thousand.
const SAMPLES_MAX: u32 = 2_048;

/// Times between two looks at where the slowest hundredth begins.
const LOOK_EVERY: u32 = 32;

/// Buckets: four for each doubling, from a microsecond to some seconds.
const BUCKETS: usize = 96;

/// How long the first sign of life takes a peer: a histogram in steps of a fifth, in which
/// what was long ago fades.
#[derive(Debug, Default)]
pub(super) struct Latency {
    counts: Mutex<Counts>,
    /// The time in which 99 of 100 signs come, in microseconds; 0 while that is unknown.
    slow: AtomicU32,
}

#[derive(Debug)]
struct Counts {
    buckets: [u32; BUCKETS],
    sum: u32,
    until_look: u32,
}

impl Default for Counts {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], sum: 0, until_look: SAMPLES_MIN }
    }
}

impl Latency {
    pub(super) fn note(&self, time: Duration) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.buckets[bucket(time)] += 1;
        counts.sum += 1;
        counts.until_look -= 1;
        if counts.until_look == 0 {
            counts.until_look = LOOK_EVERY;
            self.slow.store(counts.slow(), Relaxed);
        }
        if counts.sum >= SAMPLES_MAX {
            counts.fade();
        }
    }

    /// The time within which 99 of 100 signs come, once that is known.
    pub(super) fn slow(&self) -> Option<Duration> {
        match self.slow.load(Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros.into())),
        }
    }
}

impl Counts {
    /// The upper end of the bucket that the 99th of 100 falls into, in microseconds.
    fn slow(&self) -> u32 {
        let mut above = self.sum / 100;
        let at = (0..BUCKETS).rev().find(|at| {
            let count = self.buckets[*at];
            let is_it = count > above;
            above = above.saturating_sub(count);
            is_it
        });
        at.map_or(0, upper)
    }

    fn fade(&mut self) {
        for count in &mut self.buckets {
            *count /= 2;
        }
        self.sum = self.buckets.iter().sum();
    }
}

/// Four buckets a doubling, told apart by the two bits below the highest.
fn bucket(time: Duration) -> usize {
    let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX).max(4);
    let doublings = micros.ilog2();
    let quarter = (micros >> (doublings - 2)) & 3;
    (((doublings - 2) * 4 + quarter) as usize).min(BUCKETS - 1)
}

/// The first time, in microseconds, that is above a bucket.
fn upper(bucket: usize) -> u32 {
    let bucket = u32::try_from(bucket).unwrap_or(u32::MAX);
    let (doublings, quarter) = (bucket / 4 + 2, bucket % 4);
    let step = 1_u32 << (doublings - 2);
    (4 + quarter + 1).saturating_mul(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(latency: &Latency, count: u32, millis: u64) {
        for _ in 0..count {
            latency.note(Duration::from_millis(millis));
        }
    }

    #[test]
    fn a_time_is_within_a_quarter_below_the_end_of_its_bucket() {
        for micros in (4..4_000_000_u32).step_by(977) {
            let at = bucket(Duration::from_micros(micros.into()));
            let end = upper(at);
            assert!(micros < end && f64::from(end) <= f64::from(micros) * 1.26, "{micros} {end}");
        }
        assert!(bucket(Duration::from_secs(100_000)) < BUCKETS);
        assert_eq!(bucket(Duration::ZERO), 0);
    }

    #[test]
    fn the_slowest_hundredth_counts_once_there_are_enough() {
        let latency = Latency::default();
        note(&latency, SAMPLES_MIN - 1, 1);
        assert_eq!(latency.slow(), None);
        note(&latency, 1, 1);
        let slow = latency.slow().expect("an estimate");
        assert!((1..2).contains(&slow.as_millis()), "{slow:?}");
        // One in fifty is more than one in a hundred.
        for _ in 0..20 {
            note(&latency, 49, 1);
            note(&latency, 1, 80);
        }
        let slow = latency.slow().expect("an estimate");
        assert!((80..=100).contains(&slow.as_millis()), "{slow:?}");
        // What was long ago fades.
        note(&latency, 20_000, 3);
        let slow = latency.slow().expect("an estimate");
        assert!((3..=4).contains(&slow.as_millis()), "{slow:?}");
    }
}
