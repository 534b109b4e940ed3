//! The way back: from the getter's outcome to memory and to the callers.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

use super::{Chain, Fill, FillError, Group, Outcome, Reason};
use crate::{
    config::Caching,
    flight::{Joined, Ticket},
    store::{Lifetime, State},
    value::{Freshness, Value},
};

/// What a fill is for.
pub(super) enum Mission {
    /// Nothing is in memory, and a caller waits.
    Miss,
    /// This answer is stale; nobody waits.
    Refresh(Option<Value>),
}

/// What a fill goes by, from its begin to its end.
struct Terms {
    settings: Arc<Caching>,
    /// The version of the getter's code that it may have been loaded by.
    getter_version: u64,
}

/// How a fill ended, for everyone who waited on it.
#[derive(Clone, Debug)]
pub(super) struct Landing {
    /// The value, or that there is none, or why that is not known.
    pub(super) result: Result<Option<Value>, FillError>,
    /// Time for which the answer is fresh, or for which the failing key is left alone.
    pub(super) ttl: Duration,
    /// Whether memory kept the answer.
    pub(super) stored: bool,
    /// Whether another node's memory gave it.
    pub(super) from_peer: bool,
}

impl Landing {
    /// The getter's answer.
    fn given(value: Option<Value>, ttl: Duration, stored: bool) -> Self {
        Self { result: Ok(value), ttl, stored, from_peer: false }
    }

    fn failed(error: FillError, retry_after: Duration) -> Self {
        Self { result: Err(error), ttl: retry_after, stored: false, from_peer: false }
    }
}

impl Group {
    /// Refreshes a stale answer behind the caller's back, unless that is under way,
    /// was done a moment ago or failed a moment ago.
    pub(super) fn refresh(self: &Arc<Self>, key: &[u8], old: Option<Value>, now: Instant) {
        if let Some(away) = self.remote(key) {
            return self.refresh_away(away, key);
        }
        let needless = || {
            let rests = self.failures.recall(key, now).is_some()
                || self.loads.refusal(&self.name, key).is_some();
            let state = self.store.peek(key, now).map(|(_, age)| age.state);
            (rests || state != Some(State::Stale)).then_some(())
        };
        if let Joined::Opened(ticket, _nobody_waits) = self.flights.join(key, needless) {
            let chain = Chain::default().with(Arc::clone(&self.name), Arc::clone(ticket.key()));
            self.set_off(ticket, Mission::Refresh(old), chain);
        }
    }

    /// Sends the fill off in a task of its own.
    pub(super) fn set_off(
        self: &Arc<Self>,
        ticket: Ticket<Landing>,
        mission: Mission,
        chain: Chain,
    ) {
        let group = Arc::clone(self);
        self.fills.spawn(async move { group.fill(ticket, mission, chain).await });
    }

    async fn fill(&self, ticket: Ticket<Landing>, mission: Mission, chain: Chain) {
        let started = Instant::now();
        let terms = Terms {
            settings: self.settings.load_full(),
            getter_version: self.getter_version.load(Relaxed),
        };
        let settings = &*terms.settings;
        let deadline = started + settings.fill_timeout;
        let (reason, old) = match mission {
            Mission::Miss => (Reason::Miss, None),
            Mission::Refresh(old) => (Reason::Refresh, old),
        };
        let ticket = match reason {
            Reason::Refresh => ticket,
            _ => match self.land_from_previous(ticket, settings, deadline).await {
                Some(ticket) => ticket,
                None => return,
            },
        };
        let fill = Fill {
            group: Arc::clone(&self.name),
            key: Arc::clone(ticket.key()),
            deadline,
            attempt: 1,
            reason,
            validator: old.as_ref().and_then(Value::validator).map(Box::from),
            chain,
        };
        let (window, keys_max) = (settings.batch_window, settings.batch_max);
        let load = unwound(async { self.loads.load(fill, window, keys_max).await });
        let outcome = timeout_at(deadline, load).await.unwrap_or_else(|_elapsed| {
            let after = humantime::format_duration(settings.fill_timeout);
            Err(FillError::TimedOut(format!("no answer within {after}")))
        });
        self.metrics.fill_seconds.observe(started.elapsed().as_secs_f64());
        self.land(ticket, outcome, old, &terms);
    }

