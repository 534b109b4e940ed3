//! Which fills wait for which, so that none waits for itself in the end.
//!
//! A getter that gets from another group has its fill wait for another flight, whose
//! fill may wait for a third. A chain of gets sees when it comes back to a key of its
//! own, but not when two chains meet: one holds `a` and waits for `b`, the other holds
//! `b` and is about to wait for `a`. All groups of a node keep one table of these waits,
//! and whoever would close a circle is told instead of waiting.
//!
//! Only gets from within a fill are in the table. A client's get waits too, but nobody
//! waits for a client.
//!
//! Invariant: following the waits from any flight never comes back to it.

use std::{
    collections::{HashMap, HashSet},
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Waits at once: far more than there are calls of plugins in a node. One beyond it is
/// not looked after, and ends at its deadline should it be part of a circle.
const WAITS_MAX: usize = 1 << 16;

/// The waits of the fills of one node.
#[derive(Debug, Default)]
pub(super) struct Waits(Mutex<Edges>);

#[derive(Debug, Default)]
struct Edges {
    /// The flights that each flight's fill waits for.
    by_flight: HashMap<Flight, Vec<Flight>>,
    count: usize,
}

/// A flight. The allocation of its key tells it apart from others, also from an earlier
/// or a later flight of the same key.
#[derive(Clone, Debug)]
pub(super) struct Flight(Arc<[u8]>);

/// Waiting would close a circle.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Circle;

/// A wait, over when dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    waits: Arc<Waits>,
    who: Vec<Flight>,
    for_whom: Flight,
}

impl Flight {
    /// The flight with this key: the very allocation that its ticket holds.
    pub(super) fn of(key: &Arc<[u8]>) -> Self {
        Self(Arc::clone(key))
    }
}

impl PartialEq for Flight {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Flight {}

impl Hash for Flight {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl Waits {
    /// Has the fills of `who`, which one call serves, wait for the flight `for_whom`.
    ///
    /// # Errors
    /// That flight waits for one of them already, be it through others.
    pub(super) fn begin(
        self: &Arc<Self>,
        who: Vec<Flight>,
        for_whom: Flight,
    ) -> Result<Waiting, Circle> {
        let mut edges = self.lock();
        if edges.lead_to_any(&for_whom, &who) {
            return Err(Circle);
        }
        let is_full = edges.count.saturating_add(who.len()) > WAITS_MAX;
        let who = if is_full { Vec::new() } else { who };
        for flight in &who {
            edges.by_flight.entry(flight.clone()).or_default().push(for_whom.clone());
        }
        edges.count += who.len();
        drop(edges);
        Ok(Waiting { waits: Arc::clone(self), who, for_whom })
    }

    fn lock(&self) -> MutexGuard<'_, Edges> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Edges {
    /// Whether `from` is, or waits in the end for, one of `targets`.
    fn lead_to_any(&self, from: &Flight, targets: &[Flight]) -> bool {
        let mut seen = HashSet::from([from]);
        let mut ahead = vec![from];
        while let Some(flight) = ahead.pop() {
            if targets.contains(flight) {
                return true;
            }
            let next = self.by_flight.get(flight).into_iter().flatten();
            ahead.extend(next.filter(|next| seen.insert(next)));
        }
        false
    }

    fn remove(&mut self, who: &Flight, for_whom: &Flight) {
        let Some(waited_for) = self.by_flight.get_mut(who) else { return };
        if let Some(at) = waited_for.iter().position(|flight| flight == for_whom) {
            waited_for.swap_remove(at);
            self.count -= 1;
        }
        if waited_for.is_empty() {
            self.by_flight.remove(who);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut edges = self.waits.lock();
        for flight in &self.who {
            edges.remove(flight, &self.for_whom);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many flights, all of the same key.
    fn flights<const N: usize>() -> [Flight; N] {
        std::array::from_fn(|_| Flight(b"k".as_slice().into()))
    }

    fn begin(waits: &Arc<Waits>, who: &Flight, for_whom: &Flight) -> Result<Waiting, Circle> {
        waits.begin(vec![who.clone()], for_whom.clone())
    }

    #[test]
    fn whoever_would_close_a_circle_is_told() {
        let waits = Arc::<Waits>::default();
        let [a, b, c, d] = flights();
        let _ab = begin(&waits, &a, &b).expect("no circle");
        let _bc = begin(&waits, &b, &c).expect("no circle");
        for for_whom in [&a, &b, &c] {
            assert_eq!(begin(&waits, &c, for_whom).expect_err("a circle"), Circle);
        }
        begin(&waits, &c, &d).expect("no circle");
    }

    #[test]
    fn two_ways_to_the_same_flight_are_no_circle() {
        let waits = Arc::<Waits>::default();
        let [a, b, c, d] = flights();
        let ways = [(&a, &b), (&a, &c), (&b, &d), (&c, &d)];
        let held: Vec<_> = ways.map(|(who, whom)| begin(&waits, who, whom)).into();
        assert!(held.iter().all(Result::is_ok));
        assert!(begin(&waits, &d, &a).is_err());
    }

    #[test]
    fn a_wait_that_is_over_is_forgotten() {
        let waits = Arc::<Waits>::default();
        let [a, b] = flights();
        let twice = [begin(&waits, &a, &b), begin(&waits, &a, &b)];
        assert!(begin(&waits, &b, &a).is_err());
        drop(twice);
        begin(&waits, &b, &a).expect("no circle");
        let edges = waits.lock();
        assert_eq!((edges.by_flight.len(), edges.count), (0, 0));
    }

    #[test]
    fn a_call_for_several_keys_waits_for_all_of_them() {
        let waits = Arc::<Waits>::default();
        let [a, b, c] = flights();
        let _trip = waits.begin(vec![a.clone(), b.clone()], c.clone()).expect("no circle");
        assert!(begin(&waits, &c, &a).is_err() && begin(&waits, &c, &b).is_err());
        assert!(waits.begin(vec![a, b.clone()], b).is_err(), "for one of its own");
    }

    #[test]
    fn the_table_is_bounded() {
        let waits = Arc::<Waits>::default();
        let [a, b] = flights();
        let many = vec![a.clone(); WAITS_MAX + 1];
        let _beyond = waits.begin(many, b.clone()).expect("no circle");
        assert_eq!(waits.lock().count, 0);
        begin(&waits, &b, &a).expect("nobody looked after it");
    }
}
