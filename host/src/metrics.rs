//! Every metric family, named in one place.
//!
//! The registry is a value that `node` makes and passes on: there is no global, so
//! that two nodes in one process count apart. The members of a family are looked up
//! once, when a group or plugin is made; a hit increments an atomic and nothing else.
//!
//! Labels are bounded: names from the configuration and fixed sets, never a key or
//! an address. The prefix of every family is `cachecluster_`.

mod counters;
mod family;
mod membership;

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::{
    encoding::text,
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::Registry,
};

pub use counters::{
    ClusterMetrics, DenialMetrics, DiscoveryMetrics, FleetMetrics, FrontMetrics, GroupMetrics,
    HealthMetrics, PeerMetrics, PluginMetrics, ReloadMetrics,
};
use family::Family;
pub use membership::MembershipCounts;

type Labels<const N: usize> = [(&'static str, String); N];
type Histograms<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// All metrics of one node. Cheap to clone: the clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    gets: Family<Labels<2>, Counter>,
    fills: Family<Labels<2>, Counter>,
    peer_questions: Family<Labels<2>, Counter>,
    peer_inheritances: Family<Labels<2>, Counter>,
    peer_hedges: Family<Labels<1>, Counter>,
    cluster_members: Family<Labels<1>, Gauge>,
    discovery_looks: Family<Labels<2>, Counter>,
    discovery_found: Family<Labels<1>, Gauge>,
    discovery_last_success: Family<Labels<1>, Gauge>,
    peer_handovers: Family<Labels<1>, Counter>,
    fill_seconds: Histograms<1>,
    cache_bytes: Family<Labels<1>, Gauge>,
    cache_budget_bytes: Family<Labels<1>, Gauge>,
    cache_items: Family<Labels<1>, Gauge>,
    evictions: Family<Labels<1>, Counter>,
    purges: Family<Labels<1>, Counter>,
    flights: Family<Labels<1>, Gauge>,
    plugin_calls: Family<Labels<2>, Counter>,
    plugin_call_seconds: Histograms<1>,
    plugin_instances: Family<Labels<2>, Gauge>,
    plugin_log_records_dropped: Family<Labels<1>, Counter>,
    plugin_denials: Family<Labels<2>, Counter>,
    plugin_generations: Family<Labels<1>, Gauge>,
    plugin_reloads: Family<Labels<2>, Counter>,
    plugin_breaker_state: Family<Labels<2>, Gauge>,
    plugin_breaker_openings: Family<Labels<1>, Counter>,
    plugin_refusals: Family<Labels<2>, Counter>,
    plugin_retries: Family<Labels<1>, Counter>,
    plugin_poisonous_keys: Family<Labels<1>, Gauge>,
    plugin_checks: Family<Labels<2>, Counter>,
    http_requests: Family<Labels<2>, Counter>,
    http_connections: Gauge,
    config_reloads: Family<Labels<1>, Counter>,
    config_last_reload_success: Gauge,
}

/// 50 µs to about 13 s, doubling: from a getter that computes to one that times out.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(50e-6, 2.0, 19))
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// The families of one node, all at zero.
    pub fn new() -> Self {
        let metrics = Self {
            registry: Arc::default(),
            gets: Family::default(),
            fills: Family::default(),
            peer_questions: Family::default(),
            peer_inheritances: Family::default(),
            peer_hedges: Family::default(),
            cluster_members: Family::default(),
            discovery_looks: Family::default(),
            discovery_found: Family::default(),
            discovery_last_success: Family::default(),
            peer_handovers: Family::default(),
            fill_seconds: Family::new_with_constructor(seconds),
            cache_bytes: Family::default(),
            cache_budget_bytes: Family::default(),
            cache_items: Family::default(),
            evictions: Family::default(),
            purges: Family::default(),
            flights: Family::default(),
            plugin_calls: Family::default(),
            plugin_call_seconds: Family::new_with_constructor(seconds),
            plugin_instances: Family::default(),
            plugin_log_records_dropped: Family::default(),
            plugin_denials: Family::default(),
            plugin_generations: Family::default(),
            plugin_reloads: Family::default(),
            plugin_breaker_state: Family::default(),
            plugin_breaker_openings: Family::default(),
            plugin_refusals: Family::default(),
            plugin_retries: Family::default(),
            plugin_poisonous_keys: Family::default(),
            plugin_checks: Family::default(),
            http_requests: Family::default(),
            http_connections: Gauge::default(),
            config_reloads: Family::default(),
            config_last_reload_success: Gauge::default(),
        };
        let mut registry = Registry::with_prefix("cachecluster");
        metrics.register(&mut registry);
        *metrics.registry.lock().unwrap_or_else(PoisonError::into_inner) = registry;
        metrics
    }

    fn register_peers(&self, registry: &mut Registry) {
        registry.register(
            "peer_questions",
            "Questions to the nodes that own keys, by group and outcome",
            self.peer_questions.clone(),
        );
        registry.register(
            "peer_inheritances",
            "Looks into the memory of the node that owned a key before, by group and outcome",
            self.peer_inheritances.clone(),
        );
        registry.register(
            "peer_hedges",
            "Looks into a stand-in's memory while an owner is silent, by outcome",
            self.peer_hedges.clone(),
        );
        registry.register(
            "peer_handovers",
            "Values handed over by this node as it goes, by outcome",
            self.peer_handovers.clone(),
        );
        registry.register(
            "discovery_looks",
            "Looks for members at a source, by what came of them",
            self.discovery_looks.clone(),
        );
        registry.register(
            "discovery_found",
            "Places that a source named when it last could say",
            self.discovery_found.clone(),
        );
        registry.register(
            "discovery_last_success_timestamp_seconds",
            "When a source last could say where members may be",
            self.discovery_last_success.clone(),
        );
        registry.register(
            "cluster_members",
            "Members of the cluster as this node sees it: all that are alive, those that own keys, \
             and those that may be down",
            self.cluster_members.clone(),
        );
    }

    fn register(&self, registry: &mut Registry) {
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running version", build);
        registry.register("gets", "Gets by group and outcome", self.gets.clone());
        registry.register("fills", "Fills by group and outcome", self.fills.clone());
        self.register_peers(registry);
        registry.register("fill_duration_seconds", "Time of a fill", self.fill_seconds.clone());
        registry.register("cache_bytes", "Bytes in memory", self.cache_bytes.clone());
        registry.register(
            "cache_budget_bytes",
            "Bytes that may be in memory",
            self.cache_budget_bytes.clone(),
        );
        registry.register("cache_items", "Answers in memory", self.cache_items.clone());
        registry.register(
            "evictions",
            "Answers dropped to stay within the budget",
            self.evictions.clone(),
        );
        registry.register("purges", "Purges of a key or a group", self.purges.clone());
        registry.register("flights", "Fills under way", self.flights.clone());
        registry.register(
            "plugin_calls",
            "Calls of a plugin by outcome",
            self.plugin_calls.clone(),
        );
        registry.register(
            "plugin_call_duration_seconds",
            "Time of a call of a plugin, the wait for an instance included",
            self.plugin_call_seconds.clone(),
        );
        registry.register(
            "plugin_instances",
            "Live instances of a plugin by state",
            self.plugin_instances.clone(),
        );
        registry.register(
            "plugin_log_records_dropped",
            "Log records of a plugin over its rate",
            self.plugin_log_records_dropped.clone(),
        );
        registry.register(
            "plugin_denials",
            "Attempts of a plugin to reach what its settings do not allow, by kind",
            self.plugin_denials.clone(),
        );
        registry.register(
            "plugin_generations",
            "Versions of a plugin in memory: the one that serves, and those that drain or \
             could be rolled back to",
            self.plugin_generations.clone(),
        );
        registry.register(
            "plugin_reloads",
            "Looks at a plugin's file or settings by what came of them",
            self.plugin_reloads.clone(),
        );
        self.register_health(registry);
        registry.register(
            "http_requests",
            "Requests by surface and class of status",
            self.http_requests.clone(),
        );
        registry.register(
            "http_connections",
            "Open connections of clients",
            self.http_connections.clone(),
        );
        registry.register(
            "config_reloads",
            "Reloads of the settings by outcome",
            self.config_reloads.clone(),
        );
        registry.register(
            "config_last_reload_success_timestamp_seconds",
            "When the settings in force were read: at the start, or at the last reload that was \
             not refused",
            self.config_last_reload_success.clone(),
        );
    }

    fn register_health(&self, registry: &mut Registry) {
        registry.register(
            "plugin_breaker_state",
            "State of a plugin's breaker: 1 for the one it is in",
            self.plugin_breaker_state.clone(),
        );
        registry.register(
            "plugin_breaker_openings",
            "Times a plugin's breaker opened, from closed or once more",
            self.plugin_breaker_openings.clone(),
        );
        registry.register(
            "plugin_refusals",
            "Loads refused without a call, because the plugin or the key is left alone",
            self.plugin_refusals.clone(),
        );
        registry.register(
            "plugin_retries",
            "Calls that repeat a failed one",
            self.plugin_retries.clone(),
        );
        registry.register(
            "plugin_poisonous_keys",
            "Keys that are left alone because their calls kept costing an instance",
            self.plugin_poisonous_keys.clone(),
        );
        registry.register(
            "plugin_checks",
            "Self-checks of a plugin while it serves",
            self.plugin_checks.clone(),
        );
    }

    /// Registers families that are not the node's own, as those of a plugin, under
    /// `cachecluster_{prefix}_`.
    pub fn with_registry<T>(&self, prefix: &str, register: impl FnOnce(&mut Registry) -> T) -> T {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        register(registry.sub_registry_with_prefix(prefix))
    }

    /// The counters of the group `name`.
    pub fn group(&self, name: &str) -> GroupMetrics {
        let group = || ("group", name.to_owned());
        let get = |outcome: &str| {
            self.gets.get_or_create_owned(&[group(), ("outcome", outcome.to_owned())])
        };
        let fill = |outcome: &str| {
            self.fills.get_or_create_owned(&[group(), ("outcome", outcome.to_owned())])
        };
        GroupMetrics {
            hits: get("hit"),
            stale_hits: get("stale"),
            negative_hits: get("negative"),
            misses: get("miss"),
            collapsed: get("collapsed"),
            errors: get("error"),
            fills_found: fill("found"),
            fills_not_found: fill("not_found"),
            fills_not_modified: fill("not_modified"),
            fills_failed: fill("error"),
            fill_seconds: self.fill_seconds.get_or_create_owned(&[group()]),
            bytes: self.cache_bytes.get_or_create_owned(&[group()]),
            budget_bytes: self.cache_budget_bytes.get_or_create_owned(&[group()]),
            items: self.cache_items.get_or_create_owned(&[group()]),
            evictions: self.evictions.get_or_create_owned(&[group()]),
            purges: self.purges.get_or_create_owned(&[group()]),
            flights: self.flights.get_or_create_owned(&[group()]),
        }
    }

    /// The counters of what the group `name` asks other nodes.
    pub fn peers(&self, name: &str) -> PeerMetrics {
        let asked = |outcome: &str| {
            let labels = [("group", name.to_owned()), ("outcome", outcome.to_owned())];
            self.peer_questions.get_or_create_owned(&labels)
        };
        let inherited = |outcome: &str| {
            let labels = [("group", name.to_owned()), ("outcome", outcome.to_owned())];
            self.peer_inheritances.get_or_create_owned(&labels)
        };
        PeerMetrics {
            found: asked("found"),
            not_found: asked("not_found"),
            failed: asked("error"),
            unanswered: asked("unanswered"),
            other_code: asked("other_code"),
            inherited: inherited("found"),
            not_inherited: inherited("not_held"),
        }
    }

    /// How many members the cluster has.
    pub fn cluster(&self) -> ClusterMetrics {
        let members =
            |state: &str| self.cluster_members.get_or_create_owned(&[("state", state.to_owned())]);
        ClusterMetrics {
            alive: members("alive"),
            in_ring: members("in_ring"),
            suspect: members("suspect"),
        }
    }

    /// How the source of members `kind` fares.
    pub fn discovery(&self, kind: &str) -> DiscoveryMetrics {
        let source = || ("source", kind.to_owned());
        let looks = |outcome: &str| {
            self.discovery_looks.get_or_create_owned(&[source(), ("outcome", outcome.to_owned())])
        };
        DiscoveryMetrics {
            well: looks("ok"),
            failed: looks("failed"),
            found: self.discovery_found.get_or_create_owned(&[source()]),
            last_success: self.discovery_last_success.get_or_create_owned(&[source()]),
        }
    }

    /// From now on `read` is asked for what membership counts whenever somebody looks. It
    /// holds the registry up meanwhile, so it must not wait.
    pub fn membership(&self, read: impl Fn() -> MembershipCounts + Send + Sync + 'static) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register_collector(Box::new(membership::Counted(read)));
    }

    /// The counters of what this node does with all others, whatever the group.
    pub fn fleet(&self) -> FleetMetrics {
        let hedge = |outcome: &str| {
            self.peer_hedges.get_or_create_owned(&[("outcome", outcome.to_owned())])
        };
        let handover = |outcome: &str| {
            self.peer_handovers.get_or_create_owned(&[("outcome", outcome.to_owned())])
        };
        FleetMetrics {
            hedges_won: hedge("found"),
            hedges_lost: hedge("not_held"),
            handed_over: handover("kept"),
            not_handed_over: handover("refused"),
        }
    }

    /// The counters of the plugin `name`.
    pub fn plugin(&self, name: &str) -> PluginMetrics {
        let plugin = || ("plugin", name.to_owned());
        let call = |outcome: &str| {
            self.plugin_calls.get_or_create_owned(&[plugin(), ("outcome", outcome.to_owned())])
        };
        let instances = |state: &str| {
            self.plugin_instances.get_or_create_owned(&[plugin(), ("state", state.to_owned())])
        };
        let reload = |outcome: &str| {
            self.plugin_reloads.get_or_create_owned(&[plugin(), ("outcome", outcome.to_owned())])
        };
        let denial = |kind: &str| {
            self.plugin_denials.get_or_create_owned(&[plugin(), ("kind", kind.to_owned())])
        };
        PluginMetrics {
            ok: call("ok"),
            not_found: call("not_found"),
            error: call("error"),
            trap: call("trap"),
            deadline: call("deadline"),
            rejected: call("rejected"),
            seconds: self.plugin_call_seconds.get_or_create_owned(&[plugin()]),
            instances_busy: instances("busy"),
            instances_idle: instances("idle"),
            log_records_dropped: self.plugin_log_records_dropped.get_or_create_owned(&[plugin()]),
            denials: DenialMetrics {
                http: denial("http"),
                tcp: denial("tcp"),
                address: denial("address"),
                metadata: denial("metadata"),
                cache: denial("cache"),
                rate: denial("rate"),
                connections: denial("connections"),
            },
            generations: self.plugin_generations.get_or_create_owned(&[plugin()]),
            swapped: reload("swapped"),
            refused: reload("refused"),
            rolled_back: reload("rolled_back"),
            health: self.health(name),
        }
    }

    fn health(&self, name: &str) -> HealthMetrics {
        let plugin = || ("plugin", name.to_owned());
        let state = |state: &str| {
            self.plugin_breaker_state.get_or_create_owned(&[plugin(), ("state", state.to_owned())])
        };
        let refusal = |reason: &str| {
            self.plugin_refusals.get_or_create_owned(&[plugin(), ("reason", reason.to_owned())])
        };
        let check = |outcome: &str| {
            self.plugin_checks.get_or_create_owned(&[plugin(), ("outcome", outcome.to_owned())])
        };
        HealthMetrics {
            closed: state("closed"),
            open: state("open"),
            half_open: state("half_open"),
            openings: self.plugin_breaker_openings.get_or_create_owned(&[plugin()]),
            refused_by_breaker: refusal("breaker"),
            refused_for_key: refusal("key"),
            retries: self.plugin_retries.get_or_create_owned(&[plugin()]),
            poisonous_keys: self.plugin_poisonous_keys.get_or_create_owned(&[plugin()]),
            checks_ok: check("ok"),
            checks_failed: check("error"),
        }
    }

    /// Forgets the series of the group `name`, which is gone. What still runs for it
    /// counts for nobody.
    pub fn forget_group(&self, name: &str) {
        for counters in [&self.gets, &self.fills, &self.peer_questions, &self.peer_inheritances] {
            counters.forget(name);
        }
        for counters in [&self.evictions, &self.purges] {
            counters.forget(name);
        }
        for gauges in
            [&self.cache_bytes, &self.cache_budget_bytes, &self.cache_items, &self.flights]
        {
            gauges.forget(name);
        }
        self.fill_seconds.forget(name);
    }

    /// Forgets the series of the plugin `name`, as [`Metrics::forget_group`] those of a
    /// group.
    pub fn forget_plugin(&self, name: &str) {
        self.plugin_calls.forget(name);
        self.plugin_call_seconds.forget(name);
        self.plugin_instances.forget(name);
        self.plugin_log_records_dropped.forget(name);
        self.plugin_generations.forget(name);
        self.plugin_reloads.forget(name);
        self.plugin_denials.forget(name);
        self.plugin_breaker_state.forget(name);
        self.plugin_breaker_openings.forget(name);
        self.plugin_refusals.forget(name);
        self.plugin_retries.forget(name);
        self.plugin_poisonous_keys.forget(name);
        self.plugin_checks.forget(name);
    }

    /// The counters of reloads of the settings.
    pub fn reloads(&self) -> ReloadMetrics {
        let reload = |outcome: &str| {
            self.config_reloads.get_or_create_owned(&[("outcome", outcome.to_owned())])
        };
        ReloadMetrics {
            changed: reload("changed"),
            unchanged: reload("unchanged"),
            refused: reload("refused"),
            last_success: self.config_last_reload_success.clone(),
        }
    }

    /// The counters of one HTTP surface: `http` or `admin`.
    pub fn front(&self, surface: &str) -> FrontMetrics {
        let request = |class: &str| {
            self.http_requests.get_or_create_owned(&[
                ("surface", surface.to_owned()),
                ("status_class", class.to_owned()),
            ])
        };
        FrontMetrics {
            by_class: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(request),
            connections: self.http_connections.clone(),
        }
    }

    /// Everything in the text format of `OpenMetrics`.
    pub fn encode(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        match text::encode(&mut text, &registry) {
            Ok(()) => text,
            // Writing to a string does not fail.
            Err(std::fmt::Error) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_carries_the_prefix_and_its_labels() {
        let metrics = Metrics::new();
        metrics.group("define").hits.inc();
        metrics.plugin("dict").trap.inc_by(2);
        metrics.front("http").answered(http::StatusCode::NOT_FOUND);
        let text = metrics.encode();
        assert!(
            text.contains(r#"cachecluster_gets_total{group="define",outcome="hit"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"cachecluster_plugin_calls_total{plugin="dict",outcome="trap"} 2"#)
        );
        assert!(
            text.contains(
                r#"cachecluster_http_requests_total{surface="http",status_class="4xx"} 1"#
            )
        );
    }

    #[test]
    fn who_leaves_takes_its_series_along() {
        let metrics = Metrics::new();
        let text = |metrics: &Metrics| {
            for group in ["define", "gone"] {
                metrics.group(group);
            }
            metrics.plugin("dict");
            metrics.encode()
        };
        assert!(text(&metrics).contains("group=\"gone\""));
        let gone = metrics.plugin("gone");
        assert!(metrics.encode().contains("plugin=\"gone\""));
        metrics.forget_group("gone");
        metrics.forget_plugin("gone");
        gone.ok.inc();
        let left = metrics.encode();
        assert!(!left.contains("\"gone\""), "{left}");
        assert!(left.contains("group=\"define\"") && left.contains("plugin=\"dict\""));
        assert!(text(&metrics).contains("group=\"gone\""), "it may come again");
    }

    #[test]
    fn what_membership_counts_is_read_when_somebody_looks() {
        let metrics = Metrics::new();
        let reads = Arc::new(Mutex::new(MembershipCounts {
            packets_refused: ["length", "version", "key", "seal", "replay", "malformed"]
                .map(|reason| (reason, 0)),
            udp_degraded: 0,
            joined: Vec::new(),
        }));
        let read = Arc::clone(&reads);
        metrics.membership(move || read.lock().expect("counts").clone());
        let replays = |count: u64| {
            format!("cachecluster_cluster_packets_refused_total{{reason=\"replay\"}} {count}\n")
        };
        assert!(metrics.encode().contains(&replays(0)), "{}", metrics.encode());
        {
            let mut counts = reads.lock().expect("counts");
            counts.packets_refused[4].1 = 7;
            counts.udp_degraded = 3;
            counts.joined = vec![("gce", 5)];
        }
        let text = metrics.encode();
        assert!(text.contains(&replays(7)), "{text}");
        assert!(text.contains("cachecluster_cluster_udp_degraded_total 3\n"), "{text}");
        assert!(text.contains("cachecluster_discovery_joined{source=\"gce\"} 5\n"), "{text}");
    }

    #[test]
    fn two_nodes_in_one_process_count_apart() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.group("g").hits.inc();
        assert_eq!(other.group("g").hits.get(), 0);
    }
}
