//! A node that is still to be started.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow};
use tokio::{runtime::Handle, time::Instant};
use tracing::info;

use super::{
    Node,
    control::{Control, outside_runtimes},
    membership::{Bound, Membership},
    notify::Manager,
    operators::Operators,
    report::ReloadError,
    running::{Hooks, Running},
    signals::Signals,
};
use crate::{
    config::{self, Caching, Config, Loaded, Reports, peers::BadPeer},
    discovery::gce::Metadata,
    front::{
        Readiness, admin,
        http::{HttpFront, Linked, Manners},
    },
    group::{Getter, Group},
    metrics::Metrics,
    peer::{Family, Fleet, Ties, Times},
};

/// A node that is still to be started.
pub struct NodeBuilder {
    config: Config,
    base_dir: PathBuf,
    natives: BTreeMap<String, (Caching, Arc<dyn Getter>)>,
    has_clients: bool,
    has_operators: bool,
    takes_signals: bool,
    manager: Manager,
    hooks: Hooks,
}

impl NodeBuilder {
    pub(super) fn new() -> Self {
        Self {
            config: Config::default(),
            base_dir: PathBuf::new(),
            natives: BTreeMap::new(),
            has_clients: false,
            has_operators: false,
            takes_signals: false,
            manager: Manager::default(),
            hooks: Hooks::default(),
        }
    }

    pub(super) fn from_config(config: &Config, base_dir: &Path) -> Self {
        Self {
            config: config.clone(),
            base_dir: base_dir.to_owned(),
            has_clients: true,
            has_operators: true,
            ..Self::new()
        }
    }

    /// Adds a group that fills its misses from `getter`: code of this program rather
    /// than a plugin. Its fills run on a small runtime of the node, and no reload
    /// touches it.
    #[must_use]
    pub fn group(mut self, name: &str, caching: Caching, getter: Arc<dyn Getter>) -> Self {
        self.natives.insert(name.to_owned(), (caching, getter));
        self
    }

    /// Serves clients over HTTP as well, and not this process alone.
    #[must_use]
    pub fn http(mut self, settings: config::Http) -> Self {
        self.config.http = settings;
        self.has_clients = true;
        self
    }

    /// Shares the keys with other nodes.
    #[must_use]
    pub fn peers(mut self, settings: config::Peers) -> Self {
        self.config.peers = settings;
        self
    }

    /// Makes the node a member of a cluster.
    #[must_use]
    pub fn cluster(mut self, settings: config::Cluster) -> Self {
        self.config.cluster = settings;
        self
    }

    /// Serves operators over HTTP.
    #[must_use]
    pub fn admin(mut self, settings: config::Admin) -> Self {
        self.config.admin = settings;
        self.has_operators = true;
        self
    }

    /// Has the node read its settings by `read` when it is told to reload them: by
    /// SIGHUP in [`Node::run_until_signal`], or by an operator. May block: it is called
    /// on a thread of its own.
    #[must_use]
    pub fn settings_from(
        mut self,
        read: impl Fn() -> Result<Loaded, Reports> + Send + Sync + 'static,
    ) -> Self {
        self.hooks.read = Some(Arc::new(read));
        self
    }

    /// Has the node take the signals of [`Node::run_until_signal`] from before it serves,
    /// so that none that comes in between ends the process without draining. Until then a
    /// signal ends it as it would any process.
    #[must_use]
    pub fn take_signals(mut self) -> Self {
        self.takes_signals = true;
        self
    }

    /// Has [`Node::run_until_signal`] tell the service manager at `socket`, which is what
    /// systemd calls `NOTIFY_SOCKET`, that the node serves, reloads and ends. Empty: nobody.
    #[must_use]
    pub fn notify(mut self, socket: &OsStr) -> Self {
        self.manager = Manager::at(socket);
        self
    }

    /// Has the node call `filter` with `[log] filter` when a reload changes it. Without
    /// this the log is the program's own business.
    #[must_use]
    pub fn filter_log_by(
        mut self,
        filter: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.hooks.filter = Some(Arc::new(filter));
        self
    }

    /// Starts the node; returns when it serves.
    ///
    /// # Errors
    /// A plugin that cannot be loaded, an address that cannot be taken: each names the
    /// setting and the remedy. Nothing of the node is left then.
    pub fn start(self) -> anyhow::Result<Node> {
        outside_runtimes(|| self.start_here())
    }

