//! The plugin's own metrics, exported with the node's under a prefix.
//!
//! Names and label names are `[a-z0-9_]{1,64}` and begin with no digit. A
//! series has at most eight labels, and a plugin a bounded number of series:
//! never use a key as a label. What breaks a rule is dropped by the node.

use crate::host;

/// Adds `delta` to the counter `name` with these labels.
pub fn counter_add(name: &str, delta: u64, labels: &[(&str, &str)]) {
    host::counter_add(name, delta, labels);
}

/// Records `value` in the histogram `name` with these labels. Use base units:
/// seconds, bytes.
pub fn histogram_record(name: &str, value: f64, labels: &[(&str, &str)]) {
    host::histogram_record(name, value, labels);
}
