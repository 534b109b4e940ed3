//! What all instances of one plugin share: its settings, its grants, its log.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use super::{
    egress::Egress,
    imports::{GuestLog, GuestMetrics},
    secrets::Secrets,
    turns::PluginTurns,
};
use crate::{
    config::{self, Limits},
    group::Groups,
};

/// Fixed for the life of a plugin's generation.
pub(super) struct Environment {
    pub(super) limits: Limits,
    /// The plugin's own settings.
    pub(super) config: BTreeMap<String, String>,
    /// Those of its settings that are secret.
    pub(super) secrets: Arc<Secrets>,
    /// Groups the plugin may read.
    pub(super) readable: BTreeSet<String>,
    /// Weak, because groups hold plugins.
    pub(super) groups: Weak<Groups>,
    pub(super) log: Arc<GuestLog>,
    pub(super) metrics: Arc<GuestMetrics>,
    pub(super) egress: Arc<Egress>,
    /// Turns of its calls that go on computing.
    pub(super) turns: PluginTurns,
    /// Memory of all live instances.
    pub(super) memory: Arc<AtomicU64>,
    /// Whether running calls are to end at once: the generation has been replaced, and
    /// they had the time they may take.
    pub(super) killed: AtomicBool,
}

impl Environment {
    /// What a plugin is granted by `settings`.
    pub(super) fn new(
        settings: &config::Plugin,
        secrets: Arc<Secrets>,
        groups: Weak<Groups>,
        log: Arc<GuestLog>,
        metrics: Arc<GuestMetrics>,
        egress: Arc<Egress>,
        turns: PluginTurns,
    ) -> Self {
        Self {
            limits: settings.limits.clone(),
            config: settings.config.clone(),
            secrets,
            readable: settings.cache.read.iter().cloned().collect(),
            groups,
            log,
            metrics,
            egress,
            turns,
            memory: Arc::default(),
            killed: AtomicBool::new(false),
        }
    }

    /// What another generation with the same settings is given: nothing is read anew, so
    /// that nothing can be missing by now.
    pub(super) fn renewed(&self) -> Self {
        Self {
            limits: self.limits.clone(),
            config: self.config.clone(),
            secrets: Arc::clone(&self.secrets),
            readable: self.readable.clone(),
            groups: self.groups.clone(),
            log: Arc::clone(&self.log),
            metrics: Arc::clone(&self.metrics),
            egress: Arc::clone(&self.egress),
            turns: self.turns.clone(),
            memory: Arc::default(),
            killed: AtomicBool::new(false),
        }
    }

    /// Whether running calls are to end at once.
    pub(super) fn is_killed(&self) -> bool {
        self.killed.load(Relaxed)
    }

    /// Bytes that all live instances take together.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory.load(Relaxed)
    }
}
