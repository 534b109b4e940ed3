//! Requests that try to get where they may not: by another spelling, by a name that leads
//! inside, by an answer that changes, by a redirect.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::net::TcpListener;
use wasmtime_wasi_http::Error;

use super::{
    HTTP, body,
    caller::{Caller, loopback},
    dict_server, granted_dict, origin,
};
use crate::{
    config::Network,
    group::FillError,
    plugin::{egress::script, tests::guest::Bench},
};

/// A port of loopback, and how often anybody connected to it.
async fn tripwire() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            count.fetch_add(1, Relaxed);
        }
    });
    (address, connections)
}

/// How `127.0.0.1` can be written in a URL.
fn spellings(port: u16) -> Vec<String> {
    [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "2130706433",
        "017700000001",
        "0x7f000001",
        "0X7F.1",
        "0x7f.0.0.0x1",
        "0177.0.0.01",
        "0177.0x0.0.1",
        "%31%32%37.0.0.1",
        "[::ffff:127.0.0.1]",
        "[::FFFF:7F00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
    ]
    .iter()
    .map(|host| format!("http://{host}:{port}/key"))
    .collect()
}

#[tokio::test]
async fn a_loopback_address_is_refused_however_it_is_spelt() {
    let (address, connections) = tripwire().await;
    let granted = format!("http://{address}");
    let network = Network { http: vec![granted.clone()], ..Network::default() };
    let mut closed = Caller::new(&network);
    for url in spellings(address.port()) {
        let refused = closed.get(&url).await;
        assert!(
            matches!(refused, Err(Error::DestinationIpProhibited | Error::HttpRequestUriInvalid)),
            "{url}: {refused:?}"
        );
    }
    // Addresses of other families that carry it, and names for it, are not the granted one.
    for host in ["[::127.0.0.1]", "[2002:7f00:1::]", "[64:ff9b::127.0.0.1]", "[::1]", "localhost"] {
        let url = format!("http://{host}:{}/key", address.port());
        let refused = closed.get(&url).await;
        assert!(matches!(refused, Err(Error::HttpRequestDenied)), "{url}: {refused:?}");
    }
    assert_eq!(connections.load(Relaxed), 0);
}

#[tokio::test]
async fn a_granted_address_is_reached_however_it_is_spelt() {
    let address = origin().await;
    let mut opened = Caller::new(&loopback(&[&format!("http://{address}")]));
    let mut reached = 0;
    for url in spellings(address.port()) {
        match opened.get(&url).await {
            Ok(response) => {
                assert_eq!(response.body(), "/key".as_bytes(), "{url}");
                reached += 1;
            }
            // Not every spelling is one of `wasi:http`.
            Err(Error::HttpRequestUriInvalid) => {}
            Err(error) => panic!("{url}: {error:?}"),
        }
    }
    assert!(reached >= 12, "{reached} spellings are understood");
}

#[tokio::test]
async fn a_granted_name_that_leads_inside_is_refused() {
    let (address, connections) = tripwire().await;
    let inside: [&[&str]; 14] = [
        &["127.0.0.1"],
        &["127.8.8.8"],
        &["::1"],
        &["::ffff:127.0.0.1"],
        &["::127.0.0.1"],
        &["2002:7f00:1::1"],
        &["64:ff9b::7f00:1"],
        &["0.0.0.0"],
        &["::"],
        &["10.0.0.1", "192.168.0.1", "fd00::1"],
        &["169.254.169.254"],
        &["::ffff:169.254.169.254"],
        &["fe80::1"],
        &["fd00:ec2::254"],
    ];
    for (n, ips) in inside.into_iter().enumerate() {
        let name = format!("inside{n}.ssrf.test");
        script::resolve(&name, &[ips]);
        let origin = format!("http://{name}:{}", address.port());
        let network = Network {
            http: vec![origin.clone()],
            tcp: vec![format!("{name}:{}", address.port())],
            ..Network::default()
        };
        let mut caller = Caller::new(&network);
        let refused = caller.get(&format!("{origin}/")).await;
        assert!(matches!(refused, Err(Error::DestinationIpProhibited)), "{ips:?}: {refused:?}");
        let note = caller.note();
        assert!(note.contains(&name), "{note}");
    }
    assert_eq!(connections.load(Relaxed), 0);
}

#[tokio::test]
async fn of_a_names_addresses_the_refused_ones_are_left_out() {
    let address = origin().await;
    script::resolve("mixed.ssrf.test", &[&["169.254.169.254", "10.0.0.1", "127.0.0.1"]]);
    let url = format!("http://mixed.ssrf.test:{}", address.port());
    let mut caller = Caller::new(&loopback(&[&url]));
    let response = caller.get(&format!("{url}/key")).await.expect("reached over the third");
    assert_eq!(response.body(), "/key".as_bytes());
}

#[tokio::test]
async fn metadata_services_are_refused_by_name_and_by_address() {
    let everything = Network {
        http: vec!["http://*.internal".to_owned(), "http://*.compute".to_owned()],
        allow_private: vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()],
        ..Network::default()
    };
    let mut caller = Caller::new(&everything);
    for host in [
        "metadata.google.internal",
        "METADATA.Google.Internal.",
        "x.metadata.google.internal",
        "metadata",
        "instance-data.ec2.internal",
    ] {
        let refused = caller.get(&format!("http://{host}/")).await;
        assert!(matches!(refused, Err(Error::HttpRequestDenied)), "{host}: {refused:?}");
    }
    for (n, ip) in [
        "169.254.169.254",
        "fd00:ec2::254",
        "fd20:ce::254",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "::ffff:a9fe:a9fe",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("m{n}.ssrf.internal");
        script::resolve(&name, &[&[ip]]);
        let refused = caller.get(&format!("http://{name}/")).await;
        assert!(matches!(refused, Err(Error::DestinationIpProhibited)), "{ip}: {refused:?}");
        assert!(caller.note().contains("nothing"), "no setting would allow {ip}");
    }
}

