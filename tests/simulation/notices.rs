//! Notices: every member gets each of them once, or learns that it missed some; and says that
//! it is current only when it has heard what the others have.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;

use super::cluster::{
    NOTICE_MAX, NoticeId, Refused,
    machine::{Command, Counters},
};

use super::world::{Told, World};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn body(len: usize) -> Bytes {
    Bytes::from(vec![b'n'; len])
}

/// Notices, each with its publisher.
type Published = Vec<(usize, NoticeId)>;

/// Publishes `count` notices, by whoever `who` draws, one after each `pause`.
fn publish(
    world: &mut World,
    count: usize,
    pause: Duration,
    len: usize,
    who: impl Fn(&mut fastrand::Rng) -> usize,
) -> Published {
    let mut dice = fastrand::Rng::with_seed(count as u64);
    let publish = |_| {
        let node = who(&mut dice);
        let id = world.publish(node, body(len)).expect("a member that may publish");
        world.run(pause);
        (node, id)
    };
    (0..count).map(publish).collect()
}

/// Whether every node that runs was told each of them.
fn all_told(world: &World, published: &Published) -> bool {
    world.running().all(|node| {
        let it = &world.nodes[node];
        published.iter().all(|(by, id)| *by == node || it.times_told(*id) > 0)
    })
}

/// How many were not told to some that run, and how many were told more than once.
fn lacking_and_repeated(world: &World, published: &Published) -> (usize, usize) {
    let (mut lacking, mut repeated) = (0, 0);
    for node in world.running() {
        let mut told: HashMap<NoticeId, usize> = HashMap::new();
        for (_, it) in &world.nodes[node].told {
            if let Told::Notice(id) = it {
                *told.entry(*id).or_default() += 1;
            }
        }
        for (by, id) in published {
            let times = told.get(id).copied().unwrap_or(0);
            lacking += usize::from(times == 0 && *by != node);
            repeated += usize::from(times > 1 || times > 0 && *by == node);
        }
    }
    (lacking, repeated)
}

fn assert_told_once(world: &mut World, published: &Published, within: Duration) {
    let limit = world.now + within;
    world.run_until(limit, |world| all_told(world, published));
    assert_eq!(lacking_and_repeated(world, published), (0, 0));
    // Nor is any of them told later.
    world.run(seconds(50));
    assert_eq!(lacking_and_repeated(world, published), (0, 0));
}

fn missed(world: &World) -> usize {
    world.nodes.iter().map(super::world::Node::times_missed).sum()
}

fn counted(world: &World, of: impl Fn(&Counters) -> u64) -> u64 {
    world.running().map(|node| of(&world.process(node).counters())).sum()
}

#[test]
fn every_member_gets_every_notice_once_whatever_gets_lost() {
    for (loss, within) in [(0.0, seconds(1)), (0.05, seconds(3)), (0.2, seconds(5))] {
        let mut world = World::settled(1, 50);
        world.network.loss = loss;
        world.network.duplicates = 0.05;
        let published =
            publish(&mut world, 200, Duration::from_millis(50), 90, |dice| dice.usize(..50));
        assert_told_once(&mut world, &published, within);
        assert_eq!((missed(&world), world.watch.false_deaths), (0, 0), "with {loss} lost");
    }
}

#[test]
fn one_notice_is_with_all_as_fast_as_any_news() {
    let mut world = World::settled(2, 50);
    let published = publish(&mut world, 1, Duration::ZERO, 200, |_| 7);
    assert_told_once(&mut world, &published, Duration::from_millis(600));
}

#[test]
fn the_longest_notices_arrive_and_longer_ones_are_refused() {
    let mut world = World::settled(3, 50);
    assert_eq!(world.publish(0, body(NOTICE_MAX + 1)), Err(Refused::TooLong));
    let published =
        publish(&mut world, 20, Duration::from_millis(20), NOTICE_MAX, |dice| dice.usize(..50));
    assert_told_once(&mut world, &published, seconds(4));
    assert_eq!((missed(&world), world.watch.false_deaths), (0, 0));
    world.command(0, Command::Leave);
    world.run(seconds(5));
    assert_eq!(world.publish(0, body(1)), Err(Refused::Gone));
}

