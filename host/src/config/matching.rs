//! Which instances of Compute Engine are members, and where they are asked for.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use url::{Host, Url};

use super::{Config, Doozer, Etcd, ZooKeeper, units};

/// Which instances of Compute Engine are taken for members of the cluster: those that run, and
/// to which all of this and all of `[meta]` applies. As soon as there is anything here or there,
/// they are looked for again and again; see `docs/clustering.md`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    /// Project of the instances, by its ID. Empty: this instance's own, unless `projects`
    /// names some.
    pub project: String,
    /// Further projects, by their IDs, as with a network that several share.
    pub projects: Vec<String>,
    /// Zone of the instances, `us-central1-b`. Empty: this instance's own, unless `zones` or
    /// `regions` names some.
    pub zone: String,
    /// Further zones. `["*"]`: every zone.
    pub zones: Vec<String>,
    /// Regions all of whose zones are meant: `["us-central1"]`.
    pub regions: Vec<String>,
    /// Name of the network interface by which members reach one another, `nic1`. An instance
    /// that has only one is reached by that one, whatever its name. Empty: only instances with
    /// one interface are members.
    pub network_interface: String,
    /// Network tags, all of which a member has.
    pub tags: Vec<String>,
    /// Labels, all of which a member has, each with this value.
    pub labels: BTreeMap<String, String>,
}

/// Ways of finding members of the cluster beside `[cluster] seeds`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Discovery {
    /// How Compute Engine is asked for the instances of `[match]` and `[meta]`. A reload leaves
    /// it as it is: changes wait for a restart.
    pub gce: Gce,
    /// etcd, from version 3.4: each node has a key there that goes with it, and hears of the
    /// others' as they come and go. On as soon as `endpoints` names a server. A reload leaves it
    /// as it is: changes wait for a restart.
    pub etcd: Etcd,
    /// `ZooKeeper`: each node has an entry there that goes with it, and hears of the others' as
    /// they come and go. On as soon as `servers` names one. A reload leaves it as it is: changes
    /// wait for a restart.
    pub zookeeper: ZooKeeper,
    /// doozer: all nodes share one file there, a list with spaces between its entries. On as
    /// soon as `servers` or `uri` says where. A reload leaves it as it is: changes wait for a
    /// restart.
    pub doozer: Doozer,
}

impl Discovery {
    /// Whether it names a registry.
    pub fn has_registry(&self) -> bool {
        self.etcd.is_on() || self.zookeeper.is_on() || self.doozer.is_on()
    }
}

/// How Compute Engine is asked for instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Gce {
    /// Whether it is asked at all. Unset: it is if there is anything in `[match]` or `[meta]`.
    pub enabled: Option<bool>,
    /// Where its API is. With `http://` only on loopback, since a token that is worth an
    /// account's rights goes there; with `/compute/v1/` at the end or without.
    pub endpoint: String,
    /// Time between two looks of a node, to which a cluster of many members adds. Shorter finds
    /// new instances sooner and costs more of the project's quota, which all its programs
    /// share.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1s", "x-maximum" = "1h"))]
    pub interval: Duration,
}

impl Default for Gce {
    fn default() -> Self {
        Self {
            enabled: None,
            endpoint: "https://compute.googleapis.com".to_owned(),
            interval: Duration::from_mins(1),
        }
    }
}

/// A text that is not what it should be, and what would be right.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BadMatch {
    /// Not a project's ID.
    #[error("write the project's ID, as my-project-17: small letters, digits and dashes")]
    Project,
    /// A region where a zone belongs.
    #[error("this is a region: name it in `regions`, or one of its zones, with its last letter")]
    RegionForZone,
    /// A zone where a region belongs.
    #[error("this is a zone: name it in `zones`, or its region, without the last part")]
    ZoneForRegion,
    /// Not a zone.
    #[error("write it as `gcloud compute zones list` prints it: us-central1-b")]
    Zone,
    /// Not a region.
    #[error("write it as `gcloud compute regions list` prints it: us-central1")]
    Region,
    /// Not the name of an interface.
    #[error("write it as `gcloud compute instances describe` prints it: nic0")]
    Interface,
    /// Not a network tag.
    #[error("a network tag is 1 to 63 small letters, digits and dashes")]
    Tag,
    /// Not a label's key or value.
    #[error(
        "keys of labels are 1 to 63 small letters, digits, `_` and `-`, beginning with a letter; \
         values are the same, and may be empty"
    )]
    Label,
    /// Not a key of metadata.
    #[error("keys of metadata are 1 to 128 letters, digits, `_` and `-`")]
    MetaKey,
    /// Not the base URL of an API.
    #[error("write it as https://compute.googleapis.com, with /compute/v1/ at the end or without")]
    Endpoint,
    /// Unprotected, and not on this machine.
    #[error("a token goes there: use https://, or http:// to an address of loopback")]
    Unprotected,
}

