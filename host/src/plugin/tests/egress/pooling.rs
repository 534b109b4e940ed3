//! Connections that are used again, and by whom.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use http_body_util::BodyExt;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt},
    sync::Notify,
};
use wasmtime_wasi_http::Error;

use super::{
    HTTP, body,
    caller::{Caller, get, loopback},
    http, server,
};
use crate::plugin::tests::guest::Bench;

/// An origin that answers each request with the number of the connection it came over.
/// It closes a connection after the request for `/last`, and goes on silently after that
/// for `/half`.
async fn counting() -> (SocketAddr, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let address = server(move |mut stream| {
        let number = count.fetch_add(1, Relaxed) + 1;
        async move {
            loop {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let number = number.to_string();
                let length = number.len() + usize::from(head.starts_with("GET /half "));
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{number}");
                if stream.write_all(answer.as_bytes()).await.is_err()
                    || head.starts_with("GET /last ")
                {
                    return;
                }
            }
        }
    })
    .await;
    (address, connections)
}

async fn number(caller: &mut Caller, url: &str) -> String {
    let response = caller.get(url).await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
    String::from_utf8_lossy(response.body()).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_requests_take_few_connections() {
    let (bench, (address, connections)) = (Bench::new(), counting().await);
    let plugin =
        bench.load_bytes(HTTP, |p| http(p, &format!("http://{address}"))).await.expect("loaded");
    let callers = (0..4).map(|_| {
        let plugin = Arc::clone(&plugin);
        tokio::spawn(async move {
            for key in 0..750 {
                body(&plugin, &key.to_string()).await.expect("an answer");
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("no panic");
    }
    // One for each instance that was at work at the same time.
    let connections = connections.load(Relaxed);
    assert!((1..=4).contains(&connections), "{connections}");
}

#[tokio::test]
async fn a_connection_is_used_by_its_own_plugin_only() {
    let (address, _) = counting().await;
    let url = format!("http://{address}/");
    let network = loopback(&[&format!("http://{address}")]);
    let (mut one, mut other) = (Caller::new(&network), Caller::new(&network));
    assert_eq!(number(&mut one, &url).await, "1");
    assert_eq!(number(&mut other, &url).await, "2", "the first was open and of no use");
    assert_eq!(number(&mut one, &url).await, "1");
    assert_eq!(number(&mut other, &url).await, "2");
    let mut sibling = Caller::of(Arc::clone(&one.egress));
    assert_eq!(number(&mut sibling, &url).await, "1", "instances of one plugin share");
}

#[tokio::test]
async fn a_connection_is_used_for_its_own_origin_only() {
    let (address, _) = counting().await;
    let (ip, name) = (format!("http://{address}"), format!("http://localhost:{}", address.port()));
    let mut caller = Caller::new(&loopback(&[&ip, &name]));
    assert_eq!(number(&mut caller, &format!("{ip}/")).await, "1");
    assert_eq!(number(&mut caller, &format!("{name}/")).await, "2");
    assert_eq!(number(&mut caller, &format!("{ip}/")).await, "1");
}

#[tokio::test]
async fn a_connection_that_the_origin_closed_costs_no_request() {
    let (address, _) = counting().await;
    let base = format!("http://{address}");
    let mut caller = Caller::new(&loopback(&[&base]));
    for round in 1..=20_u32 {
        let expected = round.to_string();
        assert_eq!(number(&mut caller, &format!("{base}/")).await, expected);
        assert_eq!(number(&mut caller, &format!("{base}/last")).await, expected);
        // Whether the end of the connection has been noticed by now or not.
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_response_that_was_not_read_to_its_end_leaves_no_connection() {
    let (address, _) = counting().await;
    let base = format!("http://{address}");
    let mut caller = Caller::new(&loopback(&[&base]));
    let request = get(&format!("{base}/half")).expect("a request");
    let mut response = caller.send(request, None).await.expect("a head");
    let frame = response.body_mut().frame().await.expect("a frame").expect("data");
    assert_eq!(frame.into_data().expect("data"), "1");
    drop(response);
    assert_eq!(number(&mut caller, &format!("{base}/")).await, "2");
}

#[tokio::test]
async fn connections_end_with_their_generation() {
    let gone = Arc::new(Notify::new());
    let noticed = Arc::clone(&gone);
    let address = server(move |mut stream| {
        let gone = Arc::clone(&gone);
        async move {
            let mut line = String::new();
            while !matches!(line.as_str(), "\r\n") {
                line.clear();
                stream.read_line(&mut line).await.expect("a request");
            }
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            stream.write_all(answer).await.expect("sent");
            // The other side ends it.
            assert_eq!(stream.read_line(&mut line).await.unwrap_or(0), 0);
            gone.notify_one();
        }
    })
    .await;
    let url = format!("http://{address}");
    let mut caller = Caller::new(&loopback(&[&url]));
    caller.get(&format!("{url}/")).await.expect("an answer");
    assert_eq!(caller.egress.idle_connections(), 1);
    drop(caller);
    noticed.notified().await;
}

#[tokio::test]
async fn the_origin_sees_what_was_checked() {
    let address = server(async |mut stream| {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
        stream.write_all(answer.as_bytes()).await.ok();
    })
    .await;
    let url = format!("http://LOCALHOST.:{}", address.port());
    let mut caller = Caller::new(&loopback(&[&format!("http://localhost:{}", address.port())]));
    let mut request = get(&format!("{url}/a//b?c")).expect("a request");
    for (name, value) in [
        ("host", "evil.example"),
        ("metadata-flavor", "Google"),
        ("te", "trailers"),
        ("x-kept", "1"),
    ] {
        request.headers_mut().insert(name, value.parse().expect("a value"));
    }
    let response = caller.send(request, None).await.expect("an answer");
    let head = response.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(
        String::from_utf8_lossy(&head),
        format!("GET /a//b?c HTTP/1.1\r\nhost: localhost:{}\r\nx-kept: 1\r\n\r\n", address.port())
    );
    let mut connect = get(&format!("{url}/")).expect("a request");
    *connect.method_mut() = http::Method::CONNECT;
    let refused = caller.send(connect, None).await.map(|_| ());
    assert!(matches!(refused, Err(Error::HttpRequestMethodInvalid)), "{refused:?}");
}
