//! An instance as the API writes it, and whether it is a member.
//!
//! Whatever is empty is absent there. Tags and metadata cannot be asked for by a filter, so that
//! they are compared here; labels are both, since a filter is only a way to be told less.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Deserialize;

use crate::config::Match;

/// An instance of the list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Instance {
    /// A number in words, beyond what a JSON number holds.
    pub(super) id: String,
    pub(super) name: String,
    /// A URL.
    pub(super) zone: String,
    pub(super) status: String,
    tags: Items<String>,
    metadata: Items<Item>,
    labels: BTreeMap<String, String>,
    network_interfaces: Vec<Interface>,
}

#[derive(Clone, Debug, Deserialize)]
struct Items<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

impl<T> Default for Items<T> {
    fn default() -> Self {
        Self { items: Vec::new() }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Item {
    key: String,
    value: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Interface {
    name: String,
    #[serde(rename = "networkIP")]
    network_ip: Option<String>,
    #[serde(rename = "ipv6Address")]
    ipv6_address: Option<String>,
    network: String,
}

impl Instance {
    /// Forgets all metadata but what is as in `meta`.
    pub(super) fn keep_metadata(&mut self, meta: &BTreeMap<String, String>) {
        let items = &mut self.metadata.items;
        items.retain(|item| meta.get(&item.key) == Some(&item.value));
        items.shrink_to_fit();
    }
}

/// An instance that is taken for a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) id: u64,
    pub(super) address: IpAddr,
    /// URL of the network that the address belongs to.
    pub(super) network: String,
}

/// Which instances are members.
#[derive(Clone, Debug, Default)]
pub(super) struct Rule {
    pub(super) network_interface: String,
    pub(super) tags: Vec<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) meta: BTreeMap<String, String>,
}

impl Rule {
    pub(super) fn new(matching: &Match, meta: &BTreeMap<String, String>) -> Self {
        Self {
            network_interface: matching.network_interface.clone(),
            tags: matching.tags.clone(),
            labels: matching.labels.clone(),
            meta: meta.clone(),
        }
    }

    /// The member that `instance` is, or what it lacks.
    pub(super) fn apply(&self, instance: &Instance) -> Result<Candidate, String> {
        if instance.status != "RUNNING" {
            // One that is stopped keeps its address.
            return Err(format!("it is not RUNNING but {}", instance.status));
        }
        if let Some(tag) = self.lacking_tag(&instance.tags.items) {
            return Err(format!("it has no network tag {tag}"));
        }
        for (key, value) in &self.labels {
            if instance.labels.get(key) != Some(value) {
                return Err(format!("it has no label {key}={value}"));
            }
        }
        for (key, value) in &self.meta {
            let mut items = instance.metadata.items.iter();
            if !items.any(|item| item.key == *key && item.value == *value) {
                return Err(format!("its metadata has no {key} with the value of [meta]"));
            }
        }
        let interface = self.interface(&instance.network_interfaces)?;
        let texts = [&interface.network_ip, &interface.ipv6_address];
        let address = texts.into_iter().flatten().find_map(|text| text.parse().ok());
        Ok(Candidate {
            id: instance.id.parse().map_err(|_| "it has no id".to_owned())?,
            address: address.ok_or_else(|| format!("{} has no address", interface.name))?,
            network: interface.network.clone(),
        })
    }

    /// A tag that a member has and that is not among `tags`.
    pub(super) fn lacking_tag(&self, tags: &[String]) -> Option<&String> {
        self.tags.iter().find(|tag| !tags.contains(tag))
    }

