//! What replacing a plugin under load costs its clients.
//!
//! One node serves a plugin over HTTP; clients ask for what is in memory and for what is
//! not, without a pause. In every other phase of a few seconds the plugin's file is
//! replaced twice, every fourth time by one that is broken: forty times in a minute of
//! such phases. No request may fail, and the latencies are compared with those of the
//! quiet phases between: `cargo bench -p cachecluster --bench reload`. The ten that
//! are broken are so in ten ways. It fails if a request does, if an answer is not whole of
//! one version, or if a hit's 99th percentile is more than 1.5 times that of the quiet
//! phases.

#![expect(clippy::print_stdout, reason = "a benchmark reports to whoever runs it")]

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use cachecluster::{
    config::{self, Admin, Config, Group, Http, Wasm},
    node::Node,
};
use tokio::time::Instant;

#[path = "../../tests/fixtures/guest/mod.rs"]
#[expect(dead_code, reason = "a benchmark needs only some kinds of guests")]
mod guest;
#[path = "../../tests/fixtures/versions.rs"]
mod versions;

/// Replacements in a phase that has any.
const REPLACEMENTS: u32 = 2;
/// The most that replacing may cost a hit.
const HIT_P99_MAX: f64 = 1.5;

/// What each client asks for.
const CLIENTS: [&str; 2] = ["hit", "miss"];

fn main() -> ExitCode {
    // As the binary does.
    cachecluster::allocator::settle();
    // `cargo test --all-targets` runs this too, to see that it works.
    let is_measuring = std::env::args().any(|argument| argument == "--bench");
    let (rounds, length) =
        if is_measuring { (20, Duration::from_secs(3)) } else { (1, Duration::from_secs(1)) };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut versions = 0;
    publish(folder.path(), &mut versions);
    let node = Node::start(&settings(), folder.path()).expect("a node");
    let address = node.http_addr().expect("a front");

    // By phase and client, the microseconds of every get.
    let mut measured: [[Vec<f64>; 2]; 2] = Default::default();
    for _ in 0..rounds {
        for (is_reloading, results) in [false, true].into_iter().zip(&mut measured) {
            let until = Instant::now() + length;
            let clients = CLIENTS.map(|asks| thread::spawn(move || client(address, asks, until)));
            for _ in 0..REPLACEMENTS {
                pause(length / (REPLACEMENTS + 1));
                if is_reloading {
                    publish(folder.path(), &mut versions);
                }
            }
            for (client, latencies) in clients.into_iter().zip(results) {
                latencies.extend(client.join().expect("no failed request").expect("answers"));
            }
        }
    }
    node.stop().expect("a clean end");

    println!("microseconds at the client, {} replacements", rounds * REPLACEMENTS);
    println!("               gets        p50        p99      p99.9");
    let mut hit_p99 = [0.0; 2];
    for (which, asks) in CLIENTS.iter().enumerate() {
        for (phase, name) in ["quiet", "reloading"].iter().enumerate() {
            let latencies = &mut measured[phase][which];
            latencies.sort_by(f64::total_cmp);
            let at = |share: usize| latencies[latencies.len() * share / 1_000];
            let (p50, p99, p999) = (at(500), at(990), at(999));
            println!(
                "{asks:>4} {name:<9} {:>6} {p50:>10.0} {p99:>10.0} {p999:>10.0}",
                latencies.len()
            );
            if which == 0 {
                hit_p99[phase] = p99;
            }
        }
    }
    let ratio = hit_p99[1] / hit_p99[0];
    println!("a hit's 99th percentile while reloading is {ratio:.2} of the quiet one");
    if is_measuring && ratio > HIT_P99_MAX {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn settings() -> Config {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let plugin = config::Plugin {
        limits: config::Limits { cpu: Duration::from_millis(200), ..config::Limits::default() },
        ..config::Plugin::new("words.wasm")
    };
    Config {
        http: Http { listen: loopback, ..Http::default() },
        admin: Admin { listen: loopback },
        wasm: Wasm { cache_dir: "cache".into(), data_dir: "state".into(), ..Wasm::default() },
        plugins: BTreeMap::from([("words".to_owned(), plugin)]),
        groups: BTreeMap::from([("words".to_owned(), Group::new("words"))]),
        ..Config::default()
    }
}

/// Puts another version in the place of the plugin's file; every fourth is broken.
fn publish(folder: &Path, versions: &mut usize) {
    let number = *versions;
    let bytes = match number % 4 {
        3 => versions::broken(number / 4),
        _ => versions::version(&versions::word(number)).bytes(),
    };
    *versions += 1;
    let new = folder.join("words.wasm.new");
    fs::write(&new, bytes).expect("to write a component");
    fs::rename(new, folder.join("words.wasm")).expect("to rename it");
}

/// Gets without a pause; the microseconds of each.
fn client(address: SocketAddr, asks: &str, until: Instant) -> io::Result<Vec<f64>> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut stream = BufReader::new(TcpStream::connect(address)?);
    stream.get_ref().set_nodelay(true)?;
    let mut latencies = Vec::new();
    while latencies.is_empty() || Instant::now() < until {
        // Hits are of few keys; misses are of a new one each.
        let key = NEXT.fetch_add(1, Relaxed);
        let key = if asks == "hit" { format!("hot{}", key % 8) } else { key.to_string() };
        let request = format!("GET /words/{key} HTTP/1.1\r\nhost: x\r\n\r\n");
        let asked = Instant::now();
        stream.get_mut().write_all(request.as_bytes())?;
        let body = answer(&mut stream)?;
        latencies.push(asked.elapsed().as_secs_f64() * 1e6);
        let text = String::from_utf8(body).expect("text");
        let parts: Vec<_> = text.split('|').collect();
        let is_whole = parts.len() == 3 && parts[0] == parts[2] && parts[1] == key;
        assert!(is_whole, "{key}: {text}");
        // As busy as a client that has something to do with the answer.
        pause(Duration::from_micros(200));
    }
    Ok(latencies)
}

/// The body of a good answer.
fn answer(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut length = None;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    assert!(line.starts_with("HTTP/1.1 200 "), "{line}");
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        }
    }
    let mut body = vec![0; length.expect("a length")];
    stream.read_exact(&mut body)?;
    Ok(body)
}

#[expect(clippy::disallowed_methods, reason = "the thread is not a runtime's")]
fn pause(length: Duration) {
    thread::sleep(length);
}
