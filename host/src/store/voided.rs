//! Spans of time whose not-founds no longer hold.
//!
//! When the code that fills a group is replaced, what the old code said did not exist in
//! its last moments may well exist. To look through the memory for such answers would
//! hold its locks for as long as there are answers; a few spans to compare with cost a
//! remembered not-found some nanoseconds, and everything else nothing.

use std::ops::RangeInclusive;

use arc_swap::ArcSwap;

/// Spans that are told apart. With one more, the two oldest become one that covers the
/// time between them too, whose not-founds then cost a fill each.
const SPANS_MAX: usize = 8;

/// The spans, oldest first, in the milliseconds of the store.
#[derive(Debug, Default)]
pub(super) struct Voided(ArcSwap<Vec<RangeInclusive<u64>>>);

impl Voided {
    pub(super) fn contains(&self, stored: u64) -> bool {
        self.0.load().iter().any(|span| span.contains(&stored))
    }

    pub(super) fn add(&self, span: RangeInclusive<u64>) {
        self.0.rcu(|spans| with(spans, &span));
    }
}

fn with(spans: &[RangeInclusive<u64>], span: &RangeInclusive<u64>) -> Vec<RangeInclusive<u64>> {
    let mut spans = spans.to_vec();
    match spans.last_mut() {
        Some(last) if span.start() <= last.end() => *last = join(last, span),
        _ => spans.push(span.clone()),
    }
    if spans.len() > SPANS_MAX {
        let first = spans.remove(0);
        spans[0] = join(&first, &spans[0]);
    }
    spans
}

fn join(one: &RangeInclusive<u64>, other: &RangeInclusive<u64>) -> RangeInclusive<u64> {
    *one.start().min(other.start())..=*one.end().max(other.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_that_meet_become_one_and_the_oldest_are_joined_when_there_are_too_many() {
        let voided = Voided::default();
        voided.add(10..=20);
        voided.add(15..=30);
        assert_eq!(voided.0.load().len(), 1);
        assert!(voided.contains(10) && voided.contains(30) && !voided.contains(31));
        for start in 1..=20 {
            voided.add(100 * start..=100 * start + 10);
        }
        assert_eq!(voided.0.load().len(), SPANS_MAX);
        assert!(voided.contains(10) && voided.contains(105) && voided.contains(2_010));
        assert!(!voided.contains(2_050) && !voided.contains(1_950));
    }
}
