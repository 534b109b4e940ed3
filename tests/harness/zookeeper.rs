//! A real `ZooKeeper`: Debian's `zookeeper`.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::timeout;
use zookeeper_client::{Acls, Client, CreateMode};

use super::{server::Server, until};

const PROGRAM: &str = "/usr/bin/java";
const JAR: &str = "/usr/share/java/zookeeper.jar";

/// Below which members of the cluster `images` stand.
const PATH: &str = "/cachecluster/images";

/// `ZooKeeper` on a loopback address of its own, with its data in a folder of its own, until
/// dropped.
pub(crate) struct ZooKeeper {
    address: SocketAddr,
    /// Goes before its folder does.
    server: Server,
    folder: TempDir,
}

impl ZooKeeper {
    /// Starts one server on `host` and waits until it serves.
    pub(crate) async fn start(host: [u8; 4]) -> Self {
        for (file, package) in [(PROGRAM, "default-jre-headless"), (JAR, "zookeeper")] {
            assert!(Path::new(file).exists(), "there is no {file}: apt-get install {package}");
        }
        let address = SocketAddr::new(Ipv4Addr::from(host).into(), 2_181);
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Sessions may last from two to twenty ticks.
        let settings = format!(
            "tickTime=500\nclientPort=2181\nclientPortAddress={}\ndataDir={}\n\
             admin.enableServer=false\nmaxClientCnxns=0\n",
            address.ip(),
            folder.path().join("data").display()
        );
        fs::write(folder.path().join("zoo.cfg"), settings).expect("written");
        let mut zookeeper = Self { address, folder, server: Server::default() };
        zookeeper.restart().await;
        zookeeper
    }

    /// As it stands in settings.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again, with the data that it had.
    pub(crate) async fn restart(&mut self) {
        let mut command = Command::new(PROGRAM);
        command
            .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", JAR])
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(self.folder.path().join("zoo.cfg"));
        self.server.restart(&mut command);
        until("ZooKeeper serves", || async { self.client(None).await.is_some() }).await;
    }

    /// Sends a signal, by the name that `kill` knows it by.
    pub(crate) fn signal(&self, name: &str) {
        self.server.signal(name);
    }

    async fn client(&self, auth: Option<&str>) -> Option<Client> {
        let mut connector = Client::connector().with_session_timeout(Duration::from_secs(5));
        if let Some(auth) = auth {
            connector = connector.with_auth("digest", auth.as_bytes());
        }
        let address = self.address();
        timeout(Duration::from_secs(2), connector.connect(&address)).await.ok()?.ok()
    }

    /// The names of members' nodes, as `auth` sees them.
    pub(crate) async fn members_as(&self, auth: Option<&str>) -> BTreeSet<String> {
        let Some(client) = self.client(auth).await else { return BTreeSet::new() };
        client.list_children(PATH).await.unwrap_or_default().into_iter().collect()
    }

    /// The names of members' nodes.
    pub(crate) async fn members(&self) -> BTreeSet<String> {
        self.members_as(None).await
    }

    /// Makes a node beside those of members, which nobody takes away.
    pub(crate) async fn make(&self, name: &str) {
        let client = self.client(None).await.expect("a session");
        let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
        client.create(&format!("{PATH}/{name}"), b"", &options).await.expect("made");
    }
}
