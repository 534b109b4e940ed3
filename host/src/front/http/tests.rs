//! The front over real sockets, with a getter of native code.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::{runtime::Runtime, sync::Semaphore as Gate, time::Instant};

use super::*;
use crate::{
    config::{ByteSize, Caching},
    group::{BoxFuture, Fill, FillError, Getter, Group, Outcome},
    value::{Freshness, Head},
};

/// Long enough for a machine that is busy with other things: nothing waits for it to
/// pass unless the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers by what the key says, and lets the test hold back keys that begin with
/// `held`.
struct Origin {
    gate: Gate,
    waiting: AtomicUsize,
}

impl Getter for Origin {
    fn load(&self, fill: Fill) -> BoxFuture<'_, Result<Outcome, FillError>> {
        Box::pin(async move {
            let text = || "the test says so".to_owned();
            match &*fill.key {
                b"absent" => Ok(Outcome::not_found()),
                b"invalid" => Err(FillError::InvalidKey(text())),
                b"denied" => Err(FillError::Denied(text())),
                b"down" => Err(FillError::Unavailable { message: text(), retry_after: None }),
                b"broken" => Err(FillError::Internal(text())),
                b"stuck" => std::future::pending().await,
                b"page" => {
                    let content_type = Some("text/html; charset=utf-8".parse().unwrap());
                    let head = Head { content_type, ..Head::default() };
                    Ok(Outcome::described(b"<p>", head, Freshness::default()))
                }
                b"nothing" => Ok(Outcome::found(b"")),
                b"big" => Ok(Outcome::found(vec![b'x'; BIG])),
                key if key.starts_with(b"held") => {
                    self.waiting.fetch_add(1, Ordering::SeqCst);
                    self.gate.acquire().await.unwrap().forget();
                    Ok(Outcome::found(key))
                }
                key => Ok(Outcome::found(key)),
            }
        })
    }
}

/// Larger than what is gathered, and than what a socket takes at once.
const BIG: usize = 3_000_000;

/// A front with the group `g`, and what is behind it.
struct Front {
    address: SocketAddr,
    serving: Option<Serving>,
    origin: Arc<Origin>,
    metrics: Metrics,
    groups: Arc<Groups>,
    runtime: Runtime,
}

fn settings() -> config::Http {
    config::Http {
        listen: "127.0.0.1:0".parse().unwrap(),
        threads: 2,
        connections_max: 100,
        drain_timeout: PATIENCE,
        ..config::Http::default()
    }
}

impl Front {
    fn start() -> Self {
        Self::with(&settings())
    }

    fn with(settings: &config::Http) -> Self {
        let runtime = Runtime::new().unwrap();
        let origin = Arc::new(Origin { gate: Gate::new(0), waiting: AtomicUsize::new(0) });
        let (groups, metrics) = (Arc::new(Groups::default()), Metrics::new());
        let caching = Caching { value_max: ByteSize::mib(8), ..Caching::default() };
        let getter = Arc::clone(&origin) as Arc<dyn Getter>;
        let group = Group::new("g", caching, getter, runtime.handle().clone(), metrics.group("g"));
        groups.replace([group]);
        let front = HttpFront::bind(settings).unwrap();
        let address = front.local_addr();
        let serving = Some(front.serve(&groups, &metrics).unwrap());
        Self { address, serving, origin, metrics, groups, runtime }
    }

    fn connect(&self) -> Client {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Client { socket, unread: Vec::new() }
    }

    /// One request on a connection of its own.
    fn ask(&self, method: &str, target: &str) -> Reply {
        self.connect().ask(method, target, "")
    }

    fn wait(&self, what: &str, mut until: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !until(self) {
            assert!(Instant::now() < deadline, "never happened: {what}");
            std::thread::yield_now();
        }
    }
}

