//! A real etcd: Debian's `etcd-server`.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, IsCa, KeyPair,
};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{server::Server, until};

const PROGRAM: &str = "/usr/bin/etcd";

/// etcd on a loopback address of its own, with its data in a folder of its own, until dropped.
pub(crate) struct Etcd {
    address: SocketAddr,
    /// Goes before its folder does.
    server: Server,
    folder: TempDir,
    client: reqwest::Client,
    is_tls: bool,
    token: Option<String>,
}

impl Etcd {
    /// Starts etcd on `host` and waits until it answers.
    pub(crate) async fn start(host: [u8; 4]) -> Self {
        Self::new(host, false).await
    }

    /// As [`Etcd::start`], over https and for those alone who show a certificate.
    pub(crate) async fn start_with_tls(host: [u8; 4]) -> Self {
        Self::new(host, true).await
    }

    async fn new(host: [u8; 4], is_tls: bool) -> Self {
        assert!(Path::new(PROGRAM).exists(), "there is no {PROGRAM}: apt-get install etcd-server");
        let address = SocketAddr::new(Ipv4Addr::from(host).into(), 2_379);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut builder = reqwest::Client::builder().no_proxy();
        if is_tls {
            let tls = certificates(folder.path(), address);
            builder = builder.tls_backend_preconfigured(tls);
        } else {
            builder = builder.tls_backend_preconfigured(
                ClientConfig::builder_with_provider(Arc::new(
                    rustls::crypto::ring::default_provider(),
                ))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth(),
            );
        }
        let client = builder.build().expect("a client");
        let mut etcd =
            Self { address, folder, server: Server::default(), client, is_tls, token: None };
        etcd.restart().await;
        etcd
    }

    /// Where clients are served.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", if self.is_tls { "https" } else { "http" }, self.address)
    }

    /// A file of those that TLS needs: `ca.pem`, `node.pem`, `node.key`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Ends etcd as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts etcd again, with the data that it had.
    pub(crate) async fn restart(&mut self) {
        let peers = format!("http://{}:2380", self.address.ip());
        let data = self.file("data");
        let mut command = Command::new(PROGRAM);
        command.arg("--data-dir").arg(data).args(["--name", "one", "--log-level", "error"]);
        for flag in ["--listen-client-urls", "--advertise-client-urls"] {
            command.args([flag, &self.url()]);
        }
        for flag in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
            command.args([flag, &peers]);
        }
        command.args(["--initial-cluster", &format!("one={peers}")]);
        if self.is_tls {
            command.arg("--client-cert-auth");
            for (flag, file) in [
                ("--cert-file", "node.pem"),
                ("--key-file", "node.key"),
                ("--trusted-ca-file", "ca.pem"),
            ] {
                command.arg(flag).arg(self.file(file));
            }
        }
        self.server.restart(&mut command);
        until("etcd answers", || async {
            self.try_ask("kv/range", json!({ "key": "eA==" })).await.is_some()
        })
        .await;
    }

    /// Sends a signal, by the name that `kill` knows it by.
    #[cfg_attr(
        not(feature = "zookeeper"),
        expect(dead_code, reason = "only the test of both registries stops one")
    )]
    pub(crate) fn signal(&self, name: &str) {
        self.server.signal(name);
    }

    async fn try_ask(&self, path: &str, question: Value) -> Option<Value> {
        let mut request = self.client.post(format!("{}/v3/{path}", self.url()));
        if let Some(token) = &self.token {
            request = request.header("authorization", token);
        }
        let response = request.body(question.to_string()).send().await.ok()?;
        serde_json::from_slice(&response.bytes().await.ok()?).ok()
    }

    /// What etcd answers, which is not an error.
    pub(crate) async fn ask(&self, path: &str, question: Value) -> Value {
        let answer = self.try_ask(path, question).await.expect("an answer");
        assert!(answer["error"].is_null(), "{path}: {answer}");
        answer
    }

    /// What the keys end with that begin with `/cachecluster/images/`.
    pub(crate) async fn members(&self) -> BTreeSet<String> {
        let prefix = "/cachecluster/images/";
        let question = json!({
            "key": encoded(prefix), "range_end": encoded("/cachecluster/images0"),
        });
        let answer = self.ask("kv/range", question).await;
        let keys = answer["kvs"].as_array().map_or(&[][..], Vec::as_slice).iter();
        keys.map(|it| decoded(&it["key"]).trim_start_matches(prefix).to_owned()).collect()
    }

    /// Puts a key, and says the revision of the store after it.
    pub(crate) async fn put(&self, key: &str) -> i64 {
        let question = json!({ "key": encoded(key), "value": encoded("x") });
        let answer = self.ask("kv/put", question).await;
        let revision = answer["header"]["revision"].as_str().expect("a revision");
        revision.parse().expect("a number")
    }

    /// Forgets what was before `revision`.
    pub(crate) async fn compact(&self, revision: i64) {
        let question = json!({ "revision": revision.to_string(), "physical": true });
        self.ask("kv/compaction", question).await;
    }

    /// From now on only users are served: `root`, as which this asks, and `cache`, who may
    /// change what is the cluster's.
    pub(crate) async fn demand_users(&mut self, password: &str) {
        for (user, role) in [("root", "root"), ("cache", "members")] {
            self.ask("auth/user/add", json!({ "name": user, "password": password })).await;
            self.ask("auth/role/add", json!({ "name": role })).await;
            self.ask("auth/user/grant", json!({ "user": user, "role": role })).await;
        }
        let (key, end) = (encoded("/cachecluster/images/"), encoded("/cachecluster/images0"));
        let perm = json!({ "permType": "READWRITE", "key": key, "range_end": end });
        self.ask("auth/role/grant", json!({ "name": "members", "perm": perm })).await;
        self.ask("auth/enable", json!({})).await;
        self.log_in(password).await;
    }

    /// Asks as `root` from now on.
    pub(crate) async fn log_in(&mut self, password: &str) {
        self.token = None;
        let answer =
            self.ask("auth/authenticate", json!({ "name": "root", "password": password })).await;
        self.token = Some(answer["token"].as_str().expect("a token").to_owned());
    }
}

fn encoded(text: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(text)
}

fn decoded(value: &Value) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let bytes = STANDARD.decode(value.as_str().expect("a key")).expect("base64");
    String::from_utf8(bytes).expect("a text")
}

/// Writes an authority and a certificate for `address` into `folder`; a client that shows it.
fn certificates(folder: &Path, address: SocketAddr) -> ClientConfig {
    let mut params = CertificateParams::new(Vec::new()).expect("params");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
    let mut params = CertificateParams::new(vec![address.ip().to_string()]).expect("params");
    // etcd takes no common name from those who log in.
    params.distinguished_name = DistinguishedName::new();
    let key = KeyPair::generate().expect("a key");
    let leaf = params.signed_by(&key, &authority).expect("a certificate");
    for (name, text) in
        [("ca.pem", authority.pem()), ("node.pem", leaf.pem()), ("node.key", key.serialize_pem())]
    {
        fs::write(folder.join(name), text).expect("written");
    }
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).expect("an authority");
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![leaf.der().clone()], private)
        .expect("a pair")
}
