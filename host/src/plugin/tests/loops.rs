//! Guests that never come to an end, wherever the host lets them run.

use std::{sync::Arc, time::Duration};

use super::guest::{
    Bench, ECHO, FINE, Guest, body, echo_unless_key, fill, guest, internal, serves_on,
};
use crate::{
    config::{Caching, Plugin as Settings},
    group::{BoxFuture, Context, Fill, FillError, Getter, Group, Groups, Outcome},
    plugin::Plugin,
};

const SPIN: &str = "(loop (br 0))";

/// Sleeps for as long as there are numbers for.
const SLEEP: &str = "(call $block (call $subscribe (i64.const -1)))";

fn little_cpu(settings: &mut Settings) {
    settings.limits.cpu = Duration::from_millis(50);
}

fn little_time(settings: &mut Settings) {
    settings.limits.timeout = Duration::from_millis(100);
}

/// That a get of `key` ends at the CPU budget, and costs that one call.
async fn ends_at_the_cpu_budget(plugin: &Plugin, key: &str) {
    let text = internal(plugin, key).await;
    assert!(text.contains("limits.cpu"), "{text}");
    serves_on(plugin, 1).await;
}

/// That a get of `key` ends at the wall clock, and costs that one call.
async fn ends_at_the_wall_clock(plugin: &Plugin, key: &str) {
    match body(plugin, key).await {
        Err(FillError::TimedOut(text)) => assert!(text.contains("limits.timeout"), "{text}"),
        other => panic!("{other:?}"),
    }
    serves_on(plugin, 1).await;
}

/// Spins in `realloc`, when thirteen bytes are asked for.
fn spinning_realloc(get: &str) -> Guest {
    guest(get).with_realloc(&format!("(if (i32.eq (local.get 3) (i32.const 13)) (then {SPIN}))"))
}

#[tokio::test]
async fn realloc_that_loops_while_the_key_is_handed_over_costs_one_call() {
    let bench = Bench::new();
    let guest = spinning_realloc(ECHO);
    let plugin = bench.load_with(&guest, little_cpu).await;
    ends_at_the_cpu_budget(&plugin, "thirteen byte").await;
    let plugin = bench.load_with(&guest, little_time).await;
    ends_at_the_wall_clock(&plugin, "thirteen byte").await;
}

#[tokio::test]
async fn realloc_that_loops_while_the_host_answers_costs_one_call() {
    let bench = Bench::new();
    let guest = spinning_realloc(&format!(
        "(call $config-get (local.get $key) (local.get $len) (i32.const 256)) {ECHO}"
    ))
    .with_config();
    let plugin = bench
        .load_with(&guest, |p| {
            little_cpu(p);
            p.config.insert("k".to_owned(), "thirteen byte".to_owned());
        })
        .await;
    ends_at_the_cpu_budget(&plugin, "k").await;
}

#[tokio::test]
async fn a_post_return_function_that_loops_or_traps_costs_one_call() {
    let bench = Bench::new();
    let after = |misbehaviour: &str| {
        echo_unless_key("(global.set $after (i32.const 1))")
            .with_core("(global $after (mut i32) (i32.const 0))")
            .with_done(&format!("(if (global.get $after) (then {misbehaviour}))"))
    };
    let plugin = bench.load_with(&after(SPIN), little_cpu).await;
    ends_at_the_cpu_budget(&plugin, "k").await;
    let plugin = bench.load_with(&after(SPIN), little_time).await;
    ends_at_the_wall_clock(&plugin, "k").await;
    let plugin = bench.load(&after("unreachable")).await;
    assert!(internal(&plugin, "k").await.contains("panicked or aborted"));
    serves_on(&plugin, 1).await;
}

