//! From settings to a generation that has proved itself: read, compile, link, try.
//!
//! Every plugin of a node loads by this one loader, at its start and at each reload
//! after that. Nothing here touches what serves: a load that fails leaves no trace.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::{runtime::Handle, task::JoinError};
use wasmtime::{
    Engine,
    component::{Component, Linker},
};

use super::{
    admission::Admission,
    compiler::Compilers,
    component::{self, Source},
    egress::Egress,
    environment::Environment,
    error::Problem,
    generation::{Generation, Parts},
    health::Health,
    imports::{Families, GuestLog, GuestMetrics, LogBudget},
    reload::{Lookout, Shelf},
    secrets::Secrets,
    store::State,
    turns::Turns,
};
use crate::{
    config,
    group::Groups,
    metrics::{Metrics, PluginMetrics},
};

/// What loads the plugins of one node.
pub(super) struct Loader {
    pub(super) engine: Engine,
    linker: Linker<State>,
    /// The threads on which guests run.
    pub(super) fills: Handle,
    groups: Weak<Groups>,
    metrics: Metrics,
    families: Arc<Families>,
    turns: Turns,
    /// What the plugins of the node may log together.
    log_budget: Arc<LogBudget>,
    compilers: Compilers,
    /// Where the last good version of each plugin is kept.
    pub(super) shelf: Shelf,
    pub(super) lookout: Arc<Lookout>,
    /// Numbers the generations of the node.
    generations: AtomicU64,
}

/// What a plugin is to be: its settings, and where relative paths begin.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recipe {
    pub(super) settings: Arc<config::Plugin>,
    pub(super) base_dir: Arc<Path>,
}

impl Recipe {
    /// The component's file.
    pub(super) fn path(&self) -> PathBuf {
        self.base_dir.join(&self.settings.source)
    }
}

/// The code of a generation to be.
pub(super) enum Code {
    /// As it came from its file.
    Source(Source),
    /// Compiled before, with the digest of its file.
    Compiled(Component, String),
}

/// What belongs to a plugin and not to one of its generations: its name, and what it
/// writes and counts, whose bounds a reload must not renew.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) name: Arc<str>,
    pub(super) log: Arc<GuestLog>,
    pub(super) guest_metrics: Arc<GuestMetrics>,
    pub(super) metrics: PluginMetrics,
    pub(super) health: Arc<Health>,
}

impl Loader {
    pub(super) fn new(
        engine: Engine,
        linker: Linker<State>,
        compilers: Compilers,
        fills: Handle,
        groups: Weak<Groups>,
        metrics: Metrics,
        shelf: Shelf,
    ) -> Self {
        Self {
            turns: Turns::of(&fills),
            engine,
            linker,
            fills,
            groups,
            families: Arc::new(Families::new(metrics.clone())),
            log_budget: Arc::new(LogBudget::of_node()),
            metrics,
            compilers,
            shelf,
            lookout: Lookout::new(),
            generations: AtomicU64::new(0),
        }
    }

    /// Who the plugin `name` is, whatever it will load.
    pub(super) fn identity(&self, name: &str) -> Identity {
        let name: Arc<str> = name.into();
        let metrics = self.metrics.plugin(&name);
        let dropped = metrics.log_records_dropped.clone();
        let log = GuestLog::new(Arc::clone(&name), Arc::clone(&self.log_budget), dropped);
        let guest_metrics = GuestMetrics::new(Arc::clone(&name), Arc::clone(&self.families));
        let health = Health::new(Arc::clone(&name), metrics.health.clone());
        Identity {
            name,
            log: Arc::new(log),
            guest_metrics: Arc::new(guest_metrics),
            metrics,
            health: Arc::new(health),
        }
    }

