//! Challenges: asking a suspect by TCP whether it is still there.
//!
//! One connection does what Lifeguard needs three things for. A member that answers has
//! learnt of the suspicion and refutes it, and its answer clears it here: datagrams that get
//! lost condemn nobody. A connection that is refused says that the host is there and the
//! process is not: with a failed probe, direct and by others, that is a death, and nobody
//! needs to wait. Silence says nothing, and the suspicion takes its time.
//!
//! Invariants:
//! - nobody is challenged more than once a second, and once more by the watch, which leaves
//!   alone whom anything else has just challenged;
//! - refusal alone kills nobody: there is a failed probe, or another member's word, too;
//! - a member that was killed by a refusal and turned out to be the same process is not
//!   killed so again for a while: something on the way lies.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use foca::Member;

use super::{
    End, Event, Id, Machine, Purpose,
    exchange::{Answer, Question, Reply, Verdict},
    identity::NodeId,
    timers::Timer,
    tuning,
};

/// For one challenge: a lost SYN is sent again after a second.
pub(super) const TIMEOUT: Duration = Duration::from_secs(2);
/// Between two challenges of one member.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a process that did not die of a refusal is spared another.
const SPARED: Duration = Duration::from_mins(1);

/// Why a member is challenged.
#[derive(Debug)]
pub(super) enum Cause {
    /// Our probe of it failed. The timer is what declares it down.
    Probe(foca::Timer<Id>),
    /// Another member has it for dead.
    Word { id: Id, incarnation: u16 },
    /// It did not pass the watch's probe.
    Watch { id: Id, incarnation: u16 },
    /// We have it for dead, and another member does not: it is to begin a new life.
    Dead,
    /// It did not answer on its peer port.
    Evidence { id: Id, incarnation: u16 },
}

/// Who was challenged when, and how that went.
#[derive(Debug, Default)]
pub(super) struct Challenges {
    last: HashMap<SocketAddr, Duration>,
    /// The last start of each address that we heard of.
    boots: HashMap<SocketAddr, u64>,
    /// Whom a refusal killed, in which of its starts.
    killed: HashMap<SocketAddr, (u64, Duration)>,
}

impl Challenges {
    pub(super) fn note_boot(&mut self, addr: SocketAddr, boot: u64) {
        self.boots.insert(addr, boot);
    }

    /// Whether a refusal may kill whoever is at `addr`. Notes that it does.
    fn may_kill(&mut self, addr: SocketAddr, now: Duration) -> bool {
        let Some(&boot) = self.boots.get(&addr) else { return true };
        let was_same = self.killed.get(&addr).is_some_and(|(it, _)| *it == boot);
        self.killed.insert(addr, (boot, now));
        !was_same
    }

    fn may_ask(&mut self, addr: SocketAddr, cause: &Cause, now: Duration) -> bool {
        if self.last.get(&addr).is_some_and(|last| now < *last + PAUSE) {
            return false;
        }
        // The watch's is not counted: a member that passes it has refuted nothing, and a
        // suspicion that comes next is to be challenged too.
        if !matches!(cause, Cause::Watch { .. }) {
            self.last.insert(addr, now);
        }
        true
    }

    pub(super) fn sweep(&mut self, now: Duration, is_known: impl Fn(&SocketAddr) -> bool) {
        self.last.retain(|_, last| now < *last + PAUSE);
        self.killed.retain(|_, (_, at)| now < *at + SPARED);
        self.boots.retain(|addr, _| is_known(addr));
    }
}

impl Machine {
    /// Asks `id` whether it is still there, unless that was asked a moment ago.
    pub(super) fn challenge(&mut self, id: Id, incarnation: u16, cause: Cause) -> bool {
        if !self.challenges.may_ask(id.addr, &cause, self.now) {
            return false;
        }
        let verdict = match cause {
            Cause::Dead => Verdict::Down,
            Cause::Watch { .. } => Verdict::Unheard,
            Cause::Probe(_) | Cause::Word { .. } | Cause::Evidence { .. } => Verdict::Suspect,
        };
        let question = Question::Challenge { asked: id, incarnation, verdict };
        let is_asked = self.ask(id.addr, question, Purpose::Challenge(cause));
        self.counters.challenges += u64::from(is_asked);
        is_asked
    }

