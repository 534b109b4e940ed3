//! Five members over real sockets: they find one another, hear what each publishes, and see
//! one another go.

use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use cachecluster::cluster::{
    Cluster, Hear, Key, Keys, Meta, NOTICE_MAX, NodeId, Notice, PULSE, Refused, Settings, Sockets,
    State, Tuning, View,
    machine::{Channel, Envelope},
};

use tokio::{sync::watch, time::Instant};

/// Longer than anything here takes, on the busiest machine.
const PATIENCE: Duration = Duration::from_mins(1);

struct Node {
    cluster: Cluster,
    address: SocketAddr,
    heard: Arc<Heard>,
}

/// What a node was told, in its order.
#[derive(Default)]
struct Heard {
    notices: watch::Sender<Vec<Notice>>,
    is_current: watch::Sender<bool>,
    missed: Mutex<u32>,
}

impl Hear for Heard {
    fn notice(&self, notice: &Notice) {
        self.notices.send_modify(|all| all.push(notice.clone()));
    }

    fn missed(&self) {
        *self.missed.lock().expect("whole") += 1;
    }

    fn is_current(&self, is_current: bool) {
        self.is_current.send_replace(is_current);
    }
}

impl Node {
    fn start(keys: &Keys, host: u8) -> Self {
        let sockets = Sockets::bind(([127, 0, 0, host], 0).into()).expect("a free port");
        Self::start_with(keys, sockets, None)
    }

    fn start_with(keys: &Keys, sockets: Sockets, identity: Option<&Path>) -> Self {
        let address = sockets.address();
        let meta = Meta {
            peer: SocketAddr::new(address.ip(), 9080),
            weight: 100,
            zone: "a".to_owned(),
            version: "1".to_owned(),
            ring: 1,
            plugins: vec![],
            state: State::Serving,
        };
        let heard = Arc::<Heard>::default();
        let settings = Settings {
            cluster: "test".to_owned(),
            keys: keys.clone(),
            advertise: address,
            meta,
            identity: identity.map(Path::to_owned),
            tuning: Tuning::default(),
            hear: heard.clone(),
        };
        let cluster = Cluster::start(settings, sockets).expect("a member");
        Self { cluster, address, heard }
    }

    fn node(&self) -> NodeId {
        self.cluster.node()
    }

    /// Waits until the view is as wanted.
    async fn sees(&self, what: &str, is_so: impl Fn(&View) -> bool) {
        let mut view = self.cluster.view();
        let waiting = async { view.wait_for(|view| is_so(view)).await.is_ok() };
        let seen = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(seen == Ok(true), "{what}: {:?}", self.cluster.view().borrow());
    }
}

/// Waits until the value is as wanted.
async fn becomes<T: Clone>(of: &watch::Sender<T>, what: &str, is_so: impl Fn(&T) -> bool) -> T {
    let mut receiver = of.subscribe();
    let waiting = tokio::time::timeout(PATIENCE, receiver.wait_for(|it| is_so(it))).await;
    waiting.unwrap_or_else(|_| panic!("{what}")).expect("a sender").clone()
}

fn ring(view: &View) -> Vec<NodeId> {
    view.ring().map(|member| member.node).collect()
}

fn keys() -> Keys {
    Keys::new(Key::generate().expect("randomness"), []).expect("a key")
}

/// Nodes that all know one another, from one address of the first.
async fn five(keys: &Keys) -> Vec<Node> {
    let nodes: Vec<_> = (1..=5).map(|host| Node::start(keys, host)).collect();
    for node in &nodes[1..] {
        node.cluster.join(vec![nodes[0].address]).await;
    }
    for node in &nodes {
        node.sees("all five in the ring", |view| view.ring().count() == 5).await;
    }
    nodes
}

#[tokio::test]
async fn members_find_one_another_from_one_address_and_agree_on_the_ring() {
    let nodes = five(&keys()).await;
    let digest = nodes[0].cluster.view().borrow().ring_digest();
    for node in &nodes {
        let view = node.cluster.view();
        let view = view.borrow();
        assert_eq!(view.ring_digest(), digest);
        assert!(view.get(node.node()).is_some_and(|it| it.is_self && it.in_ring));
        assert_eq!(view.unknown, 0);
    }
}

#[tokio::test]
async fn a_notice_of_each_comes_to_all_others_once_and_so_it_does_to_a_joiner() {
    let keys = keys();
    let nodes = five(&keys).await;
    for node in &nodes {
        becomes(&node.heard.is_current, "current", |it| *it).await;
    }
    let mut published = Vec::new();
    for node in &nodes {
        // One that goes by gossip, and one that is too long for that.
        for len in [10, NOTICE_MAX] {
            let body = Bytes::from(vec![u8::try_from(published.len()).expect("few"); len]);
            let id = node.cluster.publish(body.clone()).await.expect("published");
            assert_eq!(id.node, node.node());
            published.push(Notice { id, body });
        }
        let too_long = Bytes::from(vec![0; NOTICE_MAX + 1]);
        assert_eq!(node.cluster.publish(too_long).await, Err(Refused::TooLong));
    }
    published.sort_by_key(|notice| notice.id);
    for node in &nodes {
        let mut all = becomes(&node.heard.notices, "eight notices", |all| all.len() >= 8).await;
        all.sort_by_key(|notice| notice.id);
        let others = published.iter().filter(|notice| notice.id.node != node.node());
        assert!(all.iter().eq(others));
    }
    let joiner = Node::start(&keys, 6);
    assert!(!*joiner.heard.is_current.borrow());
    joiner.cluster.join(vec![nodes[2].address]).await;
    let all = becomes(&joiner.heard.notices, "ten notices", |all| all.len() >= 10).await;
    assert_eq!(all.len(), 10);
    becomes(&joiner.heard.is_current, "current", |it| *it).await;
    assert!(nodes.iter().all(|node| *node.heard.missed.lock().expect("whole") == 0));
    // Nor has any come twice meanwhile.
    assert!(nodes.iter().all(|node| node.heard.notices.borrow().len() == 8));
    assert_eq!(*joiner.heard.missed.lock().expect("whole"), 0);
}