#[tokio::test]
async fn an_answer_that_changes_between_lookups_is_checked_each_time() {
    let address = origin().await;
    let name = "rebinding.ssrf.test";
    script::resolve(name, &[&["127.0.0.1"], &["169.254.169.254"], &["10.0.0.1"]]);
    let url = format!("http://{name}:{}", address.port());
    let network = loopback(&[&url]);
    let mut caller = Caller::new(&network);
    assert!(caller.get(&format!("{url}/key")).await.is_ok());
    assert_eq!(script::left(name), 2, "what was checked is what was dialled: one lookup");
    // The connection is kept; a generation of its own looks the name up again.
    assert!(caller.get(&format!("{url}/key")).await.is_ok());
    assert_eq!(script::left(name), 2);
    for expected_left in [1, 1] {
        let refused = Caller::new(&network).get(&format!("{url}/key")).await;
        assert!(matches!(refused, Err(Error::DestinationIpProhibited)), "{refused:?}");
        assert_eq!(script::left(name), expected_left);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_that_changes_is_checked_for_raw_tcp_too() {
    let (bench, port) = (Bench::new(), dict_server().await.port());
    let name = "rebinding-tcp.ssrf.test";
    script::resolve(name, &[&["127.0.0.1"], &["10.0.0.1"]]);
    let server = format!("{name}:{port}");
    let plugin = granted_dict(&bench, &server).await;
    assert_eq!(body(&plugin, "hello").await, Ok(b"hello: a word\n".to_vec()));
    match body(&plugin, "again").await {
        Err(FillError::Denied(text)) => {
            assert!(text.contains(r#"allow_private = ["10.0.0.0/8"]"#), "{text}");
            assert!(!text.contains(" tcp = "), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_redirect_is_handed_to_the_guest_and_denied_when_it_follows() {
    let address = origin().await;
    let mut caller = Caller::new(&loopback(&[&format!("http://{address}")]));
    let response = caller.get(&format!("http://{address}/redirect")).await.expect("an answer");
    assert_eq!(response.status(), 302);
    let location = response.headers()["location"].to_str().expect("text").to_owned();
    let followed = caller.get(&location).await;
    assert!(matches!(followed, Err(Error::HttpRequestDenied)), "{followed:?}");
}

#[tokio::test]
async fn scheme_host_and_port_are_pinned() {
    let (address, connections) = tripwire().await;
    for name in ["api.pinned.test", "www.api.pinned.test", "pinned.test", "evilpinned.test"] {
        script::resolve(name, &[&["127.0.0.1"]]);
    }
    let port = address.port();
    let mut exact = Caller::new(&loopback(&[&format!("https://api.pinned.test:{port}")]));
    for url in [
        format!("http://api.pinned.test:{port}/"),
        format!("https://api.pinned.test:{}/", port ^ 1),
        "https://api.pinned.test/".to_owned(),
        format!("https://www.api.pinned.test:{port}/"),
        format!("https://pinned.test:{port}/"),
        format!("https://api.pinned.test.evil.test:{port}/"),
    ] {
        let refused = exact.get(&url).await;
        assert!(matches!(refused, Err(Error::HttpRequestDenied)), "{url}: {refused:?}");
    }
    let mut below = Caller::new(&loopback(&[&format!("http://*.pinned.test:{port}")]));
    for host in ["pinned.test", "evilpinned.test", "127.0.0.1"] {
        let refused = below.get(&format!("http://{host}:{port}/")).await;
        assert!(matches!(refused, Err(Error::HttpRequestDenied)), "{host}: {refused:?}");
    }
    let mut nothing = Caller::new(&loopback(&[]));
    for url in [format!("http://{address}/"), "https://example.com/".to_owned()] {
        let refused = nothing.get(&url).await;
        assert!(matches!(refused, Err(Error::HttpRequestDenied)), "{url}: {refused:?}");
    }
    assert_eq!(connections.load(Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_denial_names_the_one_setting_that_is_missing() {
    let (bench, server) = (Bench::new(), origin().await);
    let url = format!("http://{server}");
    let text = async |http: &[&str], private: bool| {
        let plugin = bench.load_bytes(HTTP, |p| {
            super::http(p, &url);
            p.network.http = http.iter().map(ToString::to_string).collect();
            if !private {
                p.network.allow_private.clear();
            }
        });
        match body(&plugin.await.expect("loaded"), "key").await {
            Err(FillError::Denied(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    let no_grant = text(&[], true).await;
    assert!(no_grant.contains(&format!("[plugins.p.network] http = [\"{url}\"]")), "{no_grant}");
    assert!(!no_grant.contains("allow_private"), "{no_grant}");
    let no_range = text(&[&url], false).await;
    assert!(!no_range.contains(" http = "), "{no_range}");
    assert!(
        no_range.contains(r#"[plugins.p.network] allow_private = ["127.0.0.0/8"]"#),
        "{no_range}"
    );
    let counted = bench.metrics.encode();
    for kind in ["http", "address"] {
        let line = format!(r#"cachecluster_plugin_denials_total{{plugin="p",kind="{kind}"}} 1"#);
        assert!(counted.contains(&line), "{counted}");
    }
}
