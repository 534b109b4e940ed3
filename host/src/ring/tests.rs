use std::collections::BTreeSet;

use super::*;

fn named(count: usize) -> Vec<Node> {
    (0..count)
        .map(|i| Node::new(format!("http://10.128.{}.{}:9080", i / 250, i % 250 + 2)))
        .collect()
}

/// How many of `keys` each member owns.
fn shares(ring: &Ring, members: usize, keys: impl IntoIterator<Item = String>) -> Vec<usize> {
    let mut shares = vec![0; members];
    for key in keys {
        shares[ring.owner(key.as_bytes()).expect("an owner")] += 1;
    }
    shares
}

fn keys(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|i| format!("user:{i}"))
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred thousand")]
fn fullest(shares: &[usize]) -> f64 {
    let mean = shares.iter().sum::<usize>() as f64 / shares.len() as f64;
    *shares.iter().max().expect("members") as f64 / mean
}

#[test]
fn the_rings_of_go_give_every_key_the_owner_that_go_gives_it() {
    let golang: Vec<_> = (1..=3).map(|i| Node::new(format!("http://10.0.0.{i}:9080"))).collect();
    let v3: Vec<_> = (1..=3).map(|i| Node::new(format!("10.0.0.{i}:9080"))).collect();
    let (golang, v3) = (Ring::new(Kind::Groupcache, &golang), Ring::new(Kind::GroupcacheGo, &v3));
    for (key, by_crc, by_fnv) in [
        ("", 2, 3),
        ("foo", 3, 2),
        ("bar", 3, 2),
        ("piston", 1, 2),
        ("user:1", 3, 3),
        ("user:2", 3, 3),
        ("user:10", 2, 3),
        ("a b", 2, 2),
        ("a+b", 3, 2),
        ("日本語", 1, 1),
        ("http://x/y?z=1", 2, 3),
        ("/lead", 3, 2),
    ] {
        assert_eq!(golang.owner(key.as_bytes()), Some(by_crc - 1), "golang, {key:?}");
        assert_eq!(v3.owner(key.as_bytes()), Some(by_fnv - 1), "groupcache-go, {key:?}");
    }
}

#[test]
fn our_ring_is_even() {
    for (count, most) in [(3, 1.03), (10, 1.05), (100, 1.10)] {
        let ring = Ring::new(Kind::Native, &named(count));
        let fullest = fullest(&shares(&ring, count, keys(200_000)));
        assert!(fullest <= most, "{count} members: the fullest has {fullest:.3} of its share");
    }
}

#[test]
fn our_ring_leaves_nobody_without_any_of_a_few_sequential_keys() {
    for set in 0..5 {
        let members: Vec<_> =
            (0..10).map(|i| Node::new(format!("http://10.{set}.0.{i}:9080"))).collect();
        let ring = Ring::new(Kind::Native, &members);
        let shares = shares(&ring, 10, (0..100).map(|i| format!("k{i}")));
        assert!(!shares.contains(&0), "{shares:?}");
    }
}

#[test]
fn a_change_moves_only_what_the_member_gains_or_loses() {
    let members = named(11);
    let (ten, eleven) =
        (Ring::new(Kind::Native, &members[..10]), Ring::new(Kind::Native, &members));
    let mut moved = 0;
    for key in keys(50_000) {
        let (before, after) = (ten.owner(key.as_bytes()), eleven.owner(key.as_bytes()));
        if before != after {
            assert_eq!(after, Some(10), "{key} moved between members that stayed");
            moved += 1;
        }
        // Whoever takes over from a member that goes was its first stand-in.
        if after == Some(10) {
            assert_eq!(eleven.owners(key.as_bytes(), 2).get(1).copied(), before);
        }
    }
    assert!((4_000..=5_100).contains(&moved), "{moved} of 50000 for one in eleven");
}

#[test]
fn the_order_of_the_list_does_not_matter() {
    for kind in [Kind::Native, Kind::Groupcache, Kind::GroupcacheGo] {
        let members = named(7);
        let reversed: Vec<_> = members.iter().rev().cloned().collect();
        let (one, other) = (Ring::new(kind, &members), Ring::new(kind, &reversed));
        for key in keys(2_000) {
            let names = |ring: &Ring, list: &[Node]| -> Vec<String> {
                let owners = ring.owners(key.as_bytes(), 3);
                owners.into_iter().map(|i| list[i].name.clone()).collect()
            };
            assert_eq!(names(&one, &members), names(&other, &reversed), "{kind:?} {key}");
        }
    }
}

#[test]
fn weights_are_shares() {
    let mut members = named(4);
    for (member, weight) in members.iter_mut().zip([4, 1, 0, 2]) {
        member.weight = weight;
    }
    let ring = Ring::new(Kind::Native, &members);
    let shares = shares(&ring, 4, keys(100_000));
    for (share, expected) in shares.iter().zip([57_143_usize, 14_286, 0, 28_571]) {
        assert!(share.abs_diff(expected) <= expected / 25, "{shares:?}");
    }
    // A heavier member gains from the others, which keep the rest.
    members[1].weight = 2;
    let heavier = Ring::new(Kind::Native, &members);
    for key in keys(20_000) {
        let (before, after) = (ring.owner(key.as_bytes()), heavier.owner(key.as_bytes()));
        assert!(before == after || after == Some(1), "{key} moved between the others");
    }
}

#[test]
fn owners_are_distinct_and_begin_with_the_owner() {
    for kind in [Kind::Native, Kind::Groupcache, Kind::GroupcacheGo] {
        let ring = Ring::new(kind, &named(5));
        for key in keys(500) {
            let owners = ring.owners(key.as_bytes(), 9);
            assert_eq!(owners.first().copied(), ring.owner(key.as_bytes()));
            assert_eq!(owners.iter().copied().collect::<BTreeSet<_>>(), (0..5).collect());
            for count in 0..5 {
                assert_eq!(ring.owners(key.as_bytes(), count), owners[..count]);
            }
        }
    }
}

#[test]
fn an_empty_ring_has_no_owners_and_a_ring_of_one_has_one() {
    let weightless = Node { weight: 0, ..Node::new("a") };
    for kind in [Kind::Native, Kind::Groupcache, Kind::GroupcacheGo] {
        let empty = Ring::new(kind, &[]);
        assert_eq!((empty.owner(b"k"), empty.owners(b"k", 3)), (None, vec![]));
        let alone = Ring::new(kind, &[Node::new("a")]);
        assert_eq!((alone.owner(b"k"), alone.owners(b"k", 3)), (Some(0), vec![0]));
    }
    assert_eq!(Ring::new(Kind::Native, &[weightless]).owner(b"k"), None);
}
