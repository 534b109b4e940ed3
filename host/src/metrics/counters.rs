//! What each part of a node counts: the members of the families that are its own.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};

/// The counters of one group.
#[derive(Clone, Debug)]
pub struct GroupMetrics {
    /// Gets answered fresh from memory.
    pub hits: Counter,
    /// Gets answered from memory past their TTL.
    pub stale_hits: Counter,
    /// Gets answered from a remembered not-found.
    pub negative_hits: Counter,
    /// Gets that set off a fill.
    pub misses: Counter,
    /// Gets that waited for another caller's fill.
    pub collapsed: Counter,
    /// Gets that ended in an error.
    pub errors: Counter,
    /// Fills that found a value.
    pub fills_found: Counter,
    /// Fills that found that there is none.
    pub fills_not_found: Counter,
    /// Refreshes that found the value unchanged.
    pub fills_not_modified: Counter,
    /// Fills that failed.
    pub fills_failed: Counter,
    /// Time of a fill.
    pub fill_seconds: Histogram,
    /// Bytes in memory; brought up to date when metrics are read.
    pub bytes: Gauge,
    /// Bytes that may be in memory.
    pub budget_bytes: Gauge,
    /// Answers in memory; brought up to date when metrics are read.
    pub items: Gauge,
    /// Answers dropped to stay within the budget.
    pub evictions: Counter,
    /// Purges of a key or of the whole group.
    pub purges: Counter,
    /// Fills under way; brought up to date when metrics are read.
    pub flights: Gauge,
}

/// What came of the questions of one group to other nodes.
#[derive(Clone, Debug)]
pub struct PeerMetrics {
    /// Questions answered with a value.
    pub found: Counter,
    /// Questions answered with the word that there is none.
    pub not_found: Counter,
    /// Questions answered with the owner's failure.
    pub failed: Counter,
    /// Questions that nobody answered: this node filled the key.
    pub unanswered: Counter,
    /// Questions to nodes that fill the group by other code: this node filled the key.
    pub other_code: Counter,
    /// Keys that this node owns since a moment ago and whose value the previous owner had.
    pub inherited: Counter,
    /// Such keys whose value it did not have, or not in time.
    pub not_inherited: Counter,
}

/// How many members a node sees.
#[derive(Clone, Debug, Default)]
pub struct ClusterMetrics {
    /// Those that are alive, this node included.
    pub alive: Gauge,
    /// Those that own keys.
    pub in_ring: Gauge,
    /// Those of them that may be down.
    pub suspect: Gauge,
}

/// How a source of members fares.
#[derive(Clone, Debug, Default)]
pub struct DiscoveryMetrics {
    /// Looks that said all there is to say.
    pub well: Counter,
    /// Looks that did not.
    pub failed: Counter,
    /// Places that it named when it last could say.
    pub found: Gauge,
    /// When that was, in seconds of Unix time.
    pub last_success: Gauge,
}

/// What a node does with all others.
#[derive(Clone, Debug, Default)]
pub struct FleetMetrics {
    /// Looks into a stand-in's memory that found the value before its owner said a word.
    pub hedges_won: Counter,
    /// Such looks that did not.
    pub hedges_lost: Counter,
    /// Values that their next owners keep.
    pub handed_over: Counter,
    /// Values that they refused, or did not answer for in time.
    pub not_handed_over: Counter,
}

/// The counters of one plugin.
#[derive(Clone, Debug)]
pub struct PluginMetrics {
    /// Calls that found a value, or that it has not changed.
    pub ok: Counter,
    /// Calls that found that there is none.
    pub not_found: Counter,
    /// Calls that the plugin answered with an error.
    pub error: Counter,
    /// Calls that ended in a trap or an answer out of bounds.
    pub trap: Counter,
    /// Calls that were ended at their deadline or CPU budget.
    pub deadline: Counter,
    /// Calls refused because every instance was busy and the queue full.
    pub rejected: Counter,
    /// Time of a call, the wait for an instance included.
    pub seconds: Histogram,
    /// Instances that serve a call.
    pub instances_busy: Gauge,
    /// Instances that wait for one.
    pub instances_idle: Gauge,
    /// Log records over the plugin's rate.
    pub log_records_dropped: Counter,
    /// Attempts to reach what its settings do not allow.
    pub denials: DenialMetrics,
    /// Versions in memory.
    pub generations: Gauge,
    /// Reloads that put a new version to work.
    pub swapped: Counter,
    /// Reloads that left the old version serving because the new one was bad.
    pub refused: Counter,
    /// New versions that failed in their probation and gave way to the old one.
    pub rolled_back: Counter,
    /// How the node judges it.
    pub health: HealthMetrics,
}

/// What the node counts while it judges the health of one plugin.
#[derive(Clone, Debug)]
pub struct HealthMetrics {
    /// 1 while the breaker is closed.
    pub closed: Gauge,
    /// 1 while the breaker is open.
    pub open: Gauge,
    /// 1 while one call finds out whether to close the breaker.
    pub half_open: Gauge,
    /// Times the breaker opened, from closed or once more.
    pub openings: Counter,
    /// Loads refused because the breaker was not closed.
    pub refused_by_breaker: Counter,
    /// Loads refused because their key was left alone.
    pub refused_for_key: Counter,
    /// Calls that repeat a failed one.
    pub retries: Counter,
    /// Keys whose calls kept costing an instance.
    pub poisonous_keys: Gauge,
    /// Self-checks that found nothing.
    pub checks_ok: Counter,
    /// Self-checks that failed.
    pub checks_failed: Counter,
}

/// Attempts of one plugin to reach what its settings do not allow.
#[derive(Clone, Debug)]
pub struct DenialMetrics {
    /// HTTP origins that are not granted.
    pub http: Counter,
    /// TCP hosts and ports that are not granted.
    pub tcp: Counter,
    /// Special addresses that are not granted.
    pub address: Counter,
    /// Metadata services, which cannot be granted.
    pub metadata: Counter,
    /// Groups of the node that are not granted.
    pub cache: Counter,
    /// Requests and connections that would have waited too long for their turn.
    pub rate: Counter,
    /// Requests and connections that found all places taken.
    pub connections: Counter,
}

/// The counters of reloads of the settings.
#[derive(Clone, Debug)]
pub struct ReloadMetrics {
    /// Reloads that changed something.
    pub changed: Counter,
    /// Reloads that found nothing to change.
    pub unchanged: Counter,
    /// Reloads that were refused: nothing changed.
    pub refused: Counter,
    pub(super) last_success: Gauge,
}

impl ReloadMetrics {
    /// The settings in force were read just now.
    pub fn succeeded(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_success.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }
}

/// The counters of one HTTP surface.
#[derive(Clone, Debug)]
pub struct FrontMetrics {
    pub(super) by_class: [Counter; 5],
    /// Open connections of clients.
    pub connections: Gauge,
}

impl FrontMetrics {
    /// Counts one answered request.
    pub fn answered(&self, status: http::StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.by_class[class].inc();
    }
}
