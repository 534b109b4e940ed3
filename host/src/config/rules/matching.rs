//! What `[match]`, `[meta]` and `[discovery.gce]` mean.

use super::{Part, relation, wrong};
use crate::config::{
    Config,
    draft::Draft,
    matching::{self, BadMatch},
    report::{Severity, quoted},
};

/// Entries of one list of `[match]`, labels and keys of metadata included.
const ENTRIES_MAX: usize = 64;

/// Bytes of one value of metadata that is compared.
const META_VALUE_MAX: usize = 1_024;

pub(super) fn check(draft: &mut Draft, config: &Config) {
    let matching = &config.matching;
    text(draft, &["match", "project"], &matching.project, matching::project);
    text(draft, &["match", "zone"], &matching.zone, matching::zone);
    let interface = &matching.network_interface;
    text(draft, &["match", "network_interface"], interface, matching::interface);
    list(draft, &["match", "projects"], &matching.projects, matching::project);
    list(draft, &["match", "zones"], &matching.zones, |zone| match zone {
        "*" => Ok(()),
        zone => matching::zone(zone),
    });
    list(draft, &["match", "regions"], &matching.regions, matching::region);
    list(draft, &["match", "tags"], &matching.tags, matching::tag);
    for (key, value) in &matching.labels {
        if let Err(error) = matching::label(key, value) {
            let title = format!("{} is no label", quoted(&format!("{key}={value}")));
            wrong(draft, &["match", "labels", key], title, error.to_string());
        }
    }
    few(draft, &["match", "labels"], matching.labels.len());
    meta(draft, config);
    if let Err(error) = matching::endpoint(&config.discovery.gce.endpoint) {
        let endpoint = quoted(&config.discovery.gce.endpoint);
        let title = format!("{endpoint} is no place of Compute Engine's API");
        wrong(draft, &["discovery", "gce", "endpoint"], title, error.to_string());
    }
    if config.looks_on_gce() {
        enough(draft, config);
    }
}

fn meta(draft: &mut Draft, config: &Config) {
    for (key, value) in &config.meta {
        if let Err(error) = matching::meta_key(key) {
            let title = format!("{} is no key of metadata", quoted(key));
            wrong(draft, &["meta", key], title, error.to_string());
        } else if value.len() > META_VALUE_MAX {
            let title = format!("the value of {} takes {} bytes", quoted(key), value.len());
            wrong(draft, &["meta", key], title, format!("compare {META_VALUE_MAX} at most"));
        }
    }
    few(draft, &["meta"], config.meta.len());
}

/// Whether the settings can have the effect that is wanted of them.
fn enough(draft: &mut Draft, config: &Config) {
    let (matching, cluster) = (&config.matching, &config.cluster);
    if !cluster.has_key() && !cluster.insecure {
        relation(
            draft,
            Severity::Warning,
            "instances are looked for, and none will find this node".to_owned(),
            &[
                Part::new(&["cluster", "key_file"], "empty"),
                Part::new(&["cluster", "insecure"], cluster.insecure),
            ],
            "a cluster without a key stays on loopback: make one with `cachecluster keygen FILE`, \
             give it to every instance and name it in `[cluster] key_file`",
        );
    }
    if matching.tags.is_empty() && matching.labels.is_empty() && config.meta.is_empty() {
        relation(
            draft,
            Severity::Warning,
            "every instance there is taken for a member".to_owned(),
            &[Part::new(&["match", "tags"], "empty")],
            "name a network tag of the service in `[match] tags`, so that others are left alone",
        );
    }
    if matching.all_zones().any(|zone| zone == "*")
        && (matching.all_zones().count() > 1 || !matching.regions.is_empty())
    {
        relation(
            draft,
            Severity::Warning,
            "every zone is meant, and some are named".to_owned(),
            &[Part::new(&["match", "zones"], format_args!("{:?}", matching.zones))],
            "remove `*`, or the others",
        );
    }
}

fn text(draft: &mut Draft, path: &[&str], text: &str, read: impl Fn(&str) -> Result<(), BadMatch>) {
    if !text.is_empty()
        && let Err(error) = read(text)
    {
        wrong(draft, path, format!("{} does not fit here", quoted(text)), error.to_string());
    }
}

fn list(
    draft: &mut Draft,
    path: &[&str],
    list: &[String],
    read: impl Fn(&str) -> Result<(), BadMatch>,
) {
    few(draft, path, list.len());
    let bad = list.iter().find_map(|text| Some((text, read(text).err()?)));
    if let Some((text, error)) = bad {
        wrong(draft, path, format!("{} does not fit here", quoted(text)), error.to_string());
    }
}

fn few(draft: &mut Draft, path: &[&str], count: usize) {
    if count > ENTRIES_MAX {
        let title = format!("{count} entries are too many");
        wrong(draft, path, title, format!("name {ENTRIES_MAX} at most"));
    }
}