    fn start_here(self) -> anyhow::Result<Node> {
        let control = Control::start().context("start the control threads")?;
        let metrics = Metrics::new();
        let readiness = Readiness::new();
        let started = Instant::now();

        // Addresses are taken first: that two nodes want the same one is found out
        // before anything is compiled.
        let latch = readiness.latch("listeners");
        let clients = self.has_clients.then(|| HttpFront::bind(&self.config.http)).transpose()?;
        let config = self.config.clone();
        let base_dir = self.base_dir.clone();
        let peers = &config.peers;
        let peers_front = config
            .has_peers()
            .then(|| HttpFront::bind_peers(config.peers_listen(), &config.http))
            .transpose()?;
        let machine = config.looks_on_gce().then(Metadata::from_environment).transpose();
        let machine = machine.map_err(|error| anyhow!("look for members: {error}"))?;
        let bound = config
            .is_member()
            .then(|| Bound::new(&config, &base_dir, machine.clone()))
            .transpose()
            .context("start [cluster]")?;
        let linked = bound.as_ref().map(Bound::linked);
        let operators = {
            let _runtime = control.enter();
            self.has_operators.then(|| admin::bind(&self.config.admin)).transpose()?
        };

        let fleet =
            fleet(&config, linked.as_ref(), &metrics, control.handle()).context("read [peers]")?;
        // Before plugins are compiled, so that the others are known by then.
        let membership = match (bound, &fleet, &peers_front) {
            (Some(bound), Some(fleet), Some(front)) => {
                let (fleet, peers) = (Arc::clone(fleet), front.local_addr());
                let told = (readiness.latch("cluster"), &metrics);
                let joining = bound.join(&config, &base_dir, peers, fleet, told, control.handle());
                let membership = control.block_on(joining)?;
                metrics.membership(membership.counts());
                Some(membership)
            }
            _ => None,
        };

        let plugins_up = readiness.latch("plugins");
        let takes_signals = self.takes_signals;
        let manager = self.manager.clone();
        let running = self.start_running(fleet, membership.clone(), &metrics, &control)?;
        plugins_up.release();
        let signals = takes_signals.then(|| {
            let _runtime = control.enter();
            Signals::new(running.hooks.read.is_some())
        });
        let signals = signals.transpose().context("watch for signals")?;

        let operators = operators.map(|listener| {
            Operators::start(listener, &running, &readiness, started, control.handle())
        });
        let operators = operators.transpose().context("start the [admin] surface")?;
        let clients = clients
            .map(|front| front.serve(&running.groups, &metrics))
            .transpose()
            .context("start the [http] threads")?;
        let manners = Manners {
            dialect: Family::from(peers.family).dialect(),
            plus_is_space: Family::from(peers.family).plus_is_space(),
            value_max: peers.reply_max.as_usize(),
        };
        let peers = peers_front
            .map(|front| front.serve_peers(&running.groups, &metrics, manners, linked))
            .transpose()
            .context("start the [peers] threads")?;
        if let Some(membership) = &membership {
            control.block_on(membership.serve());
        }
        latch.release();
        let peers_at = peers.as_ref().map(|it| tracing::field::display(it.local_addr()));
        let http = clients.as_ref().map(|it| tracing::field::display(it.local_addr()));
        let admin = operators.as_ref().map(|it| tracing::field::display(it.address));
        info!(http, admin, peers = peers_at, "Serving.");
        Ok(Node {
            running,
            readiness,
            clients,
            peers,
            membership,
            machine,
            operators,
            signals,
            manager,
            control,
        })
    }

    /// Loads plugins and makes groups. To start is to go over from no plugins and groups
    /// to those of the settings.
    fn start_running(
        self,
        fleet: Option<Arc<Fleet>>,
        membership: Option<Arc<Membership>>,
        metrics: &Metrics,
        control: &Control,
    ) -> anyhow::Result<Arc<Running>> {
        let natives = self.natives.into_iter().map(|(name, (caching, getter))| {
            let (fills, metrics) = (control.handle().clone(), metrics.group(&name));
            Group::new(&name, caching, getter, fills, metrics)
        });
        let bare =
            Config { plugins: BTreeMap::new(), groups: BTreeMap::new(), ..self.config.clone() };
        let running = Running::new(
            (bare, &self.base_dir),
            natives.collect(),
            (fleet, membership),
            (self.has_clients, self.has_operators),
            self.hooks,
            metrics.clone(),
            control.handle().clone(),
        );
        if let Some(membership) = &running.membership {
            membership.purges.act_on(Arc::clone(&running.groups));
        }
        for native in &running.natives {
            running.join_peers(native);
        }
        match control.block_on(running.apply(self.config, &self.base_dir)) {
            Ok(_everything_is_new) => {
                running.counts.succeeded();
                Ok(running)
            }
            Err(error) => {
                running.close();
                Err(match error {
                    ReloadError::Refused(reasons) => anyhow!(reasons.join("\nerror: ")),
                    other => other.into(),
                })
            }
        }
    }
}

/// Those who share the keys with this node, where there are any.
fn fleet(
    config: &Config,
    linked: Option<&Linked>,
    metrics: &Metrics,
    control: &Handle,
) -> Result<Option<Arc<Fleet>>, BadPeer> {
    let Some(Linked { secret, tidings }) = linked.cloned() else {
        let fixed = || Fleet::fixed(&config.peers, control.clone());
        return config.peers.are_any().then(fixed).transpose();
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let links = if config.http.threads == 0 { threads } else { config.http.threads };
    let metrics = metrics.fleet();
    let waits = Times {
        connect: config.peers.connect_timeout,
        sign: config.peers.sign_timeout,
        peek: config.peers.peek_timeout,
    };
    let ties = Ties { secret, tidings, links, times: waits, metrics };
    Fleet::of_nodes(ties, &config.peers, control.clone()).map(Some)
}
