//! What this node says of itself, and what it makes of what the others say: the view.
//!
//! Invariants:
//! - a view is made only when something changed, and not more often than the setting says;
//! - whoever goes is out of the ring in the next view.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    Event, Id, Machine, Meta, NodeId, Output, Phase, State,
    gate::Comer,
    meta::{Record, Subject},
    timers::Timer,
};
use crate::cluster::{
    Keys,
    keys::Key,
    view::{Member, View},
};

/// For how long a node that has just found the others takes all of them for settled.
const NEW: Duration = Duration::from_secs(3);

/// When a view is due, and which one was the last.
#[derive(Debug)]
pub(super) struct Publisher {
    last: Arc<View>,
    last_at: Option<Duration>,
    is_touched: bool,
    /// When the timer is set for.
    wake_at: Option<Duration>,
    new_since: Duration,
    /// Of whom there was a warning.
    warned: BTreeSet<NodeId>,
}

impl Publisher {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            last: Arc::default(),
            last_at: None,
            is_touched: true,
            wake_at: None,
            new_since: now,
            warned: BTreeSet::new(),
        }
    }

    /// Something changed.
    pub(super) fn touch(&mut self) {
        self.is_touched = true;
    }

    pub(super) fn is_touched(&self) -> bool {
        self.is_touched
    }

    /// The timer came.
    pub(super) fn wake(&mut self) {
        self.is_touched = true;
        self.wake_at = None;
    }

    /// The node has found others that it did not know.
    pub(super) fn is_new_since(&mut self, now: Duration) {
        self.new_since = now;
    }
}

impl Machine {
    /// Says something else of this node.
    pub(super) fn describe(&mut self, meta: Meta) {
        if *self.own.meta == meta || self.phase != Phase::Member {
            return;
        }
        let version = self.own.version.saturating_add(1);
        self.say(Record { version, meta: Arc::new(meta), ..self.own.clone() });
    }

    /// Others hold a record of this node that it has not made, or not in this life.
    pub(super) fn outdo(&mut self, epoch: u64, version: u32) {
        let epoch = self.own.epoch.max(epoch);
        let version = self.own.version.max(version).saturating_add(1);
        self.say(Record { epoch, version, ..self.own.clone() });
    }

    /// Sends `record`, which is this node's own, around.
    pub(super) fn say(&mut self, record: Record) {
        self.own = record;
        self.records.lock().put_own(self.own.clone());
        if self.foca.add_broadcast(&self.own.encode()).is_err() {
            self.counters.swim_errors += 1;
        }
    }

    /// Takes other keys. Which of them seals, see [`Machine::turn_keys`].
    pub(super) fn set_keys(&mut self, keys: Keys) {
        let sealing = self.envelope.keys().primary().clone();
        self.wanted_keys = keys.clone();
        self.envelope.set_keys(keys.sealed_by(&sealing));
        let keys = self.wanted_keys.iter().map(Key::fingerprint).collect();
        let version = self.own.version.saturating_add(1);
        self.say(Record { version, keys, ..self.own.clone() });
        self.turn_keys();
        let lacking = self.lacking_key();
        if self.envelope.keys().primary() != self.wanted_keys.primary() {
            self.event(Event::KeyWaits(lacking));
        }
    }

    /// Seals with the key that is wanted, once all members can open it.
    pub(super) fn turn_keys(&mut self) {
        if self.envelope.keys().primary() != self.wanted_keys.primary()
            && self.lacking_key().is_empty()
        {
            self.envelope.set_keys(self.wanted_keys.clone());
            self.event(Event::KeyTurned);
        }
    }

    /// The members that are not known to have the key that is wanted.
    fn lacking_key(&self) -> Vec<NodeId> {
        let wanted = self.wanted_keys.primary().fingerprint();
        let records = self.records.lock();
        let lacks = |id: &Id| {
            let record = records.get(&Subject::from(id)).map(|entry| &entry.record);
            record.is_none_or(|record| !record.keys.contains(&wanted))
        };
        let members = self.foca.iter_members().map(foca::Member::id);
        members.filter(|id| lacks(id)).map(|id| id.node).collect()
    }

