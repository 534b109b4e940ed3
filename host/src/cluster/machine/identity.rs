//! Who a node is to the others: where it is, in which of its lives, and its name.
//!
//! SWIM knows members by *identities*, and one that was declared down is down for ever.
//! So a node that comes back, or that learns that it was given up by mistake, takes a new
//! identity at the same address: a higher *generation*. Generations are milliseconds of
//! the wall clock at the node's start, or one more than the last one that it wrote down if
//! the clock went back meanwhile.
//!
//! Invariants:
//! - at one address the higher generation wins, and among equals the higher name;
//! - each renewal adds twice as much as the one before, so that a node which has lost its
//!   notes and whose clock is behind passes its former life in some twenty rounds.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use bytes::{Buf, BufMut};
use foca::Identity;

use super::codec::Malformed;

/// Generations travel as 48 bits: milliseconds until the year 10889.
const GENERATION_MAX: u64 = (1 << 48) - 1;
/// The doubling of renewals ends at 2³⁶ ms, two years.
const STRIDE_MAX: u32 = 36;

/// The name of a node, which it keeps over restarts: random, and written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:016x}", self.0)
    }
}

/// One life of a node, as the members tell one another.
#[derive(Clone, Copy, Debug)]
pub struct Id {
    /// Where it can be reached, by datagrams and by TCP.
    pub addr: SocketAddr,
    /// Which of its lives this is; the higher one holds.
    pub generation: u64,
    /// Its name.
    pub node: NodeId,
    /// How many times this life was renewed. It does not travel and does not count.
    stride: u32,
}

impl Id {
    /// The identity of `node` at `addr` in the given generation.
    pub fn new(addr: SocketAddr, generation: u64, node: NodeId) -> Self {
        let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        Self { addr, generation: generation.min(GENERATION_MAX), node, stride: 0 }
    }

    /// Whoever is at `addr`: enough to say hello.
    pub fn whoever(addr: SocketAddr) -> Self {
        Self::new(addr, 0, NodeId(0))
    }

    /// The generation of a node that starts at `wall_ms`, milliseconds since 1970, and has
    /// had the generation `last` before, if it knows of one.
    pub fn generation_at(wall_ms: u64, last: Option<u64>) -> u64 {
        wall_ms.max(last.map_or(0, |last| last.saturating_add(1))).min(GENERATION_MAX)
    }

    /// How many bytes it takes on the wire.
    pub(super) fn encoded_len(&self) -> usize {
        addr_len(self.addr) + 6 + 8
    }

    pub(super) fn encode(&self, to: &mut impl BufMut) {
        put_addr(to, self.addr);
        to.put_uint(self.generation, 6);
        to.put_u64(self.node.0);
    }

    pub(super) fn decode(from: &mut impl Buf) -> Result<Self, Malformed> {
        let addr = get_addr(from)?;
        let generation = from.try_get_uint(6)?;
        Ok(Self::new(addr, generation, NodeId(from.try_get_u64()?)))
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        (self.addr, self.generation, self.node) == (other.addr, other.generation, other.node)
    }
}

impl Eq for Id {}

impl Identity for Id {
    type Addr = SocketAddr;

    fn renew(&self) -> Option<Self> {
        let generation = self.generation.saturating_add(1 << self.stride).min(GENERATION_MAX);
        Some(Self { generation, stride: (self.stride + 1).min(STRIDE_MAX), ..*self })
    }

    fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        (self.generation, self.node) > (adversary.generation, adversary.node)
    }
}

/// How many bytes an address takes on the wire.
pub(super) fn addr_len(addr: SocketAddr) -> usize {
    if addr.is_ipv4() { 7 } else { 19 }
}

pub(super) fn put_addr(to: &mut impl BufMut, addr: SocketAddr) {
    match addr.ip() {
        IpAddr::V4(ip) => {
            to.put_u8(4);
            to.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            to.put_u8(6);
            to.put_slice(&ip.octets());
        }
    }
    to.put_u16(addr.port());
}

pub(super) fn get_addr(from: &mut impl Buf) -> Result<SocketAddr, Malformed> {
    let ip: IpAddr = match from.try_get_u8()? {
        4 => Ipv4Addr::from_bits(from.try_get_u32()?).into(),
        6 => Ipv6Addr::from_bits(from.try_get_u128()?).into(),
        _ => return Err(Malformed),
    };
    Ok(SocketAddr::new(ip.to_canonical(), from.try_get_u16()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(generation: u64) -> Id {
        Id::new(([10, 0, 0, 1], 9999).into(), generation, NodeId(7))
    }

    #[test]
    fn f10_a_generation_passes_the_last_one_though_the_clock_went_back() {
        assert_eq!(Id::generation_at(1_000, Some(5_000)), 5_001);
        assert_eq!(Id::generation_at(9_000, Some(5_000)), 9_000);
        assert_eq!(Id::generation_at(9_000, None), 9_000);
    }

    #[test]
    fn f10_renewals_pass_a_former_life_that_is_hours_ahead_in_some_twenty_rounds() {
        let former = id(1_000_000 + 3 * 60 * 60 * 1_000);
        let mut now = id(1_000_000);
        let mut rounds = 0;
        while !now.win_addr_conflict(&former) {
            let renewed = now.renew().expect("identities can always be renewed");
            assert!(renewed.win_addr_conflict(&now));
            now = renewed;
            rounds += 1;
        }
        assert!(rounds <= 24, "took {rounds} rounds");
    }

    #[test]
    fn addresses_of_both_families_come_back_exact() {
        for addr in ["10.1.2.3:9999", "[2001:db8::7]:1"] {
            let id = Id::new(addr.parse().unwrap(), 1 << 40, NodeId(u64::MAX));
            let mut bytes = Vec::new();
            id.encode(&mut bytes);
            assert_eq!(bytes.len(), id.encoded_len());
            assert_eq!(Id::decode(&mut &bytes[..]).unwrap(), id);
        }
    }
}
