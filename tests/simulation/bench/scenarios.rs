//! What is measured, and what it is to be.

use std::{
    cell::Cell,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::cluster::machine::{Command, Id};
use tokio::time::Instant;

use super::{
    bare::Bare,
    world::{World, address},
};

/// How much is measured.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Size {
    /// Whether it works at all.
    Small,
    Full,
    /// With clusters of 5,000.
    Large,
}

/// What is to be measured.
pub(crate) struct Parts<'a> {
    pub(crate) size: Size,
    /// Only scenarios of that name.
    pub(crate) only: Option<&'a str>,
    /// Only clusters of that size.
    pub(crate) nodes: Option<usize>,
    /// Only with that share of packets lost, where there are several.
    pub(crate) loss: Option<f64>,
    /// Which of many runs it is.
    pub(crate) seed: u64,
    /// How many members are killed, one after the other.
    pub(crate) kills: Option<usize>,
    pub(crate) has_foca: bool,
}

/// Whose numbers they are.
#[derive(Clone, Copy, PartialEq)]
enum Who {
    Ours,
    Foca,
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A cluster in which everybody knows everybody.
fn settled(who: Who, seed: u64, nodes: usize) -> World {
    if who == Who::Ours {
        return World::settled(seed, nodes);
    }
    let known = Arc::new(Mutex::new(Vec::<Id>::new()));
    let known_by_all = Arc::clone(&known);
    let mut world = World::of(
        seed,
        nodes,
        Box::new(move |setup, now| {
            let known = known_by_all.lock().unwrap_or_else(PoisonError::into_inner);
            let others: Vec<_> =
                known.iter().copied().filter(|id| id.addr != setup.id.addr).collect();
            let mut bare = Bare::new(&setup, nodes);
            bare.know(&others, now);
            Box::new(bare)
        }),
    );
    world.datagram_max = 1_500;
    let generation = world.generation();
    let all = (0..nodes).map(|it| Id::new(address(it), generation, world.nodes[it].name));
    *known.lock().unwrap_or_else(PoisonError::into_inner) = all.collect();
    for node in 0..nodes {
        world.start(node);
    }
    // Who is started from here on knows nobody.
    known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    world.run(seconds(30));
    world.forget_what_happened();
    world
}

fn empty(who: Who, seed: u64, nodes: usize) -> World {
    let mut world = match who {
        Who::Ours => World::new(seed, nodes),
        Who::Foca => {
            World::of(seed, nodes, Box::new(move |setup, _| Box::new(Bare::new(&setup, nodes))))
        }
    };
    world.datagram_max = 1_500;
    world
}

/// Lines of a table, and whether all targets were met.
struct Table {
    is_met: bool,
    has_foca: bool,
    /// What the seeds of all scenarios are moved by.
    seed: u64,
    began: Instant,
}

impl Table {
    /// Measures both, or ours alone, from the same seed.
    fn of<T: Default>(&self, seed: u64, measure: impl Fn(Who, u64) -> T) -> [T; 2] {
        let seed = self.seed + seed;
        let foca = if self.has_foca { measure(Who::Foca, seed) } else { T::default() };
        [measure(Who::Ours, seed), foca]
    }

