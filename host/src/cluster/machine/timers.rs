//! The machine's timers: what is to happen, and when.
//!
//! foca hands out its timers and wants each of them back, in the order of their deadlines;
//! late is fine. Our own stand in the same heap.
//!
//! Invariants:
//! - of two timers with the same deadline the one that was set first goes first;
//! - no member has more than a handful of entries, however often it dies (F11): foca is
//!   told never to forget the dead by timers of its own.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use super::identity::Id;

/// What a timer is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// One of foca's, but for suspicions.
    Swim(foca::Timer<Id>),
    /// foca's "a suspect becomes down now".
    Suspicion(foca::Timer<Id>),
    /// The next step of watching the next member.
    Watch,
    /// The same for a suspicion that we have raised.
    Doubt {
        /// The member that is suspected.
        id: Id,
        /// Its incarnation then.
        incarnation: u16,
    },
    /// Try to join, as long as we are alone.
    Join,
    /// Knock on doors that nobody opened last time.
    Rejoin,
    /// Compare notes with some member.
    Sync,
    /// Compare notes since we lack the metadata of members.
    Hungry,
    /// Compare notes since something changed.
    Soon,
    /// Ask for notices that there are and we have not heard.
    CatchUp,
    /// See whether we have heard what the others have.
    Currency,
    /// Look whether somebody else still claims our address.
    Look,
    /// The view may change by the time alone.
    Publish,
    /// Forget what is too old.
    Sweep,
    /// The next step of leaving.
    Leave,
}

/// A heap of timers.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<Entry>>,
    count: u64,
}

#[derive(Debug)]
struct Entry {
    due: Duration,
    number: u64,
    timer: Timer,
}

impl Timers {
    pub(super) fn set(&mut self, due: Duration, timer: Timer) {
        self.count += 1;
        self.heap.push(Reverse(Entry { due, number: self.count, timer }));
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse(entry)| entry.due)
    }

    /// Takes the next one that is due at `now`.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<Timer> {
        if self.next_due()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry.timer)
    }

    /// Puts off every timer that `which` picks, and that is due before `until`, until then.
    pub(super) fn put_off(&mut self, until: Duration, which: impl Fn(&Timer) -> bool) {
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        for Reverse(entry) in &mut entries {
            if entry.due < until && which(&entry.timer) {
                entry.due = until;
            }
        }
        self.heap = entries.into();
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(super) fn clear(&mut self) {
        self.heap.clear();
    }
}

// === impl Entry ===

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}