#[tokio::test]
async fn a_batch_that_loops_fails_its_keys_and_costs_one_instance() {
    let bench = Bench::new();
    let batching = guest(ECHO).with_batch(&format!("{SPIN} unreachable"));
    let plugin = bench.load_with(&batching, little_cpu).await;
    let results = plugin.load_many(vec![fill("a"), fill("b")]).await;
    for result in &results {
        assert!(
            matches!(result, Err(FillError::Internal(text)) if text.contains("limits.cpu")),
            "{result:?}"
        );
    }
    assert_eq!(results.len(), 2);
    serves_on(&plugin, 1).await;
}

#[tokio::test]
async fn bulk_instructions_count_as_computing() {
    let bench = Bench::new();
    let filling = echo_unless_key(
        "(loop (memory.fill (i32.const 65536) (i32.const 1) (i32.const 2000000)) (br 0))",
    )
    .pages(32);
    let plugin = bench.load_with(&filling, little_cpu).await;
    ends_at_the_cpu_budget(&plugin, "k").await;
}

#[tokio::test]
async fn sleeping_in_the_host_ends_at_the_wall_clock() {
    let bench = Bench::new();
    let plugin = bench.load_with(&echo_unless_key(SLEEP).with_clock(), little_time).await;
    ends_at_the_wall_clock(&plugin, "k").await;
}

#[tokio::test]
async fn waiting_for_the_first_of_many_ends_at_the_wall_clock() {
    let bench = Bench::new();
    // A list of three hundred handles, as many of them as there may be.
    let waiting = echo_unless_key(
        "(loop $next
           (i32.store (i32.add (i32.const 4096) (i32.mul (i32.const 4) (local.get $i)))
             (call $subscribe (i64.const -1)))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $next (i32.lt_u (local.get $i) (i32.const 300))))
         (call $poll (i32.const 4096) (i32.const 300) (i32.const 256))",
    );
    let plugin = bench.load_with(&waiting.with_clock(), little_time).await;
    ends_at_the_wall_clock(&plugin, "k").await;
}

