//! A node: every part, composed from a [`Config`] or from code.
//!
//! This is the one place that knows all parts. It starts them from the ground up
//! (plugins, groups, fronts), so that whatever serves has what it needs, and stops
//! them in the opposite order: see [`Node::stop`].
//!
//! A node owns its threads and its runtimes. It can be started and stopped from any
//! thread, be it a runtime's own or not, and there may be several in one process.
//!
//! - `builder`: a node that is still to be started.
//! - `running`: what of a node can change while it serves.
//! - `plan`, `differences`: what has to be done to go over to other settings.
//! - `reload`, `report`: doing it, and saying what came of it.
//! - `explain`: why a get answers as it does.
//! - `membership`: the cluster that the node is a member of.
//! - `operators`, `signals`, `control`: who asks for it, and where it runs.
//! - `notify`: what the service manager is told.

mod builder;
mod control;
mod differences;
mod explain;
mod membership;
mod notify;
mod operators;
mod plan;
mod reload;
mod report;
mod running;
mod signals;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

pub use builder::NodeBuilder;
pub use report::{Action, Change, PluginReloaded, ReloadError, Reloaded};

use self::{
    control::{Control, outside_runtimes},
    membership::Membership,
    notify::{Manager, State},
    operators::Operators,
    reload::Wanted,
    running::Running,
    signals::{Signal, Signals},
};
use crate::{
    config::Config,
    discovery::gce::{self, Metadata},
    front::{Readiness, http::Serving},
    group::Group,
    metrics::Metrics,
    plugin::PluginHost,
};

/// A running node. Dropped without [`Node::stop`], it stops at once and cuts the
/// requests under way.
pub struct Node {
    running: Arc<Running>,
    readiness: Readiness,
    clients: Option<Serving>,
    peers: Option<Serving>,
    membership: Option<Arc<Membership>>,
    /// Says when this machine is to be stopped, where it is one of Compute Engine.
    machine: Option<Metadata>,
    operators: Option<Operators>,
    signals: Option<Signals>,
    manager: Manager,
    control: Control,
}

