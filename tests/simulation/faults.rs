//! Random faults: what must hold at every moment, and what must come true once they end.
//!
//! A run is its seed and its size. A failure prints both, and the command that repeats it:
//!
//! ```text
//! SIM_SEED=17 SIM_NODES=50 cargo test -p simulation one_seed
//! ```
//!
//! `SIM_SEEDS=20000` runs more of them.

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use bytes::Bytes;

use super::cluster::{
    NoticeId,
    machine::{Command, State},
};

use super::world::{Network, Told, World, meta};

const NODES: usize = 50;
const SEEDS: u64 = 200;
/// For how long there are faults, and how long after them all must be well.
const FAULTS: Duration = Duration::from_secs(20);
const RECOVERY: Duration = Duration::from_secs(30);
/// The same for rings: a member that was seen to come and go stays out for half a minute.
const RINGS: Duration = Duration::from_secs(40);
/// How long after that notices may still be on their way: whoever could be reached by nothing
/// and was taken for alive learns of them when it compares notes in its turn.
const NOTICES: Duration = Duration::from_secs(30);

#[test]
fn clusters_of_fifty_survive_random_faults() {
    let seeds = number("SIM_SEEDS", SEEDS);
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            run_and_tell(seed, NODES);
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(4);
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
}

/// Runs the seed of `SIM_SEED`, to look at one that failed.
#[test]
fn one_seed() {
    let nodes = usize::try_from(number("SIM_NODES", 20)).expect("a small number");
    run_and_tell(number("SIM_SEED", 1), nodes);
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |it| it.parse().expect("a number"))
}

/// The same seed must give the same run, or a failure could not be repeated.
#[test]
fn a_run_can_be_repeated_exactly() {
    let run = || {
        let world = run(3, 12);
        (world.watch.handled, world.watch.bytes, world.nodes[0].view.ring_digest())
    };
    assert_eq!(run(), run());
}

fn run_and_tell(seed: u64, nodes: usize) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed, nodes))) {
        let again = "cargo test -p simulation one_seed";
        #[expect(clippy::print_stderr, reason = "the only thing that repeats the failure")]
        {
            eprintln!("failed; again: SIM_SEED={seed} SIM_NODES={nodes} {again}");
        }
        resume_unwind(panic);
    }
}

/// One fault, as it is printed when the run fails.
#[derive(Debug)]
enum Fault {
    Kill(usize),
    Vanish(usize),
    Restart { node: usize, has_notes: bool },
    Pause { node: usize, time: Duration },
    Resume(usize),
    Leave(usize),
    Drain(usize),
    Split { share: f64 },
    Heal,
    BlockUdp(usize),
    Network(Network),
    Publish { node: usize, count: usize, len: usize },
}

/// A notice, its publisher and the publisher's life then.
struct Published {
    id: NoticeId,
    by: usize,
    life: u32,
    at: Duration,
}

fn run(seed: u64, nodes: usize) -> World {
    let mut world = World::new(seed, nodes);
    let mut dice = fastrand::Rng::with_seed(seed ^ 0x5eed);
    // A few come later.
    let early = nodes - nodes / 5;
    for node in 0..early {
        world.start(node);
    }
    let seeds: Vec<_> = (0..3).map(|_| dice.usize(..early)).collect();
    world.discover_all(&seeds);
    world.run(Duration::from_secs(5));
    // Some runs have no loss, so that nobody may be taken for dead to whom nothing happened.
    let has_loss = dice.bool();
    let end = world.now + FAULTS;
    let mut log = Vec::new();
    let mut published = Vec::new();
    let mut resumes: Vec<(Duration, usize)> = Vec::new();
    while world.now < end {
        let pause = Duration::from_millis(dice.u64(100..3_000));
        world.run(pause);
        resumes.retain(|(at, node)| {
            let is_due = *at <= world.now;
            if is_due && world.nodes[*node].stands_still() {
                log.push((world.now, Fault::Resume(*node)));
                world.resume(*node);
            }
            !is_due
        });
        let Some(fault) = draw(&world, &mut dice, has_loss) else { continue };
        if let Fault::Pause { node, time } = &fault {
            resumes.push((world.now + *time, *node));
        }
        if let Fault::Publish { node, count, len } = fault {
            publish(&mut world, &mut published, node, (count, len));
        }
        apply(&mut world, &fault, &seeds);
        log.push((world.now, fault));
    }
    recover(&mut world, &seeds);
    check(&mut world, &log);
    check_notices(&mut world, &published, &log);
    world
}

