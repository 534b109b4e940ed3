//! How many times took how long, in a fixed amount of memory: exact to 1.6 %.
//!
//! Times are counted by their highest bit and the six bits after it.

use std::time::Duration;

/// Counts for each highest bit.
const PARTS: usize = 1 << PART_BITS;
const PART_BITS: u32 = 6;

/// A distribution of times.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum: u128,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        let counts = vec![0; (u64::BITS - PART_BITS + 1) as usize * PARTS];
        Self { counts, count: 0, sum: 0, max: 0 }
    }
}

impl Histogram {
    pub(super) fn record(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.counts[slot(nanos)] += 1;
        self.count += 1;
        self.sum += u128::from(nanos);
        self.max = self.max.max(nanos);
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    pub(super) fn mean(&self) -> Duration {
        let mean = self.sum / u128::from(self.count.max(1));
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// The time that `share` of all are within.
    pub(super) fn at(&self, share: f64) -> Duration {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count, which is far from the bounds"
        )]
        let rank = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (slot, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && *count > 0 {
                return Duration::from_nanos(last_of(slot).min(self.max));
            }
        }
        self.max()
    }
}

fn slot(nanos: u64) -> usize {
    let high = (u64::BITS - nanos.leading_zeros()).saturating_sub(PART_BITS + 1);
    // In the first two rounds, every number has a slot of its own.
    let part = usize::try_from(nanos >> high).unwrap_or(0);
    high as usize * PARTS + part
}

/// The largest number that is counted in `slot`.
fn last_of(slot: usize) -> u64 {
    let high = (slot / PARTS).saturating_sub(1);
    let part = (slot - high * PARTS) as u64;
    ((part + 1) << high).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_again_to_a_64th() {
        let numbers = (0..64).flat_map(|bit| [1_u64 << bit, (1 << bit) + (1 << bit) / 3]);
        for nanos in numbers.chain([0, 63, 64, 127, 128, u64::MAX]) {
            let last = last_of(slot(nanos));
            assert!(last >= nanos && last - nanos <= nanos / 64, "{nanos}: {last}");
            assert_eq!(slot(last), slot(nanos));
        }
    }

    #[test]
    fn percentiles_are_those_of_the_times() {
        let mut histogram = Histogram::default();
        for micros in 1..=1_000 {
            histogram.record(Duration::from_micros(micros));
        }
        let near = |share: f64, micros: f64| {
            let found = histogram.at(share).as_secs_f64() * 1e6;
            assert!((found - micros).abs() <= micros / 60.0, "{share}: {found}");
        };
        near(0.5, 500.0);
        near(0.9, 900.0);
        near(0.99, 990.0);
        assert_eq!(histogram.at(1.0), Duration::from_millis(1));
        assert_eq!(histogram.max(), Duration::from_millis(1));
        assert_eq!(histogram.mean(), Duration::from_nanos(500_500));
        let mut both = histogram.clone();
        both.add(&histogram);
        assert_eq!((both.count(), both.mean()), (2_000, histogram.mean()));
        assert_eq!(Histogram::default().at(0.5), Duration::ZERO);
    }
}