    /// Ends the flight: keeps the answer unless a purge came in between, and hands it
    /// to the callers.
    fn land(
        &self,
        ticket: Ticket<Landing>,
        outcome: Result<Outcome, FillError>,
        old: Option<Value>,
        terms: &Terms,
    ) {
        let now = Instant::now();
        let key = Arc::clone(ticket.key());
        let (result, freshness) = match outcome {
            Ok(Outcome::Found(value, freshness)) => {
                self.metrics.fills_found.inc();
                (Ok(Some(value)), freshness)
            }
            Ok(Outcome::NotFound(freshness)) => {
                self.metrics.fills_not_found.inc();
                (Ok(None), freshness)
            }
            Ok(Outcome::NotModified(freshness)) => {
                self.metrics.fills_not_modified.inc();
                (unmodified(old), freshness)
            }
            Err(error) => (Err(error.bounded()), Freshness::default()),
        };
        ticket.land(|keep| {
            // Within the flights' lock, in which the getter's version changes.
            let is_current = terms.getter_version == self.getter_version.load(Relaxed);
            match result {
                Ok(Some(value)) => {
                    self.keep(&key, Some(value), freshness, keep, &terms.settings, now)
                }
                Ok(None) => {
                    self.keep(&key, None, freshness, keep && is_current, &terms.settings, now)
                }
                Err(error) => self.note_failure(&key, error, keep && is_current, now),
            }
        });
    }

    fn keep(
        &self,
        key: &[u8],
        value: Option<Value>,
        freshness: Freshness,
        keep: bool,
        settings: &Caching,
        now: Instant,
    ) -> Landing {
        if !keep {
            return Landing::given(value, Duration::ZERO, false);
        }
        self.failures.forget(key);
        let fits =
            value.as_ref().is_none_or(|it| it.body().len() as u64 <= settings.value_max.get());
        let lifetime = lifetime(settings, freshness, value.is_some()).filter(|_| fits);
        if let Some(lifetime) = lifetime
            && self.count_evictions(self.store.insert(key, value.clone(), lifetime, now))
        {
            return Landing::given(value, lifetime.ttl(), true);
        }
        // The getter has spoken: what memory may still hold no longer holds.
        self.store.remove(key);
        Landing::given(value, Duration::ZERO, false)
    }

    /// Remembers the failure. What memory holds stays: it is served for its grace.
    fn note_failure(&self, key: &[u8], error: FillError, keep: bool, now: Instant) -> Landing {
        self.metrics.fills_failed.inc();
        // An origin that was not asked needs no rest, and a key that was refused for the
        // sake of others can be filled as soon as they can.
        if !keep || error.is_unasked() {
            return Landing::failed(error, Duration::ZERO);
        }
        let rest = self.failures.record(key, error.clone(), error.retry_after(), now);
        Landing::failed(error, rest)
    }
}

/// How long an answer is kept: as its getter says, within the group's bounds, or as the
/// group says. `None` when it is not to be kept at all.
pub(super) fn lifetime(settings: &Caching, freshness: Freshness, found: bool) -> Option<Lifetime> {
    let default_ttl = if found { settings.ttl } else { settings.negative_ttl };
    // A remembered not-found without a word from its getter is not stretched.
    let default_grace = if found { settings.grace } else { Duration::ZERO };
    let ttl = match freshness.ttl {
        Some(ttl) if ttl.is_zero() => return None,
        Some(ttl) => ttl.max(settings.ttl_min).min(settings.ttl_max),
        None => default_ttl,
    };
    let shortened = ttl.mul_f64(1.0 - settings.ttl_jitter * fastrand::f64());
    let grace = freshness.grace.unwrap_or(default_grace).min(settings.grace_max);
    (!shortened.is_zero()).then(|| Lifetime::new(shortened, grace))
}

/// What a refresh that found nothing new keeps.
fn unmodified(old: Option<Value>) -> Result<Option<Value>, FillError> {
    match old.filter(|old| old.validator().is_some()) {
        Some(old) => Ok(Some(old)),
        None => Err(FillError::Internal(
            "the getter answered not-modified to a load without a validator".into(),
        )),
    }
}

/// Runs `load`; a panic in it becomes an error of this one fill.
async fn unwound<T>(load: impl Future<Output = Result<T, FillError>>) -> Result<T, FillError> {
    let mut load = pin!(load);
    poll_fn(|cx| {
        // The future is dropped after a panic and nobody looks into it again.
        match catch_unwind(AssertUnwindSafe(|| load.as_mut().poll(cx))) {
            Ok(poll) => poll,
            Err(panic) => Poll::Ready(Err(FillError::Internal(format!(
                "the getter panicked: {}",
                panic_text(&*panic)
            )))),
        }
    })
    .await
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
