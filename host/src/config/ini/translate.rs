//! What the ancestor's settings mean here.
//!
//! A value that the ancestor would have read as something else without a word is an error;
//! a setting that it ignored, or that this program has no use for, is a warning.

use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{
    parse::{Entry, File, Piece},
    writer::{Translation, string},
};
use crate::config::{
    Report,
    draft::Path,
    report::{Place, Source, listed, nearest, quoted},
};

/// The title of the report that nobody has to prove anything in the ancestor's clusters.
pub(super) const OPEN: &str = "a cluster of gce-cache-cluster has no key";

/// The ancestor's sections and their keys; `[meta]` has the user's own.
const KNOWN: [(&str, &[&str]); 4] = [
    ("cache", &["port", "gc_percent", "periodic_release"]),
    ("cluster", &["port", "heartbeat"]),
    ("match", &["project", "zone", "network_interface", "tags"]),
    ("meta", &[]),
];

/// Writes `file` anew, and tells what is to be told about it. `name` stands for its path.
pub(super) fn file(file: &File, source: &Arc<Source>, name: &str) -> (Translation, Vec<Finding>) {
    let mut translator = Translator { source, findings: Vec::new() };
    translator.lost(file);
    translator.sections(file);
    let settings = translator.settings(file);
    let header = |name: &str| {
        let section = file.sections.iter().find(|section| section.text == name);
        section.map_or(0..0, |section| section.span.clone())
    };
    let mut out = Translation::default();
    out.comment(&format!("From {}.", quoted(name)));
    translator.ports(&settings, &mut out, &header);
    translator.matching(&settings, &mut out, &header);
    translator.ignored(&settings);
    out.table("discovery.gce", header("match"));
    out.comment(
        "gce-cache-cluster always looks for its peers among the instances of Compute Engine.",
    );
    out.setting(("enabled", header("match")), ("true", header("match")));
    (out, translator.findings)
}

/// Something to be told, and the setting of this program that it leaves unknown.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) report: Report,
    pub(super) unsound: Option<Path>,
}

/// What counts of a file: the last value of each key, in the order of the first ones.
struct Settings<'a> {
    entries: Vec<&'a Entry>,
}

impl<'a> Settings<'a> {
    fn get(&self, section: &str, key: &str) -> Option<&'a Entry> {
        self.of(section).find(|entry| entry.key.text == key)
    }

    fn of(&self, section: &str) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().copied().filter(move |entry| entry.section == section)
    }
}

struct Translator<'a> {
    source: &'a Arc<Source>,
    findings: Vec<Finding>,
}

