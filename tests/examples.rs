//! What is there to be copied works: the settings are good, the scripts are scripts, and what
//! several files say of one thing agrees.

use std::{
    cell::RefCell,
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use cachecluster::config::Config;

use crate::harness::{
    client, command,
    node::{cachecluster, component},
    until,
};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    fs::read_to_string(repository().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Checks a file of settings as a user would, with `env` around it.
fn check(file: &str, env: &[(&str, &str)]) {
    let file = repository().join(file);
    let checked = command::run(|command| {
        command.arg("--config").arg(&file).arg("check").envs(env.iter().copied());
    });
    assert_eq!(
        (checked.code, checked.err.as_str()),
        (0, ""),
        "{}: {}",
        file.display(),
        checked.out
    );
}

#[test]
fn the_settings_of_the_fleet_on_compute_engine_are_good() {
    let plugin = component("http").display().to_string();
    // As startup.sh writes it to /etc/default/cachecluster.
    let env = [
        ("CACHECLUSTER_PLUGINS__ITEMS__SOURCE", plugin.as_str()),
        ("CACHECLUSTER_MATCH__REGIONS", "us-central1"),
        ("CACHECLUSTER_CLUSTER__ZONE", "us-central1-b"),
    ];
    check("examples/gce/cachecluster.toml", &env);
}

#[test]
fn the_settings_of_the_package_are_good() {
    check("packaging/debian/cachecluster.toml", &[]);
}

#[test]
fn terraform_opens_the_ports_and_sets_the_marks_that_the_settings_name() {
    let path = repository().join("examples/gce/cachecluster.toml");
    let config = Config::load(&path, std::iter::empty()).expect("good").config;
    let terraform = read("examples/gce/main.tf");
    let (http, admin) = (config.http.listen.port(), config.admin.listen.port());
    let (peers, gossip) = (config.peers_listen().port(), config.cluster.port);
    for text in [
        format!("ports    = [\"{peers}\", \"{gossip}\"]"),
        format!("ports    = [\"{gossip}\"]"),
        format!("ports    = [\"{http}\"]"),
        format!("ports    = [\"{admin}\"]"),
        format!("port         = {admin}"),
        "file(\"${path.module}/cachecluster.toml\")".to_owned(),
        "file(\"${path.module}/startup.sh\")".to_owned(),
        "\"compute-ro\"".to_owned(),
    ] {
        assert!(terraform.contains(&text), "no {text}");
    }
    let name = read("examples/gce/variables.tf");
    let tag = &config.matching.tags[0];
    assert!(name.contains(&format!("default     = \"{tag}\"")), "no {tag}");
    assert_eq!(&config.meta["service"], tag);
    // Everybody who may ask does so on an address that is not loopback.
    assert!(config.http.listen.ip().is_unspecified() && config.admin.listen.ip().is_unspecified());
}

#[test]
fn scripts_are_scripts() {
    for script in ["examples/gce/startup.sh", "examples/local/run"] {
        let checked = Command::new("bash").arg("-n").arg(repository().join(script)).output();
        let checked = checked.expect("to run bash");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}

#[test]
fn the_unit_starts_the_node_with_the_settings_that_are_installed() {
    let unit = read("packaging/cachecluster.service");
    assert_eq!(unit, read("examples/gce/cachecluster.service"), "the example has another unit");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a start");
    let words: Vec<&str> = start.split(' ').collect();
    assert_eq!(words[0], "/usr/bin/cachecluster");
    assert_eq!(words[2], "/etc/cachecluster/cachecluster.toml");
    assert!(read("host/Cargo.toml").contains("etc/cachecluster/cachecluster.toml"));
    assert!(read("examples/gce/startup.sh").contains("folder=/etc/cachecluster\n"));
    // The command line is one, and what it lacks here is the file.
    let nowhere = words[1..].iter().map(|word| word.replace("/etc/", "/no/such/folder/"));
    let ran = cachecluster().args(nowhere).output().expect("to run");
    assert_eq!(ran.status.code(), Some(78), "{}", String::from_utf8_lossy(&ran.stderr));
    // What the unit says of exit codes is what they are.
    assert!(unit.contains("RestartPreventExitStatus=2 78\n"));
}

/// `examples/local/run` on `host`, with the command of this build, which shares what was
/// compiled with the nodes of other tests.
fn script(host: &str) -> Command {
    let node = cachecluster();
    let mut script = Command::new(repository().join("examples/local/run"));
    let set = node.get_envs().filter_map(|(name, value)| Some((name, value?)));
    script.envs(set).env("CACHECLUSTER", node.get_program()).env("HOST", host);
    script.stdin(Stdio::null());
    script
}

/// `examples/local/run` with its cluster, ended when dropped.
struct Local {
    script: Child,
    out: Arc<Mutex<String>>,
}

impl Local {
    const HOST: &str = "127.0.100.1";

    fn start(nodes: usize) -> Self {
        let mut script = script(Self::HOST)
            .arg(nodes.to_string())
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("to run the script");
        let out = Arc::<Mutex<String>>::default();
        let (told, stdout) = (Arc::clone(&out), script.stdout.take().expect("a pipe"));
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let mut out = told.lock().expect("whole");
                out.push_str(&line);
                out.push('\n');
            }
        });
        Self { script, out }
    }

    fn said(&self) -> String {
        self.out.lock().expect("whole").clone()
    }

    /// What a terminal sends on Ctrl-C, and to whom.
    fn interrupt(&self) {
        let group = format!("-{}", self.script.id());
        let sent = Command::new("kill").args(["-s", "INT", "--", &group]).status();
        assert!(sent.expect("to run kill").success());
    }

    /// The processes that the script has started and that have not ended.
    fn children(&self) -> Vec<u32> {
        let id = self.script.id();
        let file = format!("/proc/{id}/task/{id}/children");
        let children = fs::read_to_string(file).unwrap_or_default();
        children.split_whitespace().map(|id| id.parse().expect("a number")).collect()
    }

    async fn ended(&mut self) -> ExitStatus {
        let script = RefCell::new(&mut self.script);
        let end = || script.borrow_mut().try_wait().expect("to ask for the script");
        until("the script has ended", || async { end().is_some() }).await;
        end().expect("it has ended")
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if let Ok(None) = self.script.try_wait() {
            self.interrupt();
            self.script.wait().ok();
        }
    }
}

