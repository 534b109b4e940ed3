//! Refused attempts: counted, told once each with the setting that would allow them, and
//! noted for the call that made them.
//!
//! A guest learns little more than that something was denied, and so would whoever asked
//! for the value. The notes of a call are put beside the guest's own words about its
//! failure, so that they name the one setting that is missing.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::warn;

use super::address::Refusal;
use crate::{
    config::Network,
    metrics::{DenialMetrics, PluginMetrics},
    plugin::{secrets::Secrets, text::tidy},
};

/// Different attempts that are told; a guest that tries addresses one after the other
/// must not fill the log.
const TOLD_MAX: usize = 64;

/// Bytes of a destination as a guest names it.
const DESTINATION_MAX: usize = 256;

/// What was refused to one instance in the call under way: the last of it.
#[derive(Clone, Default)]
pub(in crate::plugin) struct CallNotes(Arc<Mutex<Option<String>>>);

impl CallNotes {
    pub(in crate::plugin) fn add(&self, note: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(note);
    }

    /// Takes the notes, for the end of a call or before the beginning of one.
    pub(in crate::plugin) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What one plugin was refused.
pub(in crate::plugin) struct Denials {
    plugin: Arc<str>,
    secrets: Arc<Secrets>,
    metrics: DenialMetrics,
    requests_per_second: u32,
    connections_max: u32,
    told: Mutex<HashSet<String>>,
}

impl Denials {
    pub(super) fn new(
        plugin: Arc<str>,
        network: &Network,
        secrets: Arc<Secrets>,
        metrics: &PluginMetrics,
    ) -> Self {
        Self {
            plugin,
            secrets,
            metrics: metrics.denials.clone(),
            requests_per_second: network.requests_per_second,
            connections_max: network.connections_max,
            told: Mutex::default(),
        }
    }

    /// An HTTP request to an origin that is not granted.
    pub(super) fn http(&self, origin: &str) -> String {
        self.metrics.http.inc();
        let origin = self.plain(origin);
        let remedy = format!("{} http = [\"{origin}\"]", self.section());
        self.tell(&origin, "is not granted", &remedy)
    }

    /// A TCP connection or a lookup that is not granted.
    pub(super) fn tcp(&self, destination: &str) -> String {
        self.metrics.tcp.inc();
        let destination = self.plain(destination);
        let remedy = format!("{} tcp = [\"{destination}\"]", self.section());
        self.tell(&destination, "is not granted", &remedy)
    }

    /// A destination that is granted but has a special address.
    pub(super) fn address(&self, destination: &str, refusal: &Refusal) -> String {
        self.metrics.address.inc();
        let destination = self.plain(destination);
        let what = format!("is not dialled: the address is {}", refusal.reason);
        match refusal.range {
            Some(range) => {
                let remedy = format!("{} allow_private = [\"{range}\"]", self.section());
                self.tell(&destination, &what, &remedy)
            }
            None => self.tell(&destination, &what, "nothing"),
        }
    }

    /// A name that no grant opens.
    pub(super) fn never(&self, name: &str) -> String {
        self.metrics.metadata.inc();
        self.tell(&self.plain(name), "is a metadata service", "nothing")
    }

    /// A group that the plugin may not read.
    pub(in crate::plugin) fn cache(&self, group: &str) -> String {
        self.metrics.cache.inc();
        let group = self.plain(group);
        let remedy = format!("[plugins.{}.cache] read = [\"{group}\"]", self.plugin);
        self.tell(&format!("group {group}"), "is not granted", &remedy)
    }

    /// A request that would have had to wait for its turn longer than its call lasts.
    pub(super) fn too_fast(&self) -> String {
        self.metrics.rate.inc();
        let what = format!("goes {} times a second at most", self.requests_per_second);
        let remedy = format!("a larger {} requests_per_second", self.section());
        self.tell("the network", &what, &remedy)
    }

