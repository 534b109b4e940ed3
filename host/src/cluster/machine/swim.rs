//! Foca, and what stands between it and the world.

use std::{net::SocketAddr, time::Duration};

use foca::{Error, Message, OwnedNotification, State};

use super::{
    Channel, Event, Id, Machine, Output, Phase, Rejection, Swim, challenge::Cause, codec,
    effects::Effects, meta::Subject, timers::Timer, tuning,
};

/// Suspects that are asked at once by a node that stood still.
const SUSPECTS_ASKED: usize = 8;

/// A round of gossip before its time.
#[derive(Debug, Default)]
pub(super) struct Haste {
    is_wanted: bool,
    /// There was one since the last round that was due.
    is_spent: bool,
}

impl Machine {
    /// Runs one call into foca and sees to what it asked for.
    pub(super) fn swim(&mut self, call: impl FnOnce(&mut Swim, &mut Effects) -> Result<(), Error>) {
        if call(&mut self.foca, &mut self.effects).is_err() {
            self.counters.swim_errors += 1;
        }
        // A new generation is to be written down before anything is sent under it.
        for note in std::mem::take(&mut self.effects.notes) {
            self.note(&note);
        }
        for (to, packet) in std::mem::take(&mut self.effects.packets) {
            self.send(to.addr, &packet);
        }
        for (timer, after) in std::mem::take(&mut self.effects.timers) {
            self.arm(timer, after);
        }
    }

    /// A datagram came. It reaches foca only if a member has sealed it.
    pub(super) fn datagram(&mut self, from: SocketAddr, bytes: &[u8]) {
        self.counters.datagrams_in += 1;
        self.counters.bytes_in += bytes.len() as u64;
        let opened = match self.envelope.open(Channel::Datagram, bytes) {
            Ok(opened) => opened,
            Err(rejection) => return self.reject(from, rejection),
        };
        if matches!(self.phase, Phase::Gone(_)) {
            return;
        }
        let Ok((header, members)) = codec::peek(&opened.payload) else {
            return self.reject(from, Rejection::Malformed);
        };
        let own = self.id();
        if header.src.addr == own.addr {
            return self.sight(&header.src);
        }
        self.sight(&header.dst);
        for member in members {
            self.sight(member.id());
            if member.state() == foca::State::Suspect {
                self.publisher.touch();
                if *member.id() == own && member.incarnation() >= self.effects.incarnation {
                    // We will have to refute it, so we were slow for somebody.
                    self.health.worse();
                }
            }
        }
        if matches!(header.message, Message::Ack(_) | Message::ForwardedAck { .. }) {
            self.health.better();
        }
        self.watch.heard(&header.src);
        if let Message::ForwardedAck { origin, .. } = &header.message {
            self.watch.heard(origin);
        }
        self.challenges.note_boot(header.src.addr, opened.boot);
        self.currency.heard_somebody();
        self.swim(|foca, effects| foca.handle_data(&opened.payload, effects));
    }

    /// Passes the word of a death on at once: at each node on its way it would wait for half
    /// a round of gossip. It is sent no more often than it would be, only sooner; and of many
    /// deaths at once the rounds that are due carry most.
    pub(super) fn hurry(&mut self) {
        let is_wanted = std::mem::take(&mut self.haste.is_wanted);
        if is_wanted && !self.haste.is_spent && self.foca.updates_backlog() > 0 {
            self.haste.is_spent = true;
            self.swim(|foca, effects| foca.gossip(effects));
        }
    }

    /// Sets a timer of foca's, later than it asks for if this node is not well.
    fn arm(&mut self, timer: foca::Timer<Id>, after: Duration) {
        let foca::Timer::ChangeSuspectToDown { member_id: id, incarnation, .. } = timer else {
            let mut after = self.health.stretch(&timer, after);
            if matches!(timer, foca::Timer::PeriodicGossip(_)) {
                // Nodes that started together would gossip in step, and news would wait for
                // the next beat at each of them.
                after = after.mul_f64(0.8 + 0.4 * self.dice.f64());
                self.haste.is_spent = false;
            }
            self.timers.set(self.now + after, Timer::Swim(timer));
            return;
        };
        self.counters.probes_failed += 1;
        self.publisher.touch();
        self.health.worse();
        let due = self.now + self.health.stretch(&timer, after);
        self.timers.set(due, Timer::Suspicion(timer.clone()));
        if self.is_suspect(&id, incarnation) {
            self.challenge(id, incarnation, Cause::Probe(timer));
        }
    }

