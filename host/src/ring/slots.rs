//! Our own ring: rendezvous hashing over a table of slots.
//!
//! A key's hash gives it one of [`SLOTS`] slots, and a table says who owns a slot. Each
//! member orders all slots in a way of its own, a permutation keyed by its name, and a slot
//! belongs to the member that has it earliest in its order. That is rendezvous (highest
//! random weight) hashing, Thaler and Ravishankar 1996, with ranks for random weights: who
//! owns a slot depends on the set of members alone, and a member that comes or goes moves
//! only what it gains or loses. A member of weight `n` has `n` orders.
//!
//! Ranks rather than hashes make the table quick to fill, in the way of Google's Maglev
//! (Eisenbud et al. 2016): in each turn every order proposes its next slot, and the first
//! to propose one has it. That takes about `SLOTS * ln(SLOTS)` proposals however many
//! members there are, where comparing all would take `SLOTS` for each. Unlike Maglev, a
//! member that comes late to a slot does not try another one instead: that is what makes
//! Maglev's tables even, and what moves keys between members that stay.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::Node;

/// Bits of the two parts of a slot's number.
const HIGH: u32 = 10;
const LOW: u32 = 9;
/// Slots of a table: so many that how they fall is no coarser than how keys do, at a
/// hundred members.
const SLOTS: u32 = 1 << (HIGH + LOW);

/// Nobody's yet.
const FREE: u16 = u16::MAX;

/// A table of slots.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    /// In the order of the members' names: between those that come to a slot in the same
    /// turn, the first has it.
    orders: Vec<(u16, Order)>,
    /// The owner of each slot; empty if nobody owns anything.
    owners: Box<[u16]>,
}

impl Slots {
    pub(super) fn new(members: &[Node]) -> Self {
        let mut named: Vec<(u16, &Node)> = (0..).zip(members).collect();
        named.sort_by_key(|(_, node)| &node.name);
        let orders: Vec<_> = named
            .into_iter()
            .flat_map(|(member, node)| {
                let weight = node.weight.min(Node::WEIGHT_MAX);
                (0..weight).map(move |copy| (member, Order::new(&node.name, copy)))
            })
            .collect();
        let owners = fill(&orders);
        Self { orders, owners }
    }

    pub(super) fn owner(&self, key: &[u8]) -> Option<usize> {
        self.owners.get(slot(key) as usize).map(|&member| member.into())
    }

    pub(super) fn owners(&self, key: &[u8], count: usize) -> Vec<usize> {
        let slot = slot(key);
        let mut ranks: Vec<(u32, usize)> =
            (0..).zip(&self.orders).map(|(at, (_, order))| (order.rank(slot), at)).collect();
        ranks.sort_unstable();
        let mut owners = Vec::new();
        for (_, at) in ranks {
            if owners.len() >= count {
                break;
            }
            let member = usize::from(self.orders[at].0);
            if !owners.contains(&member) {
                owners.push(member);
            }
        }
        owners
    }
}

fn slot(key: &[u8]) -> u32 {
    low_bits(xxh3_64(key), HIGH + LOW)
}

/// Has orders propose slots in turns until every slot is somebody's.
fn fill(orders: &[(u16, Order)]) -> Box<[u16]> {
    if orders.is_empty() {
        return Box::default();
    }
    let mut owners = vec![FREE; SLOTS as usize].into_boxed_slice();
    let mut free = SLOTS;
    for turn in 0..SLOTS {
        for (member, order) in orders {
            let owner = &mut owners[order.slot(turn) as usize];
            if *owner == FREE {
                *owner = *member;
                free -= 1;
            }
        }
        if free == 0 {
            break;
        }
    }
    owners
}

/// A permutation of the slots: a Feistel network over the two parts of a slot's number.
/// Three rounds would look random to all but an adversary; the fourth is cheap.
#[derive(Clone, Debug)]
struct Order([u64; 4]);

impl Order {
    /// The order of the `copy`th share of a member.
    fn new(name: &str, copy: u32) -> Self {
        let seed = u64::from(copy) * 4;
        Self([0, 1, 2, 3].map(|round| xxh3_64_with_seed(name.as_bytes(), seed + round)))
    }

    /// The slot at `rank`.
    fn slot(&self, rank: u32) -> u32 {
        let [a, b, c, d] = self.0;
        let (mut high, mut low) = (rank >> LOW, rank & LOW_MASK);
        high ^= mix(low, a, HIGH);
        low ^= mix(high, b, LOW);
        high ^= mix(low, c, HIGH);
        low ^= mix(high, d, LOW);
        (high << LOW) | low
    }

    /// The rank of `slot`.
    fn rank(&self, slot: u32) -> u32 {
        let [a, b, c, d] = self.0;
        let (mut high, mut low) = (slot >> LOW, slot & LOW_MASK);
        low ^= mix(high, d, LOW);
        high ^= mix(low, c, HIGH);
        low ^= mix(high, b, LOW);
        high ^= mix(low, a, HIGH);
        (high << LOW) | low
    }
}

const LOW_MASK: u32 = (1 << LOW) - 1;

/// So many bits that depend on all of `part` and `key`: the finish of splitmix64.
fn mix(part: u32, key: u64, bits: u32) -> u32 {
    let mut mixed = (u64::from(part) ^ key).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^= mixed >> 32;
    low_bits(mixed.wrapping_mul(0x94d0_49bb_1331_11eb) >> 32, bits)
}

#[expect(clippy::cast_possible_truncation, reason = "what is masked fits")]
fn low_bits(number: u64, bits: u32) -> u32 {
    (number & ((1 << bits) - 1)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_every_slot_once_and_finds_it_again() {
        let order = Order::new("http://10.0.0.1:9080", 3);
        let mut seen = vec![false; SLOTS as usize];
        for rank in 0..SLOTS {
            let slot = order.slot(rank);
            assert!(!std::mem::replace(&mut seen[slot as usize], true), "{slot} twice");
            assert_eq!(order.rank(slot), rank);
        }
    }

    #[test]
    fn the_table_says_what_comparing_all_members_would() {
        let members: Vec<_> = (0..)
            .zip([1, 1, 3, 0, 7, 1, 1])
            .map(|(i, weight)| Node { name: format!("10.0.0.{i}:9080"), weight })
            .collect();
        let slots = Slots::new(&members);
        for key in 0..20_000_u32 {
            let key = key.to_le_bytes();
            assert_eq!(slots.owner(&key), slots.owners(&key, 1).first().copied());
        }
    }
}
