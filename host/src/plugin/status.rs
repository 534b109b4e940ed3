//! What operators see of a plugin.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use tokio::time::Instant;
use tracing::warn;

use super::reload::ReloadStatus;
use crate::config::Limits;

/// A plugin that fails a thousand times a second is reported once a second.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// A plugin at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct PluginStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Its file.
    pub source: String,
    /// `sha256:` and the digest of its file.
    pub digest: String,
    /// Counts up with each version of any plugin that the node has loaded.
    pub generation: u64,
    /// When that was, in seconds since 1970.
    pub loaded_at: u64,
    /// Track of the contract it is built against.
    pub contract: &'static str,
    /// Which optional interfaces it has.
    pub exports: ExportStatus,
    /// What one call and one instance may use.
    pub limits: Limits,
    /// Its live instances.
    pub instances: InstanceStatus,
    /// Calls since it was loaded.
    pub calls: u64,
    /// Calls among them that cost an instance: traps, timeouts, broken answers.
    pub faults: u64,
    /// The last call that failed.
    pub last_error: Option<LastError>,
    /// How it fares, and whether it is asked at all.
    pub health: HealthStatus,
    /// Memory of its instances.
    pub memory_bytes: u64,
    /// How its versions stand.
    pub reload: ReloadStatus,
}

/// Which optional interfaces a plugin exports.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ExportStatus {
    /// `batch-getter`.
    pub batch: bool,
    /// `lifecycle`.
    pub lifecycle: bool,
}

/// The live instances of a plugin.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct InstanceStatus {
    /// Serving a call.
    pub busy: u32,
    /// Waiting for one.
    pub idle: u32,
    /// Calls at once at most.
    pub max: u32,
    /// Calls that wait for an instance.
    pub waiting: u32,
}

/// The last failure of a plugin.
#[derive(Clone, Debug, Serialize)]
pub struct LastError {
    /// What happened.
    pub message: String,
    /// When, in seconds since 1970.
    pub at: u64,
}

/// How a plugin fares.
#[derive(Clone, Debug, Serialize)]
pub struct HealthStatus {
    /// Whether it is asked.
    pub breaker: BreakerStatus,
    /// Keys that are left alone because their calls kept costing an instance.
    pub poisonous_keys: usize,
    /// Calls that repeated a failed one, since the node started.
    pub retries: u64,
    /// The last self-check of the version that serves.
    pub last_check: Option<CheckStatus>,
}

/// The breaker of a plugin.
#[derive(Clone, Debug, Serialize)]
pub struct BreakerStatus {
    /// `closed`, `open` or `half_open`.
    pub state: &'static str,
    /// Since when it is closed, or is not, in seconds since 1970.
    pub since: u64,
    /// Time until it is tried again, while it is open.
    pub retry_in_seconds: Option<f64>,
    /// Times it opened since the node started.
    pub openings: u64,
    /// Calls within the window.
    pub calls: u32,
    /// Faults among them.
    pub faults: u32,
}

/// A self-check of a plugin.
#[derive(Clone, Debug, Serialize)]
pub struct CheckStatus {
    /// When, in seconds since 1970.
    pub at: u64,
    /// What it found, if anything.
    pub error: Option<String>,
}

/// What is counted about a plugin while it serves.
#[derive(Default)]
pub(super) struct Stats {
    pub(super) busy: AtomicU32,
    pub(super) calls: AtomicU64,
    pub(super) faults: AtomicU64,
    last_error: Mutex<Option<LastError>>,
    reported: Mutex<Option<Instant>>,
}

/// A time as operators see it: in seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Stats {
    /// Remembers that a call failed.
    pub(super) fn failed(&self, message: String) {
        let error = LastError { message, at: seconds(SystemTime::now()) };
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// Counts a call that cost an instance, and tells the operator.
    pub(super) fn faulted(&self, plugin: &str, message: String) {
        let faults = self.faults.fetch_add(1, Relaxed) + 1;
        let now = Instant::now();
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.is_none_or(|reported| now - reported >= REPORT_INTERVAL) {
            *reported = Some(now);
            drop(reported);
            warn!(plugin, faults, error = message, "A call of the plugin failed.");
        }
        self.failed(message);
    }

    pub(super) fn last_error(&self) -> Option<LastError> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