    fn line(&mut self, what: &str, ours: &str, foca: &str, target: &str, is_met: bool) {
        let verdict = if is_met { "" } else { "  MISSED" };
        let took = self.began.elapsed().as_secs();
        let foca = if self.has_foca { foca } else { "-" };
        println!("{what:<46} {ours:>20} {foca:>20}   {target:<22} {took:>5} s{verdict}");
        self.is_met &= is_met;
    }
}

/// Measures; whether all targets were met.
pub(crate) fn run(parts: &Parts<'_>) -> bool {
    let Parts { size, only, nodes, has_foca, seed, kills, .. } = *parts;
    let mut table = Table { is_met: true, has_foca, seed: 100 * seed, began: Instant::now() };
    println!(
        "{:<46} {:>20} {:>20}   target",
        "virtual time; mean / max where there are many", "ours", "foca new_lan"
    );
    let mut sizes = match size {
        Size::Small => vec![20],
        Size::Full => vec![100, 1_000],
        Size::Large => vec![100, 1_000, 5_000],
    };
    if let Some(nodes) = nodes {
        sizes = vec![nodes];
    }
    let wants = |name: &str| only.is_none_or(|only| name.starts_with(only));
    let wants_loss = |loss: f64| parts.loss.is_none_or(|only| (only - loss).abs() < 1e-9);
    for &nodes in &sizes {
        for loss in [0.0, 0.05].into_iter().filter(|it| wants_loss(*it)) {
            if wants("kill") {
                let most = if nodes > 1_000 { 3 } else { 10 };
                let victims = kills.unwrap_or(most).min(nodes / 4);
                kill(&mut table, nodes, loss, victims);
            }
        }
        if wants("leave") {
            leave(&mut table, nodes);
        }
        if wants("join") {
            join(&mut table, nodes);
        }
        if wants("idle") {
            for loss in [0.0, 0.05].into_iter().filter(|it| wants_loss(*it)) {
                idle(&mut table, nodes, loss);
            }
        }
        if wants("split") {
            split(&mut table, nodes);
        }
        if wants("cold") && nodes <= 1_000 {
            cold_start(&mut table, nodes);
        }
    }
    let nodes = sizes[0];
    if wants("vanish") {
        vanish(&mut table, nodes);
    }
    if wants("pause") {
        pause(&mut table, nodes);
    }
    let minutes = if size == Size::Small { 1 } else { 30 };
    if wants("false") {
        for loss in [0.05, 0.2].into_iter().filter(|it| wants_loss(*it)) {
            false_deaths(&mut table, nodes, loss, minutes);
        }
    }
    table.is_met
}

/// Mean and greatest of some times.
fn mean_and_max(times: &[Duration]) -> (Duration, Duration) {
    let count = u32::try_from(times.len()).unwrap_or(1).max(1);
    let sum: Duration = times.iter().sum();
    (sum / count, times.iter().copied().max().unwrap_or_default())
}

fn shown((mean, max): (Duration, Duration)) -> String {
    format!("{:.2} / {:.2} s", mean.as_secs_f64(), max.as_secs_f64())
}

/// The time until `is_so`, or the limit.
fn time_until(world: &mut World, limit: Duration, is_so: impl Fn(&World) -> bool) -> Duration {
    let began = world.now;
    world.run_until(began + limit, is_so);
    world.now.saturating_sub(began)
}

fn kill(table: &mut Table, nodes: usize, loss: f64, victims: usize) {
    let [ours, foca] = table.of(11, |who, seed| {
        let mut world = settled(who, seed, nodes);
        world.network.loss = loss;
        world.run(seconds(20));
        let mut found_in = Vec::new();
        let mut known_in = Vec::new();
        for victim in 0..victims {
            world.run(Duration::from_millis(137 * victim as u64));
            world.kill(victim);
            let at = world.now;
            let all = time_until(&mut world, seconds(60), |it| it.believers(victim) == 0);
            let found = world.watch.first_down.get(&victim);
            found_in.push(found.map_or(all, |it| it.saturating_sub(at)));
            known_in.push(all);
        }
        (mean_and_max(&known_in), mean_and_max(&found_in))
    });
    let [(ours, ours_found), (foca, foca_found)] = [ours, foca];
    let limits =
        if loss > 0.0 { (seconds(4), 3_500) } else { (Duration::from_millis(1_800), 3_000) };
    let is_met = ours.0 <= limits.0 && ours.1 <= Duration::from_millis(limits.1);
    let what = format!("kill -9, all know: N {nodes}, loss {loss}");
    let target = if loss > 0.0 { "max 3.5 s" } else { "mean 1.8 s, max 3.0 s" };
    table.line(&what, &shown(ours), &shown(foca), target, is_met);
    let what = "  until the first knows";
    table.line(what, &shown(ours_found), &shown(foca_found), "", true);
}

fn vanish(table: &mut Table, nodes: usize) {
    let [ours, foca] = table.of(12, |who, seed| {
        let mut world = settled(who, seed, nodes);
        let times: Vec<_> = (0..5)
            .map(|victim| {
                world.run(Duration::from_millis(137 * victim as u64));
                world.vanish(victim);
                time_until(&mut world, seconds(90), |world| world.believers(victim) == 0)
            })
            .collect();
        mean_and_max(&times)
    });
    let what = format!("host gone in silence, all know: N {nodes}");
    table.line(&what, &shown(ours), &shown(foca), "max 11 s", ours.1 <= seconds(11));
}

fn leave(table: &mut Table, nodes: usize) {
    let [ours, foca] = table.of(13, |who, seed| {
        let mut world = settled(who, seed, nodes);
        let times: Vec<_> = (0..5)
            .map(|leaver| {
                world.run(seconds(3));
                world.command(leaver, Command::Leave);
                if who == Who::Ours {
                    // The farewell, in which it still answers.
                    let farewell = world.tuning.farewell;
                    world.run(farewell);
                }
                time_until(&mut world, seconds(60), |world| world.believers(leaver) == 0)
            })
            .collect();
        mean_and_max(&times)
    });
    let what = format!("leave, all know: N {nodes}");
    let is_met = ours.1 <= Duration::from_millis(500);
    table.line(&what, &shown(ours), &shown(foca), "max 0.5 s", is_met);
}

fn join(table: &mut Table, nodes: usize) {
    let [ours, foca] = table.of(14, |who, seed| {
        let mut world = settled(who, seed, nodes);
        let mut learnt_in = Vec::new();
        let mut spread_in = Vec::new();
        for joiner in 0..3 {
            world.kill(joiner);
            world.run(seconds(20));
            world.start(joiner);
            world.discover(joiner, &[nodes - 1, nodes - 2, nodes - 3]);
            let limit = seconds(120);
            let others = nodes - 3;
            let all = move |world: &World| world.known_by(joiner) >= others;
            let is_known = move |world: &World| world.believers(joiner) >= others;
            let began = world.now;
            // Both are awaited at once: whichever comes first is not to wait for the other.
            let learnt = Cell::new(None);
            let spread = Cell::new(None);
            world.run_until(began + limit, |world| {
                if learnt.get().is_none() && all(world) {
                    learnt.set(Some(world.now));
                }
                if spread.get().is_none() && is_known(world) {
                    spread.set(Some(world.now));
                }
                learnt.get().is_some() && spread.get().is_some()
            });
            let never = world.now;
            learnt_in.push(learnt.get().unwrap_or(never).saturating_sub(began));
            spread_in.push(spread.get().unwrap_or(never).saturating_sub(began));
        }
        (mean_and_max(&learnt_in), mean_and_max(&spread_in))
    });
    let what = format!("joiner knows all: N {nodes}");
    let is_met = ours.0.1 <= Duration::from_millis(200);
    table.line(&what, &shown(ours.0), &shown(foca.0), "max 0.2 s", is_met);
    let what = format!("joiner is known by all: N {nodes}");
    let is_met = ours.1.1 <= Duration::from_millis(900);
    table.line(&what, &shown(ours.1), &shown(foca.1), "max 0.9 s", is_met);
}

fn idle(table: &mut Table, nodes: usize, loss: f64) {
    let time = 60;
    let [ours, foca] = table.of(15, |who, seed| {
        let mut world = settled(who, seed, nodes);
        world.network.loss = loss;
        world.run(seconds(30));
        world.forget_what_happened();
        let began = Instant::now();
        world.run(seconds(time));
        let per_node = |number: u64| number as f64 / time as f64 / nodes as f64;
        let (bytes, packets) = (per_node(world.watch.bytes), per_node(world.watch.datagrams));
        let cpu = began.elapsed().as_secs_f64() / time as f64 / nodes as f64 * 100.0;
        (bytes, packets, cpu)
    });
    let shown = |(bytes, packets, _): (f64, f64, f64)| format!("{bytes:.0} B/s {packets:.1}/s");
    let what = format!("idle, a node: N {nodes}, loss {loss}");
    let (target, is_met) = match (loss > 0.0, nodes) {
        (true, 1_000) => ("2,200 B/s", ours.0 <= 2_200.0),
        (true, _) => ("", true),
        (false, _) => ("450 B/s 4.2/s", ours.0 <= 450.0 && ours.1 <= 4.2),
    };
    table.line(&what, &shown(ours), &shown(foca), target, is_met);
    if loss == 0.0 {
        let cpu = |it: (f64, f64, f64)| format!("{:.3} %", it.2);
        let what = format!("  of a core, with the simulator's share: N {nodes}");
        table.line(&what, &cpu(ours), &cpu(foca), "0.5 %", ours.2 < 0.5);
    }
}

fn split(table: &mut Table, nodes: usize) {
    let [ours, foca] = table.of(16, |who, seed| {
        let mut world = settled(who, seed, nodes);
        let candidates: Vec<_> = (0..nodes).collect();
        if who == Who::Ours {
            world.discover_all(&candidates);
        }
        world.split(|node| node % 2 == 0);
        world.run(seconds(120));
        world.heal();
        time_until(&mut world, seconds(900), World::all_agree)
    });
    let what = format!("120 s in halves, all agree again: N {nodes}");
    let shown = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    table.line(&what, &shown(ours), &shown(foca), "8 s", ours <= seconds(8));
}

fn cold_start(table: &mut Table, nodes: usize) {
    let [ours, foca] = table.of(17, |who, seed| {
        let mut world = empty(who, seed, nodes);
        let candidates: Vec<_> = (0..nodes).collect();
        let began = world.now;
        for node in 0..nodes {
            world.start(node);
            world.discover(node, &candidates);
            world.run(seconds(10) / u32::try_from(nodes).unwrap_or(1));
        }
        world.run_until(began + seconds(600), World::all_agree);
        let agreed = world.now.saturating_sub(began);
        let rings = if who == Who::Ours {
            world.run_until(began + seconds(600), World::rings_are_equal);
            world.now.saturating_sub(began)
        } else {
            Duration::ZERO
        };
        (agreed, rings, world.watch.bytes as f64 / nodes as f64 / 1e3)
    });
    let what = format!("all started within 10 s, all know: N {nodes}");
    let shown = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    table.line(&what, &shown(ours.0), &shown(foca.0), "12 s", ours.0 <= seconds(12));
    let what = format!("  and have equal rings: N {nodes}");
    table.line(&what, &shown(ours.1), "-", "", true);
    let what = format!("  sent until then, a node: N {nodes}");
    table.line(&what, &format!("{:.0} KB", ours.2), &format!("{:.0} KB", foca.2), "", true);
}

fn pause(table: &mut Table, nodes: usize) {
    for time in [7, 15] {
        let [ours, foca] = table.of(18, |who, seed| {
            let mut world = settled(who, seed, nodes);
            for node in 0..3 {
                world.pause(node);
                world.run(seconds(time));
                world.resume(node);
                world.run(seconds(20));
            }
            world.watch.first_down.len()
        });
        let what = format!("dead of standing still for {time} s, of 3: N {nodes}");
        let (target, is_met) = if time <= 7 { ("0", ours == 0) } else { ("", true) };
        table.line(&what, &ours.to_string(), &foca.to_string(), target, is_met);
    }
}

fn false_deaths(table: &mut Table, nodes: usize, loss: f64, minutes: u64) {
    let [ours, foca] = table.of(19, |who, seed| {
        let mut world = settled(who, seed, nodes);
        world.network.loss = loss;
        world.run(seconds(60 * minutes));
        let renewals: u64 = world.nodes.iter().map(|node| node.renewals).sum();
        (world.watch.false_deaths, renewals)
    });
    let shown = |(deaths, renewals): (u64, u64)| format!("{deaths}, {renewals} renewals");
    let what = format!("false deaths: N {nodes}, loss {loss}, {minutes} min");
    table.line(&what, &shown(ours), &shown(foca), "0", ours.0 == 0);
}
