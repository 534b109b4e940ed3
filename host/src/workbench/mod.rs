//! The workbench: what the author of a plugin does with it before a node has it.
//!
//! A plugin is a *project*, a folder with the manifest `plugin.toml`, or just the file of
//! a component. Whatever is tried here is tried in the real host: the same engine, the
//! same limits, the same egress as in a node, only without one. Where an origin is
//! needed, one is played on loopback, over real sockets.
//!
//! - `manifest`, `expectation`, `project`: what the author wrote down, and where.
//! - `table`, `answer`: the tests of a manifest run, and what came of a call in words.
//! - `bench`, `histogram`: gets under load, and how long they took.
//! - `conformance`: the suite that every getter can be held to.
//! - `check`, `inspect`: what can be known without a call, and what a file says itself.
//! - `origin`: an origin that says what it is told to.
//! - `new`, `build`: a project to begin with, and from its sources to a component.
//!
//! Invariants:
//! - guests run on the host's threads; the origin and whoever waits for guests do not, so
//!   that a guest that hangs is seen to hang;
//! - whatever waits here has a bound of time.

pub mod answer;
pub mod bench;
pub mod build;
pub mod check;
pub mod conformance;
pub mod expectation;
mod histogram;
pub mod inspect;
pub mod manifest;
pub mod new;
pub mod origin;
pub mod project;
pub mod table;

use std::{fmt, future::Future, io, path::Path, sync::Arc, time::Duration};

use serde::Serialize;
use thiserror::Error;
use tokio::{runtime, runtime::Runtime, time::Instant};

use self::project::Project;
use crate::{
    config::{self, Wasm},
    group::{Chain, Fill, Reason},
    metrics::Metrics,
    plugin::{Compiled, HostError, LoadError, Plugin, PluginHost, Problem},
};

/// The group that a plugin on the workbench is told it fills.
pub const GROUP: &str = "workbench";

/// Threads for the origin and for whoever waits.
const THREADS: usize = 2;

/// A plugin host without a node.
pub struct Workbench {
    host: Arc<PluginHost>,
    runtime: Runtime,
}

/// Why there is no workbench.
#[derive(Debug, Error)]
pub enum WorkbenchError {
    /// The plugin host does not start.
    #[error(transparent)]
    Host(#[from] HostError),
    /// No threads of its own.
    #[error("cannot start the threads of the workbench: {0}")]
    Threads(#[from] io::Error),
}

impl Workbench {
    /// Starts a host with `wasm`'s settings. Not within a runtime: the workbench has its
    /// own, and waits for it.
    ///
    /// # Errors
    /// The machine refuses the threads or the memory.
    pub fn start(wasm: &Wasm) -> Result<Self, WorkbenchError> {
        let runtime = runtime::Builder::new_multi_thread()
            .thread_name("workbench")
            .worker_threads(THREADS)
            .enable_all()
            .build()?;
        let host = Arc::new(PluginHost::start_alone(wasm, Metrics::new())?);
        Ok(Self { host, runtime })
    }

    /// Runs `work` to its end.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Reads and compiles the component at `path`.
    ///
    /// # Errors
    /// What is wrong with it, and the remedy.
    pub async fn compile(&self, path: &Path) -> Result<Compiled, Problem> {
        self.host.compile(path).await
    }

    /// Loads what is compiled of `project` under `settings`, as a node does: a first instance is made,
    /// prepares and checks itself.
    ///
    /// # Errors
    /// What is wrong with it, and the remedy.
    pub async fn load(
        &self,
        project: &Project,
        compiled: &Compiled,
        settings: &config::Plugin,
    ) -> Result<Arc<Plugin>, LoadError> {
        self.host.load_compiled(&project.name(), compiled, settings, &project.folder).await
    }
}

impl fmt::Debug for Workbench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workbench").field("host", &self.host).finish_non_exhaustive()
    }
}

/// A get of `key` that somebody waits for, within `time`. With a `validator`, it is a
/// refresh of the value that has it.
pub fn fill(key: &str, validator: Option<&str>, time: Duration) -> Fill {
    Fill {
        group: GROUP.into(),
        key: Arc::from(key.as_bytes()),
        deadline: Instant::now() + time,
        attempt: 1,
        reason: if validator.is_some() { Reason::Refresh } else { Reason::Miss },
        validator: validator.map(Into::into),
        chain: Chain::default(),
    }
}

/// How long an instance lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It serves one call after the other, as in a node.
    Warm,
    /// It serves one call.
    Fresh,
}

impl Mode {
    /// Both, in the order in which they are tried.
    pub const BOTH: [Self; 2] = [Self::Warm, Self::Fresh];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Fresh => "fresh",
        }
    }

    /// `settings` in this mode.
    #[must_use]
    pub fn settings(self, settings: &config::Plugin) -> config::Plugin {
        let mut settings = settings.clone();
        if self == Self::Fresh {
            settings.limits.calls = 1;
        }
        settings
    }
}
