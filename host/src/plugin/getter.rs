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
    path::Path,
    sync::{Arc, OnceLock, Weak, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    task::{AbortHandle, JoinHandle},
};

use super::{
    LoadError, Problem, answer,
    bindings::TRACK,
    checkup::check_now_and_then,
    fault::Fault,
    generation::Generation,
    health::{Attempt, Health},
    imports::CallContext,
    instance::{Answer, Instance},
    loader::{Identity, abandoned},
    reload::{Ending, Prepared, Reloaded, Rollout, SwapHook, Trigger},
    status::{ExportStatus, InstanceStatus, PluginStatus, Stats, seconds},
    tally::{Busy, Call, Failure, is_found},
};
use crate::{
    breaker::Report,
    config,
    group::{BoxFuture, Fill, FillError, Getter, Outcome},
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
    identity: Identity,
    /// What new calls begin with. A call keeps the generation it began with to its end.
    rollout: Arc<Rollout>,
    stats: Stats,
    pub(super) fills: Handle,
    /// The sweeper and the checker. They begin when the plugin is whole.
    tasks: OnceLock<[AbortHandle; 2]>,
}

type Results = Vec<Result<Outcome, FillError>>;

impl Plugin {
    pub(super) fn new(rollout: Arc<Rollout>, identity: Identity, fills: Handle) -> Arc<Self> {
        let plugin = Arc::new_cyclic(|myself| Self {
            myself: myself.clone(),
            rollout,
            identity,
            stats: Stats::default(),
            fills,
            tasks: OnceLock::new(),
        });
        plugin.tasks.get_or_init(|| {
            let sweeper = plugin.fills.spawn(sweep(Arc::downgrade(&plugin)));
            let checker = plugin.fills.spawn(check_now_and_then(Arc::downgrade(&plugin)));
            [sweeper.abort_handle(), checker.abort_handle()]
        });
        plugin
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// The digest of the file that serves: `sha256:` and 64 hexadecimal digits.
    pub fn digest(&self) -> String {
        self.generation().digest.clone()
    }

    /// What new calls begin with.
    pub(super) fn generation(&self) -> Arc<Generation> {
        self.rollout.current()
    }

    /// Looks at the plugin's file, and puts what it holds to work if that is new and
    /// good. Goes on to its end when the caller goes away.
    ///
    /// # Errors
    /// What is wrong with the file: the old version goes on serving.
    pub async fn reload(&self, trigger: Trigger) -> Result<Reloaded, LoadError> {
        let rollout = Arc::clone(&self.rollout);
        let reloading = self.fills.spawn(async move { rollout.reload(trigger).await });
        let result = reloading.await.unwrap_or_else(|error| Err(abandoned(&error)));
        result.map_err(|problem| self.load_error(problem))
    }

    /// Tries the plugin under other settings, beside what serves. Until the result is
    /// installed or dropped, the plugin does not reload.
    ///
    /// # Errors
    /// Why it cannot work under these settings: nothing has changed.
    pub async fn prepare(
        &self,
        settings: &config::Plugin,
        base_dir: &Path,
    ) -> Result<Prepared, LoadError> {
        let prepared = self.rollout.prepare(settings, base_dir).await;
        prepared.map_err(|problem| self.load_error(problem))
    }

    /// Puts what [`Plugin::prepare`] tried to work; gives the number of the generation.
    pub fn install(&self, prepared: Prepared) -> u64 {
        self.rollout.install(prepared)
    }

    /// Has `hook` called whenever another version goes live. Only the first hook counts.
    pub fn on_swap(&self, hook: SwapHook) {
        self.rollout.on_swap(hook);
    }

    /// Stops watching the file, and lets go of idle instances: nobody will call any
    /// more. Calls under way end by themselves.
    pub fn retire(&self) {
        self.rollout.retire_all();
        self.identity.guest_metrics.close();
    }

    fn load_error(&self, problem: Problem) -> LoadError {
        LoadError { plugin: self.name().to_owned(), problem }
    }

    /// The plugin at this moment.
    pub fn status(&self) -> PluginStatus {
        let generation = self.generation();
        let limits = generation.environment.limits.clone();
        PluginStatus {
            name: self.name().to_owned(),
            source: generation.source().display().to_string(),
            digest: generation.digest.clone(),
            generation: generation.number,
            loaded_at: seconds(generation.loaded_at),
            contract: TRACK,
            exports: ExportStatus {
                batch: generation.batch.is_some(),
                lifecycle: generation.lifecycle.is_some(),
            },
            instances: InstanceStatus {
                busy: self.stats.busy.load(Relaxed),
                idle: u32::try_from(generation.pool.len()).unwrap_or(u32::MAX),
                max: limits.instances,
                waiting: generation.admission.waiting(),
            },
            limits,
            calls: self.stats.calls.load(Relaxed),
            faults: self.stats.faults.load(Relaxed),
            last_error: self.stats.last_error(),
            health: self.health().status(),
            memory_bytes: generation.environment.memory_bytes(),
            reload: self.rollout.status(),
        }
    }

    /// How the plugin fares, with the code that serves.
    pub(super) fn health(&self) -> &Health {
        let health = &self.identity.health;
        health.judge(&self.generation());
        health
    }

    /// The generation to check, unless calls leave no room for it.
    pub(super) fn to_be_checked(&self) -> Option<Arc<Generation>> {
        let generation = self.generation();
        let has_room = self.stats.busy.load(Relaxed) < generation.environment.limits.instances;
        has_room.then_some(generation)
    }

    /// Takes note of what a check of `generation` found.
    pub(super) fn checked(&self, generation: &Generation, result: Result<(), String>) {
        if let Err(error) = &result {
            self.stats.faulted(self.name(), format!("its check of itself failed: {error}"));
        }
        self.identity.health.checked(generation, result);
    }

    async fn load_here(&self, fill: Fill) -> Result<Outcome, FillError> {
        match self.call(&fill, false).await {
            Ok(outcome) => Ok(outcome),
            Err(failure) => self.try_again(fill, failure).await,
        }
    }

    /// One call for `fill`; in an instance that has served nothing if it is to be `fresh`.
    pub(super) async fn call(&self, fill: &Fill, fresh: bool) -> Result<Outcome, Failure> {
        let key = utf8(&fill.key).map_err(Failure::Answered)?;
        let generation = self.generation();
        let deadline = generation.deadline(fill.deadline);
        let mut call = Call::begin(&self.stats, &self.identity.metrics);
        let mut attempt =
            self.identity.health.attempt(&generation, std::slice::from_ref(fill), deadline);
        attempt.is_fresh = fresh;
        let conditional = fill.validator.is_some();
        let context = CallContext::of_one(fill, deadline);
        let result = self
            .with_instance(&generation, nesting(fill), &mut attempt, async |instance| {
                instance.get(key, context, deadline).await
            })
            .await;
        let result = match result {
            Ok(answer) => self.outcome(&generation, answer, conditional),
            Err(failure) => Err(failure),
        };
        call.end(result.as_ref().map(is_found));
        self.take_note(&generation, &fill.key, &result);
        attempt.end(result.as_ref().map(|_| ()));
        result
    }

    /// Loads all of `fills` in one trip if that can be done, else one after the other.
    pub(super) async fn travel(&self, fills: &[Fill]) -> Results {
        let generation = self.generation();
        if generation.batch.is_none() || fills.len() < 2 {
            return self.load_each(fills).await;
        }
        // A key that the plugin cannot be given does not spoil the trip of the others.
        let keys: Vec<_> = fills.iter().map(|fill| utf8(&fill.key).map(str::to_owned)).collect();
        let good: Vec<_> = keys.iter().flatten().cloned().collect();
        let mut answered = match self.trip(&generation, fills, good).await {
            Some(answers) => answers.into_iter(),
            None => return self.load_each(fills).await,
        };
        let lost = || FillError::Internal("the plugin gave no answer for this key".to_owned());
        let answer = |key: Result<String, FillError>| {
            key.and_then(|_| answered.next().unwrap_or_else(|| Err(lost())))
        };
        keys.into_iter().map(answer).collect()
    }

    async fn load_each(&self, fills: &[Fill]) -> Results {
        let mut results = Vec::with_capacity(fills.len());
        for fill in fills {
            results.push(self.call(fill, false).await.map_err(Failure::into_fill_error));
        }
        results
    }

    /// One trip for all of `keys`; `None` when each key should be tried alone.
    async fn trip(
        &self,
        generation: &Generation,
        fills: &[Fill],
        keys: Vec<String>,
    ) -> Option<Results> {
        let earliest = fills.iter().map(|fill| fill.deadline).min()?;
        let deadline = generation.deadline(earliest);
        let context = CallContext::of_many(fills, deadline)?;
        let depth = fills.iter().map(nesting).max()?;
        let count = keys.len();
        if count == 0 {
            return Some(Vec::new());
        }
        let mut call = Call::begin(&self.stats, &self.identity.metrics);
        let mut attempt = self.identity.health.attempt(generation, fills, deadline);
        let result = self
            .with_instance(generation, depth, &mut attempt, async |instance| {
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
                let error = answer::error(error);
                self.stats.failed(error.to_string());
                Err(Failure::Answered(error))
            }
            Err(failure) => Err(failure),
        };
        call.end(result.as_ref().map(|_| true));
        if let Some(first) = fills.first() {
            self.take_note(generation, &first.key, &result);
        }
        let answers = match result {
            Ok(answers) => answers,
            Err(failure) => {
                attempt.end(Err(&failure));
                // The trip failed for a reason that may lie with one key: the contract
                // has each tried alone. Where the origin is down that would not help.
                if let Failure::Answered(FillError::InvalidKey(_) | FillError::Internal(_)) =
                    failure
                {
                    return None;
                }
                let error = failure.into_fill_error();
                return Some(std::iter::repeat_n(error, count).map(Err).collect());
            }
        };
        let outcomes = answers.into_iter().map(|answer| self.outcome(generation, answer, false));
        let outcomes: Vec<_> = outcomes.collect();
        // A trip that did well for one key has reached the origin.
        let is_fault = |outcome: &Result<_, Failure>| {
            outcome.as_ref().is_err_and(|failure| failure.report() == Report::Fault)
        };
        let first = outcomes.first().and_then(|outcome| outcome.as_ref().err());
        let failure = first.filter(|_| outcomes.iter().all(is_fault));
        attempt.end(failure.map_or(Ok(()), Err));
        Some(outcomes.into_iter().map(|it| it.map_err(Failure::into_fill_error)).collect())
    }

    /// Runs `call` in an instance that serves nothing else meanwhile.
    async fn with_instance<T>(
        &self,
        generation: &Generation,
        depth: usize,
        attempt: &mut Attempt<'_>,
        call: impl AsyncFnOnce(&mut Instance) -> Result<T, Fault>,
    ) -> Result<T, Failure> {
        let deadline = attempt.deadline;
        let _permit =
            generation.admission.enter(depth, deadline).await.map_err(Failure::Refused)?;
        attempt.enter().map_err(Failure::NotAsked)?;
        let _busy = Busy::new(&self.stats, &self.identity.metrics);
        let fault = |fault: Fault| {
            self.stats.faulted(self.name(), fault.to_string());
            Failure::Faulted(fault)
        };
        let pool = &generation.pool;
        let warm = if attempt.is_fresh { None } else { pool.take() };
        let mut instance = match warm {
            Some(instance) => instance,
            None => {
                Instance::create(generation, deadline).await.map_err(|error| fault(error.into()))?
            }
        };
        // An instance whose call failed, or whose caller went away, is dropped.
        let answer = call(&mut instance).await.map_err(|it| {
            attempt.faulted(&it);
            fault(it)
        })?;
        pool.give_back(instance);
        Ok(answer)
    }

    pub(super) fn outcome(
        &self,
        generation: &Generation,
        answer: Answer,
        conditional: bool,
    ) -> Result<Outcome, Failure> {
        match answer {
            Ok(outcome) => generation
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

    /// Has a call count for or against a version on probation.
    fn take_note<T>(&self, generation: &Generation, key: &[u8], result: &Result<T, Failure>) {
        let is_call = !matches!(result, Err(Failure::NotAsked(_)));
        if is_call && self.rollout.is_novice(generation.number) {
            let ending = result.as_ref().map_or_else(Failure::ending, |_| Ending::Fine);
            self.rollout.record(generation.number, key, ending);
        }
    }

    fn broken(&self, problem: String) -> Failure {
        let fault = Fault::Broken(problem);
        self.stats.faulted(self.name(), fault.to_string());
        Failure::Faulted(fault)
    }

    /// This plugin, when the caller's thread is not one of the host's.
    pub(super) fn elsewhere(&self) -> Option<Arc<Self>> {
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
        self.tasks.get().into_iter().flatten().for_each(AbortHandle::abort);
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
        if self.generation().batch.is_some() { BATCH_MAX } else { 1 }
    }

    fn refusal(&self, group: &str, key: &[u8]) -> Option<FillError> {
        self.health().refusal(group, key)
    }

    fn loads_alone(&self, fill: &Fill) -> bool {
        self.health().is_suspect(fill)
    }

    fn code(&self) -> u64 {
        self.generation().code
    }

    fn retry(&self, fill: Fill, error: FillError) -> BoxFuture<'_, Result<Outcome, FillError>> {
        let failure = Failure::Answered(error);
        let Some(plugin) = self.elsewhere() else {
            return Box::pin(self.try_again(fill, failure));
        };
        Box::pin(async move {
            let call = self.fills.spawn(async move { plugin.try_again(fill, failure).await });
            Carried(call).result().await.unwrap_or_else(Err)
        })
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
pub(super) struct Carried<T>(pub(super) JoinHandle<T>);

impl<T> Carried<T> {
    /// The call's result, unless it panicked or the host is shutting down.
    pub(super) async fn result(mut self) -> Result<T, FillError> {
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

pub(super) fn utf8(key: &[u8]) -> Result<&str, FillError> {
    std::str::from_utf8(key).map_err(|_| {
        FillError::InvalidKey("the keys of a group that a plugin fills are UTF-8 text".to_owned())
    })
}

/// How many other fills `fill` stands in; its chain has itself as the innermost.
pub(super) fn nesting(fill: &Fill) -> usize {
    fill.chain.depth().saturating_sub(1)
}

async fn sweep(plugin: Weak<Plugin>) {
    loop {
        let Some(generation) = plugin.upgrade().map(|plugin| plugin.generation()) else { return };
        let idle = generation.environment.limits.idle;
        generation.pool.sweep(idle);
        // Not held while it sleeps, so that a plugin that is let go ends at once.
        drop(generation);
        tokio::time::sleep((idle / 4).clamp(SWEEP_MIN, SWEEP_MAX)).await;
    }
}
