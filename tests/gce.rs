//! Nodes on emulated instances of Compute Engine, which find one another by nothing else.

mod lists;

use std::{
    net::{Ipv4Addr, TcpListener, UdpSocket},
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

use crate::{
    cluster::{KeyFile, agree, owners},
    harness::{
        client,
        gce::{Api, Emulator, Interface, Machine},
        node::{Builder, Node, component},
        origin::{self, Origin},
        until,
    },
};

/// Settings by which a node looks for instances with the tag `cache` and the metadata
/// `service=items`, and asks `origin` for what it lacks. Nodes of one machine need addresses of
/// their own, so that `cluster` says what is bound.
fn node(
    emulator: &Emulator,
    key: &KeyFile,
    origin: &Origin,
    metadata: &str,
    cluster: &str,
) -> Builder {
    let (api, origin) = (emulator.api, origin.addr());
    Node::with(format!(
        r#"
        [match]
        tags = ["cache"]
        [meta]
        service = "items"
        [discovery.gce]
        endpoint = "http://{api}"
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
        [cluster]
        key_file = "{}"
        {cluster}
        "#,
        component("http").display(),
        key.path().display(),
    ))
    .env("GCE_METADATA_HOST", metadata)
    // Neither goes through a proxy, which could read a token.
    .env("HTTP_PROXY", "http://127.0.0.1:9")
    .env("http_proxy", "http://127.0.0.1:9")
}

/// As [`node`], on the address 127.0.`net`.`host` of an instance that is booted for it; looks
/// every second.
async fn start(emulator: &Emulator, key: &KeyFile, origin: &Origin, (net, host): (u8, u8)) -> Node {
    let machine = Machine::new(host, Ipv4Addr::new(127, 0, net, host));
    start_on(emulator, key, origin, machine).await
}

/// As [`start`], on this instance.
async fn start_on(emulator: &Emulator, key: &KeyFile, origin: &Origin, machine: Machine) -> Node {
    let address = machine.interfaces[0].ip.expect("an address");
    let metadata = emulator.boot(machine).await;
    node(emulator, key, origin, &metadata, &format!("bind = \"{address}\""))
        .env("CACHECLUSTER_DISCOVERY__GCE__INTERVAL", "1s")
        .start()
}

async fn items() -> Origin {
    Origin::start(|asked| origin::ok("", asked.target.as_bytes())).await
}

/// Prints a figure, for whoever runs these with `--nocapture`.
#[expect(clippy::print_stderr, reason = "what was measured is for whoever runs the test")]
fn tell(what: &str) {
    eprintln!("{what}");
}

/// How the source `gce` fares on `node`.
async fn source(node: &Node) -> Value {
    let members = node.admin("/members").await.json();
    let sources = members["discovery"].as_array().cloned().unwrap_or_default();
    sources.into_iter().find(|it| it["source"] == "gce").unwrap_or_default()
}

/// Waits until `node` says this of its last look.
async fn says(node: &Node, trouble: &str) {
    until(&format!("the source says {trouble:?}"), || async {
        source(node).await["error"].as_str().is_some_and(|it| it.contains(trouble))
    })
    .await;
}

/// Waits until `node` has found so many others, without trouble.
async fn finds(node: &Node, count: usize) {
    until(&format!("{count} are found"), || async {
        let source = source(node).await;
        source["found"] == count && source["error"].is_null()
    })
    .await;
}

/// Somebody who is there and must not be asked: takes the ports of gossip at an address.
struct Spy {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Spy {
    fn at(address: Ipv4Addr) -> Self {
        let (udp, tcp) = (UdpSocket::bind((address, 9999)), TcpListener::bind((address, 9999)));
        let spy = Self { udp: udp.expect("a port"), tcp: tcp.expect("a port") };
        spy.udp.set_nonblocking(true).expect("a socket");
        spy.tcp.set_nonblocking(true).expect("a socket");
        spy
    }

    fn was_asked(&self) -> bool {
        self.udp.recv(&mut [0; 1]).is_ok() || self.tcp.accept().is_ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_one_service_become_one_cluster_within_one_look() {
    const ZONES: [&str; 2] = ["us-central1-a", "us-central1-b"];
    let address = |host| Ipv4Addr::new(127, 0, 80, host);
    let (origin, key) = (items().await, KeyFile::new());
    let emulator = Emulator::start(address(200)).await;
    // Two to a page, and an empty page after each.
    emulator.set_page(2);
    let machine = |host: u8| {
        let zone = ZONES[usize::from(host % 2)];
        Machine { zone, ..Machine::new(host, address(host)) }
    };
    let spy = |host: u8, change: &dyn Fn(&mut Machine)| {
        let mut machine = machine(host);
        change(&mut machine);
        emulator.add(machine);
        Spy::at(address(host))
    };
    let spies = [
        spy(21, &|it| it.tags = vec!["web"]),
        spy(22, &|it| it.tags.clear()),
        spy(23, &|it| it.metadata = vec![("service", Some("Items"))]),
        spy(24, &|it| it.metadata.clear()),
        spy(25, &|it| it.zone = "us-central1-f"),
        spy(26, &|it| it.interfaces[0].network = "other"),
        spy(27, &|it| it.status = "TERMINATED"),
        spy(28, &|it| it.status = "STAGING"),
        spy(29, &|it| it.project = "other-project"),
        spy(30, &|it| {
            let second = Interface { network: "other", ..it.interfaces[0].clone() };
            it.interfaces.push(second);
        }),
    ];
    let mut hosts = Vec::new();
    for host in 1..=7 {
        if host < 7 {
            hosts.push(emulator.boot(machine(host)).await);
        }
    }
    let launch = |host: u8, metadata: &str| {
        let bind = format!("bind = \"{}\"", address(host));
        node(&emulator, &key, &origin, metadata, &bind)
            .env("CACHECLUSTER_MATCH__ZONES", ZONES.join(","))
            .start()
    };
    // A look a minute: what happens within half a minute, the patience of `until`, takes no
    // second one.
    let mut nodes: Vec<_> =
        (1..=6).zip(&hosts).map(|(host, metadata)| launch(host, metadata)).collect();
    agree(&nodes).await;
    finds(&nodes[0], 5).await;
    let asked = emulator.asked();
    assert!(
        asked.iter().all(|it| it
            .starts_with("/compute/v1/projects/my-project/aggregated/instances?filter=status")),
        "{asked:#?}"
    );

    let began = Instant::now();
    let metadata = emulator.boot(machine(7)).await;
    nodes.push(launch(7, &metadata));
    agree(&nodes).await;
    tell(&format!("an added instance owns keys after {:?}", began.elapsed()));
    for number in 0..100 {
        let target = format!("/items/k{number}");
        assert_eq!(nodes[0].get(&target).await.text(), target);
    }
    assert_eq!(origin.requests(), 100);
    let held = "cachecluster_cache_items{group=\"items\"}";
    assert!(nodes[6].metric(held).await > 0.0, "it has no share");

    // One is deleted and one is stopped; both are silent from one moment to the next.
    let mut gone: Vec<_> = nodes.drain(5..).collect();
    emulator.remove("cache-6");
    emulator.change("cache-7", |it| it.status = "TERMINATED");
    gone.iter_mut().for_each(Node::kill);
    agree(&nodes).await;
    for (number, spy) in spies.iter().enumerate() {
        assert!(!spy.was_asked(), "somebody asked the stranger {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_the_api_changes_no_cluster() {
    let (origin, key) = (items().await, KeyFile::new());
    let emulator = Emulator::start(Ipv4Addr::new(127, 0, 81, 200)).await;
    emulator.set_token_life(Duration::from_secs(15));
    let mut nodes = Vec::new();
    for host in 1..=2 {
        nodes.push(start(&emulator, &key, &origin, (81, host)).await);
    }
    agree(&nodes).await;
    for (api, said) in [
        (Api::Fails(503), "503 Service Unavailable: Internal error"),
        (Api::Html, "502 Bad Gateway: <!DOCTYPE html>"),
        (Api::Truncates, "project my-project: "),
        (Api::Away, "project my-project: "),
        (Api::Forbids("insufficientPermissions"), "--scopes=compute-ro"),
        (Api::Forbids("forbidden"), "--role=roles/compute.viewer"),
        (Api::Forbids("accessNotConfigured"), "gcloud services enable compute.googleapis.com"),
        (Api::Hangs, "no answer within 10s"),
    ] {
        emulator.set_api(api);
        for node in &nodes {
            says(node, said).await;
            assert_eq!(source(node).await["found"], 1, "{api:?}");
            assert_eq!(owners(node).await, 2, "{api:?}");
        }
        emulator.set_api(Api::Well);
        for node in &nodes {
            finds(node, 1).await;
        }
    }
    // Whoever comes meanwhile serves alone, and is found when it can be.
    emulator.set_api(Api::Fails(500));
    let late = start(&emulator, &key, &origin, (81, 3)).await;
    assert_eq!(late.get("/items/k").await.text(), "/items/k");
    says(&late, "500 Internal Server Error").await;
    emulator.set_api(Api::Well);
    nodes.push(late);
    agree(&nodes).await;
    // Tokens have expired by now; ones that are taken back are noticed by the refusal.
    let before = emulator.tokens_asked();
    emulator.revoke();
    until("new tokens are asked for", || async { emulator.tokens_asked() >= before + 3 }).await;
    for node in &nodes {
        finds(node, 2).await;
        let log = node.log();
        assert!(!log.contains("is dead") && !log.contains("ya29"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_used_up_is_left_alone_for_a_minute() {
    let (origin, key) = (items().await, KeyFile::new());
    let emulator = Emulator::start(Ipv4Addr::new(127, 0, 82, 200)).await;
    emulator.add(Machine::new(9, Ipv4Addr::new(127, 0, 82, 9)));
    let node = start(&emulator, &key, &origin, (82, 1)).await;
    finds(&node, 1).await;
    emulator.set_api(Api::OverQuota);
    says(&node, "the project's quota of requests is used up").await;
    let (asked, began) = (emulator.asked().len(), Instant::now());
    emulator.set_api(Api::Well);
    while emulator.asked().len() == asked {
        assert!(began.elapsed() < Duration::from_secs(90), "nobody asks again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tell(&format!("asked again after {:?}", began.elapsed()));
    assert!(began.elapsed() > Duration::from_secs(50), "asked again after {:?}", began.elapsed());
    finds(&node, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_is_that_of_the_interface_that_is_named() {
    let (origin, key) = (items().await, KeyFile::new());
    let emulator = Emulator::start(Ipv4Addr::new(127, 0, 83, 200)).await;
    let own = async |node: &Node| {
        let members = node.admin("/members").await.json();
        members["members"][0]["gossip"].as_str().unwrap_or_default().to_owned()
    };
    let mut machine = Machine::new(1, Ipv4Addr::new(127, 0, 83, 1));
    let second =
        Interface { ip: Some(Ipv4Addr::new(127, 0, 83, 2)), ..machine.interfaces[0].clone() };
    machine.interfaces.push(second);
    let metadata = emulator.boot(machine).await;
    let several = node(&emulator, &key, &origin, &metadata, "port = 0")
        .env("CACHECLUSTER_PEERS__LISTEN", "0.0.0.0:0")
        .env("CACHECLUSTER_MATCH__NETWORK_INTERFACE", "nic1")
        .start();
    until("it is a member", || async { own(&several).await.starts_with("127.0.83.2:") }).await;
    finds(&several, 0).await;

    // The only interface there is will do, whatever its name, and so will an address of IPv6.
    let mut machine = Machine::new(2, Ipv4Addr::new(127, 0, 83, 3));
    machine.interfaces[0].ipv6 = Some("::1");
    let metadata = emulator.boot(machine).await;
    emulator.change("cache-2", |it| it.interfaces[0].ip = None);
    let only = node(&emulator, &key, &origin, &metadata, "port = 0\nbind = \"::\"")
        .env("CACHECLUSTER_PEERS__LISTEN", "[::]:0")
        .env("CACHECLUSTER_MATCH__NETWORK_INTERFACE", "nic1")
        .start();
    until("it is a member", || async { own(&only).await.starts_with("[::1]:") }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metadata_server_that_never_answers_holds_up_nobody() {
    let (origin, key) = (items().await, KeyFile::new());
    let emulator = Emulator::start(Ipv4Addr::new(127, 0, 84, 200)).await;
    emulator.set_metadata_hangs(true);
    let metadata = emulator.boot(Machine::new(1, Ipv4Addr::new(127, 0, 84, 1))).await;
    // This one does not even take connections off the queue.
    let black_hole = TcpListener::bind("127.0.84.2:0").expect("a port");
    let hole = black_hole.local_addr().expect("an address").to_string();
    let settings = "port = 0";
    let launch = |metadata: &str| {
        node(&emulator, &key, &origin, metadata, settings)
            .env("CACHECLUSTER_PEERS__LISTEN", "0.0.0.0:0")
            .start()
    };
    for (metadata, finally) in [(&metadata, "127.0.84.1:"), (&hole, "it tells them the one from")] {
        let began = Instant::now();
        let node = launch(metadata);
        assert_eq!(node.get("/items/k").await.text(), "/items/k");
        tell(&format!("serves after {:?}", began.elapsed()));
        assert_eq!(node.admin("/readyz").await.status, 200);
        let log = node.log();
        assert!(log.contains("not known yet where others reach this node"), "{log}");
        assert!(!log.contains("Looking for the cluster."), "its address is known:\n{log}");
        let members = node.admin("/members").await.json();
        assert_eq!(members["members"].as_array().map(Vec::len), Some(0), "{members}");
        emulator.set_metadata_hangs(false);
        node.logged("Looking for the cluster.").await;
        node.logged(finally).await;
        until("it owns the keys", || async { owners(&node).await == 1 }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_to_be_stopped_leaves_as_if_it_were_told_to() {
    let (origin, key) = (items().await, KeyFile::new());
    let emulator = Emulator::start(Ipv4Addr::new(127, 0, 85, 200)).await;
    let mut nodes = Vec::new();
    for host in 1..=3 {
        // Graceful shutdown is in use, and nobody shuts anything down.
        let machine = Machine::new(host, Ipv4Addr::new(127, 0, 85, host));
        let machine = Machine { stop_state: Some("UNSPECIFIED"), ..machine };
        nodes.push(start_on(&emulator, &key, &origin, machine).await);
    }
    agree(&nodes).await;
    for number in 0..60 {
        for _ in 0..3 {
            nodes[0].get(&format!("/items/k{number}")).await;
        }
    }
    assert_eq!(origin.requests(), 60);
    // To be moved elsewhere, or any other news, is no reason to leave.
    emulator.change("cache-3", |it| it.labels.push(("moved", "yes")));
    for (name, reason) in [("cache-3", "is preempted"), ("cache-2", "is being stopped")] {
        let mut leaver = nodes.pop().expect("a node");
        if name == "cache-3" {
            emulator.change(name, |it| it.is_preempted = true);
        } else {
            emulator.change(name, |it| it.stop_state = Some("PENDING_STOP"));
        }
        assert!(leaver.ended().await.success(), "{}", leaver.log());
        let log = leaver.log();
        assert!(log.contains(reason) && log.contains("Stopped."), "{log}");
        let handed = log.lines().find(|line| line.contains("Handed over what is hot."));
        let handed: Value = serde_json::from_str(handed.expect("a line")).expect("JSON");
        assert!(handed["fields"]["kept"].as_u64().is_some_and(|kept| kept > 0), "{log}");
        nodes[0].logged("member has left").await;
        agree(&nodes).await;
    }
    for number in 0..60 {
        assert_eq!(nodes[0].get(&format!("/items/k{number}")).await.status, 200);
    }
    tell(&format!(
        "{} fills for 60 keys of three nodes, two of which have left",
        origin.requests()
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_once_with_its_remedy() {
    let (origin, key) = (items().await, KeyFile::new());
    let emulator = Emulator::start(Ipv4Addr::new(127, 0, 86, 200)).await;
    // Somebody who answers everything, as the portal of a hotel does.
    let portal = items().await;
    let every_second = |it: Builder| it.env("CACHECLUSTER_DISCOVERY__GCE__INTERVAL", "1s").start();
    let elsewhere = every_second(node(
        &emulator,
        &key,
        &origin,
        &portal.addr().to_string(),
        "bind = \"127.0.86.1\"",
    ));
    says(&elsewhere, "this is not Compute Engine").await;
    assert_eq!(elsewhere.get("/items/k").await.text(), "/items/k");
    let looks = "cachecluster_discovery_looks_total{source=\"gce\",outcome=\"failed\"}";
    until("it has looked again", || async { elsewhere.metric(looks).await >= 3.0 }).await;
    let said = elsewhere.log().matches("this is not Compute Engine").count();
    assert_eq!(said, 1, "{}", elsewhere.log());

    let mut machine = Machine::new(2, Ipv4Addr::new(127, 0, 86, 2));
    machine.scopes.clear();
    machine.tags.clear();
    let metadata = emulator.boot(machine).await;
    let bare = every_second(node(&emulator, &key, &origin, &metadata, "bind = \"127.0.86.2\""));
    says(&bare, "this instance has no service account").await;
    emulator
        .change("cache-2", |it| it.scopes = vec!["https://www.googleapis.com/auth/logging.write"]);
    // What is wrong now is another thing than at first, and is told too.
    bare.logged("do not include Compute Engine").await;
    emulator
        .change("cache-2", |it| it.scopes = vec!["https://www.googleapis.com/auth/cloud-platform"]);
    finds(&bare, 0).await;
    bare.logged("it has no network tag cache").await;
    emulator.change("cache-2", |it| it.tags = vec!["cache"]);
    bare.logged("is one of those that are looked for").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_emulator_refuses_what_the_service_refuses() {
    let address = |host| Ipv4Addr::new(127, 0, 87, host);
    let emulator = Emulator::start(address(200)).await;
    let metadata = emulator.boot(Machine::new(1, address(1))).await;
    let metadata = metadata.parse().expect("an address");
    let asked = async |path: &str, headers: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}connection: close\r\n\r\n");
        client::exchange(metadata, request.as_bytes()).await
    };
    let flavor = "Metadata-Flavor: Google\r\n";
    let root = "/computeMetadata/v1/";
    assert_eq!(asked("/", "").await.status, 200);
    assert_eq!(asked(&format!("{root}instance/id"), "").await.status, 403);
    let forwarded = format!("{flavor}X-Forwarded-For: 10.0.0.1\r\n");
    assert_eq!(asked(&format!("{root}instance/id"), &forwarded).await.status, 403);
    let id = asked(&format!("{root}instance/id"), flavor).await;
    assert_eq!(
        (id.text().as_str(), id.header("metadata-flavor")),
        ("18446744073709551001", "Google")
    );
    assert!(!id.header("etag").is_empty());
    for (path, status) in [
        ("instance/network-interfaces", 301),
        ("instance/id/", 404),
        ("instance/attributes/no", 404),
    ] {
        assert_eq!(asked(&format!("{root}{path}"), flavor).await.status, status, "{path}");
    }
    // With the tag of what is known, it waits; without, it answers at once.
    let preempted = format!("{root}instance/preempted?wait_for_change=true&last_etag=");
    let known = asked(&format!("{preempted}0"), flavor).await;
    let waiting = format!("{preempted}{}", known.header("etag"));
    let changing = async {
        tokio::task::yield_now().await;
        emulator.change("cache-1", |it| it.is_preempted = true);
    };
    let (changed, ()) = tokio::join!(asked(&waiting, flavor), changing);
    assert_eq!((known.text(), changed.text()), ("FALSE".to_owned(), "TRUE".to_owned()));

    let token = asked(&format!("{root}instance/service-accounts/default/token"), flavor).await;
    let token = token.json()["access_token"].as_str().expect("a token").to_owned();
    let list = async |zone: &str, query: &str, token: &str| {
        let request = format!(
            "GET /compute/v1/projects/my-project/zones/{zone}/instances?{query} HTTP/1.1\r\n\
             host: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
        );
        client::exchange(emulator.api, request.as_bytes()).await
    };
    let reason = |answer: &client::Response| answer.json()["error"]["errors"][0]["reason"].clone();
    let zone = "us-central1-b";
    for (asked, status, why) in [
        (list(zone, "filter=tags.items%20%3D%20cache", &token).await, 400, "invalid"),
        (list(zone, "filter=metadata.service%20%3D%20items", &token).await, 400, "invalid"),
        (list("us-central1", "", &token).await, 400, "invalid"),
        (list(zone, "", "ya29.made-up").await, 401, "authError"),
    ] {
        assert_eq!((asked.status, reason(&asked)), (status, why.into()));
    }
    let found = list(zone, "filter=status%20%3D%20RUNNING", &token).await.json();
    assert_eq!(found["items"][0]["id"], "18446744073709551001");
    emulator.change("cache-1", |it| it.status = "TERMINATED");
    let none = list(zone, "filter=status%20%3D%20RUNNING", &token).await.json();
    assert!(none.get("items").is_none(), "{none}");
    let stopped = list(zone, "", &token).await.json();
    assert_eq!(stopped["items"][0]["networkInterfaces"][0]["networkIP"], "127.0.87.1");
    emulator.revoke();
    assert_eq!(list(zone, "", &token).await.status, 401);
}
