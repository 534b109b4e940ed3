//! What the rest of the node sees of the cluster: a list of members, replaced whole.
//!
//! Invariants:
//! - it is sorted by the members' names, and has each name once;
//! - whoever is suspected stays in it; who is dead or has left does not;
//! - this node is in its own ring while it serves.

use std::{net::SocketAddr, sync::Arc};

use xxhash_rust::xxh3::Xxh3;

use super::machine::{Meta, NodeId, State};

/// One member, as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name, which it keeps over restarts.
    pub node: NodeId,
    /// Where it gossips.
    pub gossip: SocketAddr,
    /// Which of its lives this is.
    pub generation: u64,
    /// What it says of itself.
    pub meta: Arc<Meta>,
    /// Whether it is this node.
    pub is_self: bool,
    /// Whether it may be down: better ask somebody else first.
    pub is_suspect: bool,
    /// Whether it is to own keys.
    pub in_ring: bool,
}

/// The members at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// All that are alive and have told of themselves, sorted by name.
    pub members: Vec<Member>,
    /// Members that are alive and of which nothing else is known yet.
    pub unknown: usize,
}

impl View {
    /// Those who are to own keys.
    pub fn ring(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.in_ring)
    }

    /// The member of that name.
    pub fn get(&self, node: NodeId) -> Option<&Member> {
        let found = self.members.binary_search_by_key(&node, |member| member.node);
        found.ok().map(|at| &self.members[at])
    }

    /// A digest of what a ring is made of: nodes whose views have the same one agree on
    /// every owner.
    pub fn ring_digest(&self) -> u64 {
        let mut hash = Xxh3::new();
        for member in self.ring() {
            let Meta { peer, weight, zone, .. } = &*member.meta;
            hash.update(&member.node.0.to_be_bytes());
            hash.update(format!("{peer} {weight} {zone}\0").as_bytes());
        }
        hash.digest()
    }

    /// Whether this node serves, as it knows itself.
    pub fn is_serving(&self) -> bool {
        self.members.iter().any(|it| it.is_self && it.meta.state == State::Serving)
    }
}
