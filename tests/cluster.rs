//! Nodes that are processes of their own, in one cluster: they find one another, share the
//! keys, and say what they know.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use serde_json::Value;

use crate::harness::{
    command::run,
    node::{Node, component},
    origin::{self, Origin},
    until,
};

/// A cluster's key, in a file that only its owner can read.
pub(crate) struct KeyFile(tempfile::TempDir);

impl KeyFile {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = Self(folder);
        assert_eq!(run(|command| _ = command.arg("keygen").arg(key.path())).code, 0);
        key
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("key")
    }
}

/// A node on the loopback address 127.0.`net`.`host`, in the cluster of those with this
/// `net`, whose group `items` asks the origin at `origin` for `/items/{key}`.
pub(crate) fn member(net: u8, host: u8, key: &KeyFile, origin: &Origin) -> Node {
    let seeds = format!("seeds = [\"127.0.{net}.1\", \"127.0.{net}.2\"]");
    member_with(&seeds, (net, host), key, origin)
}

/// As [`member`], where `seeds` is what the settings say of the others.
fn member_with(seeds: &str, (net, host): (u8, u8), key: &KeyFile, origin: &Origin) -> Node {
    let address = format!("127.0.{net}.{host}");
    let origin = origin.addr();
    Node::with(format!(
        r#"
        [cluster]
        bind = "{address}"
        {seeds}
        key_file = "{}"
        # A machine that is busy with other tests is no reason to ask somebody else.
        [peers]
        connect_timeout = "20s"
        sign_timeout = "20s"
        peek_timeout = "5s"
        [plugins.origin]
        source = "{}"
        config = {{ url = "http://{origin}/items/{{key}}", timeout = "5s" }}
        network = {{ http = ["http://{origin}"], allow_private = ["127.0.0.0/8"] }}
        [groups.items]
        plugin = "origin"
        "#,
        key.path().display(),
        component("http").display(),
    ))
    .start()
}

/// How many nodes own keys, as `node` has it.
pub(crate) async fn owners(node: &Node) -> u64 {
    node.admin("/members").await.json()["owners"].as_u64().unwrap_or(0)
}

/// Waits until all `nodes` see one another in the ring, and nobody else.
pub(crate) async fn agree(nodes: &[Node]) {
    for node in nodes {
        until("all share the keys", || async { owners(node).await == nodes.len() as u64 }).await;
    }
}

