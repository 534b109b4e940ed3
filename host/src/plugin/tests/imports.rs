//! The host's own functions as a guest meets them.

use std::{sync::Arc, time::Duration};

use super::guest::{Bench, ECHO, Guest, body, guest, number};
use crate::{
    config::Caching,
    group::{BoxFuture, Context, Fill, FillError, Getter, Group, Groups, Outcome},
    plugin::Plugin,
};

/// Gets the key but for its last byte from the group `lower`, and finds what it finds; 50 for nothing, 100
/// and the case for an error. A key that begins with `x` it finds itself.
fn reader() -> Guest {
    let guest = guest(
        "(if (i32.eq (i32.load8_u (local.get $key)) (i32.const 120))
           (then (return (call $found (local.get $key) (local.get $len)))))
         (call $cache-get (global.get $context) (i32.const 2100) (i32.const 5)
           (local.get $key) (i32.sub (local.get $len) (i32.ne (local.get $len) (i32.const 0)))
           (i32.const 256))
         (if (i32.load8_u (i32.const 256))
           (then (return (call $found-number
             (i64.extend_i32_u (i32.add (i32.const 100) (i32.load8_u (i32.const 260))))))))
         (if (i32.eqz (i32.load8_u (i32.const 260)))
           (then (return (call $found-number (i64.const 50)))))
         (call $found (i32.load (i32.const 264)) (i32.load (i32.const 268)))",
    );
    reading(guest.with_core("(data (i32.const 2100) \"lower\")"))
}

