//! Many callers of one key, through real sockets and a real plugin.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{io::AsyncWriteExt as _, net::TcpStream, sync::watch, task::JoinSet};

use crate::harness::{
    client,
    node::{Node, component},
    origin::{self, Origin},
    until,
};

/// A node whose group `items` asks the HTTP origin at `origin` for `/items/{key}`.
pub(crate) fn node(origin: std::net::SocketAddr, caching: &str) -> Node {
    let plugin = component("http");
    Node::with(format!(
        r#"
        [plugins.origin]
        source = "{}"
        config = {{ url = "http://{origin}/items/{{key}}", timeout = "5s" }}
        network = {{ http = ["http://{origin}"], allow_private = ["127.0.0.0/8"] }}
        failure = {{ retries = 0 }}
        [groups.items]
        plugin = "origin"
        [groups.items.cache]
        {caching}
        "#,
        plugin.display(),
    ))
    .start()
}

const MISSES: &str = "cachecluster_gets_total{group=\"items\",outcome=\"miss\"}";
const COLLAPSED: &str = "cachecluster_gets_total{group=\"items\",outcome=\"collapsed\"}";

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_gets_of_a_cold_key_ask_the_origin_once() {
    let (open, opened) = watch::channel(false);
    let origin = Origin::gated(opened, |_| origin::ok("", b"the answer")).await;
    let node = Arc::new(node(origin.addr(), ""));
    // The first caller goes away in the middle of it.
    let mut first = TcpStream::connect(node.http).await.expect("to connect");
    first.write_all(b"GET /items/cold HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("to send");
    until("the first caller waits", || async { node.metric(MISSES).await >= 1.0 }).await;

    let mut callers = JoinSet::new();
    for _ in 0..1_000 {
        let node = Arc::clone(&node);
        callers.spawn(async move { node.get("/items/cold").await });
    }
    drop(first);
    until("all callers wait", || async { node.metric(COLLAPSED).await >= 1_000.0 }).await;
    open.send_replace(true);
    for answer in callers.join_all().await {
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"the answer"[..]));
    }
    assert_eq!(origin.requests(), 1);
    assert!(node.get("/items/cold").await.header("cache-status").contains("; hit"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_key_asks_the_origin_once_for_each_backoff_window() {
    let origin = Origin::start(|_| origin::status("500 Internal Server Error")).await;
    let node = Arc::new(node(origin.addr(), "backoff = \"1h\"\nbackoff_max = \"1h\""));
    for _ in 0..4 {
        let mut callers = JoinSet::new();
        for _ in 0..250 {
            let node = Arc::clone(&node);
            callers.spawn(async move { node.get("/items/broken").await });
        }
        for answer in callers.join_all().await {
            assert!(matches!(answer.status, 502 | 503), "{answer:?}");
            let wait: u64 = answer.header("retry-after").parse().expect("seconds");
            assert!((1..=3_600).contains(&wait));
        }
    }
    assert_eq!(origin.requests(), 1);
    // A purge ends the window.
    assert_eq!(client::request(node.http, "DELETE", "/items/broken").await.status, 204);
    node.get("/items/broken").await;
    assert_eq!(origin.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_key_is_tried_again_after_its_window() {
    let healthy = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&healthy);
    let origin = Origin::start(move |_| {
        if state.load(Ordering::SeqCst) {
            origin::ok("", b"back")
        } else {
            origin::status("503 Service Unavailable")
        }
    })
    .await;
    let node = node(origin.addr(), "backoff = \"100ms\"\nbackoff_max = \"200ms\"");
    assert_eq!(node.get("/items/k").await.status, 503);
    healthy.store(true, Ordering::SeqCst);
    until("the key recovers", || async { node.get("/items/k").await.status == 200 }).await;
}
