//! A node: every part, composed from a [`Config`] or from code.
//!
//! This is the one file that knows all parts. It starts them from the ground up
//! (plugins, groups, fronts), so that whatever serves has what it needs, and stops
//! them in the opposite order: see [`Node::stop`].
//!
//! A node owns its threads and its runtimes. It can be started and stopped from any
//! thread, be it a runtime's own or not, and there may be several in one process.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use tokio::{
    runtime::{self, Handle, Runtime},
    sync::oneshot,
    task::JoinHandle,
    time::Instant,
};
use tracing::{info, warn};

use crate::{
    config::{self, Caching, Config},
    front::{
        Readiness,
        admin::{self, AdminState},
        http::{HttpFront, Serving},
    },
    group::{Getter, Group, Groups},
    metrics::Metrics,
    plugin::{Plugin, PluginHost},
};

/// Threads of the runtime for operators and for the fills of native getters. They
/// wait most of the time; a getter that computes belongs on threads of its own.
const CONTROL_THREADS: usize = 2;

/// Time for tasks that are left on a runtime when it stops. By then every front has
/// drained, so that nobody waits for them.
const RUNTIME_STOP: Duration = Duration::from_secs(1);

/// A running node. Dropped without [`Node::stop`], it stops at once and cuts the
/// requests under way.
pub struct Node {
    groups: Arc<Groups>,
    readiness: Readiness,
    clients: Option<Serving>,
    operators: Option<Operators>,
    plugins: Option<PluginHost>,
    control: Control,
}

/// The runtime for operators and native fills. Unlike a bare [`Runtime`] it may be
/// dropped anywhere, within another runtime too: its tasks then end by themselves.
#[derive(Debug)]
struct Control(Option<Runtime>);

/// The admin surface while it runs.
#[derive(Debug)]
struct Operators {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// A node that is still to be started.
pub struct NodeBuilder {
    config: Config,
    base_dir: PathBuf,
    natives: BTreeMap<String, (Caching, Arc<dyn Getter>)>,
    has_clients: bool,
    has_operators: bool,
}

impl NodeBuilder {
    /// Adds a group that fills its misses from `getter`: code of this program rather
    /// than a plugin. Its fills run on a small runtime of the node.
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

    /// Serves operators over HTTP.
    #[must_use]
    pub fn admin(mut self, settings: config::Admin) -> Self {
        self.config.admin = settings;
        self.has_operators = true;
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
        let groups = Arc::<Groups>::default();
        let started = Instant::now();

        // Addresses are taken first: that two nodes want the same one is found out
        // before anything is compiled.
        let latch = readiness.latch("listeners");
        let clients = self.has_clients.then(|| HttpFront::bind(&self.config.http)).transpose()?;
        let operators = {
            let _runtime = control.enter();
            self.has_operators.then(|| admin::bind(&self.config.admin)).transpose()?
        };

        let plugins_up = readiness.latch("plugins");
        let plugins = load_plugins(&self.config, &self.base_dir, &groups, &metrics, &control)?;
        groups.replace(self.make_groups(&plugins, &metrics, control.handle())?);
        plugins_up.release();

        let operators = operators.map(|listener| {
            let status: Vec<_> = plugins.by_name.values().cloned().collect();
            let state = AdminState {
                groups: Arc::clone(&groups),
                metrics: metrics.clone(),
                readiness: readiness.clone(),
                plugins: Box::new(move || plugin_status(&status)),
                started,
            };
            Operators::start(listener, state, control.handle())
        });
        let operators = operators.transpose().context("start the [admin] surface")?;
        let clients = clients
            .map(|front| front.serve(&groups, &metrics))
            .transpose()
            .context("start the [http] threads")?;
        latch.release();
        let http = clients.as_ref().map(|it| tracing::field::display(it.local_addr()));
        let admin = operators.as_ref().map(|it| tracing::field::display(it.address));
        info!(http, admin, "Serving.");
        Ok(Node { groups, readiness, clients, operators, plugins: plugins.host, control })
    }

    fn make_groups(
        &self,
        plugins: &Loaded,
        metrics: &Metrics,
        control: &Handle,
    ) -> anyhow::Result<Vec<Arc<Group>>> {
        let mut groups = Vec::new();
        for (name, settings) in &self.config.groups {
            if self.natives.contains_key(name) {
                bail!("group `{name}` is both in the config and added by the program");
            }
            let (Some(host), Some(plugin)) = (&plugins.host, plugins.by_name.get(&settings.plugin))
            else {
                bail!("group `{name}` names plugin `{}`, which is not there", settings.plugin);
            };
            let getter = Arc::clone(plugin) as Arc<dyn Getter>;
            let caching = settings.cache.clone();
            groups.push(Group::new(
                name,
                caching,
                getter,
                host.fills().clone(),
                metrics.group(name),
            ));
        }
        for (name, (caching, getter)) in &self.natives {
            let getter = Arc::clone(getter);
            let (fills, metrics) = (control.clone(), metrics.group(name));
            groups.push(Group::new(name, caching.clone(), getter, fills, metrics));
        }
        Ok(groups)
    }
}

impl Node {
    /// A node that is put together in code: no listeners and no groups yet.
    pub fn builder() -> NodeBuilder {
        NodeBuilder {
            config: Config::default(),
            base_dir: PathBuf::new(),
            natives: BTreeMap::new(),
            has_clients: false,
            has_operators: false,
        }
    }

