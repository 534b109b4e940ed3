//! Nodes of this program asking one another over links.

mod code;
mod foreign;
mod hedges;
mod hints;
mod rings;
mod warm;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use cachecluster::{
    config::{Caching, Http, Peers},
    front::http::{HttpFront, Linked, Manners, Serving},
    group::{
        BoxFuture, Context, Fill, FillError, GetError, Getter, Group, Groups, Outcome, Tidings,
    },
    metrics::Metrics,
    peer::{Family, Fleet, Member, Ties, Times},
    value::{Freshness, Head, Served},
    wire::{Dialect, link::Secret},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Handle,
    task::JoinSet,
    time::timeout,
};

use crate::harness::{PATIENCE, client, until};

/// A group behind a port for peers, and the fleet by which it asks others.
struct Node {
    group: Arc<Group>,
    fleet: Arc<Fleet>,
    address: SocketAddr,
    fills: Arc<AtomicUsize>,
    serving: Option<Serving>,
    groups: Arc<Groups>,
    metrics: Metrics,
}

/// What a node is to be like.
#[derive(Clone)]
struct Wish {
    secret: Secret,
    code: u64,
    tidings: Option<Arc<dyn Tidings>>,
    settings: Peers,
    links: usize,
    times: Times,
}

impl Default for Wish {
    fn default() -> Self {
        let secret = Secret::new("test", b"key");
        // However busy the machine is.
        let times = Times { connect: PATIENCE, sign: PATIENCE, peek: PATIENCE };
        let settings = Peers { answer_timeout: PATIENCE, ..Peers::default() };
        Self { secret, code: 0, tidings: None, settings, links: 2, times }
    }
}

/// The getter of every node, and how often it was asked.
struct Loader {
    code: u64,
    fills: Arc<AtomicUsize>,
}

impl Getter for Loader {
    fn load(&self, fill: Fill) -> BoxFuture<'_, Result<Outcome, FillError>> {
        self.fills.fetch_add(1, SeqCst);
        Box::pin(load(fill))
    }

    fn code(&self) -> u64 {
        self.code
    }
}

/// What the getter of every node answers.
async fn load(fill: Fill) -> Result<Outcome, FillError> {
    /// Over all nodes: no two fills bring the same.
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let text = String::from_utf8_lossy(&fill.key).into_owned();
    let size = |text: &str| text.split(':').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0);
    match text.split(':').next() {
        Some("numbered") => Ok(Outcome::found(format!("number {}", NUMBER.fetch_add(1, SeqCst)))),
        Some("none") => Ok(Outcome::not_found()),
        Some("down") => Err(FillError::Unavailable {
            message: "the origin is down".into(),
            retry_after: Some(Duration::from_secs(7)),
        }),
        Some("denied") => Err(FillError::Denied("not for you".into())),
        Some("slow") => {
            tokio::time::sleep(Duration::from_secs(4)).await;
            Ok(Outcome::found("late"))
        }
        Some("size") => Ok(Outcome::found(vec![b'x'; size(&text)])),
        Some("page") => {
            let head = Head {
                content_type: Some("text/html".parse().expect("a media type")),
                tags: vec!["news".into()],
                ..Head::default()
            };
            Ok(Outcome::described("<p>", head, Freshness::ttl(Duration::from_mins(5))))
        }
        Some("once") => {
            let freshness = Freshness::ttl(Duration::ZERO);
            Ok(Outcome::described("once", Head::default(), freshness))
        }
        _ => Ok(Outcome::found(&fill.key)),
    }
}

fn start(wish: &Wish) -> Node {
    let fills = Arc::new(AtomicUsize::new(0));
    let getter = Arc::new(Loader { code: wish.code, fills: Arc::clone(&fills) });
    let metrics = Metrics::new();
    let caching =
        Caching { value_max: cachecluster::config::ByteSize::mib(8), ..Caching::default() };
    let group = Group::new("g", caching, getter, Handle::current(), metrics.group("g"));
    let (secret, tidings) = (wish.secret.clone(), wish.tidings.clone());
    let (links, times) = (wish.links, wish.times);
    let together = Ties { secret, tidings, links, times, metrics: metrics.fleet() };
    let fleet = Fleet::of_nodes(together, &wish.settings, Handle::current()).expect("settings");
    group.join_peers(Arc::clone(&fleet) as _, metrics.peers("g"));
    let groups = Arc::new(Groups::default());
    groups.replace([Arc::clone(&group)]);
    let serving = serve(&groups, &metrics, wish, ([127, 0, 0, 1], 0).into());
    let address = serving.local_addr();
    Node { group, fleet, address, fills, serving: Some(serving), groups, metrics }
}