    /// The node's own word that a member does not answer.
    pub(super) fn doubt(&mut self, node: NodeId) {
        let member = self.foca.iter_members().find(|member| member.id().node == node);
        if let Some((id, incarnation)) = member.map(|it| (*it.id(), it.incarnation())) {
            self.challenge(id, incarnation, Cause::Evidence { id, incarnation });
        }
    }

    /// Somebody asks whether we are still there.
    pub(super) fn answer_challenge(
        &mut self,
        asked: &Id,
        incarnation: u16,
        verdict: Verdict,
    ) -> Option<Answer> {
        let own = self.id();
        if asked.addr != own.addr {
            return None;
        }
        if *asked == own {
            // As if the cluster had told us: foca refutes, or begins a new life.
            let state = match verdict {
                Verdict::Unheard => None,
                Verdict::Suspect => Some(foca::State::Suspect),
                Verdict::Down => Some(foca::State::Down),
            };
            if let Some(state) = state {
                let rumour = Member::new(own, incarnation, state);
                self.health.worse();
                self.swim(|foca, to| foca.apply_many(std::iter::once(rumour), true, to));
            }
        }
        Some(Answer::Alive { id: self.id(), incarnation: self.incarnation() })
    }

    /// A challenge came to an end.
    pub(super) fn challenge_ended(&mut self, to: SocketAddr, cause: Cause, end: &End) {
        match *end {
            End::Answered(Reply { answer: Answer::Alive { id, incarnation }, .. })
                if id.addr == to =>
            {
                self.counters.challenges_answered += 1;
                if matches!(cause, Cause::Probe(_)) {
                    self.counters.udp_degraded += 1;
                    self.event(Event::UdpDegraded(to));
                }
                if let Cause::Watch { id, .. } = &cause {
                    self.watched_answered(id);
                }
                let alive = Member::new(id, incarnation, foca::State::Alive);
                self.swim(|foca, to| foca.apply_many(std::iter::once(alive), true, to));
            }
            End::Refused => {
                self.counters.challenges_refused += 1;
                self.refused(to, cause);
            }
            End::Answered(_) | End::Failed => {
                self.counters.challenges_failed += 1;
                if let Cause::Word { id, incarnation } = cause {
                    self.suspect(id, incarnation);
                }
            }
        }
    }

    fn refused(&mut self, to: SocketAddr, cause: Cause) {
        match cause {
            Cause::Probe(timer) => {
                if self.challenges.may_kill(to, self.now) {
                    self.suspicion_ended(timer);
                }
            }
            Cause::Watch { id, incarnation } => {
                self.watched_refused(&id);
                if self.challenges.may_kill(to, self.now) {
                    self.bury(id, incarnation);
                } else {
                    self.suspect(id, incarnation);
                }
            }
            Cause::Word { id, incarnation } => {
                if self.challenges.may_kill(to, self.now) {
                    self.bury(id, incarnation);
                }
            }
            Cause::Evidence { id, incarnation } => self.suspect(id, incarnation),
            Cause::Dead => {}
        }
    }

    /// Suspects a member ourselves.
    pub(super) fn suspect(&mut self, id: Id, incarnation: u16) {
        let suspect = Member::new(id, incarnation, foca::State::Suspect);
        self.swim(|foca, to| foca.apply_many(std::iter::once(suspect), true, to));
        let after = tuning::config(&self.tuning, self.sized_for).suspect_to_down_after;
        self.timers.set(self.now + after, Timer::Doubt { id, incarnation });
    }

    /// The time for somebody whom we suspect ourselves is over.
    pub(super) fn doubt_ended(&mut self, id: Id, incarnation: u16) {
        if self.is_suspect(&id, incarnation) {
            self.bury(id, incarnation);
        } else {
            self.counters.suspicions_dropped += 1;
        }
    }

    /// Declares a member down, unless it has shown itself meanwhile.
    fn bury(&mut self, id: Id, incarnation: u16) {
        let known = self.known(id.addr);
        if known.is_some_and(|it| *it.id() == id && it.incarnation() == incarnation) {
            let down = Member::new(id, incarnation, foca::State::Down);
            self.swim(|foca, to| foca.apply_many(std::iter::once(down), true, to));
        }
    }

    /// Our own incarnation. Foca tells it only in packets.
    pub(super) fn incarnation(&mut self) -> u16 {
        let mut unsent = super::Effects::default();
        match self.foca.announce(Id::whoever(self.id().addr), &mut unsent) {
            Ok(()) => unsent.incarnation,
            Err(_) => self.effects.incarnation,
        }
    }
}
