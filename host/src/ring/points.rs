//! The rings of the Go caches: 50 points a peer on a circle of hashes.
//!
//! A key belongs to the peer of the first point at or after its own hash. The hashes and
//! the texts that are hashed are those of golang/groupcache's `consistenthash` and of
//! groupcache-go, to the bit: a fleet agrees only if all of it does.

use std::fmt::Write as _;

use md5::{Digest as _, Md5};

use super::Node;

/// Points of a peer, in all of the family.
const POINTS: usize = 50;

/// A circle of points.
#[derive(Clone, Debug)]
pub(super) struct Points {
    /// By their place; of several at one place, only the one that counts.
    points: Vec<(u64, u16)>,
    hash: fn(&[u8]) -> u64,
}

impl Points {
    /// golang/groupcache: CRC-32 (IEEE) of the point's number and the peer's name.
    pub(super) fn crc32(members: &[Node]) -> Self {
        Self::new(members, crc32, crc32)
    }

    /// groupcache-go: 64-bit FNV-1 of the hexadecimal MD5 of the same text.
    pub(super) fn fnv1(members: &[Node]) -> Self {
        Self::new(members, |text| fnv1(hexadecimal_md5(text).as_bytes()), fnv1)
    }

    fn new(members: &[Node], place: fn(&[u8]) -> u64, hash: fn(&[u8]) -> u64) -> Self {
        let numbered = (0..).zip(members);
        let mut points: Vec<(u64, u16)> = numbered
            .flat_map(|(member, node)| {
                let name = &node.name;
                (0..POINTS).map(move |i| (place(format!("{i}{name}").as_bytes()), member))
            })
            .collect();
        // The later peer of a list has a point that two of them share.
        points.sort_by_key(|&(place, member)| (place, std::cmp::Reverse(member)));
        points.dedup_by_key(|&mut (place, _)| place);
        Self { points, hash }
    }

    pub(super) fn owner(&self, key: &[u8]) -> Option<usize> {
        self.from(key).next()
    }

    pub(super) fn owners(&self, key: &[u8], count: usize) -> Vec<usize> {
        let mut owners = Vec::new();
        for member in self.from(key) {
            if owners.len() >= count {
                break;
            }
            if !owners.contains(&member) {
                owners.push(member);
            }
        }
        owners
    }

    /// The members of all points, once around from the one that owns `key`.
    fn from(&self, key: &[u8]) -> impl Iterator<Item = usize> {
        let hash = (self.hash)(key);
        let first = self.points.partition_point(|&(place, _)| place < hash);
        let (before, after) = self.points.split_at(first);
        after.iter().chain(before).map(|&(_, member)| usize::from(member))
    }
}

fn crc32(bytes: &[u8]) -> u64 {
    crc32fast::hash(bytes).into()
}

/// FNV-1, not the more common FNV-1a: it multiplies first.
fn fnv1(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte)
    })
}

fn hexadecimal_md5(text: &[u8]) -> String {
    Md5::digest(text).iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string does not fail.
        _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_originals() {
        for (key, crc, fnv) in [
            ("", 0x0000_0000, 0xcbf2_9ce4_8422_2325),
            ("foo", 0x8c73_6521, 0xd8cb_c718_6ba1_3533),
            ("bar", 0x76ff_8caa, 0xd8d9_a518_6bad_3880),
            ("user:10", 0xf716_98ef, 0xe461_a81e_f282_97f9),
            ("日本語", 0xa80b_52e5, 0x5dbd_b175_1554_f953),
        ] {
            assert_eq!((crc32(key.as_bytes()), fnv1(key.as_bytes())), (crc, fnv), "{key}");
        }
        let hex = hexadecimal_md5(b"0127.0.0.1:18301");
        assert_eq!(hex, "582fc685ce9498e9a7ef2b80e96af279");
        assert_eq!(fnv1(hex.as_bytes()), 0x6822_2bed_48a3_793a);
    }

    #[test]
    fn points_are_where_golang_puts_them() {
        let members: Vec<_> =
            (1..=3).map(|i| Node::new(format!("http://10.0.0.{i}:9080"))).collect();
        let lowest = &Points::crc32(&members).points[..3];
        assert_eq!(lowest, [(0x020a_c40b, 1), (0x03c2_df53, 2), (0x04c2_db3c, 2)]);
    }

    #[test]
    fn a_place_that_two_peers_share_belongs_to_the_later_one() {
        // The same name twice shares every place.
        let members = [Node::new("a"), Node::new("b"), Node::new("a")];
        for points in [Points::crc32(&members), Points::fnv1(&members)] {
            assert_eq!(points.points.len(), 2 * POINTS);
            assert!(points.points.iter().all(|&(_, member)| member != 0));
        }
    }
}
