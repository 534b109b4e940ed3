//! What a warm call of a plugin costs more than the same getter as a native closure.
//!
//! Both answer 100 bytes that are not to be kept, so that every get is a miss.
//!
//! - `load`: the getter alone.
//! - `get`: a whole miss of a group: flight, task, getter, landing.
//!
//! The figures are CPU time of the whole process, medians of interleaved rounds. Callers
//! run where the fills run, on one thread: with more, the figure would be that of threads
//! waking one another. `cargo bench --bench plugin_call`

#![expect(clippy::print_stdout, reason = "a benchmark reports to whoever runs it")]

use std::{
    fs,
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use cachecluster::{
    config::{self, Caching, Wasm},
    group::{Chain, Context, Fill, Getter, Group, Outcome, Reason, getter_fn},
    metrics::Metrics,
    plugin::PluginHost,
    value::{Freshness, Value},
};
use tokio::time::Instant;

const CALLS: u32 = 20_000;
const ROUNDS: usize = 11;
const PATIENCE: Duration = Duration::from_secs(30);

#[path = "../../tests/fixtures/guest/mod.rs"]
#[expect(dead_code, reason = "a benchmark needs only some kinds of guests")]
mod guest;

/// Answers 100 bytes with a TTL of zero.
const HUNDRED_BYTES: &str = "(drop (call $found (i32.const 4096) (i32.const 100)))
    (i32.store8 offset=24 (global.get $RET) (i32.const 1)) (global.get $RET)";

fn main() {
    // As the binary does.
    cachecluster::allocator::settle();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = folder.path().join("plugin.wasm");
    fs::write(&source, guest::guest(HUNDRED_BYTES).bytes()).expect("to write the component");

    let metrics = Metrics::new();
    let settings = Wasm {
        threads: 1,
        cache_dir: folder.path().into(),
        data_dir: folder.path().join("state"),
        ..Wasm::default()
    };
    let host = PluginHost::start(&settings, Weak::new(), metrics.clone()).expect("a host");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let settings = config::Plugin::new(&source);
    let load = host.load("plugin", &settings, Path::new("/"));
    let plugin: Arc<dyn Getter> = runtime.block_on(load).expect("to load the plugin");
    let closure = getter_fn(|_: Fill| async {
        Ok(Outcome::Found(Value::new(&[7; 100]), Freshness::ttl(Duration::ZERO)))
    });

    let group = |name, getter| {
        let fills = host.fills().clone();
        Group::new(name, Caching::default(), getter, fills, metrics.group(name))
    };
    let groups = [group("closure", Arc::clone(&closure)), group("plugin", Arc::clone(&plugin))];
    let getters = [closure, plugin];
    let measured = host.fills().spawn(async move {
        let (mut loads, mut gets) = (<[Vec<f64>; 2]>::default(), <[Vec<f64>; 2]>::default());
        for _ in 0..ROUNDS {
            for which in 0..2 {
                loads[which].push(load_round(&*getters[which]).await);
                gets[which].push(get_round(&groups[which]).await);
            }
        }
        [("load", loads.map(median)), ("get", gets.map(median))]
    });
    println!("CPU a call, median of {ROUNDS} rounds of {CALLS}");
    println!("          closure     plugin   difference");
    for (name, [closure, plugin]) in runtime.block_on(measured).expect("the rounds") {
        let difference = plugin - closure;
        println!("  {name:<4}  {closure:>6.2} µs  {plugin:>6.2} µs    {difference:>6.2} µs");
    }
}

async fn load_round(getter: &dyn Getter) -> f64 {
    let (group, key): (Arc<str>, Arc<[u8]>) = ("group".into(), b"key".as_slice().into());
    let before = cpu_nanoseconds();
    for _ in 0..CALLS {
        let fill = Fill {
            group: Arc::clone(&group),
            key: Arc::clone(&key),
            deadline: Instant::now() + PATIENCE,
            attempt: 1,
            reason: Reason::Miss,
            validator: None,
            chain: Chain::default(),
        };
        let outcome = getter.load(fill).await;
        assert!(matches!(outcome, Ok(Outcome::Found(value, _)) if value.body().len() == 100));
    }
    micros_each(cpu_nanoseconds() - before)
}

async fn get_round(group: &Arc<Group>) -> f64 {
    let before = cpu_nanoseconds();
    for _ in 0..CALLS {
        let hit = group.get(b"key", &Context::within(PATIENCE)).await.expect("a value");
        assert_eq!(hit.value.body().len(), 100);
    }
    assert_eq!(group.usage().items, 0, "every get was a miss");
    micros_each(cpu_nanoseconds() - before)
}

fn micros_each(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64() * 1e6 / f64::from(CALLS)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Time all threads of this process have spent on a processor. From the clock: the
/// scheduler's statistics are brought up to date with every tick only.
fn cpu_nanoseconds() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let time = Duration::try_from(time).expect("a positive time");
    u64::try_from(time.as_nanos()).expect("less than centuries")
}
