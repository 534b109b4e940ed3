//! The first-party plugins against servers on loopback: what grants open and what
//! they leave shut.

mod bounds;
mod caller;
mod pooling;
mod ssrf;
mod tls;

use std::{net::SocketAddr, sync::Arc};

use http::HeaderValue;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::guest::{Bench, body, fill};
use crate::{
    config::{self, ByteSize},
    group::{FillError, Getter, Outcome},
    plugin::Plugin,
};

const DICT: &[u8] = include_bytes!("../../../../../plugins/dict/dict.wasm");
const HTTP: &[u8] = include_bytes!("../../../../../plugins/http/http.wasm");

/// Serves every connection on a port of loopback with `serve`.
async fn server<F: Future<Output = ()> + Send>(
    serve: impl Fn(BufReader<TcpStream>) -> F + Send + Sync + Clone + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serve = serve.clone();
            tokio::spawn(async move { serve(BufReader::new(stream)).await });
        }
    });
    address
}

/// A dictionary that defines every word but `nothing`.
async fn dict_server() -> SocketAddr {
    server(async |mut stream| {
        let mut answer = "220 ready <auth> <1@localhost>\r\n".to_owned();
        while stream.write_all(answer.as_bytes()).await.is_ok() {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            answer = match line.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["DEFINE", _, word] if !word.contains("nothing") => {
                    let word = word.trim_matches('"');
                    format!(
                        "150 1 definitions\r\n151 \"{word}\" db \"A database\"\r\n{word}: a word\r\n\
                         .\r\n250 ok\r\n"
                    )
                }
                ["DEFINE", ..] => "552 no match\r\n".to_owned(),
                ["QUIT"] => "221 bye\r\n".to_owned(),
                _ => "250 ok\r\n".to_owned(),
            };
        }
    })
    .await
}

fn dict(settings: &mut config::Plugin, server: &str) {
    settings.config.insert("server".to_owned(), server.to_owned());
    settings.limits.memory = ByteSize::mib(16);
    settings.network.allow_private = vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()];
}

fn denied(result: &Result<Vec<u8>, FillError>) {
    assert!(matches!(result, Err(FillError::Denied(_))), "{result:?}");
}