impl Translator<'_> {
    fn place(&self, span: &Range<usize>) -> Place {
        Place::new(self.source, span.clone())
    }

    /// Says that the value of `entry` cannot be used.
    fn refuse(&mut self, entry: &Entry, title: String, note: &str, help: impl Into<String>) {
        let label = format!("{}.{}", entry.section, entry.key.text);
        let report = Report::error(title).at(Some(self.place(&entry.value.span)), label);
        let report = if note.is_empty() { report } else { report.note(note) };
        let path = match (entry.section.as_str(), entry.key.text.as_str()) {
            ("cache", "port") => ["peers", "listen"],
            (section, key) => [section, key],
        };
        let unsound = Some(path.map(str::to_owned).to_vec());
        self.findings.push(Finding { report: report.help(help), unsound });
    }

    fn tell(&mut self, report: Report) {
        self.findings.push(Finding { report, unsound: None });
    }

    /// Says that `entry` does not do what somebody may expect of it.
    fn warn(&mut self, entry: &Entry, title: String, note: &str, help: &str) {
        let report = Report::warning(title).at(Some(self.place(&entry.key.span)), "").note(note);
        self.tell(if help.is_empty() { report } else { report.help(help) });
    }

    /// What the ancestor throws away on lines that it reads otherwise.
    fn lost(&mut self, file: &File) {
        for span in &file.lost {
            let report = Report::error("text that is no part of any setting")
                .at(Some(self.place(span)), "")
                .note("gce-cache-cluster throws it away without a word")
                .help("put it on a line of its own, or make it a comment with `#`");
            self.tell(report);
        }
    }

    /// Sections that the ancestor does not look into.
    fn sections(&mut self, file: &File) {
        let names = KNOWN.map(|(name, _)| name);
        let mut told = Vec::new();
        for section in &file.sections {
            let text = section.text.as_str();
            if names.contains(&text) || told.contains(&text) {
                continue;
            }
            told.push(text);
            let title = format!("gce-cache-cluster has no section {}", quoted(text));
            let report = match nearest(text.trim(), names) {
                Some(near) => Report::error(title)
                    .at(Some(self.place(&section.span)), "")
                    .note("it ignores the whole section without a word")
                    .help(format!("did you mean `[{near}]`? case and spaces count")),
                None if text.contains(']') => Report::error(title)
                    .at(Some(self.place(&section.span)), "")
                    .note("a name ends at the last `]` of its line, even in a comment")
                    .help("put the comment on a line of its own"),
                None => Report::warning(title)
                    .at(Some(self.place(&section.span)), "")
                    .note("whatever it holds is ignored, there and here")
                    .help(format!("sections are {}", listed(names))),
            };
            self.tell(report);
        }
    }

    /// The settings that count, after a word about those that do not.
    fn settings<'f>(&mut self, file: &'f File) -> Settings<'f> {
        let mut at: HashMap<(&str, &str), usize> = HashMap::new();
        let mut entries: Vec<&Entry> = Vec::new();
        for entry in &file.entries {
            let Some((_, keys)) = KNOWN.iter().find(|(name, _)| *name == entry.section) else {
                if entry.section.is_empty() {
                    self.homeless(entry);
                }
                continue;
            };
            if !keys.is_empty() && !keys.contains(&entry.key.text.as_str()) {
                self.unknown(entry, keys);
                continue;
            }
            match at.get(&(entry.section.as_str(), entry.key.text.as_str())) {
                None => {
                    at.insert((&entry.section, &entry.key.text), entries.len());
                    entries.push(entry);
                }
                Some(&index) => {
                    let earlier = std::mem::replace(&mut entries[index], entry);
                    let report = Report::warning(format!(
                        "{} of `[{}]` is set again",
                        quoted(&entry.key.text),
                        entry.section
                    ))
                    .at(Some(self.place(&earlier.value.span)), "this one is ignored")
                    .at(Some(self.place(&entry.value.span)), "the last one counts")
                    .help("keep one of them");
                    self.tell(report);
                }
            }
            if entry.is_continued && entry.value.text.contains(['#', ';']) {
                let report = Report::error("a comment became part of the value")
                    .at(Some(self.place(&entry.value.span)), "")
                    .note("a line that ends in a backslash goes on in the next, comments and all")
                    .help("write the value on one line, and the comment on another");
                self.tell(report);
            }
        }
        Settings { entries }
    }

    /// A setting before the first section.
    fn homeless(&mut self, entry: &Entry) {
        let key = entry.key.text.as_str();
        let homes = KNOWN.iter().filter(|(_, keys)| keys.contains(&key));
        let homes: Vec<String> = homes.map(|(name, _)| format!("[{name}]")).collect();
        let title = format!("{} stands in no section", quoted(key));
        let report = if homes.is_empty() {
            Report::warning(title)
        } else {
            let homes = listed(homes.iter().map(String::as_str));
            Report::error(title).help(format!("move it below {homes}"))
        };
        let report = report.at(Some(self.place(&entry.key.span)), "");
        self.tell(report.note("gce-cache-cluster ignores it without a word"));
    }

    /// A key of a section that the ancestor does not ask for.
    fn unknown(&mut self, entry: &Entry, keys: &[&str]) {
        let key = entry.key.text.as_str();
        let title = format!("gce-cache-cluster has no {} in `[{}]`", quoted(key), entry.section);
        let note = "gce-cache-cluster ignores it without a word";
        let other = KNOWN.iter().find(|(_, keys)| keys.contains(&key)).map(|(name, _)| name);
        let report = match (nearest(key, keys.iter().copied()), other) {
            (Some(near), _) => {
                Report::error(title).help(format!("did you mean `{near}`? case counts"))
            }
            (None, Some(home)) => Report::error(title).help(format!("it belongs in `[{home}]`")),
            (None, None) => {
                Report::warning(title).help(format!("keys are {}", listed(keys.iter().copied())))
            }
        };
        self.tell(report.at(Some(self.place(&entry.key.span)), "").note(note));
    }

    fn ports(
        &mut self,
        settings: &Settings<'_>,
        out: &mut Translation,
        header: &impl Fn(&str) -> Range<usize>,
    ) {
        let peers = settings.get("cache", "port");
        if let Some((entry, port)) = peers.and_then(|entry| Some((entry, self.peers_port(entry)?)))
        {
            out.table("peers", header("cache"));
            let listen = string(&format!("0.0.0.0:{port}"));
            let key = ("listen", entry.key.span.clone());
            out.setting(key, (&listen, entry.value.span.clone()));
            self.warn(
                entry,
                "`cache.port` is `[peers] listen` here".to_owned(),
                "nodes ask one another there, as those of gce-cache-cluster do; programs get values over HTTP \
                 from `[http] listen`, which is 127.0.0.1:8080 unless set, in place of a function \
                 of the library",
                "",
            );
        }
        out.table("cluster", header("cluster"));
        let gossip = settings.get("cluster", "port");
        if let Some((entry, port)) =
            gossip.and_then(|entry| Some((entry, self.gossip_port(entry)?)))
        {
            let key = ("port", entry.key.span.clone());
            out.setting(key, (&port.to_string(), entry.value.span.clone()));
        }
        let place = header("cluster");
        let report = Report::warning(OPEN)
            .at((!place.is_empty()).then(|| self.place(&place)), "")
            .note("whoever reaches its ports can join it, purge it and read everything")
            .help(
                "make a key with `cachecluster keygen FILE`, give it to every node and name it in \
                 CACHECLUSTER_CLUSTER__KEY_FILE, or in `key_file` of `[cluster]` once the file is \
                 imported",
            );
        self.tell(report);
        out.comment(
            "Clusters of gce-cache-cluster have no key. To have one, put `key_file` in place of this.",
        );
        out.setting(("insecure", place.clone()), ("true", place));
    }

    /// The port for peers, if it can be used.
    fn peers_port(&mut self, entry: &Entry) -> Option<u16> {
        match self.integer(entry, "unset, the port is 9080 here")? {
            0 => {
                let title = "no peer can know port 0".to_owned();
                let help = "choose a port: `port = 9080` is customary";
                self.refuse(
                    entry,
                    title,
                    "it means a free port, and all peers ask \
                                           one another on the same",
                    help,
                );
                None
            }
            number => self.port(entry, number),
        }
    }

    /// The port for gossip, if it can be used and is not left to the default.
    fn gossip_port(&mut self, entry: &Entry) -> Option<u16> {
        match self.integer(entry, "unset, the port is 9999, there and here")? {
            0 => {
                let title = "port 0 of a cluster is 9999".to_owned();
                self.warn(
                    entry,
                    title,
                    "gce-cache-cluster takes it for unset, and so does this node",
                    "write `port = 9999`",
                );
                None
            }
            number => self.port(entry, number),
        }
    }

    fn port(&mut self, entry: &Entry, number: i64) -> Option<u16> {
        let port = u16::try_from(number).ok();
        if port.is_none() {
            let title = format!("{} is no port", quoted(&entry.value.text));
            self.refuse(entry, title, "", "choose one from 1 to 65535");
        }
        port
    }

    /// The number of `entry`; `unset` tells what it is without one.
    fn integer(&mut self, entry: &Entry, unset: &str) -> Option<i64> {
        let number = entry.value.text.parse().ok();
        if number.is_none() {
            let title = match entry.value.text.as_str() {
                "" => "a port without a number".to_owned(),
                text => format!("{} is not an integer", quoted(text)),
            };
            let help = format!("write digits alone, or remove the line: {unset}");
            self.refuse(entry, title, "gce-cache-cluster takes it for 0 without a word", help);
        }
        number
    }

    fn matching(
        &mut self,
        settings: &Settings<'_>,
        out: &mut Translation,
        header: &impl Fn(&str) -> Range<usize>,
    ) {
        let interface = settings.get("match", "network_interface");
        let interface =
            interface.filter(|entry| self.is_plain(entry) && !entry.value.text.is_empty());
        let tags = settings.get("match", "tags");
        let tags = tags.filter(|entry| self.is_plain(entry) && !entry.value.text.is_empty());
        if interface.is_some() || tags.is_some() {
            out.table("match", header("match"));
        }
        if let Some(entry) = interface {
            let value = string(&entry.value.text);
            let key = ("network_interface", entry.key.span.clone());
            out.setting(key, (&value, entry.value.span.clone()));
        }
        if let Some(entry) = tags {
            let items = items(&entry.value);
            if items.iter().any(|(item, _)| item.is_empty()) {
                let title = "an empty tag".to_owned();
                let note = "no instance has it, so that gce-cache-cluster finds no peers";
                self.refuse(entry, title, note, "remove the comma that has no tag beside it");
            } else {
                let key = ("tags", entry.key.span.clone());
                out.list(key, entry.value.span.clone(), items.into_iter());
            }
        }
        let mut meta = settings.of("meta").filter(|entry| self.is_metadata(entry)).peekable();
        if meta.peek().is_some() {
            out.table("meta", header("meta"));
        }
        for entry in meta {
            let value = string(&entry.value.text);
            out.setting(
                (&entry.key.text, entry.key.span.clone()),
                (&value, entry.value.span.clone()),
            );
        }
    }

    /// Whether the value means what it says. The ancestor's library put another key's
    /// value in place of `%(key)s`, and leaves two quotes with nothing between them alone.
    fn is_plain(&mut self, entry: &Entry) -> bool {
        let text = &entry.value.text;
        let is_reference = text.split_once("%(").is_some_and(|(_, rest)| rest.contains(")s"));
        if is_reference {
            let title = format!("{} names another key", quoted(text));
            let note = "gce-cache-cluster puts that key's value in its place; nothing does here";
            self.refuse(entry, title, note, "write the value itself");
        }
        !is_reference && self.is_no_pair_of_quotes(entry)
    }

    fn is_metadata(&mut self, entry: &Entry) -> bool {
        if entry.key.text == "-" {
            let title = "`-` is no name of metadata".to_owned();
            let note = "gce-cache-cluster puts a number in its place, which no instance has";
            self.refuse(entry, title, note, "name the key whose value instances share");
            return false;
        }
        self.is_no_pair_of_quotes(entry)
    }

    fn is_no_pair_of_quotes(&mut self, entry: &Entry) -> bool {
        let is_pair = matches!(entry.value.text.as_str(), "\"\"" | "''");
        if is_pair {
            let title = "quotes with nothing between them".to_owned();
            let note = "gce-cache-cluster takes them for the value itself";
            self.refuse(entry, title, note, "for an empty value, write nothing behind the `=`");
        }
        !is_pair
    }

    /// Settings that do nothing here, and those that never did anything.
    fn ignored(&mut self, settings: &Settings<'_>) {
        let why = [
            (
                ("cache", "gc_percent"),
                "it tunes the garbage collector of Go, and there is none here; `memory` of \
                 `[groups.NAME.cache]` is what a group may take",
            ),
            (
                ("cache", "periodic_release"),
                "it gives memory of Go's runtime back to the system; here that happens as values go",
            ),
            (
                ("cluster", "heartbeat"),
                "gce-cache-cluster reads it and does not use it; here the size of the cluster says how \
                 often members are probed",
            ),
            (
                ("match", "project"),
                "gce-cache-cluster puts its own instance's project in its place, and so does this node; \
                 `[match] projects` in TOML names others",
            ),
            (
                ("match", "zone"),
                "gce-cache-cluster puts its own instance's zone in its place, and so does this node; \
                 `[match] zones` or `regions` in TOML name others",
            ),
        ];
        for ((section, key), note) in why {
            let Some(entry) = settings.get(section, key) else { continue };
            let is_number = section != "match";
            let title = format!("`{section}.{key}` is ignored");
            if is_number && entry.value.text.parse::<i64>().is_err() {
                let shown = quoted(&entry.value.text);
                let note = format!(
                    "{note}; and {shown} is not an integer, which gce-cache-cluster takes for 0"
                );
                self.warn(entry, title, &note, "remove the line");
            } else {
                self.warn(entry, title, note, "remove the line");
            }
        }
    }
}

/// The items of a list, each with its place. There are no quotes within a list.
fn items(value: &Piece) -> Vec<(&str, Range<usize>)> {
    let is_as_written = value.span.len() == value.text.len();
    let mut start = 0;
    let item = |item: &'_ str| {
        let lead = item.len() - item.trim_start().len();
        let (begin, trimmed) = (start + lead, item.trim());
        start += item.len() + 1;
        let at = value.span.start + begin;
        if is_as_written { at..at + trimmed.len() } else { value.span.clone() }
    };
    let spans: Vec<_> = value.text.split(',').map(item).collect();
    value.text.split(',').map(str::trim).zip(spans).collect()
}
