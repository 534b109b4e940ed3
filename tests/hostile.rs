//! Bad input to the surfaces of a node, byte by byte: whatever arrives is refused in
//! words of HTTP, costs its own connection at most, and leaves the node as it was.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    harness::{
        PATIENCE,
        client::{self, exchange},
        node::Node,
        origin::{self, Origin},
    },
    stampede,
};

const CLOSE: &str = "host: localhost\r\nconnection: close\r\n";

/// A node whose origin answers every key with `v`, and the origin.
async fn node() -> (Origin, Node) {
    let origin = Origin::start(|_| origin::ok("", b"v")).await;
    let node = stampede::node(origin.addr(), "");
    (origin, node)
}

/// The node still answers on both of its surfaces, and nothing has panicked.
async fn is_well(node: &Node) {
    let answer = node.get("/items/well").await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"v"[..]));
    assert_eq!(node.admin("/readyz").await.status, 200);
    let log = node.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// Every byte of the answers to `bytes`, until the node closes.
async fn all(addr: SocketAddr, bytes: &[u8]) -> String {
    timeout(PATIENCE, async {
        let mut stream = TcpStream::connect(addr).await.expect("a listener");
        // The node may have closed before it has read all of it.
        stream.write_all(bytes).await.ok();
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).await.ok();
        String::from_utf8_lossy(&answers).into_owned()
    })
    .await
    .unwrap_or_else(|_| panic!("still open after {:?}", String::from_utf8_lossy(bytes)))
}

/// The statuses of all answers in `text`.
fn statuses(text: &str) -> Vec<u16> {
    text.match_indices("HTTP/1.")
        .filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok())
        .collect()
}

#[tokio::test]
async fn what_is_no_request_is_a_400_and_the_end_of_its_connection() {
    let (_origin, node) = node().await;
    let long = "a".repeat(1_000);
    let requests: [&[u8]; 19] = [
        b"GET\r\n\r\n",
        b"GET /items/a\r\n\r\n",
        b"GET /items/a HTTP/9.9\r\n\r\n",
        b"GET /items/a HTTP/2.0\r\n\r\n",
        b"GET  /items/a HTTP/1.1\r\n\r\n",
        b"GET /items/a b HTTP/1.1\r\n\r\n",
        b"GET /items/\0 HTTP/1.1\r\n\r\n",
        b"GET /items/\x7f HTTP/1.1\r\n\r\n",
        b"GET /items/\xff\xfe HTTP/1.1\r\n\r\n",
        b"G\0T /items/a HTTP/1.1\r\n\r\n",
        b"GET items/a HTTP/1.1\r\n\r\n",
        b"GET http:///items/a HTTP/1.1\r\n\r\n",
        b"GET /items/a HTTP/1.1\r\nx\0y: 1\r\n\r\n",
        b"GET /items/a HTTP/1.1\r\nx: \0\r\n\r\n",
        b"GET /items/a HTTP/1.1\r\nx : 1\r\n\r\n",
        b"GET /items/a HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /items/a HTTP/1.1\r\na: 1\r\n folded\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        long.as_bytes(),
    ];
    for addr in [node.http, node.admin] {
        for request in requests {
            let request = [request, b"\r\n\r\n"].concat();
            let answers = all(addr, &request).await;
            assert_eq!(statuses(&answers), [400], "{request:?}: {answers}");
        }
        // What speaks another protocol may be left without an answer, not without an end.
        for other in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"\x16\x03\x01\x02\0\x01\0\x01\xfc"]
        {
            let answers = all(addr, &[other, &[0; 64]].concat()).await;
            assert!(matches!(statuses(&answers)[..], [] | [400]), "{other:?}: {answers}");
        }
    }
    is_well(&node).await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_held() {
    let (_origin, node) = node().await;
    let path = |length| format!("GET /items/{} HTTP/1.1\r\n{CLOSE}\r\n", "a".repeat(length));
    let header =
        |length| format!("GET /items/a HTTP/1.1\r\nx: {}\r\n{CLOSE}\r\n", "a".repeat(length));
    let many = format!("GET /items/a HTTP/1.1\r\n{}{CLOSE}\r\n", "x: 1\r\n".repeat(200));
    for (request, status) in [
        (path(8_000), 200),
        (path(9_000), 414),
        (header(15_000), 200),
        (header(17_000), 431),
        (header(60_000), 431),
        (many, 431),
    ] {
        let answer = exchange(node.http, request.as_bytes()).await;
        assert_eq!(answer.status, status, "{} bytes: {}", request.len(), answer.text());
    }
    for endless in [path(4 << 20), header(4 << 20)] {
        let answers = all(node.http, endless.as_bytes()).await;
        assert!(matches!(statuses(&answers)[..], [] | [414 | 431]), "{answers}");
    }
    is_well(&node).await;
}

