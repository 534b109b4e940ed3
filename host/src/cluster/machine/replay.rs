//! Which packets of a sender have been seen: each is let in once.
//!
//! Invariants:
//! - a number is let in at most once while its sender's window is kept;
//! - numbers that are further back than the window are not let in;
//! - there are never more windows than the bound; the one unused for longest goes first.

use std::num::NonZeroUsize;

use lru::LruCache;

const WORD: u64 = 64;
/// One word more than the window covers, since the newest is not full.
const WORDS: usize = 17;
/// Numbers behind the highest that are still let in: more than a node sends in ten seconds.
pub(super) const WINDOW: u64 = (WORDS as u64 - 1) * WORD;

/// The numbers seen from one sender.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    highest: u64,
    seen: [u64; WORDS],
}

impl Window {
    /// Whether `number` would be let in.
    pub(super) fn is_new(&self, number: u64) -> bool {
        if number > self.highest {
            return true;
        }
        let is_within = self.highest - number < WINDOW;
        is_within && self.seen[word(number)] & bit(number) == 0
    }

    /// Notes that `number` has come.
    pub(super) fn note(&mut self, number: u64) {
        if number > self.highest {
            let (old, new) = (self.highest / WORD, number / WORD);
            for passed in (old + 1..=new).take(WORDS) {
                self.seen[word(passed * WORD)] = 0;
            }
            if new - old > WORDS as u64 {
                self.seen = [0; WORDS];
            }
            self.highest = number;
        }
        self.seen[word(number)] |= bit(number);
    }
}

fn word(number: u64) -> usize {
    usize::try_from((number / WORD) % WORDS as u64).unwrap_or_default()
}

fn bit(number: u64) -> u64 {
    1 << (number % WORD)
}

/// What is kept of each sender, for those heard of last.
pub(super) struct Senders<T> {
    kept: LruCache<(u32, u64), T>,
}

impl<T> Senders<T> {
    pub(super) fn new(bound: usize) -> Self {
        Self { kept: LruCache::new(at_least_one(bound)) }
    }

    /// Keeps no more than `bound` from now on.
    pub(super) fn resize(&mut self, bound: usize) {
        self.kept.resize(at_least_one(bound));
    }

    /// What is kept of the sender, which is in use again thereby.
    pub(super) fn get(&mut self, key: u32, boot: u64) -> Option<&mut T> {
        self.kept.get_mut(&(key, boot))
    }

    pub(super) fn insert(&mut self, key: u32, boot: u64, kept: T) {
        self.kept.put((key, boot), kept);
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }
}

fn at_least_one(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_window_lets_each_number_in_once_and_none_that_is_too_old() {
        let mut dice = fastrand::Rng::with_seed(5);
        let (mut window, mut seen, mut top) = (Window::default(), HashSet::new(), 0_u64);
        for _ in 0..200_000 {
            let jump = if dice.u32(..1_000) == 0 { 10_000 } else { 40 };
            let number = (top + dice.u64(..jump)).saturating_sub(dice.u64(..2_000));
            let is_new = !seen.contains(&number) && (number > top || top - number < WINDOW);
            assert_eq!(window.is_new(number), is_new, "{number} with {top} the highest");
            if is_new {
                window.note(number);
                seen.insert(number);
                top = top.max(number);
            }
        }
        assert!(seen.len() > 1_000);
    }

    #[test]
    fn the_sender_unused_for_longest_is_forgotten_first() {
        let mut senders = Senders::new(2);
        senders.insert(0, 1, 'a');
        senders.insert(0, 2, 'b');
        senders.get(0, 1);
        senders.insert(0, 3, 'c');
        assert_eq!(senders.len(), 2);
        assert!(senders.get(0, 2).is_none());
        assert_eq!(senders.get(0, 1), Some(&mut 'a'));
    }
}