fn serve(groups: &Arc<Groups>, metrics: &Metrics, wish: &Wish, listen: SocketAddr) -> Serving {
    let front = HttpFront::bind_peers(listen, &Http { threads: 1, ..Http::default() });
    let is_golang =
        !wish.settings.groupcache.is_empty() && Family::from(wish.settings.family).plus_is_space();
    let manners = Manners { dialect: Dialect::V2, plus_is_space: is_golang, value_max: 1 << 20 };
    let linked = Linked { secret: wish.secret.clone(), tidings: wish.tidings.clone() };
    let serving = front.expect("the port").serve_peers(groups, metrics, manners, Some(linked));
    serving.expect("a thread")
}

/// Nodes that know one another.
fn fleet(count: usize) -> Vec<Node> {
    let nodes: Vec<_> = (0..count).map(|_| start(&Wish::default())).collect();
    let all: Vec<_> = nodes.iter().collect();
    introduce(&all);
    nodes
}

/// Tells each of `nodes` of all of them.
fn introduce(nodes: &[&Node]) {
    for me in nodes {
        me.fleet.set_members(&members(nodes, me));
    }
}

/// `nodes` as they look to `me`.
fn members(nodes: &[&Node], me: &Node) -> Vec<Member> {
    let member = |node: &&Node| Member {
        name: node.address.to_string(),
        address: node.address,
        weight: 1,
        is_self: node.address == me.address,
    };
    nodes.iter().map(member).collect()
}

fn fills(nodes: &[Node]) -> usize {
    nodes.iter().map(|node| node.fills.load(SeqCst)).sum()
}

impl Node {
    async fn get(&self, key: &[u8]) -> Vec<u8> {
        self.group.get(key, &patience()).await.expect("a value").value.body().to_vec()
    }

    fn is_remote(&self, key: &[u8]) -> bool {
        cachecluster::group::Peers::is_remote(&*self.fleet, "g", key)
    }

    /// Keys that begin so and are this node's own.
    fn own_keys(&self, begin: &str, count: usize) -> Vec<Vec<u8>> {
        let keys = (0..).map(|number| format!("{begin}:{number}").into_bytes());
        keys.filter(|key| !self.is_remote(key)).take(count).collect()
    }

    /// What a counter stands at.
    fn counter(&self, series: &str) -> u64 {
        let text = self.metrics.encode();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0, |count| count.parse().expect("a number"))
    }
}

fn patience() -> Context {
    Context::within(PATIENCE)
}

