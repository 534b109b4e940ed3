//! Memory: answers within an exact budget of bytes.
//!
//! A store is a few shards, each an LRU list behind a short lock and each with its
//! part of the budget. An answer counts for its key, its value and everything kept
//! beside them ([`charge`]), so that the process grows as the budget says. The least
//! recently used answers go first; one that is past its grace goes when it is looked at.
//!
//! The budget can change while the store serves: see `resize`.
//!
//! Invariants:
//! - the bytes charged never exceed the budget, not even for a moment;
//! - a lock is held for a few pointer moves, and nothing is freed under it;
//! - what [`Store::get`] returns may be served: it is fresh or within its grace.
//!
//! The store does not fill, refresh or count hits: that is the group's story.

mod plan;
mod resize;
mod shard;
mod voided;

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::value::Value;
use plan::{PlanCell, Run};
use shard::{Dropped, Shard};
use voided::Voided;

pub use shard::charge;

/// The longest time an answer can be kept, fresh or stale: 30 days each.
///
/// Times are kept as 32-bit milliseconds, which this bound fits with room to spare.
pub const LIFETIME_MAX: Duration = Duration::from_hours(24 * 30);

/// Shards of a large store. More would divide the budget too finely; fewer would let
/// two cores meet at one lock.
const SHARDS_MAX: usize = 16;

/// How many of the largest values one shard must have room for, so that sharding
/// does not make a store refuse or thrash on what its budget could hold.
const LARGEST_VALUES_PER_SHARD: u64 = 8;

/// Set in the time of an answer that this node has from another one's memory: a bit that no
/// time has, so that it costs an answer nothing to know it.
const GIVEN: u64 = 1 << 63;

/// One answer in memory: a value, or that there is none.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The value; `None` remembers that the origin has none.
    pub value: Option<Value>,
    /// Milliseconds from the store's start to the getter's answer; [`GIVEN`] is set beside
    /// them where another node has given it.
    stored: u64,
    /// Milliseconds for which the answer is fresh.
    fresh: u32,
    /// Milliseconds after those for which it may be served stale.
    grace: u32,
}

/// A time as a store reckons it: milliseconds since its start. Made by
/// [`Store::moment`] once for each lookup, before any lock is taken.
#[derive(Clone, Copy, Debug)]
pub struct Moment(u64);

/// How old an answer is and whether it may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    /// Milliseconds since the getter gave the answer.
    elapsed: u64,
    /// Milliseconds for which it stays fresh.
    ttl: u64,
    /// Whether it may be served at all.
    pub state: State,
}

impl Age {
    /// Time since the getter gave the answer.
    pub fn age(self) -> Duration {
        Duration::from_millis(self.elapsed)
    }

    /// Time for which it stays fresh; zero once it is stale.
    pub fn ttl(self) -> Duration {
        Duration::from_millis(self.ttl)
    }
}

/// Whether an answer may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Within its TTL.
    Fresh,
    /// Past its TTL, within its grace.
    Stale,
    /// Past both.
    Dead,
}

/// Answers within a budget of bytes.
#[derive(Debug)]
pub struct Store {
    /// Two runs of shards. One serves; the other is empty but while a resize moves the
    /// answers over.
    row: Box<[Mutex<Shard>]>,
    plan: PlanCell,
    /// Held by the one resize at a time.
    resizing: Mutex<()>,
    /// For the hash that chooses the shard: random, so that nobody can choose keys
    /// that all meet in one. It is another function than the shards' own tables use,
    /// or the keys of one shard would be alike there too.
    seed: u64,
    started: Instant,
    budget: AtomicU64,
    voided: Voided,
}

/// What a store holds at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Answers, dead ones that nobody looked at included.
    pub items: u64,
    /// Bytes they are charged for.
    pub bytes: u64,
}

/// What became of an answer given to [`Store::insert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is in memory, in place of this many others.
    Kept {
        /// Answers of other keys that were dropped to make room.
        evicted: u64,
    },
    /// It is larger than a shard's whole budget.
    TooLarge,
}

impl Store {
    /// An empty store of `budget` bytes, in which values of up to `value_max` bytes
    /// find room.
    pub fn new(budget: u64, value_max: u64) -> Self {
        let row: Box<[Mutex<Shard>]> =
            (0..2 * SHARDS_MAX).map(|_| Mutex::new(Shard::new(0))).collect();
        let run = Run::new(0, shard_count(budget, value_max));
        // The remainder of the division stays unused: less than one byte a shard.
        let part = budget / run.len() as u64;
        for index in run.indices() {
            lock(&row[index]).raise(part);
        }
        Self {
            row,
            plan: PlanCell::new(run),
            resizing: Mutex::default(),
            seed: fastrand::u64(..),
            started: Instant::now(),
            budget: AtomicU64::new(budget),
            voided: Voided::default(),
        }
    }

