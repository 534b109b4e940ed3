//! One shard: an LRU list and the bytes it is charged for.

use lru::LruCache;

use super::{Entry, Usage};
use crate::{allocator::taken, value::Value};

/// Bytes of one list node of `lru` (key, entry and two links) in an allocation.
const NODE: usize = taken(size_of::<(Box<[u8]>, Entry, [usize; 2])>());

/// Bytes of one slot of the table: two pointers and a control byte. A table is 7/16
/// full when it has just doubled for want of room. Under a flow of insertions and
/// evictions it may double once more, to be rid of what they leave behind (57 bytes a
/// slot were measured), and no further: charged is the mean of both.
const SLOT: usize = (2 * size_of::<usize>() + 1) * 24 / 7;

/// The bytes that an answer counts for: the key, the value, and what keeping them
/// costs in the list, the table and the allocator.
pub fn charge(key: &[u8], entry: &Entry) -> u64 {
    let value = entry.value.as_ref().map_or(0, |value| taken(value.heap_bytes()));
    (taken(key.len()) + NODE + SLOT + value) as u64
}

/// Answers that have left, kept until no lock is held.
pub(super) type Dropped = Vec<(Box<[u8]>, Entry)>;

/// An LRU list within a budget of bytes.
#[derive(Debug)]
pub(super) struct Shard {
    list: LruCache<Box<[u8]>, Entry>,
    bytes: u64,
    budget: u64,
}

impl Shard {
    pub(super) fn new(budget: u64) -> Self {
        Self { list: LruCache::unbounded(), bytes: 0, budget }
    }

    pub(super) fn get(&mut self, key: &[u8]) -> Option<&Entry> {
        self.list.get(key)
    }

    pub(super) fn peek(&self, key: &[u8]) -> Option<&Entry> {
        self.list.peek(key)
    }

    /// Copies of the `count` answers that were used last, the latest first.
    pub(super) fn hottest(&self, count: usize) -> Dropped {
        let hottest = self.list.iter().take(count);
        hottest.map(|(key, entry)| (key.clone(), entry.clone())).collect()
    }

    /// Puts `entry` in place, dropping the least recently used others until it fits,
    /// and says how many those were. What leaves goes to `dropped`, to be freed after
    /// the lock. `None` when the entry alone is over the budget, and then whatever
    /// `key` had is gone too: the getter has spoken, and the old answer no longer holds.
    pub(super) fn insert(
        &mut self,
        key: Box<[u8]>,
        entry: Entry,
        dropped: &mut Dropped,
    ) -> Option<u64> {
        dropped.extend(self.remove(&key));
        let charge = charge(&key, &entry);
        if charge > self.budget {
            return None;
        }
        let mut evicted = 0;
        while self.bytes + charge > self.budget {
            let Some(least) = self.pop() else { break };
            dropped.push(least);
            evicted += 1;
        }
        self.bytes += charge;
        self.list.put(key, entry);
        Some(evicted)
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<(Box<[u8]>, Entry)> {
        let (key, entry) = self.list.pop_entry(key)?;
        self.bytes -= charge(&key, &entry);
        Some((key, entry))
    }

    /// Takes out every answer whose value has the label `tag`.
    pub(super) fn take_tagged(&mut self, tag: &str) -> Dropped {
        let is_tagged = |entry: &Entry| {
            let head = entry.value.as_ref().and_then(Value::head);
            head.is_some_and(|head| head.tags.iter().any(|it| **it == *tag))
        };
        let tagged = self.list.iter().filter(|(_, entry)| is_tagged(entry));
        let tagged: Vec<Box<[u8]>> = tagged.map(|(key, _)| key.clone()).collect();
        tagged.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// Takes the least recently used answer out.
    pub(super) fn pop(&mut self) -> Option<(Box<[u8]>, Entry)> {
        let (key, entry) = self.list.pop_lru()?;
        self.bytes -= charge(&key, &entry);
        Some((key, entry))
    }

    /// Lowers the budget to `budget` at most, dropping what does not fit: up to `most`
    /// answers, so that the lock is not held for long. Says whether that is all.
    pub(super) fn lower(&mut self, budget: u64, most: usize, dropped: &mut Dropped) -> bool {
        while self.bytes > budget && dropped.len() < most {
            let Some(least) = self.pop() else { break };
            dropped.push(least);
        }
        // What is left fits exactly until it is this shard's turn again.
        self.budget = self.budget.min(budget.max(self.bytes));
        self.bytes <= budget
    }

    /// Raises the budget to `budget` at least.
    pub(super) fn raise(&mut self, budget: u64) {
        self.budget = self.budget.max(budget);
    }

    /// Gives the part of the budget that is not in use to `other`, up to `most` bytes.
    pub(super) fn give(&mut self, other: &mut Self, most: u64) {
        let given = (self.budget - self.bytes).min(most);
        self.budget -= given;
        other.budget += given;
    }

    /// Takes over an answer that `from` has just let go, with the budget for it.
    pub(super) fn adopt(&mut self, key: Box<[u8]>, entry: Entry, from: &mut Self) {
        let charge = charge(&key, &entry);
        from.give(self, charge);
        self.bytes += charge;
        self.list.put(key, entry);
    }

    /// Makes room for a new answer at the cost of `leaving`, whose answers move here:
    /// takes over its budget, and drops its least recently used for it if need be. Says
    /// how many those were. The old answer of the key goes.
    pub(super) fn make_room(
        &mut self,
        key: &[u8],
        entry: &Entry,
        leaving: &mut Self,
        dropped: &mut Dropped,
    ) -> u64 {
        dropped.extend(leaving.remove(key));
        let charge = charge(key, entry);
        let mut evicted = 0;
        loop {
            let lack = (self.bytes + charge).saturating_sub(self.budget);
            leaving.give(self, lack);
            if self.bytes + charge <= self.budget {
                return evicted;
            }
            let Some(least) = leaving.pop() else { return evicted };
            dropped.push(least);
            evicted += 1;
        }
    }

    /// Empties the shard and gives what it held, to be freed after the lock.
    pub(super) fn take(&mut self) -> Self {
        let empty = Self::new(self.budget);
        std::mem::replace(self, empty)
    }

    pub(super) fn budget(&self) -> u64 {
        self.budget
    }

    pub(super) fn usage(&self) -> Usage {
        Usage { items: self.list.len() as u64, bytes: self.bytes }
    }
}
