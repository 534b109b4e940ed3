//! Plugins that do their worst in a real node, and what everybody else notices of it:
//! nothing.

use std::sync::Arc;

use tempfile::TempDir;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    guest::{ECHO, Guest, guest},
    harness::{
        client::{self, Connection},
        node::{Builder, Node, component},
        origin::{self, Origin},
        until,
    },
};

/// Threads of the node that run guests.
const THREADS: usize = 2;
/// Calls that spin at once: more than there are threads for.
const SPINNERS: usize = 2 * THREADS;

/// The plugins' files of a node.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// The section of the config for a plugin that is `guest`, and for its group.
    fn plugin(&self, name: &str, guest: &Guest, settings: &str, caching: &str) -> String {
        let file = self.0.path().join(format!("{name}.wasm"));
        std::fs::write(&file, guest.bytes()).expect("written");
        format!(
            "[plugins.{name}]\nsource = {:?}\n{settings}\n\
             [groups.{name}]\nplugin = \"{name}\"\n[groups.{name}.cache]\n{caching}\n",
            file.display().to_string()
        )
    }
}

/// The section of the config for the HTTP plugin in front of `origin`, and for its group.
fn http(name: &str, origin: std::net::SocketAddr) -> String {
    format!(
        "[plugins.{name}]\nsource = {:?}\nconfig = {{ url = \"http://{origin}/{{key}}\" }}\n\
         network = {{ http = [\"http://{origin}\"], allow_private = [\"127.0.0.0/8\"] }}\n\
         [groups.{name}]\nplugin = \"{name}\"\n",
        component("http").display().to_string()
    )
}

fn node(sections: &[String]) -> Builder {
    Node::with(format!("[wasm]\nthreads = {THREADS}\n{}", sections.concat()))
}

