//! What of a node can change while it serves: its plugins, its groups, and the settings
//! in force.
//!
//! The node and its operators' surface share it. How it changes is in `reload`.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    runtime::Handle,
    sync::{Mutex as TurnMutex, Semaphore},
};

use super::{
    membership::Membership,
    plan::Now,
    report::{PluginReloaded, ReloadError},
};
use crate::{
    config::{Config, Loaded, Reports},
    group::{Getter as _, Group, Groups, Peers, Purged},
    metrics::{Metrics, ReloadMetrics},
    peer::Fleet,
    plugin::{self, Plugin, PluginHost, Swapped, Trigger},
};

/// What a version of a plugin that has been replaced said did not exist within this time
/// is asked again: it may have been replaced because it was wrong. As long as a version
/// is on probation unless it is told otherwise.
const DOUBTED: Duration = Duration::from_mins(1);

/// Reloads at once, those that wait for their turn included. More would do nothing that
/// the last one of these does not.
const RELOADS_MAX: usize = 4;

/// Reads the settings anew.
pub(super) type ReadSettings = dyn Fn() -> Result<Loaded, Reports> + Send + Sync;

/// Filters the log by other directives from now on, or says why not.
pub(super) type FilterLog = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// What the program that runs the node does for a reload.
#[derive(Clone, Default)]
pub(super) struct Hooks {
    pub(super) read: Option<Arc<ReadSettings>>,
    pub(super) filter: Option<Arc<FilterLog>>,
}

/// What of a node can change while it serves.
pub(super) struct Running {
    /// For the plugins, which tell when another version of them has gone live.
    pub(super) myself: Weak<Self>,
    pub(super) groups: Arc<Groups>,
    /// Groups of the program's own, which no reload touches.
    pub(super) natives: Vec<Arc<Group>>,
    pub(super) metrics: Metrics,
    pub(super) counts: ReloadMetrics,
    pub(super) control: Handle,
    pub(super) hooks: Hooks,
    pub(super) has_clients: bool,
    pub(super) has_operators: bool,
    /// The nodes that share the keys, where there are any.
    pub(super) fleet: Option<Arc<Fleet>>,
    /// How they are found, where they are not known by hand.
    pub(super) membership: Option<Arc<Membership>>,
    /// `None` once the node stops: no reload that is still under way brings back what
    /// has been let go.
    parts: Mutex<Option<Parts>>,
    /// Held by the one reload at a time.
    pub(super) turn: TurnMutex<()>,
    /// A place for each reload that runs or waits.
    pub(super) places: Arc<Semaphore>,
    /// What came of the last reload, for operators.
    pub(super) last: Mutex<Value>,
}

/// What is replaced as a whole by a reload.
#[derive(Clone)]
pub(super) struct Parts {
    /// The settings in force.
    pub(super) config: Arc<Config>,
    /// Where relative paths in them begin.
    pub(super) base_dir: Arc<Path>,
    /// The engine, from the first plugin on.
    pub(super) host: Option<Arc<PluginHost>>,
    pub(super) plugins: BTreeMap<String, Arc<Plugin>>,
}

impl Running {
    /// A node that has its own groups and nothing else: `config` is what it was started
    /// with, without plugins and groups.
    pub(super) fn new(
        (config, base_dir): (Config, &Path),
        natives: Vec<Arc<Group>>,
        (fleet, membership): (Option<Arc<Fleet>>, Option<Arc<Membership>>),
        (has_clients, has_operators): (bool, bool),
        hooks: Hooks,
        metrics: Metrics,
        control: Handle,
    ) -> Arc<Self> {
        let parts = Parts {
            config: Arc::new(config),
            base_dir: base_dir.into(),
            host: None,
            plugins: BTreeMap::new(),
        };
        Arc::new_cyclic(|myself| Self {
            myself: myself.clone(),
            groups: Arc::default(),
            natives,
            counts: metrics.reloads(),
            metrics,
            control,
            hooks,
            has_clients,
            has_operators,
            fleet,
            membership,
            parts: Mutex::new(Some(parts)),
            turn: TurnMutex::default(),
            places: Arc::new(Semaphore::new(RELOADS_MAX)),
            last: Mutex::new(Value::Null),
        })
    }

