//! Peers whose answers are not what the protocol has, or answer another question: each such
//! one is a peer that failed. Whoever asked has the value all the same, from a stand-in or the
//! origin, and nothing that a liar said is ever served or kept.
//!
//! The node is a process; its peers are in the test's hands, and one of them is honest, so
//! that what the others say is known to be all that is wrong with them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use cachecluster::{
    cluster::{self, Cluster, Keys, Meta, Sockets, State, Tuning},
    wire::{
        GetResponse,
        link::{CHUNK_MAX, Frame, Handshake, Incoming, PREFACE, Question, Secret, Terms, check},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use xxhash_rust::xxh3::xxh3_64;

use super::{Books, item, plugin, settings, value};
use crate::{
    cluster::KeyFile,
    harness::{node::Node, until},
};

/// Keys that the node is asked for.
const KEYS: usize = 240;

/// What liars say that a value is.
const LIE: &[u8] = b"a lie";

/// Which of the peers is honest.
const HONEST: usize = 0;

/// A peer in the test's hands.
struct Peer {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    answering: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

impl Peer {
    /// Has `talk` answer each connection to port 9080 of `address`, and count the questions.
    async fn start<T>(
        address: Ipv4Addr,
        talk: impl Fn(TcpStream, Arc<AtomicUsize>) -> T + Send + 'static,
    ) -> Self
    where
        T: Future<Output = Option<()>> + Send + 'static,
    {
        let listener = TcpListener::bind((address, 9_080)).await.expect("an address");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&asked);
        let answering = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(talk(stream, Arc::clone(&count)));
            }
        });
        Self { address, asked, answering }
    }
}

/// All keys have their values twice over, and only the honest one of `peers` was believed.
async fn nobody_is_taken_in(node: &Node, books: &Books, peers: &[Peer]) {
    let mut keys_of = vec![0; peers.len()];
    let mut believed = 0;
    for number in 0..KEYS {
        let path = item(number);
        let key = path.trim_start_matches("/items/");
        let told = node.admin(&format!("/groups/items/keys/{key}")).await.json();
        let owner = told["owners"][0]["peers"].as_str().map(str::to_owned);
        let owner = peers.iter().position(|peer| owner == Some(peer.address.to_string()));
        for _ in 0..2 {
            let answer = node.get(&path).await;
            assert_eq!((answer.status, answer.body), (200, value(&path)), "{path} of {owner:?}");
        }
        let Some(owner) = owner else { continue };
        keys_of[owner] += 1;
        believed += usize::from(owner == HONEST && books.of(&path) == 0);
    }
    assert!(keys_of.iter().all(|keys| *keys > 0), "{keys_of:?}");
    assert!(believed > 0, "the honest one was not believed either");
    for (number, peer) in peers.iter().enumerate() {
        assert!(peer.asked.load(SeqCst) > 0, "nobody has asked {number}");
    }
    let outcome = |outcome: &str| {
        format!("cachecluster_peer_questions_total{{group=\"items\",outcome=\"{outcome}\"}}")
    };
    assert!(node.metric(&outcome("unanswered")).await > 0.0);
    assert_eq!(node.metric(&outcome("not_found")).await, 0.0);
}

/// The message in which the family answers.
fn message(value: &[u8]) -> Vec<u8> {
    let (head, tail) = GetResponse::around(value.len(), None);
    [head.as_ref(), value, tail.as_ref()].concat()
}

/// How a peer of the family answers a get of `path`: the length that it tells, the body, and
/// whether the connection ends after it.
type Manner = fn(&str) -> (usize, Vec<u8>, bool);

const OF_THE_FAMILY: [Manner; 6] = [
    |path| {
        let message = message(&value(path));
        (message.len(), message, false)
    },
    // A field that there is no such type of.
    |_| {
        let message = [message(LIE), vec![0x0f]].concat();
        (message.len(), message, false)
    },
    // A value that is longer than the message.
    |_| {
        let message = [&[0x0a, 100], LIE].concat();
        (message.len(), message, false)
    },
    // The value in a field of another type.
    |_| {
        let message = [message(LIE), vec![0x08, 1]].concat();
        (message.len(), message, false)
    },
    // A body that ends before the length that was told.
    |_| (message(LIE).len() + 10, message(LIE), true),
    // One that goes on behind it: the message is cut, and the rest is nobody's answer.
    |_| (message(LIE).len() - 2, message(LIE), false),
];

