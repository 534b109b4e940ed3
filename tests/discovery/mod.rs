//! Nodes that find one another by something beside `[cluster] seeds`.

mod doozer;
mod etcd;
#[cfg(feature = "zookeeper")]
mod still;
#[cfg(feature = "zookeeper")]
mod zookeeper;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    cluster::KeyFile,
    harness::{node::Node, until},
};

/// A node on the loopback address 127.0.`net`.`host` that finds others as `discovery` says.
pub(crate) fn node(discovery: &str, (net, host): (u8, u8), key: &KeyFile) -> Node {
    Node::with(format!(
        "[cluster]\nname = \"images\"\nbind = \"127.0.{net}.{host}\"\nkey_file = \"{}\"\n{discovery}",
        key.path().display()
    ))
    .start()
}

/// How the source of members `kind` fares on `node`.
pub(crate) async fn source(node: &Node, kind: &str) -> Value {
    let members = node.admin("/members").await.json();
    let sources = members["discovery"].as_array().expect("a list").iter();
    let mut sources = sources.filter(|it| it["source"] == kind);
    sources.next().cloned().unwrap_or_default()
}

/// Waits until `node` has found so many places by `kind`, and nothing is wrong with that.
pub(crate) async fn finds(node: &Node, kind: &str, count: u64) {
    until(&format!("{count} are found by {kind}"), || async {
        let source = source(node, kind).await;
        source["found"] == count && source["error"].is_null()
    })
    .await;
}

/// Waits until something is wrong with how `node` looks by `kind`, whose word contains `text`.
pub(crate) async fn is_told(node: &Node, kind: &str, text: &str) {
    until(&format!("{kind} is told to be in trouble: {text:?}"), || async {
        let error = source(node, kind).await["error"].clone();
        error.as_str().is_some_and(|error| error.contains(text))
    })
    .await;
}

/// `127.0.{net}.{host}:9999` for each host.
pub(crate) fn places(net: u8, hosts: &[u8]) -> BTreeSet<String> {
    hosts.iter().map(|host| format!("127.0.{net}.{host}:9999")).collect()
}
