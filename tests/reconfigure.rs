//! Other settings for a node that serves: all of them or none, and no request fails.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use cachecluster::{
    config::{Caching, Config},
    group::{Context, Outcome, getter_fn},
    node::{Node as Embedded, ReloadError},
};
use tokio::{sync::watch, task::JoinSet};

use crate::harness::{
    client::{self, Connection},
    node::{Node, cachecluster, component},
    origin::{self, Origin},
    until,
};

/// A plugin `name` that asks the origin at `addr`.
fn plugin(name: &str, addr: SocketAddr) -> String {
    format!(
        r#"
        [plugins.{name}]
        source = "{}"
        config = {{ url = "http://{addr}/{name}/{{key}}", timeout = "5s" }}
        network = {{ http = ["http://{addr}"], allow_private = ["127.0.0.0/8"] }}
        "#,
        component("http").display(),
    )
}

/// A group `name` that `plugin` fills.
fn group(name: &str, plugin: &str, caching: &str) -> String {
    format!("[groups.{name}]\nplugin = \"{plugin}\"\n[groups.{name}.cache]\n{caching}\n")
}

/// Has the node read its settings again, and waits for what comes of it.
async fn hang_up(node: &Node) -> serde_json::Value {
    let concluded = |log: &str| {
        log.matches("Reloaded the settings.").count() + log.matches("Nothing has changed:").count()
    };
    let before = concluded(&node.log());
    node.signal("HUP");
    until("the reload is over", || async { concluded(&node.log()) > before }).await;
    node.admin("/status").await.json()["last_reload"].clone()
}

/// What changed, one line a change.
fn lines(reload: &serde_json::Value) -> Vec<String> {
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let changes = reload["changes"].as_array().cloned().unwrap_or_default();
    changes.iter().map(|it| format!("{} {}", word(&it["action"]), word(&it["subject"]))).collect()
}

/// Gets of one group without a pause, of keys in memory and of new ones.
struct Load {
    stop: Arc<AtomicBool>,
    gets: Arc<AtomicUsize>,
    clients: JoinSet<Vec<String>>,
}

impl Load {
    fn start(addr: SocketAddr, group: &'static str) -> Self {
        let mut load = Self { stop: Arc::default(), gets: Arc::default(), clients: JoinSet::new() };
        for client in 0..3 {
            let (stop, gets) = (Arc::clone(&load.stop), Arc::clone(&load.gets));
            load.clients.spawn(async move {
                let mut connection = Connection::open(addr).await;
                let mut failed = Vec::new();
                for round in 0.. {
                    if stop.load(SeqCst) {
                        break;
                    }
                    let key = if round % 4 == 0 {
                        format!("new-{client}-{round}")
                    } else {
                        "hot".to_owned()
                    };
                    let answer = connection.get(&format!("/{group}/{key}")).await;
                    if answer.status != 200 {
                        failed.push(format!("{key}: {answer:?}"));
                    }
                    gets.fetch_add(1, SeqCst);
                }
                failed
            });
        }
        load
    }

    /// Waits until there were some more of them.
    async fn goes_on(&self) {
        let before = self.gets.load(SeqCst);
        until("clients go on", || async { self.gets.load(SeqCst) > before + 50 }).await;
    }