#[tokio::test]
async fn a_refusal_is_a_problem_that_says_what_would_be_right() {
    let (_origin, node) = node().await;
    for (line, status, said) in [
        ("GET /items/%zz", 400, "%"),
        ("GET /items/%2", 400, "%"),
        ("GET /items/%", 400, "%"),
        ("GET /items/%FF", 400, "UTF-8"),
        ("GET /items/a?q=1", 400, "%3F"),
        ("GET /items/a#f", 400, "%23"),
        ("GET /nothing/a", 404, "nothing"),
        ("GET //items/a", 404, "group"),
        ("GET /items", 404, "group"),
        ("GET /", 404, "group"),
        ("GET items:80", 404, "group"),
        ("BREW /items/a", 405, "GET"),
        ("get /items/a", 405, "GET"),
        ("POST /items/a", 405, "GET"),
        ("TRACE /items/a", 405, "GET"),
        ("OPTIONS *", 405, "GET"),
        ("CONNECT items:80", 405, "GET"),
    ] {
        let request = format!("{line} HTTP/1.1\r\n{CLOSE}\r\n");
        let answer = exchange(node.http, request.as_bytes()).await;
        assert_eq!(answer.status, status, "{line}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "application/problem+json", "{line}");
        let problem = answer.json();
        assert_eq!(problem["status"], status, "{line}");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(said), "{line}: {detail}");
        assert_eq!(answer.header("allow").is_empty(), status != 405, "{line}");
    }
    is_well(&node).await;
}

#[tokio::test]
async fn a_body_is_refused_and_never_taken_for_a_request() {
    let (origin, node) = node().await;
    let smuggled = "GET /items/smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    for (headers, body, status) in [
        ("content-length: 5", "hello", 413),
        ("content-length: 5\r\nexpect: 100-continue", "hello", 413),
        ("transfer-encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", 413),
        ("transfer-encoding: chunked", "zz\r\nhello", 413),
        ("content-length: 4\r\ntransfer-encoding: chunked", "0\r\n\r\n", 413),
        ("transfer-encoding: chunked\r\ncontent-length: 4", "0\r\n\r\n", 413),
        ("content-length: 0\r\ncontent-length: 44", "", 400),
        ("content-length: 0, 0", "", 400),
        ("content-length: -1", "", 400),
        ("content-length: +5", "hello", 400),
        ("content-length: 0x5", "hello", 400),
        ("content-length: 99999999999999999999999", "", 400),
        ("transfer-encoding: gzip", "", 400),
        ("transfer-encoding: chunked, identity", "0\r\n\r\n", 400),
        ("transfer-encoding: \x0bchunked", "0\r\n\r\n", 400),
    ] {
        for addr in [node.http, node.admin] {
            let request = format!(
                "GET /items/a HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n\r\n{body}{smuggled}"
            );
            let answers = all(addr, request.as_bytes()).await;
            assert_eq!(statuses(&answers), [status], "{headers}: {answers}");
        }
    }
    assert_eq!(origin.requests(), 0, "nobody asked for a key");
    is_well(&node).await;
}

