//! What a call can end in, and what becomes of the calls after it.

use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use super::guest::{Bench, ECHO, body, echo_unless_key, fill, guest, internal, number, serves_on};
use crate::{
    config::ByteSize,
    group::{Fill, FillError, Getter, Outcome, Reason},
    value::Freshness,
};

#[tokio::test]
async fn a_plugin_finds_values() {
    let bench = Bench::new();
    let plugin = bench.load(&guest(ECHO)).await;
    for key in ["a", "", "ключ", &"x".repeat(10_000)] {
        assert_eq!(body(&plugin, key).await, Ok(key.as_bytes().to_vec()));
    }
    let status = plugin.status();
    assert_eq!((status.calls, status.faults, status.instances.idle), (4, 0, 1));
    assert!(status.memory_bytes > 0 && status.last_error.is_none());
}

#[tokio::test]
async fn a_call_on_the_hosts_own_threads_stays_there() {
    let bench = Bench::new();
    let plugin = bench.load(&guest(ECHO)).await;
    let call = bench.host.fills().spawn(async move { body(&plugin, "k").await });
    assert_eq!(call.await.expect("no panic"), Ok(b"k".to_vec()));
}

#[tokio::test]
async fn labels_and_freshness_arrive() {
    let bench = Bench::new();
    let labelled = guest(&format!(
        "{ECHO} drop
         (i64.store8 offset=24 (global.get $RET) (i64.const 1))
         (i64.store offset=32 (global.get $RET) (i64.const 5000000000))
         (i64.store8 offset=40 (global.get $RET) (i64.const 1))
         (i64.store offset=48 (global.get $RET) (i64.const -1))
         (i32.store8 offset=68 (global.get $RET) (i32.const 1))
         (i32.store offset=72 (global.get $RET) (i32.const 2048))
         (i32.store offset=76 (global.get $RET) (i32.const 10))
         (global.get $RET)"
    ));
    let plugin = bench.load(&labelled).await;
    match plugin.load(fill("k")).await {
        Ok(Outcome::Found(value, freshness)) => {
            assert_eq!(value.content_type().map(HeaderValue::as_bytes), Some(&b"text/plain"[..]));
            assert_eq!(freshness.ttl, Some(Duration::from_secs(5)));
            assert_eq!(freshness.grace, Some(Duration::from_nanos(u64::MAX)));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_plugin_says_that_there_is_no_such_key() {
    let bench = Bench::new();
    let absent = guest(
        "(call $clear)
         (i32.store8 offset=8 (global.get $RET) (i32.const 1))
         (i32.store8 offset=16 (global.get $RET) (i32.const 1))
         (i64.store offset=24 (global.get $RET) (i64.const 1000000))
         (global.get $RET)",
    );
    let plugin = bench.load(&absent).await;
    match plugin.load(fill("k")).await {
        Ok(Outcome::NotFound(freshness)) => {
            assert_eq!(freshness, Freshness::ttl(Duration::from_millis(1)));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_plugins_own_errors_cost_no_instance() {
    let bench = Bench::new();
    // The case of the error is the length of the key.
    let failing = guest("(call $fail (local.get $len) (i32.const 2048) (i32.const 4))").pages(2);
    let plugin = bench.load(&failing).await;
    let text = || "text".to_owned();
    let errors = [
        ("", FillError::InvalidKey(text())),
        ("1", FillError::Denied(text())),
        ("22", FillError::Unavailable { message: text(), retry_after: None }),
        ("4444", FillError::Internal(text())),
    ];
    for (key, error) in errors {
        assert_eq!(body(&plugin, key).await, Err(error));
    }
    assert!(matches!(body(&plugin, "333").await, Err(FillError::TimedOut(_))));
    let status = plugin.status();
    assert_eq!((status.faults, status.instances.idle), (0, 1));
}

#[tokio::test]
async fn the_context_tells_what_the_call_is_about() {
    let bench = Bench::new();
    let plugin = bench
        .load(&guest(
            "(call $found-number (i64.extend_i32_u (i32.add
               (i32.mul (i32.const 10) (call $attempt (global.get $context)))
               (call $reason (global.get $context)))))",
        ))
        .await;
    let refresh = Fill { attempt: 3, reason: Reason::Refresh, ..fill("k") };
    match plugin.load(refresh).await {
        Ok(Outcome::Found(value, _)) => assert_eq!(value.body()[0], 31),
        other => panic!("{other:?}"),
    }

    let remaining =
        bench.load(&guest("(call $found-number (call $remaining (global.get $context)))")).await;
    let nanos = number(&remaining, "k").await;
    assert!((1..=5_000_000_000).contains(&nanos), "the plugin's own timeout is the shorter");
}

#[tokio::test]
async fn keys_that_are_not_text_are_refused() {
    let bench = Bench::new();
    let plugin = bench.load(&guest(ECHO)).await;
    match plugin.load(fill(b"\xff\xfe")).await {
        Err(FillError::InvalidKey(text)) => assert!(text.contains("UTF-8"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_trap_costs_one_call() {
    let bench = Bench::new();
    let plugin = bench.load(&echo_unless_key("unreachable")).await;
    let text = internal(&plugin, "k").await;
    assert!(text.contains("panicked or aborted"), "{text}");
    serves_on(&plugin, 1).await;
}

#[tokio::test]
async fn deep_recursion_costs_one_call() {
    let bench = Bench::new();
    let recursion = echo_unless_key("(call $deeper)").with_core("(func $deeper (call $deeper))");
    let plugin = bench.load(&recursion).await;
    let text = internal(&plugin, "k").await;
    assert!(text.contains("call stack"), "{text}");
    serves_on(&plugin, 1).await;
}

#[tokio::test]
async fn a_loop_ends_at_the_wall_clock() {
    let bench = Bench::new();
    let endless = echo_unless_key("(loop (br 0))");
    let plugin = bench.load_with(&endless, |p| p.limits.timeout = Duration::from_millis(100)).await;
    let began = Instant::now();
    match body(&plugin, "k").await {
        Err(FillError::TimedOut(text)) => assert!(text.contains("limits.timeout"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    serves_on(&plugin, 1).await;
}

#[tokio::test]
async fn a_loop_ends_at_the_fills_own_deadline() {
    let bench = Bench::new();
    let plugin = bench.load(&guest("(loop (br 0)) unreachable")).await;
    let hasty = Fill { deadline: Instant::now() + Duration::from_millis(100), ..fill("k") };
    assert!(matches!(plugin.load(hasty).await, Err(FillError::TimedOut(_))));
}

#[tokio::test]
async fn a_loop_ends_at_the_cpu_budget() {
    let bench = Bench::new();
    let endless = echo_unless_key("(loop (br 0))");
    let plugin = bench
        .load_with(&endless, |p| {
            p.limits.timeout = Duration::from_secs(20);
            p.limits.cpu = Duration::from_millis(50);
        })
        .await;
    let text = internal(&plugin, "k").await;
    assert!(text.contains("limits.cpu"), "{text}");
    serves_on(&plugin, 1).await;
}

#[tokio::test]
async fn a_guest_that_spins_leaves_its_neighbours_running() {
    let bench = Bench::new();
    // As many of them as the host has threads.
    let plugin = bench.load(&echo_unless_key("(loop (br 0))")).await;
    let spinning: Vec<_> = (0..2)
        .map(|_| {
            let plugin = plugin.clone();
            tokio::spawn(async move { body(&plugin, "k").await })
        })
        .collect();
    while plugin.status().instances.busy < 2 {
        tokio::task::yield_now().await;
    }
    for _ in 0..10 {
        assert_eq!(body(&plugin, "").await, Ok(Vec::new()));
    }
    spinning.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn an_abandoned_call_frees_its_place() {
    let bench = Bench::new();
    let plugin =
        bench.load_with(&echo_unless_key("(loop (br 0))"), |p| p.limits.instances = 1).await;
    let call = tokio::spawn({
        let plugin = plugin.clone();
        async move { body(&plugin, "k").await }
    });
    while plugin.status().instances.busy == 0 {
        tokio::task::yield_now().await;
    }
    call.abort();
    assert_eq!(body(&plugin, "").await, Ok(Vec::new()));
}

#[tokio::test]
async fn memory_is_limited_for_the_whole_instance() {
    let bench = Bench::new();
    // Grows by 1 MiB at a time until it is refused, and then aborts.
    let hungry = echo_unless_key(
        "(loop (br_if 0 (i32.ne (i32.const -1) (memory.grow (i32.const 16))))) unreachable",
    );
    let plugin = bench.load(&hungry).await;
    let text = internal(&plugin, "k").await;
    assert!(text.contains("limits.memory") && text.contains("4MiB"), "{text}");
    serves_on(&plugin, 1).await;
    assert!(plugin.status().memory_bytes <= 4 << 20);
}

#[tokio::test]
async fn a_value_may_be_as_large_as_the_limit_and_no_larger() {
    let bench = Bench::new();
    // As many zeros as the key says, in units of 4,096 bytes and one byte less.
    let zeros = guest(
        "(call $found (i32.const 65536) (i32.sub (i32.mul (local.get $len) (i32.const 4096))
           (i32.eq (i32.const 49) (i32.load8_u (local.get $key)))))",
    )
    .pages(40);
    let plugin = bench.load_with(&zeros, |p| p.limits.value = ByteSize::bytes(8_191)).await;
    assert_eq!(body(&plugin, "11").await.map(|body| body.len()), Ok(8_191));
    let text = internal(&plugin, "22").await;
    assert!(text.contains("8192 bytes") && text.contains("limits.value"), "{text}");
    // So large that it is not even copied out of the guest.
    let text = internal(&plugin, &"2".repeat(300)).await;
    assert!(text.contains("limits.value"), "{text}");
    assert_eq!(body(&plugin, "1").await.map(|body| body.len()), Ok(4_095));
}

#[tokio::test]
async fn an_answer_that_breaks_the_contract_costs_one_call() {
    let bench = Bench::new();
    for (what, misbehaviour) in [
        (
            "text that is not UTF-8",
            "(i32.store8 (i32.const 2048) (i32.const 255))
           (return (call $fail (i32.const 4) (i32.const 2048) (i32.const 4)))",
        ),
        ("a list outside memory", "(return (call $found (i32.const -16) (i32.const 64)))"),
        ("no such case", "(return (call $fail (i32.const 99) (i32.const 0) (i32.const 0)))"),
        ("an answer outside memory", "(return (i32.const -96))"),
        ("an unaligned answer", "(return (i32.const 1025))"),
    ] {
        let plugin = bench.load(&echo_unless_key(misbehaviour)).await;
        let text = internal(&plugin, "k").await;
        assert!(text.starts_with("the plugin failed"), "{what}: {text}");
        serves_on(&plugin, 1).await;
    }
}

#[tokio::test]
async fn a_content_type_that_is_no_header_is_the_plugins_fault() {
    let bench = Bench::new();
    let illegal = echo_unless_key(
        "(i32.store8 (i32.const 2050) (i32.const 10))
         (drop (call $found (local.get $key) (local.get $len)))
         (i32.store8 offset=68 (global.get $RET) (i32.const 1))
         (i32.store offset=72 (global.get $RET) (i32.const 2048))
         (i32.store offset=76 (global.get $RET) (i32.const 10))
         (return (global.get $RET))",
    );
    let plugin = bench.load(&illegal).await;
    let text = internal(&plugin, "k").await;
    assert!(text.contains("content-type") && !text.contains('\n'), "{text}");
}

#[tokio::test]
async fn exit_is_the_plugins_fault() {
    let bench = Bench::new();
    for (status, said) in [("0", "exit(0)"), ("1", "exit(1)")] {
        let leaving = echo_unless_key(&format!("(call $exit (i32.const {status}))")).with_exit();
        let plugin = bench.load(&leaving).await;
        let text = internal(&plugin, "k").await;
        assert!(text.contains(said), "{text}");
        serves_on(&plugin, 1).await;
    }
}

#[tokio::test]
async fn a_guest_that_leaks_handles_is_stopped() {
    let bench = Bench::new();
    let leaking = echo_unless_key("(loop (drop (call $get-stdout)) (br 0))").with_stdio();
    let plugin = bench.load_with(&leaking, |p| p.limits.handles = 100).await;
    let text = internal(&plugin, "k").await;
    assert!(text.contains("limits.handles"), "{text}");
    serves_on(&plugin, 1).await;
}

#[tokio::test]
async fn calls_are_counted_by_how_they_ended() {
    let bench = Bench::new();
    let plugin = bench.load(&echo_unless_key("unreachable")).await;
    let (ok, trap) = (body(&plugin, "").await, body(&plugin, "k").await);
    assert!(ok.is_ok() && trap.is_err());
    let text = bench.metrics.encode();
    for line in [
        r#"cachecluster_plugin_calls_total{plugin="p",outcome="ok"} 1"#,
        r#"cachecluster_plugin_calls_total{plugin="p",outcome="trap"} 1"#,
        r#"cachecluster_plugin_instances{plugin="p",state="busy"} 0"#,
        r#"cachecluster_plugin_instances{plugin="p",state="idle"} 0"#,
        r#"cachecluster_plugin_call_duration_seconds_count{plugin="p"} 2"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
