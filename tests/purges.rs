//! What is purged on one node of a cluster is purged on all of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use cachecluster::{
    config::{Caching, Cluster, Peers},
    group::{Context, Fill, Group, Outcome, getter_fn},
    node::Node,
    value::{Freshness, Head},
};
use tokio::sync::Semaphore;

use crate::{
    cluster::{KeyFile, agree, member},
    harness::{
        origin::{self, Origin},
        until,
    },
};

/// An origin whose values have the version that is in force when they are read.
#[derive(Clone)]
struct Source {
    version: Arc<AtomicU64>,
    /// Reads that may be answered: none while the gate is shut.
    gate: Arc<Semaphore>,
}

impl Source {
    fn new() -> Self {
        Self { version: Arc::default(), gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)) }
    }

    /// Changes every value.
    fn change(&self) {
        self.version.fetch_add(1, SeqCst);
    }

    fn now(&self) -> Vec<u8> {
        self.version.load(SeqCst).to_string().into_bytes()
    }
}

/// Nodes of one cluster in this process, with a group `g` that is filled from `source`; the
/// label of a value is the first letter of its key.
async fn cluster(net: u8, count: u8, source: &Source, key: &KeyFile) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for host in 1..=count {
        let from = source.clone();
        let getter = getter_fn(move |fill: Fill| {
            let from = from.clone();
            async move {
                let body = from.now();
                let _permit = from.gate.acquire().await;
                let tag = String::from_utf8_lossy(&fill.key[..1]).into();
                let head = Head { tags: vec![tag], ..Head::default() };
                Ok(Outcome::described(body, head, Freshness::default()))
            }
        });
        let seeds = nodes.first().and_then(Node::gossip_addr);
        let settings = Cluster {
            key_file: key.path(),
            bind: format!("127.0.{net}.{host}"),
            port: 0,
            seeds: seeds.iter().map(ToString::to_string).collect(),
            ..Cluster::default()
        };
        let peers = Peers {
            listen: Some(([127, 0, net, host], 0).into()),
            connect_timeout: Duration::from_secs(20),
            sign_timeout: Duration::from_secs(20),
            ..Peers::default()
        };
        let node = Node::builder()
            .group("g", Caching::default(), getter)
            .cluster(settings)
            .peers(peers)
            .start()
            .expect("a node");
        nodes.push(node);
    }
    until("all share the keys", || async {
        nodes.iter().all(|node| node.owners() == usize::from(count))
    })
    .await;
    nodes
}

async fn get(group: &Arc<Group>, key: &str) -> Vec<u8> {
    let cx = Context::within(Duration::from_secs(20));
    group.get(key.as_bytes(), &cx).await.expect("a value").value.body().to_vec()
}

fn groups(nodes: &[Node]) -> Vec<Arc<Group>> {
    nodes.iter().map(|node| node.group("g").expect("the group")).collect()
}

/// Has every node hold every key: the owner its own, the others a hot copy.
async fn warm(groups: &[Arc<Group>], keys: &[String]) {
    for group in groups {
        for key in keys {
            until("it is held", || async {
                get(group, key).await;
                group.peek(key.as_bytes()).is_some()
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_a_label_or_a_group_is_purged_on_every_node_from_any() {
    let (source, key) = (Source::new(), KeyFile::new());
    let nodes = cluster(63, 3, &source, &key).await;
    let groups = groups(&nodes);
    let keys: Vec<_> = ["a1", "a2", "b1", "b2"].map(str::to_owned).into();
    for (round, from) in groups.iter().cycle().take(6).enumerate() {
        warm(&groups, &keys).await;
        let old = source.now();
        source.change();
        let purged: &[&str] = match round % 3 {
            0 => {
                assert!(from.purge(b"a1"));
                &["a1"]
            }
            1 => {
                assert_eq!(from.purge_tag("b"), 2);
                &["b1", "b2"]
            }
            _ => {
                from.purge_all();
                &["a1", "a2", "b1", "b2"]
            }
        };
        // Whoever purged sees nothing older from that moment on, whoever it asks.
        for key in purged {
            assert_eq!(get(from, key).await, source.now(), "{key}");
        }
        for group in &groups {
            for key in &keys {
                let is_purged = purged.contains(&key.as_str());
                let expected = if is_purged { source.now() } else { old.clone() };
                until("the purge is known everywhere", || async {
                    get(group, key).await == expected
                })
                .await;
            }
        }
        // All begin the next round alike.
        groups[0].purge_all();
        until("nobody holds anything old", || async {
            for group in &groups {
                for key in &keys {
                    if get(group, key).await != source.now() {
                        return false;
                    }
                }
            }
            true
        })
        .await;
    }
    for node in nodes {
        node.stop().expect("a clean end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_begun_before_a_purge_undoes_it_nowhere() {
    let (source, key) = (Source::new(), KeyFile::new());
    let nodes = cluster(64, 3, &source, &key).await;
    let groups = groups(&nodes);
    for round in 0..20 {
        let key = format!("k{round}");
        source.gate.forget_permits(usize::MAX);
        // Everybody waits for one fill that has read the old value.
        let asking: Vec<_> = groups
            .iter()
            .map(|group| {
                let (group, key) = (Arc::clone(group), key.clone());
                tokio::spawn(async move { get(&group, &key).await })
            })
            .collect();
        until("the fill is under way", || async {
            groups.iter().any(|group| group.usage().flights > 0)
        })
        .await;
        source.change();
        let from = &groups[round % groups.len()];
        from.purge(key.as_bytes());
        source.gate.add_permits(Semaphore::MAX_PERMITS);
        assert_eq!(get(from, &key).await, source.now());
        for asked in asking {
            asked.await.expect("an answer");
        }
        for group in &groups {
            until("the purge holds", || async { get(group, &key).await == source.now() }).await;
        }
        // What holds now is what stays.
        for group in &groups {
            assert_eq!(get(group, &key).await, source.now());
        }
    }
    for node in nodes {
        node.stop().expect("a clean end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stood_still_learns_of_purges_before_it_serves() {
    let version = Arc::new(AtomicU64::new(0));
    let served = Arc::clone(&version);
    let origin =
        Origin::start(move |_| origin::ok("", served.load(SeqCst).to_string().as_bytes())).await;
    let key = KeyFile::new();
    let nodes: Vec<_> = (1..=3).map(|host| member(65, host, &key, &origin)).collect();
    agree(&nodes).await;
    let keys: Vec<_> = (0..20).map(|number| format!("/items/k{number}")).collect();
    for node in &nodes {
        for key in keys.iter().flat_map(|key| [key; 5]) {
            assert_eq!(node.get(key).await.text(), "0");
        }
    }
    let away = &nodes[2];
    away.signal("STOP");
    version.store(1, SeqCst);
    for key in &keys {
        let purged = crate::harness::client::request(nodes[0].http, "DELETE", key).await;
        assert!(matches!(purged.status, 200 | 204), "{}", purged.text());
    }
    // Long enough that its own threads can tell.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    away.signal("CONT");
    for key in &keys {
        assert_eq!(away.get(key).await.text(), "1", "{key}");
    }
    for node in &nodes {
        for key in &keys {
            assert_eq!(node.get(key).await.text(), "1", "{key}");
        }
    }
}
