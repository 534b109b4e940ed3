//! Guests that ask for more than there is for them: memory, tables, handles, sockets,
//! random bytes, room in the host's own memory.

use std::{fmt::Write as _, time::Duration};

use super::guest::{Bench, ECHO, body, echo_unless_key, guest, internal, number, serves_on};
use crate::{config::ByteSize, plugin::Plugin};

/// That a get fails for want of what `limit` names, and costs that one call.
async fn is_stopped_by(plugin: &Plugin, limit: &str) {
    let text = internal(plugin, "k").await;
    assert!(text.contains(limit), "{text}");
    serves_on(plugin, 1).await;
}

#[tokio::test]
async fn memory_is_refused_however_it_is_asked_for() {
    let bench = Bench::new();
    for (what, misbehaviour) in [
        ("all at once", "(br_if 0 (i32.ne (i32.const -1) (memory.grow (i32.const 65534))))"),
        ("all there may be", "(br_if 0 (i32.ne (i32.const -1) (memory.grow (i32.const -1))))"),
        ("page by page", "(loop (br_if 0 (i32.ne (i32.const -1) (memory.grow (i32.const 1)))))"),
    ] {
        let plugin = bench.load(&echo_unless_key(&format!("{misbehaviour} unreachable"))).await;
        let text = internal(&plugin, "k").await;
        assert!(text.contains("limits.memory") && text.contains("4MiB"), "{what}: {text}");
        serves_on(&plugin, 1).await;
        assert!(plugin.status().memory_bytes <= 4 << 20, "{what}");
    }
}

#[tokio::test]
async fn a_guest_that_never_stops_asking_for_memory_ends_at_its_cpu_budget() {
    let bench = Bench::new();
    let insatiable = echo_unless_key("(loop (drop (memory.grow (i32.const 1))) (br 0))");
    let plugin = bench.load_with(&insatiable, |p| p.limits.cpu = Duration::from_millis(50)).await;
    is_stopped_by(&plugin, "limits.cpu").await;
}

#[tokio::test]
async fn an_instance_that_was_refused_memory_answers_and_is_not_used_again() {
    let bench = Bench::new();
    let modest = guest(
        "(global.set $calls (i64.add (global.get $calls) (i64.const 1)))
         (drop (memory.grow (local.get $len)))
         (call $found-number (global.get $calls))",
    )
    .with_core("(global $calls (mut i64) (i64.const 0))");
    let plugin = bench.load(&modest).await;
    assert_eq!((number(&plugin, "").await, number(&plugin, "").await), (1, 2));
    assert_eq!(number(&plugin, &"k".repeat(64)).await, 3);
    assert_eq!(number(&plugin, "").await, 1);
    assert_eq!(plugin.status().faults, 0);
}

#[tokio::test]
async fn a_table_counts_as_memory() {
    let bench = Bench::new();
    let growing = echo_unless_key(
        "(loop (br_if 0 (i32.ne (i32.const -1) (table.grow $t (ref.null func) (i32.const 1000)))))
         unreachable",
    )
    .with_core("(table $t 1 funcref)");
    let plugin = bench.load_with(&growing, |p| p.limits.memory = ByteSize::kib(512)).await;
    is_stopped_by(&plugin, "limits.memory").await;
    // Beyond what a slot of the pool holds, whatever the plugin's own limit is.
    let plugin = bench.load(&growing).await;
    let text = internal(&plugin, "k").await;
    assert!(text.contains("limits.memory"), "{text}");
    serves_on(&plugin, 1).await;
}

#[tokio::test]
async fn more_tables_or_memories_than_an_instance_may_have_are_refused_at_load() {
    let bench = Bench::new();
    let many = |one: &str, count: usize| {
        let mut modules = String::new();
        for i in 0..count {
            write!(modules, "(core module $m{i} {one}) (core instance (instantiate $m{i}))")
                .expect("written");
        }
        guest(ECHO).with_component(&modules)
    };
    for guest in [
        many("(memory 1)", 4),
        many("(table 1 funcref)", 17),
        many("(table 100001 funcref)", 1),
        many("", 40),
    ] {
        let text = bench.refusal(&guest).await;
        assert!(text.contains("more than an instance may have"), "{text}");
    }
    // Together more than the limit, and each of them less.
    let text = bench.refusal(&many("(memory 30)", 3)).await;
    assert!(text.contains("limits.memory"), "{text}");
    bench.load(&many("(memory 1)", 3)).await;
}

