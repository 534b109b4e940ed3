//! From one configuration to another, while the node serves.
//!
//! First everything that can fail: the settings are read and checked, every plugin that
//! is new is loaded and every one whose settings differ is tried under them. If any of
//! this fails, nothing has changed. Then the plugins change, and the groups as a whole;
//! last, whatever stays looks at its plugin's file, where a bad one concerns that plugin
//! alone.
//!
//! A group keeps its contents and its flights unless another plugin is to fill it. Fills
//! under way end on the plugin they began with.
//!
//! Invariants:
//! - one reload at a time, and a bounded number waits;
//! - a reload that waits reads its settings when its turn has come, so that the last one
//!   reads the newest;
//! - a reload runs in a task of its own: who asked for it may go away;
//! - a node that stops is not brought back by a reload under way.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use serde_json::json;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::timeout,
};
use tracing::{error, info, warn};

use super::{
    membership,
    plan::{self, Fate, Plan},
    report::{Action, Change, ReloadError, Reloaded},
    running::{Parts, Running},
};
use crate::{
    config::{Config, Loaded},
    group::{Getter, Group},
    plugin::{self, Plugin, PluginHost, Prepared, Trigger},
};

/// How long a reload waits for its turn: another one may be compiling.
const TURN_TIMEOUT: Duration = Duration::from_mins(2);

/// Where the new configuration comes from.
pub(super) enum Wanted {
    /// From where the node had it, read anew.
    Settings,
    /// From the program that runs the node.
    Given(Box<Config>, PathBuf),
}

/// What was tried and works.
#[derive(Default)]
struct Tried {
    added: Vec<(String, Arc<Plugin>)>,
    changed: Vec<(String, Arc<Plugin>, Prepared)>,
}