    /// A connection that found all places taken.
    pub(super) fn too_many(&self) -> String {
        self.metrics.connections.inc();
        let what = format!("has {} connections of this plugin at most", self.connections_max);
        let remedy = format!("a larger {} connections_max", self.section());
        self.tell("the network", &what, &remedy)
    }

    /// An origin whose certificate is not trusted, or that does not speak TLS. Nothing is
    /// denied: the way is not safe.
    pub(super) fn tls(&self, origin: &str, error: &rustls::Error) -> String {
        use rustls::{CertificateError, Error};

        let remedy = match error {
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                format!(
                    "{} ca_files = [\"ca.pem\"], if its issuer is to be trusted",
                    self.section()
                )
            }
            Error::InvalidCertificate(_) => "another certificate of the origin".to_owned(),
            _ => "an origin that speaks TLS 1.2 or 1.3".to_owned(),
        };
        let what = format!("is not spoken to: {}", tidy(&error.to_string(), DESTINATION_MAX));
        self.tell(&self.plain(origin), &what, &remedy)
    }

    /// A destination as it may stand in a log and in a setting.
    fn plain(&self, destination: &str) -> String {
        tidy(&self.secrets.redact(destination), DESTINATION_MAX).replace('"', "")
    }

    fn section(&self) -> String {
        format!("[plugins.{}.network]", self.plugin)
    }

    /// Tells it to the operator, unless that was done, and gives it as a sentence.
    fn tell(&self, destination: &str, what: &str, remedy: &str) -> String {
        let text = format!("{destination} {what}; what would allow it: {remedy}");
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < TOLD_MAX && told.insert(text.clone()) {
            drop(told);
            warn!(
                plugin = &*self.plugin,
                destination,
                what,
                // As it is, to be copied.
                allow_it_with = %remedy,
                "The plugin was denied what its settings do not allow."
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{metrics::Metrics, plugin::text::logged};

    fn denials(metrics: &Metrics) -> Denials {
        let network = Network::default();
        Denials::new("dict".into(), &network, Arc::default(), &metrics.plugin("dict"))
    }

    #[test]
    fn a_denial_is_told_once_with_the_line_that_grants_it() {
        let metrics = Metrics::new();
        let denials = denials(&metrics);
        let refusal = Refusal { reason: "loopback", range: Some("127.0.0.0/8") };
        let text = logged(|| {
            for _ in 0..3 {
                denials.tcp("dict.org:2628");
                denials.http("https://api.example.com");
                denials.address("localhost at 127.0.0.1", &refusal);
                denials.cache("words");
                denials.never("metadata.google.internal");
                denials.too_fast();
                denials.too_many();
            }
        });
        assert_eq!(text.lines().count(), 7, "{text}");
        for remedy in [
            r#"[plugins.dict.network] tcp = ["dict.org:2628"]"#,
            r#"[plugins.dict.network] http = ["https://api.example.com"]"#,
            r#"[plugins.dict.network] allow_private = ["127.0.0.0/8"]"#,
            r#"[plugins.dict.cache] read = ["words"]"#,
            "is a metadata service",
            "requests_per_second",
            "connections_max",
        ] {
            assert!(text.contains(remedy), "{remedy} is not in {text}");
        }
        let counted = metrics.encode();
        for kind in ["http", "tcp", "address", "metadata", "cache", "rate", "connections"] {
            let line =
                format!(r#"cachecluster_plugin_denials_total{{plugin="dict",kind="{kind}"}} 3"#);
            assert!(counted.contains(&line), "{line} is not in {counted}");
        }
    }

    #[test]
    fn a_guest_that_tries_every_address_does_not_fill_the_log() {
        let metrics = Metrics::new();
        let denials = denials(&metrics);
        let try_all = || (0..1_000).for_each(|port| drop(denials.tcp(&format!("1.2.3.4:{port}"))));
        assert_eq!(logged(try_all).lines().count(), TOLD_MAX);
    }
}
