//! Registries in which members write down where they are: etcd, `ZooKeeper`, doozer.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use url::Url;

use super::{
    cluster::{BadAddress, Seed, seed},
    secrets, units,
};

/// Members that etcd knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Etcd {
    /// The servers, by the URLs on which they serve clients: `["http://10.0.0.5:2379"]`. One
    /// is asked; the next one when it fails.
    pub endpoints: Vec<String>,
    /// What the keys of members begin with; the rest of a key is a member's gossip address.
    /// Nodes of one cluster need the same one. Empty: `/cachecluster/NAME/` with the
    /// cluster's name.
    pub prefix: String,
    /// How long the entry of a node that says nothing any more stays. Longer bridges longer
    /// outages of etcd, after which every node would write its entry again.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "5s", "x-maximum" = "1h"))]
    pub ttl: Duration,
    /// The user to log in as. Empty: nobody.
    pub username: String,
    /// File with the user's password, relative to the config file; one newline at its end is
    /// left out. It is read whenever the node logs in.
    pub password_file: PathBuf,
    /// File with the certificates (PEM) of the authorities that may vouch for etcd, relative to
    /// the config file. Empty: those that this machine trusts.
    pub ca_file: PathBuf,
    /// File with the certificate (PEM) that this node shows to etcd, and those that vouch for
    /// it, relative to the config file. Goes with `key_file`. Where etcd has users too, it takes
    /// none that has a common name (`CN`).
    pub cert_file: PathBuf,
    /// File with the private key (PEM) of that certificate, relative to the config file.
    pub key_file: PathBuf,
}

impl Default for Etcd {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            prefix: String::new(),
            ttl: Duration::from_secs(15),
            username: String::new(),
            password_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
        }
    }
}

impl Etcd {
    /// Whether it names a server.
    pub fn is_on(&self) -> bool {
        !self.endpoints.is_empty()
    }

    /// What the keys of members of the cluster `name` begin with.
    pub fn prefix_of(&self, name: &str) -> String {
        let prefix = if self.prefix.is_empty() {
            format!("/cachecluster/{name}/")
        } else {
            self.prefix.clone()
        };
        if prefix.ends_with('/') { prefix } else { prefix + "/" }
    }
}

/// Members that `ZooKeeper` knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ZooKeeper {
    /// The servers of the ensemble: `["10.0.0.5", "zookeeper.internal:2181"]`. The port is 2181
    /// where none is written.
    pub servers: Vec<String>,
    /// The node below which members have theirs, each named by its gossip address. It and its
    /// parents are made if need be. Nodes of one cluster need the same one. Empty:
    /// `/cachecluster/NAME` with the cluster's name.
    pub path: String,
    /// How long the entry of a node that says nothing any more stays. The servers have bounds
    /// of their own for it: 4 to 40 seconds as they come.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "2s", "x-maximum" = "1h"))]
    pub session_timeout: Duration,
    /// File with `user:password` for the scheme `digest`, relative to the config file; one
    /// newline at its end is left out. What this node makes is then its user's alone. Empty:
    /// no user, and entries that anybody may change.
    pub auth_file: PathBuf,
}

impl Default for ZooKeeper {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            path: String::new(),
            session_timeout: Duration::from_secs(10),
            auth_file: PathBuf::new(),
        }
    }
}

impl ZooKeeper {
    /// Whether it names a server.
    pub fn is_on(&self) -> bool {
        !self.servers.is_empty()
    }

    /// The node below which members of the cluster `name` have theirs.
    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { format!("/cachecluster/{name}") } else { self.path.clone() }
    }
}

/// Members that doozer knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Doozer {
    /// The servers: `["10.0.0.5", "doozer.internal:8046"]`. The port is 8046 where none is
    /// written. One is asked; the next one when it fails.
    pub servers: Vec<String>,
    /// The secret that the servers ask for, if they do.
    #[schemars(with = "Option<secrets::SecretText>")]
    pub secret: Option<String>,
    /// In the place of `servers`: where a `doozer:?ca=10.0.0.5:8046&sk=SECRET` is read, as
    /// doozer's own programs take it.
    #[schemars(with = "Option<secrets::SecretText>")]
    pub uri: Option<String>,
    /// The file with the members' gossip addresses. Nodes of one cluster need the same one.
    /// Empty: `/cachecluster/NAME` with the cluster's name.
    pub file: String,
}

