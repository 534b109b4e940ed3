//! Who owns a key: pure functions of a list of members.
//!
//! Every node works the owner out by itself, so all that have the same list agree
//! without a word. Three rings speak of the same thing:
//!
//! - [`Kind::Native`], ours (`slots`): even, minimal in what a change moves, weighted;
//! - [`Kind::Groupcache`] and [`Kind::GroupcacheGo`] (`points`): bit for bit those of
//!   golang/groupcache and of groupcache-go, for a fleet that has such peers.
//!
//! A key has a first owner and an order of stand-ins behind it, for when the first one
//! cannot be reached.
//!
//! Invariant: the order of the list does not matter, but where the original ring says that
//! it does: two points of golang's ring at the same place belong to the later peer.

mod points;
mod slots;

use points::Points;
use slots::Slots;

/// Which ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Rendezvous hashing over a table of slots.
    #[default]
    Native,
    /// golang/groupcache and galaxycache: CRC-32, 50 points a peer. A member's name is its
    /// base URL, `http://10.0.0.1:9080`.
    Groupcache,
    /// mailgun/groupcache v2 and groupcache-go v3: FNV-1 over the hexadecimal text of an
    /// MD5, 50 points a peer. A member's name is its base URL for v2, `10.0.0.1:9080` for
    /// v3.
    GroupcacheGo,
}

/// A member of a ring.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// What it is known by to all others: the same text everywhere.
    pub name: String,
    /// Its share of the keys beside that of the others: a member of weight 4 owns twice
    /// what one of weight 2 does, and one of weight 0 nothing. Only [`Kind::Native`]
    /// knows weights.
    pub weight: u32,
}

impl Node {
    /// A member with the share of most.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), weight: 1 }
    }

    /// The largest weight that counts.
    pub const WEIGHT_MAX: u32 = 100;
}

/// Who owns which key among a list of members.
#[derive(Clone, Debug)]
pub struct Ring(Inner);

#[derive(Clone, Debug)]
enum Inner {
    Slots(Slots),
    Points(Points),
}

impl Ring {
    /// The most members that a ring has; more are left out.
    pub const MEMBERS_MAX: usize = u16::MAX as usize;

    /// The ring of `members`. Takes some ten milliseconds for [`Kind::Native`]: not for a
    /// serving thread.
    pub fn new(kind: Kind, members: &[Node]) -> Self {
        let members = &members[..members.len().min(Self::MEMBERS_MAX)];
        Self(match kind {
            Kind::Native => Inner::Slots(Slots::new(members)),
            Kind::Groupcache => Inner::Points(Points::crc32(members)),
            Kind::GroupcacheGo => Inner::Points(Points::fnv1(members)),
        })
    }

    /// The owner of `key`, by its place in the list; `None` if nobody owns anything.
    pub fn owner(&self, key: &[u8]) -> Option<usize> {
        match &self.0 {
            Inner::Slots(slots) => slots.owner(key),
            Inner::Points(points) => points.owner(key),
        }
    }

    /// The owner of `key` and up to `count - 1` stand-ins, in the order in which they are
    /// to be asked.
    pub fn owners(&self, key: &[u8], count: usize) -> Vec<usize> {
        match &self.0 {
            Inner::Slots(slots) => slots.owners(key, count),
            Inner::Points(points) => points.owners(key, count),
        }
    }
}

#[cfg(test)]
mod tests;
