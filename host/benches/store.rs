//! The store beside the plainest thing that could do its work, in one run.
//!
//! - `get`: CPU time of a hit, against one `Mutex` around one `lru::LruCache`.
//! - `memory`: bytes the process grows by for each item of 1 KiB.
//! - `churn`: how far the process grows beyond the budget while several times the
//!   budget of values of random sizes flows through.
//!
//! The figures are ratios of interleaved rounds; absolute times mean little on a
//! shared machine. `cargo bench --bench store`

#![expect(clippy::print_stdout, reason = "a benchmark reports to whoever runs it")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "figures for people: far from the bounds of their types"
)]

use std::{
    env, fs,
    hint::black_box,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use cachecluster::{
    store::{Lifetime, Store},
    value::Value,
};
use lru::LruCache;
use tokio::time::Instant;

const ITEMS: usize = 200_000;
const GETS: usize = 1_000_000;
const ROUNDS: usize = 9;
const KIB: usize = 1_024;
const MIB: u64 = 1 << 20;

fn main() {
    // As the binary does.
    cachecluster::allocator::settle();
    // Each part in a process of its own: memory that one part has freed would be
    // taken up by the next without growth.
    let parts: [(&str, fn()); 3] = [("memory", memory), ("churn", churn), ("get", get)];
    let wanted = env::args().skip(1).find(|argument| !argument.starts_with('-'));
    for (name, part) in parts {
        match wanted.as_deref() {
            Some(wanted) if wanted == name => part(),
            Some(_) => {}
            None => {
                let program = env::current_exe().expect("this program");
                let status = Command::new(program).arg(name).status().expect("to run a part");
                assert!(status.success(), "{name} failed");
            }
        }
    }
}

fn hour() -> Lifetime {
    Lifetime::new(Duration::from_hours(1), Duration::ZERO)
}

fn key(number: usize) -> [u8; 16] {
    let mut key = *b"key-000000000000";
    key[8..].copy_from_slice(&(number as u64).to_be_bytes());
    key
}

fn memory() {
    let store = Store::new(1 << 30, MIB);
    let now = Instant::now();
    let before = resident();
    for number in 0..ITEMS {
        store.insert(&key(number), Some(Value::new(&[1; KIB])), hour(), now);
    }
    let grown = resident() - before;
    let charged = store.usage().bytes;
    println!("memory: 1 KiB items, 16 B keys, {ITEMS} of them");
    println!("  bytes an item   {:>8.1}", grown as f64 / ITEMS as f64);
    println!("  charged         {:>8.1}", charged as f64 / ITEMS as f64);
}

fn churn() {
    const BUDGET: u64 = 128 * MIB;
    let store = Store::new(BUDGET, MIB);
    let now = Instant::now();
    let before = resident();
    let mut random = fastrand::Rng::with_seed(1);
    let (mut flowed, mut number, mut most) = (0, 0, 0);
    while flowed < 8 * BUDGET {
        // Sizes over five orders of magnitude, each equally likely.
        let size = 2.0_f64.powf(random.f64() * 16.0) as usize;
        let body = vec![7; size];
        store.insert(&key(number), Some(Value::new(&body)), hour(), now);
        flowed += size as u64;
        number += 1;
        if number % 256 == 0 {
            most = most.max(resident().saturating_sub(before));
        }
    }
    println!("churn: {} MiB of random sizes through {} MiB", flowed / MIB, BUDGET / MIB);
    println!("  largest growth / budget   {:.3}", most as f64 / BUDGET as f64);
}

fn get() {
    let now = Instant::now();
    let store = Store::new(1 << 30, MIB);
    // The plainest shared value, and the one of the usual crate: its count lies apart
    // from the bytes, which costs 32 bytes more and spares a miss to who does not read.
    let arcs = Mutex::new(LruCache::<Box<[u8]>, Arc<[u8]>>::unbounded());
    let bytes = Mutex::new(LruCache::<Box<[u8]>, Bytes>::unbounded());
    for number in 0..ITEMS {
        let key = key(number);
        store.insert(&key, Some(Value::new(&[1; KIB])), hour(), now);
        arcs.lock().expect("no panic").put(Box::from(key), Arc::from([1; KIB]));
        bytes.lock().expect("no panic").put(Box::from(key), Bytes::from(vec![1; KIB]));
    }
    let mut random = fastrand::Rng::with_seed(1);
    // Nine of ten gets go to a tenth of the keys, as in a cache at work.
    let wanted: Vec<_> = (0..GETS)
        .map(|_| {
            let among = if random.u8(0..10) > 0 { ITEMS / 10 } else { ITEMS };
            key(random.usize(0..among))
        })
        .collect();
    // The clock is read by whoever gets, for more than the store.
    let moment = store.moment(now);
    let mut rounds: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        rounds[0].push(one_after_another(&wanted, |key| {
            let value = arcs.lock().expect("no panic").get(&key[..]).cloned();
            value.map(|value| value[0])
        }));
        rounds[1].push(one_after_another(&wanted, |key| {
            let value = bytes.lock().expect("no panic").get(&key[..]).cloned();
            value.map(|value| value[0])
        }));
        rounds[2].push(one_after_another(&wanted, |key| {
            let (entry, _) = store.get(key, moment)?;
            entry.value.map(|value| value.body()[0])
        }));
    }
    let [arcs, bytes, ours] = rounds.map(median);
    println!("get: hits of 1 KiB among {ITEMS} items, CPU of one thread, median of {ROUNDS}");
    println!("  Mutex<LruCache<_, Arc<[u8]>>>   {arcs:>5.0} ns");
    println!("  Mutex<LruCache<_, Bytes>>       {bytes:>5.0} ns");
    println!("  store                           {ours:>5.0} ns");
    println!("  ratio  {:.2} and {:.2}", ours / arcs, ours / bytes);
}

/// CPU nanoseconds for each get. The next key is known only when the value has been
/// read, so that a processor cannot begin a get before the last has ended: between the
/// requests of a server there is no such overlap.
fn one_after_another(wanted: &[[u8; 16]], get: impl Fn(&[u8; 16]) -> Option<u8>) -> f64 {
    let before = cpu_nanoseconds();
    let mut at = 0;
    for _ in 0..wanted.len() {
        // Every byte of every value is 1.
        at += usize::from(get(&wanted[at % wanted.len()]).unwrap_or(1));
    }
    black_box(at);
    (cpu_nanoseconds() - before) as f64 / wanted.len() as f64
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Time this thread has spent on a processor.
fn cpu_nanoseconds() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|field| field.parse().ok()).expect("a number")
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").expect("Linux");
    let line = text.lines().find(|line| line.starts_with("Rss:")).expect("a line for Rss");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|it| it.parse().ok()).expect("a number");
    kib * KIB as u64
}
