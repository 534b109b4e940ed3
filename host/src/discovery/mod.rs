//! Where members of the cluster may be found.
//!
//! A [`Source`] says where it believes members to be: what a list names (`names`), what stands
//! in a file (`file`), what members write into a registry that tells of changes (`etcd`,
//! `zookeeper`, `doozer`), which instances Compute Engine runs (`gce`). [`Discovery`] asks each of
//! them again and again and proposes what all of them have found together. It decides nothing:
//! whoever is proposed is tried, and membership finds out who is there.
//!
//! Invariants:
//! - a look that fails changes nothing: what the source found before goes on being proposed;
//! - a look ends in time, and what it finds has a bound;
//! - the more members there are, the less often each of them looks, so that what a source is
//!   asked for by all of them together stays about the same.

mod breaks;
mod credentials;
mod doozer;
mod etcd;
mod file;
pub mod gce;
mod http;
mod names;
#[cfg(feature = "zookeeper")]
mod zookeeper;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use thiserror::Error;
use tokio::{
    runtime::Handle,
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

#[cfg(feature = "zookeeper")]
pub use self::zookeeper::ZooKeeper;
pub use self::{doozer::Doozer, etcd::Etcd, file::SeedsFile, names::Names};
use crate::metrics::DiscoveryMetrics;

/// Between two looks of a node that knows few others, at most, unless a source says otherwise;
/// a fifth of it less by chance.
const EVERY: Duration = Duration::from_secs(30);

/// What each member adds to that, once it comes to more: members together look once a second.
const FOR_EACH_MEMBER: Duration = Duration::from_secs(1);

/// Before the second look after one that failed; then twice as long.
const AGAIN: Duration = Duration::from_millis(500);

/// Time for one look, unless a source says otherwise.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for all sources to take back what they told of this node.
const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(3);

/// Places that one source may find: as many members as a cluster is made for.
const FOUND_MAX: usize = 10_000;

/// One way of finding members.
#[async_trait]
pub trait Source: Send {
    /// What it is called in metrics and in the status: `seeds`, `file`.
    fn kind(&self) -> &'static str;

    /// Where members may be at this moment: all that it can say, or an error.
    ///
    /// # Errors
    /// It cannot say at present.
    async fn look(&mut self) -> Result<Found, Failed>;

    /// Time between two looks of a node that knows few others, at most.
    fn every(&self) -> Duration {
        EVERY
    }

    /// Time for one look. Where that is exceeded, the look has failed.
    fn patience(&self) -> Duration {
        LOOK_TIMEOUT
    }

    /// Time before the next look at least, as whoever was asked last wants it.
    fn rest(&self) -> Duration {
        Duration::ZERO
    }

    /// Waits until there may be something new before the next look is due.
    async fn changed(&mut self);

    /// Takes back what it has told others of this node, which is going. Nothing is asked of it
    /// afterwards. It is cut off when it takes long, and so may a look or a wait before it be.
    async fn withdraw(&mut self) {}
}

/// What a look has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Where members may be.
    pub places: Vec<SocketAddr>,
    /// What could not be made out; what was known of it before is in `places`.
    pub trouble: Option<String>,
}

/// A look came to nothing.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Failed(pub String);

/// How one source fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which one: see [`Source::kind`].
    pub kind: &'static str,
    /// What it found when it last could say.
    pub found: BTreeSet<SocketAddr>,
    /// Time since then; `None` before the first time.
    pub age: Option<Duration>,
    /// What is wrong with it, if anything is.
    pub trouble: Option<String>,
}

/// This node, as it stands in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Where other members reach it.
    pub place: SocketAddr,
    /// Its name in the cluster.
    pub name: String,
}

/// Several sources at once. Ends with this.
#[derive(Debug)]
pub struct Discovery {
    sources: Vec<Arc<Tracked>>,
    tasks: Vec<AbortHandle>,
    /// Whether this node is going. Every task holds a receiver until it has ended.
    leaving: watch::Sender<bool>,
}

/// What is known of a source.
#[derive(Debug)]
struct Tracked {
    kind: &'static str,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    found: BTreeSet<SocketAddr>,
    at: Option<Instant>,
    trouble: Option<String>,
}

