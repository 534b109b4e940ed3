//! Finding the others, and finding them again.
//!
//! A node that is alone tries to join for as long as it takes (F3): foca stops all of its
//! timers then and would stay alone for ever. A node that is not alone knocks now and then
//! at the doors of those who should be there and are not, which is what heals a partition.
//!
//! Invariants:
//! - what discovery names is a proposal: nobody is let in or left out by it;
//! - a node that fails to join waits up to ten seconds, by chance, and tries again.

use std::{collections::BTreeSet, net::SocketAddr};

use foca::Identity as _;

use super::{Event, Id, Machine, Phase, timers::Timer};

/// Candidates that are kept.
const CANDIDATES_MAX: usize = 1_024;
/// Candidates that are tried at once while alone, and at each knocking.
const TRIED_ALONE: usize = 3;
const TRIED_KNOCKING: usize = 2;

/// What is known of others who are no members.
#[derive(Debug, Default)]
pub(super) struct Join {
    candidates: Vec<SocketAddr>,
    /// Tries in a row.
    tries: u32,
    /// Whether a timer for the next try is set.
    is_set: bool,
    /// Whether this node has been in touch with anybody yet.
    has_joined: bool,
}

impl Machine {
    pub(super) fn take_candidates(&mut self, mut candidates: Vec<SocketAddr>) {
        candidates.truncate(CANDIDATES_MAX);
        for addr in &mut candidates {
            *addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        }
        candidates.retain(|addr| *addr != self.id().addr);
        if self.join.candidates != candidates {
            self.join.candidates = candidates;
            self.join.tries = 0;
            if self.is_alone() {
                self.try_once();
            }
        }
    }

    /// The timer of joining.
    pub(super) fn try_to_join(&mut self) {
        self.join.is_set = false;
        if !self.is_alone() {
            return;
        }
        self.try_once();
        let (first, longest) = self.tuning.join;
        let pause = first.saturating_mul(1 << self.join.tries.min(16)).min(longest);
        self.join.tries += 1;
        self.join.is_set = true;
        let due = self.now + pause.mul_f64(0.1 + 0.9 * self.dice.f64());
        self.timers.set(due, Timer::Join);
    }

    /// Says hello to some, in both ways: which one gets through is not known.
    fn try_once(&mut self) {
        for addr in self.pick_absent(TRIED_ALONE) {
            self.announce(addr);
            self.sync(addr);
        }
    }

    /// The timer of knocking.
    pub(super) fn knock(&mut self) {
        self.set_jittered(self.tuning.rejoin, Timer::Rejoin);
        if self.phase == Phase::Member && !self.is_alone() {
            for addr in self.pick_absent(TRIED_KNOCKING) {
                self.announce(addr);
            }
        }
    }

    fn announce(&mut self, addr: SocketAddr) {
        let to = self.known(addr).map_or_else(|| Id::whoever(addr), |member| *member.id());
        self.swim(|foca, effects| foca.announce(to, effects));
    }

    /// Some of those who should be members, or were, and are not.
    fn pick_absent(&mut self, count: usize) -> Vec<SocketAddr> {
        let mut absent: BTreeSet<SocketAddr> = self.join.candidates.iter().copied().collect();
        absent.extend(self.tombstones.absent());
        absent.remove(&self.id().addr);
        for member in self.foca.iter_members() {
            absent.remove(&member.id().addr());
        }
        self.dice.choose_multiple(absent, count)
    }

    /// Some members, by chance.
    pub(super) fn pick_members(&mut self, count: usize) -> Vec<SocketAddr> {
        let members = self.foca.iter_members().map(|member| member.id().addr);
        self.dice.choose_multiple(members, count)
    }

    fn is_alone(&self) -> bool {
        self.phase == Phase::Member && self.foca.num_members() == 0
    }

    /// Whether this node knows of no address where anybody may be.
    pub(super) fn has_nowhere_to_ask(&self) -> bool {
        self.is_alone() && self.join.candidates.is_empty() && !self.join.has_joined
    }

    /// Foca has found somebody.
    pub(super) fn connected(&mut self) {
        self.join.tries = 0;
        self.join.has_joined = true;
        self.publisher.is_new_since(self.now);
        self.event(Event::Joined);
        self.is_found();
        // Whoever is there may not have heard what this node says of itself, nor this node
        // of all of them.
        let own = self.own.clone();
        self.say(own);
        self.sync_with_any();
    }

    /// Foca has nobody left, and stops all that it does (F3).
    pub(super) fn alone(&mut self) {
        self.event(Event::Alone);
        self.currency.alone_since(self.now);
        if !self.join.is_set && self.phase == Phase::Member {
            self.join.is_set = true;
            self.join.tries = 0;
            self.timers.set(self.now, Timer::Join);
        }
    }
}
