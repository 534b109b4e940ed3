//! `demo`: a few nodes and something to cache, in one process: no file, no network.
//!
//! A DICT server with a dictionary of our own is the origin, deliberately slow; the
//! bundled dict plugin fills the group `define` from it over a real socket. The nodes are a
//! cluster and share the keys. Every question the origin is asked is printed, so that one
//! sees what the cache keeps from it, whichever node is asked.

mod dictionary;
mod origin;
mod protocol;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use cachecluster::{
    config::{Admin, Cluster, Config, Group, Http, Log, Network, Plugin, units::parse_duration},
    node::Node,
};
use clap::Args;
use tokio::time::Instant;

use super::{
    Failure, keygen,
    output::{complain, print},
    start_logging,
};
use dictionary::Dictionary;
use origin::{Manners, Origin};

/// The dict plugin, as it is built in this repository.
const DICT: &[u8] = include_bytes!("../../../../plugins/dict/dict.wasm");

/// The most a question may be delayed: less than the plugin's own timeout, 5 s.
const DELAY_MAX: Duration = Duration::from_secs(4);

/// How long the nodes may take to find one another, which each needs to be up for a moment.
const TOGETHER_MAX: Duration = Duration::from_secs(20);

/// How to run the demo.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Port for clients; by default 8080, or a free one where that is taken
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// How many nodes, from 1 to 9
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// How long the origin takes for each answer, at most 4s
    #[arg(long, value_name = "TIME", default_value = "150ms", value_parser = delay)]
    delay: Duration,
}

fn delay(text: &str) -> Result<Duration, String> {
    let delay = parse_duration(text).map_err(|error| error.to_string())?;
    if delay > DELAY_MAX { Err("more than 4s".to_owned()) } else { Ok(delay) }
}

/// Runs the demo until Ctrl-C.
pub(super) fn demo(options: &Options) -> Result<(), Failure> {
    let log = Log { filter: "warn".to_owned(), ..Log::default() };
    _ = start_logging(&log);
    let folder = tempfile::Builder::new()
        .prefix("cachecluster-demo-")
        .tempdir()
        .context("make a temporary folder for the plugin")?;
    let source = folder.path().join("dict.wasm");
    fs::write(&source, DICT).with_context(|| format!("write {}", source.display()))?;

    // Nobody listens any more: the demo itself goes on, and so does its server.
    let tell = |question: &str| _ = print(&format!("origin asked: {question}\n"));
    let origin = Origin::start(Dictionary::bundled(), Manners::new(options.delay, Arc::new(tell)))
        .context("start the demo's origin on loopback")?;

    let key = folder.path().join("key");
    keygen::write(&key)?;

    let mut nodes: Vec<Node> = Vec::new();
    for number in 0..options.nodes {
        let is_first = number == 0;
        let http = match options.port {
            Some(port) if is_first => loopback(port),
            _ if is_first => free("clients", Http::default().listen),
            _ => loopback(0),
        };
        let admin = if is_first { free("operators", Admin::default().listen) } else { loopback(0) };
        let mut settings = settings(source.clone(), origin.address(), http, admin, log.clone());
        settings.wasm.data_dir = folder.path().join(format!("state-{number}"));
        if options.nodes > 1 {
            let seed = nodes.first().and_then(Node::gossip_addr);
            settings.cluster = cluster(key.clone(), seed);
            settings.peers.listen = Some(loopback(0));
        }
        let node = Node::from_config(&settings, folder.path());
        nodes.push(if is_first { node.take_signals().start()? } else { node.start()? });
    }
    let started = Instant::now();
    let agree = || nodes.iter().all(|node| node.owners() == nodes.len());
    while !agree() && started.elapsed() < TOGETHER_MAX {
        std::thread::park_timeout(Duration::from_millis(20));
    }
    print(&greeting(&nodes, origin.address(), options.delay))?;
    let mut nodes = nodes.into_iter();
    // There is a first one: the option says so.
    let stopped = nodes.next().map_or(Ok(()), Node::run_until_signal);
    let others: Vec<_> = nodes.map(|node| std::thread::spawn(|| node.stop())).collect();
    for other in others {
        _ = other.join();
    }
    origin.stop();
    Ok(stopped?)
}

/// How a node of the demo finds the others: from `seed`, the first of them.
fn cluster(key_file: PathBuf, seed: Option<SocketAddr>) -> Cluster {
    Cluster {
        name: "demo".to_owned(),
        seeds: seed.iter().map(ToString::to_string).collect(),
        key_file,
        port: 0,
        bind: Ipv4Addr::LOCALHOST.to_string(),
        ..Cluster::default()
    }
}

