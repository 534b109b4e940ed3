//! What members see of one another: joining, leaving, standing still, partitions, keys.

use std::time::Duration;

use super::cluster::{
    Key, Keys, View,
    machine::{Channel, Command, Envelope, Meta, State},
};

use super::world::{World, meta};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn view(world: &World, node: usize) -> &View {
    &world.nodes[node].view
}

/// Who is in the ring of `node`, by index.
fn ring(world: &World, node: usize) -> Vec<usize> {
    let in_ring = |of: &usize| {
        view(world, node).get(world.nodes[*of].name).is_some_and(|member| member.in_ring)
    };
    (0..world.nodes.len()).filter(in_ring).collect()
}

#[test]
fn a_node_alone_is_its_own_ring_at_once_and_serves_while_it_looks_for_others() {
    let mut world = World::new(1, 3);
    world.start(0);
    world.run(Duration::from_millis(1));
    assert_eq!(ring(&world, 0), [0]);
    // Where it looks there is nobody, and then the wrong hosts, and then the right one.
    world.discover(0, &[]);
    world.run(seconds(30));
    world.discover(0, &[2]);
    world.run(seconds(60));
    assert_eq!(ring(&world, 0), [0]);
    world.start(1);
    world.discover(0, &[1, 2]);
    let limit = world.now + Duration::from_millis(50);
    assert!(world.run_until(limit, World::all_agree));
}

#[test]
fn a_member_enters_the_ring_once_it_serves_and_has_for_a_moment() {
    let mut world = World::new(2, 4);
    world.describe = |node| Meta {
        state: if node == 3 { State::Joining } else { State::Serving },
        ..meta(node)
    };
    for node in 0..3 {
        world.start(node);
        world.discover(node, &[0]);
    }
    world.run(seconds(20));
    world.start(3);
    world.discover(3, &[0]);
    world.run(seconds(10));
    assert_eq!(ring(&world, 0), [0, 1, 2]);
    assert_eq!(view(&world, 0).members.len(), 4);
    world.command(3, Command::SetState(State::Serving));
    assert_eq!(ring(&world, 3), [0, 1, 2, 3]);
    world.run(Duration::from_millis(1_900));
    assert_eq!(ring(&world, 0), [0, 1, 2]);
    world.run(seconds(1));
    assert_eq!(ring(&world, 0), [0, 1, 2, 3]);
}

#[test]
fn a_leave_is_known_to_all_at_once_and_is_no_death() {
    let mut world = World::settled(3, 60);
    let at = world.now;
    world.command(7, Command::Leave);
    // It is out of the rings when it says that it will go.
    assert!(world.run_until(at + seconds(1), |world| !ring(world, 0).contains(&7)));
    assert!(world.believes(0, 7));
    let limit = at + world.tuning.farewell + Duration::from_millis(500);
    assert!(world.run_until(limit, |world| world.believers(7) == 0));
    world.run(seconds(5));
    assert!(world.nodes[7].has_left);
    assert_eq!((world.nodes[7].renewals, world.watch.false_deaths), (0, 0));
}

#[test]
fn standing_still_for_seconds_kills_nobody() {
    let mut world = World::settled(4, 40);
    for pause in [2, 7] {
        world.pause(5);
        world.run(seconds(pause));
        world.resume(5);
        world.run(seconds(20));
    }
    assert!(world.watch.first_down.is_empty(), "{:?}", world.watch.first_down);
    assert!(world.rings_are_equal());
}

#[test]
fn a_node_that_stood_still_for_long_is_back_in_moments_and_accuses_nobody() {
    let mut world = World::settled(5, 40);
    world.pause(5);
    world.run(seconds(30));
    assert_eq!(world.believers(5), 0);
    world.resume(5);
    let limit = world.now + seconds(2);
    assert!(world.run_until(limit, World::all_agree));
    assert_eq!(world.watch.first_down.keys().collect::<Vec<_>>(), [&5]);
    let limit = world.now + seconds(3);
    assert!(world.run_until(limit, World::rings_are_equal));
}

#[test]
fn a_node_that_stood_still_condemns_nobody_for_what_it_missed() {
    for seed in [12, 503, 537, 539] {
        let mut world = World::settled(seed, 20);
        // What would have cleared the suspects of before does not wait in its socket.
        world.socket_buffer = 0;
        for round in 0..20 {
            world.network.loss = 0.3;
            world.run(seconds(8));
            world.pause(round);
            world.network.loss = 0.0;
            world.run(seconds(6));
            world.resume(round);
            world.run(seconds(2));
        }
        assert_eq!(world.watch.false_deaths, 0, "seed {seed}");
    }
}

#[test]
fn a_partition_heals() {
    for length in [20, 90] {
        let mut world = World::settled(6, 40);
        world.split(|node| node % 2 == 0);
        world.run(seconds(length));
        world.heal();
        let limit = world.now + seconds(8);
        assert!(world.run_until(limit, World::all_agree), "after {length} s");
        let limit = world.now + seconds(5);
        assert!(world.run_until(limit, World::rings_are_equal), "after {length} s");
    }
}

