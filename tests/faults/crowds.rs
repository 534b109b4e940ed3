//! Many ask for one key, or for odd ones; and noise at the port for gossip.

use std::{
    fmt::Write as _,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use cachecluster::cluster::{
    Key, Keys,
    machine::{Channel, Envelope},
};
use tokio::task::JoinSet;

use super::{Five, alone, item, tell, value};
use crate::harness::{
    client,
    load::{Demand, Load},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crowds_odd_keys_and_noise_leave_the_origin_and_the_cluster_in_peace() {
    let _alone = alone().await;
    let five = Arc::new(Five::start(76).await);
    // Nodes that have only just met may find one another slow to answer.
    five.warm(600, item).await;
    a_thousand_gets_of_a_cold_key(&five).await;
    a_key_that_fails(&five).await;
    odd_keys(&five).await;
    half_of_all_requests_for_one_key(&five).await;
    noise_at_the_port_for_gossip(&five).await;
}

/// `count` gets at once of the same path, spread over all nodes.
async fn crowd(five: &Arc<Five>, count: usize, path: &'static str) -> Vec<client::Response> {
    let mut callers = JoinSet::new();
    for caller in 0..count {
        let address = five.nodes[caller % 5].http;
        callers.spawn(async move { client::get(address, path).await });
    }
    callers.join_all().await
}

async fn a_thousand_gets_of_a_cold_key(five: &Arc<Five>) {
    for answer in crowd(five, 1_000, "/items/cold").await {
        assert_eq!((answer.status, answer.body), (200, value("/items/cold")));
    }
    assert_eq!(five.books.of("/items/cold"), 1);
}

/// Once for the whole cluster within one backoff window, which lasts an hour here.
async fn a_key_that_fails(five: &Arc<Five>) {
    for _ in 0..3 {
        for answer in crowd(five, 200, "/items/broken").await {
            assert!(matches!(answer.status, 502 | 503), "{answer:?}");
        }
    }
    assert_eq!(five.books.of("/items/broken"), 1);
}

/// What a client writes for `key`, with nothing left as it is.
fn written(key: &str) -> String {
    key.bytes().fold(String::new(), |mut text, byte| {
        write!(text, "%{byte:02X}").expect("a string takes everything");
        text
    })
}

fn unwritten(path: &str) -> Vec<u8> {
    let mut bytes = path.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => {
                let digits = [bytes.next(), bytes.next()].map(|digit| digit.expect("two digits"));
                let digits = std::str::from_utf8(&digits).expect("digits");
                u8::from_str_radix(digits, 16).expect("digits")
            }
            byte => byte,
        });
    }
    plain
}

/// Each of them is one key for all nodes, and the origin is asked for it as it is.
async fn odd_keys(five: &Arc<Five>) {
    let long = "ö/+ %2F".repeat(200);
    let odd = ["/", "//", "a//b", "a/../b", "../x", "/lead", "tail/", "a b", "a+b", "%2F", "%00"];
    let mut keys: Vec<String> = odd.into_iter().map(str::to_owned).collect();
    keys.extend((0..=255_u8).map(|byte| format!("byte{}", char::from(byte))));
    keys.push(long.chars().take(900).collect());
    assert!(keys.last().is_some_and(|key| key.len() >= 1_024));
    let before = five.books.total();
    for key in &keys {
        let path = format!("/items/{}", written(key));
        let mut answers = Vec::new();
        for node in &five.nodes {
            let answer = node.get(&path).await;
            assert_eq!(answer.status, 200, "{key:?}: {}", answer.text());
            answers.push(answer.body);
        }
        let asked = String::from_utf8(answers[0].clone()).expect("text");
        let asked = asked.split(' ').next().expect("what the origin was asked for");
        assert_eq!(unwritten(asked), format!("/items/{key}").as_bytes());
        assert!(answers.iter().all(|answer| *answer == value(asked)), "{key:?}");
        assert_eq!(five.books.of(asked), 1, "{key:?}");
    }
    assert_eq!(five.books.total() - before, keys.len());
    // Plugins take text.
    for node in &five.nodes {
        assert_eq!(node.get("/items/%FF").await.status, 400);
    }
}

