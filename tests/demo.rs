//! `cachecluster demo` as a newcomer runs it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use crate::harness::{PATIENCE, client, node::cachecluster, until};

/// A demo, killed when dropped.
struct Demo {
    process: Child,
    said: Arc<Mutex<String>>,
}

impl Demo {
    /// Starts it with `arguments`; its temporary files go to `folder`.
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut process = cachecluster()
            .arg("demo")
            .args(arguments)
            .current_dir(folder)
            .env("TMPDIR", folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("to start the demo");
        let said = Arc::new(Mutex::new(String::new()));
        let lines = Arc::clone(&said);
        let out = BufReader::new(process.stdout.take().expect("a pipe"));
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let mut said = lines.lock().expect("no panic");
                said.push_str(&line);
                said.push('\n');
            }
        });
        Self { process, said }
    }

    fn said(&self) -> String {
        self.said.lock().expect("no panic").clone()
    }

    /// The first address that is printed after `label`.
    async fn address(&self, label: &str) -> SocketAddr {
        self.all(label).await[0]
    }

    /// All addresses that are printed after `label`, one for each node.
    async fn all(&self, label: &str) -> Vec<SocketAddr> {
        until("the demo says what to try", || async { self.said().contains("Ctrl-C") }).await;
        let said = self.said();
        let lines = said.lines().filter(|line| line.trim_start().starts_with(label));
        let urls = lines.filter_map(|line| line.split("://").nth(1));
        urls.map(|url| url.trim().parse().expect("an address")).collect()
    }

    /// Ends it as Ctrl-C does. Returns the exit code and what it wrote to its log.
    async fn interrupt(mut self) -> (Option<i32>, String) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", "INT", &id]).status().expect("kill").success());
        let start = tokio::time::Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait().expect("to ask for the process") {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "the demo goes on: {}", self.said());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        let mut log = String::new();
        self.process.stderr.take().expect("a pipe").read_to_string(&mut log).expect("text");
        (status.code(), log)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[tokio::test]
async fn the_demo_answers_from_its_dictionary_and_then_from_memory() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let demo = Demo::start(folder.path(), &["--port", "0"]);
    let (http, admin) = (demo.address("clients").await, demo.address("admin").await);

    let first = client::get(http, "/define/cache").await;
    assert_eq!(first.status, 200, "{}", first.text());
    assert!(first.header("cache-status").contains("fwd=miss"), "{first:?}");
    for node in demo.all("clients").await {
        let again = client::get(node, "/define/cache").await;
        assert_eq!(again.body, first.body);
    }
    for _ in 0..2 {
        assert_eq!(client::get(http, "/define/nonesuch").await.status, 404);
    }
    for word in ["", "%22", "a%0D%0AQUIT", "."] {
        let answer = client::get(http, &format!("/define/{word}")).await;
        assert!(matches!(answer.status, 200 | 400 | 404), "{word:?}: {}", answer.text());
    }
    let status = client::get(admin, "/status").await.json();
    assert!(status["groups"]["define"].is_object(), "{status:#}");
    assert_eq!(status["cluster"]["members"].as_array().map(Vec::len), Some(3), "{status:#}");
    assert!(client::get(admin, "/metrics").await.text().contains("cachecluster_gets_total"));

    let said = demo.said();
    assert_eq!(said.matches("origin asked: DEFINE ! \"cache\"").count(), 1, "{said}");
    assert_eq!(said.matches("origin asked: DEFINE ! \"nonesuch\"").count(), 1, "{said}");
    // What it suggests to type works as it stands.
    for url in
        said.lines().filter_map(|line| line.trim().strip_prefix("curl ")?.split("http://").nth(1))
    {
        let (addr, path) = url.split_once('/').expect("a path");
        let path = path.split(' ').next().unwrap_or_default();
        let answer = client::get(addr.parse().expect("an address"), &format!("/{path}")).await;
        assert!(matches!(answer.status, 200 | 404), "{url}");
    }

    let (code, log) = demo.interrupt().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    let left: Vec<_> = fs::read_dir(folder.path()).expect("the folder").collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[tokio::test]
async fn a_taken_port_is_replaced_and_said_or_refused_if_it_was_asked_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Held for this test, unless somebody else holds them already.
    let _clients = TcpListener::bind("127.0.0.1:8080");
    let _operators = TcpListener::bind("127.0.0.1:9081");
    let demo = Demo::start(folder.path(), &["--nodes", "1"]);
    let (http, admin) = (demo.address("clients").await, demo.address("admin").await);
    assert_ne!(http.port(), 8080);
    assert_ne!(admin.port(), 9081);
    assert_eq!(client::get(http, "/define/cache").await.status, 200);
    let (code, log) = demo.interrupt().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("port 8080 is taken") && log.contains("port 9081 is taken"), "{log}");

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let refused = cachecluster()
        .args(["demo", "--port", &port])
        .env("TMPDIR", folder.path())
        .output()
        .expect("to run");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains(&port) && said.contains("in use"), "{said}");
}
