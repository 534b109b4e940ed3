//! Purges and values that are put, in a fleet that nothing else tells of them.

use std::sync::atomic::AtomicUsize;

use cachecluster::{
    config::Family,
    group::{Group, Told},
    value::Value,
};

use super::*;

/// Nodes in one fleet of a family. No two fills bring the same.
struct Trio {
    nodes: Vec<Option<Node>>,
    names: Vec<String>,
    fills: Arc<AtomicUsize>,
}

impl Trio {
    fn start(family: Family) -> Self {
        let (names, fills) = (names(3), Arc::new(AtomicUsize::new(0)));
        let node = |me: &String| {
            let listen = Some(me.trim_start_matches("http://").parse().expect("an address"));
            let others = names.iter().filter(|name| *name != me).cloned().collect();
            let answer_timeout = Duration::from_secs(20);
            let peers = Peers {
                listen,
                url: me.clone(),
                groupcache: others,
                family,
                answer_timeout,
                ..Peers::default()
            };
            let fills = Arc::clone(&fills);
            let fill = getter_fn(move |_: Fill| {
                let number = fills.fetch_add(1, SeqCst);
                async move { Ok::<_, FillError>(Outcome::found(format!("number {number}"))) }
            });
            let http = Http { listen: ([127, 0, 0, 1], 0).into(), ..Http::default() };
            let node = Node::builder().group("g", Caching::default(), fill).http(http);
            Some(node.peers(peers).start().expect("a node"))
        };
        let nodes = names.iter().map(node).collect();
        Self { nodes, names, fills }
    }

    fn node(&self, at: usize) -> &Node {
        self.nodes[at].as_ref().expect("it runs")
    }

    fn group(&self, at: usize) -> Arc<Group> {
        self.node(at).group("g").expect("the group")
    }

    async fn get(&self, at: usize, key: &[u8]) -> Vec<u8> {
        let cx = Context::within(Duration::from_secs(20));
        let hit = self.group(at).get(key, &cx).await.expect("a value");
        hit.value.body().to_vec()
    }

    /// Has every node that runs hold a copy of the key.
    async fn spread(&self, key: &[u8]) -> Vec<u8> {
        let mut value = Vec::new();
        for at in (0..3).filter(|at| self.nodes[*at].is_some()) {
            for _ in 0..5 {
                value = self.get(at, key).await;
            }
            assert!(self.group(at).peek(key).is_some());
        }
        value
    }

    fn owner(&self, kind: Kind, key: &[u8]) -> usize {
        let nodes: Vec<_> = self.names.iter().map(ring::Node::new).collect();
        Ring::new(kind, &nodes).owner(key).expect("an owner")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_reaches_the_owner_and_every_copy() {
    let trio = Trio::start(Family::Mailgun);
    for (number, key) in ["a//b", "a b", "%2F", "plain", "日本語", "../x"].iter().enumerate() {
        let old = trio.spread(key.as_bytes()).await;
        // Of a client, and of an operator.
        let path = format!("/g/{}", key.replace('%', "%25").replace(' ', "%20"));
        let path = if key.is_ascii() { path } else { "/g/%E6%97%A5%E6%9C%AC%E8%AA%9E".to_owned() };
        let addr = trio.node(number % 3).http_addr().expect("a front");
        let purged = client::request(addr, "DELETE", &path).await;
        assert_eq!(purged.status, 204, "{}", purged.text());
        for at in 0..3 {
            assert!(trio.group(at).peek(key.as_bytes()).is_none(), "{key} at {at}");
        }
        let new = trio.get(0, key.as_bytes()).await;
        assert_ne!(new, old);
        assert_eq!(trio.get(1, key.as_bytes()).await, new);
        assert_eq!(trio.get(2, key.as_bytes()).await, new);
    }
    assert_eq!(trio.fills.load(SeqCst), 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_says_whom_it_could_not_reach_and_reaches_the_others() {
    let mut trio = Trio::start(Family::Mailgun);
    trio.spread(b"k").await;
    drop(trio.nodes[2].take());
    let addr = trio.node(0).http_addr().expect("a front");
    let purged = client::request(addr, "DELETE", "/g/k").await;
    assert_eq!(purged.status, 502);
    let text = purged.text();
    assert!(text.contains("purge-incomplete") && text.contains("\"missed\": 1"), "{text}");
    assert!(text.contains("\"told\": 1"), "{text}");
    for at in 0..2 {
        assert!(trio.group(at).peek(b"k").is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_is_put_is_its_owners_and_nobody_keeps_another() {
    let trio = Trio::start(Family::Mailgun);
    for number in 0..6 {
        let key = format!("key{number}").into_bytes();
        trio.spread(&key).await;
        let before = trio.fills.load(SeqCst);
        let value = Value::new(format!("put {number}").as_bytes());
        let ttl = Some(Duration::from_secs(30));
        let telling = trio.group(number % 3).put_everywhere(&key, value.clone(), ttl);
        let told = telling.expect("there are peers").await;
        assert_eq!(told, Told { told: 2, missed: 0 });
        for at in 0..3 {
            assert_eq!(trio.get(at, &key).await, value.body());
        }
        assert_eq!(trio.fills.load(SeqCst), before);
        let owner = trio.group(trio.owner(Kind::GroupcacheGo, &key));
        let held = owner.peek(&key).expect("in memory").expect("a value");
        assert!(held.provenance.ttl <= Duration::from_secs(31), "{:?}", held.provenance);
    }
}

/// golang/groupcache takes every method for a `GET`: it must not be told anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_cannot_be_told_are_not() {
    let trio = Trio::start(Family::Groupcache);
    trio.spread(b"k").await;
    let (was_here, telling) = trio.group(0).purge_everywhere(b"k");
    assert!(was_here && telling.is_none());
    assert!(trio.group(0).put_everywhere(b"k", Value::new(b"v"), None).is_none());
    let addr = trio.node(0).http_addr().expect("a front");
    assert_eq!(client::request(addr, "DELETE", "/g/k").await.status, 204);
}
