//! Origins that send too much, too slowly or nothing at all, and plugins that ask too
//! much at once.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt as _, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::{Barrier, Notify},
    time::timeout,
};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::{
    DICT, body,
    caller::{Caller, PATIENCE, get, loopback},
    dict, origin, server,
};
use crate::{
    config::{ByteSize, Network},
    plugin::tests::guest::{Bench, guest, number},
};

/// An origin that sends `head` and then `more`, again and again until nobody listens;
/// and what tells that nobody does.
async fn endless(head: &'static str, more: &'static str) -> (SocketAddr, Arc<Notify>) {
    let gone = Arc::new(Notify::new());
    let noticed = Arc::clone(&gone);
    let address = server(move |mut stream| {
        let gone = Arc::clone(&gone);
        async move {
            if read_head(&mut stream).await && stream.write_all(head.as_bytes()).await.is_ok() {
                while stream.write_all(more.as_bytes()).await.is_ok() {
                    tokio::task::yield_now().await;
                }
            }
            gone.notify_one();
        }
    })
    .await;
    (address, noticed)
}

async fn read_head(stream: &mut BufReader<TcpStream>) -> bool {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
            return false;
        }
    }
    true
}

fn network(address: SocketAddr) -> (String, Network) {
    let url = format!("http://{address}");
    let network = Network { response_max: ByteSize::kib(64), ..loopback(&[&url]) };
    (url, network)
}

#[tokio::test]
async fn a_body_without_an_end_is_cut_at_its_bound_with_its_connection() {
    let chunk = "1000\r\nxxxxxxxxxxxxxxxx\r\n";
    let large: &'static str =
        Box::leak(chunk.replace("xxxxxxxxxxxxxxxx", &"x".repeat(0x1000)).into_boxed_str());
    for (head, more) in [
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", large),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n", large),
        ("HTTP/1.0 200 OK\r\n\r\n", large),
    ] {
        let (address, gone) = endless(head, more).await;
        let (url, network) = network(address);
        let cut = Caller::new(&network).get(&format!("{url}/")).await;
        assert!(matches!(cut, Err(Error::HttpResponseBodySize(_))), "{head}: {cut:?}");
        gone.notified().await;
    }
}

#[tokio::test]
async fn a_body_that_nobody_reads_stays_with_its_origin() {
    let stalled = Arc::new(Notify::new());
    let noticed = Arc::clone(&stalled);
    let address = server(move |mut stream| {
        let stalled = Arc::clone(&stalled);
        async move {
            let head = b"HTTP/1.0 200 OK\r\n\r\n";
            if read_head(&mut stream).await && stream.write_all(head).await.is_ok() {
                // Until nobody takes any more, for far longer than a busy machine needs.
                let more = vec![b'x'; 1 << 16];
                let taken = Duration::from_millis(500);
                while timeout(taken, stream.write_all(&more)).await.is_ok_and(|it| it.is_ok()) {}
                stalled.notify_one();
                // Who goes without having read is heard of.
                while stream.write_all(&more).await.is_ok() {}
                stalled.notify_one();
            }
        }
    })
    .await;
    let url = format!("http://{address}");
    let mut caller = Caller::new(&loopback(&[&url]));
    let request = get(&format!("{url}/")).expect("a request");
    let response = caller.send(request, None).await.expect("a head");
    timeout(PATIENCE, noticed.notified()).await.expect("a host that takes in no more");
    drop(response);
    timeout(PATIENCE, noticed.notified()).await.expect("an end");
}

