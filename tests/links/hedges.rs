//! Owners that fall silent.

use cachecluster::ring::{self, Kind, Ring};

use super::*;
use crate::harness::proxy::Proxy;

/// Two nodes and a third that asks the first of them through a proxy; long enough that the
/// asking one knows how soon the other answers as a rule.
async fn behind_a_proxy(sign: Duration) -> (Vec<Node>, Proxy) {
    let connect = sign.max(Duration::from_secs(1));
    let times = Times { sign, connect, ..Wish::default().times };
    let wish = Wish { times, links: 4, ..Wish::default() };
    let nodes: Vec<_> = (0..3).map(|_| start(&wish)).collect();
    introduce(&nodes.iter().collect::<Vec<_>>());
    let proxy = Proxy::start(nodes[1].address).await;
    let mut seen = members(&nodes.iter().collect::<Vec<_>>(), &nodes[0]);
    seen[1].address = proxy.addr();
    nodes[0].fleet.set_members(&seen);
    for key in nodes[1].own_keys("known", 200) {
        nodes[0].get(&key).await;
    }
    (nodes, proxy)
}

const WON: &str = "cachecluster_peer_hedges_total{outcome=\"found\"}";
const LOST: &str = "cachecluster_peer_hedges_total{outcome=\"not_held\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_at_the_stand_in_answers_for_an_owner_that_has_fallen_silent() {
    let (nodes, proxy) = behind_a_proxy(PATIENCE).await;
    // Hot at the third node, which is next in line.
    let names: Vec<_> =
        nodes.iter().map(|node| ring::Node::new(node.address.to_string())).collect();
    let ring = Ring::new(Kind::Native, &names);
    let mut keys = nodes[1].own_keys("hot", 60);
    keys.retain(|key| ring.owners(key, 2) == [1, 2]);
    assert!(keys.len() > 5);
    for key in &keys {
        for _ in 0..4 {
            nodes[2].get(key).await;
        }
    }
    let before = fills(&nodes);
    let won = nodes[0].counter(WON);
    proxy.pause(true);
    for key in &keys[..5] {
        // Long before the owner would be given up.
        let answer = timeout(Duration::from_secs(10), nodes[0].get(key)).await;
        assert_eq!(answer.expect("in time"), *key);
    }
    assert_eq!(fills(&nodes), before, "a hedge never fills");
    assert!(nodes[0].counter(WON) >= won + 5);
    proxy.pause(false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_works_on_its_answer_is_waited_for_and_nobody_else_fills() {
    let (nodes, _proxy) = behind_a_proxy(Duration::from_secs(2)).await;
    let before = fills(&nodes);
    let key = nodes[1].own_keys("slow", 1).remove(0);
    assert_eq!(nodes[0].get(&key).await, b"late");
    assert_eq!(fills(&nodes), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hedges_are_a_tenth_of_the_questions_at_most() {
    let (nodes, proxy) = behind_a_proxy(Duration::from_millis(50)).await;
    proxy.pause(true);
    for key in nodes[1].own_keys("lost", 60) {
        nodes[0].get(&key).await;
    }
    // 200 questions before, and 60 now, if each was put.
    let hedges = nodes[0].counter(WON) + nodes[0].counter(LOST);
    assert!(hedges <= 26, "{hedges}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_spread_over_a_few_links_and_no_more() {
    let (nodes, proxy) = behind_a_proxy(PATIENCE).await;
    assert_eq!(proxy.connections(), 4);
    for key in nodes[1].own_keys("more", 100) {
        nodes[0].get(&key).await;
    }
    assert_eq!(proxy.connections(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stands_still_is_not_taken_for_back_because_its_links_are_open() {
    let (nodes, proxy) = behind_a_proxy(Duration::from_secs(1)).await;
    let is_asked = async |nodes: &[Node]| {
        let health = nodes[0].fleet.health();
        let address = proxy.addr().to_string();
        health.iter().any(|peer| peer.authority == address && peer.is_asked)
    };
    assert!(is_asked(&nodes).await);
    proxy.pause(true);
    for key in nodes[1].own_keys("lost", 3) {
        nodes[0].get(&key).await;
    }
    assert!(!is_asked(&nodes).await, "three questions came to nothing");
    // Probes give up the links that were open, and make others to no avail.
    let before = proxy.connections();
    until("it was probed twice", || async {
        assert!(!is_asked(&nodes).await);
        proxy.connections() > before
    })
    .await;
    proxy.pause(false);
    until("it is back", || is_asked(&nodes)).await;
    let key = nodes[1].own_keys("back", 1).remove(0);
    assert!(matches!(
        nodes[0].group.get(&key, &patience()).await.expect("a value").provenance.served,
        Served::Peer { .. }
    ));
}