impl Match {
    /// Whether it says anything.
    pub fn is_any(&self) -> bool {
        *self != Self::default()
    }

    /// The projects that it names; none means one's own.
    pub fn all_projects(&self) -> impl Iterator<Item = &str> {
        let one = Some(self.project.as_str()).filter(|project| !project.is_empty());
        one.into_iter().chain(self.projects.iter().map(String::as_str))
    }

    /// The zones that it names, `*` among them where that is one.
    pub fn all_zones(&self) -> impl Iterator<Item = &str> {
        let one = Some(self.zone.as_str()).filter(|zone| !zone.is_empty());
        one.into_iter().chain(self.zones.iter().map(String::as_str))
    }
}

impl Config {
    /// Whether Compute Engine is asked for members.
    pub fn looks_on_gce(&self) -> bool {
        self.discovery.gce.enabled.unwrap_or(self.matching.is_any() || !self.meta.is_empty())
    }

    /// Whether it says where members may be found.
    pub fn looks_for_members(&self) -> bool {
        self.cluster.has_seeds() || self.looks_on_gce() || self.discovery.has_registry()
    }

    /// Whether this node is to be a member of a cluster.
    pub fn is_member(&self) -> bool {
        self.cluster.is_on() || self.looks_for_members()
    }
}

/// Checks a project's ID, that of a domain (`example.com:project`) or a project's number.
pub(super) fn project(text: &str) -> Result<(), BadMatch> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.:".contains(c);
    let is_one = (1..=128).contains(&text.len()) && text.chars().all(is_plain);
    if is_one { Ok(()) } else { Err(BadMatch::Project) }
}

/// Checks a zone; `*` is not one here.
pub(super) fn zone(text: &str) -> Result<(), BadMatch> {
    match place(text) {
        Some(3..) => Ok(()),
        Some(2) => Err(BadMatch::RegionForZone),
        _ => Err(BadMatch::Zone),
    }
}

/// Checks a region.
pub(super) fn region(text: &str) -> Result<(), BadMatch> {
    match place(text) {
        Some(2) => Ok(()),
        Some(3..) => Err(BadMatch::ZoneForRegion),
        _ => Err(BadMatch::Region),
    }
}

/// How many parts the name of a zone or a region has: `us-central1` or `us-central1-b`. `None`
/// if it is neither.
fn place(text: &str) -> Option<usize> {
    let is_word = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    let parts: Vec<&str> = text.split('-').collect();
    let ends_in_digit = |part: &str| part.ends_with(|c: char| c.is_ascii_digit());
    let is_region = text.len() <= 63
        && parts.iter().all(|part| is_word(part))
        && parts.get(1).is_some_and(|part| ends_in_digit(part));
    (is_region && parts.get(2).is_none_or(|part| !ends_in_digit(part))).then_some(parts.len())
}

/// Checks the name of an interface: `nic1`, or `nic1.7` of those that come and go.
pub(super) fn interface(text: &str) -> Result<(), BadMatch> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let rest = text.strip_prefix("nic").ok_or(BadMatch::Interface)?;
    let is_one = rest.len() <= 16 && rest.split('.').all(digits) && rest.split('.').count() <= 2;
    if is_one { Ok(()) } else { Err(BadMatch::Interface) }
}

/// Checks a network tag.
pub(super) fn tag(text: &str) -> Result<(), BadMatch> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_one = (1..=63).contains(&text.len()) && text.chars().all(is_plain);
    if is_one { Ok(()) } else { Err(BadMatch::Tag) }
}

/// Checks a label.
pub(super) fn label(key: &str, value: &str) -> Result<(), BadMatch> {
    let is_plain = |c: char| (c.is_alphanumeric() && !c.is_uppercase()) || "_-".contains(c);
    let fits = |text: &str| text.chars().count() <= 63 && text.chars().all(is_plain);
    let begins = key.starts_with(|c: char| c.is_alphabetic());
    if begins && fits(key) && fits(value) { Ok(()) } else { Err(BadMatch::Label) }
}

/// Checks a key of metadata.
pub(super) fn meta_key(text: &str) -> Result<(), BadMatch> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let is_one = (1..=128).contains(&text.len()) && text.chars().all(is_plain);
    if is_one { Ok(()) } else { Err(BadMatch::MetaKey) }
}

