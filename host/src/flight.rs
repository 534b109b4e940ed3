//! Single flight: one fill for each key, however many callers.
//!
//! The first caller for a key opens a flight; later ones wait on it. The fill runs in
//! a task of its own, which holds the flight's [`Ticket`]: no caller that leaves takes
//! it along, and a task that ends without landing (a panic, a runtime that shuts down)
//! still frees the key.
//!
//! A purge detaches the flight from its key. Its callers still get their answer, since
//! they asked before the purge, but nobody joins it any more, and it lands without
//! keeping anything. Detaching and keeping happen under one lock: this is what makes a
//! purge win over every fill begun before it.
//!
//! Invariants:
//! - at most one flight of a key can be joined at any moment;
//! - what a landing keeps was asked of the origin after the last purge of its key;
//! - a flight leaves the table before its answer goes out: who asks after that starts
//!   a new one.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::Notify;

/// The flights of one group, by key.
#[derive(Debug)]
pub struct Flights<T> {
    by_key: Mutex<Table<T>>,
    flights_max: AtomicUsize,
}

type Table<T> = HashMap<Arc<[u8]>, Arc<Landing<T>>>;

/// What becomes of a flight.
#[derive(Debug)]
struct Landing<T> {
    /// Set once: `None` if the flight was lost.
    answer: OnceLock<Option<T>>,
    /// Told when it is.
    over: Notify,
}

impl<T> Landing<T> {
    fn end(&self, answer: Option<T>) {
        // A flight that has landed cannot be lost any more.
        if self.answer.set(answer).is_ok() {
            self.over.notify_waiters();
        }
    }
}

/// How a caller gets on a flight.
#[derive(Debug)]
pub enum Joined<T, R = Infallible> {
    /// There is an answer after all: the key's flight has landed a moment ago.
    Recalled(R),
    /// The caller opened the flight and must see that a task fills it.
    Opened(Ticket<T>, Waiter<T>),
    /// Another caller had opened it.
    Waiting(Waiter<T>),
    /// No flight of this key is under way, and no further one may be opened.
    Full,
}

/// A place on a flight.
#[derive(Debug)]
pub struct Waiter<T>(Arc<Landing<T>>);

/// The task that fills the key holds this. Dropped without landing, it frees the key
/// and its callers get [`Lost`].
#[derive(Debug)]
pub struct Ticket<T> {
    flights: Arc<Flights<T>>,
    key: Arc<[u8]>,
    landing: Arc<Landing<T>>,
}

/// The flight ended without an answer: its task panicked or was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

impl<T: Clone> Flights<T> {
    /// No flights yet, and never more than `flights_max` that can be joined.
    pub fn new(flights_max: usize) -> Arc<Self> {
        Arc::new(Self { by_key: Mutex::default(), flights_max: flights_max.into() })
    }

    /// From now on, never more than `flights_max` that can be joined. Those above it that
    /// are under way go on.
    pub fn set_max(&self, flights_max: usize) {
        self.flights_max.store(flights_max, Relaxed);
    }

    /// Joins the flight of `key`, or opens it.
    ///
    /// Where none is under way, `recall` looks once more for what the last one kept:
    /// it may have landed after the caller looked and before it came here. A landing
    /// keeps its answer and leaves the table in one step, so that this look, in the
    /// table's lock, cannot miss it.
    pub fn join<R>(
        self: &Arc<Self>,
        key: &[u8],
        recall: impl FnOnce() -> Option<R>,
    ) -> Joined<T, R> {
        let mut by_key = self.lock();
        if let Some(landing) = by_key.get(key) {
            return Joined::Waiting(Waiter(Arc::clone(landing)));
        }
        if let Some(answer) = recall() {
            return Joined::Recalled(answer);
        }
        if by_key.len() >= self.flights_max.load(Relaxed) {
            return Joined::Full;
        }
        let key: Arc<[u8]> = key.into();
        let landing = Arc::new(Landing { answer: OnceLock::new(), over: Notify::new() });
        by_key.insert(Arc::clone(&key), Arc::clone(&landing));
        drop(by_key);
        let waiter = Waiter(Arc::clone(&landing));
        Joined::Opened(Ticket { flights: Arc::clone(self), key, landing }, waiter)
    }

    /// Whether a flight of `key` can be joined.
    pub fn is_open(&self, key: &[u8]) -> bool {
        self.lock().contains_key(key)
    }

    /// The key of the flight that `waiter` has a place on, as its ticket holds it; `None`
    /// once it has landed or was detached.
    pub fn key_of(&self, key: &[u8], waiter: &Waiter<T>) -> Option<Arc<[u8]>> {
        let by_key = self.lock();
        let (key, landing) = by_key.get_key_value(key)?;
        Arc::ptr_eq(landing, &waiter.0).then(|| Arc::clone(key))
    }

    /// Detaches the flight of `key` and runs `forget` before any landing can keep
    /// anything again.
    pub fn purge<R>(&self, key: &[u8], forget: impl FnOnce() -> R) -> R {
        let mut by_key = self.lock();
        by_key.remove(key);
        forget()
    }

    /// Detaches every flight and runs `forget` before any landing can keep anything
    /// again.
    pub fn purge_all<R>(&self, forget: impl FnOnce() -> R) -> R {
        let mut by_key = self.lock();
        by_key.clear();
        forget()
    }

    /// Runs `forget` while no landing can keep anything. Unlike a purge it detaches no
    /// flight.
    pub fn pause<R>(&self, forget: impl FnOnce() -> R) -> R {
        let _by_key = self.lock();
        forget()
    }

