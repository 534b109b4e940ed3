//! A plugin as the getter of a group.
//!
//! A call takes these steps: check the key, wait for a turn, take a warm instance or
//! make one, run it until it answers or its deadline passes, check the answer. Only
//! an instance that answered is used again.
//!
//! Guests run on the host's own threads. A call from anywhere else is carried there,
//! so that a guest that burns CPU cannot slow whoever called.

use std::{
    fmt,
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    task::{AbortHandle, JoinHandle},
    time::Instant,
};

use super::{
    admission::{Admission, Refused},
    answer,
    bindings::{TRACK, types},
    fault::Fault,
    generation::Generation,
    imports::CallContext,
    instance::{Answer, Instance},
    status::{ExportStatus, InstanceStatus, PluginStatus, Stats},
};
use crate::{
    group::{BoxFuture, Fill, FillError, Getter, Outcome},
    metrics::PluginMetrics,
};

/// Keys in one trip of a plugin that takes several. The group has its own, usually
/// smaller bound; this one bounds what an instance must hold.
const BATCH_MAX: usize = 256;

/// How often idle instances are looked at: within this of their time they are gone.
const SWEEP_MIN: Duration = Duration::from_millis(50);
const SWEEP_MAX: Duration = Duration::from_secs(5);

/// A loaded plugin, which fills the misses of its groups.
pub struct Plugin {
    /// For calls that are carried to the host's threads.
    myself: Weak<Plugin>,
    pub(super) generation: Arc<Generation>,
    admission: Admission,
    metrics: PluginMetrics,
    stats: Stats,
    fills: Handle,
    sweeper: AbortHandle,
}

type Results = Vec<Result<Outcome, FillError>>;

impl Plugin {
    pub(super) fn new(generation: Generation, metrics: PluginMetrics, fills: Handle) -> Arc<Self> {
        Arc::new_cyclic(|myself| Self {
            myself: myself.clone(),
            admission: Admission::new(
                generation.environment.limits.instances,
                generation.environment.limits.queue,
            ),
            sweeper: fills
                .spawn(sweep(myself.clone(), generation.environment.limits.idle))
                .abort_handle(),
            generation: Arc::new(generation),
            metrics,
            stats: Stats::default(),
            fills,
        })
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.generation.environment.name
    }

