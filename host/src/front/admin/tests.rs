//! The surface over real sockets.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{runtime::Runtime, sync::oneshot, task::JoinHandle};

use super::*;
use crate::{
    config::{self, Caching},
    front::Latch,
    group::{BoxFuture, Context, Fill, FillError, Getter, Group, Outcome},
};

/// Answers each key with itself, and counts.
#[derive(Default)]
struct Echo(AtomicUsize);

impl Getter for Echo {
    fn load(&self, fill: Fill) -> BoxFuture<'_, Result<Outcome, FillError>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { Ok(Outcome::found(&fill.key)) })
    }
}

/// As a node with the one plugin `dict`, whose file is bad.
fn reload_plugin(name: &str) -> Result<Value, Refusal> {
    let (kind, detail) = match name {
        "dict" => (RefusalKind::Refused, "it is empty".to_owned()),
        _ => (RefusalKind::UnknownPlugin, format!("no plugin `{name}`; there is `dict`")),
    };
    let members = serde_json::Map::from_iter([("plugin".to_owned(), json!(name))]);
    Err(Refusal { kind, detail, members })
}

struct Surface {
    address: SocketAddr,
    echo: Arc<Echo>,
    group: Arc<Group>,
    plugins: Latch,
    readiness: Readiness,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
    runtime: Runtime,
}

impl Surface {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let (groups, metrics) = (Arc::new(Groups::default()), Metrics::new());
        let echo = Arc::new(Echo::default());
        let getter = Arc::clone(&echo) as Arc<dyn Getter>;
        let fills = runtime.handle().clone();
        let group = Group::new("g", Caching::default(), getter, fills, metrics.group("g"));
        groups.replace([Arc::clone(&group)]);
        let readiness = Readiness::new();
        let plugins = readiness.latch("plugins");
        let state = Arc::new(AdminState {
            groups,
            metrics,
            readiness: readiness.clone(),
            plugins: Box::new(|| json!({ "dict": { "digest": "sha256:00" } })),
            cluster: Box::new(|| serde_json::Value::Null),
            explain: Box::new(|group, key| {
                let key = String::from_utf8_lossy(&key).into_owned();
                Box::pin(async move { Ok(json!({ "explained": [group.name(), key] })) })
            }),
            last_reload: Box::new(|| json!({ "outcome": "unchanged" })),
            reload: Box::new(|| Box::pin(async { Ok(json!({ "outcome": "unchanged" })) })),
            reload_plugin: Box::new(|name| Box::pin(async move { reload_plugin(&name) })),
            started: Instant::now(),
        });
        let settings = config::Admin { listen: "127.0.0.1:0".parse().unwrap() };
        let listener = runtime.block_on(async { bind(&settings) }).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = runtime.spawn(serve(listener, state, async {
            let _ = stopped.await;
        }));
        Self { address, echo, group, plugins, readiness, stop, server, runtime }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    fn ask(&self, method: &str, target: &str) -> (u16, String) {
        self.ask_with(method, target, "host: localhost\r\n")
    }