#[test]
fn both_sides_of_a_partition_have_all_notices_moments_after_it() {
    let mut world = World::settled(4, 40);
    world.split(|node| node % 2 == 0);
    let pause = Duration::from_millis(500);
    let published = publish(&mut world, 120, pause, 90, |dice| dice.usize(..40));
    assert!(!all_told(&world, &published));
    world.heal();
    assert_told_once(&mut world, &published, seconds(6));
    assert_eq!(missed(&world), 0);
}

/// What `node` was told since `then`, without the time.
fn told_since(world: &World, node: usize, then: Duration) -> Vec<Told> {
    let told = world.nodes[node].told.iter().filter(|(at, _)| *at >= then);
    told.map(|(_, told)| *told).collect()
}

#[test]
fn a_node_that_stood_still_hears_all_that_it_missed_before_it_is_current() {
    // Within the time for suspects, long enough to be taken for dead, and with losses.
    let cases = [(3, 0.0, 2_000), (5, 0.0, 0), (30, 0.0, 0), (30, 0.2, 2_000), (6, 0.2, 0)];
    for (seed, (pause, loss, buffer)) in cases.into_iter().enumerate() {
        let mut world = World::settled(5 + seed as u64, 30);
        world.socket_buffer = buffer;
        world.network.loss = loss;
        assert!(world.nodes[3].is_current());
        world.pause(3);
        let every = seconds(pause) / 20;
        let published = publish(&mut world, 20, every, 90, |dice| dice.usize(4..30));
        // The last one is with the others.
        world.run(seconds(2));
        let then = world.now;
        world.resume(3);
        world.run(Duration::from_micros(1));
        let limit = world.now + seconds(3);
        assert!(world.run_until(limit, |world| world.nodes[3].is_current()));
        let told = told_since(&world, 3, then);
        assert_eq!(told.first(), Some(&Told::Current(false)), "after {pause} s");
        let current = told.iter().position(|it| *it == Told::Current(true)).expect("it is");
        for (_, id) in &published {
            let at = told.iter().position(|it| *it == Told::Notice(*id));
            assert!(at.is_some_and(|at| at < current), "{id:?} after {pause} s: {told:?}");
        }
        world.run(seconds(50));
        assert_eq!(lacking_and_repeated(&world, &published), (0, 0));
    }
}

#[test]
fn a_node_that_was_held_up_for_a_moment_stays_current() {
    let mut world = World::settled(12, 10);
    let then = world.now;
    world.pause(3);
    world.run(Duration::from_millis(700));
    world.resume(3);
    world.run(seconds(3));
    assert_eq!(told_since(&world, 3, then), []);
}

#[test]
fn a_node_is_current_at_once_without_others_and_soon_if_they_do_not_answer() {
    let mut world = World::new(13, 3);
    world.start(0);
    world.run(Duration::from_millis(100));
    assert_eq!(told_since(&world, 0, Duration::ZERO), [Told::Current(false)]);
    world.run(Duration::from_millis(300));
    assert_eq!(told_since(&world, 0, Duration::ZERO), [Told::Current(false), Told::Current(true)]);
    // The other one is not there.
    world.start(1);
    world.discover(1, &[2]);
    world.run(Duration::from_millis(1_900));
    assert!(!world.nodes[1].is_current());
    world.run(Duration::from_millis(300));
    assert!(world.nodes[1].is_current());
    // They find one another, and neither may go on as if nothing had happened.
    let published = publish(&mut world, 1, Duration::ZERO, 9, |_| 0);
    let then = world.now;
    world.discover(1, &[0]);
    world.run(seconds(2));
    let [Told::Current(false), Told::Notice(id), Told::Current(true)] =
        told_since(&world, 1, then)[..]
    else {
        panic!("{:?}", told_since(&world, 1, then));
    };
    assert_eq!(id, published[0].1);
    assert_eq!(told_since(&world, 0, then), [Told::Current(false), Told::Current(true)]);
}

#[test]
fn a_node_that_is_cut_off_from_all_others_serves_alone_after_a_while() {
    let mut world = World::settled(14, 5);
    world.pause(3);
    world.run(seconds(3));
    world.split(|node| node == 3);
    world.nodes[3].is_udp_blocked = true;
    world.socket_buffer = 0;
    world.resume(3);
    world.run(seconds(1));
    assert!(!world.nodes[3].is_current());
    world.run(seconds(10));
    assert!(world.nodes[3].is_current());
}

