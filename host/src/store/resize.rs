//! Changing the budget of a store that serves.
//!
//! A smaller budget drops the least recently used answers at once, a few for each time
//! a shard is locked. Where the number of shards does not fit the new budget, or it is
//! so much smaller that the shards' tables would stay far too large, the answers move
//! to the other run of the row, again a few at a time.
//!
//! While they move, a lookup goes to the shard that is left and then to the one that
//! serves, and a change holds both. What moves takes its part of the budget along, so
//! that the sum of both runs stays what it was.
//!
//! Invariants:
//! - locks are taken in one order, from the shard that is left to the one that serves,
//!   and a plan that was in force when the first of them was taken does not end before
//!   it is let go: a resize passes through every shard it has left before it ends;
//! - an answer is in one of the two runs at any moment that no lock is held, so that a
//!   purge finds it;
//! - nobody waits for a resize, but for the next resize.

use std::sync::{PoisonError, atomic::Ordering::Relaxed};

use super::{Dropped, Run, SHARDS_MAX, Shard, Store, lock, shard_count};

/// Answers that are dropped for each time a shard is locked: some ten microseconds'
/// worth.
const DROPS: usize = 64;

/// Answers that are moved from a shard before it is the next one's turn. Where several
/// become one, the order of their use is kept the better the fewer these are.
const MOVES: usize = 4;

impl Store {
    /// Makes this a store of `budget` bytes, in which values of up to `value_max` bytes
    /// find room, and keeps its contents as far as they fit. Returns how many answers
    /// were dropped. Takes its time with a large store: not for a serving thread.
    pub fn resize(&self, budget: u64, value_max: u64) -> u64 {
        let _one_at_a_time = self.resizing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.plan.load().serving();
        let count = shard_count(budget, value_max);
        let (old_part, part) = (budget / old.len() as u64, budget / count as u64);
        let evicted = if count == old.len() && budget >= self.budget() / 2 {
            self.lower(old, old_part)
        } else {
            // Generous at first: an even part of many shards may be too small for what
            // fits an even part of a few.
            let generous = old_part.saturating_add(old_part.max(value_max));
            let evicted = self.lower(old, generous);
            let new = Run::new(if old.first() == 0 { SHARDS_MAX } else { 0 }, count);
            self.move_over(old, new);
            evicted + self.lower(new, part)
        };
        for index in self.plan.load().serving().indices() {
            lock(&self.row[index]).raise(part);
        }
        self.budget.store(budget, Relaxed);
        evicted
    }

    /// Has no shard of `run` exceed `part`.
    fn lower(&self, run: Run, part: u64) -> u64 {
        let mut evicted = 0;
        for index in run.indices() {
            loop {
                let mut dropped = Dropped::new();
                let is_done = lock(&self.row[index]).lower(part, DROPS, &mut dropped);
                evicted += dropped.len() as u64;
                if is_done {
                    break;
                }
            }
        }
        evicted
    }

    /// Moves all answers from `old` to `new`, with all of the budget.
    fn move_over(&self, old: Run, new: Run) {
        self.plan.set(new, Some(old));
        let mut full: Vec<usize> = old.indices().collect();
        while !full.is_empty() {
            full.retain(|index| !self.move_some(*index, new));
        }
        for index in old.indices() {
            self.hand_over(index, old, new);
        }
        self.plan.set(new, None);
        for index in old.indices() {
            // Whoever still holds a shard under the plan that has just ended is waited
            // for here. The list goes, because its table does not shrink.
            let emptied = std::mem::replace(&mut *lock(&self.row[index]), Shard::new(0));
            debug_assert_eq!(emptied.usage().items, 0, "a shard that was left holds an answer");
        }
    }

    /// Moves a few answers out of the shard at `index`. Says whether it is empty now.
    fn move_some(&self, index: usize, new: Run) -> bool {
        let mut from = lock(&self.row[index]);
        for _ in 0..MOVES {
            let Some((key, entry)) = from.pop() else { return true };
            let mut to = self.shard(new, self.hash(&key));
            to.adopt(key, entry, &mut from);
        }
        false
    }

    /// Gives what is left of the budget of the shard at `index`, which is empty, to the
    /// shards that its keys have moved to.
    fn hand_over(&self, index: usize, old: Run, new: Run) {
        let mut from = lock(&self.row[index]);
        let hash = (index - old.first()) as u64;
        let heirs = (new.len() / old.len()).max(1);
        for heir in 0..heirs {
            let left = from.budget();
            let share = left.div_ceil((heirs - heir) as u64);
            let mut to = self.shard(new, hash + (heir * old.len()) as u64);
            from.give(&mut to, share);
        }
    }
}