#[test]
fn each_dead_process_is_found_within_two_periods_and_told_at_once() {
    for seed in 30..33 {
        let mut world = World::settled(seed, 60);
        let (period, rtt) = (world.tuning.period, world.tuning.rtt);
        // Pinged by its watcher, then by others, and refused by its host.
        let found = 2 * period + 2 * rtt + Duration::from_millis(20);
        for victim in 0..15 {
            let at = world.now;
            world.kill(victim);
            let known = world.run_until(at + 2 * found, |world| world.believers(victim) == 0);
            assert!(known, "{} still believe in {victim}", world.believers(victim));
            let first = world.watch.first_down[&victim];
            let took = first.saturating_sub(at);
            assert!(took <= found, "{victim} was found after {took:?}");
            let spread = world.now.saturating_sub(first);
            assert!(spread <= 2 * world.tuning.gossip, "{spread:?} until all knew of {victim}");
            // Who watches whom has changed.
            world.run(Duration::from_millis(500 + 137 * victim as u64));
        }
        assert_eq!(world.watch.false_deaths, 0);
    }
}

#[test]
fn a_silent_host_is_dead_after_the_time_for_suspects() {
    let mut world = World::settled(7, 30);
    let at = world.now;
    world.vanish(3);
    assert!(world.run_until(at + seconds(14), |world| world.believers(3) == 0));
    assert!(world.now > at + world.tuning.suspicion);
    // Until then it stays in the ring.
    assert!(world.watch.first_down[&3] > at + world.tuning.suspicion);
}

#[test]
fn a_member_with_other_ring_parameters_is_a_member_and_not_in_the_ring() {
    let mut world = World::new(8, 4);
    world.describe = |node| Meta { ring: if node == 2 { 8 } else { 7 }, ..meta(node) };
    for node in 0..4 {
        world.start(node);
        world.discover(node, &[0]);
    }
    world.run(seconds(10));
    assert_eq!(ring(&world, 0), [0, 1, 3]);
    assert_eq!(ring(&world, 2), [2]);
    assert_eq!(view(&world, 0).members.len(), 4);
    assert!(world.watch.other_rings > 0);
}

#[test]
fn what_a_member_says_of_itself_reaches_all_though_packets_get_lost() {
    // By gossip in moments; whoever has missed it gets it when notes are compared.
    let lossy = (20..24).map(|seed| (seed, 0.5, seconds(60)));
    for (seed, loss, limit) in std::iter::once((9, 0.0, seconds(1))).chain(lossy) {
        let mut world = World::settled(seed, 40);
        world.network.loss = loss;
        let told = Meta { plugins: vec![9], weight: 50, ..meta(4) };
        world.command(4, Command::Describe(told.clone()));
        let name = world.nodes[4].name;
        let limit = world.now + limit;
        let all_know = |world: &World| {
            world.nodes.iter().all(|node| node.view.get(name).is_some_and(|it| *it.meta == told))
        };
        assert!(world.run_until(limit, all_know), "with {loss} lost");
    }
}

#[test]
fn a_new_key_seals_once_every_member_has_it_and_nobody_is_lost_on_the_way() {
    let mut world = World::settled(10, 6);
    let [old, new] = [world.keys.primary().clone(), Key::generate().expect("randomness")];
    let both = Keys::new(new.clone(), [old]).expect("two keys");
    let id = new.fingerprint().to_be_bytes()[0];
    let seals_new = |world: &World| world.nodes.iter().all(|node| node.sealed_with == id);
    for node in 0..5 {
        world.command(node, Command::SetKeys(both.clone()));
        world.run(seconds(3));
    }
    assert!(!seals_new(&world));
    world.command(5, Command::SetKeys(both));
    world.run(seconds(5));
    assert!(seals_new(&world));
    let only = Keys::new(new, []).expect("a key");
    for node in 0..6 {
        world.command(node, Command::SetKeys(only.clone()));
        world.run(seconds(1));
    }
    world.run(seconds(20));
    assert!(world.all_agree());
    assert!(world.watch.first_down.is_empty());
}

#[test]
fn sealed_nonsense_from_a_member_panics_nowhere() {
    let mut world = World::settled(11, 4);
    let mut member = Envelope::new("sim", world.keys.clone(), 99);
    let mut dice = fastrand::Rng::with_seed(12);
    world.has_strangers = true;
    // What members really send, opened.
    let mut reader = Envelope::new("sim", world.keys.clone(), 98);
    world.watch.kept_datagrams = Some(Vec::new());
    world.network.loss = 0.3;
    world.run(seconds(20));
    let sent = world.watch.kept_datagrams.take().unwrap_or_default();
    let opened = sent.iter().filter_map(|it| reader.open(Channel::Datagram, it).ok());
    let seen: Vec<_> = opened.map(|opened| opened.payload).collect();
    assert!(seen.len() > 100);
    for round in 0..5_000 {
        let mut payload = seen[dice.usize(..seen.len())].clone();
        for _ in 0..dice.usize(1..4) {
            let at = dice.usize(..payload.len());
            payload[at] = dice.u8(..);
        }
        payload.truncate(dice.usize(1..=payload.len()));
        if dice.u8(..10) == 0 {
            payload = (0..dice.usize(..200)).map(|_| dice.u8(..)).collect();
        }
        world.inject(round % 4, &member.seal(Channel::Datagram, &payload));
        if round % 500 == 0 {
            world.run(seconds(1));
        }
    }
    world.run(seconds(5));
}
