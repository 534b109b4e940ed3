//! A node in a process of its own, started from a config file as a user would.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Instant,
};

use tempfile::TempDir;

use super::{PATIENCE, client, client::Response, until};

/// A node, killed when dropped.
pub struct Node {
    pub http: SocketAddr,
    pub admin: SocketAddr,
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
    _folder: TempDir,
}

/// A node that is still to be started.
pub struct Builder {
    config: String,
    environment: Vec<(String, String)>,
}

/// A component of this repository: the one that is checked in, or one that has just
/// been built, where `CACHECLUSTER_TEST_PLUGINS` names the folder it was built into.
pub fn component(name: &str) -> PathBuf {
    let file = format!("{name}.wasm");
    match std::env::var_os("CACHECLUSTER_TEST_PLUGINS") {
        Some(folder) => PathBuf::from(folder).join(file),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins").join(name).join(file),
    }
}

/// The command that users run.
pub fn cachecluster() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cachecluster"));
    command.env_remove("CACHECLUSTER_CONFIG").env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

impl Node {
    /// A node with this config, on ports of loopback that the system chooses.
    pub fn with(config: impl Into<String>) -> Builder {
        Builder { config: config.into(), environment: Vec::new() }
    }

    /// `GET` of a client, sent as it stands.
    pub async fn get(&self, target: &str) -> Response {
        client::get(self.http, target).await
    }

    /// `GET` of an operator.
    pub async fn admin(&self, target: &str) -> Response {
        client::get(self.admin, target).await
    }

    /// The value of one metric, named with its labels as it is exported.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.admin("/metrics").await.text();
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }

    /// What the node has written to its log so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log").join("\n")
    }

    /// Waits until the log has a line with `text`.
    pub async fn logged(&self, text: &str) {
        until(&format!("the log says {text:?}"), || async { self.log().contains(text) }).await;
    }

    /// Sends a signal, by the name that `kill` knows it by.
    pub fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().expect("to run kill");
        assert!(sent.success());
    }

    /// Waits for the node to end by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("to ask for the process") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the node goes on:\n{}", self.log());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Bytes of the node's process in memory.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.process.id());
        let text = fs::read_to_string(path).expect("the process's memory");
        let line = text.lines().find(|line| line.starts_with("Rss:")).expect("a line for Rss");
        let kib: u64 =
            line.split_whitespace().nth(1).and_then(|it| it.parse().ok()).expect("a number");
        kib * 1_024
    }
}

impl Builder {
    /// Sets a variable in the node's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the node and waits until it serves.
    ///
    /// # Panics
    /// With the node's log, when it ends instead.
    pub fn start(self) -> Node {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("cachecluster.toml");
        let ports = "[http]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
                     [log]\nformat = \"json\"\nfilter = \"info,cachecluster=debug\"\n";
        fs::write(&path, format!("{ports}{}", self.config)).expect("to write the config");
        let mut process = cachecluster()
            .args(["serve", "--config"])
            .arg(&path)
            .envs(self.environment)
            // Components are compiled once for all tests of a run.
            .env("XDG_CACHE_HOME", cache_folder())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("to start the node");
        let stderr = process.stderr.take().expect("a pipe");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (serving, started) = mpsc::sync_channel(1);
        let lines = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(addresses) = serving_addresses(&line) {
                    serving.send(addresses).ok();
                }
                lines.lock().expect("the log").push(line);
            }
        });
        let Ok((http, admin)) = started.recv_timeout(PATIENCE) else {
            process.kill().ok();
            panic!("the node does not serve:\n{}", log.lock().expect("the log").join("\n"));
        };
        Node { http, admin, process, log, _folder: folder }
    }
}

/// Where the node says that it serves.
fn serving_addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let record: serde_json::Value = serde_json::from_str(line).ok()?;
    let fields = record.get("fields")?;
    (fields.get("message")?.as_str()? == "Serving.").then_some(())?;
    let address = |name: &str| fields.get(name)?.as_str()?.parse().ok();
    Some((address("http")?, address("admin")?))
}

/// Where the nodes of all tests keep what they have compiled.
fn cache_folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache")
}

impl Drop for Node {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
