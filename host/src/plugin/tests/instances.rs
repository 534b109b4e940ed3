//! How instances are kept, replaced and shared out.

use std::time::Duration;

use super::guest::{Bench, Guest, body, fill, guest, number};
use crate::{
    group::{Fill, FillError, Getter},
    plugin::instance::Instance,
};

/// Counts the gets it has served.
fn counter() -> Guest {
    guest(
        "(global.set $count (i64.add (global.get $count) (i64.const 1)))
         (call $found-number (global.get $count))",
    )
    .with_core("(global $count (mut i64) (i64.const 0))")
}

#[tokio::test]
async fn an_instance_serves_many_calls_and_is_then_replaced() {
    let bench = Bench::new();
    let plugin = bench.load_with(&counter(), |p| p.limits.calls = 8).await;
    let mut last = 0;
    for _ in 0..5 {
        let mut count = number(&plugin, "k").await;
        while count > last {
            last = count;
            count = number(&plugin, "k").await;
        }
        assert_eq!(count, 1, "a new instance");
        assert!((6..=10).contains(&last), "8 give or take a quarter, and not {last}");
        last = count;
    }
}

#[tokio::test]
async fn a_plugin_may_ask_for_a_fresh_instance_a_call() {
    let bench = Bench::new();
    let plugin = bench.load_with(&counter(), |p| p.limits.calls = 1).await;
    for _ in 0..5 {
        assert_eq!(number(&plugin, "k").await, 1);
    }
    assert_eq!(plugin.status().memory_bytes, 0, "nothing is kept");
}

#[tokio::test]
async fn an_instance_that_has_grown_is_replaced() {
    let bench = Bench::new();
    // A megabyte a call, of four.
    let growing = guest(
        "(drop (memory.grow (i32.const 16)))
         (call $found-number (i64.extend_i32_u (memory.size)))",
    );
    let plugin = bench.load(&growing).await;
    let mut sizes = Vec::new();
    for _ in 0..4 {
        sizes.push(number(&plugin, "k").await);
    }
    // 34 pages are more than half of 64.
    assert_eq!(sizes, [18, 34, 18, 34]);
}

#[tokio::test]
async fn an_instance_that_needs_most_of_its_memory_from_the_start_is_kept() {
    let bench = Bench::new();
    let plugin = bench.load(&counter().pages(48)).await;
    assert_eq!((number(&plugin, "k").await, number(&plugin, "k").await), (1, 2));
}

#[tokio::test]
async fn idle_instances_go_but_for_one() {
    let bench = Bench::new();
    let plugin = bench
        .load_with(&guest("(call $found (local.get $key) (local.get $len))"), |p| {
            p.limits.idle = Duration::from_millis(100);
        })
        .await;
    let generation = plugin.generation();
    let pool = &generation.pool;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    for _ in 0..3 {
        let made = Instance::create(&generation, deadline).await;
        pool.give_back(made.unwrap_or_else(|error| panic!("{error:?}")));
    }
    assert_eq!(pool.len(), 4);
    while pool.len() > 1 {
        assert!(tokio::time::Instant::now() < deadline, "they are still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(pool.len(), 1);
}

/// Spins until its deadline unless the key is empty.
fn busy_unless_empty() -> Guest {
    guest("(if (local.get $len) (then (loop (br 0)))) (call $found (i32.const 0) (i32.const 0))")
}

#[tokio::test]
async fn more_callers_than_instances_wait_their_turn() {
    let bench = Bench::new();
    let plugin = bench.load_with(&counter(), |p| p.limits.instances = 2).await;
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let plugin = plugin.clone();
            tokio::spawn(async move { number(&plugin, "k").await })
        })
        .collect();
    for call in calls {
        assert!(call.await.expect("no panic") >= 1);
    }
    let status = plugin.status();
    assert!(status.instances.idle <= 2, "{status:?}");
    assert_eq!((status.calls, status.faults), (200, 0));
}

#[tokio::test]
async fn callers_beyond_the_queue_are_refused_at_once() {
    let bench = Bench::new();
    let plugin = bench
        .load_with(&busy_unless_empty(), |p| {
            p.limits.instances = 1;
            p.limits.queue = 1;
        })
        .await;
    let call = |key: &'static str| {
        let plugin = plugin.clone();
        tokio::spawn(async move { body(&plugin, key).await })
    };
    let serving = call("k");
    while plugin.status().instances.busy == 0 {
        tokio::task::yield_now().await;
    }
    let waiting = call("");
    while plugin.status().instances.waiting == 0 {
        tokio::task::yield_now().await;
    }
    match body(&plugin, "").await {
        Err(FillError::Overloaded(text)) => assert!(text.contains("limits.queue"), "{text}"),
        other => panic!("{other:?}"),
    }
    serving.abort();
    assert_eq!(waiting.await.expect("no panic"), Ok(Vec::new()));
    assert_eq!(plugin.status().instances.waiting, 0);
}

#[tokio::test]
async fn waiting_for_an_instance_counts_against_the_deadline() {
    let bench = Bench::new();
    let plugin = bench.load_with(&busy_unless_empty(), |p| p.limits.instances = 1).await;
    let serving = tokio::spawn({
        let plugin = plugin.clone();
        async move { body(&plugin, "k").await }
    });
    while plugin.status().instances.busy == 0 {
        tokio::task::yield_now().await;
    }
    let deadline = tokio::time::Instant::now() + Duration::from_millis(20);
    match plugin.load(Fill { deadline, ..fill("") }).await {
        Err(FillError::TimedOut(text)) => assert!(text.contains("limits.instances"), "{text}"),
        other => panic!("{other:?}"),
    }
    serving.abort();
}

