//! Purges across the cluster.
//!
//! A purge here is noted, told to the cluster, and carried out. One from elsewhere comes as a
//! notice of the cluster or ahead of it, with a question: whoever asks for a key brings along
//! what it knows of purges of that key, so that no answer is older than what the asking node
//! knows of. For that, the purges of the last minute are kept (`recent`), which is longer
//! than a notice takes to reach everybody.
//!
//! A node that was away does not trust its memory until it has heard what it missed; what
//! nobody can tell it any more makes it forget everything.

mod recent;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep},
};
use tracing::{info, warn};

use crate::{
    cluster::{Cluster, Hear, Notice, Pulse, Refused},
    group::{BoxFuture, Groups, Herald, Purged, Tidings},
    wire::{Purge, PurgeId, Scope},
};
use recent::Recent;

/// Purges that wait to be told; beyond, whole groups are purged elsewhere instead.
const QUEUE: usize = 4_096;

/// Bytes of news that a question brings along at most.
const NEWS_MAX: usize = 4 << 10;

/// A cluster's thread that has not run for longer than this may have missed something.
const PULSE_MAX: Duration = Duration::from_secs(1);

/// The longest that a get waits for a node to be current.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// Between two looks at that.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What this node knows of purges, its own and those of others.
pub(in crate::node) struct Purges {
    /// Drawn at the start, so that no other purge has the same name.
    node: u64,
    count: AtomicU64,
    recent: Mutex<Recent>,
    groups: OnceLock<Arc<Groups>>,
    telling: mpsc::Sender<Purge>,
    /// Groups with more purges than could be told one by one.
    overflowed: Mutex<BTreeSet<Box<str>>>,
    overflows: Notify,
    pulse: OnceLock<Pulse>,
    is_current: AtomicBool,
    /// Until then there is nothing in memory that could be out of date.
    was_current: AtomicBool,
    /// The cluster's thread runs no more: nothing will be heard, and there is no use to wait.
    has_ended: AtomicBool,
}

impl Purges {
    /// Nothing yet; and what is to be told, for [`tell`].
    pub(super) fn new() -> (Arc<Self>, mpsc::Receiver<Purge>) {
        let (telling, to_tell) = mpsc::channel(QUEUE);
        let purges = Self {
            node: fastrand::u64(..),
            count: AtomicU64::new(0),
            recent: Mutex::default(),
            groups: OnceLock::new(),
            telling,
            overflowed: Mutex::default(),
            overflows: Notify::new(),
            pulse: OnceLock::new(),
            is_current: AtomicBool::new(false),
            was_current: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
        };
        (Arc::new(purges), to_tell)
    }

    /// Carries out purges of others in `groups`.
    pub(in crate::node) fn act_on(&self, groups: Arc<Groups>) {
        self.groups.get_or_init(|| groups);
    }

    /// Goes by the pulse of the cluster's thread.
    pub(super) fn feel(&self, pulse: Pulse) {
        self.pulse.get_or_init(|| pulse);
    }

    /// The cluster is no more.
    pub(super) fn has_ended(&self) {
        self.has_ended.store(true, SeqCst);
    }

    fn next_id(&self) -> PurgeId {
        PurgeId { node: self.node, number: self.count.fetch_add(1, Relaxed) }
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out a purge of another node, unless that has been done.
    fn learn(&self, purge: &Purge) {
        // Noted first: see `Tidings`.
        if !self.recent().note(purge, Instant::now()) {
            return;
        }
        let group = self.groups.get().and_then(|groups| groups.get(&purge.group));
        if let Some(group) = group {
            group.forget(match &purge.scope {
                Scope::Key(key) => Purged::Key(key),
                Scope::Tag(tag) => Purged::Tag(tag),
                Scope::All => Purged::All,
            });
        }
    }
}

impl Herald for Purges {
    fn purging(&self, group: &str, what: Purged<'_>) {
        let scope = match what {
            Purged::Key(key) => Scope::Key(key.into()),
            Purged::Tag(tag) => Scope::Tag(tag.into()),
            Purged::All => Scope::All,
        };
        let purge = Purge { id: self.next_id(), group: group.into(), scope };
        self.recent().note(&purge, Instant::now());
        if let Err(error) = self.telling.try_send(purge) {
            let purge = error.into_inner();
            let mut overflowed = self.overflowed.lock().unwrap_or_else(PoisonError::into_inner);
            overflowed.insert(purge.group);
            self.overflows.notify_one();
        }
    }

    fn is_current(&self, now: Instant) -> bool {
        if !self.was_current.load(Relaxed) || self.has_ended.load(Relaxed) {
            return true;
        }
        let is_awake = self.pulse.get().is_none_or(|pulse| pulse.age(now) < PULSE_MAX);
        is_awake && self.is_current.load(Relaxed)
    }

    fn current(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let until = Instant::now() + WAIT_MAX;
            while !Herald::is_current(self, Instant::now()) && Instant::now() < until {
                sleep(LOOK_EVERY).await;
            }
        })
    }
}

impl Tidings for Purges {
    fn for_question(&self, group: &str, key: &[u8]) -> Option<Bytes> {
        self.recent().about(group, key, NEWS_MAX, Instant::now())
    }

    fn heard(&self, news: &[u8]) {
        let mut news = Bytes::copy_from_slice(news);
        while let Ok(purge) = Purge::read(&mut news) {
            self.learn(&purge);
        }
    }

    fn is_outdated(&self, group: &str, key: &[u8], age: Duration) -> bool {
        self.recent().is_purged_within(group, key, age, Instant::now())
    }
}

impl Hear for Purges {
    fn notice(&self, notice: &Notice) {
        match Purge::read(&mut notice.body.clone()) {
            Ok(purge) => self.learn(&purge),
            Err(error) => warn!(node = %notice.id.node, %error, "A notice was not understood."),
        }
    }

    fn missed(&self) {
        warn!("This node was away for longer than purges are kept: it forgets all that it holds.");
        self.recent().lose_track(Instant::now());
        for group in self.groups.get().iter().flat_map(|groups| groups.all()) {
            group.forget(Purged::All);
        }
    }

    fn is_current(&self, is_current: bool) {
        self.is_current.store(is_current, SeqCst);
        if is_current {
            self.was_current.store(true, SeqCst);
        } else if self.was_current.load(SeqCst) {
            info!("This node may have missed purges: it asks the others before it serves.");
        }
    }
}

/// Tells the cluster of purges as they come.
pub(super) async fn tell(
    purges: Arc<Purges>,
    mut to_tell: mpsc::Receiver<Purge>,
    cluster: std::sync::Weak<Cluster>,
) {
    loop {
        let purge = tokio::select! {
            purge = to_tell.recv() => match purge {
                Some(purge) => purge,
                None => return,
            },
            () = purges.overflows.notified() => {
                let mut all =
                    purges.overflowed.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(group) = all.pop_first() else { continue };
                if !all.is_empty() {
                    purges.overflows.notify_one();
                }
                Purge { id: purges.next_id(), group, scope: Scope::All }
            }
        };
        let Some(cluster) = cluster.upgrade() else { return };
        if let Err(Refused::TooLong) = publish(&cluster, &purge).await {
            let whole = Purge { id: purges.next_id(), group: purge.group, scope: Scope::All };
            _ = publish(&cluster, &whole).await;
        }
    }
}

async fn publish(cluster: &Cluster, purge: &Purge) -> Result<(), Refused> {
    let mut body = Vec::new();
    if !purge.write(&mut body) {
        return Err(Refused::TooLong);
    }
    cluster.publish(body.into()).await.map(drop)
}