#[test]
fn a_joiner_gets_the_notices_that_are_kept_before_it_is_current_and_misses_none() {
    let mut world = World::new(15, 20);
    for node in 0..19 {
        world.start(node);
        world.discover(node, &[0, 1, 2]);
    }
    world.run(seconds(20));
    let old = publish(&mut world, 10, seconds(1), 90, |_| 4);
    world.run(world.tuning.keep);
    let kept = publish(&mut world, 300, seconds(1), 90, |dice| dice.usize(..19));
    world.start(19);
    world.discover(19, &[7]);
    let limit = world.now + seconds(1);
    assert!(world.run_until(limit, |world| world.nodes[19].is_current()));
    let told = told_since(&world, 19, Duration::ZERO);
    assert_eq!(told.last(), Some(&Told::Current(true)));
    assert!(old.iter().all(|(_, id)| world.nodes[19].times_told(*id) == 0));
    assert!(kept.iter().all(|(_, id)| world.nodes[19].times_told(*id) == 1));
    world.run(seconds(60));
    assert_eq!(missed(&world), 0);
}

#[test]
fn whoever_is_away_for_longer_than_notices_are_kept_misses_them_once() {
    // By their time, by their number and by their bytes.
    for case in 0..3 {
        let mut world = World::new(16, 12);
        match case {
            0 => world.tuning.keep = seconds(20),
            1 => world.tuning.keep_notices = 50,
            _ => world.tuning.keep_bytes = 50 * 1_000,
        }
        world.settle();
        let before = publish(&mut world, 5, seconds(1), 900, |dice| dice.usize(..12));
        world.run(seconds(3));
        world.pause(3);
        let away =
            publish(&mut world, 150, Duration::from_millis(500), 900, |dice| dice.usize(4..12));
        world.run(seconds(1));
        let then = world.now;
        world.resume(3);
        world.run(Duration::from_micros(1));
        assert!(world.run_until(then + seconds(3), |world| world.nodes[3].is_current()));
        let told = told_since(&world, 3, then);
        let at = |what: Told| told.iter().position(|it| *it == what);
        assert!(at(Told::Missed) < at(Told::Current(true)), "{told:?}");
        let got = away.iter().filter(|(_, id)| world.nodes[3].times_told(*id) == 1).count();
        assert!((20..80).contains(&got), "{got} of 150 were kept");
        world.run(seconds(100));
        assert_eq!(world.nodes[3].times_missed(), 1);
        assert_eq!(missed(&world), 1, "others were not away");
        assert_eq!(lacking_and_repeated(&world, &before), (0, 0));
        assert_eq!(lacking_and_repeated(&world, &away).1, 0);
    }
}

#[test]
fn a_burst_hurts_nobody_and_ends_with_all_notices_or_the_word_that_some_were_missed() {
    for (count, loss) in [(5_000, 0.0), (10_000, 0.0), (10_000, 0.05)] {
        let mut world = World::settled(17, 20);
        world.network.loss = loss;
        let pause = seconds(1) / count;
        let published = publish(&mut world, count as usize, pause, 60, |_| 2);
        world.run(seconds(20));
        assert_eq!((world.watch.false_deaths, world.watch.first_down.len()), (0, 0));
        let kept = world.tuning.keep_notices;
        // Of the last some may be missed too: what is kept longest is not the same everywhere.
        let last = &published[published.len().saturating_sub(kept / 2)..];
        assert_eq!(lacking_and_repeated(&world, &last.to_vec()), (0, 0), "{count}, {loss} lost");
        assert_eq!(lacking_and_repeated(&world, &published).1, 0);
        for node in (0..20).filter(|node| *node != 2) {
            let it = &world.nodes[node];
            let count = it.told.iter().filter(|(_, told)| matches!(told, Told::Notice(_))).count();
            let has_all = count == published.len();
            assert!(has_all || it.times_missed() > 0, "{node} lacks some and was not told");
        }
        assert!(count as usize > kept || missed(&world) == 0, "{} missed", missed(&world));
        // And it is over.
        let bytes = world.watch.bytes;
        world.run(seconds(30));
        let idle = (world.watch.bytes - bytes) / 30 / 20;
        assert!(idle < 1_000, "{idle} B/s a node");
    }
}

