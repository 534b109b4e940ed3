//! What `[discovery]` means.

use super::{Part, relation, wrong};
use crate::config::{
    Config, Etcd,
    draft::Draft,
    registries::{endpoint, file, path, server},
    report::{Severity, quoted},
};

/// Servers of one registry: an ensemble has three or five.
const SERVERS_MAX: usize = 32;

/// Bytes of a prefix or a path.
const PATH_MAX: usize = 512;

pub(super) fn discovery(draft: &mut Draft, config: &Config) {
    etcd(draft, &config.discovery.etcd);
    let zookeeper = &config.discovery.zookeeper;
    servers(draft, &["discovery", "zookeeper", "servers"], &zookeeper.servers);
    let below = zookeeper.path_of(&config.cluster.name);
    if let Err(error) = path(&below)
        && (zookeeper.is_on() || !zookeeper.path.is_empty())
    {
        let title = format!("{} is no path of ZooKeeper's", quoted(&below));
        wrong(draft, &["discovery", "zookeeper", "path"], title, error.to_string());
    }
    length(draft, &["discovery", "zookeeper", "path"], &zookeeper.path);
    if cfg!(not(feature = "zookeeper")) && zookeeper.is_on() {
        let title = "this program was built without ZooKeeper".to_owned();
        let help = "build it with the cargo feature `zookeeper`, or remove `servers`".to_owned();
        wrong(draft, &["discovery", "zookeeper", "servers"], title, help);
    }
    doozer(draft, config);
}

fn etcd(draft: &mut Draft, etcd: &Etcd) {
    let at = ["discovery", "etcd", "endpoints"];
    count(draft, &at, etcd.endpoints.len());
    if let Some(error) = etcd.endpoints.iter().find_map(|text| endpoint(text).err()) {
        // Not quoted: it may hold a password.
        let title = "an entry is no URL of an etcd server".to_owned();
        wrong(draft, &at, title, error.to_string());
    }
    length(draft, &["discovery", "etcd", "prefix"], &etcd.prefix);
    let has_password = !etcd.password_file.as_os_str().is_empty();
    if etcd.username.is_empty() == has_password {
        let (there, lacking) = if has_password {
            ("password_file", "username")
        } else {
            ("username", "password_file")
        };
        let title = "a user and a password go together".to_owned();
        let help = format!("set `{lacking}` too, or remove `{there}`");
        wrong(draft, &["discovery", "etcd", there], title, help);
    }
    let (cert, key) = (&etcd.cert_file, &etcd.key_file);
    if cert.as_os_str().is_empty() != key.as_os_str().is_empty() {
        let (there, lacking) = if key.as_os_str().is_empty() {
            ("cert_file", "key_file")
        } else {
            ("key_file", "cert_file")
        };
        let title = "a certificate and its key go together".to_owned();
        let help = format!("set `{lacking}` too, or remove `{there}`");
        wrong(draft, &["discovery", "etcd", there], title, help);
    }
    let is_open = |text: &&String| {
        endpoint(text).is_ok_and(|url| {
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let is_loopback = host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
            url.scheme() == "http" && !is_loopback && host != "localhost"
        })
    };
    if let Some(open) = etcd.endpoints.iter().find(is_open)
        && has_password
    {
        relation(
            draft,
            Severity::Warning,
            "the password goes over the network for everybody to read".to_owned(),
            &[Part::new(&at, open), Part::new(&["discovery", "etcd", "username"], &etcd.username)],
            "have etcd serve https, and write https:// here",
        );
    }
}

fn doozer(draft: &mut Draft, config: &Config) {
    let doozer = &config.discovery.doozer;
    let at = ["discovery", "doozer", "servers"];
    servers(draft, &at, &doozer.servers);
    if !doozer.servers.is_empty() && doozer.uri.is_some() {
        let title = "doozer's servers are named twice".to_owned();
        let help = "remove `servers`, or remove `uri`".to_owned();
        wrong(draft, &["discovery", "doozer", "uri"], title, help);
    }
    let name = doozer.file_of(&config.cluster.name);
    if let Err(error) = file(&name)
        && (doozer.is_on() || !doozer.file.is_empty())
    {
        let title = format!("{} is no path of doozer's", quoted(&name));
        wrong(draft, &["discovery", "doozer", "file"], title, error.to_string());
    }
    length(draft, &["discovery", "doozer", "file"], &doozer.file);
}

fn servers(draft: &mut Draft, at: &[&str], list: &[String]) {
    count(draft, at, list.len());
    for text in list {
        if let Err(error) = server(text, 1) {
            let title = format!("{} is no address of a server", quoted(text));
            return wrong(draft, at, title, error.to_string());
        }
    }
}

fn count(draft: &mut Draft, at: &[&str], count: usize) {
    if count > SERVERS_MAX {
        let title = format!("{count} servers are too many");
        wrong(draft, at, title, format!("name {SERVERS_MAX} at most"));
    }
}

fn length(draft: &mut Draft, at: &[&str], text: &str) {
    if text.len() > PATH_MAX {
        let title = format!("it takes {} bytes", text.len());
        wrong(draft, at, title, format!("write {PATH_MAX} at most"));
    }
}
