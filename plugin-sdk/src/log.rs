//! Records in the node's log.
//!
//! The node bounds a record to 4 KiB of message and 16 fields, and the records
//! of a plugin to a rate. Fields are pairs of name and value:
//!
//! ```
//! # use cachecluster_plugin::log;
//! log::warn("The server is slow.", &[("server", "dict.example:2628")]);
//! ```

use crate::host;

/// How much a record matters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// Every step, for whoever works on the plugin.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// Something an operator wants on the timeline; never one a call.
    Info,
    /// Something is wrong, and the plugin copes.
    Warn,
    /// Something is wrong, and a call failed for it.
    Error,
}

/// Whether a record of `level` would be kept: ask before costly work on one.
pub fn enabled(level: Level) -> bool {
    host::log_enabled(level)
}

/// Writes a record of `level`.
pub fn log(level: Level, message: &str, fields: &[(&str, &str)]) {
    host::log(level, message, fields);
}

/// Writes a record of [`Level::Trace`].
pub fn trace(message: &str, fields: &[(&str, &str)]) {
    log(Level::Trace, message, fields);
}

/// Writes a record of [`Level::Debug`].
pub fn debug(message: &str, fields: &[(&str, &str)]) {
    log(Level::Debug, message, fields);
}

/// Writes a record of [`Level::Info`].
pub fn info(message: &str, fields: &[(&str, &str)]) {
    log(Level::Info, message, fields);
}

/// Writes a record of [`Level::Warn`].
pub fn warn(message: &str, fields: &[(&str, &str)]) {
    log(Level::Warn, message, fields);
}

/// Writes a record of [`Level::Error`].
pub fn error(message: &str, fields: &[(&str, &str)]) {
    log(Level::Error, message, fields);
}
