//! `logging`: the guest's records in the node's log.
//!
//! A guest is not trusted with the log: its text stands in fields only, without
//! control characters, cut to size, and at a bounded rate.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;
use tracing::{debug, enabled, error, info, trace, warn};
use wasmtime::Result;

use crate::plugin::{
    bindings::contract::cachecluster::plugin::logging::{Host, Level},
    secrets::Secrets,
    store::State,
    text::tidy,
};

/// Bytes of one message; a stack trace fits.
const MESSAGE_MAX: usize = 4 << 10;
/// Fields of one record; more are left out.
const FIELDS_MAX: usize = 16;
/// Bytes of a field's name.
const FIELD_NAME_MAX: usize = 64;
/// Bytes of a field's value.
const FIELD_VALUE_MAX: usize = 1 << 10;

/// Records a second that a plugin may write in the long run: more is not read by
/// anyone and would fill the disk.
const RATE: f64 = 100.0;
/// Records it may write at once, as when it starts.
const BURST: f64 = 200.0;
/// The same for all plugins of a node together. Ten that flood at once, as when an origin
/// goes down that they share, tell all there is to tell.
const NODE_RATE: f64 = 10.0 * RATE;
const NODE_BURST: f64 = 10.0 * BURST;
/// Bytes of a record above which it counts as two, and so on: no line of a good log is
/// longer.
const RECORD_BYTES: usize = 1 << 10;
/// How often the number of dropped records is told.
const DROPPED_NOTICE: Duration = Duration::from_secs(10);

/// Where a plugin's records go. Shared by all its instances.
pub(crate) struct GuestLog {
    plugin: Arc<str>,
    own: LogBudget,
    node: Arc<LogBudget>,
    noticed: Mutex<Option<Instant>>,
    /// Records dropped since the last notice.
    dropped: AtomicU64,
    dropped_total: Counter,
}

impl GuestLog {
    /// The log of `plugin`, whose dropped records count in `dropped_total`. What it
    /// writes counts in the budget of the `node` too.
    pub(crate) fn new(plugin: Arc<str>, node: Arc<LogBudget>, dropped_total: Counter) -> Self {
        let (dropped, noticed) = (AtomicU64::new(0), Mutex::default());
        Self { plugin, own: LogBudget::new(RATE, BURST), node, noticed, dropped, dropped_total }
    }

    /// Writes one record without the `secrets` in it, or drops it when the plugin, or all
    /// of them together, are over their rate.
    pub(super) fn write(
        &self,
        level: Level,
        text: &str,
        fields: &[(String, String)],
        secrets: &Secrets,
    ) {
        if !is_enabled(level) || !self.admit() {
            return;
        }
        let plugin = &*self.plugin;
        // Before anything is cut: the rest of a secret would not be known for one.
        let text = tidy(&secrets.redact(text), MESSAGE_MAX);
        let fields = join(fields, secrets);
        self.charge(text.len() + fields.len());
        let fields = (!fields.is_empty()).then_some(fields.as_str());
        match level {
            Level::Trace => trace!(plugin, text, fields, "From the plugin."),
            Level::Debug => debug!(plugin, text, fields, "From the plugin."),
            Level::Info => info!(plugin, text, fields, "From the plugin."),
            Level::Warn => warn!(plugin, text, fields, "From the plugin."),
            Level::Error => error!(plugin, text, fields, "From the plugin."),
        }
    }

    /// Whether there is room for a record. Dropped ones are told now and then, with the
    /// next that is written.
    fn admit(&self) -> bool {
        if !self.own.admit() || !self.node.admit() {
            self.dropped.fetch_add(1, Relaxed);
            self.dropped_total.inc();
            return false;
        }
        if self.dropped.load(Relaxed) == 0 {
            return true;
        }
        let now = Instant::now();
        let mut noticed = self.noticed.lock().unwrap_or_else(PoisonError::into_inner);
        if noticed.is_none_or(|noticed| now - noticed >= DROPPED_NOTICE) {
            *noticed = Some(now);
            drop(noticed);
            let dropped = self.dropped.swap(0, Relaxed);
            warn!(
                plugin = &*self.plugin,
                dropped,
                "The plugin, or all of them together, log too fast; records of it were dropped."
            );
        }
        true
    }

    /// Counts the length of a record that was admitted.
    fn charge(&self, bytes: usize) {
        let further = u32::try_from(bytes / RECORD_BYTES).unwrap_or(u32::MAX);
        if further > 0 {
            self.own.charge(f64::from(further));
            self.node.charge(f64::from(further));
        }
    }
}

/// Records that may be written at once, and how fast that number comes back.
pub(crate) struct LogBudget {
    rate: f64,
    burst: f64,
    /// What is left, below nothing after a long record; and as of when.
    left: Mutex<(f64, Instant)>,
}

impl LogBudget {
    /// That of all plugins of a node together.
    pub(crate) fn of_node() -> Self {
        Self::new(NODE_RATE, NODE_BURST)
    }

    fn new(rate: f64, burst: f64) -> Self {
        Self { rate, burst, left: Mutex::new((burst, Instant::now())) }
    }

    /// Takes one record, if there is one left.
    fn admit(&self) -> bool {
        let now = Instant::now();
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (records, since) = *left;
        let refill = now.saturating_duration_since(since).as_secs_f64() * self.rate;
        let records = (records + refill).min(self.burst);
        let is_one_left = records >= 1.0;
        *left = (if is_one_left { records - 1.0 } else { records }, now);
        is_one_left
    }

