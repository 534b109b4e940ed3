//! A group: a keyspace with its own getter and its own memory.
//!
//! [`Group::get`] is the story of a lookup: memory answers if it can, else the one
//! fill of the key does, which this caller sets off or joins. The way back, from the
//! getter's outcome to memory and to the callers, is in `fill.rs`.
//!
//! A stale answer is served at once while a refresh runs behind it, and goes on being
//! served for its grace when the refresh fails. A failing key is left alone for a
//! backoff window, within which its error is answered from memory.
//!
//! Invariants:
//! - a hit waits for nothing: no task, no getter, no lock but its shard's;
//! - a fill belongs to nobody's request: it runs in its own task, to its own deadline;
//! - a purge wins over every fill begun before it.
//!
//! A group has never heard of wasm or HTTP: it knows a [`Getter`].

mod away;
mod batch;
mod elsewhere;
mod error;
mod explain;
mod fill;
mod getter;
mod groups;
mod peers;
mod purge;
mod waits;
mod warm;

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    runtime::Handle,
    time::{Instant, timeout_at},
};

pub use error::GetError;
pub use explain::{Explanation, Holding};
pub use getter::{BoxFuture, Chain, Fill, FillError, Getter, Outcome, Reason, getter_fn};
pub use groups::Groups;
pub use peers::{Asked, Change, Held, Peers, Question, Tidings, Told};
pub use purge::{Herald, Purged};

use crate::{
    config::Caching,
    failures::Failures,
    flight::{Flights, Joined},
    metrics::{GroupMetrics, PeerMetrics},
    store::{Age, Entry, Inserted, State, Store, Usage},
    value::{Freshness, Hit, Provenance, Served, Value},
};
use away::Away;
use batch::Batcher;
use fill::{Landing, Mission};
use waits::{Circle, Flight, Waiting, Waits};

/// What a caller of [`Group::get`] brings along.
#[derive(Clone, Debug)]
pub struct Context {
    /// When this caller stops waiting. The fill it may have set off goes on.
    pub deadline: Instant,
    /// The fills this get is part of, when a getter asks.
    pub chain: Chain,
    /// Whether another node asks. It is answered from here, whoever owns the key: were it
    /// sent on, two nodes whose rings differ would send it to one another.
    pub is_from_peer: bool,
    /// Whether a serving thread asks, whose runtime goes on for as long as it has callers. A
    /// question to another node then stays on it.
    pub is_serving: bool,
}

impl Context {
    /// A caller that waits until `deadline`.
    pub fn until(deadline: Instant) -> Self {
        Self { deadline, chain: Chain::default(), is_from_peer: false, is_serving: false }
    }

    /// A caller that waits for `patience` from now.
    pub fn within(patience: Duration) -> Self {
        Self::until(Instant::now() + patience)
    }
}

/// A keyspace with its own getter and its own memory.
pub struct Group {
    name: Arc<str>,
    /// Read once by each fill; a hit needs none of them.
    settings: ArcSwap<Caching>,
    store: Store,
    flights: Arc<Flights<Landing>>,
    failures: Failures<FillError>,
    loads: Batcher,
    /// Counts how often the code behind the getter was replaced.
    getter_version: AtomicU64,
    /// Where fills run: a guest that burns CPU there does not slow a hit.
    fills: Handle,
    /// Shared with the groups that its getter may get from: those of its node.
    waits: OnceLock<Arc<Waits>>,
    /// Whom to tell of purges, where other nodes are to hear of them.
    herald: OnceLock<Arc<dyn Herald>>,
    /// How to get at keys of other nodes, where there are any.
    away: OnceLock<Arc<Away>>,
    metrics: GroupMetrics,
}

/// What a group holds and does at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupUsage {
    /// Answers in memory, remembered not-founds included.
    pub items: u64,
    /// Bytes they count for: keys, values and bookkeeping.
    pub bytes: u64,
    /// The budget these bytes stay within.
    pub budget: u64,
    /// Answers dropped to stay within the budget since start.
    pub evictions: u64,
    /// Fills under way.
    pub flights: u64,
}

