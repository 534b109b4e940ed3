//! `metrics`: the guest's own numbers among the node's, as
//! `cachecluster_guest_{name}{plugin="…"}`.
//!
//! A family belongs to all plugins that use its name, so it lives as long as the node
//! and survives a reload. How many families and series one plugin may make is
//! bounded: a guest that puts keys into labels would otherwise fill the node's memory
//! and every scrape.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::metrics::{
    counter::Counter,
    family::Family,
    histogram::{Histogram, exponential_buckets},
};
use tracing::warn;
use wasmtime::Result;

use crate::{
    metrics::Metrics,
    plugin::{
        bindings::contract::cachecluster::plugin::metrics::Host, secrets::Secrets, store::State,
        text::tidy,
    },
};

/// Metrics of one plugin: a plugin that measures itself well has a dozen.
const METRICS_MAX: usize = 64;
/// Series of one plugin, over all its metrics.
const SERIES_MAX: usize = 256;
/// Metrics of a node. They stay when the plugins that had them are gone: one that comes and
/// goes must not add others to them each time.
const FAMILIES_MAX: usize = 1_024;
/// Labels of one series.
const LABELS_MAX: usize = 8;
/// Bytes of a metric's or label's name.
const NAME_MAX: usize = 64;
/// Bytes of a label's value.
const LABEL_VALUE_MAX: usize = 128;

/// Prefix that keeps guests' names apart from the node's own `plugin_…` families.
const PREFIX: &str = "guest";

type Labels = Vec<(String, String)>;
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// From 100 µs, or whatever unit the guest counts in, up over seven powers of ten.
fn buckets() -> Histogram {
    Histogram::new(exponential_buckets(1e-4, 4.0, 13))
}

enum AnyFamily {
    Counters(Family<Labels, Counter>),
    Histograms(Histograms),
}

/// The guests' families of one node by name.
pub(crate) struct Families {
    node: Metrics,
    by_name: Mutex<HashMap<String, AnyFamily>>,
}

impl Families {
    pub(crate) fn new(node: Metrics) -> Self {
        Self { node, by_name: Mutex::default() }
    }

    /// Whether there is a metric by this name, or room for one.
    fn has_room_for(&self, name: &str) -> bool {
        let families = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        families.len() < FAMILIES_MAX || families.contains_key(name)
    }

    fn counter(&self, name: &str, labels: &Labels) -> Option<Counter> {
        let mut families = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let family = match families.entry(name.to_owned()) {
            Entry::Occupied(family) => family.into_mut(),
            Entry::Vacant(vacant) => {
                let family = Family::<Labels, Counter>::default();
                self.node.with_registry(PREFIX, |registry| {
                    registry.register(name, "A plugin's own counter", family.clone());
                });
                vacant.insert(AnyFamily::Counters(family))
            }
        };
        match family {
            AnyFamily::Counters(family) => Some(family.get_or_create_owned(labels)),
            AnyFamily::Histograms(_) => None,
        }
    }

    fn histogram(&self, name: &str, labels: &Labels) -> Option<Histogram> {
        let mut families = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let family = match families.entry(name.to_owned()) {
            Entry::Occupied(family) => family.into_mut(),
            Entry::Vacant(vacant) => {
                let family = Histograms::new_with_constructor(buckets);
                self.node.with_registry(PREFIX, |registry| {
                    registry.register(name, "A plugin's own histogram", family.clone());
                });
                vacant.insert(AnyFamily::Histograms(family))
            }
        };
        match family {
            AnyFamily::Histograms(family) => Some(family.get_or_create_owned(labels)),
            AnyFamily::Counters(_) => None,
        }
    }

    fn forget(&self, name: &str, labels: &Labels) {
        let families = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        match families.get(name) {
            Some(AnyFamily::Counters(family)) => family.remove(labels),
            Some(AnyFamily::Histograms(family)) => family.remove(labels),
            None => false,
        };
    }
}

/// What one plugin has measured, within its bounds.
pub(crate) struct GuestMetrics {
    plugin: Arc<str>,
    families: Arc<Families>,
    series: Mutex<Series>,
}

#[derive(Default)]
struct Series {
    by_name: HashMap<String, HashMap<Labels, Metric>>,
    count: usize,
    /// What was refused already; told once each.
    refused: HashSet<&'static str>,
    /// Whether the plugin is gone: its last calls make no new series.
    is_closed: bool,
}

#[derive(Clone)]
enum Metric {
    Counter(Counter),
    Histogram(Histogram),
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Histogram,
}

impl GuestMetrics {
    pub(crate) fn new(plugin: Arc<str>, families: Arc<Families>) -> Self {
        Self { plugin, families, series: Mutex::default() }
    }