#[tokio::test]
async fn the_pulse_of_a_node_beats_though_nothing_happens() {
    let node = Node::start(&keys(), 1);
    let pulse = node.cluster.pulse();
    let began = Instant::now();
    // The thread may be kept waiting on a busy machine, but not for ever.
    while pulse.age(began + 8 * PULSE) > 2 * PULSE {
        tokio::time::sleep(PULSE / 10).await;
        assert!(began.elapsed() < PATIENCE, "it stands still");
    }
}

#[tokio::test]
async fn a_leave_and_a_death_are_seen_by_all() {
    let mut nodes = five(&keys()).await;
    let leaver = nodes.pop().expect("five");
    let gone = leaver.node();
    leaver.cluster.leave().await;
    for node in &nodes {
        node.sees("the leave", |view| view.get(gone).is_none()).await;
    }
    // Its socket is closed and nobody said a word. The hosts refuse connections.
    let dead = nodes.pop().expect("four").node();
    for node in &nodes {
        node.sees("the death", |view| view.get(dead).is_none()).await;
        assert_eq!(ring(&node.cluster.view().borrow()).len(), 3);
    }
    let refused: u64 =
        nodes.iter().map(|node| node.cluster.status().counters.challenges_refused).sum();
    assert!(refused > 0, "the death was not found by a refusal");
}

#[tokio::test]
async fn a_node_that_is_restarted_is_the_same_member() {
    let keys = keys();
    let folder = tempfile::tempdir().expect("a folder");
    let identity = folder.path().join("identity");
    let first = Node::start(&keys, 1);
    let sockets = Sockets::bind(([127, 0, 0, 2], 0).into()).expect("a free port");
    let second = Node::start_with(&keys, sockets, Some(&identity));
    let (name, address) = (second.node(), second.address);
    second.cluster.join(vec![first.address]).await;
    first.sees("the other", |view| view.get(name).is_some()).await;
    let generation = |node: &Node| node.cluster.view().borrow().get(name).map(|it| it.generation);
    let before = generation(&first);
    drop(second);
    let second = Node::start_with(&keys, free_again(address).await, Some(&identity));
    assert_eq!(second.node(), name);
    // Nobody told it where the other is, who knows where it was.
    first
        .sees("its next life", |view| view.get(name).is_some_and(|it| Some(it.generation) > before))
        .await;
    second.sees("the other", |view| view.members.len() == 2).await;
}

/// The port, once whoever had it is gone.
async fn free_again(address: SocketAddr) -> Sockets {
    let bound = async {
        loop {
            match Sockets::bind(address) {
                Ok(sockets) => return sockets,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, bound).await.expect("the port is free again")
}

#[tokio::test]
async fn whoever_has_no_key_changes_nothing_and_gets_no_answer() {
    let keys = keys();
    let nodes = five(&keys).await;
    let before = nodes[0].cluster.view().borrow().clone();
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    stranger.set_nonblocking(true).expect("a socket");
    let mut sealed = Envelope::new("test", Keys::insecure("test"), 1);
    for round in 0..200_u16 {
        let payload = round.to_be_bytes().repeat(usize::from(round) % 500 + 1);
        for packet in [sealed.seal(Channel::Datagram, &payload), payload] {
            let _ = stranger.send_to(&packet, nodes[0].address);
        }
    }
    // And by TCP.
    let mut stream = tokio::net::TcpStream::connect(nodes[0].address).await.expect("a listener");
    let request = sealed.seal(Channel::Request, b"who are you?");
    let mut frame = u32::try_from(request.len()).expect("short").to_be_bytes().to_vec();
    frame.extend(request);
    tokio::io::AsyncWriteExt::write_all(&mut stream, &frame).await.expect("written");
    let mut answer = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer);
    tokio::time::timeout(PATIENCE, read).await.expect("closed").ok();
    assert!(answer.is_empty(), "answered a stranger");
    // A node with another key never gets in, and neither does one of another cluster.
    let outsider = Node::start(&self::keys(), 9);
    outsider.sees("itself", |view| view.members.len() == 1).await;
    outsider.cluster.join(vec![nodes[0].address]).await;
    let counted = async {
        loop {
            let counters = nodes[0].cluster.status().counters;
            if counters.rejected_key + counters.rejected_seal > 20 {
                return counters;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("they were counted");
    assert_eq!(*nodes[0].cluster.view().borrow().clone(), *before);
    assert_eq!(outsider.cluster.view().borrow().members.len(), 1);
    let mut buffer = [0; 2_000];
    assert!(stranger.recv_from(&mut buffer).is_err(), "answered a stranger");
}
