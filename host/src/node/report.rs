//! What came of a reload, in words for operators and in JSON for programs.

use std::fmt;

use serde::Serialize;
use thiserror::Error;

use crate::config::Reports;

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// What is different now, and what would be but for a reason; in the order of plugins,
    /// groups and surfaces. Empty when nothing was to be done.
    pub changes: Vec<Change>,
}

/// One thing that a reload did, or did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What was done.
    pub action: Action,
    /// To what: `plugin dict`, `group define`, `[http]`.
    pub subject: String,
    /// How: the settings that differ, a digest, a reason.
    pub detail: String,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is new.
    Added,
    /// Its settings are others.
    Changed,
    /// It is gone.
    Removed,
    /// A new version of the plugin serves.
    Swapped,
    /// The plugin's file is bad, and the old version goes on serving.
    Refused,
    /// Its settings are others in the file, and apply from the next start on.
    Restart,
}

/// What came of one plugin's look at its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PluginReloaded {
    /// Name of the plugin.
    pub plugin: String,
    /// `swapped` or `unchanged`.
    pub outcome: &'static str,
    /// Digest of what serves now.
    pub digest: String,
    /// Number of what serves now: it counts up over all plugins of the node.
    pub generation: u64,
}

/// Why a reload did nothing at all: the node goes on with its old settings.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReloadError {
    /// The settings cannot be used.
    #[error("the settings cannot be used: {}", counted(.0.errors(), "error"))]
    Settings(Reports),
    /// The settings ask for what this node cannot do, or for plugins that cannot be
    /// loaded. All reasons at once.
    #[error("{}", .0.join("; "))]
    Refused(Vec<String>),
    /// There is no plugin of this name.
    #[error("no plugin of this node is named `{name}`; there {}", listed(.known))]
    UnknownPlugin {
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The node was given its settings by the program that runs it.
    #[error(
        "this node was not started from a file of settings; the program that runs it reloads them \
         through `Node::reload`"
    )]
    NoSettings,
    /// Too many reloads wait already, or the one before takes too long.
    #[error("another reload is under way; try again when it has ended")]
    Busy,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

impl Reloaded {
    /// `changed`, or `unchanged` when everything is as it was.
    pub fn outcome(&self) -> &'static str {
        let is_effective =
            |change: &Change| !matches!(change.action, Action::Refused | Action::Restart);
        if self.changes.iter().any(is_effective) { "changed" } else { "unchanged" }
    }
}

impl ReloadError {
    /// Each reason in full, with its place and its remedy.
    pub fn reasons(&self) -> Vec<String> {
        match self {
            Self::Settings(reports) => reports.iter().map(ToString::to_string).collect(),
            Self::Refused(reasons) => reasons.clone(),
            other => vec![other.to_string()],
        }
    }
}

impl Change {
    pub(super) fn new(
        action: Action,
        subject: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self { action, subject: subject.into(), detail: detail.into() }
    }
}

impl Action {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::Swapped => "swapped",
            Self::Refused => "refused",
            Self::Restart => "restart",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// `is none`, `is a`, `are a, b and c`.
fn listed(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [] => "is none".to_owned(),
        [only] => format!("is {only}"),
        [first @ .., last] => format!("are {} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_took_effect_is_a_change() {
        let reloaded = |action| Reloaded { changes: vec![Change::new(action, "x", "")] };
        assert_eq!(Reloaded::default().outcome(), "unchanged");
        assert_eq!(reloaded(Action::Restart).outcome(), "unchanged");
        assert_eq!(reloaded(Action::Refused).outcome(), "unchanged");
        assert_eq!(reloaded(Action::Swapped).outcome(), "changed");
    }

    #[test]
    fn who_misspells_a_plugin_is_told_what_there_is() {
        let error = |known: &[&str]| {
            let known = known.iter().map(|&name| name.to_owned()).collect();
            ReloadError::UnknownPlugin { name: "dicct".to_owned(), known }.to_string()
        };
        assert!(error(&[]).ends_with("there is none"));
        assert!(error(&["dict"]).ends_with("there is `dict`"));
        assert!(error(&["a", "b", "c"]).ends_with("there are `a`, `b` and `c`"));
    }
}