    async fn stop(self) {
        self.stop.store(true, SeqCst);
        let failed: Vec<String> = self.clients.join_all().await.into_iter().flatten().collect();
        assert!(failed.is_empty(), "{} gets failed: {:?}", failed.len(), failed.first());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_settings_change_as_a_whole_or_not_at_all() {
    let kept = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&kept);
    let origin = Origin::start(move |request| {
        asked.fetch_add(usize::from(request.target.ends_with("/kept")), SeqCst);
        origin::ok("", &[b'v'; 2_000])
    })
    .await;
    let first = plugin("first", origin.addr());
    let start = format!(
        "{first}{}{}",
        group("items", "first", "memory = \"32MiB\"\nttl = \"1h\""),
        group("old", "first", "")
    );
    let node = Node::with(start.clone()).start();
    assert_eq!(node.get("/items/kept").await.status, 200);
    assert_eq!(node.get("/old/k").await.status, 200);
    let load = Load::start(node.http, "items");
    load.goes_on().await;

    // A plugin and a group more, one group less, another TTL and another budget.
    let second = plugin("second", origin.addr());
    let next = format!(
        "{first}{second}{}{}",
        group("items", "first", "memory = \"256MiB\"\nttl = \"2h\""),
        group("extra", "second", "")
    );
    node.configure(&next);
    let reload = hang_up(&node).await;
    assert_eq!(reload["outcome"], "changed", "{reload:#}\n{}", node.log());
    assert_eq!(
        lines(&reload),
        ["added plugin second", "added group extra", "changed group items", "removed group old"]
    );
    assert_eq!(reload["changes"][2]["detail"], "memory 32MiB → 256MiB, ttl 1h → 2h");
    load.goes_on().await;
    assert_eq!(node.get("/extra/k").await.status, 200);
    assert_eq!(node.get("/old/k").await.status, 404);
    let hit = node.get("/items/kept").await;
    assert!(hit.header("cache-status").contains("hit"), "{hit:?}");
    assert_eq!(kept.load(SeqCst), 1, "contents stay");
    let status = node.admin("/status").await.json();
    assert_eq!(status["groups"]["items"]["settings"]["ttl"], "2h");
    assert_eq!(status["groups"]["items"]["budget_bytes"], 256 << 20);
    let metrics = node.admin("/metrics").await.text();
    assert!(!metrics.contains("group=\"old\""), "a group that is gone leaves no series");

    // A file that cannot be used: nothing changes, and the log says where and what.
    node.configure(&next.replace("ttl = \"2h\"", "ttl = \"3h\"\nmemroy = \"1MiB\""));
    let reload = hang_up(&node).await;
    assert_eq!(reload["outcome"], "refused");
    for said in ["cachecluster.toml:", "memroy", "did you mean `memory`?"] {
        assert!(reload["reasons"][0].as_str().is_some_and(|it| it.contains(said)), "{reload:#}");
        assert!(node.log().contains(said), "{}", node.log());
    }

    // Good settings with a plugin that cannot be loaded: nothing changes either.
    let bad = next.replace("ttl = \"2h\"", "ttl = \"3h\"");
    node.configure(&format!(
        "{bad}[plugins.third]\nsource = \"nowhere.wasm\"\n{}",
        group("third", "third", "")
    ));
    let reload = hang_up(&node).await;
    assert_eq!(reload["outcome"], "refused");
    assert!(reload["reasons"][0].as_str().is_some_and(|it| it.contains("nowhere.wasm")));
    assert_eq!(node.get("/third/k").await.status, 404);
    let status = node.admin("/status").await.json();
    assert_eq!(status["groups"]["items"]["settings"]["ttl"], "2h");
    assert!(!node.admin("/metrics").await.text().contains("\"third\""));
    let reloads = async |outcome: &str| {
        node.metric(&format!("cachecluster_config_reloads_total{{outcome=\"{outcome}\"}}")).await
    };
    assert_eq!((reloads("refused").await, reloads("changed").await), (2.0, 1.0));
    assert!(node.metric("cachecluster_config_last_reload_success_timestamp_seconds").await > 1e9);

    // A much smaller budget holds at once.
    load.goes_on().await;
    node.configure(
        &next.replace("memory = \"256MiB\"", "memory = \"64KiB\"\nvalue_max = \"4KiB\""),
    );
    assert_eq!(hang_up(&node).await["outcome"], "changed");
    let items = node.admin("/status").await.json()["groups"]["items"].clone();
    assert!(items["bytes"].as_u64().is_some_and(|bytes| bytes <= 64 << 10), "{items:#}");
    load.goes_on().await;

    // And the same again is nothing new.
    assert_eq!(hang_up(&node).await["outcome"], "unchanged");
    load.goes_on().await;
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_another_plugin_is_to_fill_begins_empty_and_old_fills_end() {
    let (open, opened) = watch::channel(true);
    let old = Origin::gated(opened, |_| origin::ok("", b"old")).await;
    let new = Origin::start(|_| origin::ok("", b"new")).await;
    let plugins = format!("{}{}", plugin("one", old.addr()), plugin("other", new.addr()));
    let node = Node::with(format!("{plugins}{}", group("items", "one", ""))).start();
    assert_eq!(node.get("/items/known").await.text(), "old");
    open.send_replace(false);
    let addr = node.http;
    let waiting = tokio::spawn(async move { client::get(addr, "/items/slow").await });
    until("the old origin is asked", || async { old.requests() == 2 }).await;

    // The old plugin goes altogether.
    node.configure(&format!("{}{}", plugin("other", new.addr()), group("items", "other", "")));
    let reload = hang_up(&node).await;
    assert_eq!(lines(&reload), ["removed plugin one", "changed group items"], "{reload:#}");
    assert_eq!(node.get("/items/known").await.text(), "new");
    assert_eq!(node.get("/items/slow").await.text(), "new");
    open.send_replace(true);
    let answer = waiting.await.expect("the caller");
    assert_eq!((answer.status, answer.text().as_str()), (200, "old"));
    assert_eq!(node.get("/items/slow").await.text(), "new");
    assert!(!node.admin("/metrics").await.text().contains("plugin=\"one\""));
}

#[tokio::test]
async fn plugins_and_groups_come_and_go_and_leave_nothing_behind() {
    let origin = Origin::start(|_| origin::ok("", b"v")).await;
    let node = Node::with("").start();
    let full = format!("{}{}", plugin("http", origin.addr()), group("items", "http", ""));
    let cycle = async |key: &str| {
        node.configure(&full);
        assert_eq!(node.post("/reload").await.json()["outcome"], "changed", "{}", node.log());
        assert_eq!(node.get(&format!("/items/{key}")).await.text(), "v");
        node.configure("");
        assert_eq!(node.post("/reload").await.json()["outcome"], "changed");
        assert_eq!(node.get(&format!("/items/{key}")).await.status, 404);
    };
    // The first plugin of all brings the engine's own threads along.
    for key in ["a", "b", "c"] {
        cycle(key).await;
    }
    let before = node.resources();
    for round in 0..20 {
        cycle(&round.to_string()).await;
    }
    until("threads and files are what they were", || async {
        let now = node.resources();
        now.threads <= before.threads + 4 && now.files <= before.files + 4
    })
    .await;
    let metrics = node.admin("/metrics").await.text();
    assert!(!metrics.contains("plugin=\"") && !metrics.contains("group=\""), "{metrics}");
}

#[tokio::test]
async fn a_plugins_file_is_looked_at_when_an_operator_says_so() {
    let origin = Origin::start(|_| origin::ok("", b"v")).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("plugin.wasm");
    std::fs::copy(component("http"), &file).expect("to copy");
    let good = plugin("http", origin.addr())
        .replace(&component("http").display().to_string(), &file.display().to_string())
        .replace("[plugins.http]", "[plugins.http]\nwatch = false");
    let node = Node::with(format!("{good}{}", group("items", "http", ""))).start();
    let status = async || node.admin("/status").await.json()["plugins"][0].clone();
    let first = status().await;

    let same = node.post("/plugins/http/reload").await;
    assert_eq!((same.status, &same.json()["digest"]), (200, &first["digest"]));

    std::fs::write(&file, b"#!/bin/sh\n").expect("to write");
    let refused = node.post("/plugins/http/reload").await;
    assert_eq!(refused.status, 409, "{}", refused.text());
    let problem = refused.json();
    assert_eq!(problem["outcome"], "refused");
    assert_eq!(problem["digest"], first["digest"], "what goes on serving: {problem:#}");
    assert!(problem["detail"].as_str().is_some_and(|it| it.contains("text file")), "{problem:#}");
    assert_eq!(node.get("/items/k").await.status, 200);
    // Of all settings this is the one thing that is bad.
    let all = node.post("/reload").await.json();
    assert_eq!(
        (lines(&all), &all["outcome"]),
        (vec!["refused plugin http".to_owned()], &"unchanged".into())
    );

    // The same component with something behind it is another version.
    let mut next = std::fs::read(component("http")).expect("to read");
    next.extend(b"\x00\x04\x03odd");
    std::fs::write(&file, next).expect("to write");
    let before = status().await["generation"].as_u64();
    let swapped = node.post("/plugins/http/reload").await.json();
    assert_eq!(swapped["outcome"], "swapped", "{swapped:#}");
    assert!(swapped["generation"].as_u64() > before, "{swapped:#}");
    assert_eq!(status().await["digest"], swapped["digest"]);

    let unknown = node.post("/plugins/htp/reload").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.text().contains("`http`"), "{}", unknown.text());
}

#[tokio::test]
async fn a_page_of_another_origin_cannot_reload() {
    let node = Node::with("").start();
    for target in ["/reload", "/plugins/x/reload"] {
        let request = format!(
            "POST {target} HTTP/1.1\r\nhost: {}\r\norigin: http://evil.example\r\n\
             content-length: 0\r\nconnection: close\r\n\r\n",
            node.admin
        );
        let answer = client::exchange(node.admin, request.as_bytes()).await;
        assert_eq!(answer.status, 403, "{}", answer.text());
    }
    assert_eq!(node.admin("/status").await.json()["last_reload"], serde_json::Value::Null);
}

#[tokio::test]
async fn the_log_is_filtered_anew_and_what_is_made_once_waits() {
    let node = Node::with("").start();
    let text = std::fs::read_to_string(node.file()).expect("the config");
    let text = text
        .replace("[http]\n", "[http]\nthreads = 1\n")
        .replace("info,cachecluster=debug", "error");
    std::fs::write(node.file(), text).expect("to write");
    let reload = node.post("/reload").await.json();
    assert_eq!(lines(&reload), ["restart [http]", "changed [log]"], "{reload:#}");
    let written = node.log().len();
    // It would tell of this, were it not told to be silent.
    assert_eq!(lines(&node.post("/reload").await.json()), ["restart [http]"]);
    assert_eq!(node.log().len(), written, "{}", node.log());
}

fn reload(file: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output: Output = cachecluster()
        .arg("reload")
        .arg("--config")
        .arg(file)
        .args(arguments)
        .output()
        .expect("to run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_tells_what_changed_one_line_each() {
    let origin = Origin::start(|_| origin::ok("", b"v")).await;
    let config =
        format!("{}{}", plugin("http", origin.addr()), group("items", "http", "ttl = \"1m\""));
    let node = Node::with(config.clone()).start();
    let (file, admin) = (node.file(), node.admin.to_string());
    let admin = ["--admin", admin.as_str()];

    let (code, out, err) = reload(&file, &admin);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "unchanged\n", ""));
    node.configure(&config.replace("1m", "2m"));
    let (code, out, err) = reload(&file, &admin);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, "changed    group items           ttl 1m → 2m\n");
    let (code, out, _) = reload(&file, &[&admin[..], &["--plugin", "http"]].concat());
    assert!(code == 0 && out.starts_with("unchanged  plugin http           sha256:"), "{out}");

    let (code, out, err) = reload(&file, &[&admin[..], &["--plugin", "htp"]].concat());
    assert!(code == 1 && out.is_empty() && err.contains("there is `http`"), "{err}");
    node.configure(&config.replace("ttl =", "tll ="));
    let (code, out, err) = reload(&file, &admin);
    assert!(code == 78 && out.is_empty(), "{out}{err}");
    for said in ["did you mean `ttl`?", "cachecluster.toml:", "Nothing has changed"] {
        assert!(err.contains(said), "no {said} in {err}");
    }
    node.configure(
        &config.replace("ttl = \"1m\"", "ttl = \"3m\"").replace("http.wasm", "gone.wasm"),
    );
    let (code, _, err) = reload(&file, &admin);
    assert!(code == 1 && err.contains("gone.wasm") && err.contains("Nothing has changed"), "{err}");
    // Without an address it is the file's, which says that it could be any.
    node.configure(&config);
    let (code, _, err) = reload(&file, &[]);
    assert!(code == 1 && err.contains("--admin"), "{err}");
}

