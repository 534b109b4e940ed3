//! Nodes that find one another by a real etcd.

use std::{fs, time::Duration};

use tokio::time::Instant;

use super::{finds, is_told, node, places, source};
use crate::{
    cluster::{KeyFile, agree, owners},
    harness::{etcd::Etcd, until},
};

fn settings(etcd: &Etcd) -> String {
    format!("[discovery.etcd]\nendpoints = [\"{}\"]\nttl = \"5s\"\n", etcd.url())
}

async fn stands(etcd: &Etcd, net: u8, hosts: &[u8]) {
    let expected = places(net, hosts);
    until(&format!("{expected:?} stand in etcd"), || async { etcd.members().await == expected })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_join_leave_and_die_by_etcd() {
    let (etcd, key) = (Etcd::start([127, 0, 90, 100]).await, KeyFile::new());
    let settings = settings(&etcd);
    // Nobody else is there yet, and what others write is no trouble for the nodes.
    let first = node(&settings, (90, 1), &key);
    finds(&first, "etcd", 1).await;
    let mut nodes = vec![first];
    let started = Instant::now();
    nodes.extend([2, 3].map(|host| node(&settings, (90, host), &key)));
    // By the watch: the first one looks by itself every half a minute.
    for node in &nodes {
        finds(node, "etcd", 3).await;
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    agree(&nodes).await;
    stands(&etcd, 90, &[1, 2, 3]).await;

    // Whoever goes takes its entry along, and the others hear of that.
    nodes[2].signal("TERM");
    stands(&etcd, 90, &[1, 2]).await;
    let mut last = nodes.pop().expect("the third");
    assert!(last.ended().await.success());
    for node in &nodes {
        finds(node, "etcd", 2).await;
    }
    // Whoever is killed does not; its entry ends by itself.
    let mut killed = nodes.pop().expect("the second");
    killed.kill();
    stands(&etcd, 90, &[1]).await;
    finds(&nodes[0], "etcd", 1).await;
    // And it is back as soon as it is.
    killed.start_again().await;
    stands(&etcd, 90, &[1, 2]).await;
    finds(&nodes[0], "etcd", 2).await;
    nodes.push(killed);
    agree(&nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_compacted_watch_is_begun_anew() {
    let (mut etcd, key) = (Etcd::start([127, 0, 91, 100]).await, KeyFile::new());
    let settings = settings(&etcd);
    let nodes = [1, 2].map(|host| node(&settings, (91, host), &key));
    agree(&nodes).await;
    stands(&etcd, 91, &[1, 2]).await;

    finds(&nodes[0], "etcd", 2).await;
    // Away, nothing is forgotten. Back, it has other members than before, and has forgotten
    // how that came about.
    etcd.kill();
    is_told(&nodes[0], "etcd", "http://127.0.91.100:2379: ").await;
    assert_eq!(source(&nodes[0], "etcd").await["found"], 2);
    etcd.restart().await;
    etcd.put("/cachecluster/images/127.0.91.77:9999").await;
    let revision = etcd.put("/cachecluster/other/127.0.91.78:9999").await;
    etcd.compact(revision).await;
    for node in &nodes {
        finds(node, "etcd", 3).await;
    }
    assert_eq!(owners(&nodes[0]).await, 2, "who does not answer is not there");
    stands(&etcd, 91, &[1, 2, 77]).await;
    // The watch that began after that goes on.
    etcd.put("/cachecluster/images/127.0.91.79:9999").await;
    finds(&nodes[1], "etcd", 4).await;
    // What is no address is told, and changes nothing.
    etcd.put("/cachecluster/images/nonsense").await;
    is_told(&nodes[1], "etcd", "1 keys below /cachecluster/images/ are no addresses").await;
    assert_eq!(source(&nodes[1], "etcd").await["found"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_shows_its_certificate_and_logs_in_again_when_its_token_is_gone() {
    let (mut etcd, key) = (Etcd::start_with_tls([127, 0, 93, 100]).await, KeyFile::new());
    let password = "hunter2-hunter2";
    etcd.demand_users(password).await;
    let file = etcd.file("password");
    fs::write(&file, "wrong\n").expect("written");
    let settings = format!(
        "[discovery.etcd]\nendpoints = [\"http://127.0.93.101:1\", \"{}\"]\nttl = \"5s\"\n\
         username = \"cache\"\npassword_file = \"{}\"\nca_file = \"{}\"\ncert_file = \"{}\"\n\
         key_file = \"{}\"\n",
        etcd.url(),
        file.display(),
        etcd.file("ca.pem").display(),
        etcd.file("node.pem").display(),
        etcd.file("node.key").display(),
    );
    let first = node(&settings, (93, 1), &key);
    is_told(&first, "etcd", "cannot log in as cache: ").await;
    fs::write(&file, format!("{password}\n")).expect("written");
    finds(&first, "etcd", 1).await;
    let nodes = [first, node(&settings, (93, 2), &key)];
    agree(&nodes).await;
    // Tokens are in etcd's memory alone.
    etcd.kill();
    etcd.restart().await;
    etcd.log_in(password).await;
    stands(&etcd, 93, &[1, 2]).await;
    etcd.put("/cachecluster/images/127.0.93.77:9999").await;
    for node in &nodes {
        finds(node, "etcd", 3).await;
        let (log, status) = (node.log(), node.admin("/status").await.text());
        assert!(!log.contains(password) && !status.contains(password));
    }
}