    /// Hands out a view if there is a new one and it is time.
    pub(super) fn publish(&mut self) {
        if !self.publisher.is_touched {
            return;
        }
        if let Some(last) = self.publisher.last_at
            && self.now < last + self.tuning.coalesce
        {
            return self.publish_at(last + self.tuning.coalesce);
        }
        self.publisher.is_touched = false;
        let view = self.look();
        if view != *self.publisher.last {
            self.publisher.last_at = Some(self.now);
            self.publisher.last = Arc::new(view);
            self.out.push(Output::View(Arc::clone(&self.publisher.last)));
        }
    }

    fn publish_at(&mut self, due: Duration) {
        if self.publisher.wake_at.is_none_or(|at| due < at) {
            self.publisher.wake_at = Some(due);
            self.timers.set(due, Timer::Publish);
        }
    }

    /// What the cluster looks like now.
    fn look(&mut self) -> View {
        let mut found: BTreeMap<NodeId, (Member, u64)> = BTreeMap::new();
        let mut same_name = BTreeSet::new();
        let mut unknown = 0;
        {
            let records = self.records.lock();
            let own = foca::Member::new(*self.foca.identity(), 0, foca::State::Alive);
            for member in std::iter::once(&own).chain(self.foca.iter_members()) {
                let Some(entry) = records.get(&Subject::from(member.id())) else {
                    unknown += 1;
                    continue;
                };
                let (member, epoch) = describe(member, &entry.record, self.own.subject);
                // The lower address keeps a name that two have, except ours, which is ours.
                match found.get(&member.node) {
                    Some((other, _)) => {
                        same_name.insert(member.node);
                        if !other.is_self && member.gossip < other.gossip {
                            found.insert(member.node, (member, epoch));
                        }
                    }
                    None => {
                        found.insert(member.node, (member, epoch));
                    }
                }
            }
        }
        let other_ring = self.open_gate(&mut found);
        self.warn(&other_ring, &same_name);
        View { members: found.into_values().map(|(member, _)| member).collect(), unknown }
    }

    /// Lets those into the ring who are to be in it; tells who has another ring.
    fn open_gate(&mut self, found: &mut BTreeMap<NodeId, (Member, u64)>) -> BTreeSet<NodeId> {
        let ring = self.own.meta.ring;
        let serves = |member: &Member| member.meta.state == State::Serving;
        let others = || found.values().filter(|(member, _)| !member.is_self);
        let comers = others().filter(|(member, _)| serves(member) && member.meta.ring == ring);
        let comers = comers.map(|(member, epoch)| Comer { node: member.node, epoch: *epoch });
        let is_new = self.now < self.publisher.new_since + NEW;
        let admitted = self.gate.judge(comers, self.tuning.settle, is_new, self.now);
        let other_ring = others().filter(|(member, _)| member.meta.ring != ring);
        let other_ring = other_ring.map(|(member, _)| member.node).collect();
        for node in admitted.nodes {
            if let Some((member, _)) = found.get_mut(&node) {
                member.in_ring = true;
            }
        }
        let is_gone = matches!(self.phase, Phase::Gone(_));
        if let Some((own, _)) = found.get_mut(&self.own.subject.node) {
            own.in_ring = serves(own) && !is_gone;
        }
        if let Some(at) = admitted.changes_at {
            self.publish_at(at);
        }
        other_ring
    }

    /// Warns once of each member that is left out, until it no longer is.
    fn warn(&mut self, other_ring: &BTreeSet<NodeId>, same_name: &BTreeSet<NodeId>) {
        for node in other_ring.difference(&self.publisher.warned) {
            self.out.push(Output::Event(Event::OtherRing(*node)));
        }
        for node in same_name.difference(&self.publisher.warned) {
            self.out.push(Output::Event(Event::SameName(*node)));
        }
        self.publisher.warned = other_ring | same_name;
    }
}

/// A member of the view, not let into the ring yet, and the start of its process.
fn describe(member: &foca::Member<Id>, record: &Record, own: Subject) -> (Member, u64) {
    let id = member.id();
    let described = Member {
        node: id.node,
        gossip: id.addr,
        generation: id.generation,
        meta: Arc::clone(&record.meta),
        is_self: Subject::from(id) == own,
        is_suspect: member.state() == foca::State::Suspect,
        in_ring: false,
    };
    (described, record.epoch)
}
