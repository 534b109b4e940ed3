//! One loaded version of a plugin: its code, its grants, its instances.
//!
//! A generation never changes. A new file or new settings make a new one, which takes
//! the place of the old one when its trial has succeeded; calls under way finish on
//! the one they began with.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;
use wasmtime::{
    Engine,
    component::{Component, InstancePre, Linker},
};

use super::{
    admission::Admission,
    answer::{self, Answers},
    bindings::{BATCH_GETTER, GETTER, LIFECYCLE, batch, contract, lifecycle},
    component,
    environment::Environment,
    error::Problem,
    fault::{Fault, chain_text},
    imports::CallContext,
    instance::{CreateError, Instance},
    loader::Recipe,
    pool::Pool,
    store::State,
    text,
};
use crate::group::{Chain, Fill, Reason};

/// Time for a trial at load: instantiate, init and check. A plugin that needs longer
/// to prepare would make every new instance's first call time out.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a probe's key that an error shows.
const PROBE_KEY_SHOWN: usize = 128;

/// One loaded version of a plugin.
pub(super) struct Generation {
    /// Counts up over all plugins of the node.
    pub(super) number: u64,
    /// What it was made from.
    pub(super) recipe: Recipe,
    pub(super) digest: String,
    /// The same in eight bytes, for other nodes.
    pub(super) code: u64,
    /// Kept to make it live again after a failed successor.
    pub(super) component: Component,
    pub(super) environment: Arc<Environment>,
    pub(super) engine: Engine,
    pub(super) pre: InstancePre<State>,
    pub(super) getter: contract::PluginIndices,
    pub(super) batch: Option<batch::OnlyBatchIndices>,
    pub(super) lifecycle: Option<lifecycle::OnlyLifecycleIndices>,
    pub(super) answers: Answers,
    pub(super) admission: Arc<Admission>,
    pub(super) pool: Pool,
    pub(super) loaded_at: SystemTime,
    /// How many generations of the plugin there are, this one included.
    live: Gauge,
}

/// What a generation is made of.
pub(super) struct Parts {
    pub(super) number: u64,
    pub(super) recipe: Recipe,
    pub(super) digest: String,
    pub(super) component: Component,
    pub(super) environment: Arc<Environment>,
    pub(super) admission: Arc<Admission>,
    /// Shows how many instances are idle.
    pub(super) idle: Gauge,
    /// Shows how many generations of the plugin there are.
    pub(super) live: Gauge,
}

impl Generation {
    /// Links the component. Names are checked here, types in [`Generation::trial`].
    pub(super) fn link(parts: Parts, linker: &Linker<State>) -> Result<Self, Problem> {
        let component = parts.component;
        let pre = linker
            .instantiate_pre(&component)
            .map_err(|error| Problem::ImportType(chain_text(&error)))?;
        let export = |interface| {
            move |error: wasmtime::Error| Problem::Export { interface, message: chain_text(&error) }
        };
        let getter = contract::PluginIndices::new(&pre).map_err(export(GETTER))?;
        // What is absent is not used; what is there must be whole.
        let has = |interface| component.get_export_index(None, interface).is_some();
        let batch = has(BATCH_GETTER)
            .then(|| batch::OnlyBatchIndices::new(&pre).map_err(export(BATCH_GETTER)))
            .transpose()?;
        let lifecycle = has(LIFECYCLE)
            .then(|| lifecycle::OnlyLifecycleIndices::new(&pre).map_err(export(LIFECYCLE)))
            .transpose()?;
        parts.live.inc();
        Ok(Self {
            number: parts.number,
            recipe: parts.recipe,
            code: component::short(&parts.digest),
            digest: parts.digest,
            engine: component.engine().clone(),
            component,
            pre,
            getter,
            batch,
            lifecycle,
            answers: Answers::new(parts.environment.limits.value.get()),
            admission: parts.admission,
            pool: Pool::new(parts.idle),
            environment: parts.environment,
            loaded_at: SystemTime::now(),
            live: parts.live,
        })
    }

    /// The component's file.
    pub(super) fn source(&self) -> PathBuf {
        self.recipe.path()
    }

    /// When a call for a fill that ends by `of_fill` must end.
    pub(super) fn deadline(&self, of_fill: Instant) -> Instant {
        let own = Instant::now().checked_add(self.environment.limits.timeout);
        own.map_or(of_fill, |own| own.min(of_fill))
    }

    /// Takes no further call but those that have begun, and lets go of its instances.
    pub(super) fn retire(&self) {
        self.pool.close();
    }

    /// Ends the calls that still run, at their next tick.
    pub(super) fn kill(&self) {
        self.environment.killed.store(true, Relaxed);
    }

    /// Makes a first instance under the real limits, has it check itself, and has it
    /// get the keys that the settings name as probes. The instance is kept warm for
    /// the first call.
    pub(super) async fn trial(&self) -> Result<(), Problem> {
        let deadline = Instant::now() + TRIAL_TIMEOUT;
        let mut instance = Instance::create(self, deadline).await.map_err(problem)?;
        match instance.check(deadline).await {
            Ok(Ok(())) => {}
            Ok(Err(message)) => {
                return Err(Problem::Lifecycle { function: "check", message, is_fault: false });
            }
            Err(fault) => return Err(lifecycle_problem("check", &fault)),
        }
        for key in &self.recipe.settings.probe.keys {
            self.probe(&mut instance, key, deadline).await.map_err(|message| Problem::Probe {
                key: text::tidy(key, PROBE_KEY_SHOWN),
                message,
            })?;
        }
        self.pool.give_back(instance);
        Ok(())
    }

    /// Gets `key` as a client's miss would; any answer that is not an error will do.
    async fn probe(
        &self,
        instance: &mut Instance,
        key: &str,
        deadline: Instant,
    ) -> Result<(), String> {
        let fill = Fill {
            group: self.recipe.settings.probe.group.as_str().into(),
            key: key.as_bytes().into(),
            deadline,
            attempt: 1,
            reason: Reason::Warm,
            validator: None,
            chain: Chain::default(),
        };
        let deadline = self.deadline(deadline);
        let context = CallContext::of_one(&fill, deadline);
        match instance.get(key, context, deadline).await {
            Ok(Ok(outcome)) => self.answers.outcome(outcome, false).map(drop),
            Ok(Err(error)) => Err(answer::error(error).to_string()),
            Err(fault) => Err(fault.to_string()),
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.live.dec();
    }
}

fn problem(error: CreateError) -> Problem {
    match error {
        CreateError::Instantiate(Fault::Deadline(_) | Fault::Endless(_)) => {
            Problem::TrialTimeout(TRIAL_TIMEOUT)
        }
        CreateError::Instantiate(fault) => Problem::Instantiate(fault.to_string()),
        CreateError::Export { interface, message } => Problem::Export { interface, message },
        CreateError::Init(fault) => lifecycle_problem("init", &fault),
        CreateError::InitError(message) => {
            Problem::Lifecycle { function: "init", message, is_fault: false }
        }
    }
}

fn lifecycle_problem(function: &'static str, fault: &Fault) -> Problem {
    match fault {
        Fault::Deadline(_) | Fault::Endless(_) => Problem::TrialTimeout(TRIAL_TIMEOUT),
        fault => Problem::Lifecycle { function, message: fault.to_string(), is_fault: true },
    }
}