/// The settings of the demo: what a file for it would say.
fn settings(
    source: PathBuf,
    origin: SocketAddr,
    http: SocketAddr,
    admin: SocketAddr,
    log: Log,
) -> Config {
    let plugin = Plugin {
        network: Network {
            tcp: vec![origin.to_string()],
            allow_private: vec!["127.0.0.0/8".to_owned()],
            ..Network::default()
        },
        config: BTreeMap::from([("server".to_owned(), origin.to_string())]),
        ..Plugin::new(source)
    };
    Config {
        http: Http { listen: http, ..Http::default() },
        admin: Admin { listen: admin },
        log,
        plugins: BTreeMap::from([("dict".to_owned(), plugin)]),
        groups: BTreeMap::from([("define".to_owned(), Group::new("dict"))]),
        ..Config::default()
    }
}

/// The usual address for `whom` if it can be had, else a free port; says so.
fn free(whom: &str, usual: SocketAddr) -> SocketAddr {
    if TcpListener::bind(usual).is_ok() {
        return usual;
    }
    complain(&format!("port {} is taken: another one for {whom}", usual.port()));
    loopback(0)
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// What runs, and what to try.
fn greeting(nodes: &[Node], origin: SocketAddr, delay: Duration) -> String {
    let delay = humantime::format_duration(delay);
    let what = match nodes.len() {
        1 => "a node whose group `define` is filled".to_owned(),
        count => format!("a cluster of {count} nodes, each with a group `define` that is filled"),
    };
    let mut text = format!(
        "\
{what} by the dict plugin, and a small
dictionary that they ask; it waits {delay} before each answer, so that a miss can be seen

"
    );
    // All are there: a node from settings has both surfaces.
    let of = |node: &Node| Some((node.http_addr()?, node.admin_addr()?));
    for (http, admin) in nodes.iter().filter_map(of) {
        _ = writeln!(text, "  clients   http://{http}\n  admin     http://{admin}");
    }
    _ = writeln!(text, "  origin    dict://{origin}\n\ntry, in another terminal\n");
    if let Some((http, admin)) = nodes.first().and_then(of) {
        let other = nodes.last().and_then(Node::http_addr).unwrap_or(http);
        _ = writeln!(
            text,
            "  \
  curl -i http://{http}/define/cache      a miss: the origin is asked
  curl -i http://{other}/define/cache      not this time: the node that owns it has it
  curl -i http://{http}/define/nonesuch   no such word: that is remembered too
  cachecluster explain define cache --admin {admin}
  cachecluster members --admin {admin}
  curl http://{admin}/metrics

Ctrl-C ends it
"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
        sync::Mutex,
    };

    use super::*;

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("connect");
        let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("send");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("receive");
        answer
    }

    #[test]
    fn a_word_is_asked_of_the_origin_once() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("dict.wasm"), DICT).expect("write the plugin");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let tell = move |question: &str| seen.lock().expect("no panic").push(question.to_owned());
        let manners = Manners::new(Duration::ZERO, Arc::new(tell));
        let origin = Origin::start(Dictionary::bundled(), manners).expect("an origin");
        let (http, admin) = (loopback(0), loopback(0));
        let mut settings =
            settings("dict.wasm".into(), origin.address(), http, admin, Log::default());
        settings.wasm.cache_dir = folder.path().join("cache");
        settings.wasm.data_dir = folder.path().join("state");
        let node = Node::start(&settings, folder.path()).expect("a node");
        let http = node.http_addr().expect("a front for clients");
        for _ in 0..2 {
            let answer = get(http, "/define/piston");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert!(answer.contains("turns a wheel."), "{answer}");
        }
        assert!(get(http, "/define/nonesuch").starts_with("HTTP/1.1 404 "));
        node.stop().expect("a clean end");
        origin.stop();
        let asked = asked.lock().expect("no panic").clone();
        assert_eq!(asked, ["DEFINE ! \"piston\"", "DEFINE ! \"nonesuch\""]);
    }

    #[test]
    fn the_demos_settings_pass_every_check() {
        let settings = settings(
            "dict.wasm".into(),
            loopback(40_000),
            loopback(8080),
            loopback(9081),
            Log::default(),
        );
        let text = toml::to_string(&settings).expect("settings can be written");
        let loaded = Config::from_str(&text, "demo.toml", std::iter::empty())
            .unwrap_or_else(|reports| panic!("{reports}"));
        assert_eq!(loaded.config, settings);
        assert_eq!(loaded.warnings, []);
    }

    #[test]
    fn the_plugin_is_a_component() {
        // The magic number, version 0x0d, layer 1.
        assert_eq!(DICT.first_chunk(), Some(b"\0asm\x0d\0\x01\0"));
    }

    #[test]
    fn delays_are_bounded() {
        assert_eq!(delay("0s"), Ok(Duration::ZERO));
        assert_eq!(delay("4s"), Ok(DELAY_MAX));
        assert!(delay("5s").is_err());
        assert!(delay("slow").is_err());
    }

    #[test]
    fn a_port_that_is_taken_is_replaced() {
        let taken = TcpListener::bind(loopback(0)).expect("listen");
        let address = taken.local_addr().expect("an address");
        assert_eq!(free("tests", address), loopback(0));
        drop(taken);
    }
}
