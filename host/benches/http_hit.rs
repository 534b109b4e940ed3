//! What a hit over HTTP costs, against a server of hyper alone.
//!
//! The bare server answers every request with the same body and the least of headers
//! (content-type, content-length, date): no lookup, no clock, no validator. Both serve
//! on one thread of this process, the same client drives them in turn, and what counts
//! is the CPU time of the serving thread for each request, as the scheduler accounts
//! it. Rates would measure whatever else this machine does.
//!
//! Run it with `cargo bench -p cachecluster --bench http_hit`. It fails if our front
//! has less than 0.8 of the bare server's capacity in any row.
#![expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]

use std::{
    convert::Infallible,
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    sync::{Arc, mpsc},
};

use bytes::Bytes;
use cachecluster::{
    config::{ByteSize, Caching, Http},
    front::http::HttpFront,
    group::{BoxFuture, Fill, FillError, Getter, Group, Groups, Outcome},
    metrics::Metrics,
};
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::runtime;

/// Keep-alive connections of the client.
const CONNECTIONS: usize = 32;

/// Keys that are asked for in turn: few enough to stay in the caches of the core, as the
/// bare server's one body does. What memory costs beyond that is the store's affair.
const KEYS: usize = 64;

/// The least share of the bare server's capacity that is good enough.
const CAPACITY_MIN: f64 = 0.8;

/// Body size and requests sent at once on each connection.
const CASES: [(usize, usize); 5] = [(100, 1), (1_024, 1), (10_240, 1), (100, 16), (1_024, 16)];

