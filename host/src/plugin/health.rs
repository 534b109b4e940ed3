//! How a plugin fares, and whether it is asked at all.
//!
//! Every call is an [`Attempt`]: it gets leave before it runs, and its end is judged. A
//! plugin whose calls keep failing is left alone by its breaker; a key whose calls keep
//! costing an instance is left alone by itself. Either way a fill is refused at once,
//! with what went wrong and when to come back.
//!
//! Only what speaks against the plugin or its origin is a fault. An answer is none,
//! whatever it says, and neither is `invalid-key` or `denied`: somebody has answered.
//! What the node itself refuses says nothing about the plugin.
//!
//! Health belongs to the plugin and outlives its generations, but the code of a new one
//! is not blamed for what the old one did: counts and poisonous keys begin anew.
//!
//! Invariant: each change of the breaker is told once: a warning when it opens, a word
//! when it has closed.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use tracing::{debug, info, warn};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    fault::Fault,
    generation::Generation,
    poison::Poison,
    status::{BreakerStatus, CheckStatus, HealthStatus, seconds},
    tally::Failure,
    text::tidy,
};
use crate::{
    breaker::{Breaker, Change, Pass, Policy, Report, State, Verdict},
    config,
    group::{Fill, FillError},
    metrics::HealthMetrics,
};

/// Time closed after which the breaker's next pause is a short one again.
const HEALTHY: Duration = Duration::from_mins(1);

/// Time beyond the longest call for which a half-open breaker waits for its one.
const PROBE_SLACK: Duration = Duration::from_secs(1);

/// Bytes of the last fault that are told to whoever is refused.
const FAULT_TEXT_MAX: usize = 256;

/// How one plugin fares.
pub(super) struct Health {
    plugin: Arc<str>,
    metrics: HealthMetrics,
    /// Keys are hashed with it: no client knows which ones share a hash.
    seed: u64,
    /// Number of the generation that is judged, to be looked at without the lock.
    judged: AtomicU64,
    vitals: Mutex<Vitals>,
}

struct Vitals {
    /// The generation that is judged. What comes from another is not counted.
    generation: u64,
    settings: config::Failure,
    breaker: Breaker,
    poison: Poison,
    /// The last fault that counted against the breaker.
    last_fault: String,
    changed_at: SystemTime,
    last_check: Option<CheckStatus>,
}

impl Health {
    /// The health of a plugin of which nothing is known yet.
    pub(super) fn new(plugin: Arc<str>, metrics: HealthMetrics) -> Self {
        let settings = config::Failure::default();
        let breaker = Breaker::new(policy(&settings, Duration::ZERO), Instant::now());
        metrics.closed.set(1);
        let vitals = Vitals {
            generation: 0,
            settings,
            breaker,
            poison: Poison::new(),
            last_fault: String::new(),
            changed_at: SystemTime::now(),
            last_check: None,
        };
        let (seed, judged) = (fastrand::u64(..), AtomicU64::new(0));
        Self { plugin, metrics, seed, judged, vitals: Mutex::new(vitals) }
    }

    /// Judges `generation` from here on, if it is newer than the one that was judged.
    pub(super) fn judge(&self, generation: &Generation) {
        if generation.number <= self.judged.load(Relaxed) {
            return;
        }
        let mut vitals = self.lock();
        if generation.number <= vitals.generation {
            return;
        }
        self.judged.store(generation.number, Relaxed);
        let settings = &generation.recipe.settings;
        vitals.generation = generation.number;
        vitals.settings = settings.failure.clone();
        vitals.poison.clear_all();
        vitals.last_check = None;
        let policy = policy(&settings.failure, settings.limits.timeout);
        let change = vitals.breaker.renew(policy, Instant::now());
        self.told(vitals, change);
    }

    /// Why a load of `key` would be refused now, if it would be.
    pub(super) fn refusal(&self, group: &str, key: &[u8]) -> Option<FillError> {
        let now = Instant::now();
        let vitals = self.lock();
        match vitals.breaker.wait(now) {
            Some(wait) => Some(self.refused(&vitals, wait)),
            None => self.refused_for_key(&vitals, || self.hash(group, key), now),
        }
    }

    /// The error of a fill that the breaker refuses.
    fn refused(&self, vitals: &Vitals, wait: Duration) -> FillError {
        self.metrics.refused_by_breaker.inc();
        let message = format!(
            "the plugin's calls kept failing; it is left alone for {} (plugins.{}.failure). The \
             last failure: {}",
            rough(wait),
            self.plugin,
            vitals.last_fault
        );
        FillError::NotAsked { message, retry_after: wait }
    }