    /// Has `group` ask other nodes for the keys that they own.
    pub(super) fn join_peers(&self, group: &Group) {
        if let Some(fleet) = &self.fleet {
            group.join_peers(Arc::clone(fleet) as Arc<dyn Peers>, self.metrics.peers(group.name()));
        }
        if let Some(membership) = &self.membership {
            group.heed(Arc::clone(&membership.purges) as _);
        }
    }

    /// What the node is made of at this moment.
    pub(super) fn parts(&self) -> Result<Parts, ReloadError> {
        self.lock().clone().ok_or(ReloadError::Stopping)
    }

    /// Puts other parts and groups in place, together.
    pub(super) fn replace(&self, parts: Parts, groups: Vec<Arc<Group>>) -> Result<(), ReloadError> {
        let mut current = self.lock();
        if current.is_none() {
            return Err(ReloadError::Stopping);
        }
        self.groups.replace(groups);
        let old = current.replace(parts);
        drop(current);
        drop(old);
        Ok(())
    }

    /// How `parts` look to a plan.
    pub(super) fn now<'a>(&self, parts: &'a Parts) -> Now<'a> {
        Now {
            config: &parts.config,
            base_dir: &parts.base_dir,
            has_clients: self.has_clients,
            has_operators: self.has_operators,
            has_host: parts.host.is_some(),
            has_log: self.hooks.filter.is_some(),
        }
    }

    /// Lets go of groups and plugins, for good. Groups hold plugins and plugins look into
    /// groups: this ends the circle.
    pub(super) fn close(&self) {
        let parts = self.lock().take();
        self.groups.replace([]);
        if let Some(parts) = parts {
            parts.plugins.values().for_each(|plugin| plugin.retire());
        }
    }

    /// Has the plugin `name` look at its file.
    pub(super) async fn reload_plugin(&self, name: &str) -> Result<PluginReloaded, ReloadError> {
        let parts = self.parts()?;
        let Some(plugin) = parts.plugins.get(name) else {
            let known = parts.plugins.keys().cloned().collect();
            return Err(ReloadError::UnknownPlugin { name: name.to_owned(), known });
        };
        let reloaded = plugin.reload(Trigger::Operator).await;
        let reloaded = reloaded.map_err(|error| ReloadError::Refused(vec![error.to_string()]))?;
        let plugin_name = name.to_owned();
        Ok(match reloaded {
            plugin::Reloaded::Swapped { digest, generation } => {
                PluginReloaded { plugin: plugin_name, outcome: "swapped", digest, generation }
            }
            plugin::Reloaded::Unchanged { digest } => PluginReloaded {
                plugin: plugin_name,
                outcome: "unchanged",
                digest,
                generation: plugin.status().generation,
            },
        })
    }

    /// Describes the plugins, in the order of their names.
    pub(super) fn plugin_status(&self) -> Value {
        let Ok(parts) = self.parts() else { return Value::Array(Vec::new()) };
        let status: Vec<_> = parts.plugins.values().map(|plugin| plugin.status()).collect();
        serde_json::to_value(status).unwrap_or_default()
    }

    /// What came of the last reload.
    pub(super) fn last_reload(&self) -> Value {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the groups of the plugin `name` told whenever another version of it goes live.
    pub(super) fn follow(&self, name: &str, plugin: &Plugin) {
        let (running, name) = (self.myself.clone(), name.to_owned());
        plugin.on_swap(Box::new(move |swapped| {
            if let Some(running) = running.upgrade() {
                running.swapped(&name, swapped);
            }
        }));
    }

    /// Tells the cluster by what code this node fills its groups.
    pub(super) fn tell_plugins(&self) {
        let (Ok(parts), Some(membership)) = (self.parts(), self.membership.clone()) else {
            return;
        };
        let plugins = parts.plugins.values().map(|plugin| plugin.code()).collect();
        self.control.spawn(async move { membership.run(plugins).await });
    }

    fn swapped(&self, plugin: &str, swapped: Swapped) {
        self.tell_plugins();
        let Ok(parts) = self.parts() else { return };
        let filled = parts.config.groups.iter().filter(|(_, group)| group.plugin == plugin);
        for group in filled.filter_map(|(name, _)| self.groups.get(name)) {
            if swapped.epoch_changed {
                // The others do so when they take the plugin's new version up.
                group.forget(Purged::All);
            }
            group.getter_changed(DOUBTED);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Parts>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