/// `guest` with `$cache-get`: context, group, key, and where the answer goes.
pub(super) fn reading(guest: Guest) -> Guest {
    guest
        .with_component(
            "(import \"cachecluster:plugin/cache@0.1.0\" (instance $cache
               (alias outer 1 $context (type $outer))
               (export \"context\" (type $cx (eq $outer)))
               (type $cache-error' (variant (case \"no-such-group\") (case \"denied\")
                 (case \"cycle\") (case \"too-large\") (case \"failed\" string)))
               (export \"cache-error\" (type $cache-error (eq $cache-error')))
               (export \"get\" (func (param \"ctx\" (borrow $cx)) (param \"group\" string)
                 (param \"key\" string)
                 (result (result (option (list u8)) (error $cache-error)))))))
             (core func $cache-get (canon lower (func $cache \"get\")
               (memory (core memory $memory)) (realloc (core func $realloc))))",
        )
        .with_host("cache-get", "(param i32 i32 i32 i32 i32 i32)")
}

/// Finds the key twice over, but for keys that begin with `n`.
struct Native;

impl Getter for Native {
    fn load(&self, fill: Fill) -> BoxFuture<'_, Result<Outcome, FillError>> {
        let absent = fill.key.starts_with(b"n");
        let found = Outcome::found([&*fill.key, &*fill.key].concat());
        Box::pin(std::future::ready(Ok(if absent { Outcome::not_found() } else { found })))
    }
}

fn group(bench: &Bench, name: &str, getter: Arc<dyn Getter>) -> Arc<Group> {
    let fills = bench.host.fills().clone();
    Group::new(name, Caching::default(), getter, fills, bench.metrics.group(name))
}

async fn reader_in(bench: &Bench, granted: bool) -> Arc<Plugin> {
    let guest = reader();
    let load = bench.load_with(&guest, |p| {
        p.limits.instances = 1;
        if granted {
            p.cache.read = vec!["lower".to_owned()];
        }
    });
    load.await
}

async fn get(group: &Arc<Group>, key: &str) -> Vec<u8> {
    let context = Context::within(Duration::from_secs(10));
    let hit = group.get(key.as_bytes(), &context).await;
    hit.unwrap_or_else(|error| panic!("{error}")).value.body().to_vec()
}

fn number_of(body: &[u8]) -> u64 {
    u64::from_le_bytes(body.try_into().expect("eight bytes"))
}

#[tokio::test]
async fn a_plugin_reads_the_groups_it_is_granted() {
    let groups = Arc::new(Groups::default());
    let bench = Bench::with_groups(Arc::downgrade(&groups));
    let upper = group(&bench, "upper", reader_in(&bench, true).await);
    let absent = upper.get(b"k1", &Context::within(Duration::from_secs(10))).await;
    assert_eq!(number_of(absent.expect("an answer").value.body()), 100, "no such group yet");

    groups.replace([upper.clone(), group(&bench, "lower", Arc::new(Native))]);
    assert_eq!(get(&upper, "k2").await, b"kk");
    assert_eq!(number_of(&get(&upper, "n2").await), 50);
}

#[tokio::test]
async fn a_group_that_is_not_granted_is_not_read() {
    let groups = Arc::new(Groups::default());
    let bench = Bench::with_groups(Arc::downgrade(&groups));
    let upper = group(&bench, "upper", reader_in(&bench, false).await);
    groups.replace([upper.clone(), group(&bench, "lower", Arc::new(Native))]);
    assert_eq!(number_of(&get(&upper, "k1").await), 101);
}

#[tokio::test]
async fn a_plugin_that_reads_a_group_it_fills_itself_needs_no_second_instance_to_be_free() {
    let groups = Arc::new(Groups::default());
    let bench = Bench::with_groups(Arc::downgrade(&groups));
    let plugin = reader_in(&bench, true).await;
    let upper = group(&bench, "upper", plugin.clone());
    groups.replace([upper.clone(), group(&bench, "lower", plugin.clone())]);
    assert_eq!(get(&upper, "x1").await, b"x1");
    let began = tokio::time::Instant::now();
    // upper/kk reads lower/k, which reads lower/, which reads itself.
    let cycle = get(&upper, "kk").await;
    assert_eq!(number_of(&cycle), 102, "{cycle:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "nobody waited for a deadline");
    assert_eq!(plugin.status().instances.busy, 0);
}

/// Does `call` as often as the key is long, in hundreds.
fn repeating(call: &str) -> Guest {
    guest(&format!(
        "(local $i i32)
         (local.set $i (i32.mul (local.get $len) (i32.const 100)))
         (loop $next
           (local.set $i (i32.sub (local.get $i) (i32.const 1)))
           {call}
           (br_if $next (i32.gt_s (local.get $i) (i32.const 0))))
         {ECHO}"
    ))
}

#[tokio::test]
async fn a_flood_of_log_records_is_cut_off_and_counted() {
    // The rate counts for what would be written only.
    let _installed = tracing_subscriber::fmt().with_writer(std::io::sink).try_init();
    let bench = Bench::new();
    let flood = repeating(
        "(call $log (i32.const 4) (i32.const 2048) (i32.const 10) (i32.const 0) (i32.const 0))",
    )
    .with_logging();
    let plugin = bench.load(&flood).await;
    assert!(body(&plugin, &"k".repeat(50)).await.is_ok());
    let text = bench.metrics.encode();
    let dropped = text
        .lines()
        .find_map(|line| {
            line.strip_prefix(r#"cachecluster_plugin_log_records_dropped_total{plugin="p"} "#)
        })
        .and_then(|count| count.parse::<u64>().ok());
    assert!(dropped.is_some_and(|dropped| dropped > 3_000), "{dropped:?}");
}

#[tokio::test]
async fn a_guests_own_metrics_are_exported() {
    let bench = Bench::new();
    let counting = repeating(
        "(call $count (i32.const 2048) (i32.const 4) (i64.const 2) (i32.const 0) (i32.const 0))",
    )
    .with_metrics();
    let plugin = bench.load(&counting).await;
    assert!(body(&plugin, "k").await.is_ok());
    let text = bench.metrics.encode();
    assert!(text.contains(r#"cachecluster_guest_text_total{plugin="p"} 200"#), "{text}");
    // A plugin that goes takes them along, and a last call brings none back.
    plugin.retire();
    assert!(body(&plugin, "k").await.is_ok());
    let text = bench.metrics.encode();
    assert!(!text.contains("cachecluster_guest_text_total{"), "{text}");
}

#[tokio::test]
async fn a_plugin_reads_its_own_settings() {
    let bench = Bench::new();
    let reading = guest(
        "(call $config-get (local.get $key) (local.get $len) (i32.const 256))
         (if (i32.load8_u (i32.const 256))
           (then (return (call $found (i32.load (i32.const 260)) (i32.load (i32.const 264))))))
         (call $found-number (i64.const 0))",
    )
    .with_config();
    let plugin = bench
        .load_with(&reading, |p| {
            p.config.insert("greeting".to_owned(), "hello".to_owned());
        })
        .await;
    assert_eq!(body(&plugin, "greeting").await, Ok(b"hello".to_vec()));
    assert_eq!(number(&plugin, "other").await, 0);
}