    /// The digest of its file: `sha256:` and 64 hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.generation.digest
    }

    /// The plugin at this moment.
    pub fn status(&self) -> PluginStatus {
        let generation = &self.generation;
        let limits = generation.environment.limits.clone();
        PluginStatus {
            name: self.name().to_owned(),
            source: generation.source.display().to_string(),
            digest: generation.digest.clone(),
            contract: TRACK,
            exports: ExportStatus {
                batch: generation.batch.is_some(),
                lifecycle: generation.lifecycle.is_some(),
            },
            instances: InstanceStatus {
                busy: self.stats.busy.load(Relaxed),
                idle: u32::try_from(generation.pool.len()).unwrap_or(u32::MAX),
                max: limits.instances,
                waiting: self.admission.waiting(),
            },
            limits,
            calls: self.stats.calls.load(Relaxed),
            faults: self.stats.faults.load(Relaxed),
            last_error: self.stats.last_error(),
            memory_bytes: generation.environment.memory_bytes(),
        }
    }

    async fn load_here(&self, fill: Fill) -> Result<Outcome, FillError> {
        let key = utf8(&fill.key)?.to_owned();
        let deadline = self.deadline(fill.deadline);
        let mut call = Call::begin(self);
        let conditional = fill.validator.is_some();
        let context = CallContext::of_one(&fill, deadline);
        let result = self
            .with_instance(nesting(&fill), deadline, async |instance| {
                instance.get(&key, context, deadline).await
            })
            .await;
        let result = match result {
            Ok(answer) => self.outcome(answer, conditional),
            Err(failure) => Err(failure),
        };
        call.end(result.as_ref().map(is_found));
        result.map_err(Failure::into_fill_error)
    }

    async fn load_many_here(&self, fills: Vec<Fill>) -> Results {
        if self.generation.batch.is_none() || fills.len() < 2 {
            return self.load_each(fills).await;
        }
        // A key that the plugin cannot be given does not spoil the trip of the others.
        let keys: Vec<_> = fills.iter().map(|fill| utf8(&fill.key).map(str::to_owned)).collect();
        let good: Vec<_> = keys.iter().flatten().cloned().collect();
        let mut answered = match self.trip(&fills, good).await {
            Some(answers) => answers.into_iter(),
            None => return self.load_each(fills).await,
        };
        let lost = || FillError::Internal("the plugin gave no answer for this key".to_owned());
        let answer = |key: Result<String, FillError>| {
            key.and_then(|_| answered.next().unwrap_or_else(|| Err(lost())))
        };
        keys.into_iter().map(answer).collect()
    }

    async fn load_each(&self, fills: Vec<Fill>) -> Results {
        let mut results = Vec::with_capacity(fills.len());
        for fill in fills {
            results.push(self.load_here(fill).await);
        }
        results
    }

    /// One trip for all of `keys`; `None` when each key should be tried alone.
    async fn trip(&self, fills: &[Fill], keys: Vec<String>) -> Option<Results> {
        let earliest = fills.iter().map(|fill| fill.deadline).min()?;
        let deadline = self.deadline(earliest);
        let context = CallContext::of_many(fills, deadline)?;
        let depth = fills.iter().map(nesting).max()?;
        let count = keys.len();
        if count == 0 {
            return Some(Vec::new());
        }
        let mut call = Call::begin(self);
        let result = self
            .with_instance(depth, deadline, async |instance| {
                match instance.get_many(&keys, context, deadline).await {
                    Some(result) => result,
                    None => Err(Fault::Broken("it cannot take several keys".to_owned())),
                }
            })
            .await;
        let result = match result {
            Ok(Ok(answers)) if answers.len() == count => Ok(answers),
            Ok(Ok(answers)) => Err(self.broken(format!(
                "it answered {} keys when it was asked for {count}",
                answers.len()
            ))),
            Ok(Err(error)) => {
                // The trip failed for a reason that may lie with one key: the contract
                // has each tried alone. Where the origin is down that would not help.
                let alone =
                    matches!(error, types::Error::InvalidKey(_) | types::Error::Internal(_));
                let failure = Failure::Answered(answer::error(error));
                self.stats.failed(failure.to_string());
                if alone {
                    call.end(Err(&failure));
                    return None;
                }
                Err(failure)
            }
            Err(failure) => Err(failure),
        };
        call.end(result.as_ref().map(|_| true));
        Some(match result {
            Ok(answers) => answers
                .into_iter()
                .map(|answer| self.outcome(answer, false).map_err(Failure::into_fill_error))
                .collect(),
            Err(failure) => {
                let error = failure.into_fill_error();
                std::iter::repeat_n(error, count).map(Err).collect()
            }
        })
    }

    /// Runs `call` in an instance that serves nothing else meanwhile.
    async fn with_instance<T>(
        &self,
        depth: usize,
        deadline: Instant,
        call: impl AsyncFnOnce(&mut Instance) -> Result<T, Fault>,
    ) -> Result<T, Failure> {
        let _permit = self.admission.enter(depth, deadline).await.map_err(Failure::Refused)?;
        let _busy = Busy::new(self);
        let fault = |fault: Fault| {
            self.stats.faulted(self.name(), fault.to_string());
            Failure::Faulted(fault)
        };
        let pool = &self.generation.pool;
        let mut instance = match pool.take() {
            Some(instance) => instance,
            None => Instance::create(&self.generation, deadline)
                .await
                .map_err(|error| fault(error.into()))?,
        };
        // An instance whose call failed, or whose caller went away, is dropped.
        let answer = call(&mut instance).await.map_err(fault)?;
        pool.give_back(instance);
        Ok(answer)
    }

    fn outcome(&self, answer: Answer, conditional: bool) -> Result<Outcome, Failure> {
        match answer {
            Ok(outcome) => self
                .generation
                .answers
                .outcome(outcome, conditional)
                .map_err(|problem| self.broken(problem)),
            Err(error) => {
                let error = answer::error(error);
                if !matches!(error, FillError::InvalidKey(_)) {
                    self.stats.failed(error.to_string());
                }
                Err(Failure::Answered(error))
            }
        }
    }

    fn broken(&self, problem: String) -> Failure {
        let fault = Fault::Broken(problem);
        self.stats.faulted(self.name(), fault.to_string());
        Failure::Faulted(fault)
    }

    fn deadline(&self, of_fill: Instant) -> Instant {
        let own = Instant::now().checked_add(self.generation.environment.limits.timeout);
        own.map_or(of_fill, |own| own.min(of_fill))
    }

    /// This plugin, when the caller's thread is not one of the host's.
    fn elsewhere(&self) -> Option<Arc<Self>> {
        let here = Handle::try_current().is_ok_and(|current| current.id() == self.fills.id());
        if here { None } else { self.myself.upgrade() }
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name())
            .field("digest", &self.digest())
            .finish_non_exhaustive()
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.sweeper.abort();
    }
}