#[tokio::test]
async fn a_cluster_on_one_machine_comes_with_one_command_and_goes_with_ctrl_c() {
    let mut local = Local::start(3);
    until("it says what to ask", || async { local.said().contains("where the value comes from") })
        .await;
    let said = local.said();
    // Every line that is to be copied does what it says.
    let lines: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    assert_eq!(lines.len(), 5, "{said}");
    let answers = lines.iter().map(|line| {
        let ran = Command::new("bash").arg("-c").arg(line).env("no_proxy", "*").output();
        let ran = ran.expect("to run bash");
        assert!(ran.status.success(), "{line}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).expect("UTF-8")
    });
    let answers: Vec<String> = answers.collect();
    let [first, second, members, explained, origin] = &answers[..] else { panic!("{answers:?}") };
    let value = origin.trim();
    assert!(value.contains("etcdserver"), "{value}");
    for answer in [first, second] {
        assert!(answer.starts_with("HTTP/1.1 200") && answer.trim().ends_with(value), "{answer}");
    }
    assert!(members.matches(Local::HOST).count() >= 3, "{members}");
    assert!(explained.contains("version"), "{explained}");
    // The value came from its origin once, whoever was asked.
    let mut fills = 0.0;
    for admin in 9181..=9183 {
        let address = format!("{}:{admin}", Local::HOST).parse().expect("an address");
        let metrics = client::get(address, "/metrics").await.text();
        let calls = "cachecluster_plugin_calls_total{plugin=\"etcd\",outcome=\"ok\"} ";
        let calls = metrics.lines().find_map(|line| line.strip_prefix(calls)?.parse::<f64>().ok());
        fills += calls.unwrap_or(0.0);
    }
    assert_eq!(fills, 1.0);

    let children = local.children();
    assert_eq!(children.len(), 4, "three nodes and etcd");
    let folder = said.split("logs are in ").nth(1).and_then(|rest| rest.split(".\n").next());
    let folder = PathBuf::from(folder.expect("a folder"));
    assert!(folder.join("node-3.log").exists());
    // One that is killed ends nothing else.
    let killed = Command::new("kill").args(["-s", "KILL", &children[3].to_string()]).status();
    assert!(killed.expect("to run kill").success());
    let in_ring = "cachecluster_cluster_members{state=\"in_ring\"} 2";
    until("the others have noticed", || async {
        let address = format!("{}:9181", Local::HOST).parse().expect("an address");
        client::get(address, "/metrics").await.text().contains(in_ring)
    })
    .await;
    assert!(local.children().len() >= 3, "the others go on");
    local.interrupt();
    assert_eq!(local.ended().await.code(), Some(130));
    for child in children {
        assert!(!Path::new(&format!("/proc/{child}")).exists(), "{child} goes on");
    }
    assert!(!folder.exists(), "{}", folder.display());
}

#[tokio::test]
async fn a_cluster_that_cannot_start_says_why_and_leaves_nothing() {
    // Somebody else has the first node's port.
    let taken = TcpListener::bind("127.0.101.1:8081").expect("a port");
    let ran = script("127.0.101.1").arg("2").output().expect("to run the script");
    drop(taken);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert!(said.contains("in use") && said.contains("node 1 has ended"), "{said}");
    for port in [2379, 8082, 9182] {
        TcpListener::bind(("127.0.101.1", port)).expect("nobody is left");
    }
    let wrong = script("127.0.101.1").arg("0").output();
    assert_eq!(wrong.expect("to run the script").status.code(), Some(1));
}
