//! Nodes stand still: all of their threads, for seconds or for half a minute, and then they go
//! on as if nothing had been.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{Five, Window, beside_another, item, load, say, tell};
use crate::harness::{load::Load, until};

/// Keys that clients ask for.
const KEYS: usize = 600;

/// Requests a second.
const RATE: u32 = 150;

/// How long the long pause is.
const LONG: Duration = Duration::from_secs(30);

/// A node that stands still is not dead. Whoever asks it waits; nobody else does, and nobody
/// takes it for gone but after a long time. Then it comes back at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stands_still_is_asked_around() {
    let _turn = beside_another().await;
    let five = Five::start(71).await;
    five.warm(KEYS, item).await;
    let load = load(&five, RATE, KEYS, item);
    nobody_noticed(&second(&load, "control").await);

    // So long that it is down for the others.
    load.switch(4, false);
    load.window().await;
    let stopped = Instant::now();
    five.nodes[4].signal("STOP");
    five.agree(&[0, 1, 2, 3]).await;
    let window = load.window().await;
    tell("down", &window, 0);
    nearly_nobody_noticed(&window);
    nobody_noticed(&second(&load, "without it").await);
    // Meanwhile others stand still for less, which changes nothing for anybody.
    stands_still(&five, &load, 3, 2).await;
    stands_still(&five, &load, 2, 7).await;
    while stopped.elapsed() < LONG {
        nobody_noticed(&second(&load, "still without it").await);
    }
    goes_on(&five, &load, 4).await;
    load.switch(4, true);
    nobody_noticed(&second(&load, "with it").await);
    for node in 0..5 {
        let dead = five.nodes[node].log().matches("member is dead").count();
        assert_eq!(dead, usize::from(node != 4), "{node} has taken somebody for dead who is not");
    }
}

/// No body was wrong, and at most one request in a thousand was not answered with its value.
fn nearly_nobody_noticed(window: &Window) {
    assert_eq!(window.wrong(), 0);
    let errors = window.errors();
    assert!(errors.len() * 1_000 <= window.done.len(), "{errors:?}");
}

fn nobody_noticed(window: &Window) {
    assert_eq!(window.errors().len(), 0, "{:?}", window.errors());
}

/// What clients see of a second, with a word for people.
async fn second(load: &Load, what: &str) -> Window {
    load.window().await;
    load.answered(RATE as usize).await;
    let window = load.window().await;
    tell(what, &window, 0);
    window
}

/// `still` stands still for some seconds while node 4 is away; nobody gives it up.
async fn stands_still(five: &Five, load: &Load, still: usize, seconds: usize) {
    // Its own clients have gone elsewhere, as a balancer has them.
    load.switch(still, false);
    load.window().await;
    five.nodes[still].signal("STOP");
    for _ in 0..seconds {
        // All of them are answered while it stands still.
        nobody_noticed(&second(load, "standing still").await);
        for node in (0..4).filter(|node| *node != still) {
            assert_eq!(five.owners(node).await, 4, "{node} has given {still} up");
        }
    }
    five.nodes[still].signal("CONT");
    five.agree(&[0, 1, 2, 3]).await;
    load.switch(still, true);
    nobody_noticed(&second(load, "and on").await);
}

/// `resumed` goes on after so long that the others have given it up: it is soon back in
/// everybody's ring, and till then it suspects none of those who were there all the time.
async fn goes_on(five: &Five, load: &Load, resumed: usize) {
    load.window().await;
    let start = Instant::now();
    five.nodes[resumed].signal("CONT");
    until("it is in everybody's ring", || async {
        let own = five.nodes[resumed].admin("/members").await.json();
        let members = own["members"].as_array().expect("members");
        let others = members.iter().filter(|member| member["is_self"] == false);
        let states: Vec<&Value> = others.map(|member| &member["state"]).collect();
        assert_eq!(states, ["serving"; 4], "{own:#}");
        for node in (0..5).filter(|node| *node != resumed) {
            let told = five.nodes[node].admin("/members").await.json();
            if told["owners"] != 5 || told["ring"] != own["ring"] {
                return false;
            }
        }
        own["owners"] == 5
    })
    .await;
    // How soon that is the simulation holds to; here it is up to what else the machine does.
    say(&format!("it was back after {:?}", start.elapsed()));
    nobody_noticed(&second(load, "back").await);
}
