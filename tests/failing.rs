//! An origin that goes down and comes back, as its clients and the operator see it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::task::JoinSet;

use crate::harness::{
    node::{Node, component},
    origin::{self, Origin},
    until,
};

/// A node with the HTTP plugin in front of `origin`, whose values are stale at once.
fn node(origin: std::net::SocketAddr, failure: &str) -> Node {
    Node::with(format!(
        r#"
        [plugins.origin]
        source = "{}"
        config = {{ url = "http://{origin}/items/{{key}}" }}
        network = {{ http = ["http://{origin}"], allow_private = ["127.0.0.0/8"] }}
        failure = {{ {failure} }}
        [groups.items]
        plugin = "origin"
        cache = {{ ttl = "1ms", grace = "1h" }}
        "#,
        component("http").display(),
    ))
    .start()
}

const OPENINGS: &str = "cachecluster_plugin_breaker_openings_total{plugin=\"origin\"}";
const LEFT_ALONE: &str = "urn:cachecluster:problem:left-alone";
const CLOSED: &str = "cachecluster_plugin_breaker_state{plugin=\"origin\",state=\"closed\"}";

/// The state of the breaker, as the status has it.
async fn breaker(node: &Node) -> String {
    let status = node.admin("/status").await.json();
    status["plugins"][0]["health"]["breaker"]["state"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn an_origin_that_is_down_is_left_alone_until_it_is_back() {
    let is_down = Arc::new(AtomicBool::new(false));
    let origin = Origin::start({
        let is_down = Arc::clone(&is_down);
        move |_| {
            if is_down.load(Ordering::SeqCst) {
                origin::status("503 Service Unavailable")
            } else {
                origin::ok("", b"value")
            }
        }
    })
    .await;
    let node = Arc::new(node(origin.addr(), r#"open = "1s", open_max = "2s", retries = 0"#));
    assert_eq!(node.get("/items/old").await.status, 200);
    assert_eq!(breaker(&node).await, "closed");

    is_down.store(true, Ordering::SeqCst);
    let before = origin.requests();
    let mut refused = Vec::new();
    for key in 0..100 {
        let target = format!("/items/cold{key}");
        let answer = node.get(&target).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        let wait = answer.header("retry-after").parse::<u64>();
        assert!(wait.is_ok_and(|wait| wait >= 1), "{answer:?}");
        if answer.json()["type"] == LEFT_ALONE {
            refused.push(target);
        }
    }
    assert!(refused.len() > 50, "{}", refused.len());
    // The origin saw the faults that it took to be sure, and one call after each pause.
    let openings = node.metric(OPENINGS).await;
    assert!(openings >= 1.0, "{}", node.log());
    assert_eq!((origin.requests() - before) as f64, 5.0 + openings - 1.0);
    assert_ne!(breaker(&node).await, "closed");

    // Clients are told so, and what memory holds is served for its grace.
    until("a cold key is refused without a call", || async {
        let answer = node.get("/items/cold").await;
        answer.json()["type"] == LEFT_ALONE
            && answer.text().contains("plugins.origin.failure")
            && answer.text().contains("503")
    })
    .await;
    for _ in 0..100 {
        let stale = node.get("/items/old").await;
        assert_eq!((stale.status, stale.body.as_slice()), (200, &b"value"[..]));
    }

    is_down.store(false, Ordering::SeqCst);
    until("a cold key is filled", || async { node.get("/items/fresh").await.status == 200 }).await;
    assert_eq!((node.metric(CLOSED).await, breaker(&node).await.as_str()), (1.0, "closed"));
    // So are all that were refused, at once.
    let mut callers = JoinSet::new();
    for target in refused {
        let node = Arc::clone(&node);
        callers.spawn(async move { node.get(&target).await.status });
    }
    assert!(callers.join_all().await.into_iter().all(|status| status == 200));
    let told = |text: &str| node.log().lines().filter(|line| line.contains(text)).count();
    assert_eq!((told("its breaker opened."), told("its breaker closed.")), (1, 1));
}

#[tokio::test]
async fn a_short_outage_is_waited_out_within_the_fill() {
    let left = AtomicUsize::new(2);
    let origin = Origin::start(move |_| {
        let is_over = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |it| it.checked_sub(1));
        match is_over {
            Ok(_) => origin::status("503 Service Unavailable"),
            Err(_) => origin::ok("", b"value"),
        }
    })
    .await;
    let node = node(origin.addr(), "");
    assert_eq!(node.get("/items/k").await.status, 200);
    assert_eq!(origin.requests(), 3);
    assert_eq!(node.metric("cachecluster_plugin_retries_total{plugin=\"origin\"}").await, 2.0);
}
