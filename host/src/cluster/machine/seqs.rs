//! Sets of numbers that are mostly without gaps.
//!
//! Invariants:
//! - ranges are in order, and no two of them overlap or touch: equal sets are equal values.

/// A set of numbers, as ranges with both ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seqs(Vec<(u64, u64)>);

impl Seqs {
    pub(super) fn contains(&self, seq: u64) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= seq);
        after.checked_sub(1).is_some_and(|at| seq <= self.0[at].1)
    }

    /// Whether all of `other` is in it.
    pub(super) fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|&(first, last)| {
            let after = self.0.partition_point(|it| it.0 <= first);
            after.checked_sub(1).is_some_and(|at| last <= self.0[at].1)
        })
    }

    /// Adds `first`, `last` and all between them.
    pub(super) fn add(&mut self, first: u64, last: u64) {
        let from = self.0.partition_point(|it| it.1.saturating_add(1) < first);
        let to = self.0.partition_point(|it| it.0 <= last.saturating_add(1));
        let touched = self.0[from..to].iter();
        let one = touched.fold((first, last), |one, it| (one.0.min(it.0), one.1.max(it.1)));
        self.0.splice(from..to, [one]);
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        for (first, last) in &other.0 {
            self.add(*first, *last);
        }
    }

    /// Whether one more number would be a range of its own.
    pub(super) fn is_apart(&self, seq: u64) -> bool {
        !self.0.iter().any(|it| it.0 <= seq.saturating_add(1) && seq <= it.1.saturating_add(1))
    }

    /// The highest number, or 0.
    pub(super) fn last(&self) -> u64 {
        self.0.last().map_or(0, |(_, last)| *last)
    }

    /// Whether a number between 1 and the highest is not in it.
    pub(super) fn has_gap(&self) -> bool {
        !matches!(self.0[..], [] | [(0 | 1, _)])
    }

    pub(super) fn ranges(&self) -> &[(u64, u64)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_hold_what_a_set_holds(
            adds in prop::collection::vec((1..60_u64, 0..9_u64), 0..30),
            others in prop::collection::vec((1..60_u64, 0..3_u64), 0..5),
        ) {
            let build = |adds: &[(u64, u64)]| {
                let (mut seqs, mut set) = (Seqs::default(), BTreeSet::new());
                for &(first, more) in adds {
                    seqs.add(first, first + more);
                    set.extend(first..=first + more);
                }
                (seqs, set)
            };
            let (mut seqs, mut set) = build(&adds);
            let (other, other_set) = build(&others);
            for seq in 0..80 {
                prop_assert_eq!(seqs.contains(seq), set.contains(&seq));
                let near = [seq.saturating_sub(1), seq, seq + 1];
                prop_assert_eq!(seqs.is_apart(seq), !near.iter().any(|it| set.contains(it)));
            }
            prop_assert_eq!(seqs.covers(&other), set.is_superset(&other_set));
            prop_assert_eq!(seqs.last(), set.last().copied().unwrap_or(0));
            prop_assert_eq!(seqs.has_gap(), (1..=seqs.last()).any(|it| !set.contains(&it)));
            prop_assert!(seqs.ranges().windows(2).all(|it| it[0].1 + 1 < it[1].0));
            seqs.add_all(&other);
            set.extend(other_set);
            prop_assert!((0..80).all(|seq| seqs.contains(seq) == set.contains(&seq)));
        }
    }
}
