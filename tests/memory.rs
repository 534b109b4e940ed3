//! The budget is the truth: the process grows as the config's number says.

use std::{fs, process::Command, sync::Arc, time::Duration};

use cachecluster::{
    config::{ByteSize, Caching},
    group::{Context, Fill, Outcome, getter_fn},
    node::Node,
};
use tokio::task::JoinSet;

const BUDGET: u64 = 64 << 20;
const VALUE_MAX: u64 = 256 << 10;

/// Callers at once, so that the allocator is used from several threads as in a node.
const CALLERS: u64 = 8;

#[test]
fn growth_stays_within_the_budget_and_a_tenth_while_four_budgets_flow_through() {
    // In a process of its own: other tests allocate at the same time.
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args(["memory::flow", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .expect("to run this program again");
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{text}{}", String::from_utf8_lossy(&child.stderr));
    let grown = text
        .lines()
        .find_map(|line| line.split_once("grown: ")?.1.parse::<u64>().ok())
        .unwrap_or_else(|| panic!("no figure in:\n{text}"));
    let share = grown as f64 / BUDGET as f64;
    assert!(share <= 1.10, "grown by {share:.3} of the budget");
    assert!(share >= 0.75, "grown by {share:.3} of the budget: was anything kept?");
}

/// The child of the test above.
#[expect(clippy::print_stdout, reason = "the parent reads it")]
#[test]
#[ignore = "run by growth_stays_within_the_budget_and_a_tenth_while_four_budgets_flow_through"]
fn flow() {
    // As the binary does.
    cachecluster::allocator::settle();
    let random_bytes = getter_fn(|fill: Fill| async move {
        // The size comes from the key: any up to the largest, each magnitude alike.
        let number = u64::from_le_bytes(fill.key[..8].try_into().expect("eight bytes"));
        let exponent = fastrand::Rng::with_seed(number).f64() * (VALUE_MAX as f64).log2();
        Ok(Outcome::found(vec![7; exponent.exp2() as usize]))
    });
    let caching = Caching {
        memory: ByteSize::bytes(BUDGET),
        value_max: ByteSize::bytes(VALUE_MAX),
        ttl: Duration::from_hours(1),
        ..Caching::default()
    };
    let node = Node::builder().group("random", caching, random_bytes).start().expect("a node");
    let group = node.group("random").expect("the group");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let before = resident_bytes();
    let most = runtime.block_on(async {
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let group = Arc::clone(&group);
            callers.spawn(async move {
                let (mut flowed, mut most, mut number) = (0, 0, caller);
                while flowed < 4 * BUDGET / CALLERS {
                    let cx = Context::within(Duration::from_secs(30));
                    let hit = group.get(&number.to_le_bytes(), &cx).await.expect("a value");
                    flowed += hit.value.body().len() as u64;
                    number += CALLERS;
                    if (number / CALLERS).is_multiple_of(64) {
                        most = most.max(resident_bytes());
                    }
                }
                most
            });
        }
        callers.join_all().await.into_iter().max().unwrap_or_default()
    });
    let usage = group.usage();
    assert!(usage.bytes <= BUDGET && usage.bytes > BUDGET * 9 / 10, "{usage:?}");
    println!("grown: {}", most.saturating_sub(before));
    node.stop().expect("to stop");
}

/// Bytes of this process in memory that hold data. Its program's own pages, of which ever
/// more come in as it runs, are no growth of a cache.
fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/status").expect("Linux");
    let kib = text.lines().find_map(|line| {
        line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    kib.expect("a number") * 1_024
}