    fn ask_with(&self, method: &str, target: &str, headers: &str) -> (u16, String) {
        let mut socket = self.connect();
        write!(socket, "{method} {target} HTTP/1.1\r\nconnection: close\r\n{headers}\r\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("a reply");
        (head[9..12].parse().unwrap(), if body.is_empty() { head } else { body }.to_owned())
    }

    fn json(&self, method: &str, target: &str) -> (u16, Value) {
        let (status, body) = self.ask(method, target);
        (status, serde_json::from_str(&body).expect("a JSON document"))
    }

    fn get(&self, key: &[u8]) {
        let cx = Context::within(Duration::from_secs(20));
        self.runtime.block_on(self.group.get(key, &cx)).unwrap();
    }

    fn loads(&self) -> usize {
        self.echo.0.load(Ordering::SeqCst)
    }
}

#[test]
fn readiness_follows_its_latches_and_liveness_does_not() {
    let surface = Surface::start();
    assert_eq!(surface.ask("GET", "/readyz"), (503, "plugins: not yet up\n".to_owned()));
    assert_eq!(surface.ask("GET", "/livez"), (200, "ok\n".to_owned()));
    surface.plugins.release();
    assert_eq!(surface.ask("GET", "/readyz"), (200, "ready\n".to_owned()));
    let lines = "[+]plugins ok\n[+]draining ok\n";
    assert_eq!(surface.ask("GET", "/readyz?verbose"), (200, lines.to_owned()));
    surface.readiness.draining();
    assert_eq!(surface.ask("GET", "/readyz"), (503, "draining\n".to_owned()));
    assert_eq!(surface.ask("GET", "/livez").0, 200);
}

#[test]
fn metrics_are_brought_up_to_date_when_they_are_read() {
    let surface = Surface::start();
    surface.get(b"k");
    let (status, text) = surface.ask("GET", "/metrics");
    assert_eq!(status, 200);
    assert!(text.contains(r#"cachecluster_cache_items{group="g"} 1"#), "{text}");
    assert!(text.ends_with("# EOF\n"));
    let (_, head) = surface.ask("HEAD", "/metrics");
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
}

#[test]
fn the_status_names_groups_and_plugins() {
    let surface = Surface::start();
    surface.get(b"k");
    let (status, document) = surface.json("GET", "/status");
    assert_eq!(status, 200);
    assert_eq!(document["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["ready"], false);
    assert_eq!(document["groups"]["g"]["items"], 1);
    assert_eq!(document["groups"]["g"]["settings"]["ttl"], "10m");
    assert_eq!(document["plugins"]["dict"]["digest"], "sha256:00");
}

#[test]
fn a_key_is_purged_by_its_exact_bytes() {
    let surface = Surface::start();
    for key in [&b"a//b"[..], b"/lead", b"%2F", b"?", b""] {
        surface.get(key);
    }
    let filled = surface.loads();
    for (target, key) in
        [("a//b", "a//b"), ("/lead", "/lead"), ("%252F", "%2F"), ("%3f", "?"), ("", "")]
    {
        let (status, answer) = surface.json("DELETE", &format!("/groups/g/keys/{target}"));
        let expected = json!({ "purged": { "group": "g", "key": key, "was_in_memory": true } });
        assert_eq!((status, answer), (200, expected), "{target}");
    }
    surface.get(b"/lead");
    assert_eq!(surface.loads(), filled + 1);
    let (_, answer) = surface.json("DELETE", "/groups/g/keys/never");
    assert_eq!(answer["purged"]["was_in_memory"], false);
}

#[test]
fn a_group_is_purged_as_a_whole() {
    let surface = Surface::start();
    surface.get(b"one");
    surface.get(b"other");
    let (status, answer) = surface.json("DELETE", "/groups/g");
    assert_eq!((status, answer), (200, json!({ "purged": { "group": "g", "items": 2 } })));
    surface.get(b"one");
    assert_eq!(surface.loads(), 3);
}

#[test]
fn values_are_purged_by_their_label() {
    let surface = Surface::start();
    surface.get(b"one");
    let (status, answer) = surface.json("DELETE", "/groups/g/tags/a%20label");
    let expected = json!({ "purged": { "group": "g", "tag": "a label", "items": 0 } });
    assert_eq!((status, answer), (200, expected));
    surface.get(b"one");
    assert_eq!(surface.loads(), 1, "it has no label");
    assert_eq!(surface.ask("GET", "/groups/g/tags/a").0, 405);
    assert_eq!(surface.ask("DELETE", "/groups/g/labels/a").0, 404);
}

#[test]
fn a_key_is_explained_by_its_exact_bytes() {
    let surface = Surface::start();
    let (status, answer) = surface.json("GET", "/groups/g/keys/a//b%2F");
    assert_eq!((status, answer), (200, json!({ "explained": ["g", "a//b/"] })));
    assert_eq!(surface.ask("GET", "/groups/none/keys/a").0, 404);
    assert_eq!(surface.json("GET", "/members").1, json!({ "name": null, "members": [] }));
}

#[test]
fn a_reload_is_answered_when_it_is_done() {
    let surface = Surface::start();
    let (status, answer) = surface.json("POST", "/reload");
    assert_eq!((status, answer), (200, json!({ "outcome": "unchanged" })));
    let (status, problem) = surface.json("POST", "/plugins/dict/reload");
    assert_eq!((status, &problem["plugin"]), (409, &json!("dict")));
    assert_eq!(problem["type"], "urn:cachecluster:problem:reload-refused");
    assert_eq!(problem["detail"], "it is empty");
    let (status, problem) = surface.json("POST", "/plugins/di%20ct/reload");
    assert_eq!((status, &problem["plugin"]), (404, &json!("di ct")));
    assert!(problem["detail"].as_str().is_some_and(|it| it.contains("there is `dict`")));
    assert_eq!(surface.json("GET", "/status").1["last_reload"]["outcome"], "unchanged");
}

#[test]
fn what_is_not_there_or_not_taken_is_a_problem() {
    let surface = Surface::start();
    for (method, target, status, kind) in [
        ("GET", "/nowhere", 404, "not-found"),
        ("DELETE", "/groups/g/other", 404, "not-found"),
        ("DELETE", "/groups/other", 404, "unknown-group"),
        ("DELETE", "/groups/g/keys/k?", 400, "invalid-path"),
        ("DELETE", "/groups/g/keys/%", 400, "invalid-path"),
        ("GET", "/groups/g", 405, "method-not-allowed"),
        ("DELETE", "/status", 405, "method-not-allowed"),
        ("POST", "/livez", 405, "method-not-allowed"),
        ("GET", "/reload", 405, "method-not-allowed"),
        ("DELETE", "/plugins/dict/reload", 405, "method-not-allowed"),
        ("POST", "/reload?now", 400, "invalid-path"),
        ("POST", "/plugins/reload", 404, "not-found"),
        ("POST", "/plugins/dict", 404, "not-found"),
        ("POST", "/plugins/%/reload", 400, "invalid-path"),
    ] {
        let (found, problem) = surface.json(method, target);
        assert_eq!(found, status, "{method} {target}");
        assert_eq!(problem["type"], format!("urn:cachecluster:problem:{kind}"));
    }
    assert_eq!(surface.ask_with("GET", "/livez", "content-length: 1\r\n").0, 413);
    assert_eq!(surface.ask_with("POST", "/reload", "content-length: 1\r\n").0, 413);
}

#[test]
fn a_strangers_page_can_neither_read_nor_purge_nor_reload() {
    let surface = Surface::start();
    let rebound = "host: evil.example\r\n";
    assert_eq!(surface.ask_with("GET", "/status", rebound).0, 403);
    assert_eq!(surface.ask_with("DELETE", "/groups/g", rebound).0, 403);
    let foreign = "host: localhost\r\norigin: http://evil.example\r\n";
    assert_eq!(surface.ask_with("DELETE", "/groups/g", foreign).0, 403);
    for target in ["/reload", "/plugins/dict/reload"] {
        assert_eq!(surface.ask_with("POST", target, rebound).0, 403);
        assert_eq!(surface.ask_with("POST", target, foreign).0, 403);
    }
    // A health checker calls the host what it likes.
    assert_eq!(surface.ask_with("GET", "/livez", rebound).0, 200);
}

#[test]
fn it_stops_when_told_and_leaves_no_connection_open() {
    let surface = Surface::start();
    let mut idle = surface.connect();
    write!(idle, "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).unwrap();
    surface.stop.send(()).unwrap();
    surface.runtime.block_on(surface.server).unwrap();
    let mut rest = String::new();
    idle.read_to_string(&mut rest).unwrap();
    assert!(TcpStream::connect(surface.address).is_err());
}
