//! Nodes that find one another by doozer: a stand-in that keeps the rules of a running one.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{finds, is_told, node, source};
use crate::{
    cluster::{KeyFile, agree, owners},
    harness::{doozer::Doozer, node::Node, until},
};

const FILE: &str = "/cachecluster/images";

/// How long a dead entry may take to be found out, by probes one after the other.
const FOUND_OUT: Duration = Duration::from_mins(1);

fn settings(doozer: &Doozer) -> String {
    format!("[discovery.doozer]\nservers = [\"{}\"]\n", doozer.address())
}

fn list(net: u8, hosts: &[u8]) -> String {
    let entries: Vec<_> = hosts.iter().map(|host| format!("127.0.{net}.{host}:9999")).collect();
    entries.join(" ")
}

async fn stands(doozer: &Doozer, expected: &str) {
    let start = Instant::now();
    while doozer.file(FILE) != expected {
        let file = doozer.file(FILE);
        assert!(start.elapsed() < FOUND_OUT, "{file:?} stands in the file, not {expected:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_join_leave_and_die_by_one_file() {
    let (doozer, key) = (Doozer::start([127, 0, 98, 100], "").await, KeyFile::new());
    // As the article's program leaves it: an empty entry, and one twice, whose node is gone.
    doozer.write(FILE, " 127.0.98.77:9999 127.0.98.77:9999");
    let settings = settings(&doozer);
    // All at once: whoever writes second has read what is no more.
    let mut nodes: Vec<Node> = std::thread::scope(|scope| {
        let starts = [3, 2, 1].map(|host| {
            let (settings, key) = (&settings, &key);
            scope.spawn(move || node(settings, (98, host), key))
        });
        starts.into_iter().map(|start| start.join().expect("a node")).collect()
    });
    agree(&nodes).await;
    // The dead one goes, and is missed by nobody.
    stands(&doozer, &list(98, &[1, 2, 3])).await;
    for node in &nodes {
        finds(node, "doozer", 3).await;
    }

    nodes[0].signal("TERM");
    stands(&doozer, &list(98, &[1, 2])).await;
    assert!(nodes.remove(0).ended().await.success());
    nodes[0].kill();
    stands(&doozer, &list(98, &[1])).await;
    finds(&nodes[1], "doozer", 1).await;
    // Somebody else's entry stays, and is told.
    doozer.write(FILE, "http://127.0.98.1:8080");
    stands(&doozer, &format!("{} http://127.0.98.1:8080", list(98, &[1]))).await;
    is_told(&nodes[1], "doozer", "1 entries are no addresses").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doozer_that_is_away_or_forgets_changes_nothing() {
    let (mut doozer, key) = (Doozer::start([127, 0, 99, 100], "hush-hush").await, KeyFile::new());
    // Whoever does not know the secret is told so, and serves.
    let stranger = node(&settings(&doozer), (99, 9), &key);
    is_told(&stranger, "doozer", "permission denied ([discovery.doozer] secret").await;
    drop(stranger);

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("uri");
    let uri = format!("doozer:?ca=127.0.99.101:8046&ca={}&sk=hush-hush\n", doozer.address());
    std::fs::write(&file, uri).expect("written");
    let settings = format!("[discovery.doozer]\nuri = \"file:{}\"\n", file.display());
    let nodes = [1, 2].map(|host| node(&settings, (99, host), &key));
    agree(&nodes).await;
    stands(&doozer, &list(99, &[1, 2])).await;

    // Away, and back with a file that others have changed and no memory of how.
    finds(&nodes[0], "doozer", 2).await;
    doozer.kill();
    is_told(&nodes[0], "doozer", "127.0.99.").await;
    assert_eq!(source(&nodes[0], "doozer").await["found"], 2);
    doozer.write(FILE, &list(99, &[2]));
    doozer.forget();
    doozer.restart().await;
    stands(&doozer, &list(99, &[1, 2])).await;
    finds(&nodes[0], "doozer", 2).await;

    // It forgets what a watch would have to know.
    doozer.forget();
    doozer.write(FILE, &list(99, &[1]));
    stands(&doozer, &list(99, &[1, 2])).await;

    // Silent, and one that only reads.
    finds(&nodes[0], "doozer", 2).await;
    doozer.be_silent(true);
    is_told(&nodes[0], "doozer", "no answer in time").await;
    assert_eq!(
        (source(&nodes[0], "doozer").await["found"].clone(), owners(&nodes[0]).await),
        (2.into(), 2)
    );
    doozer.be_silent(false);
    finds(&nodes[0], "doozer", 2).await;
    doozer.be_readonly(true);
    doozer.write(FILE, "");
    is_told(&nodes[0], "doozer", "cannot register: doozer's error 3").await;
    doozer.be_readonly(false);
    stands(&doozer, &list(99, &[1, 2])).await;
    until("nothing is wrong any more", || async {
        source(&nodes[0], "doozer").await["error"].is_null()
    })
    .await;
    for node in &nodes {
        let (log, status) = (node.log(), node.admin("/status").await.text());
        assert!(!log.contains("hush-hush") && !status.contains("hush-hush"));
    }
}
