//! One shard: an LRU list and the bytes it is charged for.

use lru::LruCache;

use super::{Entry, Usage};
use crate::allocator::taken;

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

    /// Puts `entry` in place, dropping the least recently used others until it fits,
    /// and says how many those were. What leaves goes to `dropped`, to be freed after
    /// the lock. `None` when the entry alone is over the budget, and then whatever
    /// `key` had is gone too: the getter has spoken, and the old answer no longer holds.
    pub(super) fn insert(
        &mut self,
        key: Box<[u8]>,
        entry: Entry,
        dropped: &mut Vec<(Box<[u8]>, Entry)>,
    ) -> Option<u64> {
        dropped.extend(self.remove(&key));
        let charge = charge(&key, &entry);
        if charge > self.budget {
            return None;
        }
        let mut evicted = 0;
        while self.bytes + charge > self.budget {
            let Some((key, entry)) = self.list.pop_lru() else { break };
            self.bytes -= self::charge(&key, &entry);
            dropped.push((key, entry));
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

    /// Empties the shard and gives what it held, to be freed after the lock.
    pub(super) fn take(&mut self) -> Self {
        let empty = Self::new(self.budget);
        std::mem::replace(self, empty)
    }

    pub(super) fn usage(&self) -> Usage {
        Usage { items: self.list.len() as u64, bytes: self.bytes }
    }
}
