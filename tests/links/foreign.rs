//! Nodes that know one another by gossip, and peers of the family that they know by hand.

use cachecluster::{
    config::{self, Family},
    ring::{self, Kind, Ring},
};

use super::*;
use crate::{
    fleet::{Books, hex, keys, names, value},
    harness::go::{self, GoPeer},
};

fn with_foreign(urls: &[String], family: Family) -> Wish {
    let settings = Peers { groupcache: urls.to_vec(), family, ..Wish::default().settings };
    Wish { settings, ..Wish::default() }
}

fn url(node: &Node) -> String {
    format!("http://{}", node.address)
}

/// Two nodes over links and one peer of golang/groupcache: one ring, everything filled once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_a_cluster_share_the_ring_of_a_go_peer() {
    if !go::is_there() {
        return;
    }
    let theirs = names(1);
    let wish = with_foreign(&theirs, Family::Groupcache);
    let nodes = [start(&wish), start(&wish)];
    introduce(&[&nodes[0], &nodes[1]]);
    let all: Vec<_> = nodes.iter().map(url).chain(theirs.clone()).collect();
    let books = Books::open().await;
    let origin = format!("http://{}", books.origin.addr());
    let go = GoPeer::start(&theirs[0], &all.join(","), &origin);
    let ring_nodes: Vec<_> = all.iter().map(ring::Node::new).collect();
    let ring = Ring::new(Kind::Groupcache, &ring_nodes);
    let keys = keys(1_500);
    let mut by_go = 0;
    for key in &keys {
        let owner = ring.owner(key).expect("an owner");
        let expected = if owner == 2 { value(key) } else { key.clone() };
        for node in &nodes {
            assert_eq!(node.get(key).await, expected);
        }
        let answer = client::get(go.front, &format!("/{}", hex(key))).await;
        assert_eq!((answer.status, &answer.body), (200, &expected), "{key:?} of {owner}");
        by_go += usize::from(owner == 2);
        assert_eq!(books.of(key).len(), usize::from(owner == 2));
    }
    assert_eq!(fills(&nodes) + by_go, keys.len());
    assert!(by_go > 100 && fills(&nodes) > 100);
    // Over a link, which a Go peer does not have.
    let health = nodes[0].fleet.health();
    assert_eq!(health.iter().filter(|peer| peer.is_ours).count(), 1);
    assert!(health.iter().all(|peer| peer.is_asked));
    drop(go);
    for number in 0..60 {
        let key = format!("after:{number}").into_bytes();
        assert_eq!(nodes[0].get(&key).await, key, "the others fill for it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_may_name_members_too_and_they_are_asked_over_links() {
    let first = start(&Wish::default());
    let wish = with_foreign(&[url(&first)], Family::GroupcacheGo);
    let second = start(&wish);
    second.fleet.set_members(&members(&[&first, &second], &second));
    let health = second.fleet.health();
    assert_eq!(health.len(), 1);
    assert!(health[0].is_ours);
    // Without a word of gossip about it, it is still in the list.
    second.fleet.set_members(&members(&[&second], &second));
    let health = second.fleet.health();
    assert_eq!((health.len(), health[0].is_ours), (1, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_gone_is_known_before_anybody_asks_it() {
    let theirs = names(1);
    let listen = theirs[0].trim_start_matches("http://").parse().expect("an address");
    let node = start(&with_foreign(&theirs, Family::GroupcacheGo));
    node.fleet.set_members(&members(&[&node], &node));
    let is_asked = async || node.fleet.health()[0].is_asked;
    until("it is known to be gone", || async { !is_asked().await }).await;
    let back = start(&Wish::default());
    let wish = Wish::default();
    let _serving = serve(&back.groups, &Metrics::new(), &wish, listen);
    until("it is known to be back", is_asked).await;
}

#[test]
fn a_bad_entry_of_the_list_is_told() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let ties = Ties {
        secret: Secret::new("test", b"key"),
        tidings: None,
        links: 1,
        times: Times::default(),
        metrics: Metrics::new().fleet(),
    };
    let groupcache = vec!["https://10.0.0.1:9080".to_owned()];
    let settings = Peers { groupcache, ..Peers::default() };
    let error = Fleet::of_nodes(ties, &settings, Handle::current()).err();
    assert_eq!(error, Some(config::peers::BadPeer::Scheme));
}
