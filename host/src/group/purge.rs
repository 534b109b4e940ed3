//! Purges: a key, all values with a label, or a whole group, here and on other nodes.
//!
//! A purge is told to the [`Herald`] before anything is forgotten, so that whatever this
//! node asks of another from then on brings the news along; then the flights under way are
//! detached and memory forgets, as one step for a key. Nothing that a getter was asked for
//! before the purge is kept after it.
//!
//! A node that may have missed purges, since it was away, serves nothing from memory until it
//! has heard of them: [`Herald::is_current`].

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::{BoxFuture, Context, Group};

/// What a purge is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purged<'a> {
    /// One key.
    Key(&'a [u8]),
    /// Every value with this label.
    Tag(&'a str),
    /// The whole group.
    All,
}

/// Tells other nodes of purges, and knows whether this one has heard of theirs.
pub trait Herald: Send + Sync + 'static {
    /// A purge begins here. To be noted and told to the others; waits for nothing.
    fn purging(&self, group: &str, what: Purged<'_>);

    /// Whether this node has heard, as far as it knows, of every purge. Asked at every hit.
    fn is_current(&self, now: Instant) -> bool;

    /// Waits until it has, or until there is nobody to hear it from.
    fn current(&self) -> BoxFuture<'_, ()>;
}

impl Group {
    /// From now on, purges are told to `herald`, which also knows when memory cannot be
    /// trusted. The first call counts.
    pub fn heed(&self, herald: Arc<dyn Herald>) {
        self.herald.get_or_init(|| herald);
    }

    /// Forgets `key` here and wherever else it is kept: its value, its failures, and the
    /// answer of any fill that began before now. Says whether memory here held an answer.
    pub fn purge(&self, key: &[u8]) -> bool {
        self.announce(Purged::Key(key));
        self.forget(Purged::Key(key)) > 0
    }

    /// Forgets every value with the label `tag`, as [`Group::purge`] does for one key; says
    /// how many memory here held. Looks at every answer in memory: not for a serving thread.
    pub fn purge_tag(&self, tag: &str) -> u64 {
        self.announce(Purged::Tag(tag));
        self.forget(Purged::Tag(tag))
    }

    /// Forgets every key, as [`Group::purge`] does for one.
    pub fn purge_all(&self) {
        self.announce(Purged::All);
        self.forget(Purged::All);
    }

    /// Forgets what another node has purged, or what is not to be told to others. Says how
    /// many answers memory held, but for a whole group: zero.
    pub fn forget(&self, what: Purged<'_>) -> u64 {
        self.metrics.purges.inc();
        let away = self.away.get();
        // First what may still end in a fill of this node's own.
        match what {
            Purged::Key(key) => {
                let was_hot = away.is_some_and(|away| away.purge(key));
                let was_owned = self.flights.purge(key, || {
                    self.failures.forget(key);
                    self.store.remove(key)
                });
                u64::from(was_hot || was_owned)
            }
            Purged::Tag(tag) => {
                let hot = away.map_or(0, |away| away.purge_tag(tag));
                // Nobody knows yet what labels the answers under way will have. Whatever is
                // begun after this is younger than the purge, and may be kept.
                self.flights.purge_all(|| ());
                hot + self.store.remove_tagged(tag)
            }
            Purged::All => {
                if let Some(away) = away {
                    away.purge_all();
                }
                self.flights.purge_all(|| {
                    self.failures.forget_all();
                    self.store.clear();
                });
                0
            }
        }
    }

    fn announce(&self, what: Purged<'_>) {
        if let Some(herald) = self.herald.get() {
            herald.purging(&self.name, what);
        }
    }

    /// Whether memory can be trusted.
    pub(super) fn is_current(&self, now: Instant) -> bool {
        self.herald.get().is_none_or(|herald| herald.is_current(now))
    }

    /// Waits until it can, for as long as the caller waits. Gives the time it is then: `now`,
    /// if there was nothing to wait for.
    pub(super) async fn until_current(&self, now: Instant, cx: &Context) -> Instant {
        match self.herald.get() {
            Some(herald) if !herald.is_current(now) => {
                _ = timeout_at(cx.deadline, herald.current()).await;
                Instant::now()
            }
            _ => now,
        }
    }
}
