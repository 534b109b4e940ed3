//! The purges of the last minute, by what they are about.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::wire::{Purge, PurgeId, Scope};

/// For how long a purge is recent: longer than it takes to reach every member.
const KEPT: Duration = Duration::from_mins(1);

/// Recent purges; beyond, the oldest are forgotten early.
const PURGES_MAX: usize = 8_192;

/// Recent purges, and whether there may have been more.
#[derive(Debug, Default)]
pub(super) struct Recent {
    in_order: VecDeque<(Instant, PurgeId, Box<str>, Scope)>,
    known: HashSet<PurgeId>,
    by_group: HashMap<Box<str>, OfGroup>,
    /// Until then, what is known is not all that there was.
    blind_until: Option<Instant>,
}

/// Those of one group.
#[derive(Debug, Default)]
struct OfGroup {
    keys: HashMap<Box<[u8]>, (Instant, PurgeId)>,
    /// Of labels and of the whole group, the oldest first.
    wide: VecDeque<(Instant, PurgeId, Scope)>,
}

impl Recent {
    /// Notes a purge; `false` if it was known.
    pub(super) fn note(&mut self, purge: &Purge, now: Instant) -> bool {
        self.forget_old(now);
        if !self.known.insert(purge.id) {
            return false;
        }
        if self.in_order.len() >= PURGES_MAX {
            self.forget_first();
            self.lose_track(now);
        }
        let Purge { id, group, scope } = purge;
        let of_group = self.by_group.entry(group.clone()).or_default();
        match scope {
            Scope::Key(key) => _ = of_group.keys.insert(key.clone(), (now, *id)),
            wide => of_group.wide.push_back((now, *id, wide.clone())),
        }
        self.in_order.push_back((now, *id, group.clone(), scope.clone()));
        true
    }

    /// There were purges that are not known here.
    pub(super) fn lose_track(&mut self, now: Instant) {
        self.blind_until = Some(now + KEPT);
    }

    /// What is known about `key`, as bytes that another node reads; `None` if it is more than
    /// `room` has, or not all that there was.
    pub(super) fn about(
        &mut self,
        group: &str,
        key: &[u8],
        room: usize,
        now: Instant,
    ) -> Option<Bytes> {
        self.forget_old(now);
        if self.is_blind(now) {
            return None;
        }
        let Some(of_group) = self.by_group.get(group) else { return Some(Bytes::new()) };
        let of_key = of_group.keys.get(key).map(|(_, id)| (*id, Scope::Key(key.into())));
        let wide = of_group.wide.iter().map(|(_, id, scope)| (*id, scope.clone()));
        let mut out = Vec::new();
        for (id, scope) in of_key.into_iter().chain(wide) {
            let is_written = Purge { id, group: group.into(), scope }.write(&mut out);
            if !is_written || out.len() > room {
                return None;
            }
        }
        Some(out.into())
    }

    /// Whether `key` was purged, or may have been, within the last `age`.
    pub(super) fn is_purged_within(
        &self,
        group: &str,
        key: &[u8],
        age: Duration,
        now: Instant,
    ) -> bool {
        let is_within = |at: Instant| now.saturating_duration_since(at) <= age;
        let of_group = self.by_group.get(group);
        let is_purged = of_group.is_some_and(|of_group| {
            let of_key = of_group.keys.get(key).map(|(at, _)| *at);
            let last_wide = of_group.wide.back().map(|(at, ..)| *at);
            of_key.into_iter().chain(last_wide).any(is_within)
        });
        is_purged || self.is_blind(now)
    }

    fn is_blind(&self, now: Instant) -> bool {
        self.blind_until.is_some_and(|until| now < until)
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((at, ..)) = self.in_order.front()
            && now.saturating_duration_since(*at) > KEPT
        {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some((_, id, group, scope)) = self.in_order.pop_front() else { return };
        self.known.remove(&id);
        let Some(of_group) = self.by_group.get_mut(&group) else { return };
        match scope {
            // A later purge of the key may have taken its place.
            Scope::Key(key) => {
                if of_group.keys.get(&key).is_some_and(|(_, last)| *last == id) {
                    of_group.keys.remove(&key);
                }
            }
            Scope::Tag(_) | Scope::All => _ = of_group.wide.pop_front(),
        }
        if of_group.keys.is_empty() && of_group.wide.is_empty() {
            self.by_group.remove(&group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purge(number: u64, scope: Scope) -> Purge {
        Purge { id: PurgeId { node: 1, number }, group: "g".into(), scope }
    }

    fn key(text: &str) -> Scope {
        Scope::Key(text.as_bytes().into())
    }

    #[test]
    fn a_question_brings_along_what_concerns_its_key() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        assert_eq!(recent.about("g", b"a", 100, now), Some(Bytes::new()));
        assert!(recent.note(&purge(1, key("a")), now));
        assert!(!recent.note(&purge(1, key("a")), now), "known");
        recent.note(&purge(2, key("b")), now);
        recent.note(&purge(3, Scope::Tag("t".into())), now);
        let mut news = recent.about("g", b"a", 100, now).expect("little enough");
        let read: Vec<_> = std::iter::from_fn(|| Purge::read(&mut news).ok()).collect();
        assert_eq!(read, [purge(1, key("a")), purge(3, Scope::Tag("t".into()))]);
        assert_eq!(recent.about("other", b"a", 100, now), Some(Bytes::new()));
        assert_eq!(recent.about("g", b"a", 30, now), None, "more than there is room for");
    }

    #[test]
    fn what_may_be_older_than_a_purge_is_outdated() {
        let (mut recent, then) = (Recent::default(), Instant::now());
        recent.note(&purge(1, key("a")), then);
        let now = then + Duration::from_secs(5);
        let is_outdated = |recent: &Recent, key: &[u8], age| {
            recent.is_purged_within("g", key, Duration::from_secs(age), now)
        };
        assert!(is_outdated(&recent, b"a", 5) && is_outdated(&recent, b"a", 9));
        assert!(!is_outdated(&recent, b"a", 4), "filled after it");
        assert!(!is_outdated(&recent, b"b", 9));
        recent.note(&purge(2, Scope::All), now);
        assert!(is_outdated(&recent, b"b", 0));
    }

    #[test]
    fn a_purge_is_forgotten_after_a_minute_and_a_later_one_of_the_same_key_is_not() {
        let (mut recent, then) = (Recent::default(), Instant::now());
        recent.note(&purge(1, key("a")), then);
        let later = then + KEPT;
        recent.note(&purge(2, key("a")), later);
        let now = later + Duration::from_secs(1);
        let mut news = recent.about("g", b"a", 100, now).expect("little enough");
        assert_eq!(Purge::read(&mut news), Ok(purge(2, key("a"))));
        assert!(news.is_empty());
        let end = now + KEPT;
        assert_eq!(recent.about("g", b"a", 100, end), Some(Bytes::new()));
        assert!(recent.by_group.is_empty() && recent.known.is_empty());
    }

    #[test]
    fn more_purges_than_are_kept_make_everything_doubtful_for_a_while() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        for number in 0..=PURGES_MAX as u64 {
            recent.note(&purge(number, key(&number.to_string())), now);
        }
        assert_eq!(recent.in_order.len(), PURGES_MAX);
        assert_eq!(recent.about("g", b"x", 100, now), None);
        assert!(recent.is_purged_within("g", b"x", Duration::ZERO, now));
        let later = now + KEPT + Duration::from_secs(1);
        assert_eq!(recent.about("g", b"x", 100, later), Some(Bytes::new()));
    }
}