/// A client that reads replies as they are written.
struct Client {
    socket: TcpStream,
    unread: Vec<u8>,
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).unwrap();
    }

    fn ask(&mut self, method: &str, target: &str, headers: &str) -> Reply {
        self.send(format!("{method} {target} HTTP/1.1\r\nhost: test\r\n{headers}\r\n"));
        self.reply(method == "HEAD")
    }

    /// The next reply; without a body if it answers a HEAD.
    fn reply(&mut self, is_head: bool) -> Reply {
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more(), "no reply but the end after {:?}", self.unread);
        };
        let head = String::from_utf8(self.unread.drain(..end).collect()).unwrap();
        let status = head[9..12].parse().unwrap();
        let mut reply = Reply { status, head, body: Vec::new() };
        let length: usize = reply.header("content-length").map_or(0, |text| text.parse().unwrap());
        if !is_head {
            while self.unread.len() < length {
                assert!(self.more(), "the end within a body");
            }
            reply.body = self.unread.drain(..length).collect();
        }
        reply
    }

    /// Reads on; `false` at the end.
    fn more(&mut self) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        match self.socket.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.unread.extend_from_slice(&buffer[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads until the other side closes.
    fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.unread)
    }
}

#[test]
fn odd_keys_reach_the_getter_and_come_back_exact() {
    let front = Front::start();
    let mut client = front.connect();
    for (target, key) in [
        ("/g/a//b", &b"a//b"[..]),
        ("/g/../x", b"../x"),
        ("/g//lead", b"/lead"),
        ("/g/a%20b", b"a b"),
        ("/g/a+b", b"a+b"),
        ("/g/%2F", b"/"),
        ("/g/%252F", b"%2F"),
        ("/g/%00%ff", b"\0\xff"),
        ("http://elsewhere.example/g/abs", b"abs"),
        ("/g/", b""),
    ] {
        for outcome in ["fwd=miss; stored", "hit; ttl="] {
            let reply = client.ask("GET", target, "");
            assert_eq!((reply.status, &*reply.body), (200, key), "{target}");
            let status = reply.header("cache-status").unwrap();
            assert!(status.starts_with(&format!("cachecluster; {outcome}")), "{status}");
        }
    }
}

