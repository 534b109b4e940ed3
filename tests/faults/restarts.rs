//! Nodes are stopped and started again, one by one or over and over.

use std::time::Duration;

use tokio::sync::watch;

use super::{Five, alone, brief, load, tell, value};
use crate::{
    cluster::{self, KeyFile},
    harness::{
        client,
        load::Load,
        origin::{self, Origin},
        until,
    },
};

/// Keys that clients ask for.
const KEYS: usize = 400;

/// Requests a second.
const RATE: u32 = 150;

/// How much more the origin is asked while all nodes are restarted, than without, give or take
/// what chance does to a count of so many calls.
const RESTART_COST: f64 = 1.05;

/// The same, and as much for chance, on a machine that is busy with other tests, where nodes that
/// are started are late for one another.
const RESTART_COST_BUSY: f64 = 1.1;

/// A machine on which one in a hundred answers takes longer is a busy one.
const QUIET: Duration = Duration::from_millis(150);

/// How often a node dies; it does so every three seconds.
const ROUNDS: usize = 7;

/// How much more it is asked while a node dies and comes back again and again.
const FLAP_COST: f64 = 1.3;

/// Has clients begin from the beginning of their keys, and go on until what is asked for
/// has been in memory for as long as it will be.
async fn run_in(load: &Load) {
    load.rewind();
    load.answered(5 * RATE as usize).await;
    load.window().await;
}

/// What the origin is asked while nothing else goes on, for each of `count` requests.
async fn peace(five: &Five, load: &Load, count: usize) -> f64 {
    run_in(load).await;
    let before = five.books.total();
    let mut answered = 0;
    while answered < count {
        load.answered(RATE as usize).await;
        let window = load.window().await;
        assert_eq!(window.errors().len(), 0, "{:?}", window.errors());
        answered += window.done.len();
    }
    (five.books.total() - before) as f64 / answered as f64
}

/// What the origin is asked for each request, with trouble and without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_come_back_cost_nobody_an_answer_and_the_origin_little() {
    let _alone = alone().await;
    let mut five = Five::start(72).await;
    five.warm(KEYS, brief).await;
    let load = load(&five, RATE, KEYS, brief);
    let Restarts { calls, requests, slow, within } =
        all_restarted_one_by_one(&mut five, &load).await;
    let restarts = calls / requests;
    let deaths = one_dies_over_and_over(&mut five, &load).await;
    let peace = peace(&five, &load, 16 * RATE as usize).await;
    // A machine that is too busy for its own clients makes nodes ask twice.
    let leave = if slow > 0.005 { 1.5 } else { 1.0 };
    let cost = if within > QUIET { RESTART_COST_BUSY } else { RESTART_COST } + 1.0 / calls.sqrt();
    super::say(&format!(
        "origin calls a request: {peace:.4} in peace, {restarts:.4} with restarts ({:.3} times, {within:?}), \
         {deaths:.4} with deaths",
        restarts / peace
    ));
    assert!(restarts <= leave * cost * peace, "{:.3} times as many", restarts / peace);
    assert!(deaths <= leave * FLAP_COST * peace, "{:.3} times as many", deaths / peace);
}

/// What it was like while all nodes were restarted.
struct Restarts {
    /// What the origin was asked.
    calls: f64,
    /// What the nodes were.
    requests: f64,
    /// The share of these that took long.
    slow: f64,
    /// The time within which 99 of a hundred were answered, in the worst window.
    within: Duration,
}

/// Each is told to stop, and is started again when it has.
async fn all_restarted_one_by_one(five: &mut Five, load: &Load) -> Restarts {
    run_in(load).await;
    let before = five.books.total();
    let (mut requests, mut slow, mut wrong, mut errors) = (0, 0.0, 0, Vec::new());
    let mut within = Duration::ZERO;
    for node in 0..5 {
        five.nodes[node].signal("TERM");
        assert!(five.nodes[node].ended().await.success(), "{}", five.nodes[node].log());
        five.nodes[node].start_again().await;
        five.agree(&[0, 1, 2, 3, 4]).await;
        let window = load.window().await;
        tell(&format!("restart of node {}", node + 1), &window, five.books.total() - before);
        requests += window.done.len();
        slow += window.slow() * window.done.len() as f64;
        within = within.max(window.within(0.99));
        wrong += window.wrong();
        errors.extend(window.errors().into_iter().cloned());
    }
    assert_eq!(wrong, 0);
    assert!(errors.is_empty(), "{errors:?}");
    let (calls, requests) = ((five.books.total() - before) as f64, requests as f64);
    Restarts { calls, requests, slow: slow / requests, within }
}

async fn one_dies_over_and_over(five: &mut Five, load: &Load) -> f64 {
    run_in(load).await;
    let before = five.books.total();
    let mut requests = 0;
    for round in 0..ROUNDS {
        five.nodes[4].kill();
        load.answered(3 * RATE as usize / 2).await;
        five.nodes[4].start_again().await;
        let so_far = load.so_far();
        load.answered(so_far + 3 * RATE as usize / 2).await;
        let window = load.window().await;
        tell(&format!("death {}", round + 1), &window, five.books.total() - before);
        requests += window.done.len();
        assert_eq!(window.wrong(), 0);
        assert_eq!(window.errors_but(4).len(), 0, "{:?}", window.errors_but(4));
    }
    let share = (five.books.total() - before) as f64 / requests as f64;
    five.agree(&[0, 1, 2, 3, 4]).await;
    share
}

/// Who is asked to stop finishes what it has begun, for its own clients and for other nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_under_way_outlives_the_order_to_stop() {
    let (open, opened) = watch::channel(false);
    let origin = Origin::gated(opened, |asked| origin::ok("", &value(&asked.target))).await;
    let key = KeyFile::new();
    let mut nodes: Vec<_> = (1..=2).map(|host| cluster::member(73, host, &key, &origin)).collect();
    cluster::agree(&nodes).await;
    let keys: Vec<_> = (0..8).map(|number| format!("/items/slow{number}")).collect();
    let mut callers = tokio::task::JoinSet::new();
    for path in &keys {
        for node in &nodes {
            let (address, path) = (node.http, path.clone());
            callers.spawn(async move { (client::get(address, &path).await, path) });
        }
    }
    until("the origin is asked for all", || async { origin.requests() >= keys.len() }).await;
    nodes[1].signal("TERM");
    until("the other one owns all keys", || async { cluster::owners(&nodes[0]).await == 1 }).await;
    open.send_replace(true);
    for (answer, path) in callers.join_all().await {
        assert_eq!((answer.status, answer.body), (200, value(&path)), "{path}");
    }
    // Whoever finds the other one slow to answer may fill as well.
    assert!(origin.requests() <= 2 * keys.len(), "{}", origin.requests());
    assert!(nodes[1].ended().await.success(), "{}", nodes[1].log());
}

/// Who is told twice does not wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_order_to_stop_is_obeyed_at_once() {
    let (_never, opened) = watch::channel(false);
    let origin = Origin::gated(opened, |_| origin::ok("", b"value")).await;
    let key = KeyFile::new();
    let mut node = cluster::member(74, 1, &key, &origin);
    let address = node.http;
    let caller = tokio::spawn(async move {
        let mut connection = client::Connection::open(address).await;
        connection.try_get("/items/slow").await
    });
    until("the origin is asked", || async { origin.requests() == 1 }).await;
    node.signal("TERM");
    node.logged("Draining").await;
    node.signal("TERM");
    node.ended().await;
    assert!(caller.await.expect("a caller").is_err());
}
