//! What goes wrong in a cluster, and what its clients see of it: five nodes that are
//! processes of their own, an origin that counts, clients that go on asking all the while
//! and compare each body with what it has to be.
//!
//! - `crashes`: nodes die.
//! - `crowds`: many ask for one key, or for odd ones; noise at the port for gossip.
//! - `liars`: peers whose answers are not what they should be.
//! - `network`: packets are lost, repeated, spoilt; nodes are cut off from one another.
//! - `pauses`: nodes stand still, for seconds or for half a minute.
//! - `restarts`: nodes are stopped and started again, one by one or over and over.
//!
//! Times are not judged here: the machine may be busy with other things. Counts are.

mod crashes;
mod crowds;
mod liars;
mod network;
mod pauses;
mod restarts;

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex as Lock},
    thread,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::JoinSet,
};

use crate::{
    cluster::KeyFile,
    harness::{
        client,
        load::{Demand, Load, Window},
        node::{Builder, Node, component},
        origin::{self, Origin},
        until,
    },
};

/// What a small machine bears at a time.
static ROOM: Semaphore = Semaphore::const_new(2);

/// For a test that counts closely, or whose nodes die with requests under way: five nodes and
/// their clients, and nobody beside them.
async fn alone() -> SemaphorePermit<'static> {
    ROOM.acquire_many(2).await.expect("it is never closed")
}

/// For a test of which most is waiting, and to which it is all the same how long an answer
/// takes: another such one may run beside it.
async fn beside_another() -> SemaphorePermit<'static> {
    ROOM.acquire().await.expect("it is never closed")
}

/// The value of the key that an origin is asked for at `path`: of a length and of bytes
/// that no other key has.
fn value(path: &str) -> Vec<u8> {
    let mark = xxhash_rust::xxh3::xxh3_64(path.as_bytes());
    let line = format!("{path} {mark:016x}\n");
    line.repeat(1 + mark as usize % 40).into_bytes()
}

/// An origin that knows how often it was asked for what.
struct Books {
    origin: Origin,
    asked: Arc<Lock<HashMap<String, usize>>>,
}

impl Books {
    async fn open(address: Ipv4Addr) -> Self {
        let asked = Arc::<Lock<HashMap<String, usize>>>::default();
        let book = Arc::clone(&asked);
        let answer = move |request: &origin::Asked| {
            let target = &request.target;
            *book.lock().expect("the book").entry(target.clone()).or_default() += 1;
            if target.contains("broken") {
                return origin::status("500 Internal Server Error");
            }
            origin::ok("", &value(target))
        };
        Self { origin: Origin::start_at(address, answer).await, asked }
    }

    /// How often it was asked for what is at `path`.
    fn of(&self, path: &str) -> usize {
        self.asked.lock().expect("the book").get(path).copied().unwrap_or(0)
    }

    fn total(&self) -> usize {
        self.origin.requests()
    }
}

/// Five nodes that share the keys.
struct Five {
    nodes: Vec<Node>,
    books: Books,
    _key: KeyFile,
}

impl Five {
    /// Starts them at 127.0.`net`.1 and so on, and waits until they agree.
    async fn start(net: u8) -> Self {
        let address = |host| Ipv4Addr::new(127, 0, net, host);
        Self::start_at(address, Ipv4Addr::LOCALHOST, |_, node| node).await
    }

    /// Starts them at addresses of their own, each as `place` would have it, with an origin
    /// at `here`, and waits until they agree.
    async fn start_at(
        address: impl Fn(u8) -> Ipv4Addr,
        here: Ipv4Addr,
        place: impl Fn(u8, Builder) -> Builder,
    ) -> Self {
        let (books, key) = (Books::open(here).await, KeyFile::new());
        let seeds = format!("\"{}\", \"{}\"", address(1), address(2));
        let builder = |host| {
            let own = address(host);
            let config = settings(own, &seeds, &key, books.origin.addr());
            let node = Node::with(config)
                .env("CACHECLUSTER_HTTP__LISTEN", format!("{own}:8080"))
                .env("CACHECLUSTER_ADMIN__LISTEN", format!("{own}:9081"));
            place(host, node)
        };
        // The first compiles the plugin if need be, and is there when the others look for it.
        let mut nodes = vec![builder(1).start()];
        let others: Vec<_> = (2..=5).map(builder).collect();
        nodes.extend(thread::scope(|threads| {
            let starting: Vec<_> =
                others.into_iter().map(|node| threads.spawn(|| node.start())).collect();
            let started = starting.into_iter().map(|node| node.join().expect("a node"));
            started.collect::<Vec<_>>()
        }));
        let five = Self { nodes, books, _key: key };
        five.agree(&[0, 1, 2, 3, 4]).await;
        five
    }

