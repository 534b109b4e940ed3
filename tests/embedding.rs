//! The node as a library: from code, within a runtime of somebody else's.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cachecluster::{
    config::{self, Caching, Config},
    group::{Context, Fill, FillError, GetError, Outcome, getter_fn},
    node::Node,
    value::Served,
};

use crate::harness::{
    client,
    node::component,
    origin::{self, Origin},
};

fn patience() -> Context {
    Context::within(Duration::from_secs(10))
}

#[tokio::test]
async fn a_closure_fills_a_group_in_process_and_over_http() {
    let loads = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&loads);
    let reverse = getter_fn(move |fill: Fill| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            match &*fill.key {
                b"" => Ok(Outcome::not_found()),
                b"bad" => Err(FillError::Denied("not this one".into())),
                key => Ok(Outcome::found(key.iter().rev().copied().collect::<Vec<_>>())),
            }
        }
    });
    let http = config::Http { listen: ([127, 0, 0, 1], 0).into(), ..config::Http::default() };
    let node = Node::builder()
        .group("reverse", Caching::default(), reverse)
        .http(http)
        .start()
        .expect("a node");
    let group = node.group("reverse").expect("the group");

    // A native group takes any bytes for a key.
    let key = b"\xff\x00a//b";
    let first = group.get(key, &patience()).await.expect("a value");
    assert_eq!(first.value.body(), b"b//a\x00\xff");
    assert_eq!(first.provenance.served, Served::Filled { stored: true });
    let addr = node.http_addr().expect("an address");
    let second = client::get(addr, "/reverse/%FF%00a//b").await;
    assert_eq!((second.status, second.body.as_slice()), (200, &b"b//a\x00\xff"[..]));
    assert_eq!(loads.load(Ordering::SeqCst), 1, "one memory, however it is asked");

    assert!(matches!(group.get(b"", &patience()).await, Err(GetError::NotFound(_))));
    assert_eq!(client::get(addr, "/reverse/").await.status, 404);
    assert_eq!(client::get(addr, "/reverse/bad").await.status, 403);
    assert!(group.purge(key));
    assert!(group.peek(key).is_none());

    // Within a runtime, where waiting is not allowed.
    node.stop().expect("a clean stop");
    let late = group.get(b"late", &patience()).await;
    assert!(matches!(late, Err(GetError::Fill { .. })), "a stopped node fills nothing: {late:?}");
}

#[tokio::test]
async fn a_config_and_a_closure_share_a_node() {
    let origin = Origin::start(|_| origin::ok("", b"from afar")).await;
    let text = format!(
        r#"
        [http]
        listen = "127.0.0.1:0"
        [admin]
        listen = "127.0.0.1:0"
        [plugins.origin]
        source = "{}"
        config = {{ url = "http://{addr}/{{key}}" }}
        network = {{ http = ["http://{addr}"], allow_private = ["127.0.0.0/8"] }}
        [groups.far]
        plugin = "origin"
        "#,
        component("http").display(),
        addr = origin.addr(),
    );
    let config: Config =
        Config::from_str(&text, "test", std::iter::empty()).expect("a good config").config;
    let here = getter_fn(|_| async { Ok(Outcome::found("from here")) });
    let node = Node::from_config(&config, Path::new(""))
        .group("near", Caching::default(), here)
        .start()
        .expect("a node");
    let addr = node.http_addr().expect("an address");
    assert_eq!(client::get(addr, "/far/k").await.text(), "from afar");
    assert_eq!(client::get(addr, "/near/k").await.text(), "from here");
    let status = client::get(node.admin_addr().expect("an address"), "/status").await.json();
    assert!(status["groups"]["near"].is_object() && status["groups"]["far"].is_object());
    node.stop().expect("a clean stop");
}

#[tokio::test]
async fn a_node_that_is_dropped_frees_its_ports() {
    let http = config::Http { listen: ([127, 0, 0, 1], 0).into(), ..config::Http::default() };
    let node = Node::builder().http(http.clone()).start().expect("a node");
    let addr = node.http_addr().expect("an address");
    drop(node);
    let again = Node::builder().http(config::Http { listen: addr, ..http }).start();
    again.expect("the port is free again").stop().expect("a clean stop");
}
