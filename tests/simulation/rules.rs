//! foca's sharp edges, a test each: what would happen without the rule that blunts it.
//!
//! F2, F4 and a part of F10 are tests of `machine/tuning.rs` and `machine/identity.rs`.

use std::time::Duration;

use super::cluster::{
    Key, Keys,
    machine::{Channel, Codec, Envelope, Id, Meta, Setup},
};
use bytes::BufMut as _;
use foca::{Codec as _, Header, Message};

use super::world::{World, meta};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A packet of foca's from one node to another.
fn packet(src: Id, dst: Id, message: Message<Id>, members: &[foca::Member<Id>]) -> Vec<u8> {
    let is_bare = matches!(message, Message::Announce | Message::TurnUndead);
    let mut bytes = Vec::new();
    let header = Header { src, src_incarnation: 0, dst, message };
    Codec.encode_header(&header, &mut bytes).expect("room");
    if !is_bare {
        bytes.put_u16(u16::try_from(members.len()).expect("few"));
    }
    for member in members {
        Codec.encode_member(member, &mut bytes).expect("room");
    }
    bytes
}

fn id(world: &World, of: usize, seen_by: usize) -> Id {
    let addr = world.nodes[of].addr;
    world.process(seen_by).members().into_iter().find(|id| id.addr == addr).expect("it is known")
}

#[test]
fn f1_a_suspect_that_has_refuted_is_not_told_that_it_is_dead() {
    let mut world = World::settled(1, 20);
    world.network.loss = 0.2;
    world.run(seconds(180));
    let counters: Vec<_> = world.running().map(|it| world.process(it).counters()).collect();
    assert!(counters.iter().any(|it| it.suspicions_dropped > 0), "no suspicion was refuted");
    assert_eq!(world.nodes.iter().map(|it| it.renewals).sum::<u64>(), 0);
    assert_eq!(world.watch.false_deaths, 0);
}

#[test]
fn f3_a_node_that_is_left_alone_finds_the_next_one_by_itself() {
    let mut world = World::settled(2, 2);
    world.kill(1);
    world.run(seconds(60));
    assert!(!world.believes(0, 1));
    // The other knows of nobody, and for longer than the survivor knocks at doors.
    world.start(1);
    let limit = world.now + seconds(12);
    assert!(world.run_until(limit, World::all_agree), "they did not find one another");
}

#[test]
fn f5_a_joiner_knows_everybody_at_once() {
    let mut world = World::new(3, 151);
    let all: Vec<_> = (0..150).collect();
    for node in &all {
        world.start(*node);
        world.discover(*node, &all);
    }
    world.run(seconds(60));
    world.start(150);
    world.discover(150, &[7]);
    let limit = world.now + Duration::from_millis(200);
    let knows = |world: &World| all.iter().all(|other| world.believes(150, *other));
    assert!(world.run_until(limit, knows), "it knows a part");
    // And is known, with what it says of itself.
    let limit = world.now + seconds(4);
    assert!(world.run_until(limit, |it| it.all_agree() && it.rings_are_equal()));
}

#[test]
fn f6_what_is_not_sealed_with_our_key_for_our_cluster_changes_nothing() {
    let mut world = World::settled(4, 3);
    let (src, dst) = (id(&world, 1, 0), id(&world, 0, 1));
    let renewal = packet(src, dst, Message::TurnUndead, &[]);
    let down = foca::Member::down(id(&world, 2, 0));
    let death = packet(src, dst, Message::Gossip, &[down]);
    let other_key = Keys::new(Key::generate().unwrap(), []).unwrap();
    let mut strangers =
        [Envelope::new("sim", other_key, 1), Envelope::new("another", world.keys.clone(), 2)];
    for payload in [&renewal, &death] {
        assert_eq!(world.inject(0, payload), 0, "answered what is not sealed at all");
        for stranger in &mut strangers {
            let sealed = stranger.seal(Channel::Datagram, payload);
            assert_eq!(world.inject(0, &sealed), 0, "answered a stranger");
        }
        // Sealed for TCP by a member, and sent as a datagram.
        let mut member = Envelope::new("sim", world.keys.clone(), 3);
        let sealed = member.seal(Channel::Request, payload);
        assert_eq!(world.inject(0, &sealed), 0, "answered what was meant for another channel");
    }
    assert_eq!(world.watch.rejected, 8);
    world.run(seconds(1));
    assert!(world.believes(0, 2));
    assert_eq!(world.nodes[0].renewals, 0);
    // A member may say so.
    let mut member = Envelope::new("sim", world.keys.clone(), 4);
    let sealed = member.seal(Channel::Datagram, &renewal);
    assert_ne!(world.inject(0, &sealed), 0);
    assert_eq!(world.nodes[0].renewals, 1);
    // And is heard once: a hello that was caught on its way is not answered again.
    let hello = packet(src, Id::whoever(dst.addr), Message::Announce, &[]);
    let sealed = member.seal(Channel::Datagram, &hello);
    assert_ne!(world.inject(0, &sealed), 0);
    assert_eq!(world.inject(0, &sealed), 0, "answered what was sent again");
}