    /// The error of a fill whose key is left alone, if it is.
    fn refused_for_key(
        &self,
        vitals: &Vitals,
        key: impl FnOnce() -> u64,
        now: Instant,
    ) -> Option<FillError> {
        if vitals.poison.poisonous() == 0 {
            return None;
        }
        let (strikes, left) = vitals.poison.left_alone(key(), now)?;
        self.metrics.refused_for_key.inc();
        let message = format!(
            "the plugin failed {strikes} times in a row on this key; it is left alone for {} \
             (plugins.{}.failure.poison)",
            rough(left),
            self.plugin
        );
        Some(FillError::NotAsked { message, retry_after: left })
    }

    /// How long the plugin is left alone, if it is.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.lock().breaker.wait(Instant::now())
    }

    /// Whether the key of `fill` has gone wrong and was not cleared since.
    pub(super) fn is_suspect(&self, fill: &Fill) -> bool {
        let vitals = self.lock();
        !vitals.poison.is_empty() && vitals.poison.is_suspect(self.hash(&fill.group, &fill.key))
    }

    /// A call of `generation` for `fills`, which must end by `deadline`.
    pub(super) fn attempt(
        &self,
        generation: &Generation,
        fills: &[Fill],
        deadline: Instant,
    ) -> Attempt<'_> {
        self.judge(generation);
        let hash = |fill: &Fill| self.hash(&fill.group, &fill.key);
        Attempt {
            health: self,
            generation: generation.number,
            deadline,
            is_fresh: false,
            keys: match fills {
                [only] => Keys::One(hash(only)),
                several => Keys::Several(several.iter().map(hash).collect()),
            },
            is_retry: fills.iter().any(|fill| fill.attempt > 1),
            pass: None,
            is_costly: false,
        }
    }

    /// Takes note of a self-check while the plugin serves. One that is well speaks for
    /// the guest alone and not for its origin: it does not count against faults.
    pub(super) fn checked(&self, generation: &Generation, result: Result<(), String>) {
        let counter = match &result {
            Ok(()) => &self.metrics.checks_ok,
            Err(_) => &self.metrics.checks_failed,
        };
        counter.inc();
        let mut vitals = self.lock();
        if vitals.generation != generation.number {
            return;
        }
        let now = Instant::now();
        let error = result.err().map(|text| tidy(&text, FAULT_TEXT_MAX));
        let change = error.as_deref().and_then(|text| {
            vitals.last_fault = format!("its check of itself failed: {text}");
            vitals.breaker.fault(now)
        });
        vitals.last_check = Some(CheckStatus { at: seconds(SystemTime::now()), error });
        self.told(vitals, change);
    }

    /// Counts a call that repeats a failed one.
    pub(super) fn retried(&self) {
        self.metrics.retries.inc();
    }

    /// How the plugin fares at this moment.
    pub(super) fn status(&self) -> HealthStatus {
        let now = Instant::now();
        let mut vitals = self.lock();
        let (calls, faults) = vitals.breaker.counted(now);
        let (state, retry_in) = match vitals.breaker.state(now) {
            State::Closed => ("closed", None),
            State::Open(wait) => ("open", Some(wait.as_secs_f64())),
            State::HalfOpen => ("half_open", None),
        };
        HealthStatus {
            breaker: BreakerStatus {
                state,
                since: seconds(vitals.changed_at),
                retry_in_seconds: retry_in,
                openings: self.metrics.openings.get(),
                calls,
                faults,
            },
            poisonous_keys: vitals.poison.poisonous(),
            retries: self.metrics.retries.get(),
            last_check: vitals.last_check.clone(),
        }
    }

    /// Tells operators what became of the breaker.
    fn told(&self, mut vitals: MutexGuard<'_, Vitals>, change: Option<Change>) {
        self.metrics.poisonous_keys.set(vitals.poison.poisonous().try_into().unwrap_or(i64::MAX));
        let Some(change) = change else { return };
        self.show(vitals.breaker.state(Instant::now()));
        let (calls, faults) = vitals.breaker.counted(Instant::now());
        let error = vitals.last_fault.clone();
        if !matches!(change, Change::Opened { again: true, .. }) {
            vitals.changed_at = SystemTime::now();
        }
        drop(vitals);
        let plugin = &*self.plugin;
        match change {
            Change::Opened { pause, again: false } => {
                self.metrics.openings.inc();
                let pause = rough(pause);
                warn!(
                    plugin, %pause, faults, calls, error,
                    "The plugin keeps failing and is left alone: its breaker opened."
                );
            }
            Change::Opened { pause, again: true } => {
                self.metrics.openings.inc();
                debug!(plugin, pause = %rough(pause), error, "The plugin goes on failing.");
            }
            Change::Closed { after } => {
                info!(plugin, after = %rough(after), "The plugin is asked again: its breaker closed.");
            }
        }
    }

    /// Shows the state of the breaker among the metrics.
    fn show(&self, state: State) {
        self.metrics.closed.set(i64::from(state == State::Closed));
        self.metrics.open.set(i64::from(matches!(state, State::Open(_))));
        self.metrics.half_open.set(i64::from(state == State::HalfOpen));
    }

    fn hash(&self, group: &str, key: &[u8]) -> u64 {
        xxh3_64_with_seed(key, xxh3_64_with_seed(group.as_bytes(), self.seed))
    }

    fn lock(&self) -> MutexGuard<'_, Vitals> {
        self.vitals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn policy(settings: &config::Failure, timeout: Duration) -> Policy {
    Policy {
        window: settings.window,
        faults: settings.faults,
        ratio: settings.ratio,
        calls_min: settings.calls_min,
        open: settings.open,
        open_max: settings.open_max,
        healthy: HEALTHY,
        probe: timeout.saturating_add(PROBE_SLACK),
    }
}

