//! HTTPS, end to end: whose certificates are trusted, and what is said of the others.

use std::{net::SocketAddr, path::Path, sync::Arc};

use rcgen::KeyPair;
use wasmtime_wasi_http::Error;

use super::{
    HTTP, body,
    caller::{Caller, loopback},
    http,
};
use crate::{
    config::{self, Network},
    metrics::Metrics,
    plugin::{
        egress::{Egress, script},
        tests::guest::Bench,
        text::logged,
    },
};

#[path = "../../../../../tests/fixtures/tls.rs"]
mod fixture;

use fixture::{Authority, Identity};

/// An HTTPS server with this certificate that answers every request `ok`.
async fn https(identity: Identity) -> SocketAddr {
    let answer = |_: &str| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
    fixture::https(identity, answer).await
}

/// A network table for `name` at `address`, which trusts the file `ca.pem`.
fn granted(name: &str, address: SocketAddr) -> (String, Network) {
    script::resolve(name, &[&["127.0.0.1"]]);
    let url = format!("https://{name}:{}", address.port());
    (url.clone(), Network { ca_files: vec!["ca.pem".into()], ..loopback(&[&url]) })
}

fn egress(network: Network, base_dir: &Path) -> Result<Egress, String> {
    let settings = config::Plugin { network, ..config::Plugin::new("p.wasm") };
    let metrics = Metrics::new().plugin("p");
    Egress::new(&"p".into(), &settings, base_dir, Arc::default(), &metrics)
}

fn folder(authority: &Authority) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).expect("written");
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_origin_is_reached_over_https_when_its_authority_is_trusted() {
    let authority = Authority::new("ours");
    let address = https(authority.issue("api.tls.test", 2100)).await;
    let (url, network) = granted("api.tls.test", address);
    let bench = Bench::new();
    std::fs::write(bench.file().with_file_name("ca.pem"), authority.pem()).expect("written");
    let plugin = bench.load_bytes(HTTP, |p| {
        http(p, &url);
        p.network = network;
    });
    let plugin = plugin.await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(body(&plugin, "key").await, Ok(b"ok".to_vec()));
    assert_eq!(body(&plugin, "other").await, Ok(b"ok".to_vec()));
}

/// What a request over https to `name` ends in, and what the log says of it.
fn refusal(trusted: &Authority, certificate: Identity, name: &str) -> (Error, String, String) {
    let folder = folder(trusted);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut outcome = None;
    let log = logged(|| {
        runtime.block_on(async {
            let (url, network) = granted(name, https(certificate).await);
            let egress = egress(network, folder.path()).expect("grants");
            let mut caller = Caller::of(Arc::new(egress));
            let error = caller.get(&format!("{url}/")).await.expect_err("not trusted");
            outcome = Some((error, caller.note()));
        });
    });
    let (error, note) = outcome.expect("an outcome");
    (error, note, log)
}

#[test]
fn a_certificate_that_is_not_trusted_is_refused_with_the_reason() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    for (certificate, name, reasons) in [
        (theirs.issue("unknown.tls.test", 2100), "unknown.tls.test", ["UnknownIssuer", "ca_files"]),
        (ours.issue("other.tls.test", 2100), "wrong.tls.test", ["other.tls.test", "certificate"]),
        (ours.issue("expired.tls.test", 2002), "expired.tls.test", ["expired", "certificate"]),
    ] {
        let (error, note, log) = refusal(&ours, certificate, name);
        assert!(matches!(error, Error::TlsCertificateError), "{name}: {error:?}");
        for reason in reasons {
            assert!(log.contains(reason) && log.contains(name), "{reason} is not in {log}");
            assert!(note.contains(reason), "{reason} is not in {note}");
        }
    }
}

#[tokio::test]
async fn an_origin_that_does_not_speak_tls_is_refused() {
    let plain = super::origin().await;
    let folder = folder(&Authority::new("ours"));
    let (url, network) = granted("plain.tls.test", plain);
    let mut caller = Caller::of(Arc::new(egress(network, folder.path()).expect("grants")));
    let refused = caller.get(&format!("{url}/")).await;
    assert!(
        matches!(refused, Err(Error::TlsProtocolError | Error::ConnectionTerminated)),
        "{refused:?}"
    );
}

#[test]
fn files_of_authorities_are_checked_when_the_plugin_is_loaded() {
    let folder = folder(&Authority::new("ours"));
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("written");
    };
    write("empty.pem", "");
    write("text.pem", "not a certificate\n");
    write("key.pem", &KeyPair::generate().expect("a key").serialize_pem());
    write("cut.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    write("junk.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    write("large.pem", &"\n".repeat((1 << 20) + 1));
    for (file, said) in [
        ("missing.pem", "relative to the config file"),
        ("empty.pem", "BEGIN CERTIFICATE"),
        ("text.pem", "BEGIN CERTIFICATE"),
        ("key.pem", "BEGIN CERTIFICATE"),
        ("cut.pem", "export"),
        ("junk.pem", "export"),
        ("large.pem", "1 MiB"),
        (".", "not a regular file"),
    ] {
        let network = Network { ca_files: vec![file.into()], ..Network::default() };
        let problem = egress(network, folder.path()).err().unwrap_or_default();
        assert!(
            problem.contains(said) && problem.contains("network.ca_files"),
            "{file}: {problem}"
        );
        assert!(file == "." || problem.contains(file), "{problem}");
    }
    let good = Network { ca_files: vec!["ca.pem".into()], ..Network::default() };
    assert!(egress(good, folder.path()).is_ok());
}