impl Node {
    /// A node that is put together in code: no listeners and no groups yet.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::new()
    }

    /// The node that `config` describes, to which groups can still be added.
    pub fn from_config(config: &Config, base_dir: &Path) -> NodeBuilder {
        NodeBuilder::from_config(config, base_dir)
    }

    /// Starts the node that `config` describes; returns when it serves. Paths in it
    /// are relative to `base_dir`.
    ///
    /// # Errors
    /// As [`NodeBuilder::start`].
    pub fn start(config: &Config, base_dir: &Path) -> anyhow::Result<Self> {
        Self::from_config(config, base_dir).start()
    }

    /// The group of this name, to get from within this process.
    pub fn group(&self, name: &str) -> Option<Arc<Group>> {
        self.running.groups.get(name)
    }

    /// Where clients are served, if they are.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.clients.as_ref().map(Serving::local_addr)
    }

    /// Where peers are served, if there are any.
    pub fn peers_addr(&self) -> Option<SocketAddr> {
        self.peers.as_ref().map(Serving::local_addr)
    }

    /// Where other members of the cluster reach this node, if it is in one. On Compute Engine
    /// that may be known only a moment after the start.
    pub fn gossip_addr(&self) -> Option<SocketAddr> {
        self.membership.as_ref().and_then(|membership| membership.advertise())
    }

    /// How many nodes share the keys, as this one knows it: itself and others.
    pub fn owners(&self) -> usize {
        self.membership.as_ref().map_or(1, |membership| membership.owners())
    }

    /// Where operators are served, if they are.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.operators.as_ref().map(|operators| operators.address)
    }

    /// Goes over to `config` while the node serves; returns when that is done. Paths in
    /// it are relative to `base_dir`. Every plugin that stays looks at its file again,
    /// so that the same settings once more are of use too. What came of it is logged as
    /// well.
    ///
    /// # Errors
    /// Why nothing at all has changed.
    pub fn reload(&self, config: &Config, base_dir: &Path) -> Result<Reloaded, ReloadError> {
        let wanted = Wanted::Given(Box::new(config.clone()), PathBuf::from(base_dir));
        outside_runtimes(|| self.control.block_on(self.running.reload(wanted, "the program")))
    }

    /// Has the plugin `name` look at its file again; returns when what it holds serves,
    /// or when it is known that nothing has changed.
    ///
    /// # Errors
    /// There is no such plugin; or its file is bad, and the old version goes on serving.
    pub fn reload_plugin(&self, name: &str) -> Result<PluginReloaded, ReloadError> {
        outside_runtimes(|| self.control.block_on(self.running.reload_plugin(name)))
    }

    /// Drains and stops the node, in this order: it says that it is not ready, and tells
    /// its cluster that it is going, and the registries that it is in; it stops accepting
    /// clients and lets requests under way end within `[http] drain_timeout`, while it hands
    /// over what is hot; it leaves the cluster, and goes on answering peers who have not heard
    /// of that; then operators, who could watch it until here; then fills and plugins, which
    /// nobody waits for any more.
    ///
    /// # Errors
    /// Requests that did not end in time: they were cut.
    pub fn stop(self) -> anyhow::Result<()> {
        outside_runtimes(|| self.stop_here())
    }

    fn stop_here(mut self) -> anyhow::Result<()> {
        self.readiness.draining();
        let (clients, membership) = (self.clients.take(), self.membership.take());
        let cut = self.control.block_on(async {
            if let Some(membership) = &membership {
                membership.drain().await;
            }
            let clients = async {
                match clients {
                    Some(clients) => clients.drain().await,
                    None => 0,
                }
            };
            let handing_over = async {
                if let Some(membership) = &membership {
                    membership.hand_over(&self.running.groups).await;
                }
            };
            let withdrawing = async {
                if let Some(membership) = &membership {
                    membership.withdraw().await;
                }
            };
            let (cut, (), ()) = tokio::join!(clients, handing_over, withdrawing);
            if let Some(membership) = &membership {
                membership.leave().await;
            }
            cut
        });
        drop(membership);
        // Peers ask on behalf of their own clients: they are answered a little longer.
        let peers = self.peers.take();
        let cut = cut + peers.map_or(0, |peers| self.control.block_on(peers.drain()));
        if let Some(operators) = self.operators.take() {
            self.control.block_on(operators.stop());
        }
        self.running.close();
        self.control.stop();
        match cut {
            0 => Ok(()),
            1 => {
                Err(anyhow!("one connection was still busy after [http] drain_timeout and was cut"))
            }
            cut => Err(anyhow!(
                "{cut} connections were still busy after [http] drain_timeout and were cut"
            )),
        }
    }

    /// Serves until SIGTERM or SIGINT, then stops. So it does when Compute Engine tells this
    /// machine that it is to be stopped, where it is asked for members. A second signal ends the
    /// process at once. SIGHUP reloads the settings where the node can read them; see
    /// [`NodeBuilder::settings_from`]. Signals are taken from here on, or from the start
    /// with [`NodeBuilder::take_signals`].
    ///
    /// # Errors
    /// As [`Node::stop`].
    pub fn run_until_signal(mut self) -> anyhow::Result<()> {
        let mut signals = if let Some(signals) = self.signals.take() {
            signals
        } else {
            let _runtime = self.control.enter();
            Signals::new(self.running.hooks.read.is_some()).context("watch for signals")?
        };
        self.manager.tell(State::Ready("Serving."));
        let machine = self.machine.clone();
        let mut stopping = Box::pin(async move {
            match machine {
                Some(machine) => gce::stopping(machine).await,
                None => std::future::pending().await,
            }
        });
        loop {
            let next = self.control.block_on(async {
                tokio::select! {
                    signal = signals.next() => Ok(signal),
                    reason = &mut stopping => Err(reason),
                }
            });
            match next {
                Ok(Signal::Reload) => self.reload_by_signal(),
                Ok(Signal::End(name)) => {
                    info!(signal = name, "Draining; a second signal ends the node at once.");
                    break;
                }
                Err(reason) => {
                    info!(
                        reason,
                        "Draining, as Compute Engine says; a signal ends the node at once."
                    );
                    break;
                }
            }
        }
        drop(stopping);
        self.manager.tell(State::Stopping);
        self.control.spawn(async move {
            let name = loop {
                if let Signal::End(name) = signals.next().await {
                    break name;
                }
            };
            warn!(signal = name, "Ended at once.");
            std::process::exit(130);
        });
        self.stop()?;
        info!("Stopped.");
        Ok(())
    }

    /// Sets a reload off: the next signal may be to end.
    fn reload_by_signal(&self) {
        let (running, manager) = (Arc::clone(&self.running), self.manager.clone());
        // Before anything else: the manager waits for this, and then for the end of it.
        manager.tell(State::Reloading);
        self.control.spawn(async move {
            let told = match running.reload(Wanted::Settings, "SIGHUP").await {
                Ok(_) => "Serving.",
                Err(ReloadError::Busy) => {
                    warn!(
                        "Too many reloads wait already; those that wait will see the same settings."
                    );
                    "Serving; too many reloads wait already."
                }
                // Nothing may follow the word that the node ends.
                Err(ReloadError::Stopping) => return,
                Err(_) => {
                    "Serving with the old settings; the log says why the new ones are refused."
                }
            };
            // It may block.
            _ = spawn_blocking(move || manager.tell(State::Ready(told))).await;
        });
    }

    /// Loads the plugins that `config` describes without serving: for each its digest,
    /// or why it cannot be loaded.
    ///
    /// # Errors
    /// The host of the plugins cannot be started at all.
    pub fn check_plugins(
        config: &Config,
        base_dir: &Path,
    ) -> anyhow::Result<Vec<(String, anyhow::Result<String>)>> {
        outside_runtimes(|| {
            let host = PluginHost::start_alone(&config.wasm, Metrics::new())
                .context("start the host of the plugins ([wasm])")?;
            let loading = config.plugins.iter().map(|(name, settings)| {
                let checked = host.fills().block_on(host.check(name, settings, base_dir));
                (name.clone(), checked.map_err(Into::into))
            });
            let checked = loading.collect();
            host.shutdown();
            Ok(checked)
        })
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("http", &self.http_addr())
            .field("admin", &self.admin_addr())
            .field("groups", &self.running.groups)
            .finish_non_exhaustive()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.close();
    }
}