    /// The answer for `key`, if it may be served at `now`. Counts as a use.
    pub fn get(&self, key: &[u8], now: Moment) -> Option<(Entry, Age)> {
        let hash = self.hash(key);
        let plan = self.plan.load();
        // A store at rest, which a store nearly always is, has one place to look.
        if plan.leaving().is_none() {
            let found = self.get_in(plan.serving(), hash, key, now);
            if found.is_some() || self.plan.load() == plan {
                return found;
            }
        }
        self.find(|run| self.get_in(run, hash, key, now))
    }

    #[inline]
    fn get_in(&self, run: Run, hash: u64, key: &[u8], now: Moment) -> Option<(Entry, Age)> {
        let mut shard = self.shard(run, hash);
        let entry = shard.get(key)?;
        let age = self.age(entry, now);
        if age.state != State::Dead {
            return Some((entry.clone(), age));
        }
        let removed = shard.remove(key);
        drop(shard);
        drop(removed);
        None
    }

    /// The answer for `key`, dead or alive, without counting as a use.
    pub fn peek(&self, key: &[u8], now: Instant) -> Option<(Entry, Age)> {
        let (now, hash) = (self.moment(now), self.hash(key));
        self.find(|run| {
            let shard = self.shard(run, hash);
            let entry = shard.peek(key)?;
            Some((entry.clone(), self.age(entry, now)))
        })
    }

    /// The answers that were used last, the latest of each shard first: at most `count`,
    /// none of them dead. Holds each shard while it copies that shard's part, which takes
    /// some hundred nanoseconds an answer.
    pub fn hottest(&self, count: usize, now: Instant) -> Vec<(Box<[u8]>, Entry, Age)> {
        let now = self.moment(now);
        let run = self.plan.load().serving();
        let each = count.div_ceil(run.len());
        let mut ranked = Vec::new();
        for index in run.indices() {
            let of_shard = lock(&self.row[index]).hottest(each);
            ranked.extend(of_shard.into_iter().enumerate());
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        let aged = ranked.into_iter().map(|(_, (key, entry))| {
            let age = self.age(&entry, now);
            (key, entry, age)
        });
        aged.filter(|(_, _, age)| age.state != State::Dead).take(count).collect()
    }

    /// Keeps an answer given at `now`, in place of any other for `key`.
    pub fn insert(
        &self,
        key: &[u8],
        value: Option<Value>,
        lifetime: Lifetime,
        now: Instant,
    ) -> Inserted {
        let Lifetime { fresh, grace } = lifetime;
        self.put(key, Entry { value, stored: self.moment(now).0, fresh, grace })
    }

    /// As [`Store::insert`], for a value from the memory of another node.
    pub fn insert_given(
        &self,
        key: &[u8],
        value: Value,
        lifetime: Lifetime,
        now: Instant,
    ) -> Inserted {
        let Lifetime { fresh, grace } = lifetime;
        let stored = self.moment(now).0 | GIVEN;
        self.put(key, Entry { value: Some(value), stored, fresh, grace })
    }

    fn put(&self, key: &[u8], entry: Entry) -> Inserted {
        let owned_key: Box<[u8]> = key.into();
        let mut dropped = Dropped::new();
        // The locks end within `change`: `dropped` outlives them.
        let evicted = self.change(key, |shard, leaving| {
            let elsewhere = leaving
                .map_or(0, |leaving| shard.make_room(&owned_key, &entry, leaving, &mut dropped));
            Some(elsewhere + shard.insert(owned_key, entry, &mut dropped)?)
        });
        evicted.map_or(Inserted::TooLarge, |evicted| Inserted::Kept { evicted })
    }

    /// Forgets `key`. Says whether there was an answer.
    pub fn remove(&self, key: &[u8]) -> bool {
        let removed = self.change(key, |shard, leaving| {
            leaving.and_then(|leaving| leaving.remove(key)).or_else(|| shard.remove(key))
        });
        removed.is_some()
    }

    /// Forgets everything that is in memory when it is called.
    pub fn clear(&self) {
        loop {
            let plan = self.plan.load();
            // In this order: what a resize moves meanwhile is met where it arrives.
            for run in plan.leaving().into_iter().chain([plan.serving()]) {
                for index in run.indices() {
                    let emptied = lock(&self.row[index]).take();
                    drop(emptied);
                }
            }
            if self.plan.load() == plan {
                return;
            }
        }
    }

    /// Forgets every answer that is in memory when it is called and whose value has the label
    /// `tag`; says how many those were. Looks at all answers, and holds each shard while it
    /// looks at that shard's.
    pub fn remove_tagged(&self, tag: &str) -> u64 {
        let mut removed = 0;
        loop {
            let plan = self.plan.load();
            // In this order: what a resize moves meanwhile is met where it arrives.
            for run in plan.leaving().into_iter().chain([plan.serving()]) {
                for index in run.indices() {
                    let tagged = lock(&self.row[index]).take_tagged(tag);
                    removed += tagged.len() as u64;
                }
            }
            if self.plan.load() == plan {
                return removed;
            }
        }
    }

    /// From now on, not-founds that were given from `since` to `until` are dead: what
    /// said so was perhaps wrong.
    pub fn void_not_founds(&self, since: Instant, until: Instant) {
        self.voided.add(self.moment(since).0..=self.moment(until).0);
    }

    /// What the store holds at this moment.
    pub fn usage(&self) -> Usage {
        self.row.iter().map(|shard| lock(shard).usage()).fold(Usage::default(), |sum, part| Usage {
            items: sum.items + part.items,
            bytes: sum.bytes + part.bytes,
        })
    }

    /// The bytes this store stays within.
    pub fn budget(&self) -> u64 {
        self.budget.load(Relaxed)
    }

    /// A time in the store's own reckoning.
    pub fn moment(&self, now: Instant) -> Moment {
        Moment(millis(now.saturating_duration_since(self.started)))
    }

    /// Looks into each run that may hold an answer, and again if that has changed
    /// meanwhile.
    #[cold]
    fn find<R>(&self, mut look: impl FnMut(Run) -> Option<R>) -> Option<R> {
        loop {
            let plan = self.plan.load();
            // In this order: an answer that is being moved is met where it arrives.
            let found = plan.leaving().and_then(&mut look).or_else(|| look(plan.serving()));
            if found.is_some() || self.plan.load() == plan {
                return found;
            }
        }
    }

    /// Changes the shard of `key`; and, while a resize moves answers, the one that the
    /// key's answer may still be in.
    fn change<R>(&self, key: &[u8], change: impl FnOnce(&mut Shard, Option<&mut Shard>) -> R) -> R {
        let hash = self.hash(key);
        loop {
            let plan = self.plan.load();
            let first = plan.leaving().unwrap_or(plan.serving());
            let mut held = self.shard(first, hash);
            // A plan that holds once the first shard is held does not end before it is
            // let go: see `resize`.
            if self.plan.load() != plan {
                continue;
            }
            if plan.leaving().is_none() {
                return change(&mut held, None);
            }
            let mut shard = self.shard(plan.serving(), hash);
            return change(&mut shard, Some(&mut held));
        }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        xxh3_64_with_seed(key, self.seed)
    }

    fn shard(&self, run: Run, hash: u64) -> MutexGuard<'_, Shard> {
        lock(&self.row[run.index(hash)])
    }

