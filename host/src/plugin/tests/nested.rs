//! Plugins that get from one another's groups.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, oneshot},
    time::Instant,
};

use super::{
    guest::{Bench, Guest, guest},
    imports::reading,
};
use crate::{
    config::Caching,
    group::{BoxFuture, Context, Fill, FillError, Getter, Group, Groups, Outcome},
    plugin::Plugin,
};

/// The group that plugins of a test meet at.
const GATE: &str = "gate";

/// Gets its own name from the gate, then its key from `group`: finds what is there, and
/// otherwise 100 and the case of the error.
fn reader_of(name: &str, group: &str) -> Guest {
    assert_eq!((name.len(), group.len()), (1, 1));
    let text = "(call $cache-get (global.get $context) (i32.const 2110) (i32.const 4)
           (i32.const 2120) (i32.const 1) (i32.const 256))
         (call $cache-get (global.get $context) (i32.const 2130) (i32.const 1)
           (local.get $key) (local.get $len) (i32.const 256))
         (if (i32.load8_u (i32.const 256))
           (then (return (call $found-number
             (i64.extend_i32_u (i32.add (i32.const 100) (i32.load8_u (i32.const 260))))))))
         (call $found (i32.load (i32.const 264)) (i32.load (i32.const 268)))";
    reading(guest(text).with_core(&format!(
        "(data (i32.const 2110) \"{GATE}\") (data (i32.const 2120) \"{name}\")
         (data (i32.const 2130) \"{group}\")"
    )))
}

/// A cycle, as [`reader_of`] finds it.
const CYCLE: [u8; 8] = 102_u64.to_le_bytes();

/// Lets nobody through before so many have come.
struct Gate {
    missing: std::sync::atomic::AtomicUsize,
    open: Semaphore,
}

impl Gate {
    fn of(count: usize) -> Arc<Self> {
        Arc::new(Self { missing: count.into(), open: Semaphore::new(0) })
    }
}

impl Getter for Gate {
    fn load(&self, _fill: Fill) -> BoxFuture<'_, Result<Outcome, FillError>> {
        Box::pin(async move {
            if self.missing.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) == 1 {
                self.open.add_permits(Semaphore::MAX_PERMITS);
            }
            let passed = self.open.acquire().await.map(drop);
            passed.map_err(|_| FillError::Internal("the gate is gone".to_owned()))?;
            Ok(Outcome::found("open"))
        })
    }
}

fn group(bench: &Bench, name: &str, getter: Arc<dyn Getter>) -> Arc<Group> {
    let fills = bench.host.fills().clone();
    Group::new(name, Caching::default(), getter, fills, bench.metrics.group(name))
}

async fn load(bench: &Bench, guest: &Guest, readable: &str) -> Arc<Plugin> {
    let read = vec![GATE.to_owned(), readable.to_owned()];
    bench.load_with(guest, |p| p.cache.read = read).await
}

async fn get(group: &Arc<Group>, key: &str) -> Vec<u8> {
    let context = Context::within(Duration::from_secs(20));
    let hit = group.get(key.as_bytes(), &context).await;
    hit.unwrap_or_else(|error| panic!("{error}")).value.body().to_vec()
}

#[tokio::test]
async fn two_plugins_that_wait_for_one_another_are_told_at_once() {
    let groups = Arc::new(Groups::default());
    let bench = Bench::with_groups(Arc::downgrade(&groups));
    let a = group(&bench, "a", load(&bench, &reader_of("a", "b"), "b").await);
    let b = group(&bench, "b", load(&bench, &reader_of("b", "a"), "a").await);
    // Both hold their own key before either asks for the other's.
    groups.replace([a.clone(), b.clone(), group(&bench, GATE, Gate::of(2))]);
    let began = Instant::now();
    let (from_a, from_b) = tokio::join!(get(&a, "k"), get(&b, "k"));
    assert_eq!((from_a, from_b), (CYCLE.to_vec(), CYCLE.to_vec()));
    assert!(began.elapsed() < Duration::from_secs(4), "they waited for a deadline");
}

#[tokio::test]
async fn a_plugin_that_waits_for_a_group_is_no_poison() {
    struct Never(oneshot::Receiver<()>);
    impl Getter for Never {
        fn load(&self, _fill: Fill) -> BoxFuture<'_, Result<Outcome, FillError>> {
            let _ = &self.0;
            Box::pin(std::future::pending())
        }
    }
    let groups = Arc::new(Groups::default());
    let bench = Bench::with_groups(Arc::downgrade(&groups));
    let plugin = bench
        .load_with(&reader_of("a", "b"), |p| {
            p.cache.read = vec![GATE.to_owned(), "b".to_owned()];
            p.failure.poison_faults = 1;
            p.limits.timeout = Duration::from_millis(100);
        })
        .await;
    let a = group(&bench, "a", plugin.clone());
    let (_open, never) = oneshot::channel();
    let b = group(&bench, "b", Arc::new(Never(never)));
    groups.replace([a.clone(), b, group(&bench, GATE, Gate::of(1))]);
    // Its time is up while it waits in the host: it may answer, or be cut off.
    a.get(b"k", &Context::within(Duration::from_secs(20))).await.ok();
    assert!(plugin.status().calls > 0);
    assert_eq!(plugin.status().health.poisonous_keys, 0);
}