/// The dict plugin for the dictionary at `server`, which it may reach.
async fn granted_dict(bench: &Bench, server: &str) -> Arc<Plugin> {
    let loaded = bench.load_bytes(DICT, |p| {
        dict(p, server);
        p.network.tcp = vec![server.to_owned()];
    });
    loaded.await.expect("loaded")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_granted_address_is_reached_over_tcp() {
    let (bench, server) = (Bench::new(), dict_server().await.to_string());
    let plugin = granted_dict(&bench, &server).await;
    assert_eq!(body(&plugin, "hello").await, Ok(b"hello: a word\n".to_vec()));
    assert!(matches!(plugin.load(fill("nothing")).await, Ok(Outcome::NotFound(_))));
    let results = plugin.load_many(["a", "nothing", "b"].map(fill).to_vec()).await;
    assert!(
        matches!(
            results.as_slice(),
            [Ok(Outcome::Found(..)), Ok(Outcome::NotFound(_)), Ok(Outcome::Found(..))]
        ),
        "{results:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_granted_name_is_resolved_and_reached_over_tcp() {
    let (bench, port) = (Bench::new(), dict_server().await.port());
    let server = format!("localhost:{port}");
    let plugin = granted_dict(&bench, &server).await;
    assert_eq!(body(&plugin, "hello").await, Ok(b"hello: a word\n".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_its_grant_a_server_is_out_of_reach() {
    let (bench, server) = (Bench::new(), dict_server().await);
    let (literal, name) = (server.to_string(), format!("localhost:{}", server.port()));
    let grants: [(&str, &[&str], bool); 5] = [
        (&literal, &[], true),
        (&literal, &["127.0.0.1:1"], true),
        (&literal, &[&literal], false),
        (&name, &["dict.example:2628"], true),
        (&name, &[&name], false),
    ];
    for (server, tcp, private) in grants {
        let plugin = bench
            .load_bytes(DICT, |p| {
                dict(p, server);
                p.network.tcp = tcp.iter().map(ToString::to_string).collect();
                if !private {
                    p.network.allow_private.clear();
                }
            })
            .await
            .expect("loaded");
        denied(&body(&plugin, "hello").await);
    }
}

/// An origin whose paths say how it behaves.
async fn origin() -> SocketAddr {
    server(async |mut stream| {
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let answer = match path.as_str() {
                "/missing" => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
                "/redirect" => "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\
                                Content-Length: 0\r\n\r\n"
                    .to_owned(),
                "/large" => format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{}",
                    "x".repeat(99_999)
                ),
                "/endless" => {
                    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
                    let mut sent = stream.write_all(head.as_bytes()).await;
                    while sent.is_ok() {
                        sent = stream.write_all(chunk.as_bytes()).await;
                    }
                    return;
                }
                "/silent" => {
                    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab";
                    if stream.write_all(head.as_bytes()).await.is_err() {
                        return;
                    }
                    // Until the other side gives up.
                    let _gone = stream.read_u8().await;
                    return;
                }
                path => format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: max-age=60\r\n\
                     Content-Length: {}\r\n\r\n{path}",
                    path.len()
                ),
            };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

fn http(settings: &mut config::Plugin, origin: &str) {
    settings.config.insert("url".to_owned(), format!("{origin}/{{key}}"));
    settings.limits.memory = ByteSize::mib(16);
    settings.network.http = vec![origin.to_owned()];
    settings.network.allow_private = vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()];
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_granted_origin_is_reached_over_http() {
    let (bench, origin) = (Bench::new(), origin().await);
    for origin in [format!("http://{origin}"), format!("http://localhost:{}", origin.port())] {
        let plugin = bench.load_bytes(HTTP, |p| http(p, &origin)).await.expect("loaded");
        match plugin.load(fill("key")).await {
            Ok(Outcome::Found(value, freshness)) => {
                assert_eq!(value.body(), b"/key");
                assert_eq!(
                    value.content_type().map(HeaderValue::as_bytes),
                    Some(&b"text/plain"[..])
                );
                assert_eq!(freshness.ttl.map(|ttl| ttl.as_secs()), Some(60));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(plugin.load(fill("missing")).await, Ok(Outcome::NotFound(_))));
        assert_eq!(body(&plugin, "k e/y").await, Ok(b"/k%20e%2Fy".to_vec()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_origin_that_is_not_granted_is_out_of_reach() {
    let (bench, server) = (Bench::new(), origin().await);
    let (literal, name) =
        (format!("http://{server}"), format!("http://localhost:{}", server.port()));
    for (origin, grants, private) in [
        (&literal, vec![], true),
        (&literal, vec!["http://127.0.0.1".to_owned()], true),
        (&literal, vec![format!("https://{server}")], true),
        (&literal, vec![literal.clone()], false),
        (&name, vec![literal.clone()], true),
        (&name, vec![name.clone()], false),
    ] {
        let plugin = bench
            .load_bytes(HTTP, |p| {
                http(p, origin);
                p.network.http.clone_from(&grants);
                if !private {
                    p.network.allow_private.clear();
                }
            })
            .await
            .expect("loaded");
        denied(&body(&plugin, "key").await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn metadata_services_are_out_of_reach_whatever_is_granted() {
    let bench = Bench::new();
    for origin in
        ["http://169.254.169.254", "http://metadata.google.internal", "http://[fd00:ec2::254]"]
    {
        let plugin = bench
            .load_bytes(HTTP, |p| {
                http(p, origin);
                p.network.allow_private = vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()];
            })
            .await
            .expect("loaded");
        denied(&body(&plugin, "key").await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_redirect_is_the_guests_to_follow() {
    let (bench, origin) = (Bench::new(), origin().await);
    let plugin =
        bench.load_bytes(HTTP, |p| http(p, &format!("http://{origin}"))).await.expect("loaded");
    match body(&plugin, "redirect").await {
        Err(FillError::Internal(text)) => assert!(text.contains("302"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_body_is_bounded_in_size_and_time() {
    let (bench, origin) = (Bench::new(), origin().await);
    let plugin = bench
        .load_bytes(HTTP, |p| {
            http(p, &format!("http://{origin}"));
            p.network.response_max = ByteSize::kib(64);
            p.limits.timeout = std::time::Duration::from_millis(500);
        })
        .await
        .expect("loaded");
    for key in ["large", "endless", "silent"] {
        let result = body(&plugin, key).await;
        assert!(result.is_err(), "{key}: {result:?}");
    }
    assert_eq!(body(&plugin, "key").await, Ok(b"/key".to_vec()));
}
