//! What settings mean together: names, references, relations and budgets.
//!
//! Every rule looks at values that were read and are well-formed. A rule about several
//! settings is silent when one of them was refused already.

mod fleet;
mod matching;
mod registries;

use std::{collections::BTreeSet, fmt, time::Duration};

use tracing_subscriber::EnvFilter;

use super::{
    Caching, Config, Failure, Group, Limits, Network, Plugin, Wasm,
    draft::Draft,
    grants::{self, Refusal},
    report::{Report, Severity, listed, nearest, quoted},
    walk::{SUGGESTIONS_MAX, dotted, header},
};

/// A group's memory holds at least this many of its largest values: with fewer, each
/// new one would evict a large part of the group.
const VALUES_MIN: u64 = 4;

/// Reports everything about `config` that breaks a rule.
pub(super) fn check(draft: &mut Draft, config: &Config) {
    surfaces(draft, config);
    fleet::peers(draft, config);
    fleet::cluster(draft, config);
    matching::check(draft, config);
    registries::discovery(draft, config);
    log_filter(draft, &config.log.filter);
    for (name, plugin) in &config.plugins {
        name_of(draft, "plugins", name);
        self::plugin(draft, config, name, plugin);
    }
    instances(draft, config);
    for (name, group) in &config.groups {
        name_of(draft, "groups", name);
        self::group(draft, config, name, group);
    }
    unused(draft, config);
}

/// A setting that takes part in a relation: its path and its value in words.
struct Part<'a> {
    path: Vec<&'a str>,
    value: String,
}