    /// The interface by which a member is reached.
    fn interface<'a>(&self, interfaces: &'a [Interface]) -> Result<&'a Interface, String> {
        let wanted = &self.network_interface;
        match interfaces {
            [only] => Ok(only),
            [] => Err("it has no network interface".to_owned()),
            several => several.iter().find(|it| it.name == *wanted).ok_or_else(|| {
                if wanted.is_empty() {
                    "it has several network interfaces, and [match] network_interface names none"
                        .to_owned()
                } else {
                    format!("it has no network interface {wanted}")
                }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An instance as the service writes one, with much that nobody asked for.
    const WRITTEN: &str = r#"{
        "id": "18446744073709551615", "name": "cache-1", "kind": "compute#instance",
        "zone": "https://www.googleapis.com/compute/v1/projects/p/zones/us-central1-b",
        "status": "RUNNING", "creationTimestamp": "2026-11-29T16:00:00.000-08:00",
        "tags": {"items": ["http-server", "cache"], "fingerprint": "x"},
        "metadata": {"kind": "m", "items": [
            {"key": "Service", "value": "Define"}, {"key": "startup-script"}, {"key": "Env", "value": "prod"}
        ]},
        "labels": {"app": "cache"},
        "networkInterfaces": [
            {"name": "nic0", "networkIP": "10.0.0.7", "network": "n0", "accessConfigs": []},
            {"name": "nic1", "networkIP": "10.1.0.7", "ipv6Address": "fd20::7", "network": "n1"}
        ]
    }"#;

    fn instance(change: impl FnOnce(&mut serde_json::Value)) -> Instance {
        let mut written = serde_json::from_str(WRITTEN).expect("JSON");
        change(&mut written);
        serde_json::from_value(written).expect("an instance")
    }

    fn rule(change: impl FnOnce(&mut Rule)) -> Rule {
        let mut rule = Rule { network_interface: "nic1".to_owned(), ..Rule::default() };
        change(&mut rule);
        rule
    }

    #[test]
    fn all_that_is_wanted_must_be_there() {
        let whole = instance(|_| ());
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let all = rule(|it| {
            it.tags = vec!["cache".to_owned(), "http-server".to_owned()];
            it.labels = [pair("app", "cache")].into();
            it.meta = [pair("Service", "Define"), pair("Env", "prod")].into();
        });
        let found = all.apply(&whole).expect("a member");
        let expected =
            Candidate { id: u64::MAX, address: [10, 1, 0, 7].into(), network: "n1".to_owned() };
        assert_eq!(found, expected);
        let mut slim = instance(|_| ());
        slim.keep_metadata(&all.meta);
        assert_eq!((slim.metadata.items.len(), all.apply(&slim)), (2, Ok(found)));
        for (lacking, said) in [
            (rule(|it| it.tags = vec!["cache".to_owned(), "web".to_owned()]), "network tag web"),
            (rule(|it| it.labels = [pair("app", "web")].into()), "label app=web"),
            (rule(|it| it.meta = [pair("Service", "define")].into()), "no Service with"),
            (rule(|it| it.meta = [pair("startup-script", "x")].into()), "no startup-script"),
            (rule(|it| it.network_interface = "nic2".to_owned()), "interface nic2"),
            (Rule::default(), "several network interfaces"),
        ] {
            let why = lacking.apply(&whole).expect_err(said);
            assert!(why.contains(said), "{why}");
        }
    }

    #[test]
    fn what_is_empty_is_absent() {
        let bare = instance(|it| {
            for key in ["tags", "metadata", "labels"] {
                it.as_object_mut().expect("an object").remove(key);
            }
            it["networkInterfaces"] =
                serde_json::json!([{"name": "eth", "ipv6Address": "fd20::9"}]);
        });
        let found = Rule::default().apply(&bare).expect("a member");
        assert_eq!(found.address, "fd20::9".parse::<IpAddr>().expect("an address"));
        assert!(rule(|it| it.tags = vec!["cache".to_owned()]).apply(&bare).is_err());
        let nothing = instance(|it| it["networkInterfaces"] = serde_json::json!([]));
        assert!(Rule::default().apply(&nothing).is_err());
        let empty_tags = instance(|it| it["tags"] = serde_json::json!({"fingerprint": "x"}));
        assert!(rule(|_| ()).apply(&empty_tags).is_ok());
        serde_json::from_str::<Instance>("{}").expect("an instance of nothing");
    }

    #[test]
    fn only_what_runs_is_a_member_whatever_else_there_comes_to_be() {
        for status in ["TERMINATED", "STOPPED", "STAGING", "PENDING_STOP", "SOMETHING_NEW", ""] {
            let stopped = instance(|it| it["status"] = status.into());
            assert!(rule(|_| ()).apply(&stopped).is_err(), "{status}");
        }
    }
}