impl Running {
    /// Goes over to what is wanted, and tells the log, the metrics and operators what
    /// came of it. `by` is who asked.
    pub(super) async fn reload(
        self: &Arc<Self>,
        wanted: Wanted,
        by: &'static str,
    ) -> Result<Reloaded, ReloadError> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(ReloadError::Busy);
        };
        let running = Arc::clone(self);
        let task = self.control.spawn(async move {
            let _place = place;
            let turn = timeout(TURN_TIMEOUT, running.turn.lock()).await;
            let _turn = turn.map_err(|_elapsed| ReloadError::Busy)?;
            let result = match wanted {
                Wanted::Settings => running.read_and_apply().await,
                Wanted::Given(config, base_dir) => running.apply(*config, &base_dir).await,
            };
            running.conclude(by, &result);
            result
        });
        task.await.unwrap_or_else(|error| {
            Err(if error.is_panic() {
                let text = "the node panicked over it, which is a defect of this program";
                ReloadError::Refused(vec![text.to_owned()])
            } else {
                ReloadError::Stopping
            })
        })
    }

    async fn read_and_apply(self: &Arc<Self>) -> Result<Reloaded, ReloadError> {
        let read = self.hooks.read.clone().ok_or(ReloadError::NoSettings)?;
        let reading = spawn_blocking(move || read()).await;
        let Ok(loaded) = reading else { return Err(ReloadError::Stopping) };
        let Loaded { config, base_dir, warnings, .. } = loaded.map_err(ReloadError::Settings)?;
        for report in warnings {
            warn!(%report, "The settings may not be what was meant.");
        }
        self.apply(config, &base_dir).await
    }

    /// Goes over to `next`. Called in turn, and by the start of the node.
    pub(super) async fn apply(
        self: &Arc<Self>,
        next: Config,
        base_dir: &Path,
    ) -> Result<Reloaded, ReloadError> {
        let old = self.parts()?;
        let natives: Vec<String> = self.natives.iter().map(|it| it.name().to_owned()).collect();
        let obstacles = plan::obstacles(self.now(&old), &next, &natives);
        if !obstacles.is_empty() {
            return Err(ReloadError::Refused(obstacles));
        }
        let mut plan = Plan::new(self.now(&old), &next, base_dir);
        let next = plan::in_force(self.now(&old), next);
        let host = self.host(&old, &next).await?;
        let keys = self.membership.is_some().then(|| membership::keys(&next.cluster, base_dir));
        let keys = keys.transpose().map_err(|it| ReloadError::Refused(vec![format!("{it:#}")]))?;
        let tried = match &host {
            Some(host) => self.try_out(&plan, &old, &next, base_dir, host).await?,
            None => Tried::default(),
        };
        // From here on nothing fails but the node's own end.
        let new = install(&old, tried, (next, base_dir), host, self);
        let groups = self.make_groups(&plan, &new);
        self.replace(new.clone(), groups)?;
        if let (Some(membership), Some(keys)) = (&self.membership, keys) {
            membership.reload(keys, &new.config.cluster).await;
            self.tell_plugins();
        }
        self.reconfigure(&plan, &new).await;
        self.let_go(&plan, &old);
        if plan.is_log_changed {
            self.filter_log(&new.config.log.filter);
        }
        let mut changes = std::mem::take(&mut plan.changes);
        changes.extend(look_again(&plan, &new).await);
        Ok(Reloaded { changes })
    }

    /// The engine, which is started when the first plugin needs it.
    async fn host(
        &self,
        old: &Parts,
        next: &Config,
    ) -> Result<Option<Arc<PluginHost>>, ReloadError> {
        if old.host.is_some() || next.plugins.is_empty() {
            return Ok(old.host.clone());
        }
        let (wasm, metrics) = (next.wasm.clone(), self.metrics.clone());
        let groups = Arc::downgrade(&self.groups);
        let started = spawn_blocking(move || PluginHost::start(&wasm, groups, metrics)).await;
        let Ok(started) = started else { return Err(ReloadError::Stopping) };
        let started = started.context("start the host of the plugins ([wasm])");
        match started {
            Ok(host) => Ok(Some(Arc::new(host))),
            Err(error) => Err(ReloadError::Refused(vec![format!("{error:#}")])),
        }
    }

    /// Loads what is new, and tries what differs under its new settings. All reasons of
    /// all that fail, and then nothing is left of what did not.
    async fn try_out(
        &self,
        plan: &Plan,
        old: &Parts,
        next: &Config,
        base_dir: &Path,
        host: &PluginHost,
    ) -> Result<Tried, ReloadError> {
        let mut tried = Tried::default();
        let mut reasons = Vec::new();
        for (name, settings) in &next.plugins {
            match (plan.plugins.get(name), old.plugins.get(name)) {
                (Some(Fate::Added), _) => match host.load(name, settings, base_dir).await {
                    Ok(plugin) => tried.added.push((name.clone(), plugin)),
                    Err(error) => reasons.push(error.to_string()),
                },
                (Some(Fate::Changed), Some(plugin)) => {
                    match plugin.prepare(settings, base_dir).await {
                        Ok(prepared) => {
                            tried.changed.push((name.clone(), Arc::clone(plugin), prepared));
                        }
                        Err(error) => reasons.push(error.to_string()),
                    }
                }
                _ => {}
            }
        }
        if reasons.is_empty() {
            return Ok(tried);
        }
        for (_, plugin) in tried.added {
            plugin.retire();
        }
        // Those that could not be loaded have series as well.
        for name in Plan::having(&plan.plugins, Fate::Added) {
            self.metrics.forget_plugin(name);
        }
        Err(ReloadError::Refused(reasons))
    }

    /// The groups of `new`: those that stay are the same ones.
    fn make_groups(&self, plan: &Plan, new: &Parts) -> Vec<Arc<Group>> {
        let mut groups = self.natives.clone();
        for (name, settings) in &new.config.groups {
            let stays = matches!(plan.groups.get(name), Some(Fate::Kept | Fate::Changed));
            let known = self.groups.get(name).filter(|_| stays);
            let made = || {
                let plugin = new.plugins.get(&settings.plugin)?;
                let fills = new.host.as_ref()?.fills().clone();
                let getter = Arc::clone(plugin) as Arc<dyn Getter>;
                let metrics = self.metrics.group(name);
                let group = Group::new(name, settings.cache.clone(), getter, fills, metrics);
                self.join_peers(&group);
                Some(group)
            };
            // A plugin that is not there was an obstacle.
            groups.extend(known.or_else(made));
        }
        groups
    }

    /// Has the groups that stay cache by their new settings.
    async fn reconfigure(&self, plan: &Plan, new: &Parts) {
        for name in Plan::having(&plan.groups, Fate::Changed) {
            let (Some(group), Some(settings)) =
                (self.groups.get(name), new.config.groups.get(name))
            else {
                continue;
            };
            let caching = settings.cache.clone();
            // To drop what a smaller budget has no room for takes its time.
            spawn_blocking(move || group.reconfigure(caching)).await.ok();
        }
    }

    /// Lets go of what is gone. Fills and calls under way end by themselves.
    fn let_go(&self, plan: &Plan, old: &Parts) {
        for name in Plan::having(&plan.groups, Fate::Removed) {
            self.metrics.forget_group(name);
        }
        for name in Plan::having(&plan.plugins, Fate::Removed) {
            if let Some(plugin) = old.plugins.get(name) {
                plugin.retire();
            }
            self.metrics.forget_plugin(name);
        }
    }

    fn filter_log(&self, filter: &str) {
        let filtered = self.hooks.filter.as_ref().map(|apply| apply(filter));
        if let Some(Err(error)) = filtered {
            warn!(%error, filter, "The log cannot be filtered by [log] filter.");
        }
    }

    /// Tells what came of a reload.
    fn conclude(&self, by: &'static str, result: &Result<Reloaded, ReloadError>) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let told = match result {
            Ok(reloaded) => {
                let outcome = reloaded.outcome();
                let counter = match outcome {
                    "changed" => &self.counts.changed,
                    _ => &self.counts.unchanged,
                };
                counter.inc();
                self.counts.succeeded();
                for Change { action, subject, detail } in &reloaded.changes {
                    match action {
                        Action::Restart => {
                            warn!(subject, detail, "A setting waits for a restart of the node.");
                        }
                        // Told by the plugin itself.
                        Action::Refused | Action::Swapped => {}
                        _ => info!(%action, subject, detail, "The settings in force changed."),
                    }
                }
                info!(by, outcome, "Reloaded the settings.");
                json!({ "at": at, "by": by, "outcome": outcome, "changes": reloaded.changes })
            }
            Err(refusal) => {
                self.counts.refused.inc();
                let reasons = refusal.reasons();
                for reason in &reasons {
                    error!(%reason, "The settings were not reloaded.");
                }
                error!(by, "Nothing has changed: the node goes on with its old settings.");
                json!({ "at": at, "by": by, "outcome": "refused", "reasons": reasons })
            }
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = told;
    }
}