/// The instances of plugin `name` that serve a call, and its faults so far.
async fn at_work(node: &Node, name: &str) -> (u64, u64) {
    let status = node.admin("/status").await.json();
    let plugins = status["plugins"].as_array().expect("plugins");
    let plugin = plugins.iter().find(|plugin| plugin["name"] == name).expect("the plugin");
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    (number(&plugin["instances"]["busy"]), number(&plugin["faults"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_plugin_spins_on_every_thread_others_are_filled_hit_and_replaced() {
    const CLIENTS: usize = 4;
    const HITS: usize = 500;
    const FILLS: usize = 25;

    let files = Files::new();
    let origin = Origin::start(|asked| origin::ok("", asked.target.as_bytes())).await;
    // For longer than all of this takes.
    let spinning = files.plugin(
        "spinning",
        &guest("(loop (br 0)) unreachable"),
        &format!("limits = {{ timeout = \"10m\", cpu = \"10m\", instances = {SPINNERS} }}"),
        "fill_timeout = \"10m\"",
    );
    let echo = files.plugin("echo", &guest(ECHO), "watch = false", "");
    let node = Arc::new(node(&[spinning, echo, http("origin", origin.addr())]).start());
    let warm = node.get("/echo/hot").await;
    assert_eq!((warm.status, warm.text().as_str()), (200, "hot"));

    let mut spinners = JoinSet::new();
    for key in 0..SPINNERS + 2 {
        let addr = node.http;
        spinners.spawn(async move { client::get(addr, &format!("/spinning/{key}")).await });
    }
    let all = SPINNERS as u64;
    until("every thread spins", || async { at_work(&node, "spinning").await.0 == all }).await;

    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let addr = node.http;
        clients.spawn(async move {
            let mut connection = Connection::open(addr).await;
            for _ in 0..HITS {
                let answer = connection.get("/echo/hot").await;
                assert_eq!((answer.status, answer.text().as_str()), (200, "hot"));
                assert!(answer.header("cache-status").contains("; hit"), "{answer:?}");
            }
            for number in 0..FILLS {
                let key = format!("{client}-{number}");
                let answer = connection.get(&format!("/echo/{key}")).await;
                assert_eq!((answer.status, answer.text()), (200, key.clone()));
                let answer = connection.get(&format!("/origin/{key}")).await;
                assert_eq!((answer.status, answer.text()), (200, format!("/{key}")));
            }
        });
    }
    clients.join_all().await;
    assert_eq!(origin.requests(), CLIENTS * FILLS);

    // Another version is compiled and tried as if nothing was.
    let other = guest(ECHO).with_core("(global i32 (i32.const 0))").bytes();
    std::fs::write(files.0.path().join("echo.wasm"), other).expect("written");
    let reloaded = node.post("/plugins/echo/reload").await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    assert_eq!(node.get("/echo/afterwards").await.text(), "afterwards");

    assert_eq!(at_work(&node, "spinning").await, (all, 0), "they spin to this moment");
    assert_eq!(
        node.metric(r#"cachecluster_plugin_calls_total{plugin="echo",outcome="trap"}"#).await,
        0.0
    );
    spinners.abort_all();
}

/// Floods what its key's first byte says: `r` the log with a million records, `l` the log
/// with one of a mebibyte, `o` standard error with a mebibyte without an end of line,
/// `n` standard error with a million lines, `f` both with what would forge a record,
/// `m` the metrics with four thousand labels, again and again. Any other key is its own value.
fn flooding() -> Guest {
    let case = |byte: char, then: &str| {
        format!("(if (i32.eq (local.get $mood) (i32.const {})) (then {then}))", u32::from(byte))
    };
    let times = |count: u32, then: &str| {
        format!(
            "(local.set $i (i32.const {count}))
             (loop $again {then}
               (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))"
        )
    };
    let log = |at: &str, length: &str| {
        format!("(call $log (i32.const 3) {at} {length} (i32.const 0) (i32.const 0))")
    };
    let write =
        "(call $write (local.get $err) (i32.const 131072) (i32.const 4096) (i32.const 256))";
    let fill = |byte: char| {
        format!(
            "(memory.fill (i32.const 131072) (i32.const {}) (i32.const 1048576))",
            u32::from(byte)
        )
    };
    let forged = "(i32.const 3000) (i32.const 39)";
    let cases = [
        case('r', &times(1_000_000, &log("(i32.const 3000)", "(i32.const 1)"))),
        case('l', &(fill('y') + &log("(i32.const 131072)", "(i32.const 1048576)"))),
        case('o', &(fill('z') + &times(256, write))),
        // `w` and a new line, in turn.
        case(
            'n',
            &(times(
                2_048,
                "(i32.store16 (i32.add (i32.const 131070) (i32.mul (i32.const 2) (local.get $i)))
                   (i32.const 0x0a77))",
            ) + &times(489, write)),
        ),
        case(
            'f',
            &format!(
                "{} (call $write (local.get $err) {forged} (i32.const 256))",
                log("(i32.const 3000)", "(i32.const 39)")
            ),
        ),
        case(
            'm',
            &times(
                100_000,
                "(i32.store (i32.const 3104) (i32.add (i32.const 0x20202020)
                   (i32.add (i32.and (local.get $i) (i32.const 63))
                     (i32.shl (i32.and (local.get $i) (i32.const 0xfc0)) (i32.const 2)))))
                 (call $count (i32.const 3100) (i32.const 3) (i64.const 1) (i32.const 3120)
                   (i32.const 1))",
            ),
        ),
    ];
    guest(&format!(
        "(local $mood i32) (local $i i32) (local $err i32)
         (local.set $mood (i32.load8_u (local.get $key)))
         (local.set $err (call $get-stderr))
         {} {ECHO}",
        cases.concat()
    ))
    .pages(40)
    .with_logging()
    .with_stdio()
    .with_metrics()
    .with_core(
        "(data (i32.const 3000) \"x\\1b[31m\\0d\\0a{\\22level\\22:\\22ERROR\\22}\\0aERROR forged\\0a\")
         (data (i32.const 3100) \"key\")
         (data (i32.const 3120) \"\\1c\\0c\\00\\00\\03\\00\\00\\00\\20\\0c\\00\\00\\04\\00\\00\\00\")",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_records_and_labels_cost_the_plugin_and_not_the_node() {
    const DROPPED: &str = "cachecluster_plugin_log_records_dropped_total{plugin=\"flooding\"}";

    let files = Files::new();
    let limits = "limits = { timeout = \"60s\", cpu = \"60s\", value = \"2MiB\" }";
    let flooding = files.plugin("flooding", &flooding(), limits, "fill_timeout = \"60s\"");
    let began = Instant::now();
    let node = node(&[flooding]).env("CACHECLUSTER_HTTP__REQUEST_TIMEOUT", "60s").start();
    let flood = async |key: &str| {
        let answer = node.get(&format!("/flooding/{key}")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, key));
    };
    let records = |text: &str| {
        let log = node.log();
        let lines = log.lines().filter(|line| line.contains("From the plugin."));
        lines.filter(|line| line.contains(text)).map(ToOwned::to_owned).collect::<Vec<_>>()
    };

    // First what writes little, while there is room for it.
    flood("forge").await;
    until("it is written", || async { records("forged").len() == 2 }).await;
    // One record, and three lines of standard error.
    let forged = records("");
    assert_eq!(forged.len(), 4, "{forged:?}");
    for line in forged {
        let record: serde_json::Value = serde_json::from_str(&line).expect("a record");
        assert_eq!(record["level"], "WARN");
        let text = record["fields"]["text"].as_str().expect("the guest's words");
        assert!(!text.contains(char::is_control), "{text:?}");
    }
    flood("long-record").await;
    until("it is written", || async { records("yyy").len() == 1 }).await;
    assert!(records("yyy").iter().all(|line| line.len() < 8 << 10));

    flood("one-line-without-an-end").await;
    assert!(records("zzz").iter().all(|line| line.len() < 8 << 10));
    flood("records").await;
    assert!(node.metric(DROPPED).await > 990_000.0);
    flood("n-lines").await;
    assert!(node.metric(DROPPED).await > 1_980_000.0);
    flood("metrics").await;
    let metrics = node.admin("/metrics").await.text();
    assert_eq!(metrics.matches("cachecluster_guest_key_total{").count(), 256);
    flood("well-again").await;

    let allowed = 200.0 + 100.0 * began.elapsed().as_secs_f64();
    let written = records("").len();
    assert!(written as f64 <= allowed, "{written} records, {allowed} are allowed");
    assert!(node.log().len() < 1 << 20, "{} bytes", node.log().len());
}
