//! New versions under load: no request fails, and no bad version gets through.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::{
    harness::{client::Connection, node::Node, until},
    versions::{broken, version, word},
};

/// A plugin's file and a node that serves it as `/words/{key}`.
struct Deployment {
    folder: TempDir,
}

impl Deployment {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("words.wasm")
    }

    /// Puts `bytes` in the place of the plugin's file, as a careful deployer does.
    fn publish(&self, bytes: &[u8]) {
        let new = self.folder.path().join("words.wasm.new");
        fs::write(&new, bytes).expect("written");
        fs::rename(new, self.file()).expect("renamed");
    }

    /// A node over this deployment; `settings` are more of the plugin's.
    fn start(&self, settings: &str) -> Node {
        Node::with(format!(
            r#"
            [plugins.words]
            source = "{}"
            {settings}
            [groups.words]
            plugin = "words"
            "#,
            self.file().display(),
        ))
        .env("XDG_STATE_HOME", self.state().display().to_string())
        .start()
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Whether the last good version is on disk with these bytes.
    fn is_kept(&self, bytes: &[u8]) -> bool {
        let kept = |folder: &Path| -> Option<bool> {
            let mut found = false;
            for place in fs::read_dir(folder).ok()? {
                for file in fs::read_dir(place.ok()?.path()).ok()? {
                    found |= fs::read(file.ok()?.path()).ok()? == bytes;
                }
            }
            Some(found)
        };
        kept(&self.state().join("cachecluster/plugins")) == Some(true)
    }
}

/// Gets without a pause until told to stop; any answer but a whole one of a version that
/// was published is a failure.
struct Load {
    stop: Arc<AtomicBool>,
    gets: Arc<AtomicUsize>,
    published: Arc<Mutex<BTreeSet<String>>>,
    clients: JoinSet<Vec<String>>,
}

impl Load {
    /// On a node that serves the version of `first` by now.
    fn start(node: &Node, first: &str) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            gets: Arc::default(),
            published: Arc::new(Mutex::new(BTreeSet::from([first.to_owned()]))),
            clients: JoinSet::new(),
        };
        for client in 0..4 {
            let (stop, gets) = (Arc::clone(&load.stop), Arc::clone(&load.gets));
            let published = Arc::clone(&load.published);
            let addr = node.http;
            load.clients.spawn(async move {
                let mut connection = Connection::open(addr).await;
                let mut wrong = Vec::new();
                let mut number = 0_usize;
                while !stop.load(SeqCst) {
                    number += 1;
                    // Half of the clients ask for what is in memory, half for new keys.
                    let key = match client % 2 {
                        0 => format!("hot{}", number % 8),
                        _ => format!("cold-{client}-{number}"),
                    };
                    let answer = connection.get(&format!("/words/{key}")).await;
                    gets.fetch_add(1, SeqCst);
                    let text = answer.text();
                    let parts: Vec<_> = text.split('|').collect();
                    let is_right = answer.status == 200
                        && matches!(parts[..], [first, asked, last]
                            if first == last && asked == key
                                && published.lock().expect("words").contains(first));
                    if !is_right {
                        wrong.push(format!("{key}: {} {text}", answer.status));
                    }
                }
                wrong
            });
        }
        load
    }

    fn published(&self, word: &str) {
        self.published.lock().expect("words").insert(word.to_owned());
    }

    /// What went wrong, and of how many gets.
    async fn end(self) -> (Vec<String>, usize) {
        self.stop.store(true, SeqCst);
        let wrong = self.clients.join_all().await.concat();
        (wrong, self.gets.load(SeqCst))
    }
}

const SWAPPED: &str = "cachecluster_plugin_reloads_total{plugin=\"words\",outcome=\"swapped\"}";
const REFUSED: &str = "cachecluster_plugin_reloads_total{plugin=\"words\",outcome=\"refused\"}";