async fn as_the_family(
    mut stream: TcpStream,
    asked: Arc<AtomicUsize>,
    manner: Manner,
) -> Option<()> {
    let mut request = Vec::new();
    loop {
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(std::mem::take(&mut request)).ok()?;
        let target = head.split(' ').nth(1)?;
        asked.fetch_add(1, SeqCst);
        let (length, body, is_over) = manner(&target.replace("/_groupcache", ""));
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\
             content-length: {length}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), &body].concat()).await.ok()?;
        if is_over {
            return None;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_of_the_family_that_answer_nonsense_are_passed_over() {
    let books = Books::open(Ipv4Addr::LOCALHOST).await;
    let mut peers = Vec::new();
    for (host, manner) in (2..).zip(OF_THE_FAMILY) {
        let talk = move |stream, asked| as_the_family(stream, asked, manner);
        peers.push(Peer::start(Ipv4Addr::new(127, 0, 77, host), talk).await);
    }
    let urls: Vec<_> = peers.iter().map(|peer| format!("\"http://{}\"", peer.address)).collect();
    let node = Node::with(format!(
        r#"
        [peers]
        listen = "127.0.77.1:9080"
        url = "http://127.0.77.1:9080"
        groupcache = [{}]
        {}
        "#,
        urls.join(", "),
        plugin("items", books.origin.addr()),
    ))
    .start();
    nobody_is_taken_in(&node, &books, &peers).await;
}

/// What a member says when it is asked over a link, and whether it says no more then.
type Words = fn(&Question, &[u8]) -> (Vec<Said>, bool);

/// A frame, or bytes that are none.
enum Said {
    Frame(Frame),
    Noise(Vec<u8>),
}

/// A value's beginning, with this check.
fn found(check: u64, length: usize) -> Said {
    let ttl = Some(Duration::from_mins(5));
    Said::Frame(Frame::Found {
        check,
        terms: Terms { ttl, length: length as u64, ..Terms::default() },
    })
}

fn chunk(bytes: &[u8]) -> Said {
    Said::Frame(Frame::Chunk(Bytes::copy_from_slice(bytes)))
}

fn right(it: &Question) -> u64 {
    check(&it.group, &it.key, it.code)
}

const OVER_LINKS: [Words; 7] = [
    |it, value| {
        assert!(value.len() <= CHUNK_MAX);
        (vec![found(right(it), value.len()), chunk(value)], false)
    },
    // The value of another key.
    |it, _| (vec![found(check(&it.group, b"another", it.code), LIE.len()), chunk(LIE)], false),
    // One that other code has made.
    |it, _| (vec![found(check(&it.group, &it.key, it.code ^ 1), LIE.len()), chunk(LIE)], false),
    // That another key has none.
    |it, _| {
        let check = check(&it.group, b"another", it.code);
        (vec![Said::Frame(Frame::NotFound { check })], false)
    },
    // More than was told, and less, and what is no frame at all.
    |it, _| (vec![found(right(it), LIE.len() - 1), chunk(LIE)], false),
    |it, _| (vec![found(right(it), LIE.len() + 1), chunk(LIE)], true),
    |it, _| (vec![found(right(it), LIE.len() + 1), Said::Noise(vec![0xff; 64])], false),
];

async fn as_a_member(
    mut stream: TcpStream,
    asked: Arc<AtomicUsize>,
    (secret, words): (Secret, Words),
) -> Option<()> {
    let mut opening = [0; PREFACE.len() + Handshake::MESSAGE];
    stream.read_exact(&mut opening).await.ok()?;
    let theirs = opening[PREFACE.len()..].try_into().ok()?;
    let mut handshake = Handshake::accepted(&secret, theirs).expect("the key");
    stream.write_all(&handshake.write().ok()?).await.ok()?;
    let records = Arc::new(handshake.finish().ok()?);
    let (mut incoming, mut sealed) = (Incoming::new(Arc::clone(&records)), 0);
    loop {
        if stream.read_buf(incoming.room()).await.ok()? == 0 {
            return None;
        }
        incoming.open().ok()?;
        while let Some((id, frame)) = incoming.take().ok()? {
            let (Frame::Get(question) | Frame::Peek(question)) = frame else { continue };
            asked.fetch_add(1, SeqCst);
            let path = format!("/items/{}", String::from_utf8_lossy(&question.key));
            let (said, is_over) = words(&question, &value(&path));
            let mut plain = Vec::new();
            for said in said {
                match said {
                    Said::Frame(frame) => assert!(frame.write(id, &mut plain)),
                    Said::Noise(noise) => plain.extend(noise),
                }
            }
            let mut room = Vec::new();
            let bytes = records.seal(&plain, &mut sealed, &mut room).ok()?;
            stream.write_all(bytes).await.ok()?;
            if is_over {
                return None;
            }
        }
    }
}

/// A member whose peers' port is at `peer`.
async fn member(peer: SocketAddr, keys: Keys) -> Cluster {
    let gossip = SocketAddr::new(peer.ip(), 9_999);
    let meta = Meta {
        peer,
        weight: 100,
        zone: String::new(),
        version: String::new(),
        ring: xxh3_64(b"native 1"),
        plugins: Vec::new(),
        state: State::Serving,
    };
    let settings = cluster::Settings {
        cluster: "cachecluster".to_owned(),
        keys,
        advertise: gossip,
        meta,
        identity: None,
        tuning: Tuning::default(),
        hear: Arc::new(()),
    };
    let member = Cluster::start(settings, Sockets::bind(gossip).expect("a port"));
    let member = member.expect("a member");
    member.join(vec![SocketAddr::from(([127, 0, 78, 1], 9_999))]).await;
    member
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_answer_another_question_are_passed_over() {
    let (books, key) = (Books::open(Ipv4Addr::LOCALHOST).await, KeyFile::new());
    let keys = Keys::from_file(&key.path()).expect("the key");
    let secret = Secret::new("cachecluster", &keys.primary().derive("links"));
    let (mut peers, mut members) = (Vec::new(), Vec::new());
    for (host, words) in (2..).zip(OVER_LINKS) {
        let secret = secret.clone();
        let talk = move |stream, asked| as_a_member(stream, asked, (secret.clone(), words));
        let peer = Peer::start(Ipv4Addr::new(127, 0, 78, host), talk).await;
        members.push(member(peer.address, keys.clone()).await);
        peers.push(peer);
    }
    let own = Ipv4Addr::new(127, 0, 78, 1);
    let node = Node::with(settings(own, "\"127.0.78.2\"", &key, books.origin.addr())).start();
    let all = peers.len() as u64 + 1;
    until("all are in the ring", || async { crate::cluster::owners(&node).await == all }).await;
    nobody_is_taken_in(&node, &books, &peers).await;
}
