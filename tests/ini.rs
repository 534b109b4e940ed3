//! A node with the settings of gce-cache-cluster: it serves, and reads them again.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{client, node::cachecluster, until};

/// This test's own address of loopback.
const HOST: &str = "127.0.102.1";

const FILE: &str = "[cluster]\nport = 9998 # for gossip\nheartbeat = 250\n[match]\ntags = cache\n";

/// A node, killed when dropped.
struct Node {
    process: Child,
    folder: TempDir,
}

impl Node {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("cachecluster.ini");
        fs::write(&file, FILE).expect("to write the file");
        let process = cachecluster()
            .arg("--config")
            .arg(file)
            .arg("serve")
            .env("CACHECLUSTER_HTTP__LISTEN", format!("{HOST}:8080"))
            .env("CACHECLUSTER_ADMIN__LISTEN", format!("{HOST}:9081"))
            .env("CACHECLUSTER_CLUSTER__BIND", HOST)
            // Nobody is there: this is no machine of Compute Engine.
            .env("GCE_METADATA_HOST", format!("{HOST}:1"))
            .env("XDG_STATE_HOME", folder.path().join("state"))
            .stderr(Stdio::null())
            .spawn()
            .expect("to start the node");
        Self { process, folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("cachecluster.ini")
    }

    fn hang_up(&self) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", "HUP", &id]).status().expect("kill").success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn address(port: u16) -> SocketAddr {
    format!("{HOST}:{port}").parse().expect("an address")
}

async fn last_reload() -> Value {
    client::get(address(9081), "/status").await.json()["last_reload"].clone()
}

#[tokio::test]
async fn a_node_serves_by_the_ancestors_file_and_reads_it_again() {
    let node = Node::start();
    let is_open = |port: u16| TcpStream::connect(address(port)).is_ok();
    until("operators are served", || async { is_open(9081) }).await;
    until("it is ready", || async { client::get(address(9081), "/readyz").await.status == 200 })
        .await;
    // Clients, peers and gossip: by default, by default, and as the file says.
    for port in [8080, 9080, 9998] {
        assert!(is_open(port), "nobody at {port}");
    }

    fs::write(node.file(), FILE.replace("9998", "9998x")).expect("to write the file");
    node.hang_up();
    until("a reload is refused", || async { last_reload().await["outcome"] == "refused" }).await;
    let said = last_reload().await["reasons"].to_string();
    assert!(said.contains("cachecluster.ini:2:8") && said.contains("takes it for 0"), "{said}");

    fs::write(node.file(), FILE.replace("heartbeat = 250\n", "")).expect("to write the file");
    node.hang_up();
    until("a reload is done", || async { last_reload().await["outcome"] == "unchanged" }).await;
}