#[tokio::test(flavor = "multi_thread")]
async fn forty_versions_under_load_ten_of_them_broken_fail_no_request() {
    let deployment = Deployment::new();
    deployment.publish(&version(&word(0)).bytes());
    let node = deployment.start("limits = { cpu = \"200ms\" }");
    let load = Load::start(&node, &word(0));
    let (mut swapped, mut refused) = (0, 0);
    for number in 1..=40 {
        let (metric, count) = if number % 4 == 0 {
            deployment.publish(&broken(number / 4));
            refused += 1;
            (REFUSED, refused)
        } else {
            load.published(&word(number));
            deployment.publish(&version(&word(number)).bytes());
            swapped += 1;
            (SWAPPED, swapped)
        };
        let what = format!("version {number} is taken or refused");
        until(&what, || async { node.metric(metric).await >= f64::from(count) }).await;
    }
    let (wrong, gets) = load.end().await;
    assert!(wrong.is_empty(), "{} of {gets} gets: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    assert!(gets > 1_000, "{gets} gets are no load");
    assert_eq!((node.metric(SWAPPED).await, node.metric(REFUSED).await), (30.0, 10.0));
    // What serves is the last good one.
    assert_eq!(node.get("/words/new").await.text(), "v039|new|v039");
    let status = node.admin("/status").await.json();
    let last = &status["plugins"][0]["reload"]["last"];
    assert_eq!(last["outcome"], "refused", "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_reloads_in_a_row_leave_nothing_behind() {
    let deployment = Deployment::new();
    deployment.publish(&version(&word(0)).bytes());
    // Probation keeps the version before for longer; that is bounded, but not flat.
    let node = deployment.start("watch = false\nprobation = \"0s\"");
    let replace = async |number: usize| {
        deployment.publish(&version(&word(number)).bytes());
        let answer = node.post("/plugins/words/reload").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let expected = format!("{w}|k{number}|{w}", w = word(number));
        assert_eq!(node.get(&format!("/words/k{number}")).await.text(), expected);
    };
    // What is set up once is set up by then.
    for number in 1..=50 {
        replace(number).await;
    }
    let before = node.resources();
    for number in 51..=300 {
        replace(number).await;
    }
    until("old versions are gone", || async {
        node.metric("cachecluster_plugin_generations{plugin=\"words\"}").await <= 1.0
    })
    .await;
    let after = node.resources();
    assert!(after.threads <= before.threads + 2, "{before:?} {after:?}");
    assert!(after.files <= before.files + 2, "{before:?} {after:?}");
    // 250 components of half a megabyte each would be more than a hundred.
    assert!(after.memory_kib <= before.memory_kib + 16 * 1024, "{before:?} {after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_during_a_bad_rollout_comes_back_on_the_last_good_version() {
    let deployment = Deployment::new();
    let good = version(&word(1)).bytes();
    deployment.publish(&good);
    let node = deployment.start("");
    assert_eq!(node.get("/words/a").await.text(), "v001|a|v001");
    until("the good version is kept", || async { deployment.is_kept(&good) }).await;
    // Half of a file, and the node is gone before it can say what it thinks of it.
    let whole = version(&word(2)).bytes();
    fs::write(deployment.file(), &whole[..whole.len() / 2]).expect("written");
    drop(node);
    let node = deployment.start("");
    assert_eq!(node.get("/words/b").await.text(), "v001|b|v001");
    let status = node.admin("/status").await.json();
    let last = &status["plugins"][0]["reload"]["last"];
    assert_eq!(last["outcome"], "last_good", "{status}");
    node.logged("last good version serves").await;
    // The copy that was interrupted is done again.
    deployment.publish(&whole);
    until("the whole file serves", || async { node.metric(SWAPPED).await >= 1.0 }).await;
    assert_eq!(node.get("/words/c").await.text(), "v002|c|v002");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_killed_at_any_moment_of_a_reload_come_back() {
    let deployment = Deployment::new();
    deployment.publish(&version(&word(0)).bytes());
    let mut good = BTreeSet::from([word(0)]);
    for number in 1..=6 {
        let node = deployment.start("probation = \"0s\"");
        let text = node.get("/words/k").await.text();
        assert!(good.contains(&text[..4]), "{text}");
        if number % 2 == 0 {
            deployment.publish(&broken(number));
        } else {
            good.insert(word(number));
            deployment.publish(&version(&word(number)).bytes());
        }
        // Another moment each time; where in the reload it falls does not matter.
        tokio::time::sleep(std::time::Duration::from_millis(70 * number as u64)).await;
        drop(node);
    }
    let node = deployment.start("");
    let text = node.get("/words/k").await.text();
    assert!(good.contains(&text[..4]), "{text}");
}