/// A key that begins so and belongs to the other one of two nodes.
fn key_of_the_other(nodes: &[Node], begin: &str) -> Vec<u8> {
    nodes[1].own_keys(begin, 1).remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_is_filled_once_by_its_owner_and_comes_back_exact() {
    let nodes = fleet(3);
    let keys: Vec<Vec<u8>> = [&b""[..], b"a//b", b"../x", b"\xff\x00", b"a b", b"%2F"]
        .map(<[u8]>::to_vec)
        .into_iter()
        .chain((0..500).map(|i| format!("key{i}").into_bytes()))
        .collect();
    for key in &keys {
        for node in &nodes {
            let hit = node.group.get(key, &patience()).await.expect("a value");
            assert_eq!(hit.value.body(), key);
        }
    }
    let fills: Vec<_> = nodes.iter().map(|node| node.fills.load(SeqCst)).collect();
    assert_eq!(fills.iter().sum::<usize>(), keys.len(), "{fills:?}");
    assert!(fills.iter().all(|&fills| fills > 100), "{fills:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_owner_says_arrives_whole() {
    let nodes = fleet(2);
    let get = async |begin: &str| {
        let key = key_of_the_other(&nodes, begin);
        nodes[0].group.get(&key, &patience()).await
    };
    let page = get("page").await.expect("a value");
    assert_eq!(page.value.content_type().map(http::HeaderValue::as_bytes), Some(&b"text/html"[..]));
    assert_eq!(page.value.head().map(|head| head.tags.len()), Some(1));
    assert!(page.provenance.ttl > Duration::from_mins(4), "{:?}", page.provenance);
    assert!(matches!(page.provenance.served, Served::Peer { .. }));
    assert!(matches!(get("none").await, Err(GetError::NotFound(_))));
    match get("down").await {
        Err(GetError::Fill { error: FillError::Unavailable { message, .. }, .. }) => {
            assert_eq!(message, "the origin is down");
        }
        other => panic!("{other:?}"),
    }
    let denied = get("denied").await;
    assert!(
        matches!(denied, Err(GetError::Fill { error: FillError::Denied(_), .. })),
        "{denied:?}"
    );
    // Not to be kept: asked for each time, and never a hot copy.
    for _ in 0..5 {
        let once = get("once").await.expect("a value");
        assert_eq!(once.provenance.served, Served::Peer { stored: false });
    }
    assert_eq!(nodes[0].fills.load(SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_value_and_a_slow_one_hold_up_nobody() {
    let nodes = fleet(2);
    let slow = key_of_the_other(&nodes, "slow");
    let large = key_of_the_other(&nodes, &format!("size:{}", 4 << 20));
    let mut asked = JoinSet::new();
    let group = Arc::clone(&nodes[0].group);
    // Longer than the time in which a peer has to begin its answer: it says that it is at it.
    asked.spawn(async move { group.get(&slow, &patience()).await.map(|hit| hit.value) });
    let group = Arc::clone(&nodes[0].group);
    asked.spawn(async move { group.get(&large, &patience()).await.map(|hit| hit.value) });
    for number in 0..200 {
        let key = key_of_the_other(&nodes, &format!("quick{number}"));
        nodes[0].group.get(&key, &patience()).await.expect("a value");
    }
    assert!(!asked.is_empty());
    let values: Vec<_> = asked.join_all().await;
    for value in values {
        let value = value.expect("a value");
        assert!(value.body() == b"late" || value.body().len() == 4 << 20);
    }
    assert_eq!(nodes[0].fills.load(SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_harms_no_other_question_on_the_link() {
    let nodes = fleet(2);
    for round in 0..50 {
        let key = key_of_the_other(&nodes, &format!("slow{round}"));
        let gone = Context::within(Duration::from_millis(1));
        let _ = nodes[0].group.get(&key, &gone).await;
    }
    let key = key_of_the_other(&nodes, "still");
    assert!(nodes[0].group.get(&key, &patience()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_have_the_key_is_not_answered() {
    let nodes = fleet(2);
    let secret = Secret::new("test", b"another key");
    let stranger = start(&Wish { secret, ..Wish::default() });
    let all: Vec<_> = nodes.iter().chain([&stranger]).collect();
    stranger.fleet.set_members(&members(&all, &stranger));
    for number in 0..30 {
        let key = format!("key{number}").into_bytes();
        stranger.group.get(&key, &patience()).await.expect("filled by itself");
    }
    assert_eq!(stranger.fills.load(SeqCst), 30, "nobody else would tell it anything");
    assert_eq!(fills(&nodes), 0);

    // Noise in the place of a handshake ends the connection without a byte.
    let mut socket = TcpStream::connect(nodes[0].address).await.expect("a listener");
    socket.write_all(b"CCLINK\x00\x01").await.expect("sent");
    socket.write_all(&[7; 48]).await.expect("sent");
    let mut answer = Vec::new();
    let ended = timeout(PATIENCE, socket.read_to_end(&mut answer)).await;
    ended.expect("in time").ok();
    assert_eq!(answer, b"");
    // The same port answers the family's protocol.
    let found = client::get(nodes[0].address, "/_groupcache/g/k").await;
    assert_eq!(found.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_and_comes_back_is_asked_again() {
    let mut nodes = fleet(2);
    let key = key_of_the_other(&nodes, "key");
    nodes[0].group.get(&key, &patience()).await.expect("a value");
    drop(nodes[1].serving.take());
    for number in 0..20 {
        let key = key_of_the_other(&nodes, &format!("lost{number}"));
        nodes[0].group.get(&key, &patience()).await.expect("filled here");
    }
    assert_eq!(nodes[0].fills.load(SeqCst), 20);
    // Another node takes the address of the one that died.
    let mut again = start(&Wish::default());
    drop(again.serving.take());
    let _serving = serve(&again.groups, &Metrics::new(), &Wish::default(), nodes[1].address);
    let mut number = 0;
    until("the node is asked again", || {
        number += 1;
        let group = Arc::clone(&nodes[0].group);
        let fills = Arc::clone(&again.fills);
        async move {
            let _ = group.get(format!("back{number}").as_bytes(), &patience()).await;
            fills.load(SeqCst) > 0
        }
    })
    .await;
}
