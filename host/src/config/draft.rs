//! Settings while they are read: what was accepted so far, where it came from, and what
//! was wrong.
//!
//! Values that were refused are left out and their paths remembered as unsound, so that
//! the rest can still be checked without blaming it for its neighbours.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::report::{Place, Report};

/// Keys from the root down.
pub(super) type Path = Vec<String>;

/// Where a setting stands.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// Its name: the key, or the last part of a table's header.
    pub(super) key: Place,
    /// Its value.
    pub(super) value: Place,
}

/// Settings while they are read.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// What was accepted.
    pub(super) table: Table,
    /// Where it stands. Whatever is not here is a default.
    pub(super) sites: BTreeMap<Path, Site>,
    unsound: BTreeSet<Path>,
    pub(super) reports: Vec<Report>,
}

impl Draft {
    /// Remembers that the value at `path` was refused, and why.
    pub(super) fn refuse(&mut self, path: &[String], report: Report) {
        self.unsound.insert(path.to_vec());
        self.reports.push(report);
    }

    /// Whether the value at `path` is what the user meant: neither it nor a table around
    /// it was refused.
    pub(super) fn is_sound<S: AsRef<str>>(&self, path: &[S]) -> bool {
        let path: Path = path.iter().map(|key| key.as_ref().to_owned()).collect();
        (0..=path.len()).all(|length| !self.unsound.contains(&path[..length]))
    }

    /// Where the value at `path` stands, unless it is a default.
    pub(super) fn site<S: AsRef<str>>(&self, path: &[S]) -> Option<&Site> {
        let path: Path = path.iter().map(|key| key.as_ref().to_owned()).collect();
        self.sites.get(&path)
    }

    /// The key at `path`, or of the nearest table around it that is written down.
    pub(super) fn nearest_key<S: AsRef<str>>(&self, path: &[S]) -> Option<Place> {
        (1..=path.len()).rev().find_map(|length| Some(self.site(&path[..length])?.key.clone()))
    }

    /// The accepted table at `path`.
    pub(super) fn table_at(&self, path: &[String]) -> Option<&Table> {
        path.iter().try_fold(&self.table, |table, key| table.get(key)?.as_table())
    }

    /// Puts a value in place of whatever is at `path`, with the tables on the way.
    pub(super) fn put(&mut self, path: &[String], value: Value, site: &Site) {
        let Some((last, way)) = path.split_last() else { return };
        let mut table = &mut self.table;
        for (depth, key) in way.iter().enumerate() {
            self.sites.entry(path[..=depth].to_vec()).or_insert_with(|| site.clone());
            let next = table.entry(key).or_insert_with(|| Value::Table(Table::new()));
            if !next.is_table() {
                *next = Value::Table(Table::new());
            }
            table = next.as_table_mut().expect("made a table above");
        }
        table.insert(last.clone(), value);
        // Nothing below is what the file said any longer.
        self.sites.retain(|below, _| !below.starts_with(path));
        self.unsound.retain(|below| !below.starts_with(path));
        self.sites.insert(path.to_vec(), site.clone());
    }

    /// Takes the value at `path` back: it is its default again.
    pub(super) fn remove(&mut self, path: &[String]) {
        let Some((last, way)) = path.split_last() else { return };
        let table = way.iter().try_fold(&mut self.table, |table, key| {
            table.get_mut(key).and_then(Value::as_table_mut)
        });
        if let Some(table) = table {
            table.remove(last);
        }
        self.sites.retain(|below, _| !below.starts_with(path));
        self.unsound.retain(|below| !below.starts_with(path));
    }

    /// Puts every place elsewhere, for settings that were written anew before they were
    /// read.
    pub(super) fn relocate(&mut self, place: impl Fn(&Place) -> Place) {
        for site in self.sites.values_mut() {
            site.key = place(&site.key);
            site.value = place(&site.value);
        }
        self.reports.iter_mut().for_each(|report| report.relocate(&place));
    }
}