    /// Compiles and links `code`, and tries an instance of it under the limits and
    /// grants of `recipe`. `running` is the generation that may be replaced: if the
    /// new one has the same limits, both together keep within them.
    pub(super) async fn generation(
        &self,
        identity: &Identity,
        recipe: &Recipe,
        code: Code,
        running: Option<&Generation>,
    ) -> Result<Generation, Problem> {
        // Settings that cannot be used are found out before anything is compiled.
        let environment = self.environment(identity, recipe).await?;
        let (component, digest) = match code {
            Code::Compiled(component, digest) => (component, digest),
            Code::Source(source) => {
                component::check_source(&source, recipe.settings.digest.as_deref())?;
                let digest = source.digest.clone();
                (self.compile(source).await?, digest)
            }
        };
        let generation = self.link(identity, recipe, (component, digest), environment, running)?;
        let trial = self.fills.spawn(async move { generation.trial().await.map(|()| generation) });
        trial.await.map_err(|error| abandoned(&error))?
    }

    /// Another generation of the code that `old` was, with the settings of `running`,
    /// ready to serve at once: the component is compiled, and it has served before.
    pub(super) fn revive(
        &self,
        identity: &Identity,
        old: &Generation,
        running: &Generation,
    ) -> Result<Generation, Problem> {
        let environment = Arc::new(running.environment.renewed());
        let compiled = (old.component.clone(), old.digest.clone());
        self.link(identity, &running.recipe, compiled, environment, Some(running))
    }

    /// What a generation of `recipe` is given, its secrets read anew.
    async fn environment(
        &self,
        identity: &Identity,
        recipe: &Recipe,
    ) -> Result<Arc<Environment>, Problem> {
        let (identity, recipe, groups) = (identity.clone(), recipe.clone(), self.groups.clone());
        let turns = self.turns.of_plugin();
        let reading = move || {
            let settings = &recipe.settings;
            let secrets = Arc::new(Secrets::read(settings, &recipe.base_dir)?);
            let egress = Egress::new(
                &identity.name,
                settings,
                &recipe.base_dir,
                Arc::clone(&secrets),
                &identity.metrics,
            )
            .map_err(Problem::Grant)?;
            Ok(Arc::new(Environment::new(
                settings,
                secrets,
                groups,
                identity.log,
                identity.guest_metrics,
                Arc::new(egress),
                turns,
            )))
        };
        self.fills.spawn_blocking(reading).await.map_err(|error| abandoned(&error))?
    }

    fn link(
        &self,
        identity: &Identity,
        recipe: &Recipe,
        (component, digest): (Component, String),
        environment: Arc<Environment>,
        running: Option<&Generation>,
    ) -> Result<Generation, Problem> {
        let limits = &recipe.settings.limits;
        // Shared, the old generation's calls and the new one's keep within one bound
        // together, and those that wait go on waiting.
        let admission = running
            .filter(|running| {
                let old = &running.environment.limits;
                (old.instances, old.queue) == (limits.instances, limits.queue)
            })
            .map_or_else(
                || Arc::new(Admission::new(limits.instances, limits.queue)),
                |running| Arc::clone(&running.admission),
            );
        Generation::link(
            Parts {
                number: self.generations.fetch_add(1, Relaxed) + 1,
                recipe: recipe.clone(),
                digest,
                component,
                environment,
                admission,
                idle: identity.metrics.instances_idle.clone(),
                live: identity.metrics.generations.clone(),
            },
            &self.linker,
        )
    }

    /// Compiles on threads that serve nothing.
    pub(super) async fn compile(&self, source: Source) -> Result<Component, Problem> {
        let engine = self.engine.clone();
        let job = move || {
            let component = component::compile(&engine, &source)?;
            component::check_interfaces(&engine, &component)?;
            Ok(component)
        };
        self.compilers.run(job).await
    }
}

/// Why a step of a load came to no end of its own.
pub(super) fn abandoned(error: &JoinError) -> Problem {
    if error.is_panic() {
        Problem::Invalid("the host panicked over it, which is a defect of this program".to_owned())
    } else {
        Problem::Shutdown
    }
}
