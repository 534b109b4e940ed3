//! What one instance, call or plugin leaves behind for the next: nothing.

use std::{fs, ops::Range, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::guest::{Bench, ECHO, Guest, body, fill, guest, internal, number};
use crate::{
    config::{ByteSize, Caching, Plugin as Settings},
    group::{Context, Fill, FillError, Getter, Group},
    plugin::{Plugin, instance::Instance},
};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Counts the gets it has served. A key of one byte traps, one of two spins.
fn counter() -> Guest {
    guest(
        "(if (i32.eq (local.get $len) (i32.const 1)) (then unreachable))
         (if (i32.eq (local.get $len) (i32.const 2)) (then (loop (br 0))))
         (global.set $count (i64.add (global.get $count) (i64.const 1)))
         (call $found-number (global.get $count))",
    )
    .with_core("(global $count (mut i64) (i64.const 0))")
}

/// Has so many instances of `plugin` wait for a call.
async fn warm(plugin: &Plugin, instances: usize) {
    let generation = plugin.generation();
    while generation.pool.len() < instances {
        let made = Instance::create(&generation, Instant::now() + PATIENCE).await;
        generation.pool.give_back(made.unwrap_or_else(|error| panic!("{error:?}")));
    }
}

#[tokio::test]
async fn a_trap_and_a_timeout_cost_one_instance_each_and_no_other() {
    let bench = Bench::new();
    let plugin = bench
        .load_with(&counter(), |p| {
            p.limits.timeout = Duration::from_millis(200);
            p.limits.calls = 1_000;
        })
        .await;
    // Three instances that have served a call each: the calls are in them at once.
    let generation = plugin.generation();
    warm(&plugin, 3).await;
    let deadline = Instant::now() + PATIENCE;
    let mut taken: Vec<_> = std::iter::from_fn(|| generation.pool.take()).collect();
    for instance in &mut taken {
        let fill = fill("");
        let context = crate::plugin::imports::CallContext::of_one(&fill, deadline);
        instance.get("", context, deadline).await.expect("served").expect("found");
    }
    for instance in taken {
        generation.pool.give_back(instance);
    }

    assert!(internal(&plugin, "1").await.contains("panicked"));
    assert_eq!(generation.pool.len(), 2);
    assert!(matches!(body(&plugin, "22").await, Err(FillError::TimedOut(_))));
    assert_eq!(generation.pool.len(), 1);
    // The one that is left goes on counting, and the next begins anew.
    assert_eq!((number(&plugin, "").await, number(&plugin, "").await), (2, 3));
    assert!(internal(&plugin, "1").await.contains("panicked"));
    assert_eq!((number(&plugin, "").await, number(&plugin, "").await), (1, 2));
    assert_eq!(plugin.status().faults, 3);
}

/// Fills all memory that it can get with a secret, and then returns, traps or spins, by
/// the length of the key; for the empty key it finds how many words of its memory are
/// not zero, where a new instance has nothing but zeros.
fn keeper() -> Guest {
    guest(
        "(local $at i32) (local $end i32) (local $seen i64)
         (drop (memory.grow (i32.sub (i32.const 60) (memory.size))))
         (local.set $end (i32.mul (memory.size) (i32.const 65536)))
         (if (local.get $len) (then
           (memory.fill (i32.const 65536) (i32.const 0xa5)
             (i32.sub (local.get $end) (i32.const 65536)))
           (if (i32.eq (local.get $len) (i32.const 2)) (then unreachable))
           (if (i32.eq (local.get $len) (i32.const 3)) (then (loop (br 0))))
           (return (call $found-number (i64.const 0)))))
         (local.set $at (i32.const 65536))
         (loop $next
           (if (i64.ne (i64.load (local.get $at)) (i64.const 0))
             (then (local.set $seen (i64.add (local.get $seen) (i64.const 1)))))
           (local.set $at (i32.add (local.get $at) (i32.const 8)))
           (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
         (call $found-number (local.get $seen))",
    )
}

#[tokio::test]
async fn nothing_of_one_instances_memory_is_seen_by_another() {
    let bench = Bench::new();
    let fresh = |calls: u32| {
        move |p: &mut Settings| {
            p.limits.calls = calls;
            p.limits.timeout = Duration::from_millis(500);
        }
    };
    let plugin = bench.load_with(&keeper(), fresh(1)).await;
    let other = bench.load_with(&keeper().with_core("(global i32 (i32.const 0))"), fresh(1)).await;
    for round in 0..5 {
        for how_it_ends in ["1", "22", "333"] {
            let ended = plugin.load(fill(how_it_ends)).await;
            assert_eq!(ended.is_ok(), how_it_ends == "1", "{ended:?}");
            assert_eq!(number(&plugin, "").await, 0, "round {round}, after {how_it_ends}");
            assert_eq!(number(&other, "").await, 0, "round {round}, after {how_it_ends}");
        }
    }
    // That the guest finds what there is: within one instance, it is still there.
    let plugin = bench.load_with(&keeper(), |p| p.limits.memory = ByteSize::mib(64)).await;
    assert_eq!(number(&plugin, "1").await, 0);
    assert_eq!(number(&plugin, "").await, 59 * 65_536 / 8);
}

#[tokio::test]
async fn a_plugin_that_is_let_go_takes_its_instances_and_its_code_along() {
    let bench = Bench::new();
    let plugin = bench.load(&counter()).await;
    warm(&plugin, 3).await;
    let engine = &bench.host.loader.engine;
    let memories = || engine.pooling_allocator_metrics().expect("a pool").memories();
    assert_eq!(memories(), 3);
    let generation = plugin.generation();
    let image = generation.component.image_range();
    let image = image.start.addr()..image.end.addr();
    assert!(has_code(&image));
    let generation = {
        let weak = Arc::downgrade(&generation);
        drop(generation);
        weak
    };
    drop(plugin);
    until("the generation is gone", || generation.strong_count() == 0).await;
    assert_eq!(memories(), 0);
    // Other tests map their code too, perhaps in the same place, and unmap it again.
    until("the code is gone", || !has_code(&image)).await;
}

/// Whether code of this process lies in `range`.
fn has_code(range: &Range<usize>) -> bool {
    let maps = fs::read_to_string("/proc/self/maps").expect("the mappings");
    maps.lines().any(|line| {
        let mut fields = line.split(' ');
        let ends = fields.next().and_then(|ends| ends.split_once('-'));
        let address = |text: &str| usize::from_str_radix(text, 16).expect("an address");
        let overlaps = |(start, end)| address(start) < range.end && range.start < address(end);
        ends.is_some_and(overlaps) && fields.next().is_some_and(|flags| flags.contains('x'))
    })
}

#[tokio::test]
async fn a_caller_that_leaves_takes_nobody_along() {
    let bench = Bench::new();
    let plugin = bench
        .load_with(&guest(&format!("(if (local.get $len) (then (loop (br 0)))) {ECHO}")), |p| {
            p.limits.timeout = Duration::from_millis(300);
        })
        .await;
    let getter: Arc<dyn Getter> = plugin.clone();
    let (fills, metrics) = (bench.host.fills().clone(), bench.metrics.group("g"));
    let group = Group::new("g", Caching::default(), getter, fills, metrics);
    let ask = || {
        let group = Arc::clone(&group);
        tokio::spawn(async move { group.get(b"k", &Context::within(PATIENCE)).await })
    };
    let (leaving, staying) = (ask(), ask());
    until("the guest runs", || plugin.status().instances.busy == 1).await;
    leaving.abort();
    assert!(leaving.await.is_err());
    assert_eq!(plugin.status().instances.busy, 1, "the fill belongs to nobody");
    // It ends by its own deadline, and the other caller is told.
    let error = staying.await.expect("no panic").expect_err("timed out").to_string();
    assert!(error.contains("limits.timeout"), "{error}");
    assert_eq!(plugin.status().calls, 1, "one fill for both");
}

#[tokio::test]
async fn two_hundred_callers_leave_nothing_behind_in_the_pool() {
    let bench = Bench::new();
    let plugin = bench
        .load_with(&counter(), |p| {
            p.limits.timeout = Duration::from_secs(10);
            p.limits.cpu = Duration::from_millis(20);
            p.limits.calls = 3;
        })
        .await;
    let calls: Vec<_> = (0..200)
        .map(|i| {
            let plugin = plugin.clone();
            let key = ["", "1", "", "22", "abandoned"][i % 5];
            let call = async move {
                let patience = if key == "abandoned" { Duration::from_millis(1) } else { PATIENCE };
                plugin.load(Fill { deadline: Instant::now() + patience, ..fill(key) }).await
            };
            tokio::spawn(call)
        })
        .collect();
    for (i, call) in calls.into_iter().enumerate() {
        let result = call.await.expect("no panic");
        match i % 5 {
            0 | 2 => assert!(result.is_ok(), "{result:?}"),
            1 | 3 => assert!(result.is_err(), "{result:?}"),
            // In time or not.
            _ => {}
        }
    }
    let status = plugin.status();
    assert_eq!((status.instances.busy, status.instances.waiting), (0, 0));
    assert!(status.instances.idle <= 4, "{status:?}");
    drop(plugin);
    let pool = bench.host.loader.engine.pooling_allocator_metrics().expect("a pool");
    until("every slot is free", || {
        (pool.component_instances(), pool.core_instances()) == (0, 0)
            && (pool.memories(), pool.tables(), pool.stacks()) == (0, 0, 0)
    })
    .await;
    let text = bench.metrics.encode();
    for state in ["busy", "idle"] {
        let line = format!(r#"cachecluster_plugin_instances{{plugin="p",state="{state}"}} 0"#);
        assert!(text.contains(&line), "{text}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn guests_run_after_those_who_are_served_from_memory() {
    let niceness = || rustix::process::getpriority_process(None).expect("a priority");
    let bench = Bench::new();
    let theirs = bench.host.fills().spawn(async move { niceness() }).await.expect("no panic");
    assert_eq!(theirs, (niceness() + 5).min(19));
}