fn shown(node: &Node, arguments: &[&str]) -> Value {
    let admin = node.admin.to_string();
    let ran = run(|command| {
        command.args(arguments).args(["-o", "json", "--admin", &admin]);
    });
    assert_eq!(ran.code, 0, "{}", ran.err);
    serde_json::from_str(&ran.out).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_find_one_another_and_fill_each_key_once() {
    let origin = Origin::start(|asked| origin::ok("", asked.target.as_bytes())).await;
    let key = KeyFile::new();
    let nodes: Vec<_> = (1..=3).map(|host| member(61, host, &key, &origin)).collect();
    agree(&nodes).await;
    for number in 0..30 {
        for node in &nodes {
            let answer = node.get(&format!("/items/k{number}")).await;
            assert_eq!(answer.text(), format!("/items/k{number}"));
        }
    }
    assert_eq!(origin.requests(), 30);

    // All of them say the same about a key, whichever is asked.
    let owners: Vec<_> = nodes
        .iter()
        .map(|node| {
            let explained = shown(node, &["explain", "items", "k1"]);
            explained["owners"][0]["node"].as_str().expect("an owner").to_owned()
        })
        .collect();
    assert!(owners.iter().all(|owner| *owner == owners[0]), "{owners:?}");
    // The owner holds it, and whoever has asked for it often.
    for _ in 0..5 {
        nodes[0].get("/items/k1").await;
    }
    let explained = run(|command| {
        command.args(["explain", "items", "k1", "--admin", &nodes[0].admin.to_string()]);
    });
    // Each row says who filled it: in the last column.
    let rows = explained.out.lines().skip_while(|line| !line.starts_with("HELD BY"));
    let filled: Vec<_> = rows.skip(1).filter_map(|row| row.split_whitespace().last()).collect();
    assert!(!filled.is_empty(), "{}", explained.out);
    for by in filled {
        assert!(by == "node" || by == owners[0], "{}", explained.out);
    }
    let holders = |node: &Node| shown(node, &["explain", "items", "k1"])["holders"].clone();
    for node in &nodes {
        let holders = holders(node);
        let all = holders.as_array().expect("a list");
        assert_eq!(all.iter().filter(|it| it["is_owner"] == true).count(), 1, "{holders:#}");
        assert!(all.iter().all(|it| it["bytes"] == "/items/k1".len()), "{holders:#}");
    }
    let rings: Vec<_> =
        nodes.iter().map(|node| shown(node, &["members"])["ring"].clone()).collect();
    assert!(rings.iter().all(|ring| *ring == rings[0]), "{rings:?}");
    let members = shown(&nodes[0], &["members"])["members"].clone();
    let members = members.as_array().expect("a list");
    assert!(members.iter().all(|it| it["plugins"] == members[0]["plugins"]), "{members:#?}");
    assert_eq!(members[0]["plugins"].as_array().map(Vec::len), Some(1), "{members:#?}");
    let in_ring = "cachecluster_cluster_members{state=\"in_ring\"}";
    assert_eq!(nodes[0].metric(in_ring).await, 3.0);
    let table = run(|command| {
        command.args(["members", "--admin", &nodes[0].admin.to_string()]);
    });
    assert_eq!(table.out.matches("serving").count(), 3, "{}", table.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_key_stays_alone_and_serves() {
    let origin = Origin::start(|_| origin::ok("", b"value")).await;
    let (key, other) = (KeyFile::new(), KeyFile::new());
    let mut nodes: Vec<_> = (1..=2).map(|host| member(62, host, &key, &origin)).collect();
    agree(&nodes).await;
    let stranger = member(62, 3, &other, &origin);
    assert_eq!(stranger.get("/items/k").await.status, 200);
    nodes[0].logged("packets were not believed").await;
    until("it owns all keys alone", || async { owners(&stranger).await == 1 }).await;
    agree(&nodes).await;
    // Whoever goes says so, and the others need no time to find out.
    nodes[1].signal("TERM");
    assert!(nodes[1].ended().await.success(), "{}", nodes[1].log());
    nodes[0].logged("member has left").await;
    assert!(!nodes[1].log().contains("ERROR"), "{}", nodes[1].log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_replaced_while_the_nodes_serve() {
    let origin = Origin::start(|asked| origin::ok("", asked.target.as_bytes())).await;
    let key = KeyFile::new();
    let nodes: Vec<_> = (1..=3).map(|host| member(66, host, &key, &origin)).collect();
    agree(&nodes).await;
    let old = fs::read_to_string(key.path()).expect("the key");
    let new = run(|command| _ = command.arg("keygen")).out;
    let reload = async |text: &str| {
        fs::write(key.path(), text).expect("to write the key");
        for (number, node) in nodes.iter().enumerate() {
            assert_eq!(node.post("/reload").await.status, 200, "{}", node.log());
            // Some have the other keys and some have not.
            for key in 0..20 {
                let target = format!("/items/{number}-{}-{key}", text.len());
                assert_eq!(node.get(&target).await.text(), target);
            }
        }
    };
    reload(&format!("{new}{old}")).await;
    for node in &nodes {
        node.logged("the new cluster key is in use").await;
    }
    reload(&new).await;
    agree(&nodes).await;
    let fresh = member(66, 4, &key, &origin);
    let nodes: Vec<_> = nodes.into_iter().chain([fresh]).collect();
    agree(&nodes).await;
    for node in &nodes {
        let log = node.log();
        assert!(!log.contains("is dead") && !log.contains("not believed"), "{log}");
    }
    // A bad file changes nothing.
    fs::write(key.path(), "nonsense").expect("to write");
    let refused = nodes[0].post("/reload").await;
    assert_eq!(refused.status, 409);
    assert!(refused.text().contains("key_file"), "{}", refused.text());
    agree(&nodes).await;
}

#[test]
fn a_key_is_for_its_owner_alone_and_is_not_overwritten() {
    let key = KeyFile::new();
    let mode = fs::metadata(key.path()).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = fs::read_to_string(key.path()).expect("text");
    let again = run(|command| _ = command.arg("keygen").arg(key.path()));
    assert_eq!(again.code, 1);
    assert!(again.err.contains("is there already"), "{}", again.err);
    assert_eq!(fs::read_to_string(key.path()).expect("text"), text);
    let printed = run(|command| _ = command.arg("keygen"));
    assert_ne!(printed.out, text);
    assert_eq!(printed.out.len(), text.len());

    // One that others can read is not used, and the remedy is told.
    fs::set_permissions(key.path(), fs::Permissions::from_mode(0o644)).expect("to change it");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cachecluster.toml");
    let settings = format!(
        "http.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n[cluster]\n\
         key_file = \"{}\"\nbind = \"127.0.0.1\"\nport = 0\n",
        key.path().display()
    );
    fs::write(&file, settings).expect("to write");
    let refused = run(|command| _ = command.arg("--config").arg(&file).arg("serve"));
    assert_eq!(refused.code, 1, "{}", refused.err);
    assert!(refused.err.contains("key_file") && refused.err.contains("600"), "{}", refused.err);
}

/// How the source of members `kind` fares on `node`.
async fn source(node: &Node, kind: &str) -> Value {
    let members = node.admin("/members").await.json();
    let sources = members["discovery"].as_array().expect("a list").iter();
    let mut sources = sources.filter(|it| it["source"] == kind);
    sources.next().cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_found_by_a_file_that_comes_later_and_stay_when_it_is_spoilt() {
    let origin = Origin::start(|asked| origin::ok("", asked.target.as_bytes())).await;
    let (key, folder) = (KeyFile::new(), tempfile::tempdir().expect("a folder"));
    let file = folder.path().join("members");
    let by_file = format!("seeds_file = \"{}\"", file.display());
    let nodes =
        [member_with(&by_file, (79, 1), &key, &origin), member_with("", (79, 2), &key, &origin)];
    // It serves alone, and says what it lacks.
    assert_eq!(nodes[0].get("/items/k").await.text(), "/items/k");
    until("the file is missed", || async {
        source(&nodes[0], "file").await["error"].as_str().is_some_and(|it| it.contains("members: "))
    })
    .await;

    fs::write(&file, "127.0.79.1\n127.0.79.2 # the other\n").expect("written");
    agree(&nodes).await;
    until("both are found", || async {
        let file = source(&nodes[0], "file").await;
        file["found"] == 2 && file["joined"] == 2 && file["error"].is_null()
    })
    .await;
    for what in ["found", "joined"] {
        let metric = format!("cachecluster_discovery_{what}{{source=\"file\"}}");
        assert_eq!(nodes[0].metric(&metric).await, 2.0, "{what}");
    }
    let last = "cachecluster_discovery_last_success_timestamp_seconds{source=\"file\"}";
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_secs_f64();
    let age = now - nodes[0].metric(last).await;
    assert!((-1.0..60.0).contains(&age), "{age}");
    let status =
        run(|command| _ = command.args(["status", "--admin", &nodes[0].admin.to_string()]));
    let rows = status.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert!(rows.into_iter().any(|row| row == ["file", "2", "2", "-"]), "{}", status.out);

    fs::write(&file, "127.0.79.1\nnot a member\n").expect("written");
    until("the bad line is named", || async {
        source(&nodes[0], "file").await["error"].as_str().is_some_and(|it| it.contains("line 2: "))
    })
    .await;
    assert_eq!(source(&nodes[0], "file").await["found"], 2);
    fs::remove_file(&file).expect("removed");
    until("the file is missed again", || async {
        let error = source(&nodes[0], "file").await["error"].clone();
        error.as_str().is_some_and(|it| !it.contains("line 2: "))
    })
    .await;
    assert_eq!(owners(&nodes[0]).await, 2, "who is there stays");
    assert_eq!(source(&nodes[0], "file").await["found"], 2);
}