fn draw(world: &World, dice: &mut fastrand::Rng, has_loss: bool) -> Option<Fault> {
    let node = dice.usize(..world.nodes.len());
    let is_up = world.is_running(node) && !world.nodes[node].stands_still();
    Some(match dice.u32(..28) {
        0..4 if is_up => Fault::Kill(node),
        4 if is_up => Fault::Vanish(node),
        0..8 if !world.is_running(node) => Fault::Restart { node, has_notes: dice.u8(..4) > 0 },
        8..11 if is_up => Fault::Pause { node, time: Duration::from_millis(dice.u64(200..20_000)) },
        11 if is_up => Fault::Leave(node),
        12 if is_up => Fault::Drain(node),
        13 => Fault::Split { share: dice.f64() },
        14..16 => Fault::Heal,
        16 if is_up => Fault::BlockUdp(node),
        17..20 if has_loss => {
            let most = Duration::from_millis(dice.u64(1..150));
            Fault::Network(Network {
                latency: (Duration::from_micros(200), most),
                loss: dice.f64() * 0.3,
                duplicates: dice.f64() * 0.1,
                corruption: dice.f64() * 0.01,
            })
        }
        20..28 if is_up => {
            let many = [1, 1, 1, 3, 30, 300][dice.usize(..6)];
            Fault::Publish { node, count: many, len: [10, 100, 600, 5_000][dice.usize(..4)] }
        }
        _ => return None,
    })
}

fn apply(world: &mut World, fault: &Fault, seeds: &[usize]) {
    match fault {
        Fault::Kill(node) => world.kill(*node),
        Fault::Vanish(node) => world.vanish(*node),
        Fault::Restart { node, has_notes } => restart(world, *node, *has_notes, seeds),
        Fault::Pause { node, .. } => world.pause(*node),
        Fault::Resume(node) => world.resume(*node),
        Fault::Leave(node) => world.command(*node, Command::Leave),
        Fault::Drain(node) => world.command(*node, Command::SetState(State::Draining)),
        Fault::Split { share } => {
            let far: Vec<bool> =
                (0..world.nodes.len()).map(|_| world.dice.f64() < *share).collect();
            world.split(|node| far[node]);
        }
        Fault::Heal => world.heal(),
        Fault::BlockUdp(node) => {
            world.nodes[*node].is_udp_blocked = true;
            world.nodes[*node].is_tainted = true;
        }
        Fault::Network(network) => world.network = network.clone(),
        Fault::Publish { .. } => {}
    }
}

fn publish(world: &mut World, all: &mut Vec<Published>, by: usize, (count, len): (usize, usize)) {
    for _ in 0..count {
        // Refused by whoever has left.
        if let Ok(id) = world.publish(by, Bytes::from(vec![0; len])) {
            all.push(Published { id, by, life: world.nodes[by].life(), at: world.now });
        }
    }
}

fn restart(world: &mut World, node: usize, has_notes: bool, seeds: &[usize]) {
    if world.nodes[node].has_left {
        world.kill(node);
    }
    if !has_notes {
        world.nodes[node].lose_notes();
    }
    world.start(node);
    world.discover(node, seeds);
}

