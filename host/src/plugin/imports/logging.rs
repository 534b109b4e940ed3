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
/// How often the number of dropped records is told.
const DROPPED_NOTICE: Duration = Duration::from_secs(10);

/// Where a plugin's records go. Shared by all its instances.
pub(crate) struct GuestLog {
    plugin: Arc<str>,
    bucket: Mutex<Bucket>,
    /// Records dropped since the last notice.
    dropped: AtomicU64,
    dropped_total: Counter,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
    noticed: Option<Instant>,
}

impl GuestLog {
    /// The log of `plugin`, whose dropped records count in `dropped_total`.
    pub(crate) fn new(plugin: Arc<str>, dropped_total: Counter) -> Self {
        let bucket = Bucket { tokens: BURST, filled: Instant::now(), noticed: None };
        Self { plugin, bucket: Mutex::new(bucket), dropped: AtomicU64::new(0), dropped_total }
    }

    /// Writes one record without the `secrets` in it, or drops it when the plugin is over
    /// its rate.
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
        let fields = (!fields.is_empty()).then_some(fields.as_str());
        match level {
            Level::Trace => trace!(plugin, text, fields, "From the plugin."),
            Level::Debug => debug!(plugin, text, fields, "From the plugin."),
            Level::Info => info!(plugin, text, fields, "From the plugin."),
            Level::Warn => warn!(plugin, text, fields, "From the plugin."),
            Level::Error => error!(plugin, text, fields, "From the plugin."),
        }
    }

    /// Takes a token. Dropped records are told now and then, with the next record
    /// that is written.
    fn admit(&self) -> bool {
        let now = Instant::now();
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let refill = now.saturating_duration_since(bucket.filled).as_secs_f64() * RATE;
        bucket.tokens = (bucket.tokens + refill).min(BURST);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            drop(bucket);
            self.dropped.fetch_add(1, Relaxed);
            self.dropped_total.inc();
            return false;
        }
        bucket.tokens -= 1.0;
        let due = bucket.noticed.is_none_or(|noticed| now - noticed >= DROPPED_NOTICE);
        if due && self.dropped.load(Relaxed) > 0 {
            bucket.noticed = Some(now);
            drop(bucket);
            let dropped = self.dropped.swap(0, Relaxed);
            warn!(
                plugin = &*self.plugin,
                dropped, "The plugin logs too fast; records were dropped."
            );
        }
        true
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

    #[tokio::test(start_paused = true)]
    async fn a_plugin_that_floods_the_log_is_held_to_its_rate() {
        let dropped = Counter::default();
        let log = GuestLog::new("p".into(), dropped.clone());
        let admitted = (0..1_000).filter(|_| log.admit()).count();
        assert_eq!((admitted, dropped.get()), (200, 800));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((0..1_000).filter(|_| log.admit()).count(), 100);
    }

    #[test]
    fn a_record_carries_the_guests_text_in_fields_only() {
        let log = GuestLog::new("dict".into(), Counter::default());
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
        let log = GuestLog::new("p".into(), Counter::default());
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
