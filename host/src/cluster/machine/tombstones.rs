//! Members that are dead: remembered for a day, then forgotten.
//!
//! They are remembered so that what is still said of them does not bring them back, and
//! because they may be on the other side of a partition. foca would set a timer of a day for
//! each death; a member that is restarted every minute would leave a thousand of them. Here
//! it is one entry an address, and one timer for all (F11).

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use foca::State;

use super::{Id, Machine, exchange::MEMBERS_MAX, timers::Timer};

/// Between two looks at what can be forgotten.
pub(super) const SWEEP: Duration = Duration::from_mins(1);
/// How long somebody who left by its own will is looked for.
const LOOKED_FOR: Duration = Duration::from_hours(24);

#[derive(Debug, Default)]
pub(super) struct Tombstones {
    dead: BTreeMap<SocketAddr, Tombstone>,
}

#[derive(Debug)]
struct Tombstone {
    id: Id,
    since: Duration,
}

impl Tombstones {
    pub(super) fn add(&mut self, id: Id, since: Duration) {
        self.dead.insert(id.addr, Tombstone { id, since });
    }

    pub(super) fn remove(&mut self, addr: SocketAddr) {
        self.dead.remove(&addr);
    }

    /// Whoever is at this address has another identity.
    pub(super) fn rename(&mut self, id: Id) {
        if let Some(tombstone) = self.dead.get_mut(&id.addr) {
            tombstone.id = id;
        }
    }

    /// The addresses of all of them.
    pub(super) fn absent(&self) -> impl Iterator<Item = SocketAddr> {
        self.dead.keys().copied()
    }

    /// Those who died last.
    pub(super) fn latest(&self, count: usize) -> impl Iterator<Item = Id> {
        let mut dead: Vec<_> = self.dead.values().map(|it| (it.since, it.id)).collect();
        dead.sort_unstable_by_key(|(since, _)| std::cmp::Reverse(*since));
        dead.into_iter().take(count).map(|(_, id)| id)
    }

    /// Takes out those who died longest ago: all before `then`, and more if there are too
    /// many.
    fn take_old(&mut self, then: Option<Duration>) -> Vec<Id> {
        let mut dead: Vec<_> = self.dead.values().map(|it| (it.since, it.id)).collect();
        dead.sort_unstable_by_key(|(since, _)| *since);
        let surplus = dead.len().saturating_sub(MEMBERS_MAX);
        let old = dead.into_iter().enumerate();
        let old = old
            .take_while(|(at, (since, _))| *at < surplus || then.is_some_and(|then| *since < then));
        let old: Vec<_> = old.map(|(_, (_, id))| id).collect();
        for id in &old {
            self.dead.remove(&id.addr);
        }
        old
    }
}

impl Machine {
    /// Forgets what is too old, everywhere.
    pub(super) fn sweep(&mut self) {
        self.timers.set(self.now + SWEEP, Timer::Sweep);
        // Those whom we only ever heard of as dead have no tombstone yet.
        let down: Vec<Id> = {
            let members = self.foca.iter_membership_state();
            members.filter(|it| it.state() == State::Down).map(|it| *it.id()).collect()
        };
        for id in down {
            if self.tombstones.dead.get(&id.addr).is_none_or(|it| it.id != id) {
                self.tombstones.add(id, self.now);
            }
        }
        let then = self.now.checked_sub(self.tuning.forget.min(LOOKED_FOR));
        for id in self.tombstones.take_old(then) {
            let timer = foca::Timer::RemoveDown(id);
            self.swim(|foca, effects| foca.handle_timer(timer, effects));
        }
        let known: std::collections::HashSet<SocketAddr> =
            self.foca.iter_membership_state().map(|it| it.id().addr).collect();
        self.records.lock().sweep(|subject| known.contains(&subject.addr));
        self.handler.notices().sweep();
        self.challenges.sweep(self.now, |addr| known.contains(addr));
        let now = self.now;
        self.exchanges.retain(|_, it| now < it.since + super::EXCHANGE_MAX);
    }
}
