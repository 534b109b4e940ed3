//! What has to be done to go from one configuration to another.

use std::{collections::BTreeMap, path::Path};

use super::{
    differences::differences,
    report::{Action, Change},
};
use crate::config::Config;

/// What a running node goes by.
#[expect(clippy::struct_excessive_bools, reason = "each is a part that the node has or has not")]
#[derive(Clone, Copy, Debug)]
pub(super) struct Now<'a> {
    pub(super) config: &'a Config,
    pub(super) base_dir: &'a Path,
    /// Whether it serves clients.
    pub(super) has_clients: bool,
    /// Whether it serves operators.
    pub(super) has_operators: bool,
    /// Whether it has an engine for plugins, which is made once.
    pub(super) has_host: bool,
    /// Whether its log is ours to filter.
    pub(super) has_log: bool,
}

/// What becomes of a plugin or a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is new.
    Added,
    /// It stays, under other settings.
    Changed,
    /// It stays as it is.
    Kept,
    /// A group that another plugin is to fill: an empty one takes its place.
    Replaced,
    /// It goes.
    Removed,
}

/// What has to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) plugins: BTreeMap<String, Fate>,
    pub(super) groups: BTreeMap<String, Fate>,
    /// Whether the log is to be filtered otherwise.
    pub(super) is_log_changed: bool,
    /// All of it in words, and what waits for a restart.
    pub(super) changes: Vec<Change>,
}

impl Plan {
    /// The way from `now` to `next`, whose relative paths begin at `base_dir`.
    pub(super) fn new(now: Now<'_>, next: &Config, base_dir: &Path) -> Self {
        let plugins = fates(&now.config.plugins, &next.plugins, |old, new| {
            if old == new && now.base_dir == base_dir { Fate::Kept } else { Fate::Changed }
        });
        let groups = fates(&now.config.groups, &next.groups, |old, new| {
            if old.plugin != new.plugin {
                Fate::Replaced
            } else if old == new {
                Fate::Kept
            } else {
                Fate::Changed
            }
        });
        let mut plan = Self { plugins, groups, ..Self::default() };
        plan.tell_plugins(now, next, base_dir);
        plan.tell_groups(now.config, next);
        plan.tell_surfaces(now, next);
        plan
    }

    fn tell_plugins(&mut self, now: Now<'_>, next: &Config, base_dir: &Path) {
        for (name, fate) in &self.plugins {
            let (old, new) = (now.config.plugins.get(name), next.plugins.get(name));
            let change = match (fate, old, new) {
                (Fate::Added, _, Some(new)) => {
                    (Action::Added, base_dir.join(&new.source).display().to_string())
                }
                (Fate::Removed, ..) => (Action::Removed, String::new()),
                (Fate::Changed, Some(old), Some(new)) => match differences(old, new) {
                    none if none.is_empty() => {
                        (Action::Changed, format!("paths begin at {}", base_dir.display()))
                    }
                    some => (Action::Changed, some),
                },
                _ => continue,
            };
            self.changes.push(Change::new(change.0, format!("plugin {name}"), change.1));
        }
    }

    fn tell_groups(&mut self, old: &Config, next: &Config) {
        for (name, fate) in &self.groups {
            let (old, new) = (old.groups.get(name), next.groups.get(name));
            let change = match (fate, old, new) {
                (Fate::Added, _, Some(new)) => (Action::Added, format!("filled by {}", new.plugin)),
                (Fate::Removed, ..) => (Action::Removed, String::new()),
                (Fate::Replaced, Some(old), Some(new)) => {
                    (Action::Changed, format!("plugin {} → {}, emptied", old.plugin, new.plugin))
                }
                (Fate::Changed, Some(old), Some(new)) => {
                    (Action::Changed, differences(&old.cache, &new.cache))
                }
                _ => continue,
            };
            self.changes.push(Change::new(change.0, format!("group {name}"), change.1));
        }
    }