#[tokio::test]
async fn many_instances_come_and_go_without_a_trace() {
    let bench = Bench::new();
    let plugin = bench.load_with(&counter(), |p| p.limits.calls = 1).await;
    for _ in 0..500 {
        number(&plugin, "k").await;
    }
    assert_eq!(plugin.status().memory_bytes, 0);
    let pool = bench.host.loader.engine.pooling_allocator_metrics().expect("a pool");
    assert_eq!((pool.component_instances(), pool.memories(), pool.stacks()), (0, 0, 0));
}

#[tokio::test]
async fn init_runs_once_for_each_instance_before_its_first_get() {
    let bench = Bench::new();
    let prepared = guest("(call $found-number (global.get $inits))")
        .with_core("(global $inits (mut i64) (i64.const 0))")
        .with_lifecycle(
            "(global.set $inits (i64.add (global.get $inits) (i64.const 1)))
             (i32.store (i32.const 256) (i32.const 0)) (i32.const 256)",
            "(i32.store (i32.const 256) (i32.const 0)) (i32.const 256)",
        );
    for calls in [1, 100] {
        let plugin = bench.load_with(&prepared, |p| p.limits.calls = calls).await;
        assert_eq!((number(&plugin, "k").await, number(&plugin, "k").await), (1, 1));
        assert!(plugin.status().exports.lifecycle);
    }
}

#[tokio::test]
async fn a_batch_is_one_trip() {
    let bench = Bench::new();
    // Finds for each key the number of keys in its trip.
    let batching = guest("(call $found-number (i64.const 1))").with_batch(
        "(local $at i32) (local $list i32) (local $i i32)
         (local.set $list (call $realloc (i32.const 0) (i32.const 0) (i32.const 8)
           (i32.mul (local.get $count) (i32.const 96))))
         (drop (call $found-number (i64.extend_i32_u (local.get $count))))
         (loop $next
           (memory.copy (i32.add (local.get $list) (i32.mul (local.get $i) (i32.const 96)))
             (global.get $RET) (i32.const 96))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $next (i32.lt_u (local.get $i) (local.get $count))))
         (i32.store (i32.const 256) (i32.const 0))
         (i32.store (i32.const 264) (local.get $list))
         (i32.store (i32.const 268) (local.get $count))
         (i32.const 256)",
    );
    let plugin = bench.load(&batching).await;
    assert!(plugin.batch_max() > 1 && plugin.status().exports.batch);
    let keys: [&[u8]; 4] = [b"a", b"\xff", b"b", b"c"];
    let results = plugin.load_many(keys.map(fill).to_vec()).await;
    assert_eq!(results.len(), 4);
    for (key, result) in keys.into_iter().zip(results) {
        match result {
            Ok(crate::group::Outcome::Found(value, _)) => assert_eq!(value.body()[0], 3),
            Err(FillError::InvalidKey(_)) => assert_eq!(key, b"\xff"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(plugin.status().calls, 1);
}

#[tokio::test]
async fn a_batch_with_the_wrong_number_of_answers_fails_as_a_whole() {
    let bench = Bench::new();
    let short = guest("(call $found-number (i64.const 1))").with_batch(
        "(i64.store (i32.const 256) (i64.const 0))
         (i64.store (i32.const 264) (i64.const 0)) (i32.const 256)",
    );
    let plugin = bench.load(&short).await;
    for result in plugin.load_many(vec![fill("a"), fill("b")]).await {
        match result {
            Err(FillError::Internal(text)) => assert!(text.contains("answered 0 keys"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_batch_that_fails_for_one_key_is_tried_key_by_key() {
    let bench = Bench::new();
    let failing = |case: u8| {
        guest("(call $found-number (i64.const 7))")
            .with_batch(&format!("(call $fail (i32.const {case}) (i32.const 2048) (i32.const 4))"))
    };
    let plugin = bench.load(&failing(0)).await;
    let results = plugin.load_many(vec![fill("a"), fill("b")]).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");

    let plugin = bench.load(&failing(2)).await;
    let results = plugin.load_many(vec![fill("a"), fill("b")]).await;
    let unavailable = |result: &Result<_, _>| matches!(result, Err(FillError::Unavailable { .. }));
    assert!(results.iter().all(unavailable), "an origin that is down is not asked key by key");
    assert_eq!(plugin.status().calls, 3, "one trip, repeated twice");
}

#[tokio::test]
async fn the_host_goes_without_panicking_and_calls_fail() {
    let bench = Bench::new();
    let plugin = bench.load(&counter()).await;
    bench.host.shutdown();
    assert!(plugin.load(fill("k")).await.is_err());
}

#[tokio::test]
async fn the_ticker_ends_with_its_engine() {
    let bench = Bench::new();
    let plugin = bench.load(&counter()).await;
    let engine = bench.host.loader.engine.weak();
    drop(plugin);
    drop(bench);
    // Only the ticker may still hold the engine, for a moment in each tick; the
    // runtime's threads end on their own time.
    while engine.upgrade().is_some() {
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
}
