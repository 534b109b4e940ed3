//! `demo`: a node and something to cache, in one process: no file, no network.
//!
//! A DICT server with a dictionary of our own is the origin, deliberately slow; the
//! bundled dict plugin fills the group `define` from it over a real socket. Every
//! question the origin is asked is printed, so that one sees what the cache keeps from
//! it.

mod dictionary;
mod origin;
mod protocol;

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use cachecluster::{
    config::{Admin, Config, Group, Http, Log, Network, Plugin, units::parse_duration},
    node::Node,
};
use clap::Args;

use super::{
    Failure,
    output::{complain, print},
    start_logging,
};
use dictionary::Dictionary;
use origin::{Manners, Origin};

/// The dict plugin, as it is built in this repository.
const DICT: &[u8] = include_bytes!("../../../../plugins/dict/dict.wasm");

/// The most a question may be delayed: less than the plugin's own timeout, 5 s.
const DELAY_MAX: Duration = Duration::from_secs(4);

/// How to run the demo.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Port for clients; by default 8080, or a free one where that is taken
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
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

    let http = match options.port {
        Some(port) => loopback(port),
        None => free("clients", Http::default().listen),
    };
    let admin = free("operators", Admin::default().listen);
    let mut settings = settings(source, origin.address(), http, admin, log);
    settings.wasm.data_dir = folder.path().join("state");
    let node = Node::from_config(&settings, folder.path()).take_signals().start()?;
    // Both are there: a node from settings has both surfaces.
    let (http, admin) = (node.http_addr().unwrap_or(http), node.admin_addr().unwrap_or(admin));
    print(&greeting(http, admin, origin.address(), options.delay))?;
    let stopped = node.run_until_signal();
    origin.stop();
    Ok(stopped?)
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
fn greeting(http: SocketAddr, admin: SocketAddr, origin: SocketAddr, delay: Duration) -> String {
    let delay = humantime::format_duration(delay);
    format!(
        "\
a node whose group `define` is filled by the dict plugin, and a small dictionary that
it asks; the dictionary waits {delay} before each answer, so that a miss can be seen

  clients   http://{http}
  admin     http://{admin}
  origin    dict://{origin}

try, in another terminal

  curl -i http://{http}/define/cache      a miss: the origin is asked
  curl -i http://{http}/define/cache      a hit: it is not; Cache-Status and Age tell
  curl -i http://{http}/define/nonesuch   no such word: that is remembered too
  curl http://{admin}/status
  curl http://{admin}/metrics

Ctrl-C ends it

"
    )
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
