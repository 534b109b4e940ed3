//! Packets are lost, repeated, delayed and spoilt; nodes are cut off from one another, wholly
//! or in part. Clients and the origin can be reached all the while.

use std::time::Duration;

use serde_json::Value;

use super::{Five, beside_another, item, load, say, tell};
use crate::harness::{
    chaos::{Chaos, Weather},
    load::{Load, Window},
    until,
};

/// Keys that clients ask for.
const KEYS: usize = 300;

/// Requests a second.
const RATE: u32 = 80;

const ALL: [usize; 5] = [0, 1, 2, 3, 4];

/// Who is a member as `node` has it, and since when.
async fn members(five: &Five, node: usize) -> Vec<Value> {
    let told = five.nodes[node].admin("/members").await.json();
    let members = told["members"].as_array().expect("members");
    members.iter().map(|it| serde_json::json!([it["node"], it["generation"]])).collect()
}

/// How many packets all nodes have not believed for this reason.
async fn refused(five: &Five, reason: &str) -> f64 {
    let name = format!("cachecluster_cluster_packets_refused_total{{reason=\"{reason}\"}}");
    sum(five, &name).await
}

/// What all nodes have counted together.
async fn sum(five: &Five, metric: &str) -> f64 {
    let mut sum = 0.0;
    for node in &five.nodes {
        sum += node.metric(metric).await;
    }
    sum
}

/// What clients see of some seconds, with a word for people.
async fn seconds(load: &Load, seconds: usize, what: &str) -> Window {
    load.window().await;
    load.answered(seconds * RATE as usize).await;
    let window = load.window().await;
    tell(what, &window, 0);
    assert_eq!(window.wrong(), 0, "{what}");
    window
}

fn nobody_noticed(window: &Window) {
    assert_eq!(window.errors().len(), 0, "{:?}", window.errors());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_network_and_a_divided_one_cost_nobody_an_answer() {
    let _turn = beside_another().await;
    let chaos = Chaos::start(5, 75).expect("a network");
    say(&format!("a network of {}", chaos.kind()));
    let five = Five::start_at(
        |host| chaos.address(host),
        chaos.here(),
        |host, node| chaos.put(host, node),
    )
    .await;
    five.warm(KEYS, item).await;
    let load = load(&five, RATE, KEYS, item);
    nobody_noticed(&seconds(&load, 2, "fine weather").await);
    bad_weather(&five, &chaos, &load).await;
    no_datagrams(&five, &chaos, &load).await;
    no_connections(&five, &chaos, &load).await;
    divided(&five, &chaos, &load).await;
    one_way(&five, &chaos, &load).await;
    old_datagrams(&five, &chaos).await;
    nobody_noticed(&seconds(&load, 2, "fine weather again").await);
}

/// Nobody is taken for dead for it.
async fn bad_weather(five: &Five, chaos: &Chaos, load: &Load) {
    let before = members(five, 0).await;
    let spoilt = refused(five, "seal").await;
    let unsteady =
        Weather { twice: 0.1, spoilt: 0.05, late: Duration::from_millis(50), ..Weather::default() };
    chaos.set(move |_, _| unsteady);
    nobody_noticed(&seconds(load, 3, "10 % twice, 5 % spoilt, up to 50 ms late").await);
    until("spoilt packets are counted", || async { refused(five, "seal").await > spoilt }).await;
    for lost in [0.05, 0.2, 0.4] {
        chaos.set(move |_, _| Weather { lost, ..Weather::default() });
        let window = seconds(load, 4, &format!("{lost} lost")).await;
        let errors = window.errors();
        let most = if lost < 0.1 { 0 } else { window.done.len() / 200 };
        assert!(errors.len() <= most, "{lost}: {errors:?}");
    }
    chaos.clear();
    five.agree(&ALL).await;
    assert_eq!(members(five, 0).await, before);
}

/// A node that no datagram reaches answers by TCP, and stays.
async fn no_datagrams(five: &Five, chaos: &Chaos, load: &Load) {
    let before = members(five, 0).await;
    let degraded = sum(five, "cachecluster_cluster_udp_degraded_total").await;
    chaos.set(|from, to| Weather { no_udp: from == 5 || to == 5, ..Weather::default() });
    // Longer than a suspicion takes.
    for _ in 0..6 {
        nobody_noticed(&seconds(load, 2, "no UDP to and from one").await);
        assert_eq!(members(five, 0).await.len(), 5);
    }
    assert!(sum(five, "cachecluster_cluster_udp_degraded_total").await > degraded);
    chaos.clear();
    five.agree(&ALL).await;
    assert_eq!(members(five, 0).await, before);
}

/// A node that nobody can connect to stays a member, and is asked around.
async fn no_connections(five: &Five, chaos: &Chaos, load: &Load) {
    chaos.set(|from, to| Weather { no_tcp: from == 5 || to == 5, ..Weather::default() });
    nobody_noticed(&seconds(load, 4, "no TCP to and from one").await);
    assert_eq!(members(five, 0).await.len(), 5);
    chaos.clear();
    five.agree(&ALL).await;
}

/// Two on one side, three on the other: each side goes on, and they find one another again.
async fn divided(five: &Five, chaos: &Chaos, load: &Load) {
    let is_cut = |from: u8, to: u8| (from <= 2) != (to <= 2);
    chaos.set(move |from, to| if is_cut(from, to) { Weather::NIGHT } else { Weather::default() });
    load.window().await;
    five.agree(&[0, 1]).await;
    five.agree(&[2, 3, 4]).await;
    let window = load.window().await;
    tell("divided", &window, 0);
    nobody_noticed(&window);
    nobody_noticed(&seconds(load, 2, "each side for itself").await);
    chaos.clear();
    five.agree(&ALL).await;
    let window = load.window().await;
    tell("one again", &window, 0);
    nobody_noticed(&window);
}

/// One hears the others and is not heard: it goes on by itself, and comes back.
async fn one_way(five: &Five, chaos: &Chaos, load: &Load) {
    chaos.set(|from, _| if from == 5 { Weather::NIGHT } else { Weather::default() });
    load.window().await;
    five.agree(&[0, 1, 2, 3]).await;
    let window = load.window().await;
    tell("one is not heard", &window, 0);
    nobody_noticed(&window);
    chaos.clear();
    until("it is back", || async { five.owners(0).await == 5 }).await;
    five.agree(&ALL).await;
    nobody_noticed(&load.window().await);
}

/// What was true once is not taken for news, however often it is said again.
async fn old_datagrams(five: &Five, chaos: &Chaos) {
    let mut before = Vec::new();
    for node in ALL {
        before.push(members(five, node).await);
    }
    let replays = refused(five, "replay").await;
    for _ in 0..5 {
        assert!(chaos.replay() > 100, "nothing was heard");
    }
    until("replays are counted", || async { refused(five, "replay").await >= replays + 100.0 })
        .await;
    five.agree(&ALL).await;
    for node in ALL {
        assert_eq!(members(five, node).await, before[node], "{node}");
    }
}
