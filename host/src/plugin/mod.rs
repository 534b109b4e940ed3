//! Hosting getter plugins: WebAssembly components that fill the misses of a group.
//!
//! A component is untrusted code. It is checked and compiled once ([`PluginHost::load`]),
//! tried in an instance of its own, and then serves calls in a small pool of
//! instances, each within limits of memory, time, CPU and answer size, and with no
//! way out of its sandbox but the imports it was granted.
//!
//! - `engine`, `cache_dir`: the compiler and its memory, one for the node.
//! - `component`, `generation`: from a file to something that can be instantiated.
//! - `store`, `limiter`, `instance`: one live instance and the limits it runs in.
//! - `pool`, `admission`, `getter`: many of them as the [`crate::group::Getter`] of a group.
//! - `answer`, `fault`: what comes back, checked and put into words.
//! - `imports`, `egress`: what a guest may call, and reach.
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
mod component;
mod egress;
mod engine;
mod environment;
mod error;
mod fault;
mod generation;
mod getter;
mod imports;
mod instance;
mod limiter;
mod pool;
mod status;
mod store;
#[cfg(test)]
mod tests;
mod text;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::Semaphore,
    task::JoinError,
    time::timeout,
};
use wasmtime::{
    Engine,
    component::{Component, Linker},
};

pub use error::{HostError, LoadError, Problem};
pub use getter::Plugin;
pub use status::{ExportStatus, InstanceStatus, LastError, PluginStatus};

use self::{
    egress::Egress,
    environment::Environment,
    generation::Generation,
    imports::{Families, GuestLog, GuestMetrics},
    store::State,
};
use crate::{config, group::Groups, metrics::Metrics};

/// Components compiled at once: each already uses all cores.
const COMPILERS: usize = 1;

/// Time for one component to compile. The largest guests with a language runtime take
/// about a fifth of it on a slow machine.
const COMPILE_TIMEOUT: Duration = Duration::from_mins(2);

/// Threads for what blocks: name lookups, and one component that compiles. One more
/// lookup waits; without a bound, guests could make the node run out of threads.
const BLOCKING_MAX: usize = 64;

/// Hosts all plugins of a node.
pub struct PluginHost {
    engine: Engine,
    linker: Linker<State>,
    /// Where guests run. Taken when the host goes.
    guests: Option<Runtime>,
    fills: Handle,
    groups: Weak<Groups>,
    metrics: Metrics,
    families: Arc<Families>,
    compilers: Arc<Semaphore>,
}

impl PluginHost {
    /// Sets up the engine and the threads on which guests run. `groups` are those that
    /// plugins may read; weakly, because they hold plugins in turn.
    pub fn start(
        settings: &config::Wasm,
        groups: Weak<Groups>,
        metrics: Metrics,
    ) -> Result<Self, HostError> {
        let engine = engine::start(settings)?;
        let linker = imports::linker(&engine).map_err(HostError::Linker)?;
        let mut builder = Builder::new_multi_thread();
        if settings.threads > 0 {
            builder.worker_threads(settings.threads);
        }
        let guests = builder
            .thread_name("guests")
            .max_blocking_threads(BLOCKING_MAX)
            .enable_all()
            .build()
            .map_err(HostError::Runtime)?;
        Ok(Self {
            engine,
            linker,
            fills: guests.handle().clone(),
            guests: Some(guests),
            groups,
            families: Arc::new(Families::new(metrics.clone())),
            metrics,
            compilers: Arc::new(Semaphore::new(COMPILERS)),
        })
    }

    /// The threads on which guests run, and with them the fills of their groups.
    pub fn fills(&self) -> &Handle {
        &self.fills
    }

    /// Loads the plugin `name`: reads its file, checks it, compiles and links it, and
    /// tries an instance under its real limits. Relative paths begin at `base_dir`.
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
        let name: Arc<str> = name.into();
        let egress = Egress::new(&name, &settings.network).map_err(Problem::Grant)?;
        let path = base_dir.join(&settings.source);
        let pinned = settings.digest.clone();
        let (component, digest) = self.compile(&path, pinned).await?;

        let metrics = self.metrics.plugin(&name);
        let log = GuestLog::new(Arc::clone(&name), metrics.log_records_dropped.clone());
        let guest_metrics = GuestMetrics::new(Arc::clone(&name), Arc::clone(&self.families));
        let environment = Arc::new(Environment::new(
            &name,
            settings,
            self.groups.clone(),
            Arc::new(log),
            Arc::new(guest_metrics),
            Arc::new(egress),
        ));
        let idle = metrics.instances_idle.clone();
        let generation =
            Generation::link(path, digest, &component, &self.linker, environment, idle)?;
        let trial = self.fills.spawn(async move { generation.trial().await.map(|()| generation) });
        let generation = trial.await.map_err(|error| abandoned(&error))??;
        Ok(Plugin::new(generation, metrics, self.fills.clone()))
    }

    /// Reads and compiles on threads that serve nothing.
    async fn compile(
        &self,
        path: &Path,
        pinned: Option<String>,
    ) -> Result<(Component, String), Problem> {
        let engine = self.engine.clone();
        let path = path.to_owned();
        let permit = Arc::clone(&self.compilers).acquire_owned().await;
        let permit = permit.map_err(|_| Problem::Shutdown)?;
        let compiling = self.fills.spawn_blocking(move || {
            // Held to the end even when nobody waits any longer.
            let _permit = permit;
            let source = component::read(&path, pinned.as_deref())?;
            let component = component::compile(&engine, &source)?;
            component::check_interfaces(&engine, &component)?;
            Ok((component, source.digest))
        });
        match timeout(COMPILE_TIMEOUT, compiling).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(abandoned(&error)),
            Err(_) => Err(Problem::CompileTimeout(COMPILE_TIMEOUT)),
        }
    }

    /// Ends the host's threads. Calls under way are abandoned: drain first.
    pub fn shutdown(self) {
        drop(self);
    }
}

/// Why a step of a load came to no end of its own.
fn abandoned(error: &JoinError) -> Problem {
    if error.is_panic() {
        Problem::Invalid("the host panicked over it, which is a defect of this program".to_owned())
    } else {
        Problem::Shutdown
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