    fn tell_surfaces(&mut self, now: Now<'_>, next: &Config) {
        let old = now.config;
        let mut format = next.log.clone();
        format.filter.clone_from(&old.log.filter);
        let mut cluster = next.cluster.clone();
        cluster.seeds.clone_from(&old.cluster.seeds);
        let waiting = [
            ("[cluster]", now.has_clients, differences(&old.cluster, &cluster)),
            ("[match]", now.has_clients, differences(&old.matching, &next.matching)),
            ("[meta]", now.has_clients, differences(&old.meta, &next.meta)),
            ("[discovery]", now.has_clients, differences(&old.discovery, &next.discovery)),
            ("[http]", now.has_clients, differences(&old.http, &next.http)),
            ("[admin]", now.has_operators, differences(&old.admin, &next.admin)),
            ("[peers]", now.has_clients, differences(&old.peers, &next.peers)),
            ("[wasm]", now.has_host, differences(&old.wasm, &next.wasm)),
            ("[log]", now.has_log, differences(&old.log, &format)),
        ];
        for (subject, is_there, detail) in waiting {
            if is_there && !detail.is_empty() {
                self.changes.push(Change::new(Action::Restart, subject, detail));
            }
        }
        if old.is_member() && old.cluster.seeds != next.cluster.seeds {
            let detail = format!("seeds {:?} → {:?}", old.cluster.seeds, next.cluster.seeds);
            self.changes.push(Change::new(Action::Changed, "[cluster]", detail));
        }
        if now.has_log && old.log.filter != next.log.filter {
            self.is_log_changed = true;
            let detail = format!("filter {} → {}", old.log.filter, next.log.filter);
            self.changes.push(Change::new(Action::Changed, "[log]", detail));
        }
    }

    /// The names of the plugins, or of the groups, that share a fate.
    pub(super) fn having(
        fates: &BTreeMap<String, Fate>,
        fate: Fate,
    ) -> impl Iterator<Item = &String> {
        fates.iter().filter(move |(_, its)| **its == fate).map(|(name, _)| name)
    }
}

/// `next` as it will be in force: what is made once at the start stays as it is.
pub(super) fn in_force(now: Now<'_>, next: Config) -> Config {
    let old = now.config;
    let next_seeds = next.cluster.seeds.clone();
    let mut config = next;
    config.http = old.http.clone();
    config.admin = old.admin.clone();
    config.peers = old.peers.clone();
    config.cluster = old.cluster.clone();
    config.matching = old.matching.clone();
    config.meta = old.meta.clone();
    config.discovery = old.discovery.clone();
    if old.is_member() {
        config.cluster.seeds = next_seeds;
    }
    config.log.format = old.log.format;
    if now.has_host {
        config.wasm = old.wasm.clone();
    }
    config
}

/// Why `next` cannot be in force whatever its plugins are like.
pub(super) fn obstacles(now: Now<'_>, next: &Config, natives: &[String]) -> Vec<String> {
    let mut obstacles = Vec::new();
    for (name, group) in &next.groups {
        if natives.contains(name) {
            obstacles
                .push(format!("group `{name}` is both in the config and added by the program"));
        }
        if !next.plugins.contains_key(&group.plugin) {
            obstacles.push(format!(
                "group `{name}` names plugin `{}`, which is not there",
                group.plugin
            ));
        }
    }
    if !now.has_host {
        return obstacles;
    }
    // The settings fit their own [wasm]; the engine was made with another one.
    let wasm = &now.config.wasm;
    let sum: u64 = next.plugins.values().map(|plugin| u64::from(plugin.limits.instances)).sum();
    if sum > u64::from(wasm.instances_max) {
        obstacles.push(format!(
            "the plugins may have {sum} instances together, and this node was started with [wasm] \
             instances_max = {}; lower the plugins' `instances`, or restart the node",
            wasm.instances_max
        ));
    }
    for (name, plugin) in &next.plugins {
        if plugin.limits.memory > wasm.memory_max {
            obstacles.push(format!(
                "plugin `{name}` may have {} of memory, and this node was started with [wasm] \
                 memory_max = \"{}\"; lower the plugin's `memory`, or restart the node",
                plugin.limits.memory, wasm.memory_max
            ));
        }
    }
    obstacles
}