    /// As [`Flights::pause`]; `keep` is told whether a flight of `key` can be joined.
    pub fn pause_for<R>(&self, key: &[u8], keep: impl FnOnce(bool) -> R) -> R {
        let by_key = self.lock();
        let is_open = by_key.contains_key(key);
        keep(is_open)
    }

    /// Flights that can be joined.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no flight can be joined.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Flights<T> {
    /// Each critical section leaves the table whole, so a poisoned lock (a `forget` or
    /// an `answer` that panicked) is as good as any.
    fn lock(&self) -> MutexGuard<'_, Table<T>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Ticket<T> {
    /// The key that is to be filled.
    pub fn key(&self) -> &Arc<[u8]> {
        &self.key
    }

    /// Ends the flight with the answer that its callers get. `answer` is told whether
    /// to keep it: false when a purge has come in between.
    pub fn land(self, answer: impl FnOnce(bool) -> T) {
        let answer = {
            let mut by_key = self.flights.lock();
            let attached = self.is_attached(&by_key);
            let answer = answer(attached);
            if attached {
                by_key.remove(&self.key);
            }
            answer
        };
        self.landing.end(Some(answer));
    }

    /// Whether the key's flight in the table is this one.
    fn is_attached(&self, by_key: &Table<T>) -> bool {
        by_key.get(&self.key).is_some_and(|landing| Arc::ptr_eq(landing, &self.landing))
    }
}

impl<T> Drop for Ticket<T> {
    fn drop(&mut self) {
        if self.landing.answer.get().is_some() {
            return;
        }
        let mut by_key = self.flights.lock();
        if self.is_attached(&by_key) {
            by_key.remove(&self.key);
        }
        drop(by_key);
        self.landing.end(None);
    }
}

impl<T: Clone> Waiter<T> {
    /// Waits for the flight to land.
    pub async fn landed(self) -> Result<T, Lost> {
        // Begun before the look, so that a landing in between is not missed.
        let over = self.0.over.notified();
        if self.0.answer.get().is_none() {
            over.await;
        }
        self.0.answer.get().and_then(Option::clone).ok_or(Lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Option<Infallible> {
        None
    }

    fn open(flights: &Arc<Flights<u32>>, key: &[u8]) -> (Ticket<u32>, Waiter<u32>) {
        match flights.join(key, nothing) {
            Joined::Opened(ticket, waiter) => (ticket, waiter),
            _ => panic!("the key has a flight"),
        }
    }

    fn join(flights: &Arc<Flights<u32>>, key: &[u8]) -> Waiter<u32> {
        match flights.join(key, nothing) {
            Joined::Waiting(waiter) => waiter,
            _ => panic!("the key has no flight"),
        }
    }

    #[tokio::test]
    async fn a_thousand_callers_share_one_flight() {
        let flights = Flights::new(8);
        let (ticket, first) = open(&flights, b"k");
        let others: Vec<_> = (0..999).map(|_| join(&flights, b"k")).collect();
        ticket.land(|_| 7);
        assert_eq!(first.landed().await, Ok(7));
        for other in others {
            assert_eq!(other.landed().await, Ok(7));
        }
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn a_caller_that_leaves_takes_nothing_along() {
        let flights = Flights::new(8);
        let (ticket, first) = open(&flights, b"k");
        let other = join(&flights, b"k");
        drop(first);
        ticket.land(|_| 7);
        assert_eq!(other.landed().await, Ok(7));
    }

    #[tokio::test]
    async fn a_task_that_ends_without_landing_frees_the_key() {
        let flights = Flights::new(8);
        let (ticket, waiter) = open(&flights, b"k");
        drop(ticket);
        assert_eq!(waiter.landed().await, Err(Lost));
        let (ticket, waiter) = open(&flights, b"k");
        ticket.land(|_| 8);
        assert_eq!(waiter.landed().await, Ok(8));
    }

    #[tokio::test]
    async fn a_purge_beats_the_flight_under_way() {
        let flights = Flights::new(8);
        let (before, waiting) = open(&flights, b"k");
        flights.purge(b"k", || ());
        let (after, _waiting) = open(&flights, b"k");

        before.land(|keep| {
            assert!(!keep, "begun before the purge");
            1
        });
        assert_eq!(waiting.landed().await, Ok(1), "who asked before it gets an answer");
        assert!(flights.is_open(b"k"), "the later flight goes on");
        after.land(|keep| {
            assert!(keep);
            2
        });
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn a_detached_flight_that_is_lost_leaves_the_later_one_alone() {
        let flights = Flights::new(8);
        let (before, _) = open(&flights, b"k");
        flights.purge_all(|| ());
        let (_after, _) = open(&flights, b"k");
        drop(before);
        assert!(flights.is_open(b"k"));
    }

    #[test]
    fn who_comes_just_after_a_landing_finds_what_it_kept() {
        let flights = Flights::<u32>::new(8);
        assert!(matches!(flights.join(b"k", || Some(7)), Joined::Recalled(7)));
        assert!(flights.is_empty());
    }

    #[test]
    fn flights_are_bounded_but_joining_one_is_not() {
        let flights = Flights::new(1);
        let (_ticket, _waiter) = open(&flights, b"a");
        assert!(matches!(flights.join(b"b", nothing), Joined::Full));
        join(&flights, b"a");
        flights.set_max(2);
        open(&flights, b"b");
    }
}
