//! Who is there, and who was a moment ago.
//!
//! When members come or go, some keys change hands. For a while after that the node that
//! owned a key before still holds its value, and can be asked for it: also one that has
//! left the ring and is about to go.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Route, health::Peer};
use crate::ring::{Kind, Node, Ring};

/// For how long a key's previous owner is looked at after a change.
pub(super) const REMEMBERED: Duration = Duration::from_mins(1);

/// Changes that are remembered.
const CHANGES_MAX: usize = 4;

/// A ring and how its members are reached.
pub(super) struct Circle {
    kind: Kind,
    nodes: Vec<Node>,
    pub(super) ring: Ring,
    /// In the order of the ring's members; `None` for this node.
    pub(super) peers: Vec<Option<Arc<Peer>>>,
}

/// Who is there at one moment.
pub(super) struct Members {
    pub(super) now: Arc<Circle>,
    /// What was there before, until when: the latest first.
    before: Vec<(Instant, Arc<Circle>)>,
    /// When this node came among others.
    joined: Option<Instant>,
}

impl Circle {
    pub(super) fn new(kind: Kind, nodes: Vec<Node>, peers: Vec<Option<Arc<Peer>>>) -> Self {
        Self { kind, ring: Ring::new(kind, &nodes), nodes, peers }
    }

    /// The member at this place of the ring.
    pub(super) fn route(&self, at: usize) -> Option<Route> {
        let peer = self.peers.get(at)?.as_ref();
        Some(Route {
            name: self.nodes.get(at)?.name.clone(),
            address: peer.map(|peer| peer.authority.clone()),
            is_asked: peer.is_none_or(|peer| peer.is_asked() && !peer.is_suspect()),
        })
    }

    /// The one who owns `key`, if that is not this node.
    pub(super) fn owner(&self, key: &[u8]) -> Option<&Arc<Peer>> {
        self.peers.get(self.ring.owner(key)?)?.as_ref()
    }

    fn is_own(&self, key: &[u8]) -> bool {
        let owner = self.ring.owner(key).and_then(|owner| self.peers.get(owner));
        matches!(owner, Some(None))
    }

    /// Whether this node owns `key`, or will once its owner is gone.
    pub(super) fn is_in_line(&self, key: &[u8]) -> bool {
        self.ring.owners(key, 2).into_iter().any(|at| matches!(self.peers.get(at), Some(None)))
    }

    /// The first other node in the order of `key`.
    pub(super) fn next(&self, key: &[u8]) -> Option<&Arc<Peer>> {
        self.ring.owners(key, 2).into_iter().find_map(|at| self.peers.get(at)?.as_ref())
    }

    fn is_among_others(&self) -> bool {
        self.peers.iter().any(Option::is_none) && self.peers.iter().any(Option::is_some)
    }

    fn is(&self, kind: Kind, nodes: &[Node], peers: &[Option<Arc<Peer>>]) -> bool {
        let is_same = |(one, other): (&Option<Arc<Peer>>, &Option<Arc<Peer>>)| match (one, other) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        self.kind == kind && self.nodes == nodes && self.peers.iter().zip(peers).all(is_same)
    }
}

impl Members {
    pub(super) fn first(now: Circle) -> Self {
        Self { now: Arc::new(now), before: Vec::new(), joined: None }
    }

    /// These members after a change to a ring of `nodes`; `None` if that changes nothing.
    /// Takes as long as to make a ring.
    pub(super) fn changed(
        &self,
        kind: Kind,
        nodes: Vec<Node>,
        peers: Vec<Option<Arc<Peer>>>,
        now: Instant,
    ) -> Option<Self> {
        if self.now.is(kind, &nodes, &peers) {
            return None;
        }
        let next = Circle::new(kind, nodes, peers);
        let joined = match (self.now.is_among_others(), next.is_among_others()) {
            (false, true) => Some(now),
            _ => self.joined,
        };
        let mut before = vec![(now, Arc::clone(&self.now))];
        before.extend(self.remembered(now).cloned());
        before.truncate(CHANGES_MAX);
        Some(Self { now: Arc::new(next), before, joined })
    }

    /// These members without what was long ago, so that nobody is kept who has gone.
    pub(super) fn forgetting(&self, now: Instant) -> Self {
        let before = self.remembered(now).cloned().collect();
        Self { now: Arc::clone(&self.now), before, joined: self.joined }
    }