/// The key's owner does not serve them all: everybody keeps a copy of what is hot.
async fn half_of_all_requests_for_one_key(five: &Arc<Five>) {
    let hot = |number| format!("/items/hot{number}");
    let demand = Demand { rate: 300, keys: 300, hot: 0.5, path: hot, value };
    let load = Load::start(&five.addresses(), demand);
    load.answered(300).await;
    let warming = load.window().await;
    let hits = "cachecluster_gets_total{group=\"items\",outcome=\"hit\"}";
    let owner = five.owner("hot0").await;
    let mut before = Vec::new();
    for node in &five.nodes {
        before.push(node.metric(hits).await);
    }
    load.answered(1_200).await;
    let window = load.window().await;
    tell("half for one key", &window, five.books.of("/items/hot0"));
    assert_eq!(warming.errors().len() + window.errors().len(), 0, "{:?}", window.errors());
    assert_eq!(five.books.of("/items/hot0"), 1);
    // Of its own clients, each node serves half at the least from its own memory.
    for (node, before) in five.nodes.iter().zip(before) {
        let hits = node.metric(hits).await - before;
        let asked = window.done.len() as f64 / 5.0;
        assert!(hits > 0.45 * asked, "{hits} hits of {asked} gets; {owner} owns the key");
    }
}

/// Whatever comes in without the key changes nothing, costs nobody an answer and gets none.
async fn noise_at_the_port_for_gossip(five: &Arc<Five>) {
    let demand = Demand { rate: 150, keys: 300, hot: 0.0, path: item, value };
    let load = Load::start(&five.addresses(), demand);
    let before = five.nodes[0].admin("/members").await.json();
    let gossip: Vec<SocketAddr> =
        five.nodes.iter().map(|node| SocketAddr::new(node.http.ip(), 9_999)).collect();
    let stranger = UdpSocket::bind("127.0.76.99:0").expect("a socket");
    stranger.set_nonblocking(true).expect("a socket");
    let noise = stranger.try_clone().expect("a socket");
    let sending = tokio::task::spawn_blocking(move || {
        let key = Key::generate().expect("randomness");
        let keys = Keys::new(key, []).expect("a key");
        let mut strange = Envelope::new("cachecluster", keys, 1);
        let sealed = strange.seal(Channel::Datagram, b"I am everybody, and everybody is dead.");
        let mut random = fastrand::Rng::with_seed(23);
        for round in 0..40_000_u32 {
            let mut packet = sealed.clone();
            match round % 5 {
                // Of a stranger who has another key, whole; cut off; with a byte that is not
                // as it was; and of another version.
                0 => {}
                1 => packet.truncate(random.usize(..packet.len())),
                2 => {
                    let at = random.usize(..packet.len());
                    packet[at] ^= random.u8(1..);
                }
                3 => packet[0] = random.u8(..),
                // Nothing at all like it, of any length that UDP has.
                _ => {
                    let most = if round % 100 == 4 { 65_507 } else { 1_400 };
                    packet = vec![0; random.usize(..=most)];
                    random.fill(&mut packet);
                }
            }
            let _ = noise.send_to(&packet, gossip[random.usize(..gossip.len())]);
        }
    });
    sending.await.expect("noise");
    five.nodes[0].logged("packets were not believed").await;
    let window = load.window().await;
    tell("noise", &window, 0);
    assert_eq!(window.errors().len(), 0, "{:?}", window.errors());
    let mut buffer = [0; 2_000];
    assert!(stranger.recv_from(&mut buffer).is_err(), "a stranger was answered");
    five.agree(&[0, 1, 2, 3, 4]).await;
    let after = five.nodes[0].admin("/members").await.json();
    assert_eq!(before["members"], after["members"]);
}