#[tokio::test]
async fn handles_are_limited_to_the_host_and_between_components() {
    let bench = Bench::new();
    for (what, leaking) in [
        (
            "pollables",
            echo_unless_key("(loop (drop (call $subscribe (i64.const 0))) (br 0))").with_clock(),
        ),
        ("fields", echo_unless_key("(loop (drop (call $fields)) (br 0))").with_http()),
        (
            "requests",
            echo_unless_key("(loop (drop (call $request (call $fields))) (br 0))").with_http(),
        ),
        (
            "a resource of its own",
            echo_unless_key("(loop (drop (call $new (i32.const 1))) (br 0))")
                .with_component(
                    "(type $own (resource (rep i32))) (core func $new (canon resource.new $own))",
                )
                .with_host("new", "(param i32) (result i32)"),
        ),
    ] {
        let plugin = bench.load_with(&leaking, |p| p.limits.handles = 100).await;
        let text = internal(&plugin, "k").await;
        assert!(text.contains("limits.handles") && text.contains("100"), "{what}: {text}");
        serves_on(&plugin, 1).await;
    }
}

#[tokio::test]
async fn a_guest_may_send_more_requests_than_it_may_have_handles() {
    let bench = Bench::new();
    let sending = guest(
        "(global.set $calls (i64.add (global.get $calls) (i64.const 1)))
         (call $send-nowhere (i32.const 256))
         (if (i32.eqz (i32.load8_u (i32.const 256))) (then unreachable))
         (call $found-number (global.get $calls))",
    )
    .with_sending()
    .with_core("(global $calls (mut i64) (i64.const 0))");
    let plugin = bench
        .load_with(&sending, |p| {
            p.limits.handles = 20;
            p.limits.calls = 1_000;
        })
        .await;
    for call in 1..=100 {
        assert_eq!(number(&plugin, "k").await, call, "by the same instance");
    }
}

#[tokio::test]
async fn handles_that_are_leaked_call_by_call_end_with_their_instance() {
    let bench = Bench::new();
    let leaking = echo_unless_key("(drop (call $subscribe (i64.const 0)))").with_clock();
    let plugin = bench
        .load_with(&leaking, |p| {
            p.limits.handles = 20;
            p.limits.calls = 1_000;
        })
        .await;
    for _ in 0..100 {
        assert_eq!(body(&plugin, "k").await, Ok(b"k".to_vec()));
    }
    assert_eq!(plugin.status().faults, 0);
}

#[tokio::test]
async fn random_bytes_are_given_in_portions() {
    let bench = Bench::new();
    let all_at_once = echo_unless_key("(call $random (i64.const 0x40000000) (i32.const 256))");
    let plugin = bench.load(&all_at_once.with_random()).await;
    is_stopped_by(&plugin, "exceeds limit").await;

    // A gigabyte in portions; each lands where the one before was.
    let in_portions = echo_unless_key(
        "(local.set $i (i32.const 16384))
         (loop $on
           (call $random (i64.const 65536) (i32.const 256))
           (call $reset)
           (br_if $on (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))",
    );
    let plugin = bench
        .load_with(&in_portions.with_random(), |p| p.limits.cpu = Duration::from_millis(100))
        .await;
    is_stopped_by(&plugin, "limits.cpu").await;
    assert!(plugin.status().memory_bytes <= 4 << 20);
}

#[tokio::test]
async fn names_without_a_grant_are_not_looked_up_however_often_one_asks() {
    let bench = Bench::new();
    // Finds how many lookups there were.
    let asking = guest(
        "(local $i i32) (local $got i64) (local $net i32)
         (local.set $net (call $network))
         (local.set $i (i32.const 10000))
         (loop $on
           (call $look-up (local.get $net) (local.get $key) (local.get $len) (i32.const 256))
           (if (i32.eqz (i32.load8_u (i32.const 256)))
             (then (local.set $got (i64.add (local.get $got) (i64.const 1)))))
           (br_if $on (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
         (call $found-number (local.get $got))",
    )
    .with_sockets();
    let plugin = bench
        .load_with(&asking, |p| {
            p.network.tcp = vec!["granted.example:1".to_owned()];
            p.limits.cpu = Duration::from_secs(20);
            p.limits.timeout = Duration::from_secs(20);
        })
        .await;
    for name in ["localhost", "other.example", "metadata.google.internal", "granted.example.evil"] {
        assert_eq!(number(&plugin, name).await, 0, "{name}");
    }
}
