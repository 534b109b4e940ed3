//! One loaded version of a plugin: its code, its grants, its instances.
//!
//! A generation never changes. A new file or new settings make a new one, which takes
//! the place of the old one when its trial has succeeded; calls under way finish on
//! the one they began with.

use std::{path::PathBuf, sync::Arc, time::Duration};

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;
use wasmtime::{
    Engine,
    component::{Component, InstancePre, Linker},
};

use super::{
    answer::Answers,
    bindings::{BATCH_GETTER, GETTER, LIFECYCLE, batch, contract, lifecycle},
    environment::Environment,
    error::Problem,
    fault::{Fault, chain_text},
    instance::{CreateError, Instance},
    pool::Pool,
    store::State,
};

/// Time for a trial at load: instantiate, init and check. A plugin that needs longer
/// to prepare would make every new instance's first call time out.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// One loaded version of a plugin.
pub(super) struct Generation {
    pub(super) source: PathBuf,
    pub(super) digest: String,
    pub(super) environment: Arc<Environment>,
    pub(super) engine: Engine,
    pub(super) pre: InstancePre<State>,
    pub(super) getter: contract::PluginIndices,
    pub(super) batch: Option<batch::OnlyBatchIndices>,
    pub(super) lifecycle: Option<lifecycle::OnlyLifecycleIndices>,
    pub(super) answers: Answers,
    pub(super) pool: Pool,
}

impl Generation {
    /// Links `component`. Names are checked here, types in [`Generation::trial`].
    pub(super) fn link(
        source: PathBuf,
        digest: String,
        component: &Component,
        linker: &Linker<State>,
        environment: Arc<Environment>,
        idle: Gauge,
    ) -> Result<Self, Problem> {
        let pre = linker
            .instantiate_pre(component)
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
        Ok(Self {
            source,
            digest,
            engine: component.engine().clone(),
            pre,
            getter,
            batch,
            lifecycle,
            answers: Answers::new(environment.limits.value.get()),
            pool: Pool::new(idle),
            environment,
        })
    }

    /// Makes a first instance under the real limits and has it check itself. The
    /// instance is kept warm for the first call.
    pub(super) async fn trial(&self) -> Result<(), Problem> {
        let deadline = Instant::now() + TRIAL_TIMEOUT;
        let mut instance = Instance::create(self, deadline).await.map_err(problem)?;
        match instance.check(deadline).await {
            Ok(Ok(())) => {}
            Ok(Err(message)) => return Err(Problem::Lifecycle { function: "check", message }),
            Err(fault) => return Err(lifecycle_problem("check", &fault)),
        }
        self.pool.give_back(instance);
        Ok(())
    }
}

fn problem(error: CreateError) -> Problem {
    match error {
        CreateError::Instantiate(Fault::Deadline(_)) => Problem::TrialTimeout(TRIAL_TIMEOUT),
        CreateError::Instantiate(fault) => Problem::Instantiate(fault.to_string()),
        CreateError::Export { interface, message } => Problem::Export { interface, message },
        CreateError::Init(fault) => lifecycle_problem("init", &fault),
        CreateError::InitError(message) => Problem::Lifecycle { function: "init", message },
    }
}

fn lifecycle_problem(function: &'static str, fault: &Fault) -> Problem {
    match fault {
        Fault::Deadline(_) => Problem::TrialTimeout(TRIAL_TIMEOUT),
        fault => Problem::Lifecycle { function, message: fault.to_string() },
    }
}
