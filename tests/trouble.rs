//! What goes wrong behind a node, and how its clients and its operator see it.

use std::time::Duration;

use tokio::{net::TcpListener, time::Instant};

use crate::{
    harness::{
        client,
        node::{Builder, Node, component},
        origin::{self, Origin},
        until,
    },
    stampede,
};

/// A node with the HTTP plugin in front of `origin`, and further settings of the plugin.
fn node(origin: std::net::SocketAddr, plugin: &str) -> Node {
    unstarted(origin, plugin).start()
}

/// The same before it is started.
fn unstarted(origin: std::net::SocketAddr, plugin: &str) -> Builder {
    Node::with(format!(
        r#"
        [groups.items]
        plugin = "origin"
        [plugins.origin]
        source = "{}"
        config = {{ url = "http://{origin}/items/{{key}}", timeout = "60s" }}
        network = {{ http = ["http://{origin}"], allow_private = ["127.0.0.0/8"] }}
        {plugin}
        "#,
        component("http").display(),
    ))
}

#[tokio::test]
async fn an_origin_that_takes_connections_and_says_nothing_is_a_504_in_time() {
    // Connections are accepted by the kernel, and nobody ever reads from them.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let node = node(silent.local_addr().expect("an address"), "limits = { timeout = \"500ms\" }");
    let start = Instant::now();
    let answer = node.get("/items/k").await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|wait| wait >= 1), "{answer:?}");
    assert_eq!(answer.json()["group"], "items");
    let status = node.admin("/status").await.json();
    let message = status["plugins"][0]["last_error"]["message"].as_str().unwrap_or_default();
    assert!(!message.is_empty(), "{status:#}");
    // The next caller is told from memory, and the node is as well as before.
    let start = Instant::now();
    assert!(node.get("/items/k").await.status >= 500);
    assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
    assert_eq!(node.admin("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_node_that_is_told_to_stop_waits_for_a_slow_fill_no_longer_than_it_drains() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let origin = silent.local_addr().expect("an address");
    let mut node = unstarted(origin, "").env("CACHECLUSTER_HTTP__DRAIN_TIMEOUT", "300ms").start();
    let addr = node.http;
    let caller = tokio::spawn(async move {
        // Cut off without an answer: there is none.
        let mut stream = tokio::net::TcpStream::connect(addr).await.expect("a listener");
        let request = b"GET /items/k HTTP/1.1\r\nhost: x\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, request).await.expect("to send");
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await.ok();
    });
    let _held = silent.accept().await.expect("the fill");
    let start = Instant::now();
    node.signal("TERM");
    let status = node.ended().await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    // Not a clean end: somebody was left without an answer.
    assert_eq!(status.code(), Some(1), "{}", node.log());
    node.logged("drain_timeout and was cut").await;
    assert!(!node.log().contains("panicked"), "{}", node.log());
    caller.await.expect("the caller is let go");
}

#[tokio::test]
async fn a_value_beyond_a_limit_is_a_502_that_names_the_limit() {
    let origin = Origin::start(|_| origin::ok("", &[7; 3_000])).await;
    let node = node(origin.addr(), "limits = { value = \"2KiB\" }");
    let answer = node.get("/items/large").await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains("2KiB") || detail.contains("2048"), "{detail}");
    let status = node.admin("/status").await.json();
    assert!(status["plugins"][0]["last_error"]["message"].is_string(), "{status:#}");
}

#[tokio::test]
async fn a_destination_without_a_grant_is_denied_with_the_line_that_grants_it() {
    let origin = Origin::start(|_| origin::ok("", b"v")).await;
    let node = Node::with(format!(
        "[plugins.origin]\nsource = {:?}\nconfig = {{ url = \"http://{}/{{key}}\" }}\n\
         [groups.items]\nplugin = \"origin\"\n",
        component("http").display().to_string(),
        origin.addr(),
    ))
    .start();
    let answer = node.get("/items/k").await;
    assert!(matches!(answer.status, 403 | 502), "{}", answer.text());
    let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains("network") && detail.contains("http = ["), "{detail}");
    node.logged("plugins.origin.network").await;
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn one_plugins_trouble_is_not_anothers() {
    let origin = Origin::start(|_| origin::ok("", b"v")).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let plugin = component("http");
    let section = |name: &str, addr: std::net::SocketAddr| {
        format!(
            "[plugins.{name}]\nsource = {:?}\nconfig = {{ url = \"http://{addr}/{{key}}\" }}\n\
             network = {{ http = [\"http://{addr}\"], allow_private = [\"127.0.0.0/8\"] }}\n\
             limits = {{ timeout = \"1s\", instances = 1, queue = 1 }}\n\
             [groups.{name}]\nplugin = \"{name}\"\n",
            plugin.display().to_string()
        )
    };
    let stuck = section("stuck", silent.local_addr().expect("an address"));
    let node = Node::with(stuck + &section("well", origin.addr())).start();
    let addr = node.http;
    let callers: Vec<_> = (0..20)
        .map(|key| tokio::spawn(async move { client::get(addr, &format!("/stuck/{key}")).await }))
        .collect();
    for key in 0..20 {
        let answer = node.get(&format!("/well/{key}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    for caller in callers {
        let answer = caller.await.expect("a caller");
        assert!(matches!(answer.status, 503 | 504), "{}", answer.text());
        assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
    }
    let status = node.admin("/status").await.json();
    assert!(status["plugins"][0]["last_error"]["message"].is_string(), "{status:#}");
    assert!(status["plugins"][1]["last_error"].is_null(), "{status:#}");
}

#[tokio::test]
async fn a_node_that_was_killed_starts_again_on_its_ports() {
    let origin = Origin::start(|_| origin::ok("", b"v")).await;
    let node = stampede::node(origin.addr(), "");
    assert_eq!(node.get("/items/k").await.status, 200);
    let (http, admin) = (node.http, node.admin);
    // Dropped is killed, with connections of ours in its ports' last minutes.
    drop(node);
    until("the port is let go", || async { tokio::net::TcpStream::connect(http).await.is_err() })
        .await;
    let again = Node::with("")
        .env("CACHECLUSTER_HTTP__LISTEN", http.to_string())
        .env("CACHECLUSTER_ADMIN__LISTEN", admin.to_string())
        .start();
    assert_eq!((again.http, again.admin), (http, admin));
}