    /// Forgets the plugin's series: it is gone.
    pub(crate) fn close(&self) {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.is_closed = true;
        for (name, known) in &series.by_name {
            for labels in known.keys() {
                self.families.forget(name, &self.all(labels));
            }
        }
    }

    /// `labels` with the one that every series has.
    fn all(&self, labels: &Labels) -> Labels {
        let plugin = ("plugin".to_owned(), self.plugin.to_string());
        std::iter::once(plugin).chain(labels.iter().cloned()).collect()
    }

    fn add(&self, name: &str, delta: u64, labels: Labels, secrets: &Secrets) {
        let Some(labels) = self.clean(name, labels, secrets) else { return };
        // OpenMetrics puts `_total` behind every counter's name by itself.
        let name = name.strip_suffix("_total").unwrap_or(name);
        match self.metric(Kind::Counter, name, labels) {
            Ok(Metric::Counter(counter)) => {
                counter.inc_by(delta);
            }
            Ok(Metric::Histogram(_)) => self.refuse(name, "it is a histogram already"),
            Err(reason) => self.refuse(name, reason),
        }
    }

    fn record(&self, name: &str, value: f64, labels: Labels, secrets: &Secrets) {
        let Some(labels) = self.clean(name, labels, secrets) else { return };
        if !value.is_finite() {
            return self.refuse(name, "its value is not a finite number");
        }
        match self.metric(Kind::Histogram, name, labels) {
            Ok(Metric::Histogram(histogram)) => histogram.observe(value),
            Ok(Metric::Counter(_)) => self.refuse(name, "it is a counter already"),
            Err(reason) => self.refuse(name, reason),
        }
    }

    /// `labels` with no secret in a value; none where a name would be one.
    fn clean(&self, name: &str, mut labels: Labels, secrets: &Secrets) -> Option<Labels> {
        let is_secret = |name: &str| matches!(secrets.redact(name), Cow::Owned(_));
        if is_secret(name) || labels.iter().any(|(label, _)| is_secret(label)) {
            self.refuse("[secret]", "its name, or that of a label, has a secret in it");
            return None;
        }
        for (_, value) in &mut labels {
            if let Cow::Owned(redacted) = secrets.redact(value) {
                *value = redacted;
            }
        }
        Some(labels)
    }

    fn metric(&self, kind: Kind, name: &str, mut labels: Labels) -> Result<Metric, &'static str> {
        labels.sort_unstable();
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metric) = series.by_name.get(name).and_then(|known| known.get(&labels)) {
            return Ok(metric.clone());
        }
        check_names(name, &labels)?;
        if series.is_closed {
            return Err("the plugin is gone");
        }
        if series.count >= SERIES_MAX {
            return Err("the plugin has as many series as it may");
        }
        if !series.by_name.contains_key(name) && series.by_name.len() >= METRICS_MAX {
            return Err("the plugin has as many metrics as it may");
        }
        if !self.families.has_room_for(name) {
            return Err("the node has as many metrics of plugins as it may");
        }
        let all = self.all(&labels);
        let metric = match kind {
            Kind::Counter => self.families.counter(name, &all).map(Metric::Counter),
            Kind::Histogram => self.families.histogram(name, &all).map(Metric::Histogram),
        };
        let metric = metric.ok_or("another plugin has a metric of another kind by this name")?;
        series.by_name.entry(name.to_owned()).or_default().insert(labels, metric.clone());
        series.count += 1;
        Ok(metric)
    }

    fn refuse(&self, name: &str, reason: &'static str) {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if series.refused.insert(reason) {
            drop(series);
            warn!(
                plugin = &*self.plugin,
                metric = tidy(name, NAME_MAX),
                reason,
                "A metric of the plugin is dropped; further ones for this reason silently."
            );
        }
    }
}