#[tokio::test]
async fn a_head_without_an_end_is_cut_at_its_bound() {
    for (head, more) in [
        ("HTTP/1.1 200 OK\r\n", "X-Header: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n"),
        ("HTTP/1.1 200 OK\r\nX: ", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        ("HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n"),
    ] {
        let (address, gone) = endless(head, more).await;
        let (url, network) = network(address);
        let mut caller = Caller::new(&network).within(Duration::from_secs(2));
        let cut = caller.get(&format!("{url}/")).await;
        assert!(
            matches!(
                cut,
                Err(Error::HttpResponseHeaderSectionSize(_)
                    | Error::HttpResponseTimeout
                    | Error::HttpProtocolError)
            ),
            "{head}: {cut:?}"
        );
        gone.notified().await;
    }
}

#[tokio::test]
async fn an_origin_that_trickles_its_head_has_until_the_deadline() {
    let gone = Arc::new(Notify::new());
    let noticed = Arc::clone(&gone);
    let address = server(move |mut stream| {
        let gone = Arc::clone(&gone);
        async move {
            read_head(&mut stream).await;
            let mut trickle = b"HTTP/1.1 200 OK\r\nX: ".iter().chain([b'x'].iter().cycle());
            while let Some(byte) = trickle.next()
                && stream.write_all(&[*byte]).await.is_ok()
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            gone.notify_one();
        }
    })
    .await;
    let (url, network) = network(address);
    let mut caller = Caller::new(&network).within(Duration::from_millis(300));
    let late = caller.get(&format!("{url}/")).await;
    assert!(matches!(late, Err(Error::HttpResponseTimeout)), "{late:?}");
    noticed.notified().await;

    let options = RequestOptions {
        connect_timeout: Some(Duration::from_millis(50)),
        first_byte_timeout: Some(Duration::from_millis(50)),
        between_bytes_timeout: None,
    };
    let mut patient = Caller::new(&network);
    let request = get(&format!("{url}/")).expect("a request");
    let late = patient.send(request, Some(options)).await.map(|_| ());
    assert!(matches!(late, Err(Error::HttpResponseTimeout)), "the guest's own bound: {late:?}");
    noticed.notified().await;
}

#[tokio::test]
async fn a_body_is_passed_on_as_it_came() {
    // Not even gzip: it only says so.
    let address = server(async |mut stream| {
        read_head(&mut stream).await;
        let answer =
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\0";
        stream.write_all(answer).await.ok();
    })
    .await;
    let (url, network) = network(address);
    let response = Caller::new(&network).get(&format!("{url}/")).await.expect("an answer");
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert_eq!(response.body(), &b"\x1f\x8b\x08\0"[..]);
}

/// A port of loopback that answers no connection: its queue is full. With the listener
/// and the connections that fill it.
async fn black_hole() -> (SocketAddr, impl Drop) {
    struct Held(#[expect(dead_code, reason = "held")] (socket2::Socket, Vec<TcpStream>));
    impl Drop for Held {
        fn drop(&mut self) {}
    }
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
    socket.listen(0).expect("listening");
    let address = socket.local_addr().expect("bound").as_socket().expect("an address");
    let mut held = Vec::new();
    let connect = || tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address));
    while let Ok(stream) = connect().await {
        held.push(stream.expect("connected"));
    }
    (address, Held((socket, held)))
}

#[tokio::test]
async fn a_host_that_swallows_packets_costs_no_more_than_the_guest_allows() {
    let (address, _held) = black_hole().await;
    let (url, network) = network(address);
    let request = || get(&format!("{url}/")).expect("a request");
    let hasty = RequestOptions {
        connect_timeout: Some(Duration::from_millis(100)),
        first_byte_timeout: None,
        between_bytes_timeout: None,
    };
    let mut caller = Caller::new(&network);
    let swallowed = caller.send(request(), Some(hasty)).await.map(|_| ());
    assert!(matches!(swallowed, Err(Error::ConnectionTimeout)), "{swallowed:?}");
    let mut caller = Caller::new(&network).within(Duration::from_millis(100));
    let swallowed = caller.send(request(), None).await.map(|_| ());
    assert!(
        matches!(swallowed, Err(Error::ConnectionTimeout | Error::HttpResponseTimeout)),
        "{swallowed:?}"
    );
}