/// Puts what was tried to work, and gives the parts that the node has from now on.
fn install(
    old: &Parts,
    tried: Tried,
    (config, base_dir): (Config, &Path),
    host: Option<Arc<PluginHost>>,
    running: &Running,
) -> Parts {
    let mut plugins = old.plugins.clone();
    plugins.retain(|name, _| config.plugins.contains_key(name));
    for (_, plugin, prepared) in tried.changed {
        plugin.install(prepared);
    }
    for (name, plugin) in tried.added {
        info!(plugin = name, digest = plugin.digest(), "Loaded a plugin.");
        running.follow(&name, &plugin);
        plugins.insert(name, plugin);
    }
    Parts { config: Arc::new(config), base_dir: base_dir.into(), host, plugins }
}

/// Has every plugin that was there before look at its file. A bad one concerns that
/// plugin alone, whose old version goes on serving.
async fn look_again(plan: &Plan, new: &Parts) -> Vec<Change> {
    let mut looking = JoinSet::new();
    for (name, plugin) in &new.plugins {
        if matches!(plan.plugins.get(name), Some(Fate::Kept | Fate::Changed)) {
            let (name, plugin) = (name.clone(), Arc::clone(plugin));
            looking.spawn(async move { (name, plugin.reload(Trigger::Operator).await) });
        }
    }
    let mut looked = looking.join_all().await;
    looked.sort_by(|(one, _), (other, _)| one.cmp(other));
    let change = |(name, reloaded)| {
        let (action, detail) = match reloaded {
            Ok(plugin::Reloaded::Unchanged { .. }) => return None,
            Ok(plugin::Reloaded::Swapped { digest, generation }) => {
                (Action::Swapped, format!("{digest}, generation {generation}"))
            }
            Err(plugin::LoadError { problem, .. }) => (Action::Refused, problem.to_string()),
        };
        Some(Change::new(action, format!("plugin {name}"), detail))
    };
    looked.into_iter().filter_map(change).collect()
}
