//! What becomes of calls that fail, and of a plugin that keeps failing.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::guest::{Bench, Guest, body, fill, guest, number};
use crate::{
    config::Failure,
    group::{Fill, FillError, Getter, Outcome},
    plugin::{Plugin, Trigger, imports::CallContext, instance::Instance},
};

const MS: Duration = Duration::from_millis(1);

/// Behaves as the first byte of its key says: `u` unavailable, `o` out of time, `x`
/// internal, `d` denied, `i` invalid, `n` not found, `t` trap, `s` computes for ever.
/// Any other key is its own value.
fn moody() -> Guest {
    let case = |byte: char, then: &str| {
        format!("(if (i32.eq (local.get $mood) (i32.const {})) (then {then}))", u32::from(byte))
    };
    let error = |byte, case_number| {
        let fail = format!(
            "(return (call $fail (i32.const {case_number}) (i32.const 2048) (i32.const 4)))"
        );
        case(byte, &fail)
    };
    let cases = [
        error('i', 0),
        error('d', 1),
        error('u', 2),
        error('o', 3),
        error('x', 4),
        case(
            'n',
            "(call $clear) (i32.store8 offset=8 (global.get $RET) (i32.const 1))
             (return (global.get $RET))",
        ),
        case('t', "unreachable"),
        case('s', "(loop (br 0))"),
    ];
    guest(&format!(
        "(local $mood i32)
         (if (local.get $len) (then (local.set $mood (i32.load8_u (local.get $key)))))
         {}
         (call $found (local.get $key) (local.get $len))",
        cases.concat()
    ))
}

/// Quick, so that tests need not wait, and without retries.
fn brisk() -> Failure {
    Failure { open: 50 * MS, open_max: 200 * MS, retries: 0, ..Failure::default() }
}

async fn load(bench: &Bench, guest: &Guest, failure: Failure) -> Arc<Plugin> {
    bench.load_with(guest, |p| p.failure = failure).await
}

/// The state of the plugin's breaker.
fn breaker(plugin: &Plugin) -> &'static str {
    plugin.status().health.breaker.state
}