    /// The node that `config` describes, to which groups can still be added.
    pub fn from_config(config: &Config, base_dir: &Path) -> NodeBuilder {
        NodeBuilder {
            config: config.clone(),
            base_dir: base_dir.to_owned(),
            has_clients: true,
            has_operators: true,
            ..Self::builder()
        }
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
        self.groups.get(name)
    }

    /// Where clients are served, if they are.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.clients.as_ref().map(Serving::local_addr)
    }

    /// Where operators are served, if they are.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.operators.as_ref().map(|operators| operators.address)
    }

    /// Drains and stops the node, in this order: it says that it is not ready, stops
    /// accepting clients and lets requests under way end within `[http]
    /// drain_timeout`; then operators, who could watch it until here; then fills and
    /// plugins, which nobody waits for any more.
    ///
    /// # Errors
    /// Requests that did not end in time: they were cut.
    pub fn stop(self) -> anyhow::Result<()> {
        outside_runtimes(|| self.stop_here())
    }

    fn stop_here(mut self) -> anyhow::Result<()> {
        self.readiness.draining();
        let clients = self.clients.take();
        let cut = clients.map_or(0, |clients| self.control.block_on(clients.drain()));
        if let Some(operators) = self.operators.take() {
            self.control.block_on(operators.stop());
        }
        // Groups hold plugins and plugins look into groups: this ends the circle.
        self.groups.replace([]);
        if let Some(plugins) = self.plugins.take() {
            plugins.shutdown();
        }
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

    /// Serves until SIGTERM or SIGINT, then stops. A second signal ends the process
    /// at once.
    ///
    /// # Errors
    /// As [`Node::stop`].
    pub fn run_until_signal(self) -> anyhow::Result<()> {
        let mut signals = {
            let _runtime = self.control.enter();
            Signals::new().context("watch for signals")?
        };
        let name = self.control.block_on(signals.next());
        info!(signal = name, "Draining; a second signal ends the node at once.");
        self.control.spawn(async move {
            let name = signals.next().await;
            warn!(signal = name, "Ended at once.");
            std::process::exit(130);
        });
        self.stop()?;
        info!("Stopped.");
        Ok(())
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
            let groups = Arc::<Groups>::default();
            let host = start_host(config, &groups, &Metrics::new())?;
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
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

impl Control {
    fn start() -> std::io::Result<Self> {
        let runtime = runtime::Builder::new_multi_thread()
            .thread_name("control")
            .worker_threads(CONTROL_THREADS)
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Ends the threads, and waits a moment for what they are at.
    fn stop(mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(RUNTIME_STOP);
        }
    }
}

impl Deref for Control {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        self.0.as_ref().expect("taken by `stop` and `drop` alone, which are the last to look")
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Operators {
    fn start(
        listener: tokio::net::TcpListener,
        state: AdminState,
        control: &Handle,
    ) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { drop(stopped.await) };
        let task = control.spawn(admin::serve(listener, Arc::new(state), shutdown));
        Ok(Self { address, stop, task })
    }

    async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            warn!(%error, "The admin surface ended badly.");
        }
    }
}

/// The plugins of a config, and the host that runs them if there are any.
struct Loaded {
    host: Option<PluginHost>,
    by_name: BTreeMap<String, Arc<Plugin>>,
}

fn load_plugins(
    config: &Config,
    base_dir: &Path,
    groups: &Arc<Groups>,
    metrics: &Metrics,
    control: &Control,
) -> anyhow::Result<Loaded> {
    if config.plugins.is_empty() {
        return Ok(Loaded { host: None, by_name: BTreeMap::new() });
    }
    let host = start_host(config, groups, metrics)?;
    let mut by_name = BTreeMap::new();
    for (name, settings) in &config.plugins {
        let plugin = control.block_on(host.load(name, settings, base_dir))?;
        info!(plugin = name, digest = plugin.digest(), "Loaded a plugin.");
        by_name.insert(name.clone(), plugin);
    }
    Ok(Loaded { host: Some(host), by_name })
}

fn start_host(
    config: &Config,
    groups: &Arc<Groups>,
    metrics: &Metrics,
) -> anyhow::Result<PluginHost> {
    PluginHost::start(&config.wasm, Arc::downgrade(groups), metrics.clone())
        .context("start the host of the plugins ([wasm])")
}

fn plugin_status(plugins: &[Arc<Plugin>]) -> serde_json::Value {
    let status: Vec<_> = plugins.iter().map(|plugin| plugin.status()).collect();
    serde_json::to_value(status).unwrap_or_default()
}

/// Runs `work`, which waits and drops runtimes, on a thread where that is allowed: the
/// caller may be in the middle of a runtime of its own.
fn outside_runtimes<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if Handle::try_current().is_err() {
        return work();
    }
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// The signals that end a node.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal and gives its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
