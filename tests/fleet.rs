//! One fleet of real Go groupcache peers and of nodes of ours.

mod changes;

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use cachecluster::{
    config::{Caching, Http, Peers},
    group::{Context, Fill, FillError, Outcome, getter_fn},
    node::Node,
    ring::{self, Kind, Ring},
};
use tokio::task::JoinSet;

use crate::harness::{
    client,
    go::{self, GoPeer},
    origin::{self, Origin},
};

/// The value of every key.
pub(crate) fn value(key: &[u8]) -> Vec<u8> {
    [b"value of ", key].concat()
}

pub(crate) fn hex(key: &[u8]) -> String {
    key.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hexadecimal"))
        .collect()
}

/// An origin that all nodes fill from, and who asked it for what.
pub(crate) struct Books {
    pub(crate) origin: Origin,
    asked: Arc<Mutex<HashMap<Vec<u8>, Vec<String>>>>,
}

impl Books {
    pub(crate) async fn open() -> Self {
        let asked = Arc::<Mutex<HashMap<Vec<u8>, Vec<String>>>>::default();
        let book = Arc::clone(&asked);
        let origin = Origin::start(move |request| {
            let key = unhex(request.target.trim_start_matches('/'));
            let by = request.headers.iter().find_map(|line| {
                let (name, by) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("x-asked-by").then(|| by.to_owned())
            });
            book.lock()
                .expect("the book")
                .entry(key.clone())
                .or_default()
                .push(by.expect("a name"));
            origin::ok("", &value(&key))
        })
        .await;
        Self { origin, asked }
    }

    /// Who asked for `key`, once for each time.
    pub(crate) fn of(&self, key: &[u8]) -> Vec<String> {
        self.asked.lock().expect("the book").get(key).cloned().unwrap_or_default()
    }

    fn total(&self) -> usize {
        self.asked.lock().expect("the book").values().map(Vec::len).sum()
    }
}

/// A member of the fleet.
enum Member {
    Ours(Box<Node>),
    Go(GoPeer),
}

/// Members by their names in the ring.
struct Fleet {
    names: Vec<String>,
    members: BTreeMap<String, Member>,
    books: Books,
    ring: Ring,
}

/// Base URLs on loopback addresses that no other test has.
pub(crate) fn names(count: u32) -> Vec<String> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let first = NEXT.fetch_add(count, SeqCst);
    let process = std::process::id();
    let (a, b) = (64 + process % 64, process / 64 % 256);
    (first..first + count).map(|host| format!("http://127.{a}.{b}.{host}:9080")).collect()
}

impl Fleet {
    /// `ours` nodes of this program and `go` peers of golang/groupcache.
    async fn start(ours: usize, go: usize) -> Self {
        let names = names(u32::try_from(ours + go).expect("a few"));
        let books = Books::open().await;
        let nodes: Vec<_> = names.iter().map(ring::Node::new).collect();
        let ring = Ring::new(Kind::Groupcache, &nodes);
        let mut fleet = Self { names, members: BTreeMap::new(), books, ring };
        for at in 0..ours + go {
            let member = if at < ours { fleet.ours(at) } else { fleet.go(at) };
            fleet.members.insert(fleet.names[at].clone(), member);
        }
        fleet
    }

    fn ours(&self, at: usize) -> Member {
        let (me, addr) = (self.names[at].clone(), self.books.origin.addr());
        let listen = Some(me.trim_start_matches("http://").parse().expect("an address"));
        let others = self.names.iter().filter(|name| **name != me).cloned().collect();
        let peers = Peers { listen, url: me.clone(), groupcache: others, ..Peers::default() };
        let fill = getter_fn(move |fill: Fill| {
            let me = me.clone();
            async move {
                let request = format!(
                    "GET /{} HTTP/1.1\r\nhost: origin\r\nx-asked-by: {me}\r\n\r\n",
                    hex(&fill.key)
                );
                let answer = client::exchange(addr, request.as_bytes()).await;
                match answer.status {
                    200 => Ok(Outcome::found(answer.body)),
                    status => Err(FillError::Unavailable {
                        message: status.to_string(),
                        retry_after: None,
                    }),
                }
            }
        });
        let http = Http { listen: ([127, 0, 0, 1], 0).into(), ..Http::default() };
        let node = Node::builder().group("g", Caching::default(), fill).http(http).peers(peers);
        Member::Ours(Box::new(node.start().expect("a node")))
    }