impl Getter for Plugin {
    fn load(&self, fill: Fill) -> BoxFuture<'_, Result<Outcome, FillError>> {
        let Some(plugin) = self.elsewhere() else { return Box::pin(self.load_here(fill)) };
        Box::pin(async move {
            let call = self.fills.spawn(async move { plugin.load_here(fill).await });
            Carried(call).result().await.unwrap_or_else(Err)
        })
    }

    fn batch_max(&self) -> usize {
        if self.generation.batch.is_some() { BATCH_MAX } else { 1 }
    }

    fn load_many(&self, fills: Vec<Fill>) -> BoxFuture<'_, Results> {
        let Some(plugin) = self.elsewhere() else { return Box::pin(self.load_many_here(fills)) };
        Box::pin(async move {
            let count = fills.len();
            let call = self.fills.spawn(async move { plugin.load_many_here(fills).await });
            match Carried(call).result().await {
                Ok(results) => results,
                Err(error) => std::iter::repeat_n(error, count).map(Err).collect(),
            }
        })
    }
}

/// A call on the host's threads, ended when its caller goes away.
struct Carried<T>(JoinHandle<T>);

impl<T> Carried<T> {
    /// The call's result, unless it panicked or the host is shutting down.
    async fn result(mut self) -> Result<T, FillError> {
        (&mut self.0).await.map_err(|error| {
            if error.is_panic() {
                FillError::Internal("the plugin host panicked in this call".to_owned())
            } else {
                FillError::Overloaded("the plugin host is shutting down".to_owned())
            }
        })
    }
}

impl<T> Drop for Carried<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn utf8(key: &[u8]) -> Result<&str, FillError> {
    std::str::from_utf8(key).map_err(|_| {
        FillError::InvalidKey("the keys of a group that a plugin fills are UTF-8 text".to_owned())
    })
}

/// How many other fills `fill` stands in; its chain has itself as the innermost.
fn nesting(fill: &Fill) -> usize {
    fill.chain.depth().saturating_sub(1)
}

async fn sweep(plugin: Weak<Plugin>, idle: Duration) {
    loop {
        tokio::time::sleep((idle / 4).clamp(SWEEP_MIN, SWEEP_MAX)).await;
        let Some(plugin) = plugin.upgrade() else { return };
        plugin.generation.pool.sweep(idle);
    }
}

/// Why a call has no value.
#[derive(Debug)]
enum Failure {
    /// It was not begun.
    Refused(Refused),
    /// It cost its instance, or its answer was out of bounds.
    Faulted(Fault),
    /// The plugin answered with an error of its own.
    Answered(FillError),
}

impl Failure {
    fn into_fill_error(self) -> FillError {
        match self {
            Self::Refused(Refused::Full) => FillError::Overloaded(self.to_string()),
            Self::Refused(Refused::Deadline) => FillError::TimedOut(self.to_string()),
            Self::Faulted(fault) => fault.into(),
            Self::Answered(error) => error,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(Refused::Full) => f.write_str(
                "all instances of the plugin are busy and its queue is full (limits.instances, \
                 limits.queue)",
            ),
            Self::Refused(Refused::Deadline) => f.write_str(
                "no instance of the plugin became free in time (limits.instances, limits.timeout)",
            ),
            Self::Faulted(fault) => fault.fmt(f),
            Self::Answered(error) => error.fmt(f),
        }
    }
}

fn is_found(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::NotFound(_))
}

/// Counts one call, whatever becomes of it.
struct Call<'a> {
    plugin: &'a Plugin,
    began: Instant,
    ended: bool,
}

impl<'a> Call<'a> {
    fn begin(plugin: &'a Plugin) -> Self {
        plugin.stats.calls.fetch_add(1, Relaxed);
        Self { plugin, began: Instant::now(), ended: false }
    }

    /// `Ok(false)`: there is no such key.
    fn end(&mut self, result: Result<bool, &Failure>) {
        self.ended = true;
        let metrics = &self.plugin.metrics;
        metrics.seconds.observe(self.began.elapsed().as_secs_f64());
        match result {
            Ok(true) => &metrics.ok,
            Ok(false) => &metrics.not_found,
            Err(Failure::Answered(_)) => &metrics.error,
            Err(Failure::Refused(Refused::Full) | Failure::Faulted(Fault::NoSlot)) => {
                &metrics.rejected
            }
            Err(
                Failure::Refused(Refused::Deadline)
                | Failure::Faulted(Fault::Deadline(_) | Fault::Cpu(_)),
            ) => &metrics.deadline,
            Err(Failure::Faulted(Fault::Broken(_) | Fault::Init(_))) => &metrics.trap,
        }
        .inc();
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        // The caller gave up first: its deadline was the earlier one.
        if !self.ended {
            self.plugin.metrics.seconds.observe(self.began.elapsed().as_secs_f64());
            self.plugin.metrics.deadline.inc();
        }
    }
}

/// Counts one instance as serving a call.
struct Busy<'a>(&'a Plugin);

impl<'a> Busy<'a> {
    fn new(plugin: &'a Plugin) -> Self {
        plugin.stats.busy.fetch_add(1, Relaxed);
        plugin.metrics.instances_busy.inc();
        Self(plugin)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.stats.busy.fetch_sub(1, Relaxed);
        self.0.metrics.instances_busy.dec();
    }
}