fn main() -> ExitCode {
    // `cargo test --all-targets` runs this too, to see that it works.
    let is_measuring = std::env::args().any(|argument| argument == "--bench");
    let (rounds, requests) = if is_measuring { (9, 12_800) } else { (1, 512) };
    println!(
        "{:>8} {:>6} {:>10} {:>10} {:>9}",
        "body B", "depth", "bare ns", "ours ns", "capacity"
    );
    let mut is_good = true;
    for (size, depth) in CASES {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime for fills");
        let (ours, _serving) = start_ours(size, runtime.handle()).expect("our front");
        let bare = start_bare(size).expect("a bare server");
        let mut contenders =
            [("bare-0", bare), ("http-0", ours)].map(|(thread, address)| Contender {
                load: Load::new(address, size, depth).expect("connections"),
                usage: format!("/proc/self/task/{}/schedstat", task(thread)),
                costs: Vec::new(),
            });
        for contender in &mut contenders {
            // Fills every key, and warms buffers and caches.
            contender.load.run(KEYS.max(requests / 4)).expect("replies");
        }
        for _ in 0..rounds {
            for contender in &mut contenders {
                contender.round(requests).expect("replies");
            }
        }
        let [bare, ours] = contenders.map(Contender::median);
        let capacity = bare / ours;
        is_good &= capacity >= CAPACITY_MIN;
        println!("{size:>8} {depth:>6} {bare:>10.0} {ours:>10.0} {capacity:>9.2}");
    }
    if is_measuring && !is_good {
        println!("Less than {CAPACITY_MIN} of the bare server's capacity.");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// One server under load.
struct Contender {
    load: Load,
    /// File with the CPU time of its thread.
    usage: String,
    /// Nanoseconds for each request, by round.
    costs: Vec<f64>,
}

impl Contender {
    fn round(&mut self, requests: usize) -> io::Result<()> {
        let before = self.used()?;
        let count = self.load.run(requests)?;
        let used = self.used()? - before;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        self.costs.push(used as f64 / count as f64);
        Ok(())
    }

    /// Nanoseconds the thread has run.
    fn used(&self) -> io::Result<u64> {
        let text = fs::read_to_string(&self.usage)?;
        let first = text.split(' ').next().and_then(|number| number.parse().ok());
        first.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn median(mut self) -> f64 {
        self.costs.sort_by(f64::total_cmp);
        self.costs[self.costs.len() / 2]
    }
}

/// The newest thread of this process with the name `name`.
fn task(name: &str) -> u32 {
    let tasks = fs::read_dir("/proc/self/task").expect("procfs");
    let ids = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
    let is_it = |id: &u32| {
        fs::read_to_string(format!("/proc/self/task/{id}/comm"))
            .is_ok_and(|found| found.trim_end() == name)
    };
    ids.filter(is_it).max().expect("the serving thread")
}

/// A client that asks on all connections, then reads all replies.
struct Load {
    connections: Vec<TcpStream>,
    /// What each connection sends at once, by turn.
    requests: Vec<Vec<u8>>,
    depth: usize,
    body: usize,
    turn: usize,
    buffer: Vec<u8>,
}

impl Load {
    fn new(address: SocketAddr, body: usize, depth: usize) -> io::Result<Self> {
        let connect = |_| {
            let socket = TcpStream::connect(address)?;
            socket.set_nodelay(true)?;
            Ok(socket)
        };
        let connections = (0..CONNECTIONS).map(connect).collect::<io::Result<_>>()?;
        let request = |key| format!("GET /g/key-{:02} HTTP/1.1\r\nhost: bench\r\n\r\n", key % KEYS);
        let requests = (0..KEYS)
            .map(|turn| (0..depth).map(|n| request(turn * depth + n)).collect::<String>().into())
            .collect();
        Ok(Self { connections, requests, depth, body, turn: 0, buffer: vec![0; 1 << 20] })
    }

    /// Asks at least `count` times; returns how often.
    fn run(&mut self, count: usize) -> io::Result<usize> {
        let mut done = 0;
        while done < count {
            for connection in &mut self.connections {
                connection.write_all(&self.requests[self.turn % KEYS])?;
                self.turn += 1;
            }
            for connection in &mut self.connections {
                read_replies(connection, &mut self.buffer, self.depth, self.body)?;
            }
            done += CONNECTIONS * self.depth;
        }
        Ok(done)
    }
}

/// Reads `count` replies with bodies of `body` bytes.
fn read_replies(
    connection: &mut TcpStream,
    buffer: &mut [u8],
    count: usize,
    body: usize,
) -> io::Result<()> {
    let (mut start, mut end) = (0, 0);
    for _ in 0..count {
        let mut seen = start;
        loop {
            if let Some(at) = buffer[seen..end].windows(4).position(|four| four == b"\r\n\r\n") {
                if !buffer[start..end].starts_with(b"HTTP/1.1 200 ") {
                    return Err(io::Error::other("not a hit"));
                }
                start = seen + at + 4 + body;
                break;
            }
            seen = end.saturating_sub(3).max(start);
            end += read_some(connection, &mut buffer[end..])?;
        }
        while end < start {
            end += read_some(connection, &mut buffer[end..])?;
        }
    }
    if end == start { Ok(()) } else { Err(io::Error::other("more than was asked for")) }
}

fn read_some(connection: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    match connection.read(buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(count),
    }
}

/// Answers every key with the same body.
struct Fixed(Vec<u8>);

impl Getter for Fixed {
    fn load(&self, _fill: Fill) -> BoxFuture<'_, Result<Outcome, FillError>> {
        Box::pin(async { Ok(Outcome::found(&self.0)) })
    }
}

fn start_ours(
    size: usize,
    fills: &runtime::Handle,
) -> Result<(SocketAddr, cachecluster::front::http::Serving), Box<dyn std::error::Error>> {
    let (groups, metrics) = (Arc::new(Groups::default()), Metrics::new());
    let getter = Arc::new(Fixed(vec![b'x'; size]));
    let caching = Caching { memory: ByteSize::mib(256), ..Caching::default() };
    groups.replace([Group::new("g", caching, getter, fills.clone(), metrics.group("g"))]);
    let settings = Http { listen: ([127, 0, 0, 1], 0).into(), threads: 1, ..Http::default() };
    let front = HttpFront::bind(&settings)?;
    Ok((front.local_addr(), front.serve(&groups, &metrics)?))
}

/// Serves until the process ends.
fn start_bare(size: usize) -> Result<SocketAddr, Box<dyn std::error::Error>> {
    let (bound, address) = mpsc::sync_channel(1);
    std::thread::Builder::new().name("bare-0".to_owned()).spawn(move || {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(runtime::LocalOptions::default());
        let body = Bytes::from(vec![b'x'; size]);
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            bound.send(listener.local_addr().expect("bound")).expect("somebody waits");
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).expect("an open socket");
                let body = body.clone();
                tokio::task::spawn_local(async move {
                    let service = service_fn(move |_: Request<Incoming>| {
                        let mut response = Response::new(Full::new(body.clone()));
                        response.headers_mut().insert(
                            header::CONTENT_TYPE,
                            header::HeaderValue::from_static("application/octet-stream"),
                        );
                        async { Ok::<_, Infallible>(response) }
                    });
                    let _ = http1::Builder::new()
                        .pipeline_flush(true)
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
    })?;
    Ok(address.recv()?)
}
