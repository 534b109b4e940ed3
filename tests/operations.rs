//! What an operator does to a node: watches it, stops it, starts a second one.

use std::{path::Path, process::Output};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
};

use crate::{
    harness::{
        client,
        node::{Node, cachecluster, component},
        origin::{self, Origin},
        until,
    },
    stampede,
};

#[tokio::test]
async fn the_admin_surface_tells_health_status_and_metrics() {
    let origin = Origin::start(|_| origin::ok("", b"v")).await;
    let node = stampede::node(origin.addr(), "memory = \"8MiB\"");
    node.get("/items/k").await;
    node.get("/items/k").await;
    assert_eq!(node.admin("/livez").await.status, 200);
    let ready = node.admin("/readyz?verbose").await;
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("[+]plugins ok"), "{}", ready.text());

    let status = node.admin("/status").await.json();
    let group = &status["groups"]["items"];
    assert_eq!(group["items"], 1, "{status:#}");
    let plugin = &status["plugins"][0];
    assert_eq!(plugin["name"], "origin", "{status:#}");
    assert!(plugin["digest"].as_str().is_some_and(|it| it.starts_with("sha256:")), "{status:#}");
    assert_eq!(plugin["last_error"], serde_json::Value::Null, "{status:#}");

    let metrics = node.admin("/metrics").await;
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    for line in [
        "cachecluster_gets_total{group=\"items\",outcome=\"hit\"} 1",
        "cachecluster_gets_total{group=\"items\",outcome=\"miss\"} 1",
        "cachecluster_cache_items{group=\"items\"} 1",
        "cachecluster_cache_budget_bytes{group=\"items\"} 8388608",
        "cachecluster_plugin_calls_total{plugin=\"origin\",outcome=\"ok\"} 1",
    ] {
        assert!(metrics.text().contains(line), "no {line} in\n{}", metrics.text());
    }
}

#[tokio::test]
async fn a_getters_error_is_in_the_status() {
    let origin = Origin::start(|_| origin::status("503 Service Unavailable")).await;
    let node = stampede::node(origin.addr(), "");
    node.get("/items/k").await;
    let status = node.admin("/status").await.json();
    let message = status["plugins"][0]["last_error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("503"), "{status:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_ends_before_the_node_does() {
    let (open, opened) = watch::channel(false);
    let origin = Origin::gated(opened, |_| origin::ok("", b"in the end")).await;
    let mut node = stampede::node(origin.addr(), "");
    let addr = node.http;
    let waiting = tokio::spawn(async move { client::get(addr, "/items/k").await });
    until("the origin is asked", || async { origin.requests() == 1 }).await;
    let mut idle = TcpStream::connect(addr).await.expect("to connect");

    node.signal("TERM");
    node.logged("Draining").await;
    // An idle connection is closed at once, and a new one is not served.
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.ok();
    assert!(rest.is_empty());
    until("the port is closed", || async { !is_served(addr).await }).await;
    let ready = client::get(node.admin, "/readyz").await;
    assert_eq!(ready.status, 503, "operators can watch the drain");

    open.send_replace(true);
    let answer = waiting.await.expect("the caller");
    assert_eq!((answer.status, answer.body), (200, b"in the end".to_vec()));
    assert!(node.ended().await.success(), "{}", node.log());
}

/// Whether a connection to `addr` still gets an answer.
async fn is_served(addr: std::net::SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(addr).await else { return false };
    let request = b"GET /items/other HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut answer = Vec::new();
    stream.write_all(request).await.is_ok()
        && stream.read_to_end(&mut answer).await.is_ok()
        && !answer.is_empty()
}

#[tokio::test]
async fn sigint_ends_an_idle_node_at_once() {
    let mut node = Node::with("").start();
    node.signal("INT");
    assert!(node.ended().await.success(), "{}", node.log());
}

fn serve(config: &str) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("cachecluster.toml");
    std::fs::write(&path, config).expect("to write the config");
    cachecluster().arg("serve").arg("--config").arg(&path).output().expect("to run")
}

fn refusal(config: &str) -> (i32, String) {
    let output = serve(config);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

#[tokio::test]
async fn a_second_node_on_the_same_port_is_told_so() {
    let node = Node::with("").start();
    for (section, addr) in [("http", node.http), ("admin", node.admin)] {
        let other = if section == "http" { "admin" } else { "http" };
        let (code, text) = refusal(&format!(
            "[{section}]\nlisten = \"{addr}\"\n[{other}]\nlisten = \"127.0.0.1:0\"\n"
        ));
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("in use") && text.contains(&format!("[{section}]")), "{text}");
    }
}

#[test]
fn a_component_that_is_none_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = folder.path().join("plugin.wasm");
    let whole = std::fs::read(component("dict")).expect("the component");
    let bare_module = wat::parse_str("(module)").expect("a module");
    let empty_component = wat::parse_str("(component)").expect("a component");
    let cases: [(&[u8], &str); 7] = [
        (b"", "empty"),
        (b"#!/bin/sh\necho hello\n", "not a WebAssembly"),
        (b"\x7fELF\x02\x01\x01", "native program"),
        (&whole[..whole.len() / 2], "truncated"),
        (&bare_module, "core WebAssembly module"),
        (&empty_component, "getter"),
        (&[0; 4_096], "not a WebAssembly"),
    ];
    for (bytes, reason) in cases {
        std::fs::write(&source, bytes).expect("to write the component");
        let (code, text) = refusal(&plugin_config(&source));
        assert_eq!(code, 1, "{text}");
        assert!(text.to_lowercase().contains(&reason.to_lowercase()), "no {reason:?} in: {text}");
        assert!(text.contains("dict"), "the plugin is named: {text}");
        assert!(!text.contains("panicked"), "{text}");
    }
    let (code, text) = refusal(&plugin_config(Path::new("/nowhere/dict.wasm")));
    assert!(code == 1 && text.contains("/nowhere/dict.wasm"), "{text}");
}

#[test]
fn a_component_with_another_digest_is_refused() {
    let digest = format!("digest = \"sha256:{}\"", "0".repeat(64));
    let config = plugin_config(&component("dict"))
        .replace("[plugins.dict]", &format!("[plugins.dict]\n{digest}"));
    let (code, text) = refusal(&config);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("sha256:"), "{text}");
}

fn plugin_config(source: &Path) -> String {
    format!(
        "[http]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [plugins.dict]\nsource = \"{}\"\nconfig = {{ server = \"127.0.0.1:1\" }}\n\
         [groups.define]\nplugin = \"dict\"\n",
        source.display()
    )
}
