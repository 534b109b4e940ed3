//! What neighbours that misbehave cost a group that behaves.
//!
//! One node serves three groups that behave: `hits`, from memory; `echo`, whose every get
//! is a fill by a guest that only computes; and `origin`, whose every get is a fill over
//! HTTP. Clients ask each of them at a steady pace, while
//!
//! - the node is otherwise *idle*;
//! - two plugins *spin* in all of their instances, each call almost to its deadline, and
//!   more calls wait behind them;
//! - the `http` plugin is *compiled* over and over, as by reloads.
//!
//! The phases alternate, and what counts is the ratio to the idle phase of the same run:
//! `cargo bench -p cachecluster --bench spinning`.

#![expect(clippy::print_stdout, reason = "a benchmark reports to whoever runs it")]

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use cachecluster::{
    config::{self, Caching, Http, Wasm},
    front::http::HttpFront,
    group::{Context, Getter, Group, Groups},
    metrics::Metrics,
    plugin::{Plugin, PluginHost},
};
use tokio::time::Instant;

#[path = "../../tests/fixtures/guest/mod.rs"]
#[expect(dead_code, reason = "a benchmark needs only some kinds of guests")]
mod guest;

/// A large component, to be compiled.
const LARGE: &[u8] = include_bytes!("../../plugins/http/http.wasm");

/// Calls at once to each of the plugins that spin: all its instances, and a queue.
const SPINNERS: usize = 24;

/// Time for a call that spins.
const SPIN: Duration = Duration::from_secs(1);