#[tokio::test]
async fn a_plugin_has_so_many_connections_and_its_requests_wait_for_them() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let full = Arc::new(Barrier::new(4));
    let (seen, together) = (Arc::clone(&most), Arc::clone(&full));
    let address = server(move |mut stream| {
        let (now, most, full) = (Arc::clone(&now), Arc::clone(&seen), Arc::clone(&together));
        async move {
            while read_head(&mut stream).await {
                most.fetch_max(now.fetch_add(1, Relaxed) + 1, Relaxed);
                // Nobody is answered before as many as may be are there.
                full.wait().await;
                now.fetch_sub(1, Relaxed);
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                if stream.write_all(answer).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let (url, network) = network(address);
    let network = Network { connections_max: 4, ..network };
    let first = Caller::new(&network);
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let (mut caller, url) = (Caller::of(Arc::clone(&first.egress)), format!("{url}/"));
            tokio::spawn(async move { caller.get(&url).await.map(|response| response.status()) })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.expect("no panic").expect("an answer"), 200);
    }
    assert_eq!(most.load(Relaxed), 4);
    assert!(first.egress.idle_connections() <= 4);
}

#[tokio::test]
async fn a_request_that_finds_no_place_by_its_deadline_says_which_setting() {
    let (address, _gone) = endless("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "").await;
    let (url, network) = network(address);
    let network = Network { connections_max: 1, ..network };
    let mut first = Caller::new(&network);
    let held = first.send(get(&url).expect("a request"), None).await.expect("a head");
    let mut second = Caller::of(Arc::clone(&first.egress)).within(Duration::from_millis(100));
    let refused = second.get(&url).await;
    assert!(matches!(refused, Err(Error::ConnectionLimitReached)), "{refused:?}");
    let note = second.note();
    assert!(note.contains("connections_max"), "{note}");
    drop(held);
    let request = get(&url).expect("a request");
    second.within(PATIENCE).send(request, None).await.expect("the place is free again");
}

#[tokio::test]
async fn requests_have_a_rate() {
    let (url, network) = network(origin().await);
    let network = Network { requests_per_second: 1, requests_burst: 3, ..network };
    let mut caller = Caller::new(&network).within(Duration::from_millis(500));
    let url = format!("{url}/key");
    for _ in 0..3 {
        caller.get(&url).await.expect("the burst");
    }
    let refused = caller.get(&url).await;
    assert!(matches!(refused, Err(Error::ConnectionLimitReached)), "{refused:?}");
    let note = caller.note();
    assert!(note.contains("requests_per_second"), "{note}");
    caller.within(PATIENCE).get(&url).await.expect("it waits where there is time");
}

/// Makes as many sockets as the key is long, keeps or drops them, and counts those it got.
fn sockets(drops: bool) -> crate::plugin::tests::guest::Guest {
    let drop = if drops { "(call $drop-socket (i32.load (i32.const 260)))" } else { "" };
    guest(&format!(
        "(local $n i64)
         (block $full
           (loop $next
             (br_if $full (i32.eqz (local.get $len)))
             (local.set $len (i32.sub (local.get $len) (i32.const 1)))
             (call $socket (i32.const 0) (i32.const 256))
             (br_if $full (i32.load8_u (i32.const 256)))
             (local.set $n (i64.add (local.get $n) (i64.const 1)))
             {drop}
             (br $next)))
         (call $found-number (local.get $n))"
    ))
    .with_sockets()
}

#[tokio::test]
async fn raw_sockets_are_bounded_over_all_instances_and_freed_with_them() {
    let bench = Bench::new();
    let ten = "0123456789";
    let kept = sockets(false);
    let keeping = bench.load_with(&kept, |p| {
        p.network.connections_max = 4;
        p.limits.instances = 1;
        p.limits.calls = 2;
    });
    let keeping = keeping.await;
    // The trial's instance serves two calls, give or take none, and the next is a new one.
    let got: Vec<_> = [number(&keeping, ten).await, number(&keeping, ten).await].into();
    assert_eq!(got, [4, 0], "what is kept is kept from the next call too");
    assert_eq!(number(&keeping, ten).await, 4, "what an instance held is free when it goes");
    let dropping = bench.load_with(&sockets(true), |p| p.network.connections_max = 1).await;
    assert_eq!(number(&dropping, ten).await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_comes_in_over_raw_tcp_is_bounded_for_each_key() {
    let bench = Bench::new();
    let flood = server(async |mut stream| {
        stream.write_all(b"220 ready <auth> <1@localhost>\r\n").await.ok();
        let mut line = String::new();
        while stream.read_line(&mut line).await.unwrap_or(0) > 0 && !line.contains("DEFINE") {
            line.clear();
            stream.write_all(b"250 ok\r\n").await.ok();
        }
        stream.write_all(b"150 1 definitions\r\n151 \"w\" db \"A database\"\r\n").await.ok();
        while stream.write_all(b"and so on, and so on, and so on, and so on\r\n").await.is_ok() {}
    })
    .await
    .to_string();
    let plugin = bench.load_bytes(DICT, |p| {
        dict(p, &flood);
        p.network.tcp = vec![flood.clone()];
        p.network.response_max = ByteSize::kib(16);
    });
    let refused = body(&plugin.await.expect("loaded"), "hello").await;
    let text = format!("{:?}", refused.expect_err("cut off"));
    assert!(text.contains("network.response_max"), "{text}");
}

/// So many chunks of a KiB, without a word on how many.
struct Chunks(usize);

impl Body for Chunks {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let left = self.0.checked_sub(1);
        self.0 = left.unwrap_or(0);
        Poll::Ready(left.map(|_| Ok(Frame::data(Bytes::from_static(&[b'x'; 1 << 10])))))
    }
}

/// An origin that answers when it has read all of a request.
async fn patient() -> SocketAddr {
    server(async |mut stream| {
        let (mut request, mut length) = (String::new(), None);
        while !request.ends_with("\r\n\r\n") {
            let begin = request.len();
            if stream.read_line(&mut request).await.unwrap_or(0) == 0 {
                return;
            }
            let said = request[begin..].to_lowercase();
            length = length.or(said.strip_prefix("content-length: ").map(|n| n.trim().parse()));
        }
        let is_read = match length {
            Some(Ok(length)) => {
                let mut body = vec![0; length];
                stream.read_exact(&mut body).await.is_ok()
            }
            _ => loop {
                let begin = request.len();
                if stream.read_line(&mut request).await.unwrap_or(0) == 0 {
                    break false;
                }
                if &request[begin..] == "0\r\n" {
                    break true;
                }
            },
        };
        if is_read {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(answer).await.ok();
        }
    })
    .await
}

#[tokio::test]
async fn a_request_is_bounded_whether_it_says_its_length_or_not() {
    let url = format!("http://{}", patient().await);
    let network = Network { request_max: ByteSize::kib(64), ..loopback(&[&url]) };
    let mut caller = Caller::new(&network);
    let chunks = |count: usize| Chunks(count).boxed_unsync();
    let whole = |size: usize| {
        Full::new(Bytes::from(vec![b'x'; size])).map_err(|never| match never {}).boxed_unsync()
    };
    let mut post = async |body: WasiBody| {
        let request = Request::post(&url).body(body).expect("a request");
        caller.send(request, None).await.map(drop)
    };
    for (what, body) in [("whole", whole(64 << 10)), ("in chunks", chunks(64))] {
        let sent = post(body).await;
        assert!(sent.is_ok(), "{what}: {sent:?}");
    }
    for (what, body) in [("whole", whole((64 << 10) + 1)), ("in chunks", chunks(65))] {
        let cut = post(body).await;
        assert!(matches!(cut, Err(Error::HttpRequestBodySize(_))), "{what}: {cut:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_goes_out_over_raw_tcp_is_bounded_for_each_key() {
    let (bench, server) = (Bench::new(), super::dict_server().await.to_string());
    let plugin = bench.load_bytes(DICT, |p| {
        dict(p, &server);
        p.network.tcp = vec![server.clone()];
        p.network.request_max = ByteSize::bytes(512);
    });
    let plugin = plugin.await.expect("loaded");
    assert!(body(&plugin, "hello").await.is_ok());
    let refused = body(&plugin, &"w".repeat(600)).await;
    let text = format!("{:?}", refused.expect_err("cut off"));
    assert!(text.contains("network.request_max"), "{text}");
    // It is a call's own affair.
    assert!(body(&plugin, "world").await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn raw_connections_have_a_rate_too() {
    let (bench, server) = (Bench::new(), super::dict_server().await.to_string());
    let plugin = bench.load_bytes(DICT, |p| {
        dict(p, &server);
        p.network.tcp = vec![server.clone()];
        p.network.requests_per_second = 1;
        p.network.requests_burst = 2;
        p.limits.timeout = Duration::from_millis(500);
    });
    let plugin = plugin.await.expect("loaded");
    // A getter may keep its connection: instances of one call do not.
    let mut refused = Vec::new();
    for n in 0..4 {
        if let Err(error) = body(&plugin, &format!("w{n}")).await {
            refused.push(format!("{error:?}"));
        }
    }
    assert!(refused.iter().any(|text| text.contains("requests_per_second")), "{refused:?}");
}