/// One call, from its leave to its judgement.
pub(super) struct Attempt<'a> {
    health: &'a Health,
    generation: u64,
    /// When it must end.
    pub(super) deadline: Instant,
    /// Whether it is to run in an instance that has served nothing.
    pub(super) is_fresh: bool,
    keys: Keys,
    is_retry: bool,
    pass: Option<Pass>,
    /// Whether it has cost its instance by what it did.
    is_costly: bool,
}

/// The hashes of what a call is for.
enum Keys {
    One(u64),
    Several(Box<[u64]>),
}

impl Attempt<'_> {
    /// Asks for leave, now that the call could run: much may have happened while it
    /// waited for its turn.
    ///
    /// # Errors
    /// Why the plugin or the key is left alone.
    pub(super) fn enter(&mut self) -> Result<(), FillError> {
        let health = self.health;
        let now = Instant::now();
        let mut vitals = health.lock();
        // First, so that a key that is left alone does not use up the one call of a
        // half-open breaker. Of several keys none is: suspects load alone.
        if let Keys::One(key) = self.keys
            && let Some(error) = health.refused_for_key(&vitals, || key, now)
        {
            return Err(error);
        }
        match vitals.breaker.admit(now) {
            Verdict::Go(pass) => {
                if pass.is_probe() {
                    health.show(State::HalfOpen);
                }
                self.pass = Some(pass);
                Ok(())
            }
            Verdict::Wait(wait) => Err(health.refused(&vitals, wait)),
        }
    }

    /// The call has failed with `fault`, and its instance is gone.
    pub(super) fn faulted(&mut self, fault: &Fault) {
        self.is_costly = fault.is_costly();
    }

    /// Judges how the call ended.
    pub(super) fn end(mut self, result: Result<(), &Failure>) {
        let report = result.err().map_or(Report::Well, Failure::report);
        let is_answered = matches!(result, Ok(()) | Err(Failure::Answered(_)));
        self.settle(report, is_answered, || match result {
            Ok(()) => String::new(),
            Err(failure) => failure.to_string(),
        });
    }

    fn settle(&mut self, report: Report, is_answered: bool, fault: impl FnOnce() -> String) {
        let Some(pass) = self.pass.take() else { return };
        let now = Instant::now();
        let mut vitals = self.health.lock();
        if vitals.generation != self.generation {
            return;
        }
        let is_news = self.track_keys(&mut vitals, is_answered, now);
        // What an earlier call has told already is no further fault, so that neither one
        // key nor one fill opens the breaker. A retry that is to find out does tell.
        let is_told = !is_news || (self.is_retry && !pass.is_probe());
        let report = if report == Report::Fault && is_told { Report::Nothing } else { report };
        if report == Report::Fault {
            vitals.last_fault = tidy(&fault(), FAULT_TEXT_MAX);
        }
        let change = vitals.breaker.report(pass, report, now);
        self.health.told(vitals, change);
    }

    /// Remembers keys that cost an instance; false if this one had done so before.
    fn track_keys(&self, vitals: &mut Vitals, is_answered: bool, now: Instant) -> bool {
        let Vitals { poison, settings, .. } = vitals;
        match &self.keys {
            Keys::One(key) if self.is_costly => return poison.strike(*key, settings, now),
            Keys::Several(keys) if self.is_costly => {
                keys.iter().for_each(|key| poison.suspect(*key));
            }
            Keys::One(key) if is_answered && !poison.is_empty() => poison.clear(*key),
            Keys::One(_) | Keys::Several(_) => {}
        }
        true
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        // Whoever wanted the answer gave up: because it was late, or for another reason.
        let is_late = Instant::now() >= self.deadline;
        let report = if is_late { Report::Fault } else { Report::Nothing };
        self.settle(report, false, || "a call did not end by its fill's deadline".to_owned());
    }
}

/// `time` as people say it.
fn rough(time: Duration) -> humantime::FormattedDuration {
    let step = if time < Duration::from_secs(10) { 10 } else { 1_000 };
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(millis.div_ceil(step) * step))
}