impl Group {
    /// A group that fills its misses from `getter`, in tasks on `fills`.
    pub fn new(
        name: &str,
        settings: Caching,
        getter: Arc<dyn Getter>,
        fills: Handle,
        metrics: GroupMetrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            store: Store::new(settings.memory.get(), settings.value_max.get()),
            flights: Flights::new(settings.fills_max),
            failures: Failures::new(settings.backoff, settings.backoff_max),
            loads: Batcher::new(getter, fills.clone()),
            getter_version: AtomicU64::new(0),
            fills,
            waits: OnceLock::new(),
            herald: OnceLock::new(),
            away: OnceLock::new(),
            settings: ArcSwap::from_pointee(settings),
            metrics,
        })
    }

    /// Name of the group.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the group caches.
    pub fn settings(&self) -> Arc<Caching> {
        self.settings.load_full()
    }

    /// Caches by `settings` from now on. Contents stay as far as they fit a smaller
    /// budget, with the lifetimes they were given; fills under way end as they began.
    ///
    /// Nobody waits for this, but it takes its time where there is much to drop or to
    /// move: not for a serving thread.
    pub fn reconfigure(&self, settings: Caching) {
        let old = self.settings();
        self.flights.set_max(settings.fills_max);
        self.failures.set_windows(settings.backoff, settings.backoff_max);
        if (settings.memory, settings.value_max) != (old.memory, old.value_max) {
            self.share_out(settings.memory.get(), settings.value_max.get());
        }
        if let Some(away) = self.away.get() {
            away.set_max(settings.fills_max);
        }
        self.settings.store(Arc::new(settings));
    }

    /// From now on, keys that other nodes own are asked for there, through `peers`, and a
    /// part of the memory is for hot copies of them. The first call counts.
    ///
    /// Takes its time where there is much to move: not for a serving thread.
    pub fn join_peers(&self, peers: Arc<dyn Peers>, metrics: PeerMetrics) {
        let settings = self.settings();
        let (memory, value_max) = (settings.memory.get(), settings.value_max.get());
        self.away.get_or_init(|| {
            let hot = Store::new(away::shares(memory).1, value_max);
            Arc::new(Away::new(peers, settings.fills_max, hot, metrics))
        });
        self.share_out(memory, value_max);
    }

    /// Gives what the group owns and hot copies their parts of `memory`.
    fn share_out(&self, memory: u64, value_max: u64) {
        let evicted = match self.away.get() {
            None => self.store.resize(memory, value_max),
            Some(away) => {
                let (owned, hot) = away::shares(memory);
                self.store.resize(owned, value_max) + away.hot.resize(hot, value_max)
            }
        };
        self.metrics.evictions.inc_by(evicted);
    }

    /// The code behind the getter was replaced. What the old code failed at is tried
    /// again at once, and the not-founds it gave within the last `within` count no more;
    /// nor do those that it may still give.
    pub fn getter_changed(&self, within: Duration) {
        self.flights.pause(|| {
            self.getter_version.fetch_add(1, Relaxed);
            self.failures.forget_all();
            let now = Instant::now();
            self.store.void_not_founds(now.checked_sub(within).unwrap_or(now), now);
        });
    }

    /// Looks `key` up: in memory, then at the node that owns it, or at the getter.
    pub async fn get(self: &Arc<Self>, key: &[u8], cx: &Context) -> Result<Hit, GetError> {
        let now = self.until_current(Instant::now(), cx).await;
        match self.recall_at(key, now) {
            Some(answer) => answer,
            None => self.fetch(key, now, cx).await,
        }
    }

    /// As [`Group::get`], for a caller whom [`Group::recall_at`] has just told, at `now`, that
    /// memory alone has no answer: it is not asked twice.
    pub async fn get_missed(
        self: &Arc<Self>,
        key: &[u8],
        now: Instant,
        cx: &Context,
    ) -> Result<Hit, GetError> {
        if self.is_current(now) { self.fetch(key, now, cx).await } else { self.get(key, cx).await }
    }

    /// Gets what was not in memory at `now`, from wherever it is to be had.
    async fn fetch(
        self: &Arc<Self>,
        key: &[u8],
        now: Instant,
        cx: &Context,
    ) -> Result<Hit, GetError> {
        if cx.chain.depth() >= Chain::DEPTH_MAX || cx.chain.contains(&self.name, key) {
            return self.failed(GetError::Cycle);
        }
        match self.remote(key).filter(|_| !cx.is_from_peer) {
            Some(away) => self.get_away(away, key, now, cx).await,
            None => self.get_here(key, cx).await,
        }
    }

    /// Gets what is not in memory from this node's own getter.
    async fn get_here(self: &Arc<Self>, key: &[u8], cx: &Context) -> Result<Hit, GetError> {
        let look_again = || self.look(key, Instant::now()).or_else(|| self.refused(key));
        let (flight, opened, waiting) = match self.flights.join(key, look_again) {
            Joined::Recalled((answer, _)) => return answer,
            Joined::Full => return self.failed(GetError::Overloaded),
            Joined::Waiting(flight) => {
                let is_nested = cx.chain.depth() > 0;
                let joined = is_nested.then(|| self.flights.key_of(key, &flight)).flatten();
                (flight, false, joined.map_or(Ok(None), |key| self.wait_for(&key, &cx.chain)))
            }
            Joined::Opened(ticket, flight) => {
                let waiting = self.wait_for(ticket.key(), &cx.chain);
                let chain = cx.chain.with(Arc::clone(&self.name), Arc::clone(ticket.key()));
                self.set_off(ticket, Mission::Miss, chain);
                (flight, true, waiting)
            }
        };
        self.count_wait(opened);
        let Ok(_waiting) = waiting else { return self.failed(GetError::Cycle) };
        match timeout_at(cx.deadline, flight.landed()).await {
            Ok(Ok(landing)) => self.answer(landing, opened),
            Ok(Err(_lost)) => {
                let text = "the node is stopping, or the fill was lost";
                let error = FillError::Internal(text.into());
                self.failed(GetError::Fill { error, retry_after: Duration::ZERO })
            }
            Err(_elapsed) => self.failed(GetError::Deadline),
        }
    }

    /// Has the fills that `chain` gets for wait for the flight with this key. A get that
    /// stands in no fill is nobody's to wait for.
    fn wait_for(&self, key: &Arc<[u8]>, chain: &Chain) -> Result<Option<Waiting>, Circle> {
        let who: Vec<_> = chain.innermost().map(Flight::of).collect();
        if who.is_empty() {
            return Ok(None);
        }
        self.waits.get_or_init(Arc::default).begin(who, Flight::of(key)).map(Some)
    }

    /// Shares `waits` with the other groups of its node. The first node counts.
    fn stand_with(&self, waits: &Arc<Waits>) {
        self.waits.get_or_init(|| Arc::clone(waits));
    }

    /// What memory alone answers: `None` when a get would have to wait for a fill, or for
    /// news of purges that this node has missed.
    /// Never waits. This is the whole of a hit; [`Group::get`] begins with it.
    pub fn recall(self: &Arc<Self>, key: &[u8]) -> Option<Result<Hit, GetError>> {
        self.recall_at(key, Instant::now())
    }

    /// As [`Group::recall`], for a caller who knows what time it is.
    pub fn recall_at(self: &Arc<Self>, key: &[u8], now: Instant) -> Option<Result<Hit, GetError>> {
        if !self.is_current(now) {
            return None;
        }
        let (answer, state) = self.look(key, now)?;
        if state == State::Stale {
            let old = answer.as_ref().ok().map(|hit| hit.value.clone());
            self.refresh(key, old, now);
        }
        Some(answer)
    }

    /// What memory answers, and nothing else: this is safe within the flights' lock.
    fn look(&self, key: &[u8], now: Instant) -> Option<(Result<Hit, GetError>, State)> {
        let hot = || {
            let hot = &self.away.get()?.hot;
            hot.get(key, hot.moment(now))
        };
        let Some((entry, age)) = self.store.get(key, self.store.moment(now)).or_else(hot) else {
            let (error, retry_after) = self.failures.recall(key, now)?;
            return Some((self.failed(GetError::Fill { error, retry_after }), State::Fresh));
        };
        match (&entry.value, age.state) {
            (None, _) => self.metrics.negative_hits.inc(),
            (Some(_), State::Fresh) => self.metrics.hits.inc(),
            (Some(_), _) => self.metrics.stale_hits.inc(),
        };
        Some((remembered(entry, age), age.state))
    }

    /// The error of a fill that its getter would refuse, if it would.
    fn refused(&self, key: &[u8]) -> Option<(Result<Hit, GetError>, State)> {
        let error = self.loads.refusal(&self.name, key)?.bounded();
        let refused = self.failed(GetError::Fill { error, retry_after: Duration::ZERO });
        Some((refused, State::Fresh))
    }

    /// Looks into memory without a trace: no refresh, no promotion, no metric.
    pub fn peek(&self, key: &[u8]) -> Option<Result<Hit, GetError>> {
        let now = Instant::now();
        let is_alive = |(_, age): &(Entry, Age)| age.state != State::Dead;
        let owned = self.store.peek(key, now).filter(is_alive);
        let hot = || self.away.get()?.hot.peek(key, now).filter(is_alive);
        owned.or_else(hot).map(|(entry, age)| remembered(entry, age))
    }

    /// Keeps a value that somebody else knows `key` to have, for `ttl`, or as long as the
    /// group's settings say. As with a purge, no fill that began before now undoes it.
    pub fn put(&self, key: &[u8], value: Value, ttl: Option<Duration>) {
        if let Some(away) = self.away.get() {
            away.purge(key);
        }
        let settings = self.settings();
        let fits = value.body().len() as u64 <= settings.value_max.get();
        let lifetime = fill::lifetime(&settings, Freshness { ttl, grace: None }, true);
        self.flights.purge(key, || {
            self.failures.forget(key);
            match lifetime.filter(|_| fits) {
                Some(lifetime) => {
                    let kept = self.store.insert(key, Some(value), lifetime, Instant::now());
                    self.count_evictions(kept);
                }
                None => _ = self.store.remove(key),
            }
        });
    }

    /// What the group holds and does at this moment.
    pub fn usage(&self) -> GroupUsage {
        let owned = self.store.usage();
        let away = self.away.get();
        let hot = away.map_or_else(Usage::default, |away| away.hot.usage());
        GroupUsage {
            items: owned.items + hot.items,
            bytes: owned.bytes + hot.bytes,
            budget: self.store.budget() + away.map_or(0, |away| away.hot.budget()),
            evictions: self.metrics.evictions.get(),
            flights: (self.flights.len() + away.map_or(0, |away| away.flights())) as u64,
        }
    }

    /// Brings the group's gauges up to date, for whoever reads the metrics.
    pub fn observe(&self) {
        let usage = self.usage();
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.bytes.set(gauge(usage.bytes));
        self.metrics.budget_bytes.set(gauge(usage.budget));
        self.metrics.items.set(gauge(usage.items));
        self.metrics.flights.set(gauge(usage.flights));
    }

    /// What a caller gets out of a flight that it opened or joined.
    fn answer(&self, landing: Landing, opened: bool) -> Result<Hit, GetError> {
        let stored = landing.stored;
        let served = match (opened, landing.from_peer) {
            (true, false) => Served::Filled { stored },
            (true, true) => Served::Peer { stored },
            (false, _) => Served::Collapsed { stored },
        };
        let provenance = Provenance { served, age: Duration::ZERO, ttl: landing.ttl };
        match landing.result {
            Ok(Some(value)) => Ok(Hit { value, provenance }),
            Ok(None) => Err(GetError::NotFound(provenance)),
            Err(error) => self.failed(GetError::Fill { error, retry_after: landing.ttl }),
        }
    }

    /// Counts a get that waits, for a flight that it `opened` or joined.
    fn count_wait(&self, opened: bool) {
        if opened {
            self.metrics.misses.inc()
        } else {
            self.metrics.collapsed.inc()
        };
    }

    /// Counts what an insertion has pushed out; says whether it was kept.
    fn count_evictions(&self, inserted: Inserted) -> bool {
        match inserted {
            Inserted::Kept { evicted } => {
                self.metrics.evictions.inc_by(evicted);
                true
            }
            Inserted::TooLarge => false,
        }
    }

    fn failed(&self, error: GetError) -> Result<Hit, GetError> {
        self.metrics.errors.inc();
        Err(error)
    }
}

/// The answer of an entry that may be served.
fn remembered(entry: Entry, age: Age) -> Result<Hit, GetError> {
    let served = if age.state == State::Fresh { Served::Hit } else { Served::Stale };
    let provenance = Provenance { served, age: age.age(), ttl: age.ttl() };
    match entry.value {
        Some(value) => Ok(Hit { value, provenance }),
        None => Err(GetError::NotFound(provenance)),
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("name", &self.name)
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
