//! Which shards serve: a word that every lookup reads before it takes a lock.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};

/// Shards next to one another in the row: a power of two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    first: u8,
    mask: u8,
}

impl Run {
    /// `count` shards from the one at `first`.
    ///
    /// # Panics
    /// Where `count` is no power of two, or the row is longer than a byte can say: both
    /// are this crate's own choice.
    pub(super) fn new(first: usize, count: usize) -> Self {
        assert!(count.is_power_of_two(), "shards are chosen by the low bits of a hash");
        let byte = |number| u8::try_from(number).expect("a row is short");
        Self { first: byte(first), mask: byte(count - 1) }
    }

    pub(super) fn first(self) -> usize {
        self.first.into()
    }

    pub(super) fn len(self) -> usize {
        usize::from(self.mask) + 1
    }

    /// The shards' places in the row.
    pub(super) fn indices(self) -> std::ops::Range<usize> {
        self.first()..self.first() + self.len()
    }

    /// The place of the shard that keys of this hash belong to.
    #[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
    pub(super) fn index(self, hash: u64) -> usize {
        usize::from(self.first) + usize::from(hash as u8 & self.mask)
    }
}

/// Which run serves, and which one its answers are being moved from, if any. No two
/// plans of one store are equal: each has the number of its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan(u64);

const LEAVING: u32 = 16;
const IS_MOVING: u64 = 1 << 32;
const TURN: u64 = 1 << 33;

impl Plan {
    pub(super) fn serving(self) -> Run {
        Self::run(self.0)
    }

    /// The run that is being emptied: it comes first in every lookup.
    pub(super) fn leaving(self) -> Option<Run> {
        (self.0 & IS_MOVING != 0).then(|| Self::run(self.0 >> LEAVING))
    }

    #[expect(clippy::cast_possible_truncation, reason = "a byte is what is wanted")]
    fn run(bits: u64) -> Run {
        Run { first: bits as u8, mask: (bits >> 8) as u8 }
    }

    /// The next plan: `serving` serves, and takes over from `leaving`.
    fn next(self, serving: Run, leaving: Option<Run>) -> Self {
        let bits = |run: Run| u64::from(run.first) | u64::from(run.mask) << 8;
        let moving = leaving.map_or(0, |run| IS_MOVING | bits(run) << LEAVING);
        let turn = (self.0 & !(TURN - 1)).wrapping_add(TURN);
        Self(turn | moving | bits(serving))
    }
}

/// The plan in force.
#[derive(Debug)]
pub(super) struct PlanCell(AtomicU64);

impl PlanCell {
    pub(super) fn new(serving: Run) -> Self {
        Self(AtomicU64::new(Plan(0).next(serving, None).0))
    }

    pub(super) fn load(&self) -> Plan {
        Plan(self.0.load(Acquire))
    }

    /// Puts the next plan in force. One at a time.
    pub(super) fn set(&self, serving: Run, leaving: Option<Run>) {
        self.0.store(self.load().next(serving, leaving).0, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_as_it_was_set() {
        let cell = PlanCell::new(Run::new(0, 16));
        let first = cell.load();
        assert_eq!((first.serving(), first.leaving()), (Run::new(0, 16), None));
        cell.set(Run::new(16, 4), Some(Run::new(0, 16)));
        let moving = cell.load();
        assert_eq!(moving.serving(), Run::new(16, 4));
        assert_eq!(moving.leaving(), Some(Run::new(0, 16)));
        cell.set(Run::new(0, 16), None);
        assert_eq!(cell.load().leaving(), None);
        assert_ne!(cell.load(), first, "it is another turn");
    }

    #[test]
    fn every_hash_has_a_shard_of_the_run() {
        let run = Run::new(16, 4);
        for hash in [0, 1, 3, 4, u64::MAX] {
            assert!(run.indices().contains(&run.index(hash)));
        }
        assert_eq!(run.index(6), 18);
    }
}