#[test]
fn a_hit_is_described_and_validates() {
    let front = Front::start();
    let mut client = front.connect();
    client.ask("GET", "/g/page", "");
    let hit = client.ask("GET", "/g/page", "");
    assert_eq!(hit.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(hit.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(hit.header("age"), Some("0"));
    assert!(hit.header("date").is_some());
    let etag = hit.header("etag").unwrap();

    let known = client.ask("GET", "/g/page", &format!("if-none-match: W/\"x\", {etag}\r\n"));
    assert_eq!((known.status, known.header("etag")), (304, Some(etag)));
    assert!(known.header("content-type").is_none());
    let other = client.ask("GET", "/g/page", "if-none-match: \"x\"\r\n");
    assert_eq!((other.status, other.text()), (200, "<p>"));

    let head = client.ask("HEAD", "/g/page", "");
    assert_eq!((head.status, head.header("content-length")), (200, Some("3")));
    assert_eq!(head.header("etag"), Some(etag));
    // Nothing of a body stands before the next reply.
    assert_eq!(client.ask("GET", "/g/plain", "").text(), "plain");
    let plain = client.ask("GET", "/g/plain", "");
    assert_eq!(plain.header("content-type"), Some("application/octet-stream"));
    assert_eq!(client.ask("GET", "/g/nothing", "").header("content-length"), Some("0"));
}

#[test]
fn a_reply_reads_the_same_whichever_way_it_took() {
    let front = Front::start();
    let mut client = front.connect();
    let sorted = |reply: &Reply| {
        let mut lines: Vec<_> = reply.head.lines().map(str::to_owned).collect();
        lines.retain(|line| !line.starts_with("date") && !line.starts_with("cache-status"));
        lines.sort();
        (lines, reply.body.clone())
    };
    for key in ["page", "plain", "nothing", "absent", "down", "big"] {
        let target = format!("/g/{key}");
        // A header that changes nothing, and is left to hyper.
        let slowly = "connection: keep-alive\r\n";
        let missed = ["", slowly].map(|headers| {
            client.ask("DELETE", &target, "");
            client.ask("GET", &target, headers)
        });
        for reply in &missed {
            let status = reply.header("cache-status").unwrap();
            assert!(status.starts_with("cachecluster; fwd=miss"), "{status}");
        }
        assert_eq!(sorted(&missed[0]), sorted(&missed[1]), "{key}");
        let quick = client.ask("GET", &target, "");
        let slow = client.ask("GET", &target, slowly);
        assert_eq!(sorted(&quick), sorted(&slow), "{key}");
        for reply in [quick, slow] {
            let status = reply.header("cache-status").unwrap();
            assert!(status.starts_with("cachecluster; hit; "), "{status}");
            assert!(reply.header("date").is_some_and(|date| date.ends_with(" GMT")));
        }
    }
}

#[test]
fn quick_and_slow_requests_take_turns_on_one_connection() {
    let front = Front::start();
    let mut client = front.connect();
    client.ask("GET", "/g/k", "");
    client.ask("GET", "/g/big", "");
    let round = "GET /g/k HTTP/1.1\r\n\r\n\
                 HEAD /g/k HTTP/1.1\r\n\r\n\
                 GET /g/big HTTP/1.1\r\n\r\n\
                 GET /g/k HTTP/1.1\r\n\r\n\
                 GET /g/big HTTP/1.1\r\nif-none-match: \"x\"\r\n\r\n\
                 GET /g/absent HTTP/1.1\r\n\r\n\
                 GET /other/k HTTP/1.1\r\n\r\n\
                 GET /g/a#b HTTP/1.1\r\n\r\n\
                 DELETE /g/gone HTTP/1.1\r\n\r\n";
    let rounds = round.repeat(3);
    let (first, second) = rounds.split_at(rounds.len() / 2 + 5);
    let mut sender = client.socket.try_clone().unwrap();
    let (first, second) = (first.to_owned(), second.to_owned());
    let sending = std::thread::spawn(move || {
        sender.write_all(first.as_bytes()).unwrap();
        sender.write_all(second.as_bytes()).unwrap();
    });
    for _ in 0..3 {
        assert_eq!(client.reply(false).text(), "k");
        assert_eq!(client.reply(true).header("content-length"), Some("1"));
        assert_eq!(client.reply(false).body.len(), BIG);
        assert_eq!(client.reply(false).text(), "k");
        assert_eq!(client.reply(false).body.len(), BIG);
        for status in [404, 404, 400, 204] {
            assert_eq!(client.reply(false).status, status);
        }
    }
    sending.join().unwrap();
}

#[test]
fn a_request_may_arrive_in_any_pieces() {
    let front = Front::start();
    let mut client = front.connect();
    client.ask("GET", "/g/k", "");
    let long = format!("x: {}\r\n", "v".repeat(12_000));
    for headers in ["", "accept: */*\r\n", &long] {
        let request = format!("GET /g/k HTTP/1.1\r\n{headers}\r\n");
        for at in [1, 4, 13, 17, 18, request.len() - 2, request.len() - 1] {
            client.send(&request[..at]);
            client.send(&request[at..]);
            client.send(&request);
            assert_eq!(client.reply(false).text(), "k");
            assert_eq!(client.reply(false).text(), "k");
        }
    }
}

#[test]
fn a_deleted_key_is_filled_anew() {
    let front = Front::start();
    let mut client = front.connect();
    client.ask("GET", "/g/k", "");
    let gone = client.ask("DELETE", "/g/k", "");
    assert_eq!((gone.status, gone.body.len()), (204, 0));
    let again = client.ask("GET", "/g/k", "");
    assert_eq!(again.header("cache-status"), Some("cachecluster; fwd=miss; stored"));
}

#[test]
fn errors_are_problem_documents_with_their_status() {
    let settings = config::Http { request_timeout: Duration::from_millis(50), ..settings() };
    let front = Front::with(&settings);
    let mut client = front.connect();
    for (method, target, status, kind) in [
        ("GET", "/", 404, "not-a-key"),
        ("GET", "/g", 404, "not-a-key"),
        ("GET", "/other/k", 404, "unknown-group"),
        ("GET", "/g/absent", 404, "key-not-found"),
        ("GET", "/g/invalid", 400, "invalid-key"),
        ("GET", "/g/denied", 403, "denied"),
        ("GET", "/g/down", 503, "origin-unavailable"),
        ("GET", "/g/broken", 502, "getter-failed"),
        ("GET", "/g/stuck", 504, "deadline"),
        ("GET", "/g/k?", 400, "invalid-path"),
        ("GET", "/g/%zz", 400, "invalid-path"),
        ("PATCH", "/g/k", 405, "method-not-allowed"),
        ("OPTIONS", "*", 405, "method-not-allowed"),
    ] {
        let reply = client.ask(method, target, "");
        assert_eq!(reply.status, status, "{method} {target}: {reply:?}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        let problem: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(problem["type"], format!("urn:cachecluster:problem:{kind}"), "{target}");
        assert_eq!(problem["status"], status);
        assert_eq!(reply.header("retry-after").is_some(), status >= 503, "{target}");
        assert_eq!(reply.header("allow").is_some(), status == 405, "{target}");
    }
    let absent = client.ask("GET", "/g/absent", "");
    assert!(absent.header("cache-status").unwrap().starts_with("cachecluster; hit; ttl="));
    let down = client.ask("GET", "/g/down", "");
    assert_eq!(down.header("cache-status"), Some("cachecluster; hit; detail=failure"));
    let head = client.ask("HEAD", "/g/absent", "");
    assert!(head.header("content-length").is_some_and(|length| length != "0"));
    assert_eq!(client.ask("GET", "/g/k", "").status, 200);
}

#[test]
fn pipelined_replies_come_in_order_and_large_ones_whole() {
    let front = Front::start();
    let mut client = front.connect();
    client.ask("GET", "/g/big", "");
    let targets: Vec<_> =
        (0..40).map(|n| format!("/g/k{n}")).chain(["/g/big".to_owned()]).collect();
    for _ in 0..2 {
        for target in &targets {
            client.send(format!("GET {target} HTTP/1.1\r\n\r\n"));
        }
        for target in &targets {
            let reply = client.reply(false);
            assert_eq!(reply.status, 200);
            match target.as_str() {
                "/g/big" => assert_eq!(reply.body.len(), BIG),
                target => assert_eq!(reply.text(), &target[3..]),
            }
        }
    }
}

#[test]
fn a_reply_that_is_there_waits_for_the_one_before_it() {
    let front = Front::start();
    let mut client = front.connect();
    client.ask("GET", "/g/k", "");
    client.send("GET /g/held HTTP/1.1\r\n\r\nGET /g/k HTTP/1.1\r\n\r\nHEAD /g/k HTTP/1.1\r\n\r\n");
    front.wait("the fill", |front| front.origin.waiting.load(Ordering::SeqCst) == 1);
    front.origin.gate.add_permits(1);
    assert_eq!(client.reply(false).text(), "held");
    assert_eq!(client.reply(false).text(), "k");
    assert_eq!(client.reply(true).status, 200);
}

#[test]
fn a_reply_does_not_wait_for_the_request_behind_it() {
    let front = Front::start();
    let mut client = front.connect();
    // Half a request behind a whole one, and then a miss that is held back.
    client.send("GET /g/one HTTP/1.1\r\n\r\nGET /g/two HT");
    assert_eq!(client.reply(false).text(), "one");
    client.send("TP/1.1\r\n\r\nGET /g/held HTTP/1.1\r\n\r\nGET /g/three HTTP/1.1\r\n\r\n");
    assert_eq!(client.reply(false).text(), "two");
    front.origin.gate.add_permits(1);
    assert_eq!(client.reply(false).text(), "held");
    assert_eq!(client.reply(false).text(), "three");
}

#[test]
fn callers_of_one_fill_are_told_so() {
    let front = Front::start();
    let (mut one, mut other) = (front.connect(), front.connect());
    one.send("GET /g/held HTTP/1.1\r\n\r\n");
    front.wait("the fill", |front| front.origin.waiting.load(Ordering::SeqCst) == 1);
    other.send("GET /g/held HTTP/1.1\r\n\r\n");
    let collapsed = r#"gets_total{group="g",outcome="collapsed"} 1"#;
    front.wait("the second caller", |front| front.metrics.encode().contains(collapsed));
    front.origin.gate.add_permits(1);
    assert_eq!(one.reply(false).header("cache-status"), Some("cachecluster; fwd=miss; stored"));
    assert_eq!(
        other.reply(false).header("cache-status"),
        Some("cachecluster; fwd=miss; collapsed; stored")
    );
}

#[test]
fn requests_beyond_the_limits_are_refused() {
    let settings = config::Http {
        headers_max: ByteSize::bytes(1_000),
        url_max: ByteSize::bytes(100),
        ..settings()
    };
    let front = Front::with(&settings);
    assert_eq!(front.ask("GET", &format!("/g/{}", "k".repeat(97))).status, 200);
    assert_eq!(front.ask("GET", &format!("/g/{}", "k".repeat(98))).status, 414);
    let header = |length| format!("x: {}\r\n", "v".repeat(length));
    assert_eq!(front.connect().ask("GET", "/g/k", &header(900)).status, 200);
    assert_eq!(front.connect().ask("GET", "/g/k", &header(1_100)).status, 431);
    assert_eq!(front.connect().ask("GET", "/g/k", &header(9_000)).status, 431);
    let many = "x: y\r\n".repeat(101);
    assert_eq!(front.connect().ask("GET", "/g/k", &many).status, 431);
}

#[test]
fn request_bodies_are_refused_and_end_the_connection() {
    let front = Front::start();
    for (method, headers, status) in [
        ("GET", "content-length: 4\r\n", 413),
        ("DELETE", "transfer-encoding: chunked\r\n", 413),
        ("POST", "content-length: 4\r\n", 405),
        // Told before it sends anything.
        ("GET", "content-length: 99999999\r\nexpect: 100-continue\r\n", 413),
    ] {
        let mut client = front.connect();
        client.send(format!("{method} /g/k HTTP/1.1\r\n{headers}\r\n"));
        if headers == "content-length: 4\r\n" {
            client.send("body");
        } else if !headers.contains("expect") {
            client.send("4\r\nbody\r\n0\r\n\r\n");
        }
        let reply = client.reply(false);
        assert_eq!(
            (reply.status, reply.header("connection")),
            (status, Some("close")),
            "{headers}"
        );
        assert_eq!(client.rest(), b"");
    }
    assert_eq!(front.connect().ask("GET", "/g/k", "content-length: 0\r\n").status, 200);
}

#[test]
fn a_client_that_sends_its_headers_too_slowly_is_cut_off() {
    let settings = config::Http { header_timeout: Duration::from_millis(50), ..settings() };
    let front = Front::with(&settings);
    let mut slow = front.connect();
    slow.send("GET /g/k HTTP/1.1\r\n");
    assert_eq!(slow.rest(), b"");
    // The time runs from the first byte of a request, not from the last of the one before.
    let mut client = front.connect();
    client.ask("GET", "/g/k", "");
    client.send("GET /g/k HTTP/1.1\r\n");
    assert_eq!(client.rest(), b"");
}

#[test]
fn an_idle_connection_is_closed() {
    let settings = config::Http { idle_timeout: Duration::from_millis(50), ..settings() };
    let front = Front::with(&settings);
    assert_eq!(front.connect().rest(), b"");
    let mut client = front.connect();
    client.ask("GET", "/g/k", "");
    assert_eq!(client.rest(), b"");
    front.wait("both gone", |front| {
        front.metrics.encode().contains("cachecluster_http_connections 0")
    });
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let settings = config::Http { idle_timeout: Duration::from_millis(200), ..settings() };
    let front = Front::with(&settings);
    let mut client = front.connect();
    // More than the sockets of both sides hold.
    client.send("GET /g/big HTTP/1.1\r\n\r\n".repeat(20));
    front.wait("the connection", |front| {
        front.metrics.encode().contains("cachecluster_http_connections 1")
    });
    front.wait("its end", |front| {
        front.metrics.encode().contains("cachecluster_http_connections 0")
    });
    assert!(client.rest().len() < 20 * BIG);
}

#[test]
fn one_connection_too_many_waits_for_another_to_end() {
    for threads in [1, 4] {
        let front = Front::with(&config::Http { threads, connections_max: 2, ..settings() });
        let mut first = front.connect();
        let mut second = front.connect();
        assert_eq!(first.ask("GET", "/g/k", "").status, 200);
        assert_eq!(second.ask("GET", "/g/k", "").status, 200);
        let mut third = front.connect();
        third.send("GET /g/k HTTP/1.1\r\n\r\n");
        assert_eq!(first.ask("GET", "/g/k", "").status, 200);
        third.socket.set_nonblocking(true).unwrap();
        let early = third.socket.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(early, Err(ErrorKind::WouldBlock));
        third.socket.set_nonblocking(false).unwrap();
        drop(first);
        assert_eq!(third.reply(false).status, 200);
    }
}

#[test]
fn a_client_may_close_its_side_and_still_be_answered() {
    let front = Front::start();
    let mut client = front.connect();
    client.send("GET /g/held HTTP/1.0\r\n\r\n");
    client.socket.shutdown(Shutdown::Write).unwrap();
    front.wait("the fill", |front| front.origin.waiting.load(Ordering::SeqCst) == 1);
    front.origin.gate.add_permits(1);
    assert!(client.rest().ends_with(b"\r\n\r\nheld"));
}

#[test]
fn a_drain_answers_what_was_begun_and_takes_nothing_new() {
    let mut front = Front::start();
    let (mut idle, mut busy) = (front.connect(), front.connect());
    idle.ask("GET", "/g/k", "");
    busy.send("GET /g/held HTTP/1.1\r\n\r\n");
    front.wait("the fill", |front| front.origin.waiting.load(Ordering::SeqCst) == 1);
    let drain = front.runtime.spawn(front.serving.take().unwrap().drain());
    // Closed at once, while the other still waits.
    assert_eq!(idle.rest(), b"");
    front.wait("the listeners closed", |front| TcpStream::connect(front.address).is_err());
    assert!(!drain.is_finished());
    front.origin.gate.add_permits(1);
    let reply = busy.reply(false);
    assert_eq!((reply.text(), reply.header("connection")), ("held", Some("close")));
    assert_eq!(busy.rest(), b"");
    assert_eq!(front.runtime.block_on(drain).unwrap(), 0);
}

#[test]
fn a_drain_cuts_what_does_not_end_in_time() {
    let settings = config::Http { drain_timeout: Duration::from_millis(50), ..settings() };
    let mut front = Front::with(&settings);
    let mut busy = front.connect();
    busy.send("GET /g/held HTTP/1.1\r\n\r\n");
    front.wait("the fill", |front| front.origin.waiting.load(Ordering::SeqCst) == 1);
    let serving = front.serving.take().unwrap();
    assert_eq!(front.runtime.block_on(serving.drain()), 1);
    assert_eq!(busy.rest(), b"");
}

#[test]
fn a_second_node_is_told_that_the_address_is_taken() {
    let front = Front::start();
    let settings = config::Http { listen: front.address, ..settings() };
    let error = HttpFront::bind(&settings).unwrap_err().to_string();
    assert!(error.contains("([http] listen): address already in use; "), "{error}");
}

#[test]
fn a_restarted_node_takes_its_address_back_at_once() {
    let mut front = Front::start();
    let mut client = front.connect();
    client.ask("GET", "/g/k", "");
    drop(front.serving.take());
    let settings = config::Http { listen: front.address, ..settings() };
    let again = HttpFront::bind(&settings).unwrap().serve(&front.groups, &front.metrics).unwrap();
    assert_eq!(front.ask("GET", "/g/k").status, 200);
    drop(again);
}

#[test]
fn requests_are_counted_by_class() {
    let front = Front::start();
    let mut client = front.connect();
    for target in ["/g/k", "/g/k", "/nowhere/k"] {
        client.ask("GET", target, "");
    }
    let text = front.metrics.encode();
    for (class, count) in [("2xx", 2), ("4xx", 1)] {
        let line =
            format!(r#"http_requests_total{{surface="http",status_class="{class}"}} {count}"#);
        assert!(text.contains(&line), "{text}");
    }
}