    fn age(&self, entry: &Entry, now: Moment) -> Age {
        let age = entry.age(now);
        if entry.value.is_none() && self.voided.contains(entry.stored_at()) {
            return Age { state: State::Dead, ..age };
        }
        age
    }
}

/// In how many shards `budget` is divided, so that each has room for a few values of
/// `value_max` bytes: a power of two.
fn shard_count(budget: u64, value_max: u64) -> usize {
    let fit = budget / LARGEST_VALUES_PER_SHARD.saturating_mul(value_max.max(1));
    let fit = usize::try_from(fit).unwrap_or(SHARDS_MAX).clamp(1, SHARDS_MAX);
    1 << fit.ilog2()
}

/// Nothing panics while it holds a shard, and a shard is whole between any two of its
/// methods: a poisoned lock is as good as any.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long an answer is fresh, and how long it may be served after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    fresh: u32,
    grace: u32,
}

impl Lifetime {
    /// Fresh for `ttl` and stale for `grace`, each at most [`LIFETIME_MAX`].
    pub fn new(ttl: Duration, grace: Duration) -> Self {
        let bounded =
            |time: Duration| u32::try_from(millis(time.min(LIFETIME_MAX))).unwrap_or(u32::MAX);
        Self { fresh: bounded(ttl), grace: bounded(grace) }
    }

    /// Time for which an answer stays fresh.
    pub fn ttl(self) -> Duration {
        Duration::from_millis(self.fresh.into())
    }
}

impl Entry {
    /// Time for which it may be served after it was fresh.
    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.grace.into())
    }

    /// Whether this node has it from another one's memory, and has not filled it.
    pub fn is_given(&self) -> bool {
        self.stored & GIVEN != 0
    }

    fn stored_at(&self) -> u64 {
        self.stored & !GIVEN
    }

    fn age(&self, Moment(now): Moment) -> Age {
        let age = now.saturating_sub(self.stored_at());
        let (fresh, grace) = (u64::from(self.fresh), u64::from(self.grace));
        let state = if age < fresh {
            State::Fresh
        } else if age < fresh + grace {
            State::Stale
        } else {
            State::Dead
        };
        Age { elapsed: age, ttl: fresh.saturating_sub(age), state }
    }
}

/// Whole milliseconds. Unlike [`Duration::as_millis`] this needs no 128-bit division,
/// and it is part of every hit.
fn millis(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000).saturating_add(time.subsec_millis().into())
}

#[cfg(test)]
mod tests;
