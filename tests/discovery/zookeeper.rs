//! Nodes that find one another by a real `ZooKeeper`.

use std::fs;

use super::{finds, is_told, node, places, source};
use crate::{
    cluster::{KeyFile, agree, owners},
    harness::{until, zookeeper::ZooKeeper},
};

fn settings(zookeeper: &ZooKeeper) -> String {
    let servers = zookeeper.address();
    format!("[discovery.zookeeper]\nservers = [\"{servers}\"]\nsession_timeout = \"4s\"\n")
}

async fn stands(zookeeper: &ZooKeeper, net: u8, hosts: &[u8]) {
    let expected = places(net, hosts);
    let is_so = || async { zookeeper.members().await == expected };
    until(&format!("{expected:?} stand in ZooKeeper"), is_so).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_join_leave_and_die_by_zookeeper() {
    let (zookeeper, key) = (ZooKeeper::start([127, 0, 94, 100]).await, KeyFile::new());
    let settings = settings(&zookeeper);
    // It makes the path, and is alone there.
    let first = node(&settings, (94, 1), &key);
    finds(&first, "zookeeper", 1).await;
    let mut nodes = vec![first];
    nodes.extend([2, 3].map(|host| node(&settings, (94, host), &key)));
    for node in &nodes {
        finds(node, "zookeeper", 3).await;
    }
    agree(&nodes).await;
    stands(&zookeeper, 94, &[1, 2, 3]).await;

    nodes[2].signal("TERM");
    stands(&zookeeper, 94, &[1, 2]).await;
    assert!(nodes.pop().expect("the third").ended().await.success());
    for node in &nodes {
        finds(node, "zookeeper", 2).await;
    }
    // Whoever is killed leaves its entry until its session ends.
    let mut killed = nodes.pop().expect("the second");
    killed.kill();
    stands(&zookeeper, 94, &[1]).await;
    finds(&nodes[0], "zookeeper", 1).await;
    killed.start_again().await;
    stands(&zookeeper, 94, &[1, 2]).await;
    // Back before that, it takes the entry over, and does not lose it with the old session.
    killed.kill();
    killed.start_again().await;
    killed.logged("in the place of an earlier session").await;
    stands(&zookeeper, 94, &[1, 2]).await;
    nodes.push(killed);
    agree(&nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zookeeper_that_comes_back_is_registered_with_again() {
    let (mut zookeeper, key) = (ZooKeeper::start([127, 0, 95, 100]).await, KeyFile::new());
    // Entries are their user's alone.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("auth");
    fs::write(&file, "cache:hunter2-hunter2\n").expect("written");
    let settings = format!("{}auth_file = \"{}\"\n", settings(&zookeeper), file.display());
    let nodes = [1, 2].map(|host| node(&settings, (95, host), &key));
    agree(&nodes).await;
    let both = places(95, &[1, 2]);
    let auth = Some("cache:hunter2-hunter2");
    until("both stand there", || async { zookeeper.members_as(auth).await == both }).await;
    assert!(zookeeper.members().await.is_empty(), "nobody else sees them");

    finds(&nodes[0], "zookeeper", 2).await;
    zookeeper.kill();
    until("it is missed", || async { !source(&nodes[0], "zookeeper").await["error"].is_null() })
        .await;
    assert_eq!(source(&nodes[0], "zookeeper").await["found"], 2);
    assert_eq!(owners(&nodes[0]).await, 2);
    zookeeper.restart().await;
    for node in &nodes {
        finds(node, "zookeeper", 2).await;
    }
    until("both stand there", || async { zookeeper.members_as(auth).await == both }).await;
    for node in &nodes {
        let (log, status) = (node.log(), node.admin("/status").await.text());
        assert!(!log.contains("hunter2") && !status.contains("hunter2"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_member_is_told_and_changes_nothing() {
    let (zookeeper, key) = (ZooKeeper::start([127, 0, 96, 100]).await, KeyFile::new());
    let first = node(&settings(&zookeeper), (96, 1), &key);
    finds(&first, "zookeeper", 1).await;
    zookeeper.make("lock").await;
    is_told(&first, "zookeeper", "1 nodes below /cachecluster/images are no addresses").await;
    zookeeper.make("127.0.96.77:9999").await;
    until("it is found", || async { source(&first, "zookeeper").await["found"] == 2 }).await;
    until("it goes on alone", || async { owners(&first).await == 1 }).await;
}