    fn go(&self, at: usize) -> Member {
        let origin = format!("http://{}", self.books.origin.addr());
        Member::Go(GoPeer::start(&self.names[at], &self.names.join(","), &origin))
    }

    fn owner(&self, key: &[u8]) -> &str {
        &self.names[self.ring.owner(key).expect("an owner")]
    }

    /// A get of `key` by a client of the member `name`.
    async fn get(&self, name: &str, key: &[u8]) -> Result<Vec<u8>, String> {
        match &self.members[name] {
            Member::Ours(node) => {
                let group = node.group("g").expect("the group");
                let hit = group.get(key, &Context::within(Duration::from_secs(20))).await;
                hit.map(|hit| hit.value.body().to_vec()).map_err(|error| error.to_string())
            }
            Member::Go(peer) => {
                let answer = client::get(peer.front, &format!("/{}", hex(key))).await;
                if answer.status == 200 { Ok(answer.body) } else { Err(answer.text()) }
            }
        }
    }

    fn is_go(&self, name: &str) -> bool {
        matches!(self.members.get(name), Some(Member::Go(_)))
    }
}

/// Keys of every kind.
pub(crate) fn keys(count: usize) -> Vec<Vec<u8>> {
    let odd: [&[u8]; 16] = [
        b"",
        b"/",
        b"a//b",
        b"../x",
        b"/lead",
        b"tail/",
        b"a b",
        b"a+b",
        b"%2F",
        b"%",
        b"?q=1",
        b"#f",
        b"\xff\x00\x80",
        "日本語".as_bytes(),
        b"_remove-keys/",
        b"line\nbreak",
    ];
    let plain = (0..count - odd.len()).map(|i| match i % 4 {
        0 => format!("k{i}").into_bytes(),
        1 => format!("user:{i}/picture").into_bytes(),
        2 => format!("http://example.com/?page={i}&x=a+b").into_bytes(),
        _ => i.to_le_bytes().to_vec(),
    });
    odd.into_iter().map(<[u8]>::to_vec).chain(plain).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_keys_have_one_owner_in_a_mixed_fleet_and_are_filled_once() {
    if !go::is_there() {
        return;
    }
    let fleet = Arc::new(Fleet::start(2, 2).await);
    let keys = Arc::new(keys(10_000));
    let mut clients = JoinSet::new();
    for client in 0..8 {
        let (fleet, keys) = (Arc::clone(&fleet), Arc::clone(&keys));
        clients.spawn(async move {
            for key in keys.iter().skip(client).step_by(8) {
                for name in &fleet.names {
                    let owner = fleet.owner(key);
                    // Go's own client writes a space as a plus, and its server takes that
                    // for itself: between two Go peers such a key is another one.
                    let is_lost_in_go = key.contains(&b' ') && fleet.is_go(owner);
                    if is_lost_in_go && fleet.is_go(name) && name != owner {
                        continue;
                    }
                    let answer = fleet.get(name, key).await;
                    let text = String::from_utf8_lossy(key);
                    assert_eq!(answer, Ok(value(key)), "{text:?} of {owner}, asked at {name}");
                }
            }
        });
    }
    clients.join_all().await;
    for key in keys.iter() {
        assert_eq!(fleet.books.of(key), [fleet.owner(key)], "{:?}", String::from_utf8_lossy(key));
    }
    // Each kind owns its share.
    let by_go = keys.iter().filter(|key| fleet.is_go(fleet.owner(key))).count();
    assert!((2_000..8_000).contains(&by_go), "{by_go}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_either_kind_costs_nobody_an_error() {
    if !go::is_there() {
        return;
    }
    for victim in [1, 3] {
        let mut fleet = Fleet::start(2, 2).await;
        let victim = fleet.names[victim].clone();
        for key in 0..200_u32 {
            let name = fleet.names[key as usize % 4].clone();
            let key = format!("key{key}").into_bytes();
            assert_eq!(fleet.get(&name, &key).await, Ok(value(&key)));
        }
        let before = fleet.books.total();
        fleet.members.remove(&victim);
        for key in 0..400_u32 {
            let key = format!("key{key}").into_bytes();
            for name in fleet.names.iter().filter(|name| **name != victim) {
                let answer = fleet.get(name, &key).await;
                assert_eq!(answer, Ok(value(&key)), "{key:?} of {}", fleet.owner(&key));
            }
        }
        assert!(fleet.books.total() > before, "what it owned is filled again");
    }
}

/// Ours alone: the keys of a dead node are filled by one stand-in and not by everybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_a_dead_node_are_filled_once_by_its_stand_in() {
    let mut fleet = Fleet::start(4, 0).await;
    let victim = fleet.names[2].clone();
    fleet.members.remove(&victim);
    let lost: Vec<_> =
        (0..1_000_u32).map(u32::to_be_bytes).filter(|key| fleet.owner(key) == victim).collect();
    assert!(lost.len() > 50);
    for key in &lost {
        for name in fleet.names.iter().filter(|name| **name != victim) {
            assert_eq!(fleet.get(name, key).await, Ok(value(key)));
        }
        let stand_in = &fleet.names[fleet.ring.owners(key, 2)[1]];
        assert_eq!(fleet.books.of(key), [stand_in.as_str()]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_gets_of_a_cold_key_over_five_nodes_ask_the_origin_once() {
    let fleet = Arc::new(Fleet::start(5, 0).await);
    let mut clients = JoinSet::new();
    for client in 0..1_000 {
        let fleet = Arc::clone(&fleet);
        clients.spawn(async move {
            let name = fleet.names[client % 5].clone();
            assert_eq!(fleet.get(&name, b"cold").await, Ok(value(b"cold")));
        });
    }
    clients.join_all().await;
    assert_eq!(fleet.books.of(b"cold"), [fleet.owner(b"cold")]);
}

#[tokio::test]
async fn a_peer_is_answered_as_the_family_answers() {
    let fleet = Fleet::start(2, 0).await;
    let name = &fleet.names[0];
    let addr: SocketAddr = name.trim_start_matches("http://").parse().expect("an address");
    let found = client::get(addr, "/_groupcache/g/a%2Fb").await;
    assert_eq!(found.status, 200);
    assert_eq!(found.header("content-type"), "application/x-protobuf");
    assert_eq!(found.body[..2], [0x0a, 12]);
    assert_eq!(found.body[2..14], *b"value of a/b");
    assert_eq!(found.body[14], 0x18, "when it expires");
    // The same from memory, without hyper.
    let again = client::get(addr, "/_groupcache/g/a%2Fb").await;
    assert_eq!((again.status, &again.body[..14]), (200, &found.body[..14]));
    for (target, status, text) in [
        ("/_groupcache/g", 400, "the path has the form"),
        ("/_groupcache/nope/k", 404, "no such group: nope"),
        ("/elsewhere", 400, "peers are served below"),
    ] {
        let refused = client::get(addr, target).await;
        assert_eq!(refused.status, status, "{target}");
        assert!(refused.text().contains(text), "{}", refused.text());
    }
    assert_eq!(client::request(addr, "DELETE", "/_groupcache/g/a%2Fb").await.status, 200);
    assert_eq!(client::get(addr, "/_groupcache/g/a%2Fb").await.status, 200);
    assert_eq!(fleet.books.of(b"a/b").len(), 2, "it was forgotten in between");
}