#[tokio::test]
async fn older_and_other_forms_of_a_request_are_understood() {
    let (_origin, node) = node().await;
    for request in [
        format!("GET http://elsewhere.example/items/a HTTP/1.1\r\n{CLOSE}\r\n"),
        "GET /items/a HTTP/1.0\r\n\r\n".to_owned(),
        "GET /items/a HTTP/1.0\r\nconnection: keep-alive\r\n\r\nGET /items/a HTTP/1.0\r\n\r\n"
            .to_owned(),
        format!("\r\n\r\nGET /items/a HTTP/1.1\r\n{CLOSE}\r\n"),
        format!("GET /items/a HTTP/1.1\r\n{CLOSE}content-length: 0\r\n\r\n"),
        format!("GET /items/a HTTP/1.1\r\n{CLOSE}upgrade: h2c\r\n\r\n"),
    ] {
        let answers = all(node.http, request.as_bytes()).await;
        assert!(statuses(&answers).iter().all(|status| *status == 200), "{request}: {answers}");
        assert!(answers.ends_with("\r\n\r\nv"), "{request}: {answers}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_up_to_the_first_that_is_none() {
    let (_origin, node) = node().await;
    let requests = "GET /items/a HTTP/1.1\r\nhost: x\r\n\r\n\
                    HEAD /items/a HTTP/1.1\r\nhost: x\r\n\r\n\
                    BREW /items/a HTTP/1.1\r\nhost: x\r\n\r\n\
                    GET /items/%zz HTTP/1.1\r\nhost: x\r\n\r\n\
                    GET /items/b HTTP/1.1\r\nhost: x\r\n\r\n\
                    DELETE /items/b HTTP/1.1\r\nhost: x\r\n\r\n\
                    nonsense\r\n\r\n\
                    GET /items/a HTTP/1.1\r\nhost: x\r\n\r\n";
    let expected = [200, 200, 405, 400, 200, 204, 400];
    assert_eq!(statuses(&all(node.http, requests.as_bytes()).await), expected);

    // The same, one byte at a time.
    let mut stream = TcpStream::connect(node.http).await.expect("a listener");
    stream.set_nodelay(true).expect("a socket");
    for byte in requests.as_bytes() {
        // Closed, once the nonsense has arrived.
        if stream.write_all(std::slice::from_ref(byte)).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut answers = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answers)).await.expect("an end").ok();
    let answers = String::from_utf8_lossy(&answers);
    // A reset, for the bytes after the nonsense, may cost the last answers.
    assert!(expected.starts_with(&statuses(&answers)), "{answers}");
    is_well(&node).await;
}

#[tokio::test]
async fn who_sends_slowly_or_not_at_all_is_cut_off() {
    let node = Node::with("")
        .env("CACHECLUSTER_HTTP__HEADER_TIMEOUT", "300ms")
        .env("CACHECLUSTER_HTTP__IDLE_TIMEOUT", "1s")
        .start();
    let mut silent = TcpStream::connect(node.http).await.expect("a listener");
    let mut slow = TcpStream::connect(node.http).await.expect("a listener");
    // A byte now and then does not buy more time.
    let trickle = async {
        slow.write_all(b"GET /items/a HTTP/1.1\r\n").await.expect("to send");
        while slow.write_all(b"x: 1\r\n").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, trickle).await.expect("the slow one is cut off");
    let mut rest = Vec::new();
    timeout(PATIENCE, silent.read_to_end(&mut rest)).await.expect("so is the silent one").ok();
    assert_eq!(rest, b"");
    assert_eq!(node.get("/items/a").await.status, 404);
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_their_turn() {
    let node = Node::with("").env("CACHECLUSTER_HTTP__CONNECTIONS_MAX", "4").start();
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(node.http).await.expect("a listener");
        let request = b"GET /x/a HTTP/1.1\r\nhost: x\r\n\r\n";
        stream.write_all(request).await.expect("to send");
        let read = stream.read(&mut [0; 1_024]).await.expect("an answer");
        assert!(read > 0);
        open.push(stream);
    }
    let addr = node.http;
    let waiting: Vec<_> =
        (0..20).map(|_| tokio::spawn(async move { client::get(addr, "/x/a").await })).collect();
    assert_eq!(node.admin("/livez").await.status, 200, "operators are not kept waiting");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(waiting.iter().all(|caller| !caller.is_finished()));
    open.clear();
    for caller in waiting {
        assert_eq!(caller.await.expect("a caller").status, 404);
    }
}

#[tokio::test]
async fn the_admin_surface_refuses_pages_of_other_sites_and_odd_targets() {
    let (_origin, node) = node().await;
    let request = |line: &str, headers: &str| {
        format!("{line} HTTP/1.1\r\nconnection: close\r\n{headers}\r\n").into_bytes()
    };
    for (line, headers, status) in [
        ("GET /status", "host: rebound.example\r\n", 403),
        ("DELETE /groups/items", "host: localhost\r\norigin: https://evil.example\r\n", 403),
        ("GET /nothing", "host: localhost\r\n", 404),
        ("DELETE /groups/nothing", "host: localhost\r\n", 404),
        ("DELETE /groups/items/keys/%zz", "host: localhost\r\n", 400),
        ("POST /status", "host: localhost\r\n", 405),
        ("GET /groups/items", "host: localhost\r\n", 405),
        ("DELETE /groups/items/keys/a//b", "host: localhost\r\n", 200),
    ] {
        let answer = exchange(node.admin, &request(line, headers)).await;
        assert_eq!(answer.status, status, "{line} {headers}: {}", answer.text());
        if status != 200 {
            assert_eq!(answer.header("content-type"), "application/problem+json", "{line}");
        }
    }
    is_well(&node).await;
}