    /// Waits until each of `alive` sees all of them own keys, and nobody else, and they have
    /// the same ring.
    async fn agree(&self, alive: &[usize]) {
        until(&format!("{alive:?} agree who owns keys"), || async {
            let mut rings = Vec::new();
            for &node in alive {
                let told = self.nodes[node].admin("/members").await.json();
                if told["owners"] != alive.len() {
                    return false;
                }
                rings.push(told["ring"].clone());
            }
            rings.iter().all(|ring| *ring == rings[0])
        })
        .await;
    }

    /// How many nodes own keys, as `node` has it.
    async fn owners(&self, node: usize) -> u64 {
        self.nodes[node].admin("/members").await.json()["owners"].as_u64().unwrap_or(0)
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.http).collect()
    }

    /// Which node owns `key` of the group `items`.
    async fn owner(&self, key: &str) -> usize {
        let told = self.nodes[0].admin(&format!("/groups/items/keys/{key}")).await.json();
        let (named, members) = (&told["owners"][0]["node"], self.nodes[0].admin("/members").await);
        let members = members.json();
        let found = members["members"].as_array().expect("members").iter();
        let peers = found
            .filter(|member| member["node"] == *named)
            .find_map(|member| member["peers"].as_str()?.parse::<SocketAddr>().ok())
            .unwrap_or_else(|| panic!("no owner of {key}: {told} {members}"));
        self.nodes.iter().position(|node| node.http.ip() == peers.ip()).expect("one of five")
    }

    /// Asks for each of `count` keys once, at one node or another.
    async fn warm(&self, count: usize, path: fn(usize) -> String) {
        let mut clients = JoinSet::new();
        for client in 0..16 {
            let addresses = self.addresses();
            clients.spawn(async move {
                for number in (client..count).step_by(16) {
                    let (node, path) = (addresses[number % 5], path(number));
                    let answer = client::get(node, &path).await;
                    assert_eq!((answer.status, answer.body), (200, value(&path)), "{path}");
                }
            });
        }
        clients.join_all().await;
    }
}

/// A group that is filled from the origin.
fn plugin(group: &str, origin: SocketAddr) -> String {
    format!(
        r#"
        [plugins.{group}]
        source = "{}"
        config = {{ url = "http://{origin}/{group}/{{key}}", timeout = "5s" }}
        network = {{ http = ["http://{origin}"], allow_private = ["127.0.0.0/8", "198.18.0.0/15"] }}
        failure = {{ retries = 0, faults = 0, ratio = 1.0 }}
        [groups.{group}]
        plugin = "{group}"
        "#,
        component("http").display()
    )
}

/// The settings of one node: the group `items` keeps values for long, `brief` for seconds.
fn settings(address: Ipv4Addr, seeds: &str, key: &KeyFile, origin: SocketAddr) -> String {
    format!(
        r#"
        [cluster]
        bind = "{address}"
        seeds = [{seeds}]
        key_file = "{}"
        {}
        [groups.items.cache]
        backoff = "1h"
        backoff_max = "1h"
        {}
        [groups.brief.cache]
        ttl = "4s"
        ttl_jitter = 0.0
        grace = "0s"
        "#,
        key.path().display(),
        plugin("items", origin),
        plugin("brief", origin),
    )
}

fn item(number: usize) -> String {
    format!("/items/k{number}")
}

fn brief(number: usize) -> String {
    format!("/brief/k{number}")
}

/// Clients of all of `five`, for `keys` keys at `path`.
fn load(five: &Five, rate: u32, keys: usize, path: fn(usize) -> String) -> Load {
    Load::start(&five.addresses(), Demand { rate, keys, hot: 0.0, path, value })
}

/// Says what a window was like: figures for people, judged by nobody.
fn tell(what: &str, window: &Window, origin: usize) {
    say(&format!(
        "{what}: {} requests in {:.1} s, {} errors, {:.2} % over 1 s, {} refused, {} stale, \
         p50 {:?}, p99 {:?}, origin {origin}; {:?}",
        window.done.len(),
        window.lasted.as_secs_f64(),
        window.errors().len(),
        100.0 * window.slow(),
        window.refused,
        window.stale,
        window.within(0.5),
        window.within(0.99),
        window
            .errors()
            .iter()
            .take(3)
            .map(|it| (it.began, it.node + 1, &it.end))
            .collect::<Vec<_>>(),
    ));
}

#[expect(clippy::print_stderr, reason = "figures are shown with --nocapture")]
fn say(what: &str) {
    eprintln!("{what}");
}
