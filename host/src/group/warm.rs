//! Values from the memory of other nodes: what spares the origin when keys change hands.
//!
//! A node that owns a key since a moment ago looks for it at the node that owned it before
//! ([`Peers::peek_previous`]), and a node that goes hands over what it was asked for last
//! ([`Group::hottest`], [`Group::take_over`]). Neither waits for anybody's getter.
//!
//! Invariant: no value comes back that was purged: what arrives is kept under the lock in
//! which purges forget, and not at all if a purge that is known of may be younger.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Group, Held, Question, fill::Landing};
use crate::{
    config::Caching,
    flight::Ticket,
    store::{Age, Entry, Lifetime, State},
    value::Value,
};

impl Group {
    /// Digest of the code that fills this group; see [`super::Getter::code`].
    pub fn code(&self) -> u64 {
        self.loads.code()
    }

    /// The fresh value that memory holds of `key`, for another node. Looks without a trace:
    /// no refresh, no promotion, no metric. Nothing while this node may have missed a purge.
    pub fn held(&self, key: &[u8]) -> Option<Held> {
        let now = Instant::now();
        if !self.is_current(now) {
            return None;
        }
        let owned = self.store.peek(key, now).and_then(held);
        owned.or_else(|| self.away.get()?.hot.peek(key, now).and_then(held))
    }

    /// The keys that were asked for last among those that this node filled, with what is
    /// held of each: the hottest first, at most `count`.
    pub fn hottest(&self, count: usize) -> Vec<(Box<[u8]>, Held)> {
        let hottest = self.store.hottest(count, Instant::now()).into_iter();
        hottest.filter_map(|(key, entry, age)| Some((key, held((entry, age))?))).collect()
    }

    /// Keeps a value that another node hands over. Refused, with `false`, if this node is
    /// not to have the key, if it knows better already or is about to, or if the value
    /// `is_outdated` for its age: asked under the lock in which a purge forgets.
    pub fn take_over(
        &self,
        key: &[u8],
        held: Held,
        is_outdated: impl FnOnce(Duration) -> bool,
    ) -> bool {
        let takes_over = |away: &Arc<super::Away>| away.peers().takes_over(&self.name, key);
        if !self.away.get().is_none_or(takes_over) {
            return false;
        }
        let settings = self.settings.load();
        let now = Instant::now();
        let Some(lifetime) = lifetime(&settings, &held) else { return false };
        // The fill began before its answer, by as much as a fill may take.
        let age = held.age.saturating_add(settings.fill_timeout);
        self.flights.pause_for(key, |is_open| {
            let is_known = is_open || self.look_quietly(key, now);
            !is_known && !is_outdated(age) && {
                let inserted = self.store.insert_given(key, held.value, lifetime, now);
                self.count_evictions(inserted)
            }
        })
    }

    /// Whether memory has an answer for `key` that may still be served.
    fn look_quietly(&self, key: &[u8], now: Instant) -> bool {
        self.store.peek(key, now).is_some_and(|(_, age)| age.state != State::Dead)
    }

    /// Ends the flight of `ticket` with a value from the memory of the key's previous
    /// owner, if that has one. Gives the ticket back otherwise.
    pub(super) async fn land_from_previous(
        &self,
        ticket: Ticket<Landing>,
        settings: &Caching,
        deadline: Instant,
    ) -> Option<Ticket<Landing>> {
        let Some(away) = self.away.get() else { return Some(ticket) };
        let (group, key) = (Arc::clone(&self.name), Arc::clone(ticket.key()));
        let (asked, code) = (Instant::now(), self.code());
        let question = Question { group, key, asked, deadline, code };
        let Some(peeking) = away.peers().peek_previous(question) else { return Some(ticket) };
        let held = peeking.await;
        let found = held.and_then(|held| Some((lifetime(settings, &held)?, held.value)));
        let Some((lifetime, value)) = found else {
            away.metrics.not_inherited.inc();
            return Some(ticket);
        };
        away.metrics.inherited.inc();
        let key = Arc::clone(ticket.key());
        ticket.land(|keep| self.inherit(&key, value, lifetime, keep));
        None
    }

    /// Keeps what the previous owner held, unless a purge came in between.
    fn inherit(&self, key: &[u8], value: Value, lifetime: Lifetime, keep: bool) -> Landing {
        let stored = keep && {
            self.failures.forget(key);
            let kept = self.store.insert_given(key, value.clone(), lifetime, Instant::now());
            self.count_evictions(kept)
        };
        let ttl = if stored { lifetime.ttl() } else { Duration::ZERO };
        Landing { result: Ok(Some(value)), ttl, stored, from_peer: true }
    }
}

/// What an entry is worth to another node, if it is a fresh value.
fn held((entry, age): (Entry, Age)) -> Option<Held> {
    let value = entry.value.clone().filter(|_| age.state == State::Fresh)?;
    let is_given = entry.is_given();
    Some(Held { value, ttl: age.ttl(), grace: entry.grace(), age: age.age(), is_given })
}

/// How long what another node held is kept here: as long as there, within the group's
/// bounds. `None` when it is not to be kept at all.
fn lifetime(settings: &Caching, held: &Held) -> Option<Lifetime> {
    let fits = held.value.body().len() as u64 <= settings.value_max.get();
    let ttl = held.ttl.min(settings.ttl_max);
    (fits && !ttl.is_zero()).then(|| Lifetime::new(ttl, held.grace.min(settings.grace_max)))
}
