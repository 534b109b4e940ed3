//! The watch: every member keeps an eye on the next one.
//!
//! foca probes members by chance. That finds a death soon on average, and now and then late:
//! of a hundred deaths one waits for nine times the mean. So every other probe of a node is
//! not foca's but its own, and always of the same member: the one that follows this node in
//! the circle of all names. Each member is watched by exactly one other so, and asked once in
//! two periods, whatever the cluster's size. If a member and its watcher die together, foca's
//! probes find them, and the next watcher does once it knows that the former one is dead.
//!
//! A probe here is as foca's, and in foca's messages: a ping, others that are asked to ping,
//! and then, before anybody is told of a suspicion, the challenge by TCP. What few packets
//! get lost on the way costs no gossip.
//!
//! Invariants:
//! - whoever is heard of in any way while a probe lasts has passed it;
//! - a suspect is not watched: its time runs already, and the one after it shall not wait.

use std::{net::SocketAddr, time::Duration};

use bytes::BufMut as _;
use foca::{Codec as _, Header, Message, State};

use super::{Codec, Event, Id, Machine, Phase, challenge::Cause, timers::Timer};

/// Whom this node watches, and how far the probe has come.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The probe's number, which answers repeat.
    number: u8,
    /// When the next probe begins.
    next: Duration,
    probe: Option<Probe>,
    /// The last one that did not pass, if it has not since. That it does not again says nothing
    /// new, neither of this node's own health nor to whoever reads the log.
    failed: Option<SocketAddr>,
    is_news: bool,
}

/// A probe of a member that was not heard of since it began.
#[derive(Debug)]
struct Probe {
    id: Id,
    incarnation: u16,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It was pinged.
    Pinged,
    /// Others were asked to ping it.
    Others,
    /// It was asked by TCP.
    Challenged,
}

impl Watch {
    /// The member was heard of.
    pub(super) fn heard(&mut self, id: &Id) {
        if self.probe.as_ref().is_some_and(|probe| probe.id == *id) {
            self.probe = None;
            self.failed = None;
        }
    }

    /// Takes the probe of the member that was challenged for it.
    fn challenged(&mut self, id: &Id) -> bool {
        let is = |probe: &mut Probe| probe.id == *id && probe.stage == Stage::Challenged;
        self.probe.take_if(is).is_some()
    }
}

impl Machine {
    /// Sets its first timer. Nodes that started together do not watch in step.
    pub(super) fn begin_watch(&mut self) {
        let first = self.tuning.period.mul_f64(2.0 * self.dice.f64());
        self.timers.set(self.now + first, Timer::Watch);
    }

    /// The timer of the watch: the next step of the probe, or the next probe.
    pub(super) fn watch(&mut self) {
        if matches!(self.phase, Phase::Gone(_)) {
            return;
        }
        let after = match self.watch.probe.take() {
            Some(Probe { id, incarnation, stage: Stage::Pinged }) => {
                self.watch_through_others(id);
                self.watch.probe = Some(Probe { id, incarnation, stage: Stage::Others });
                self.unwell(self.tuning.rtt)
            }
            Some(Probe { id, incarnation, stage: Stage::Others }) => {
                self.watch_by_tcp(id, incarnation);
                self.watch.next.saturating_sub(self.now)
            }
            Some(Probe { id, incarnation, stage: Stage::Challenged }) => {
                self.watch_failed(id, incarnation);
                self.watch_next()
            }
            None if self.now < self.watch.next => self.watch.next.saturating_sub(self.now),
            None => self.watch_next(),
        };
        self.timers.set(self.now + after, Timer::Watch);
    }

    /// Begins a probe of the next member in the circle; says when to look for its answer.
    fn watch_next(&mut self) -> Duration {
        // Once in two periods, and not before the last one is over.
        let beat = (2 * self.tuning.period).max(3 * self.tuning.rtt);
        self.watch.next = self.now + self.unwell(beat);
        let Some((id, incarnation)) = self.next_in_circle() else { return self.unwell(beat) };
        self.watch.number = self.watch.number.wrapping_add(1);
        self.watch.probe = Some(Probe { id, incarnation, stage: Stage::Pinged });
        self.say_to(id, Message::Ping(self.watch.number));
        self.unwell(self.tuning.rtt)
    }

    /// Whoever follows this node in the order of names and is no suspect, and its incarnation.
    fn next_in_circle(&self) -> Option<(Id, u16)> {
        let own = self.id().node.0;
        let members = self.foca.iter_members().filter(|it| it.state() == State::Alive);
        // Names are random: who follows whom says nothing about where they run.
        let next = members.min_by_key(|it| it.id().node.0.wrapping_sub(own).wrapping_sub(1))?;
        Some((*next.id(), next.incarnation()))
    }

    /// Asks some others to ping it.
    fn watch_through_others(&mut self, id: Id) {
        let others = self.foca.iter_members().map(foca::Member::id).filter(|it| **it != id);
        let chosen = self.dice.choose_multiple(others.copied(), self.tuning.fanout);
        let probe_number = self.watch.number;
        for other in chosen {
            self.say_to(other, Message::PingReq { target: id, probe_number });
        }
    }

    /// No packet came back, by any way.
    fn watch_by_tcp(&mut self, id: Id, incarnation: u16) {
        self.counters.probes_failed += 1;
        self.watch.is_news = self.watch.failed.replace(id.addr) != Some(id.addr);
        if self.watch.is_news {
            self.health.worse();
        }
        // Whoever was asked for another reason a moment ago is left to that.
        if self.challenge(id, incarnation, Cause::Watch { id, incarnation }) {
            self.watch.probe = Some(Probe { id, incarnation, stage: Stage::Challenged });
        }
    }

    /// Neither answered nor refused, as if its host were gone. From here on it is a suspect like
    /// any other; and one whose answer comes late learns of it for certain, and can refute.
    fn watch_failed(&mut self, id: Id, incarnation: u16) {
        if self.known(id.addr).is_some_and(|it| it.state() == State::Alive) {
            self.suspect(id, incarnation);
            self.challenge(id, incarnation, Cause::Word { id, incarnation });
        }
    }

    /// The member answered by TCP.
    pub(super) fn watched_answered(&mut self, id: &Id) {
        if self.watch.challenged(id) && self.watch.is_news {
            self.event(Event::UdpDegraded(id.addr));
        }
    }

    /// Nobody listens where the member was.
    pub(super) fn watched_refused(&mut self, id: &Id) {
        self.watch.challenged(id);
    }

    /// A time of the watch's, longer if this node is not well.
    fn unwell(&self, time: Duration) -> Duration {
        time * (self.health.level() + 1)
    }

    /// Sends a message of foca's that foca has not thought of.
    fn say_to(&mut self, dst: Id, message: Message<Id>) {
        let (src, src_incarnation) = (self.id(), self.incarnation());
        let header = Header { src, src_incarnation, dst, message };
        let mut packet = Vec::with_capacity(96);
        if Codec.encode_header(&header, &mut packet).is_ok() {
            // It speaks of no members.
            packet.put_u16(0);
            self.send(dst.addr, &packet);
        }
    }
}