#[test]
fn the_command_finds_the_node_by_the_settings_and_says_when_none_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cachecluster.toml");
    // An address of this process's own.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, 32, high, low);
    std::fs::write(&file, format!("[admin]\nlisten = \"{host}:9081\"\n")).expect("to write");
    let (code, _, err) = reload(&file, &[]);
    assert!(
        code == 1 && err.contains(&format!("no node answers operators at {host}:9081")),
        "{err}"
    );
    let config: Config = Config::load(&file, std::iter::empty()).expect("good settings").config;
    let node = Embedded::builder().admin(config.admin).start().expect("a node");
    let (code, _, err) = reload(&file, &[]);
    assert!(code == 1 && err.contains("Node::reload"), "it has no file to read: {err}");
    node.stop().expect("a clean stop");
}

#[tokio::test]
async fn a_program_reloads_the_node_that_it_runs() {
    let origin = Origin::start(|_| origin::ok("", b"from afar")).await;
    let config = |text: &str| -> Config {
        let loaded = Config::from_str(text, "test", std::iter::empty());
        loaded.expect("good settings").config
    };
    let near = getter_fn(|_| async { Ok(Outcome::found("from here")) });
    let node = Embedded::builder().group("near", Caching::default(), near).start().expect("a node");
    let patience = || Context::within(Duration::from_secs(10));
    let far = format!("{}{}", plugin("http", origin.addr()), group("far", "http", ""));
    let reloaded = node.reload(&config(&far), Path::new("")).expect("a reload");
    assert_eq!(reloaded.outcome(), "changed");
    for (name, body) in [("near", "from here"), ("far", "from afar")] {
        let group = node.group(name).expect("the group");
        let hit = group.get(b"k", &patience()).await.expect("a value");
        assert_eq!(hit.value.body(), body.as_bytes());
    }
    assert_eq!(node.reload_plugin("http").expect("a look").outcome, "unchanged");
    assert!(matches!(node.reload_plugin("other"), Err(ReloadError::UnknownPlugin { .. })));

    // A group of the program's own cannot be the config's as well.
    let taken = format!("{far}{}", group("near", "http", ""));
    let refused = node.reload(&config(&taken), Path::new("")).expect_err("refused");
    assert!(refused.to_string().contains("added by the program"), "{refused}");
    // Nor can plugins have more than the node was started with.
    let large = format!("[wasm]\ninstances_max = 9000\n{far}")
        .replace("[plugins.http]", "[plugins.http]\nlimits = { instances = 8000 }");
    let refused = node.reload(&config(&large), Path::new("")).expect_err("refused");
    assert!(refused.to_string().contains("restart the node"), "{refused}");

    node.reload(&Config::default(), Path::new("")).expect("a reload");
    assert!(node.group("far").is_none() && node.group("near").is_some());
    node.stop().expect("a clean stop");
}
