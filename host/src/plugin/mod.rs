//! Hosting getter plugins: WebAssembly components that fill the misses of a group.
//!
//! A component is untrusted code. It is checked and compiled once ([`PluginHost::load`]),
//! tried in an instance of its own, and then serves calls in a small pool of
//! instances, each within limits of memory, time, CPU and answer size, and with no
//! way out of its sandbox but the imports it was granted.
//!
//! - `engine`, `compiler`, `cache_dir`: what compiles, where, and its memory, one for
//!   the node.
//! - `loader`, `component`, `componentize`, `generation`: from a file to something that
//!   can be instantiated, and has been.
//! - `store`, `limiter`, `instance`: one live instance and the limits it runs in.
//! - `pool`, `admission`, `getter`: many of them as the [`crate::group::Getter`] of a group.
//! - `reload`: how another version takes the place of the one that serves.
//! - `answer`, `fault`, `tally`: what comes back, checked and put into words.
//! - `health`, `poison`, `retry`, `checkup`: what becomes of calls that fail, and how a
//!   plugin fares.
//! - `compiled`, `measure`: a component tried under many settings and its calls measured,
//!   for whoever makes a plugin.
//! - `imports`, `egress`, `secrets`: what a guest may call, reach, and know.
//!
//! Invariants:
//! - a call that traps, stalls, exits or floods costs one fill an error and one
//!   instance its life, never the plugin or the node;
//! - guests run only on the host's own threads, compiling happens on none that serve;
//! - a plugin reaches only what its settings grant.

mod admission;
mod answer;
mod bindings;
mod cache_dir;
mod checkup;
mod compiled;
mod compiler;
mod component;
mod componentize;
mod egress;
mod engine;
mod environment;
mod error;
mod fault;
mod generation;
mod getter;
mod health;
mod imports;
mod instance;
mod limiter;
mod loader;
mod measure;
mod poison;
mod pool;
mod priority;
mod private_dir;
mod reload;
mod retry;
mod secrets;
mod status;
mod store;
mod tally;
#[cfg(test)]
mod tests;
mod text;
mod turns;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Weak},
};

use tokio::runtime::{Builder, Handle, Runtime};

pub use bindings::{PACKAGE as GETTER_PACKAGE, TRACK};
pub use compiled::Compiled;
pub use component::digest;
pub use componentize::componentize;
pub use error::{HostError, LoadError, Problem};
pub use getter::Plugin;
pub use measure::{Cost, Ended, Measured};
pub(crate) use reload::state_directory;
pub use reload::{
    Prepared, ReloadOutcome, ReloadReport, ReloadStatus, Reloaded, SwapHook, Swapped, Trigger,
};
pub use status::{
    BreakerStatus, CheckStatus, ExportStatus, HealthStatus, InstanceStatus, LastError, PluginStatus,
};

use self::{
    compiler::Compilers,
    loader::{Loader, Recipe},
    reload::{Rollout, Shelf},
};
use crate::{config, group::Groups, metrics::Metrics};

/// How much nicer the threads of guests are than those that serve from memory: a guest that
/// computes must not keep a hit from its core. Little enough that fills get about a third of
/// a core that somebody else wants as well.
const NICENESS: i32 = 5;

/// Threads for what blocks: name lookups, and components that are read. One more
/// waits; without a bound, guests could make the node run out of threads.
const BLOCKING_MAX: usize = 64;

/// Hosts all plugins of a node.
pub struct PluginHost {
    loader: Arc<Loader>,
    /// Where guests run. Taken when the host goes.
    guests: Option<Runtime>,
}

impl PluginHost {
    /// Sets up the engine and the threads on which guests run. `groups` are those that
    /// plugins may read; weakly, because they hold plugins in turn.
    pub fn start(
        settings: &config::Wasm,
        groups: Weak<Groups>,
        metrics: Metrics,
    ) -> Result<Self, HostError> {
        let shelf = Shelf::open(&settings.data_dir);
        Self::start_with(settings, groups, metrics, shelf)
    }

    /// As [`PluginHost::start`], without a node: plugins read no groups, and no version
    /// of them is kept.
    pub fn start_alone(settings: &config::Wasm, metrics: Metrics) -> Result<Self, HostError> {
        Self::start_with(settings, Weak::new(), metrics, Shelf::nowhere())
    }

    fn start_with(
        settings: &config::Wasm,
        groups: Weak<Groups>,
        metrics: Metrics,
        shelf: Shelf,
    ) -> Result<Self, HostError> {
        let engine = engine::start(settings)?;
        let linker = imports::linker(&engine).map_err(HostError::Linker)?;
        let mut builder = Builder::new_multi_thread();
        if settings.threads > 0 {
            builder.worker_threads(settings.threads);
        }
        let guests = builder
            .thread_name("guests")
            .on_thread_start(|| priority::lower(NICENESS))
            .max_blocking_threads(BLOCKING_MAX)
            .enable_all()
            .build()
            .map_err(HostError::Runtime)?;
        let fills = guests.handle().clone();
        let compilers = Compilers::start()?;
        let loader = Loader::new(engine, linker, compilers, fills, groups, metrics, shelf);
        Ok(Self { loader: Arc::new(loader), guests: Some(guests) })
    }

    /// The threads on which guests run, and with them the fills of their groups.
    pub fn fills(&self) -> &Handle {
        &self.loader.fills
    }

    /// Loads the plugin `name`: reads its file, checks it, compiles and links it, and
    /// tries an instance under its real limits; where that fails, its last good version
    /// if there is one. Relative paths begin at `base_dir`.
    /// Nothing serves yet: the plugin that is returned does, once a group has it.
    pub async fn load(
        &self,
        name: &str,
        settings: &config::Plugin,
        base_dir: &Path,
    ) -> Result<Arc<Plugin>, LoadError> {
        let load = self.load_inner(name, settings, base_dir);
        load.await.map_err(|problem| LoadError { plugin: name.to_owned(), problem })
    }

    async fn load_inner(
        &self,
        name: &str,
        settings: &config::Plugin,
        base_dir: &Path,
    ) -> Result<Arc<Plugin>, Problem> {
        let identity = self.loader.identity(name);
        let recipe = Recipe { settings: Arc::new(settings.clone()), base_dir: base_dir.into() };
        let rollout = Rollout::start(Arc::clone(&self.loader), identity.clone(), recipe).await?;
        Ok(Plugin::new(rollout, identity, self.loader.fills.clone()))
    }

    /// Does all that [`PluginHost::load`] does with the file as it is, and keeps nothing:
    /// the digest, or what is wrong.
    pub async fn check(
        &self,
        name: &str,
        settings: &config::Plugin,
        base_dir: &Path,
    ) -> Result<String, LoadError> {
        let identity = self.loader.identity(name);
        let recipe = Recipe { settings: Arc::new(settings.clone()), base_dir: base_dir.into() };
        let checked = reload::check(&self.loader, &identity, &recipe).await;
        checked.map_err(|problem| LoadError { plugin: name.to_owned(), problem })
    }

    /// Ends the host's threads. Calls under way are abandoned: drain first.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginHost").finish_non_exhaustive()
    }
}

impl Drop for PluginHost {
    fn drop(&mut self) {
        if let Some(guests) = self.guests.take() {
            // A runtime that is simply dropped waits for its threads, and panics where
            // waiting is not allowed.
            guests.shutdown_background();
        }
    }
}