    fn remembered(&self, now: Instant) -> impl Iterator<Item = &(Instant, Arc<Circle>)> {
        let is_recent = move |since: Instant| now.saturating_duration_since(since) < REMEMBERED;
        self.before.iter().filter(move |(until, _)| is_recent(*until))
    }

    /// Every peer that is known, those that have gone of late included.
    pub(super) fn known(&self) -> impl Iterator<Item = &Arc<Peer>> {
        let before = self.before.iter().flat_map(|(_, circle)| &circle.peers);
        self.now.peers.iter().chain(before).flatten()
    }

    /// Who owned `key` before this node, which owns it since a moment ago.
    pub(super) fn previous(&self, key: &[u8], now: Instant) -> Option<&Arc<Peer>> {
        let has_joined =
            self.joined.is_some_and(|at| now.saturating_duration_since(at) < REMEMBERED);
        if (self.before.is_empty() && !has_joined) || !self.now.is_own(key) {
            return None;
        }
        let owner = self.remembered(now).find_map(|(_, circle)| circle.owner(key));
        // A node that came knows no ring without itself; but whoever is next in line now
        // was first before.
        owner.or_else(|| has_joined.then(|| self.now.next(key))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Dialect;

    type Parts = (Vec<Node>, Vec<Option<Arc<Peer>>>);

    /// Nodes by their ports; this one is 1.
    fn parts(known: Option<&Members>, ports: &[u16]) -> Parts {
        let nodes = ports.iter().map(|port| Node::new(port.to_string())).collect();
        let peer = |port: &u16| {
            let name = port.to_string();
            let known = known.and_then(|it| it.known().find(|peer| peer.authority == name));
            (*port != 1).then(|| {
                known.cloned().unwrap_or_else(|| Arc::new(Peer::new(name, Dialect::V2, None)))
            })
        };
        (nodes, ports.iter().map(peer).collect())
    }

    fn circle(ports: &[u16]) -> Circle {
        let (nodes, peers) = parts(None, ports);
        Circle::new(Kind::Native, nodes, peers)
    }

    fn change(members: &Members, ports: &[u16], now: Instant) -> Option<Members> {
        let (nodes, peers) = parts(Some(members), ports);
        members.changed(Kind::Native, nodes, peers, now)
    }

    fn previous(members: &Members, key: u32, now: Instant) -> Option<String> {
        members.previous(&key.to_le_bytes(), now).map(|peer| peer.authority.clone())
    }

    fn owner(circle: &Circle, key: u32) -> Option<String> {
        circle.owner(&key.to_le_bytes()).map(|peer| peer.authority.clone())
    }

    #[test]
    fn who_joins_looks_at_those_who_owned_its_keys_without_it() {
        let start = Instant::now();
        let alone = Members::first(circle(&[1]));
        let joined = change(&alone, &[1, 2, 3], start).expect("a change");
        let without = circle(&[2, 3]);
        let mut own = 0;
        for key in 0..300 {
            if owner(&joined.now, key).is_some() {
                assert_eq!(previous(&joined, key, start), None);
            } else {
                own += 1;
                assert_eq!(previous(&joined, key, start), owner(&without, key));
            }
        }
        assert!(own > 50);
        assert!((0..300).all(|key| previous(&joined, key, start + REMEMBERED).is_none()));
    }

    #[test]
    fn keys_of_a_node_that_left_are_looked_for_there_through_further_changes() {
        let start = Instant::now();
        let three = Members::first(circle(&[1, 2, 3]));
        let two = change(&three, &[1, 2], start).expect("a change");
        assert!(change(&two, &[1, 2], start).is_none(), "nothing has changed");
        let later = start + Duration::from_secs(10);
        let alone = change(&two, &[1], later).expect("a change");
        for key in 0..300 {
            let (first, second) = (owner(&three.now, key), owner(&two.now, key));
            let of_two = if second.is_some() { None } else { first.clone() };
            assert_eq!(previous(&two, key, later), of_two);
            assert_eq!(previous(&alone, key, later), second.or(first));
        }
        assert!(alone.known().count() >= 3);
        let end = later + REMEMBERED;
        assert_eq!(alone.forgetting(end).known().count(), 0);
        assert!((0..300).all(|key| previous(&alone, key, end).is_none()));
    }

    #[test]
    fn changes_that_are_remembered_have_a_bound() {
        let start = Instant::now();
        let mut members = Members::first(circle(&[1]));
        for port in 2..20 {
            members = change(&members, &[1, port], start).expect("a change");
        }
        assert_eq!(members.before.len(), CHANGES_MAX);
    }
}