/// Spins until a quarter of its time is left, and answers like any other plugin: what
/// happens to plugins that fail is another matter.
const SPINNING: &str = "(local $i i32)
    (loop $on
      (local.set $i (i32.const 100000))
      (loop $burst (br_if $burst (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
      (br_if $on (i64.gt_u (call $remaining (global.get $context)) (i64.const 250000000))))";

/// Pauses between two gets of a client.
const PACES: [(&str, Duration); 3] = [
    ("hits", Duration::from_millis(1)),
    ("echo", Duration::from_millis(4)),
    ("origin", Duration::from_millis(4)),
];

const PHASES: [&str; 3] = ["idle", "spinning", "compiling"];

fn main() {
    // As the binary does.
    cachecluster::allocator::settle();
    // `cargo test --all-targets` runs this too, to see that it works.
    let is_measuring = std::env::args().any(|argument| argument == "--bench");
    let (rounds, length) =
        if is_measuring { (7, Duration::from_secs(3)) } else { (1, Duration::from_millis(100)) };
    let node = Node::start();
    // By phase and client, the microseconds of each round's median and 99th percentile.
    let mut measured: [[Vec<[f64; 2]>; 3]; 3] = Default::default();
    for _ in 0..rounds {
        for (phase, results) in PHASES.iter().zip(&mut measured) {
            let trouble = Trouble::begin(phase, &node);
            for (client, latencies) in node.ask(length).into_iter().enumerate() {
                results[client].push(latencies);
            }
            trouble.end(&node);
        }
    }
    println!("microseconds at the client, medians of {rounds} rounds; in brackets against idle");
    println!("                 {:>24} {:>24}", "median", "99th percentile");
    for (client, (name, _)) in PACES.iter().enumerate() {
        let of = |phase: usize, which: usize| {
            median(measured[phase][client].iter().map(|latencies| latencies[which]).collect())
        };
        for (phase, phase_name) in PHASES.iter().enumerate() {
            print!("{name:>7} {phase_name:<9}");
            for which in 0..2 {
                let (here, idle) = (of(phase, which), of(0, which));
                print!(" {here:>14.0} ({:>6.2})", here / idle);
            }
            println!();
        }
    }
}

/// What the clients ask, and their troublesome neighbours.
struct Node {
    host: Arc<PluginHost>,
    spinning: Vec<(Arc<Plugin>, Arc<Group>)>,
    address: SocketAddr,
    folder: tempfile::TempDir,
    _groups: Arc<Groups>,
    _serving: cachecluster::front::http::Serving,
}

impl Node {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let metrics = Metrics::new();
        let settings = Wasm { cache_dir: folder.path().into(), ..Wasm::default() };
        let groups = Arc::<Groups>::default();
        let host = PluginHost::start(&settings, Arc::downgrade(&groups), metrics.clone());
        let host = Arc::new(host.expect("a host"));
        let load = |name: &str, bytes: &[u8], edit: &dyn Fn(&mut config::Plugin)| {
            let source = folder.path().join(format!("{name}.wasm"));
            fs::write(&source, bytes).expect("to write a component");
            let mut settings = config::Plugin::new(&source);
            edit(&mut settings);
            let load = host.load(name, &settings, Path::new("/"));
            host.fills().block_on(load).unwrap_or_else(|error| panic!("{error}"))
        };
        let group = |name: &str, getter: Arc<dyn Getter>| {
            let fills = host.fills().clone();
            Group::new(name, Caching::default(), getter, fills, metrics.group(name))
        };

        // Kept for ten minutes, and not at all.
        let hits = load("hits", &guest::guest(guest::ECHO).bytes(), &|_| ());
        let not_kept =
            format!("{} (i32.store8 offset=24 (global.get $RET) (i32.const 1))", guest::ECHO);
        let echo = load("echo", &guest::guest(&not_kept).bytes(), &|_| ());
        let server = origin();
        let origin = load("origin", LARGE, &|settings| {
            let url = format!("http://{server}");
            settings.config.insert("url".to_owned(), format!("{url}/{{key}}"));
            settings.network.http = vec![url];
            settings.network.allow_private = vec!["127.0.0.0/8".to_owned()];
        });
        let spinning = ["one", "two"].map(|name| {
            let spin = guest::guest(&format!("{SPINNING} {not_kept}")).bytes();
            let plugin = load(name, &spin, &|settings| {
                settings.limits.timeout = SPIN;
                settings.limits.cpu = SPIN;
            });
            (Arc::clone(&plugin), group(name, plugin))
        });
        groups.replace([group("hits", hits), group("echo", echo), group("origin", origin)]);
        let front =
            HttpFront::bind(&Http { listen: ([127, 0, 0, 1], 0).into(), ..Http::default() });
        let serving = front.expect("a port").serve(&groups, &metrics).expect("serving");
        Self {
            address: serving.local_addr(),
            host,
            spinning: spinning.into(),
            folder,
            _groups: groups,
            _serving: serving,
        }
    }

    /// Asks all groups for `length` of time: the median and the 99th percentile of each.
    fn ask(&self, length: Duration) -> [[f64; 2]; 3] {
        let until = Instant::now() + length;
        let address = self.address;
        PACES.map(|(group, pace)| thread::spawn(move || client(address, group, pace, until))).map(
            |client| {
                let mut latencies = client.join().expect("a client").expect("answers");
                latencies.sort_by(f64::total_cmp);
                [latencies[latencies.len() / 2], latencies[latencies.len() * 99 / 100]]
            },
        )
    }
}

/// Asks `group` at `pace`; the microseconds of each get.
#[expect(clippy::disallowed_methods, reason = "a client's thread is not a runtime's")]
fn client(
    address: SocketAddr,
    group: &str,
    pace: Duration,
    until: Instant,
) -> io::Result<Vec<f64>> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut stream = BufReader::new(TcpStream::connect(address)?);
    stream.get_ref().set_nodelay(true)?;
    let mut latencies = Vec::new();
    while latencies.is_empty() || Instant::now() < until {
        // Hits are of few keys; fills are of a new one each.
        let key = NEXT.fetch_add(1, Relaxed);
        let key = if group == "hits" { key % 64 } else { key };
        let request = format!("GET /{group}/{key} HTTP/1.1\r\nhost: x\r\n\r\n");
        let began = Instant::now();
        stream.get_mut().write_all(request.as_bytes())?;
        let status = answer(&mut stream)?;
        latencies.push(began.elapsed().as_secs_f64() * 1e6);
        assert_eq!(status, 200, "{group}");
        thread::sleep(pace);
    }
    Ok(latencies)
}

/// Reads one answer; its status.
fn answer(stream: &mut impl BufRead) -> io::Result<u16> {
    let (mut status, mut length) = (0, 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(text) = line.strip_prefix("http/1.1 ") {
            status = text.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
        }
        if let Some(text) = line.strip_prefix("content-length:") {
            length = text.trim().parse().unwrap_or(0);
        }
    }
    io::copy(&mut stream.take(length), &mut io::sink())?;
    Ok(status)
}

/// What goes on beside the clients.
struct Trouble {
    goes_on: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Trouble {
    fn begin(phase: &str, node: &Node) -> Self {
        let goes_on = Arc::new(AtomicBool::new(true));
        let fills = node.host.fills();
        let tasks = match phase {
            "spinning" => {
                let tasks = node.spinning.iter().flat_map(|(_, group)| {
                    (0..SPINNERS).map(|spinner| {
                        let spinning = spin(Arc::clone(group), spinner, Arc::clone(&goes_on));
                        fills.spawn(spinning)
                    })
                });
                let tasks = tasks.collect();
                let all_spin = || {
                    let busy = node.spinning.iter().map(|(plugin, _)| plugin.status().instances);
                    busy.into_iter().all(|instances| instances.busy == instances.max)
                };
                wait_until(all_spin);
                tasks
            }
            "compiling" => {
                let compiling =
                    compile(Arc::clone(&node.host), node.folder.path().into(), goes_on.clone());
                vec![fills.spawn(compiling)]
            }
            _ => Vec::new(),
        };
        Self { goes_on, tasks }
    }

    fn end(self, node: &Node) {
        self.goes_on.store(false, Relaxed);
        for task in self.tasks {
            node.host.fills().block_on(task).expect("no panic");
        }
        wait_until(|| node.spinning.iter().all(|(plugin, _)| plugin.status().instances.busy == 0));
    }
}

/// Has guests spin, one call after the other.
async fn spin(group: Arc<Group>, spinner: usize, goes_on: Arc<AtomicBool>) {
    let mut key = 0_usize;
    while goes_on.load(Relaxed) {
        let key_text = format!("{spinner}/{key}");
        key += 1;
        // Those that waited too long for their turn have failed.
        group.get(key_text.as_bytes(), &Context::within(SPIN * 2)).await.ok();
    }
}

/// Compiles a component that was never compiled before, time and again.
async fn compile(host: Arc<PluginHost>, folder: PathBuf, goes_on: Arc<AtomicBool>) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    while goes_on.load(Relaxed) {
        let source = folder.join("compiled.wasm");
        // A custom section that no other has: five bytes of name, eight of content.
        let mut bytes = LARGE.to_vec();
        bytes.extend([0, 14, 5]);
        bytes.extend(b"bench");
        bytes.extend(NEXT.fetch_add(1, Relaxed).to_le_bytes());
        fs::write(&source, bytes).expect("to write a component");
        let mut settings = config::Plugin::new(&source);
        settings.config.insert("url".to_owned(), "http://127.0.0.1/{key}".to_owned());
        let plugin = host.load("compiled", &settings, Path::new("/")).await;
        plugin.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// An origin that answers each request with one byte that is not to be kept.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
        }
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncache-control: no-store\r\n\r\nv";
        stream.get_mut().write_all(answer.as_bytes())?;
    }
}

#[expect(clippy::disallowed_methods, reason = "the benchmark's thread is not a runtime's")]
fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::sleep(Duration::from_millis(1));
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