    /// The time for a suspect to refute is over. Foca is asked to declare it down only if
    /// it is still suspected of the very same: told otherwise, foca would leave a member
    /// alone that has refuted, and all the same send it word that it is dead (F1).
    pub(super) fn suspicion_ended(&mut self, timer: foca::Timer<Id>) {
        let foca::Timer::ChangeSuspectToDown { member_id: id, incarnation, .. } = &timer else {
            return;
        };
        if self.is_suspect(id, *incarnation) {
            self.swim(|foca, effects| foca.handle_timer(timer, effects));
        } else {
            self.counters.suspicions_dropped += 1;
        }
    }

    /// Whether the member is suspect in that very incarnation.
    pub(super) fn is_suspect(&self, id: &Id, incarnation: u16) -> bool {
        self.known(id.addr).is_some_and(|member| {
            member.id() == id
                && member.state() == foca::State::Suspect
                && member.incarnation() == incarnation
        })
    }

    /// What foca knows of whoever is at `addr`.
    pub(super) fn known(&self, addr: SocketAddr) -> Option<&foca::Member<Id>> {
        self.foca.iter_membership_state().find(|member| member.id().addr == addr)
    }

    fn note(&mut self, note: &OwnedNotification<Id>) {
        match note {
            OwnedNotification::MemberUp(id) => {
                self.publisher.touch();
                self.tombstones.remove(id.addr);
                self.lack_record(id);
                self.sync_soon();
                self.event(Event::Up(*id));
            }
            OwnedNotification::MemberDown(id) => {
                self.publisher.touch();
                self.counters.members_down += 1;
                self.haste.is_wanted = true;
                self.tombstones.add(*id, self.now);
                self.sync_soon();
                self.event(Event::Down { id: *id, has_left: self.is_leaving(id) });
            }
            OwnedNotification::Rename(_, id) => {
                self.publisher.touch();
                self.tombstones.rename(*id);
            }
            OwnedNotification::Active => self.connected(),
            OwnedNotification::Idle => self.alone(),
            OwnedNotification::Rejoin(id) => {
                self.counters.renewals += 1;
                self.out.push(Output::Generation(id.generation));
                self.event(Event::Renewed(*id));
                // Whoever took this node for dead has told it nothing since.
                self.doubt_currency();
            }
            // Identities can always be renewed, so this is only when we leave.
            OwnedNotification::Defunct => {}
        }
    }

    /// Whether the member has said that it is going.
    pub(super) fn is_leaving(&self, id: &Id) -> bool {
        let records = self.records.lock();
        let record = records.get(&Subject::from(id)).map(|entry| &entry.record);
        record.is_some_and(|it| it.meta.state == super::State::Draining)
    }

    /// Adapts what follows the cluster's size. The size of a packet does not (F2).
    pub(super) fn resize(&mut self) {
        let members = self.foca.num_members() + 1;
        if members == self.sized_for {
            return;
        }
        self.sized_for = members;
        self.envelope.set_members(members);
        let config = tuning::config(&self.tuning, members);
        if self.foca.set_config(config).is_err() {
            self.counters.swim_errors += 1;
        }
    }

    /// Notices that the machine was not driven for a while: packets that would clear the
    /// suspects are waiting or were lost, so their time begins anew, and they are asked.
    pub(super) fn notice_lag(&mut self) {
        let Some(due) = self.timers.next_due() else { return };
        let lag = self.now.saturating_sub(due);
        if due < self.lag_noted || lag <= self.tuning.period {
            return;
        }
        self.lag_noted = self.now;
        self.counters.lags += 1;
        self.health.worse();
        self.event(Event::Lag(lag));
        self.was_held_up(lag);
        // Others may suspect this node, and the word of it may be lost.
        self.sync_with_any();
        self.sync_soon();
        let anew = self.now + tuning::config(&self.tuning, self.sized_for).suspect_to_down_after;
        self.timers
            .put_off(anew, |timer| matches!(timer, Timer::Suspicion(_) | Timer::Doubt { .. }));
        let members = self.foca.iter_members().filter(|it| it.state() == State::Suspect);
        let suspects: Vec<_> = members.map(|it| (*it.id(), it.incarnation())).collect();
        for (id, incarnation) in self.dice.choose_multiple(suspects, SUSPECTS_ASKED) {
            self.challenge(id, incarnation, Cause::Word { id, incarnation });
        }
    }
}