/// The base of the API at `text`, which ends in `/compute/v1/`.
///
/// # Errors
/// It is no base URL, or one to which a token must not go.
pub fn endpoint(text: &str) -> Result<Url, BadMatch> {
    let mut url = Url::parse(text).map_err(|_| BadMatch::Endpoint)?;
    let is_bare = url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if !is_bare || !["", "/compute/v1"].contains(&url.path().trim_end_matches('/')) {
        return Err(BadMatch::Endpoint);
    }
    let is_loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => return Err(BadMatch::Endpoint),
    };
    match url.scheme() {
        "https" => {}
        "http" if is_loopback => {}
        "http" => return Err(BadMatch::Unprotected),
        _ => return Err(BadMatch::Endpoint),
    }
    url.set_path("/compute/v1/");
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_and_regions_are_told_apart() {
        for good in ["us-central1-b", "europe-west10-a", "us-central1-ai1a", "me-central2-c"] {
            assert_eq!(zone(good), Ok(()), "{good}");
            assert_eq!(region(good), Err(BadMatch::ZoneForRegion), "{good}");
        }
        for good in ["us-central1", "northamerica-northeast2"] {
            assert_eq!(region(good), Ok(()), "{good}");
            assert_eq!(zone(good), Err(BadMatch::RegionForZone), "{good}");
        }
        for bad in
            ["", "us", "us-central", "us-central-b", "US-central1-b", "*", "a/b", "-", "a1-b1-1"]
        {
            assert_eq!(zone(bad), Err(BadMatch::Zone), "{bad}");
            assert_eq!(region(bad), Err(BadMatch::Region), "{bad}");
        }
    }

    #[test]
    fn names_that_would_change_a_question_are_refused() {
        assert_eq!(project("example.com:my-project"), Ok(()));
        for bad in ["", "My Project", "a/b", "a?b", "a%2f"] {
            assert_eq!(project(bad), Err(BadMatch::Project), "{bad}");
        }
        assert_eq!(
            (tag("http-server"), tag(""), tag("A")),
            (Ok(()), Err(BadMatch::Tag), Err(BadMatch::Tag))
        );
        assert_eq!((label("app", ""), label("größe", "1-x_")), (Ok(()), Ok(())));
        for (key, value) in [("", "x"), ("1", "x"), ("a", "x y"), ("a", "x\" OR"), ("A", "x")] {
            assert_eq!(label(key, value), Err(BadMatch::Label), "{key} {value}");
        }
        assert_eq!((interface("nic0"), interface("nic1.12")), (Ok(()), Ok(())));
        for bad in ["", "eth0", "nic", "nic1.", "nic1.2.3", "nic-1"] {
            assert_eq!(interface(bad), Err(BadMatch::Interface), "{bad}");
        }
        assert_eq!((meta_key("Env_1-x"), meta_key("a b")), (Ok(()), Err(BadMatch::MetaKey)));
    }

    #[test]
    fn an_endpoint_is_protected_or_on_this_machine() {
        let base = |text: &str| endpoint(text).map(|url| url.to_string());
        let google = Ok("https://compute.googleapis.com/compute/v1/".to_owned());
        for same in ["", "/", "/compute/v1", "/compute/v1/"] {
            assert_eq!(base(&format!("https://compute.googleapis.com{same}")), google);
        }
        assert_eq!(base("http://127.0.80.1:80"), Ok("http://127.0.80.1/compute/v1/".to_owned()));
        assert_eq!(base("http://[::1]:8"), Ok("http://[::1]:8/compute/v1/".to_owned()));
        assert_eq!(base("http://compute.googleapis.com"), Err(BadMatch::Unprotected));
        assert_eq!(base("http://127.0.0.1.nip.io"), Err(BadMatch::Unprotected));
        for bad in [
            "",
            "compute.googleapis.com",
            "ftp://127.0.0.1",
            "https://a/v2",
            "https://u:p@a",
            "https://a?x",
        ] {
            assert_eq!(base(bad), Err(BadMatch::Endpoint), "{bad}");
        }
    }

    #[test]
    fn anything_in_match_or_meta_has_instances_looked_for() {
        let mut config = Config::default();
        assert!(!config.looks_on_gce() && !config.is_member());
        config.meta.insert("service".to_owned(), "cache".to_owned());
        assert!(config.looks_on_gce() && config.is_member());
        config.discovery.gce.enabled = Some(false);
        assert!(!config.looks_on_gce() && !config.is_member());
        config = Config::default();
        config.matching.tags.push("cache".to_owned());
        assert!(config.looks_on_gce());
        config = Config::default();
        config.discovery.gce.enabled = Some(true);
        assert!(config.looks_for_members());
    }
}
