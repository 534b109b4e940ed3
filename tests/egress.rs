//! What a plugin reaches and knows beyond its sandbox, in a node of its own: https with an
//! authority of the operator's, secrets from the environment, and what is told of both.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use crate::harness::node::{Node, cachecluster, component};

#[path = "fixtures/tls.rs"]
mod tls;

const TOKEN: &str = "Bearer s3cr3t-Token-of-the-test";

/// The config of a node whose group `items` is filled from `origin`.
fn config(origin: &str, ca_file: &str) -> String {
    let component = component("http").display().to_string();
    format!(
        r#"[plugins.items]
        source = "{component}"
        config = {{ url = "{origin}/{{key}}" }}
        secrets = {{ "header.Authorization" = "env:API_TOKEN" }}
        [plugins.items.network]
        http = ["{origin}"]
        allow_private = ["127.0.0.0/8"]
        ca_files = [{ca_file}]
        [groups.items]
        plugin = "items"
        "#
    )
}

#[tokio::test]
async fn a_secret_reaches_the_origin_and_nobody_else() {
    let authority = tls::Authority::new("ours");
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    let answer = move |head: &str| {
        seen.lock().expect("the heads").push(head.to_owned());
        let location = format!("location: https://elsewhere.example/?token={TOKEN}\r\n");
        if head.starts_with("GET /told ") {
            // An origin that repeats what it was told.
            format!("HTTP/1.1 302 Found\r\n{location}content-length: 0\r\n\r\n").into_bytes()
        } else {
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()
        }
    };
    let address = tls::https(authority.issue("localhost", 2100), answer).await;
    let folder = tempfile::tempdir().expect("a folder");
    let ca_file = folder.path().join("ca.pem");
    fs::write(&ca_file, authority.pem()).expect("written");
    let origin = format!("https://localhost:{}", address.port());
    let config = config(&origin, &format!("{:?}", ca_file.display().to_string()));
    let node = Node::with(config.clone()).env("API_TOKEN", TOKEN).start();

    let answer = node.get("/items/key").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{}", node.log());
    let asked = heads.lock().expect("the heads").join("");
    assert!(asked.contains(&format!("authorization: {TOKEN}\r\n")), "{asked}");

    let told = node.get("/items/told").await;
    assert!(told.text().contains("[secret header.Authorization]"), "{}", told.text());
    let path = folder.path().join("cachecluster.toml");
    fs::write(&path, &config).expect("written");
    let shown = cachecluster()
        .args(["config", "show", "--config"])
        .arg(&path)
        .env("API_TOKEN", TOKEN)
        .output()
        .expect("to run it");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("env:API_TOKEN"), "{shown}");
    let status = node.admin("/status").await.text();
    assert!(status.contains("[secret header.Authorization]"), "the last error: {status}");
    let metrics = node.admin("/metrics").await.text();
    for (place, text) in [
        ("an answer", told.text()),
        ("config show", shown),
        ("/status", status),
        ("/metrics", metrics),
        ("the log", node.log()),
    ] {
        assert!(!text.to_lowercase().contains("s3cr3t"), "{place}: {text}");
    }
}

#[tokio::test]
async fn an_origin_that_is_not_trusted_is_told_with_the_reason_and_the_setting() {
    let theirs = tls::Authority::new("theirs");
    let answer = |_: &str| b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec();
    let address = tls::https(theirs.issue("localhost", 2100), answer).await;
    let origin = format!("https://localhost:{}", address.port());
    let node = Node::with(config(&origin, "")).env("API_TOKEN", TOKEN).start();
    let refused = node.get("/items/key").await;
    assert!(refused.status >= 500, "{}", refused.text());
    for text in [refused.text(), node.log()] {
        assert!(text.contains("UnknownIssuer"), "{text}");
        assert!(text.contains("[plugins.items.network] ca_files"), "{text}");
    }
}

#[tokio::test]
async fn what_is_denied_is_counted_and_told_with_the_one_setting_that_is_missing() {
    let origin = "http://127.0.0.1:9";
    let config = config(origin, "").replace(r#"allow_private = ["127.0.0.0/8"]"#, "");
    let node = Node::with(config).env("API_TOKEN", TOKEN).start();
    let denied = node.get("/items/key").await;
    let text = denied.text();
    assert!(text.contains(r"[plugins.items.network] allow_private"), "{text}");
    assert!(!text.contains(" http = ["), "{text}");
    node.logged("127.0.0.0/8").await;
    let name = r#"cachecluster_plugin_denials_total{plugin="items",kind="address"}"#;
    assert!(node.metric(name).await >= 1.0);
}

#[tokio::test]
async fn a_secret_that_is_not_there_keeps_the_node_from_starting() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cachecluster.toml");
    for (config, env, said) in [
        (config("http://localhost:9", ""), None, "set it where the node is started"),
        (config("http://localhost:9", ""), Some(""), "is empty"),
        (config("http://localhost:9", r#""ca.pem""#), Some(TOKEN), "network.ca_files"),
    ] {
        fs::write(&path, format!("[http]\nlisten = \"127.0.0.1:0\"\n{config}")).expect("written");
        let mut check = cachecluster();
        check.args(["check", "--config"]).arg(&path).env_remove("API_TOKEN");
        check.envs(env.map(|value| ("API_TOKEN", value)));
        let output = check.output().expect("to run it");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success(), "{text}");
        assert!(text.contains(said) && text.contains("items"), "{text}");
        assert!(!text.contains("s3cr3t"), "{text}");
    }
}