/// The message and the hint of a call that was not made.
async fn refused(plugin: &Plugin, key: &str) -> (String, Duration) {
    match body(plugin, key).await {
        Err(FillError::NotAsked { message, retry_after }) => (message, retry_after),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_plugin_that_keeps_failing_is_left_alone_and_then_tried_again() {
    let bench = Bench::new();
    let failure =
        Failure { open: Duration::from_mins(1), open_max: Duration::from_mins(1), ..brisk() };
    let plugin = load(&bench, &moody(), failure).await;
    for key in ["u1", "o2", "x3", "u4", "t5"] {
        assert_eq!(breaker(&plugin), "closed", "before {key}");
        assert!(body(&plugin, key).await.is_err());
    }
    let calls = plugin.status().calls;
    let (message, retry_after) = refused(&plugin, "fine").await;
    assert!(message.contains("plugins.p.failure") && message.contains("aborted"), "{message}");
    assert!(retry_after > Duration::from_secs(40) && retry_after <= Duration::from_mins(1));
    let status = plugin.status();
    assert_eq!(status.health.breaker.state, "open");
    assert!(status.health.breaker.retry_in_seconds.is_some_and(|it| it > 40.0));
    assert_eq!((status.calls, status.instances.busy), (calls + 1, 0));
    let refusal = plugin.refusal("g", b"fine");
    assert!(matches!(refusal, Some(FillError::NotAsked { .. })), "told before a fill is set off");
    let text = bench.metrics.encode();
    for line in [
        r#"cachecluster_plugin_breaker_state{plugin="p",state="open"} 1"#,
        r#"cachecluster_plugin_breaker_state{plugin="p",state="closed"} 0"#,
        r#"cachecluster_plugin_breaker_openings_total{plugin="p"} 1"#,
        r#"cachecluster_plugin_refusals_total{plugin="p",reason="breaker"} 2"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn once_it_answers_again_every_key_is_asked_for_at_once() {
    let bench = Bench::new();
    let plugin = load(&bench, &moody(), brisk()).await;
    for key in 0..5 {
        assert!(body(&plugin, &format!("u{key}")).await.is_err());
    }
    assert_eq!(breaker(&plugin), "open");
    // The first one that gets through closes it.
    let patience = Instant::now() + Duration::from_secs(10);
    while body(&plugin, "fine").await.is_err() {
        assert!(Instant::now() < patience, "{:?}", plugin.status());
        tokio::time::sleep(5 * MS).await;
    }
    assert_eq!(breaker(&plugin), "closed");
    for key in 0..20 {
        assert!(body(&plugin, &format!("key{key}")).await.is_ok());
    }
    assert!(
        bench
            .metrics
            .encode()
            .contains(r#"cachecluster_plugin_breaker_state{plugin="p",state="closed"} 1"#)
    );
}

#[tokio::test]
async fn a_plugin_that_answers_is_healthy_whatever_it_says() {
    let bench = Bench::new();
    let plugin = load(&bench, &moody(), brisk()).await;
    for round in 0..10 {
        for mood in ["i", "d", "n"] {
            plugin.load(fill(format!("{mood}{round}"))).await.ok();
        }
        assert!(matches!(plugin.load(fill(b"\xff")).await, Err(FillError::InvalidKey(_))));
    }
    let health = plugin.status().health;
    assert_eq!((health.breaker.state, health.breaker.faults), ("closed", 0));
    assert_eq!(health.breaker.calls, 30);
}

#[tokio::test]
async fn what_the_node_refuses_is_not_the_plugins_fault() {
    let bench = Bench::new();
    let plugin = bench
        .load_with(&moody(), |p| {
            p.failure = brisk();
            p.limits.instances = 1;
            p.limits.queue = 0;
        })
        .await;
    let serving = tokio::spawn({
        let plugin = plugin.clone();
        async move { body(&plugin, "s").await }
    });
    while plugin.status().instances.busy == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        assert!(matches!(body(&plugin, "k").await, Err(FillError::Overloaded(_))));
    }
    serving.abort();
    let health = plugin.status().health;
    assert_eq!((health.breaker.state, health.breaker.calls), ("closed", 0));
}

#[tokio::test]
async fn a_call_that_outlasts_its_time_is_a_fault_and_one_that_is_called_off_is_none() {
    let bench = Bench::new();
    let plugin = load(&bench, &moody(), brisk()).await;
    let hasty = Fill { deadline: Instant::now() + 50 * MS, ..fill("s") };
    assert!(matches!(plugin.load(hasty).await, Err(FillError::TimedOut(_))));
    assert_eq!(plugin.status().health.breaker.faults, 1);

    let call = tokio::spawn({
        let plugin = plugin.clone();
        async move { body(&plugin, "s").await }
    });
    while plugin.status().instances.busy == 0 {
        tokio::task::yield_now().await;
    }
    call.abort();
    while plugin.status().instances.busy > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(plugin.status().health.breaker.faults, 1);
}

/// Is not available before its third try, and then finds the number of the try.
fn shy() -> Guest {
    guest(
        "(if (i32.lt_u (call $attempt (global.get $context)) (i32.const 3))
           (then (return (call $fail (i32.const 2) (i32.const 2048) (i32.const 4)))))
         (call $found-number (i64.extend_i32_u (call $attempt (global.get $context))))",
    )
}

#[tokio::test]
async fn an_origin_that_is_not_available_is_tried_again_within_the_fill() {
    let bench = Bench::new();
    let plugin = load(&bench, &shy(), Failure { backoff: MS, ..Failure::default() }).await;
    assert_eq!(number(&plugin, "k").await, 3);
    let status = plugin.status();
    assert_eq!((status.calls, status.health.retries), (3, 2));
    let breaker = status.health.breaker;
    assert_eq!((breaker.calls, breaker.faults), (2, 1), "its retries tell nothing new");

    let plugin =
        load(&bench, &shy(), Failure { backoff: MS, retries: 1, ..Failure::default() }).await;
    assert!(matches!(body(&plugin, "k").await, Err(FillError::Unavailable { .. })));
    assert_eq!(plugin.status().calls, 2);
}

#[tokio::test]
async fn a_retry_that_would_come_too_late_is_not_waited_for() {
    let bench = Bench::new();
    // Asks for an hour.
    let patient = guest(
        "(drop (call $fail (i32.const 2) (i32.const 2048) (i32.const 4)))
         (i32.store8 offset=24 (global.get $RET) (i32.const 1))
         (i64.store offset=32 (global.get $RET) (i64.const 3600000000000))
         (global.get $RET)",
    );
    let plugin = load(&bench, &patient, Failure::default()).await;
    let began = Instant::now();
    match body(&plugin, "k").await {
        Err(FillError::Unavailable { retry_after, .. }) => {
            assert_eq!(retry_after, Some(Duration::from_hours(1)));
        }
        other => panic!("{other:?}"),
    }
    assert!(began.elapsed() < Duration::from_secs(10), "it ends well before its deadline");
    assert_eq!(plugin.status().calls, 1);
}

#[tokio::test]
async fn a_fill_that_waits_for_its_retry_is_in_nobodys_way() {
    let bench = Bench::new();
    let plugin = bench
        .load_with(&moody(), |p| {
            p.failure.backoff = Duration::from_secs(10);
            p.failure.backoff_max = Duration::from_secs(10);
            p.limits.instances = 1;
        })
        .await;
    let waiting = tokio::spawn({
        let plugin = plugin.clone();
        async move { body(&plugin, "u").await }
    });
    while plugin.status().calls == 0 || plugin.status().instances.busy > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(body(&plugin, "k").await, Ok(b"k".to_vec()));
    assert!(!waiting.is_finished());
    waiting.abort();
}

#[tokio::test]
async fn a_trap_is_tried_again_only_where_that_is_wanted_and_in_a_fresh_instance() {
    let bench = Bench::new();
    // Traps in its second call.
    let tired = guest(
        "(global.set $count (i64.add (global.get $count) (i64.const 1)))
         (if (i64.gt_u (global.get $count) (i64.const 1)) (then unreachable))
         (call $found-number (i64.extend_i32_u (call $attempt (global.get $context))))",
    )
    .with_core("(global $count (mut i64) (i64.const 0))");
    let plugin = load(&bench, &tired, Failure::default()).await;
    assert_eq!(number(&plugin, "a").await, 1);
    assert!(matches!(body(&plugin, "b").await, Err(FillError::Internal(_))));

    let plugin = load(&bench, &tired, Failure { trap_retries: 1, ..Failure::default() }).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    let generation = plugin.generation();
    let mut other = Instance::create(&generation, deadline).await.expect("an instance");
    let context = CallContext::of_one(&fill("a"), deadline);
    assert!(other.get("a", context, deadline).await.is_ok());
    assert_eq!(number(&plugin, "a").await, 1);
    generation.pool.give_back(other);
    assert_eq!(generation.pool.len(), 2, "both have served a call");
    assert_eq!(number(&plugin, "b").await, 2);
    let dying = load(&bench, &moody(), Failure { trap_retries: 1, ..Failure::default() }).await;
    assert!(matches!(body(&dying, "t").await, Err(FillError::Internal(_))));
    assert_eq!(dying.status().calls, 2, "and no more than once");
}

#[tokio::test]
async fn a_key_that_keeps_costing_an_instance_is_left_alone_by_itself() {
    let bench = Bench::new();
    let plugin = load(&bench, &moody(), brisk()).await;
    for _ in 0..3 {
        assert!(matches!(body(&plugin, "t").await, Err(FillError::Internal(_))));
    }
    let faults = plugin.status().faults;
    for _ in 0..100 {
        let (message, retry_after) = refused(&plugin, "t").await;
        assert!(message.contains("failed 3 times in a row on this key"), "{message}");
        assert!(message.contains("failure.poison"), "{message}");
        assert!(retry_after > Duration::from_secs(20), "{retry_after:?}");
    }
    assert!(plugin.refusal("g", b"t").is_some() && plugin.refusal("g", b"t2").is_none());
    assert!(plugin.refusal("other", b"t").is_none(), "another group's key");
    assert_eq!(body(&plugin, "k").await, Ok(b"k".to_vec()));
    let status = plugin.status();
    assert_eq!((status.faults, status.health.poisonous_keys), (faults, 1));
    assert_eq!(status.health.breaker.state, "closed");
    assert!(bench.metrics.encode().contains(r#"cachecluster_plugin_poisonous_keys{plugin="p"} 1"#));
}

#[tokio::test]
async fn a_key_that_computes_for_ever_is_poisonous_by_either_clock() {
    let bench = Bench::new();
    let plugin = bench
        .load_with(&moody(), |p| {
            p.failure = Failure { poison_faults: 1, ..brisk() };
            p.limits.cpu = 30 * MS;
        })
        .await;
    assert!(matches!(body(&plugin, "s").await, Err(FillError::Internal(_))));
    refused(&plugin, "s").await;

    let plugin = bench
        .load_with(&moody(), |p| {
            p.failure = Failure { poison_faults: 1, ..brisk() };
            p.limits.timeout = 100 * MS;
        })
        .await;
    assert!(matches!(body(&plugin, "s").await, Err(FillError::TimedOut(_))));
    refused(&plugin, "s").await;
}

#[tokio::test]
async fn keys_that_compute_for_ever_are_poisonous_while_they_wait_for_their_turns() {
    let bench = Bench::new();
    let plugin = bench
        .load_with(&moody(), |p| {
            p.failure = Failure { poison_faults: 1, faults: 0, ratio: 1.0, ..brisk() };
            // Long enough to have a fair share of a busy machine, and within the CPU's.
            p.limits.timeout = 2_000 * MS;
            p.limits.cpu = 10_000 * MS;
        })
        .await;
    // One more than may compute at once: when their time is up, one of them waits.
    let count = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    let spinning: Vec<_> = (0..count)
        .map(|number| {
            let plugin = Arc::clone(&plugin);
            tokio::spawn(async move { body(&plugin, &format!("s{number}")).await })
        })
        .collect();
    for spinning in spinning {
        let ended = spinning.await.expect("no panic");
        assert!(matches!(ended, Err(FillError::TimedOut(_))), "{ended:?}");
    }
    assert_eq!(plugin.status().health.poisonous_keys, count);
}

#[tokio::test]
async fn one_poisonous_key_alone_does_not_open_the_breaker() {
    let bench = Bench::new();
    let plugin = load(&bench, &moody(), Failure { poison_faults: 0, ..brisk() }).await;
    for _ in 0..20 {
        assert!(matches!(body(&plugin, "t").await, Err(FillError::Internal(_))));
    }
    let breaker_now = plugin.status().health.breaker;
    assert_eq!((breaker_now.state, breaker_now.faults), ("closed", 1));
    // Several of them are not the keys' fault.
    for key in ["t1", "t2", "t3", "t4"] {
        assert!(body(&plugin, key).await.is_err());
    }
    assert_eq!(breaker(&plugin), "open");
}

#[tokio::test]
async fn a_trip_that_costs_an_instance_puts_its_keys_under_suspicion() {
    let bench = Bench::new();
    let plugin = load(&bench, &moody().with_batch("unreachable"), brisk()).await;
    let results = plugin.load_many(vec![fill("t"), fill("k")]).await;
    assert!(results.iter().all(Result::is_err), "{results:?}");
    assert!(plugin.loads_alone(&fill("t")) && plugin.loads_alone(&fill("k")));
    assert!(!plugin.loads_alone(&fill("other")));
    // By themselves, one is cleared and the other found out.
    assert_eq!(body(&plugin, "k").await, Ok(b"k".to_vec()));
    assert!(body(&plugin, "t").await.is_err());
    assert!(!plugin.loads_alone(&fill("k")) && plugin.loads_alone(&fill("t")));
}

#[tokio::test]
async fn a_key_that_failed_in_a_trip_is_tried_again_by_itself() {
    let bench = Bench::new();
    let plugin = load(&bench, &shy(), Failure { backoff: MS, ..Failure::default() }).await;
    let down = || FillError::Unavailable { message: "down".to_owned(), retry_after: None };
    match plugin.retry(fill("k"), down()).await {
        Ok(Outcome::Found(value, _)) => assert_eq!(value.body()[0], 3),
        other => panic!("{other:?}"),
    }
    assert_eq!(plugin.status().calls, 2, "the trip was the first try");
}

#[tokio::test]
async fn a_new_version_is_not_blamed_for_what_the_old_one_did() {
    let bench = Bench::new();
    let hour = Duration::from_hours(1);
    let plugin = bench
        .load_with(&moody(), |p| {
            p.failure = Failure { open: hour, open_max: hour, ..brisk() };
            p.watch = false;
        })
        .await;
    for key in ["t", "t", "t", "u1", "u2", "u3", "u4"] {
        assert!(body(&plugin, key).await.is_err());
    }
    assert_eq!((breaker(&plugin), plugin.status().health.poisonous_keys), ("open", 1));
    let mended = guest("(call $found (local.get $key) (local.get $len))");
    bench.publish(&mended.bytes());
    plugin.reload(Trigger::Operator).await.expect("it loads");
    for key in ["t", "u1", "k"] {
        assert!(plugin.refusal("g", key.as_bytes()).is_none());
        assert_eq!(body(&plugin, key).await, Ok(key.into()));
    }
    let health = plugin.status().health;
    assert_eq!((health.breaker.state, health.poisonous_keys), ("closed", 0));
}

/// Finds its key. Its check, when it comes to it a second time in one instance, runs
/// `again`, which may leave a pointer to an error.
fn self_checking(again: &str) -> Guest {
    guest("(call $found (local.get $key) (local.get $len))")
        .with_core("(global $checks (mut i32) (i32.const 0))")
        .with_lifecycle(
            "(i32.store (i32.const 256) (i32.const 0)) (i32.const 256)",
            &format!(
                "(global.set $checks (i32.add (global.get $checks) (i32.const 1)))
                 (if (i32.gt_u (global.get $checks) (i32.const 1)) (then {again}))
                 (i32.store (i32.const 256) (i32.const 0)) (i32.const 256)"
            ),
        )
}

/// Has `plugin` keep a second instance, so that the first can be spared for checks.
async fn spare_one(plugin: &Plugin) {
    let generation = plugin.generation();
    let deadline = Instant::now() + Duration::from_secs(10);
    let other = Instance::create(&generation, deadline).await.expect("an instance");
    generation.pool.give_back(other);
}

/// Waits until `is_so`.
async fn until(plugin: &Plugin, is_so: impl Fn(&Plugin) -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !is_so(plugin) {
        assert!(Instant::now() < patience, "{:#?}", plugin.status());
        tokio::time::sleep(5 * MS).await;
    }
}

#[tokio::test]
async fn a_plugin_checks_itself_while_it_serves() {
    let bench = Bench::new();
    let failure = Failure { check: 10 * MS, ..brisk() };
    let plugin = load(&bench, &self_checking(""), failure.clone()).await;
    until(&plugin, |it| it.status().health.last_check.is_some()).await;
    assert!(plugin.status().health.last_check.is_some_and(|check| check.error.is_none()));
    assert_eq!(plugin.generation().pool.len(), 1, "what was made for the check is gone");

    let gloomy = self_checking(
        "(i32.store (i32.const 256) (i32.const 1)) (i32.store (i32.const 260) (i32.const 2048))
         (i32.store (i32.const 264) (i32.const 4)) (return (i32.const 256))",
    );
    let plugin = load(&bench, &gloomy, failure).await;
    spare_one(&plugin).await;
    let error = |it: &Plugin| it.status().health.last_check.and_then(|check| check.error);
    until(&plugin, |it| error(it).is_some()).await;
    assert_eq!(error(&plugin).as_deref(), Some("text"));
    // An instance that says what is wrong is as good as before.
    until(&plugin, |it| it.status().instances.idle == 2).await;
    until(&plugin, |it| breaker(it) != "closed").await;
    let (message, _) = refused(&plugin, "k").await;
    assert!(message.contains("its check of itself failed: text"), "{message}");
}

#[tokio::test]
async fn a_check_that_takes_its_time_is_in_no_calls_way() {
    let bench = Bench::new();
    let plugin = bench
        .load_with(&self_checking("(loop (br 0))"), |p| {
            p.failure = Failure { check: 10 * MS, ..brisk() };
            p.limits.instances = 1;
            p.limits.cpu = 500 * MS;
        })
        .await;
    spare_one(&plugin).await;
    until(&plugin, |it| it.status().instances.idle == 1).await;
    assert_eq!(body(&plugin, "k").await, Ok(b"k".to_vec()));
    assert!(plugin.status().health.last_check.is_none(), "it goes on");
    until(&plugin, |it| it.status().health.last_check.is_some()).await;
    let error = plugin.status().last_error.map(|error| error.message).unwrap_or_default();
    assert!(error.contains("its check of itself") && error.contains("limits.cpu"), "{error}");
    assert_eq!(plugin.status().health.breaker.faults, 1);
}