#[test]
fn bursts_of_many_publishers_at_once_reach_all() {
    let mut world = World::settled(18, 30);
    let pause = Duration::from_millis(1);
    let published = publish(&mut world, 3_000, pause, 200, |dice| dice.usize(..30));
    assert_told_once(&mut world, &published, seconds(10));
    assert_eq!((missed(&world), world.watch.first_down.len()), (0, 0));
}

#[test]
fn what_is_said_of_a_member_is_not_kept_waiting_by_notices() {
    let mut world = World::settled(19, 40);
    // One from each node in 200 ms, for long.
    let mut last = seconds(0);
    for round in 0..10 {
        publish(&mut world, 200, Duration::from_millis(5), 400, |dice| dice.usize(..40));
        let told = super::cluster::Meta { weight: 50 + round, ..super::world::meta(4) };
        world.command(4, Command::Describe(told.clone()));
        let name = world.nodes[4].name;
        let (began, limit) = (world.now, world.now + seconds(10));
        let all_know = |world: &World| {
            world.nodes.iter().all(|node| node.view.get(name).is_some_and(|it| *it.meta == told))
        };
        assert!(world.run_until(limit, all_know));
        last = last.max(world.now.saturating_sub(began));
    }
    assert!(last < seconds(3), "{last:?}");
}

#[test]
fn what_is_sent_again_by_a_stranger_is_not_told_again() {
    let mut world = World::settled(20, 10);
    world.watch.kept_datagrams = Some(Vec::new());
    let published = publish(&mut world, 50, Duration::from_millis(50), 90, |dice| dice.usize(..5));
    world.run(seconds(2));
    let sent = world.watch.kept_datagrams.take().unwrap_or_default();
    for (at, packet) in sent.iter().enumerate() {
        world.inject(at % 10, packet);
    }
    // To some who restarted: they have never seen these packets, and the notices are of old.
    world.kill(5);
    world.run(seconds(1));
    world.start(5);
    world.discover(5, &[0]);
    world.run(seconds(2));
    for packet in &sent {
        world.inject(5, packet);
    }
    world.run(seconds(5));
    assert_eq!(lacking_and_repeated(&world, &published).1, 0);
}

#[test]
fn a_publisher_that_is_restarted_is_heard_in_its_new_life() {
    let mut world = World::settled(21, 10);
    let mut published = publish(&mut world, 20, Duration::from_millis(50), 90, |_| 5);
    world.run(seconds(1));
    world.kill(5);
    world.run(seconds(5));
    world.start(5);
    world.discover(5, &[0]);
    world.run(seconds(5));
    // Its former life's are another's: it hears them too, since it has forgotten all.
    for (by, _) in &mut published {
        *by = usize::MAX;
    }
    published.extend(publish(&mut world, 20, Duration::from_millis(50), 90, |_| 5));
    assert_told_once(&mut world, &published, seconds(1));
    assert_eq!(missed(&world), 0);
}

#[test]
fn whoever_only_tcp_reaches_gets_notices_and_is_heard() {
    let mut world = World::settled(22, 15);
    world.nodes[3].is_udp_blocked = true;
    let published = publish(&mut world, 20, seconds(1), 90, |dice| dice.usize(..8));
    assert_told_once(&mut world, &published, seconds(50));
}

#[test]
fn members_that_know_the_same_say_no_more_than_that() {
    let mut world = World::settled(23, 30);
    publish(&mut world, 30, Duration::from_millis(50), 90, |dice| dice.usize(..30));
    world.run(seconds(60));
    let before = [counted(&world, |it| it.syncs), counted(&world, |it| it.syncs_equal)];
    let tcp_bytes = world.watch.tcp_bytes;
    world.run(seconds(120));
    let syncs = counted(&world, |it| it.syncs) - before[0];
    let equal = counted(&world, |it| it.syncs_equal) - before[1];
    assert!(syncs >= 80, "{syncs} comparisons");
    assert!(equal >= syncs - 1, "{equal} of {syncs} found all equal");
    let bytes = (world.watch.tcp_bytes - tcp_bytes) / syncs;
    assert!(bytes < 900, "{bytes} bytes each");
}
