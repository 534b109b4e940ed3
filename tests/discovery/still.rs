//! Registries that stand still for a minute: longer than entries live in them.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{finds, is_told, node, places, source};
use crate::{
    cluster::{KeyFile, agree, owners},
    harness::{etcd::Etcd, until, zookeeper::ZooKeeper},
};

/// How long they stand still.
const STILL: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn nodes_outlive_registries_that_stand_still_and_register_again() {
    let (etcd, key) = (Etcd::start([127, 0, 92, 100]).await, KeyFile::new());
    let zookeeper = ZooKeeper::start([127, 0, 92, 101]).await;
    let settings = format!(
        "[discovery.etcd]\nendpoints = [\"{}\"]\nttl = \"5s\"\n\
         [discovery.zookeeper]\nservers = [\"{}\"]\nsession_timeout = \"4s\"\n",
        etcd.url(),
        zookeeper.address()
    );
    let mut nodes: Vec<_> = [1, 2].map(|host| node(&settings, (92, host), &key)).into();
    agree(&nodes).await;
    for node in &nodes {
        finds(node, "etcd", 2).await;
        finds(node, "zookeeper", 2).await;
    }
    etcd.signal("STOP");
    zookeeper.signal("STOP");
    let stopped = Instant::now();
    // A node that starts now serves alone, and says why.
    let late = node(&settings, (92, 3), &key);
    for kind in ["etcd", "zookeeper"] {
        is_told(&late, kind, "no answer in time").await;
    }
    while stopped.elapsed() < STILL {
        sleep(Duration::from_millis(500)).await;
        assert_eq!(owners(&nodes[0]).await, 2);
        for kind in ["etcd", "zookeeper"] {
            assert_eq!(source(&nodes[0], kind).await["found"], 2);
        }
    }
    etcd.signal("CONT");
    zookeeper.signal("CONT");
    // Their leases and sessions have ended meanwhile.
    nodes.push(late);
    agree(&nodes).await;
    let all = places(92, &[1, 2, 3]);
    until("all stand in etcd", || async { etcd.members().await == all }).await;
    until("all stand in ZooKeeper", || async { zookeeper.members().await == all }).await;
    for node in &nodes {
        finds(node, "etcd", 3).await;
        finds(node, "zookeeper", 3).await;
    }
}