#[test]
fn f7_a_member_that_only_tcp_reaches_is_not_taken_for_dead() {
    let mut world = World::settled(5, 10);
    world.nodes[0].is_udp_blocked = true;
    world.run(seconds(120));
    assert_eq!(world.watch.false_deaths, 0);
    // It cannot tell who is well, and knows that this is its own fault.
    assert!(world.process(0).health() > world.process(1).health());
}

#[test]
fn f7_a_dead_process_on_a_living_host_is_known_to_all_in_moments() {
    let mut world = World::settled(6, 30);
    for victim in 0..5 {
        let at = world.now;
        world.kill(victim);
        let known = world.run_until(at + seconds(3), |world| world.believers(victim) == 0);
        assert!(known, "{} still believe in {victim}", world.believers(victim));
    }
}

#[test]
fn f8_a_new_life_moves_no_keys() {
    let mut world = World::settled(7, 5);
    let ring = world.nodes[0].view.ring_digest();
    let turn = packet(id(&world, 1, 0), id(&world, 0, 1), Message::TurnUndead, &[]);
    let mut member = Envelope::new("sim", world.keys.clone(), 9);
    world.inject(0, &member.seal(Channel::Datagram, &turn));
    assert_eq!(world.nodes[0].renewals, 1);
    let until = world.now + seconds(10);
    let has_moved = |world: &World| world.nodes.iter().any(|it| it.view.ring_digest() != ring);
    assert!(!world.run_until(until, has_moved), "the ring changed");
    let own = world.nodes[0].name;
    let generation = |of: usize| world.nodes[of].view.get(own).unwrap().generation;
    assert!((1..5).all(|other| generation(other) == generation(0)));
    assert!(world.watch.first_down.is_empty());
}

#[test]
fn f9_of_two_nodes_with_one_address_the_later_goes() {
    let mut world = World::new(8, 6);
    for node in 0..5 {
        world.start(node);
        world.discover(node, &[0, 1, 2, 3, 4]);
    }
    world.run(seconds(30));
    // The sixth has the configuration of the first.
    let setup = Setup {
        cluster: "sim".to_owned(),
        keys: world.keys.clone(),
        id: Id::new(world.nodes[0].addr, 1_800_000_000_000, world.nodes[5].name),
        boot: 77,
        seed: 78,
        meta: Meta { weight: 50, ..meta(0) },
        tuning: world.tuning.clone(),
    };
    world.start_as(5, setup);
    world.discover(5, &[1, 2, 3, 4]);
    let limit = world.now + seconds(90);
    assert!(world.run_until(limit, |world| world.nodes[5].has_left), "it stayed");
    world.run(seconds(30));
    assert!(!world.nodes[0].has_left);
    assert!((1..5).all(|node| world.believes(node, 0)), "its victim was not let back in");
}

#[test]
fn f10_a_node_whose_clock_went_back_is_a_member_again_in_moments() {
    let mut world = World::settled(9, 5);
    let before = id(&world, 0, 1).generation;
    world.kill(0);
    world.run(seconds(20));
    // Its notes are lost, and its clock is an hour behind.
    world.start_with(0, before - 3_600_000);
    world.discover(0, &[1, 2]);
    let limit = world.now + seconds(5);
    let is_back = |world: &World| world.all_agree();
    assert!(world.run_until(limit, is_back), "{} take it for alive", world.believers(0));
}

#[test]
fn f11_a_node_that_dies_again_and_again_leaves_one_tombstone() {
    let mut world = World::new(10, 3);
    world.tuning.forget = seconds(100);
    world.settle();
    let quiet = world.process(0).sizes().unwrap().timers;
    for _ in 0..30 {
        world.kill(2);
        world.run(seconds(5));
        world.start(2);
        world.discover(2, &[0, 1]);
        world.run(seconds(5));
    }
    world.kill(2);
    world.run(seconds(20));
    let sizes = world.process(0).sizes().unwrap();
    assert_eq!(sizes.down, 1);
    assert!(sizes.timers <= quiet + 4, "{} timers, {quiet} before", sizes.timers);
    // And that is forgotten one day.
    world.run(seconds(200));
    assert_eq!(world.process(0).sizes().unwrap().down, 0);
}