impl Doozer {
    /// Whether it says where doozer is.
    pub fn is_on(&self) -> bool {
        !self.servers.is_empty() || self.uri.is_some()
    }

    /// The file with the members of the cluster `name`.
    pub fn file_of(&self, name: &str) -> String {
        if self.file.is_empty() { format!("/cachecluster/{name}") } else { self.file.clone() }
    }
}

/// A text that is no place in a registry, or of one.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BadRegistry {
    /// No URL of a server.
    #[error("write it as http://10.0.0.5:2379 or https://etcd.internal:2379")]
    Url,
    /// More than scheme, host and port.
    #[error("it ends with the port: no path, no user; the user is `username`")]
    Rest,
    /// No path of `ZooKeeper`'s.
    #[error("write /names/with/slashes between them, neither `.` nor `..`, no slash at the end")]
    Path,
    /// No path of doozer's.
    #[error("write /names/with/slashes of A-Z, a-z, 0-9, `.` and `-`: doozer knows no others")]
    File,
}

/// Checks the URL of an etcd server.
///
/// # Errors
/// It is none.
pub fn endpoint(text: &str) -> Result<Url, BadRegistry> {
    let url = Url::parse(text).map_err(|_| BadRegistry::Url)?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(BadRegistry::Url);
    }
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if !is_bare || !url.username().is_empty() || url.password().is_some() {
        return Err(BadRegistry::Rest);
    }
    Ok(url)
}

/// Reads the address of a server of a registry, whose port is `port` unless it is written.
///
/// # Errors
/// It is none.
pub fn server(text: &str, port: u16) -> Result<(String, u16), BadAddress> {
    let Seed { host, port: written } = seed(text)?;
    Ok((host, written.unwrap_or(port)))
}

/// Checks a path of `ZooKeeper`'s.
///
/// # Errors
/// It is none.
pub fn path(text: &str) -> Result<(), BadRegistry> {
    let names = text.strip_prefix('/').ok_or(BadRegistry::Path)?;
    let is_name = |name: &str| {
        !matches!(name, "" | "." | "..") && !name.chars().any(|it| it.is_control() || it == ',')
    };
    if names.split('/').all(is_name) { Ok(()) } else { Err(BadRegistry::Path) }
}

/// Checks a path of doozer's.
///
/// # Errors
/// It is none.
pub fn file(text: &str) -> Result<(), BadRegistry> {
    let names = text.strip_prefix('/').ok_or(BadRegistry::File)?;
    let is_name = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'.' | b'-'))
    };
    if names.split('/').all(is_name) { Ok(()) } else { Err(BadRegistry::File) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_members_write_stands_below_the_clusters_name() {
        let (etcd, other) =
            (Etcd::default(), |prefix: &str| Etcd { prefix: prefix.to_owned(), ..Etcd::default() });
        assert_eq!(etcd.prefix_of("images"), "/cachecluster/images/");
        assert_eq!(other("a").prefix_of("images"), "a/");
        assert_eq!(other("/a/").prefix_of("images"), "/a/");
        assert_eq!(ZooKeeper::default().path_of("images"), "/cachecluster/images");
        assert_eq!(Doozer::default().file_of("images"), "/cachecluster/images");
    }

    #[test]
    fn an_endpoint_is_a_url_and_nothing_more() {
        for good in ["http://10.0.0.5:2379", "https://etcd.internal", "http://[fd00::5]:2379/"] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("10.0.0.5:2379", BadRegistry::Url),
            ("etcd:2379", BadRegistry::Url),
            ("ftp://10.0.0.5", BadRegistry::Url),
            ("http://10.0.0.5:2379/v3", BadRegistry::Rest),
            ("http://me:pw@10.0.0.5:2379", BadRegistry::Rest),
            ("http://10.0.0.5:2379?x", BadRegistry::Rest),
        ] {
            assert_eq!(endpoint(bad).map(drop), Err(why), "{bad}");
        }
    }

    #[test]
    fn paths_are_what_each_registry_takes() {
        for (text, is_path, is_file) in [
            ("/a", true, true),
            ("/a-b/c.d", true, true),
            ("/a_b", true, false),
            ("/a b", true, false),
            ("/", false, false),
            ("a", false, false),
            ("/a//b", false, false),
            ("/a/", false, false),
            ("/a/../b", false, true),
            ("/a\n", false, false),
        ] {
            assert_eq!((path(text).is_ok(), file(text).is_ok()), (is_path, is_file), "{text:?}");
        }
    }
}