fn fates<T>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    compare: impl Fn(&T, &T) -> Fate,
) -> BTreeMap<String, Fate> {
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    let stays = new.iter().map(|(name, new)| {
        let fate = old.get(name).map_or(Fate::Added, |old| compare(old, new));
        (name.clone(), fate)
    });
    gone.map(|name| (name.clone(), Fate::Removed)).chain(stays).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{ByteSize, Group, Plugin};

    fn config() -> Config {
        let mut config = Config::default();
        config.plugins.insert("dict".to_owned(), Plugin::new("dict.wasm"));
        config.plugins.insert("http".to_owned(), Plugin::new("http.wasm"));
        config.groups.insert("define".to_owned(), Group::new("dict"));
        config.groups.insert("pages".to_owned(), Group::new("http"));
        config
    }

    fn now(config: &Config) -> Now<'_> {
        Now {
            config,
            base_dir: Path::new("/etc"),
            has_clients: true,
            has_operators: true,
            has_host: true,
            has_log: true,
        }
    }

    fn plan(old: &Config, next: &Config) -> Plan {
        Plan::new(now(old), next, Path::new("/etc"))
    }

    fn told(plan: &Plan) -> Vec<String> {
        let line = |it: &Change| format!("{} {}: {}", it.action, it.subject, it.detail);
        plan.changes.iter().map(line).collect()
    }

    #[test]
    fn nothing_has_to_be_done_for_the_same_settings() {
        let plan = plan(&config(), &config());
        assert!(plan.changes.is_empty() && !plan.is_log_changed);
        assert!(plan.plugins.values().chain(plan.groups.values()).all(|it| *it == Fate::Kept));
    }

    #[test]
    fn every_change_has_its_fate_and_its_line() {
        let old = config();
        let mut next = config();
        next.plugins.remove("http");
        next.plugins.insert("geo".to_owned(), Plugin::new("geo.wasm"));
        if let Some(dict) = next.plugins.get_mut("dict") {
            dict.limits.queue = 7;
        }
        next.groups.insert("places".to_owned(), Group::new("geo"));
        next.groups.insert("pages".to_owned(), Group::new("geo"));
        if let Some(define) = next.groups.get_mut("define") {
            define.cache.ttl = Duration::from_secs(5);
        }
        let plan = plan(&old, &next);
        assert_eq!(plan.plugins["dict"], Fate::Changed);
        assert_eq!(plan.plugins["geo"], Fate::Added);
        assert_eq!(plan.plugins["http"], Fate::Removed);
        assert_eq!(plan.groups["define"], Fate::Changed);
        assert_eq!(plan.groups["pages"], Fate::Replaced);
        assert_eq!(plan.groups["places"], Fate::Added);
        assert_eq!(
            told(&plan),
            [
                "changed plugin dict: limits.queue 1024 → 7",
                "added plugin geo: /etc/geo.wasm",
                "removed plugin http: ",
                "changed group define: ttl 10m → 5s",
                "changed group pages: plugin http → geo, emptied",
                "added group places: filled by geo",
            ]
        );
    }

    #[test]
    fn what_is_made_once_waits_for_a_restart() {
        let old = config();
        let mut next = config();
        next.http.threads = 3;
        next.wasm.instances_max = 512;
        next.log.filter = "debug".to_owned();
        let plan = plan(&old, &next);
        assert_eq!(
            told(&plan),
            [
                "restart [http]: threads 0 → 3",
                "restart [wasm]: instances_max 256 → 512",
                "changed [log]: filter info → debug",
            ]
        );
        let in_force = in_force(now(&old), next.clone());
        assert_eq!((&in_force.http, &in_force.wasm), (&old.http, &old.wasm));
        assert_eq!(in_force.log.filter, "debug");
        // A node that has none of it waits for nothing.
        let bare = Now { has_clients: false, has_host: false, has_log: false, ..now(&old) };
        assert!(Plan::new(bare, &next, Path::new("/etc")).changes.is_empty());
    }

    #[test]
    fn the_same_file_elsewhere_is_another_one() {
        let (old, next) = (config(), config());
        let moved = Plan::new(now(&old), &next, Path::new("/opt"));
        assert_eq!(moved.plugins["dict"], Fate::Changed);
        assert_eq!(told(&moved)[0], "changed plugin dict: paths begin at /opt");
    }

    #[test]
    fn what_does_not_fit_the_running_node_is_an_obstacle() {
        let old = config();
        let mut next = config();
        assert!(obstacles(now(&old), &next, &[]).is_empty());
        next.wasm.instances_max = 1_000;
        next.wasm.memory_max = ByteSize::mib(512);
        if let Some(dict) = next.plugins.get_mut("dict") {
            dict.limits.instances = 300;
            dict.limits.memory = ByteSize::mib(300);
        }
        next.groups.insert("lost".to_owned(), Group::new("nowhere"));
        let found = obstacles(now(&old), &next, &["define".to_owned()]);
        for said in ["added by the program", "`nowhere`", "instances_max = 256", "\"256MiB\""] {
            assert!(found.iter().any(|it| it.contains(said)), "no {said} in {found:?}");
        }
        assert_eq!(found.len(), 4);
    }
}
