//! How a call ended, counted once whatever becomes of it.

use std::{fmt, sync::atomic::Ordering::Relaxed};

use tokio::time::Instant;

use super::{admission::Refused, fault::Fault, reload::Ending, status::Stats};
use crate::{
    breaker::Report,
    group::{FillError, Outcome},
    metrics::PluginMetrics,
};

/// Why a call has no value.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not begun.
    Refused(Refused),
    /// It was not begun because the plugin or the key is left alone.
    NotAsked(FillError),
    /// It cost its instance, or its answer was out of bounds.
    Faulted(Fault),
    /// The plugin answered with an error of its own.
    Answered(FillError),
}

impl Failure {
    /// The failure as the group knows it.
    pub(super) fn into_fill_error(self) -> FillError {
        match self {
            Self::Refused(Refused::Full) => FillError::Overloaded(self.to_string()),
            Self::Refused(Refused::Deadline) => FillError::TimedOut(self.to_string()),
            Self::Faulted(fault) => fault.into(),
            Self::NotAsked(error) | Self::Answered(error) => error,
        }
    }

    /// What it says about the health of the plugin and its origin.
    pub(super) fn report(&self) -> Report {
        match self {
            Self::Refused(_) | Self::NotAsked(_) | Self::Faulted(Fault::NoSlot) => Report::Nothing,
            Self::Faulted(_) => Report::Fault,
            Self::Answered(error) => match error {
                FillError::Unavailable { .. } | FillError::TimedOut(_) | FillError::Internal(_) => {
                    Report::Fault
                }
                // Somebody has looked at the key and spoken.
                FillError::InvalidKey(_) | FillError::Denied(_) => Report::Well,
                FillError::Overloaded(_) | FillError::NotAsked { .. } => Report::Nothing,
            },
        }
    }
}

impl Failure {
    /// What it says about the code of the plugin. An origin that is down, or a node that
    /// is busy, is not its doing.
    pub(super) fn ending(&self) -> Ending {
        match self {
            Self::Faulted(
                Fault::Endless(_) | Fault::Cpu(_) | Fault::Init(_) | Fault::Broken(_),
            ) => Ending::Fault,
            Self::Faulted(Fault::Deadline(_)) | Self::Answered(FillError::Internal(_)) => {
                Ending::Bad
            }
            Self::Faulted(Fault::NoSlot)
            | Self::Refused(_)
            | Self::NotAsked(_)
            | Self::Answered(_) => Ending::Fine,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(Refused::Full) => f.write_str(
                "all instances of the plugin are busy and its queue is full (limits.instances, \
                 limits.queue)",
            ),
            Self::Refused(Refused::Deadline) => f.write_str(
                "no instance of the plugin became free in time (limits.instances, limits.timeout)",
            ),
            Self::Faulted(fault) => fault.fmt(f),
            Self::NotAsked(error) | Self::Answered(error) => error.fmt(f),
        }
    }
}

/// Whether `outcome` is a value, or that one still holds.
pub(super) fn is_found(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::NotFound(_))
}

/// Counts one call, whatever becomes of it.
pub(super) struct Call<'a> {
    metrics: &'a PluginMetrics,
    began: Instant,
    ended: bool,
}

impl<'a> Call<'a> {
    pub(super) fn begin(stats: &'a Stats, metrics: &'a PluginMetrics) -> Self {
        stats.calls.fetch_add(1, Relaxed);
        Self { metrics, began: Instant::now(), ended: false }
    }

    /// `Ok(false)`: there is no such key.
    pub(super) fn end(&mut self, result: Result<bool, &Failure>) {
        self.ended = true;
        let metrics = self.metrics;
        metrics.seconds.observe(self.began.elapsed().as_secs_f64());
        match result {
            Ok(true) => &metrics.ok,
            Ok(false) => &metrics.not_found,
            Err(Failure::Answered(_)) => &metrics.error,
            Err(
                Failure::Refused(Refused::Full)
                | Failure::NotAsked(_)
                | Failure::Faulted(Fault::NoSlot),
            ) => &metrics.rejected,
            Err(
                Failure::Refused(Refused::Deadline)
                | Failure::Faulted(Fault::Deadline(_) | Fault::Endless(_) | Fault::Cpu(_)),
            ) => &metrics.deadline,
            Err(Failure::Faulted(Fault::Broken(_) | Fault::Init(_))) => &metrics.trap,
        }
        .inc();
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        // The caller gave up first: its deadline was the earlier one.
        if !self.ended {
            self.metrics.seconds.observe(self.began.elapsed().as_secs_f64());
            self.metrics.deadline.inc();
        }
    }
}

/// Counts one instance as serving a call.
pub(super) struct Busy<'a> {
    stats: &'a Stats,
    metrics: &'a PluginMetrics,
}

impl<'a> Busy<'a> {
    pub(super) fn new(stats: &'a Stats, metrics: &'a PluginMetrics) -> Self {
        stats.busy.fetch_add(1, Relaxed);
        metrics.instances_busy.inc();
        Self { stats, metrics }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.stats.busy.fetch_sub(1, Relaxed);
        self.metrics.instances_busy.dec();
    }
}