impl Discovery {
    /// Has `sources` looked at in tasks on `control`, for a cluster of so many `members` at
    /// each moment. What they find goes out together after each look, also if it is the same
    /// as before: who did not answer then may do so now. `metrics` counts for a kind.
    pub fn start(
        sources: Vec<Box<dyn Source>>,
        members: impl Fn() -> usize + Clone + Send + Sync + 'static,
        metrics: impl Fn(&str) -> DiscoveryMetrics,
        control: &Handle,
    ) -> (Self, watch::Receiver<Vec<SocketAddr>>) {
        let (proposals, proposed) = watch::channel(Vec::new());
        let proposals = Arc::new(proposals);
        let (leaving, leaves) = watch::channel(false);
        let tracked: Vec<_> = sources.iter().map(|source| Tracked::of(source.kind())).collect();
        let all: Arc<[_]> = tracked.clone().into();
        let tasks = sources.into_iter().zip(&tracked).map(|(source, tracked)| {
            let (tracked, all) = (Arc::clone(tracked), Arc::clone(&all));
            let proposals = Arc::clone(&proposals);
            let propose = move || {
                let places = all.iter().flat_map(|it| it.lock().found.clone());
                let places: BTreeSet<_> = places.collect();
                proposals.send_replace(places.into_iter().collect());
            };
            let metrics = metrics(source.kind());
            let how = (members.clone(), propose);
            control.spawn(watch_over(source, tracked, how, metrics, leaves.clone()))
        });
        let tasks = tasks.map(|task| task.abort_handle()).collect();
        (Self { sources: tracked, tasks, leaving }, proposed)
    }

    /// Looks no more, and has every source take back what it told of this node. Returns when
    /// they have, or after three seconds.
    pub async fn withdraw(&self) {
        self.leaving.send_replace(true);
        if timeout(WITHDRAW_TIMEOUT, self.leaving.closed()).await.is_err() {
            warn!(
                "What this node told of itself may stand in a registry until it expires: there \
                 was no answer in time."
            );
        }
    }

    /// How the sources fare.
    pub fn reports(&self) -> Vec<Report> {
        let report = |source: &Arc<Tracked>| {
            let last = source.lock();
            Report {
                kind: source.kind,
                found: last.found.clone(),
                age: last.at.map(|at| at.elapsed()),
                trouble: last.trouble.clone(),
            }
        };
        self.sources.iter().map(report).collect()
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Tracked {
    fn of(kind: &'static str) -> Arc<Self> {
        Arc::new(Self { kind, last: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what came of a look; says whether the source is well.
    fn note(&self, looked: Result<Found, Failed>, metrics: &DiscoveryMetrics) -> bool {
        let mut last = self.lock();
        let trouble = match looked {
            Ok(Found { places, trouble }) => {
                last.found = places.into_iter().take(FOUND_MAX).collect();
                last.at = Some(Instant::now());
                metrics.found.set(i64::try_from(last.found.len()).unwrap_or(i64::MAX));
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                metrics.last_success.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
                trouble
            }
            Err(Failed(reason)) => Some(reason),
        };
        let (was_well, is_well) = (last.trouble.is_none(), trouble.is_none());
        if is_well {
            metrics.well.inc()
        } else {
            metrics.failed.inc()
        };
        match &trouble {
            Some(reason) if was_well => warn!(
                source = self.kind,
                reason, "Members cannot be looked for; trying again, with what was found before."
            ),
            None if !was_well => info!(source = self.kind, "Members can be looked for again."),
            _ => {}
        }
        last.trouble = trouble;
        is_well
    }
}

/// Looks at one source again and again, until this node goes.
async fn watch_over(
    mut source: Box<dyn Source>,
    tracked: Arc<Tracked>,
    (members, propose): (impl Fn() -> usize + Sync, impl Fn() + Sync),
    metrics: DiscoveryMetrics,
    mut leaves: watch::Receiver<bool>,
) {
    let looking = async {
        let mut failures = 0;
        loop {
            let looked = timeout(source.patience(), source.look()).await;
            let looked = looked.unwrap_or_else(|_| Err(Failed("no answer in time".to_owned())));
            failures = if tracked.note(looked, &metrics) { 0 } else { failures + 1 };
            propose();
            let pause = pause(source.every(), failures, members()).max(source.rest());
            tokio::select! {
                () = sleep(pause) => {}
                () = source.changed() => {}
            }
        }
    };
    let going = async { _ = leaves.wait_for(|leaves| *leaves).await };
    tokio::select! {
        () = looking => {}
        () = going => {}
    }
    source.withdraw().await;
}

/// Time until the next look, after so many that failed in a row.
fn pause(every: Duration, failures: u32, members: usize) -> Duration {
    let members = u32::try_from(members).unwrap_or(u32::MAX);
    let every = every.max(FOR_EACH_MEMBER.saturating_mul(members));
    let longest = match failures {
        0 => every,
        times => every.min(AGAIN * (1 << (times - 1).min(16))),
    };
    longest.mul_f64(1.0 - 0.2 * fastrand::f64())
}

#[cfg(test)]
mod tests;