    /// Takes so many more, left or not.
    fn charge(&self, records: f64) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).0 -= records;
    }
}

/// `fields` on one line, as `name="value"`.
fn join(fields: &[(String, String)], secrets: &Secrets) -> String {
    use std::fmt::Write as _;

    let mut line = String::new();
    for (name, value) in fields.iter().take(FIELDS_MAX) {
        if !line.is_empty() {
            line.push(' ');
        }
        let name = tidy(&secrets.redact(name), FIELD_NAME_MAX);
        let value = tidy(&secrets.redact(value), FIELD_VALUE_MAX).replace('"', "\\\"");
        let written = write!(line, "{name}=\"{value}\"");
        debug_assert!(written.is_ok(), "writing to a string does not fail");
    }
    line
}

fn is_enabled(level: Level) -> bool {
    match level {
        Level::Trace => enabled!(tracing::Level::TRACE),
        Level::Debug => enabled!(tracing::Level::DEBUG),
        Level::Info => enabled!(tracing::Level::INFO),
        Level::Warn => enabled!(tracing::Level::WARN),
        Level::Error => enabled!(tracing::Level::ERROR),
    }
}

impl Host for State {
    fn enabled(&mut self, level: Level) -> Result<bool> {
        Ok(is_enabled(level))
    }

    fn log(&mut self, level: Level, message: String, fields: Vec<(String, String)>) -> Result<()> {
        let environment = &self.environment;
        environment.log.write(level, &message, &fields, &environment.secrets);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::text::logged;

    fn log(plugin: &str) -> GuestLog {
        GuestLog::new(plugin.into(), Arc::new(LogBudget::of_node()), Counter::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_plugin_that_floods_the_log_is_held_to_its_rate() {
        let log = log("p");
        let admitted = (0..1_000).filter(|_| log.admit()).count();
        assert_eq!((admitted, log.dropped_total.get()), (200, 800));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((0..1_000).filter(|_| log.admit()).count(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn plugins_that_flood_the_log_together_are_held_to_the_nodes_rate() {
        let node = Arc::new(LogBudget::of_node());
        let logs: Vec<_> = (0..100)
            .map(|i| GuestLog::new(i.to_string().into(), Arc::clone(&node), Counter::default()))
            .collect();
        let flood = || {
            let records = logs.iter().flat_map(|log| (0..500).map(|_| log.admit()));
            records.filter(|admitted| *admitted).count()
        };
        assert_eq!(flood(), 2_000);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(flood(), 1_000);
        // One alone gets as much as ever, once the others are quiet.
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!((0..500).filter(|_| logs[99].admit()).count(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_record_counts_as_many() {
        let log = log("p");
        let longest: Vec<_> = (0..100).map(|i| (i.to_string(), "x".repeat(10_000))).collect();
        let message = "x".repeat(1 << 20);
        let written = |records: usize| {
            let write = || log.write(Level::Warn, &message, &longest, &Secrets::default());
            logged(|| (0..records).for_each(|_| write()))
        };
        // Of twenty kibibytes and a bit each.
        let text = written(1_000);
        assert!((9..=11).contains(&text.lines().count()), "{}", text.lines().count());
        assert!(text.len() < 256 << 10, "{} bytes", text.len());
        tokio::time::advance(Duration::from_secs(1)).await;
        let text = written(1_000);
        assert!(text.len() < 128 << 10, "{} bytes", text.len());
    }

    #[test]
    fn a_record_carries_the_guests_text_in_fields_only() {
        let log = log("dict");
        let text = logged(|| {
            log.write(Level::Debug, "unheard", &[], &Secrets::default());
            let fields = [("word".to_owned(), "a\"b".to_owned())];
            log.write(Level::Warn, "line\nERROR forged", &fields, &Secrets::default());
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.trim_start().starts_with("WARN"), "{text}");
        assert!(text.contains("From the plugin.") && text.contains("plugin=\"dict\""), "{text}");
        assert!(!text.contains("unheard"), "{text}");
    }

    #[test]
    fn a_secret_in_a_record_is_replaced_by_its_name() {
        let log = log("p");
        let secrets = Secrets::of(&[("token", "s3cr3t-Token")]);
        // One that the cut would go through is one all the same.
        let overlong = format!("{}s3cr3t-Token", "x".repeat(MESSAGE_MAX - 6));
        let text = logged(|| {
            let fields = [("s3cr3t-Token".to_owned(), "is s3cr3t-TOKEN.".to_owned())];
            log.write(Level::Warn, "Bearer s3cr3t-Token", &fields, &secrets);
            log.write(Level::Warn, &overlong, &[], &secrets);
        });
        assert!(!text.to_lowercase().contains("s3cr3t"), "{text}");
        assert_eq!(text.matches("[secret token]").count(), 3, "{text}");
    }

    #[test]
    fn fields_cannot_forge_records() {
        let fields = [("a\n".to_owned(), "1\" level=\"error".to_owned())];
        assert_eq!(join(&fields, &Secrets::default()), r#"a\n="1\" level=\"error""#);
        let many: Vec<_> = (0..100).map(|i| (format!("f{i}"), String::new())).collect();
        assert_eq!(join(&many, &Secrets::default()).matches('=').count(), FIELDS_MAX);
    }
}