/// Ends all faults. What is dead stays dead, but for the seeds, without whom a node that
/// was restarted could not know of anybody.
fn recover(world: &mut World, seeds: &[usize]) {
    world.network = Network::default();
    world.heal();
    for node in 0..world.nodes.len() {
        world.nodes[node].is_udp_blocked = false;
        if world.nodes[node].stands_still() {
            world.resume(node);
        }
        if world.is_running(node) {
            world.command(node, Command::Describe(meta(node)));
        } else if seeds.contains(&node) {
            restart(world, node, true, seeds);
        }
    }
}

fn check(world: &mut World, log: &[(Duration, Fault)]) {
    let ended = world.now;
    world.run(RECOVERY);
    if !world.all_agree() {
        let (node, other) = world.disagreement().unwrap_or_default();
        panic!(
            "{RECOVERY:?} after the faults ended at {ended:?}, node {node} is wrong about {other} \
             (runs: {}): {log:#?}",
            world.is_running(other),
        );
    }
    if !world.run_until(ended + RINGS, World::rings_are_equal) {
        let names: Vec<_> = world.running().map(|it| world.nodes[it].name).collect();
        let missing = |node: usize| {
            let view = &world.nodes[node].view;
            let missing = names.iter().filter(|it| view.get(**it).is_none_or(|it| !it.in_ring));
            missing.map(|it| (*it, view.get(*it).cloned())).collect::<Vec<_>>()
        };
        let rings: Vec<_> = world.running().map(|it| (it, missing(it))).collect();
        let rings: Vec<_> = rings.into_iter().filter(|(_, it)| !it.is_empty()).collect();
        panic!("{RINGS:?} after {ended:?}, rings differ: {rings:?}: {log:#?}");
    }
    assert_eq!(
        world.watch.deaths_of_untainted, 0,
        "somebody unharmed was taken for dead: {log:#?}"
    );
    for (index, node) in world.nodes.iter().enumerate() {
        assert!(node.renewals < 60, "{} renewals of {index}: {log:#?}", node.renewals);
    }
    // And it stays so.
    world.run(Duration::from_secs(5));
    assert!(world.all_agree(), "they agreed, and do not any more: {log:#?}");
}

/// Every notice that anybody has whose process still runs was told to every process of then,
/// once, or it was told that it missed some; and whoever runs is current.
fn check_notices(world: &mut World, published: &[Published], log: &[(Duration, Fault)]) {
    let lacks = |world: &World, node: usize, notice: &Published| {
        let it = &world.nodes[node];
        let is_own = notice.by == node && notice.life == it.life();
        let is_missed = |(at, told): &(Duration, Told)| *at >= notice.at && *told == Told::Missed;
        !is_own && it.times_told(notice.id) == 0 && !it.told.iter().any(is_missed)
    };
    let is_with_all = |world: &World, notice: &Published| {
        let is_by = |node: usize| notice.by == node && notice.life == world.nodes[node].life();
        let has = |node: usize| is_by(node) || world.nodes[node].times_told(notice.id) > 0;
        !world.running().any(has) || !world.running().any(|node| lacks(world, node, notice))
    };
    let limit = world.now + NOTICES;
    if !world.run_until(limit, |world| published.iter().all(|it| is_with_all(world, it))) {
        let lost = published.iter().find(|it| !is_with_all(world, it));
        let Some(notice) = lost else { return };
        let nodes: Vec<_> = world.running().filter(|node| lacks(world, *node, notice)).collect();
        let Published { id, by, at, .. } = notice;
        panic!("{id:?} of {by} at {at:?} did not reach {nodes:?}: {log:#?}");
    }
    for node in world.running() {
        let it = &world.nodes[node];
        assert!(it.is_current(), "{node} is not current: {log:#?}");
        for Published { id, by, life, .. } in published {
            let is_own = *by == node && *life == it.life();
            let most = usize::from(!is_own);
            assert!(it.times_told(*id) <= most, "{node} was told {id:?} twice: {log:#?}");
        }
    }
}