impl<'a> Part<'a> {
    fn new(path: &[&'a str], value: impl fmt::Display) -> Self {
        Self { path: path.to_vec(), value: format!("{value}") }
    }

    fn time(path: &[&'a str], value: Duration) -> Self {
        Self::new(path, humantime::format_duration(value))
    }
}

/// Reports a broken relation at those of its parts that are written down; the others
/// are defaults and are named with their values.
fn relation(draft: &mut Draft, severity: Severity, title: String, parts: &[Part<'_>], help: &str) {
    if !parts.iter().all(|part| draft.is_sound(&part.path)) {
        return;
    }
    let mut report = match severity {
        Severity::Error => Report::error(title),
        Severity::Warning => Report::warning(title),
    };
    let mut notes = Vec::new();
    for part in parts {
        match draft.site(&part.path) {
            Some(site) => {
                report = report.at(
                    Some(site.value.clone()),
                    format!("{} is {}", dotted(&part.path), part.value),
                );
            }
            None => {
                notes.push(format!("{} is {} unless set", quoted(&dotted(&part.path)), part.value));
            }
        }
    }
    if notes.len() == parts.len() {
        let place = draft.nearest_key(&parts[0].path);
        report = report.at(place, "");
    }
    let report = notes.into_iter().fold(report, Report::note);
    draft.reports.push(report.help(help));
}

/// Reports a value that is wrong by itself.
pub(super) fn wrong(draft: &mut Draft, path: &[&str], title: String, help: String) {
    if !draft.is_sound(path) {
        return;
    }
    let place = match draft.site(path) {
        Some(site) => Some(site.value.clone()),
        None => draft.nearest_key(path),
    };
    let report = Report::error(title).at(place, dotted(path)).help(help);
    draft.refuse(&path.iter().map(|&key| key.to_owned()).collect::<Vec<_>>(), report);
}

fn surfaces(draft: &mut Draft, config: &Config) {
    let Config { http, admin, .. } = config;
    let is_shared = http.listen.port() == admin.listen.port()
        && http.listen.port() != 0
        && (http.listen.ip() == admin.listen.ip()
            || http.listen.ip().is_unspecified()
            || admin.listen.ip().is_unspecified());
    if is_shared {
        relation(
            draft,
            Severity::Error,
            "clients and operators cannot share one port".to_owned(),
            &[
                Part::new(&["admin", "listen"], admin.listen),
                Part::new(&["http", "listen"], http.listen),
            ],
            "give one of them another port",
        );
    }
    if http.url_max > http.headers_max {
        relation(
            draft,
            Severity::Error,
            "the path is part of the headers' size and cannot be allowed more".to_owned(),
            &[
                Part::new(&["http", "url_max"], http.url_max),
                Part::new(&["http", "headers_max"], http.headers_max),
            ],
            "lower `url_max` or raise `headers_max`",
        );
    }
}

fn log_filter(draft: &mut Draft, filter: &str) {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let path = ["log", "filter"];
    if let Err(error) = EnvFilter::builder().parse(filter) {
        let title = format!("{} is not a filter: {error}", quoted(filter));
        let help = "write a level, or targets with levels: `warn,cachecluster::plugin=debug`";
        return wrong(draft, &path, title, help.to_owned());
    }
    for word in filter.split(',').map(str::trim) {
        // A word alone is a target too, and a misspelt level would silence the rest.
        let is_level = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
        if let Some(level) = nearest(word, LEVELS).filter(|_| !is_level) {
            let title = format!("{} is not a level", quoted(word));
            let help = format!("did you mean `{level}`? if it is a target, write `{word}=trace`");
            return wrong(draft, &path, title, help);
        }
    }
}

/// Names are segments of URLs, labels of metrics and parts of file names.
fn name_of(draft: &mut Draft, table: &str, name: &str) {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let title = if name.is_empty() {
        "a name is empty".to_owned()
    } else if !name.chars().all(is_plain) {
        format!("{} has a character that no name may have", quoted(name))
    } else if name == "." || name == ".." {
        format!("{} means a folder in a URL", quoted(name))
    } else if name.starts_with("_groupcache") {
        format!("{} is reserved: nodes ask one another under it", quoted(name))
    } else if name.len() > 64 {
        format!("{} is longer than 64 characters", quoted(name))
    } else {
        return;
    };
    let report = Report::error(title)
        .at(draft.nearest_key(&[table, name]), "")
        .help("names are 1 to 64 letters, digits, `.`, `_` and `-`");
    draft.reports.push(report);
}

fn plugin(draft: &mut Draft, config: &Config, name: &str, plugin: &Plugin) {
    let at = |keys: &[&'static str]| -> Vec<&str> {
        ["plugins", name].into_iter().chain(keys.iter().copied()).collect()
    };
    if plugin.source.as_os_str().is_empty() {
        wrong(
            draft,
            &at(&["source"]),
            "a plugin without a file".to_owned(),
            "name the component's file: `source = \"NAME.wasm\"`".to_owned(),
        );
    }
    if let Some(digest) = &plugin.digest {
        let hex = digest.strip_prefix("sha256:");
        let is_digest =
            |hex: &str| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hex.is_some_and(is_digest) {
            let help = if is_digest(digest) {
                format!("put the algorithm before it: `sha256:{digest}`")
            } else {
                "write `sha256:` and the 64 digits that `sha256sum` prints".to_owned()
            };
            wrong(draft, &at(&["digest"]), format!("{} is not a digest", quoted(digest)), help);
        }
    }
    limits(draft, &["plugins", name], name, &plugin.limits, &config.wasm);
    network(draft, &["plugins", name], &plugin.network, str::to_owned);
    for secret in plugin.secrets.keys().filter(|name| plugin.config.contains_key(*name)) {
        let title = format!("{} is both a setting and a secret", quoted(secret));
        let place: Vec<&str> = ["plugins", name, "secrets", secret].into();
        let table: Vec<_> = at(&["config"]).into_iter().map(str::to_owned).collect();
        wrong(draft, &place, title, format!("remove it from {}", quoted(&header(&table))));
    }
    self::failure(draft, name, &plugin.failure);
    grants_of(draft, &at(&["cache", "read"]), &plugin.cache.read, |group| {
        if config.groups.contains_key(group) {
            return Ok(());
        }
        let known = || config.groups.keys().map(String::as_str);
        let help = match nearest(group, known()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("groups are {}", listed(known())),
        };
        Err(Refusal { title: format!("there is no group {}", quoted(group)), help })
    });
}

/// What one plugin may use, against what the host allows. `base` is the path of the
/// plugin's table.
pub(super) fn limits(draft: &mut Draft, base: &[&str], name: &str, limits: &Limits, wasm: &Wasm) {
    let at = |key: &'static str| [base, &["limits", key]].concat();
    if limits.memory > wasm.memory_max {
        relation(
            draft,
            Severity::Error,
            format!("plugin {} may not have more memory than the host allows", quoted(name)),
            &[
                Part::new(&at("memory"), limits.memory),
                Part::new(&["wasm", "memory_max"], wasm.memory_max),
            ],
            "lower `memory` or raise `wasm.memory_max`",
        );
    }
    if limits.value > limits.memory {
        relation(
            draft,
            Severity::Error,
            format!("an answer of plugin {} cannot be larger than its memory", quoted(name)),
            &[Part::new(&at("value"), limits.value), Part::new(&at("memory"), limits.memory)],
            "lower `value` or raise `memory`",
        );
    }
}

/// How the grants of one plugin are written. `written` makes of an entry what is
/// checked.
pub(super) fn network(
    draft: &mut Draft,
    base: &[&str],
    network: &Network,
    written: impl Fn(&str) -> String,
) {
    let at = |key: &'static str| [base, &["network", key]].concat();
    grants_of(draft, &at("http"), &network.http, |text| grants::http(&written(text)));
    grants_of(draft, &at("tcp"), &network.tcp, |text| grants::tcp(&written(text)));
    grants_of(draft, &at("allow_private"), &network.allow_private, grants::range);
}

/// What becomes of a plugin that fails.
fn failure(draft: &mut Draft, name: &str, failure: &Failure) {
    let at = |key: &'static str| ["plugins", name, "failure", key];
    for (low, high) in [
        (("open", failure.open), ("open_max", failure.open_max)),
        (("backoff", failure.backoff), ("backoff_max", failure.backoff_max)),
        (("poison", failure.poison), ("poison_max", failure.poison_max)),
    ] {
        if low.1 > high.1 {
            relation(
                draft,
                Severity::Error,
                format!("plugin {} has `{}` above `{}`", quoted(name), low.0, high.0),
                &[Part::time(&at(low.0), low.1), Part::time(&at(high.0), high.1)],
                &format!("lower `{}` or raise `{}`", low.0, high.0),
            );
        }
    }
}

/// Checks each entry of a list, and points at the entry.
fn grants_of<T>(
    draft: &mut Draft,
    path: &[&str],
    list: &[String],
    read: impl Fn(&str) -> Result<T, Refusal>,
) {
    if !draft.is_sound(path) {
        return;
    }
    for (index, text) in list.iter().enumerate() {
        let Err(Refusal { title, help }) = read(text) else { continue };
        let index = index.to_string();
        let entry: Vec<&str> = path.iter().copied().chain([index.as_str()]).collect();
        // A list from the environment has one place for all entries.
        let site = draft.site(path).cloned();
        let place = draft.site(&entry).cloned().or(site).map(|site| site.value);
        draft.reports.push(Report::error(title).at(place, dotted(path)).help(help));
    }
}

fn instances(draft: &mut Draft, config: &Config) {
    let sum: u64 = config.plugins.values().map(|plugin| u64::from(plugin.limits.instances)).sum();
    let max = config.wasm.instances_max;
    if sum <= u64::from(max) {
        return;
    }
    let mut parts = vec![Part::new(&["wasm", "instances_max"], max)];
    parts.extend(config.plugins.iter().map(|(name, plugin)| {
        Part::new(&["plugins", name, "limits", "instances"], plugin.limits.instances)
    }));
    relation(
        draft,
        Severity::Error,
        format!("the plugins may have {sum} instances together, the host only {max}"),
        &parts,
        &format!("lower the plugins' `instances` or raise `wasm.instances_max` to {sum}"),
    );
}

fn group(draft: &mut Draft, config: &Config, name: &str, group: &Group) {
    let plugin = config.plugins.get(&group.plugin);
    if plugin.is_none() {
        let known = || config.plugins.keys().map(String::as_str);
        let is_searched = draft.reports.len() < SUGGESTIONS_MAX;
        let near = is_searched.then(|| nearest(&group.plugin, known())).flatten();
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if config.plugins.is_empty() => {
                format!(
                    "add {} with its `source`",
                    header(&["plugins".to_owned(), group.plugin.clone()])
                )
            }
            None => format!("plugins are {}", listed(known())),
        };
        let title = format!("there is no plugin {}", quoted(&group.plugin));
        wrong(draft, &["groups", name, "plugin"], title, help);
    }
    caching(draft, name, &group.cache);
    if let Some(plugin) = plugin {
        together(draft, name, group, plugin);
    }
}

/// How one group caches.
fn caching(draft: &mut Draft, name: &str, cache: &Caching) {
    let at = |key: &'static str| ["groups", name, "cache", key];
    let quoted_name = quoted(name);
    let mut ordered = |low: (&'static str, Duration), high: (&'static str, Duration)| {
        if low.1 > high.1 {
            relation(
                draft,
                Severity::Error,
                format!("group {quoted_name} has `{}` above `{}`", low.0, high.0),
                &[Part::time(&at(low.0), low.1), Part::time(&at(high.0), high.1)],
                &format!("lower `{}` or raise `{}`", low.0, high.0),
            );
        }
    };
    ordered(("ttl_min", cache.ttl_min), ("ttl", cache.ttl));
    ordered(("ttl", cache.ttl), ("ttl_max", cache.ttl_max));
    ordered(("grace", cache.grace), ("grace_max", cache.grace_max));
    ordered(("backoff", cache.backoff), ("backoff_max", cache.backoff_max));
    ordered(("batch_window", cache.batch_window), ("fill_timeout", cache.fill_timeout));
    let largest = cache.memory.get() / VALUES_MIN;
    if cache.value_max.get() > largest {
        relation(
            draft,
            Severity::Error,
            format!(
                "the memory of group {quoted_name} would hold fewer than {VALUES_MIN} of its largest values"
            ),
            &[Part::new(&at("value_max"), cache.value_max), Part::new(&at("memory"), cache.memory)],
            &format!(
                "lower `value_max` to {} or less, or raise `memory`",
                super::ByteSize::bytes(largest)
            ),
        );
    }
}

/// What a group expects of its plugin. These are warnings: a plugin may serve several
/// groups, and either side may be the stricter one on purpose.
fn together(draft: &mut Draft, name: &str, group: &Group, plugin: &Plugin) {
    let fill_timeout = ["groups", name, "cache", "fill_timeout"];
    let timeout = ["plugins", &group.plugin, "limits", "timeout"];
    if plugin.limits.timeout > group.cache.fill_timeout {
        relation(
            draft,
            Severity::Warning,
            format!("fills of group {} end before its plugin's calls do", quoted(name)),
            &[
                Part::time(&fill_timeout, group.cache.fill_timeout),
                Part::time(&timeout, plugin.limits.timeout),
            ],
            "lower the plugin's `timeout`, so that it can say what went wrong",
        );
    }
    let value_max = ["groups", name, "cache", "value_max"];
    let value = ["plugins", &group.plugin, "limits", "value"];
    if group.cache.value_max > plugin.limits.value && draft.site(&value_max).is_some() {
        relation(
            draft,
            Severity::Warning,
            format!("group {} keeps larger values than its plugin may answer", quoted(name)),
            &[Part::new(&value_max, group.cache.value_max), Part::new(&value, plugin.limits.value)],
            "raise the plugin's `value`, or lower `value_max`",
        );
    }
}

fn unused(draft: &mut Draft, config: &Config) {
    let is_settled = draft.is_sound(&["groups"])
        && config.groups.keys().all(|group| draft.is_sound(&["groups", group, "plugin"]));
    if !is_settled {
        // A group whose plugin is misspelt has been reported; this would repeat it.
        return;
    }
    let used: BTreeSet<&str> = config.groups.values().map(|group| group.plugin.as_str()).collect();
    for name in config.plugins.keys().filter(|name| !used.contains(name.as_str())) {
        let path = ["plugins", name.as_str()];
        if draft.is_sound(&path) {
            let report = Report::warning(format!("plugin {} fills no group", quoted(name)))
                .at(draft.nearest_key(&path), "")
                .help(format!("add a group: `[groups.NAME]` with `plugin = \"{name}\"`"));
            draft.reports.push(report);
        }
    }
}
