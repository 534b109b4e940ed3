//! A node in a process of its own, started from a config file as a user would.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
};

use tempfile::TempDir;
use tokio::time::Instant;

use super::{PATIENCE, client, client::Response, until};

/// A node, killed when dropped.
pub(crate) struct Node {
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
    env: Vec<(&'static str, String)>,
    /// What stands before the command.
    wrap: Vec<String>,
    folder: TempDir,
}

/// What stands before every config of a test.
const PREFACE: &str = "[http]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
                       [log]\nformat = \"json\"\nfilter = \"info,cachecluster=debug\"\n";

/// What a process takes of the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resources {
    pub(crate) memory_kib: usize,
    pub(crate) threads: usize,
    pub(crate) files: usize,
}

/// A node that is still to be started.
pub(crate) struct Builder {
    config: String,
    env: Vec<(&'static str, String)>,
    wrap: Vec<String>,
}

/// Where a node says that it serves: its clients, its operators.
type Serving = mpsc::Receiver<(SocketAddr, SocketAddr)>;

/// A component of this repository: the one that is checked in, or one that has just
/// been built, where `TEST_PLUGINS` names the folder it was built into.
pub(crate) fn component(name: &str) -> PathBuf {
    let file = format!("{name}.wasm");
    match std::env::var_os("TEST_PLUGINS") {
        Some(folder) => PathBuf::from(folder).join(file),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins").join(name).join(file),
    }
}

/// The command that users run.
pub(crate) fn cachecluster() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cachecluster"));
    command.env_remove("CACHECLUSTER_CONFIG").env_remove("NO_COLOR").stdin(Stdio::null());
    // Components are compiled once for all tests of a run.
    command.env("XDG_CACHE_HOME", cache_folder());
    command
}

impl Node {
    /// A node with this config, on ports of loopback that the system chooses.
    pub(crate) fn with(config: impl Into<String>) -> Builder {
        Builder { config: config.into(), env: Vec::new(), wrap: Vec::new() }
    }

    /// `GET` of a client, sent as it stands.
    pub(crate) async fn get(&self, target: &str) -> Response {
        client::get(self.http, target).await
    }

    /// `GET` of an operator.
    pub(crate) async fn admin(&self, target: &str) -> Response {
        client::get(self.admin, target).await
    }

    /// `POST` of an operator, without a body.
    pub(crate) async fn post(&self, target: &str) -> Response {
        client::request(self.admin, "POST", target).await
    }

    /// What the process takes of the machine.
    pub(crate) fn resources(&self) -> Resources {
        let folder = PathBuf::from(format!("/proc/{}", self.process.id()));
        let status = fs::read_to_string(folder.join("status")).expect("a process");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.and_then(|number| number.parse().ok()).expect(name)
        };
        Resources {
            memory_kib: field("VmRSS:"),
            threads: field("Threads:"),
            files: fs::read_dir(folder.join("fd")).expect("a process").count(),
        }
    }

    /// The value of one metric, named with its labels as it is exported.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.admin("/metrics").await.text();
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }

    /// What the node has written to its log so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("the log").join("\n")
    }

    /// Waits until the log has a line with `text`.
    pub(crate) async fn logged(&self, text: &str) {
        until(&format!("the log says {text:?}"), || async { self.log().contains(text) }).await;
    }

    /// The file that the node reads its settings from.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("cachecluster.toml")
    }

    /// Puts `config` in the place of the one that the node was started with. It is for
    /// the test to have it read.
    pub(crate) fn configure(&self, config: &str) {
        let new = self.folder.path().join("new.toml");
        fs::write(&new, format!("{PREFACE}{config}")).expect("to write the config");
        fs::rename(new, self.file()).expect("to rename the config");
    }

    /// Sends a signal, by the name that `kill` knows it by.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().expect("to run kill");
        assert!(sent.success());
    }

    /// Ends the node as `kill -9` does: it says nothing to anybody.
    pub(crate) fn kill(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }

    /// Starts the node anew, with the settings and the state that it had, and waits until it
    /// serves. It must have ended.
    ///
    /// # Panics
    /// With the node's log, when it ends instead.
    pub(crate) async fn start_again(&mut self) {
        let (process, serving) = launch(self.folder.path(), &self.env, &self.wrap, &self.log);
        self.process = process;
        let (start, mut told) = (Instant::now(), Err(mpsc::TryRecvError::Empty));
        while told == Err(mpsc::TryRecvError::Empty) && start.elapsed() < PATIENCE {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            told = serving.try_recv();
        }
        let Ok(addresses) = told else { panic!("the node does not serve:\n{}", self.log()) };
        (self.http, self.admin) = addresses;
    }

    /// Waits for the node to end by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("to ask for the process") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the node goes on:\n{}", self.log());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

impl Builder {
    /// Sets a variable in the node's environment.
    pub(crate) fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Puts words before the command that starts the node: one that runs it elsewhere.
    pub(crate) fn wrap<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Self {
        self.wrap.extend(words.into_iter().map(str::to_owned));
        self
    }

    /// Starts the node and waits until it serves.
    ///
    /// # Panics
    /// With the node's log, when it ends instead.
    pub(crate) fn start(self) -> Node {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("cachecluster.toml");
        fs::write(&path, format!("{PREFACE}{}", self.config)).expect("to write the config");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (mut process, serving) = launch(folder.path(), &self.env, &self.wrap, &log);
        let Ok((http, admin)) = serving.recv_timeout(PATIENCE) else {
            process.kill().ok();
            panic!("the node does not serve:\n{}", log.lock().expect("the log").join("\n"));
        };
        Node { http, admin, process, log, env: self.env, wrap: self.wrap, folder }
    }
}

/// Starts the process of a node whose settings and state are in `folder`.
fn launch(
    folder: &Path,
    env: &[(&'static str, String)],
    wrap: &[String],
    log: &Arc<Mutex<Vec<String>>>,
) -> (Child, Serving) {
    let plain = cachecluster();
    let mut command = match wrap.split_first() {
        None => plain,
        Some((program, words)) => {
            let mut wrapped = Command::new(program);
            wrapped.args(words).arg(plain.get_program()).stdin(Stdio::null());
            for (name, value) in plain.get_envs() {
                match value {
                    Some(value) => wrapped.env(name, value),
                    None => wrapped.env_remove(name),
                };
            }
            wrapped
        }
    };
    let mut process = command
        .args(["serve", "--config"])
        .arg(folder.join("cachecluster.toml"))
        // The last good version of one test's plugin is nobody else's.
        .env("XDG_STATE_HOME", folder.join("state"))
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("to start the node");
    let stderr = process.stderr.take().expect("a pipe");
    let (serving, started) = mpsc::sync_channel(1);
    let lines = Arc::clone(log);
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if let Some(addresses) = serving_addresses(&line) {
                serving.send(addresses).ok();
            }
            lines.lock().expect("the log").push(line);
        }
    });
    (process, started)
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