fn check_names(name: &str, labels: &Labels) -> Result<(), &'static str> {
    if !is_name(name) {
        return Err("its name is not made of up to 64 letters, digits and underscores");
    }
    if labels.len() > LABELS_MAX {
        return Err("it has more than 8 labels");
    }
    for (label, value) in labels {
        if !is_name(label) || label.starts_with("__") {
            return Err("a label's name is not made of up to 64 letters, digits and underscores");
        }
        if matches!(label.as_str(), "plugin" | "le" | "quantile") {
            return Err("a label's name is reserved: plugin, le or quantile");
        }
        if value.len() > LABEL_VALUE_MAX {
            return Err("a label's value is longer than 128 bytes");
        }
        if value.chars().any(char::is_control) {
            return Err("a label's value has control characters");
        }
    }
    if labels.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err("two of its labels have the same name");
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    name.len() <= NAME_MAX
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Host for State {
    fn counter_add(&mut self, name: String, delta: u64, labels: Labels) -> Result<()> {
        let environment = &self.environment;
        environment.metrics.add(&name, delta, labels, &environment.secrets);
        Ok(())
    }

    fn histogram_record(&mut self, name: String, value: f64, labels: Labels) -> Result<()> {
        let environment = &self.environment;
        environment.metrics.record(&name, value, labels, &environment.secrets);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(name: &str, value: &str) -> Labels {
        vec![(name.to_owned(), value.to_owned())]
    }

    fn guest(plugin: &str, node: &Metrics) -> GuestMetrics {
        GuestMetrics::new(plugin.into(), Arc::new(Families::new(node.clone())))
    }

    #[test]
    fn a_plugins_numbers_stand_beside_the_nodes() {
        let node = Metrics::new();
        let families = Arc::new(Families::new(node.clone()));
        let dict = GuestMetrics::new("dict".into(), Arc::clone(&families));
        dict.add("words_total", 2, label("kind", "noun"), &Secrets::default());
        dict.add("words", 1, label("kind", "noun"), &Secrets::default());
        GuestMetrics::new("other".into(), families).add(
            "words",
            5,
            label("kind", "verb"),
            &Secrets::default(),
        );
        dict.record("parse_seconds", 0.5, Labels::new(), &Secrets::default());
        let text = node.encode();
        for line in [
            r#"cachecluster_guest_words_total{plugin="dict",kind="noun"} 3"#,
            r#"cachecluster_guest_words_total{plugin="other",kind="verb"} 5"#,
            r#"cachecluster_guest_parse_seconds_count{plugin="dict"} 1"#,
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert_eq!(text.matches("# TYPE cachecluster_guest_words counter").count(), 1, "{text}");
    }

    #[test]
    fn series_and_metrics_are_bounded() {
        let node = Metrics::new();
        let metrics = guest("p", &node);
        for i in 0..1_000 {
            metrics.add("n", 1, label("key", &i.to_string()), &Secrets::default());
        }
        assert_eq!(node.encode().matches("cachecluster_guest_n_total{").count(), SERIES_MAX);

        let metrics = guest("q", &node);
        for i in 0..1_000 {
            metrics.add(&format!("m{i}"), 1, Labels::new(), &Secrets::default());
        }
        assert_eq!(node.encode().matches(r#"{plugin="q"} "#).count(), METRICS_MAX);
    }

    #[test]
    fn names_that_would_break_the_exposition_are_refused() {
        let node = Metrics::new();
        let metrics = guest("p", &node);
        let before = node.encode();
        for name in ["", "1a", "a b", "a\nb", "ä", &"x".repeat(65)] {
            metrics.add(name, 1, Labels::new(), &Secrets::default());
        }
        for (name, value) in [("plugin", "x"), ("le", "1"), ("__a", "x"), ("a", "\"} 1\n")] {
            metrics.add("fine", 1, label(name, value), &Secrets::default());
        }
        metrics.add("fine", 1, [label("a", "1"), label("a", "2")].concat(), &Secrets::default());
        metrics.record("fine", f64::NAN, Labels::new(), &Secrets::default());
        assert_eq!(node.encode(), before);
    }

    #[test]
    fn metrics_of_plugins_that_come_and_go_are_bounded() {
        let node = Metrics::new();
        let families = Arc::new(Families::new(node.clone()));
        for round in 0..20 {
            let metrics = GuestMetrics::new("p".into(), Arc::clone(&families));
            for i in 0..METRICS_MAX {
                metrics.add(&format!("m{round}_{i}"), 1, Labels::new(), &Secrets::default());
            }
            metrics.close();
        }
        assert_eq!(families.by_name.lock().expect("the families").len(), FAMILIES_MAX);
        // Those that are known are still there for whoever comes next.
        let metrics = GuestMetrics::new("q".into(), families);
        metrics.add("m0_0", 1, Labels::new(), &Secrets::default());
        metrics.add("other", 1, Labels::new(), &Secrets::default());
        let text = node.encode();
        assert!(text.contains("guest_m0_0_total{plugin=\"q\"} 1") && !text.contains("guest_other"));
    }

    #[test]
    fn a_name_keeps_the_kind_it_was_first_used_with() {
        let node = Metrics::new();
        let metrics = guest("p", &node);
        metrics.add("n", 1, Labels::new(), &Secrets::default());
        metrics.record("n", 1.0, Labels::new(), &Secrets::default());
        assert!(!node.encode().contains("guest_n_bucket"));
    }
}