#[tokio::test]
async fn computing_between_naps_adds_up() {
    let bench = Bench::new();
    let napping = echo_unless_key(
        "(loop $on
           (local.set $i (i32.const 1000000))
           (loop $burst (br_if $burst (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
           (local.set $handle (call $subscribe (i64.const 100000)))
           (call $block (local.get $handle))
           (call $drop-pollable (local.get $handle))
           (br $on))",
    );
    let plugin = bench
        .load_with(&napping.with_clock(), |p| {
            little_cpu(p);
            p.limits.timeout = Duration::from_secs(20);
        })
        .await;
    ends_at_the_cpu_budget(&plugin, "k").await;
}

#[tokio::test]
async fn waiting_often_is_not_computing() {
    let bench = Bench::new();
    // 60 naps of 5 ms, each as long as a tick.
    let patient = echo_unless_key(
        "(local.set $i (i32.const 60))
         (loop $on
           (local.set $handle (call $subscribe (i64.const 5000000)))
           (call $block (local.get $handle))
           (call $drop-pollable (local.get $handle))
           (br_if $on (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))",
    );
    let plugin = bench
        .load_with(&patient.with_clock(), |p| {
            p.limits.cpu = Duration::from_millis(150);
            p.limits.timeout = Duration::from_secs(20);
        })
        .await;
    assert_eq!(body(&plugin, "k").await, Ok(b"k".to_vec()));
}

/// Answers any key, so that a group has it in memory once it was asked for.
struct Anything;

impl Getter for Anything {
    fn load(&self, _fill: Fill) -> BoxFuture<'_, Result<Outcome, FillError>> {
        Box::pin(std::future::ready(Ok(Outcome::found("on"))))
    }
}

/// A host with a group `switch`, whose keys tell guests how to behave.
struct Switched {
    bench: Bench,
    switch: Arc<Group>,
    _groups: Arc<Groups>,
}

impl Switched {
    fn new() -> Self {
        let groups = Arc::new(Groups::default());
        let bench = Bench::with_groups(Arc::downgrade(&groups));
        let (fills, metrics) = (bench.host.fills().clone(), bench.metrics.group("switch"));
        let switch = Group::new("switch", Caching::default(), Arc::new(Anything), fills, metrics);
        groups.replace([Arc::clone(&switch)]);
        Self { bench, switch, _groups: groups }
    }

    /// Loads `guest` with a fresh instance for each call, so that every call begins with
    /// what a new instance does.
    async fn load(&self, guest: &Guest, settings: impl FnOnce(&mut Settings)) -> Arc<Plugin> {
        let load = self.bench.load_with(guest, |p| {
            p.cache.read = vec!["switch".to_owned()];
            p.limits.calls = 1;
            settings(p);
        });
        let plugin = load.await;
        // The instance of the trial is still there.
        assert_eq!(body(&plugin, "first").await, Ok(b"first".to_vec()));
        plugin
    }

    async fn turn_on(&self) {
        let context = Context::within(Duration::from_secs(10));
        self.switch.get(b"", &context).await.expect("turned on");
    }

    fn turn_off(&self) {
        self.switch.purge(b"");
    }
}

const IS_ON: &str = "(call $peek (i32.const 0) (i32.const 0))";

/// A plugin whose `lifecycle.init` does this once the switch is on.
fn init_if_on(misbehaviour: &str) -> Guest {
    guest(ECHO)
        .with_switch()
        .with_clock()
        .with_lifecycle(&format!("(if {IS_ON} (then {misbehaviour})) {FINE}"), FINE)
}

#[tokio::test]
async fn an_init_that_hangs_in_a_later_instance_costs_the_calls_that_need_one() {
    let host = Switched::new();
    let wall_clock: fn(&mut Settings) = little_time;
    for (misbehaviour, settings, limit) in [
        (SPIN, little_cpu as fn(&mut Settings), "limits.cpu"),
        (SPIN, wall_clock, "limits.timeout"),
        (SLEEP, wall_clock, "limits.timeout"),
        ("unreachable", wall_clock, "panicked or aborted"),
    ] {
        let plugin = host.load(&init_if_on(misbehaviour), settings).await;
        host.turn_on().await;
        for faults in 1..=3 {
            let error = body(&plugin, "k").await.expect_err("no instance").to_string();
            assert!(error.contains(limit), "{misbehaviour}: {error}");
            assert_eq!(plugin.status().faults, faults);
        }
        host.turn_off();
        serves_on(&plugin, 3).await;
    }
}

#[tokio::test]
async fn a_start_function_that_hangs_in_a_later_instance_costs_the_calls_that_need_one() {
    let host = Switched::new();
    for (misbehaviour, limit) in [(SPIN, "limits.cpu"), ("unreachable", "panicked or aborted")] {
        let starting = guest(ECHO)
            .with_switch()
            .with_core(&format!("(func $begin (if {IS_ON} (then {misbehaviour}))) (start $begin)"));
        let plugin = host.load(&starting, little_cpu).await;
        host.turn_on().await;
        let text = internal(&plugin, "k").await;
        assert!(text.contains(limit), "{text}");
        host.turn_off();
        serves_on(&plugin, 1).await;
    }
}

#[tokio::test]
async fn an_init_that_refuses_in_a_later_instance_makes_its_origin_unavailable() {
    let host = Switched::new();
    let refuse = "(i32.store8 (i32.const 256) (i32.const 1))
        (i32.store (i32.const 260) (i32.const 2048)) (i32.store (i32.const 264) (i32.const 4))
        (return (i32.const 256))";
    let plugin = host.load(&init_if_on(refuse), |_| ()).await;
    host.turn_on().await;
    match body(&plugin, "k").await {
        Err(FillError::Unavailable { message, .. }) => {
            assert!(message.contains("lifecycle.init") && message.contains("text"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    host.turn_off();
    serves_on(&plugin, 1).await;
}
