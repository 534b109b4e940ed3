//! Refused attempts, told once each with the setting that would allow them.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::warn;

use super::address::Refusal;
use crate::plugin::text::tidy;

/// Different attempts that are told; a guest that tries addresses one after the other
/// must not fill the log.
const TOLD_MAX: usize = 64;

/// Bytes of a destination as a guest names it.
const DESTINATION_MAX: usize = 256;

/// What one plugin was refused.
#[derive(Debug)]
pub(in crate::plugin) struct Denials {
    plugin: Arc<str>,
    told: Mutex<HashSet<String>>,
}

impl Denials {
    pub(super) fn new(plugin: Arc<str>) -> Self {
        Self { plugin, told: Mutex::default() }
    }

    /// An HTTP request to an origin that is not granted.
    pub(super) fn http(&self, origin: &str) {
        self.tell(origin, &format!("{} http = [\"{origin}\"]", self.section()));
    }

    /// A TCP connection or a lookup that is not granted.
    pub(super) fn tcp(&self, destination: &str) {
        self.tell(destination, &format!("{} tcp = [\"{destination}\"]", self.section()));
    }

    /// A destination that is granted but has a special address.
    pub(super) fn address(&self, destination: &str, refusal: &Refusal) {
        let remedy = match refusal.range {
            Some(range) => format!("{} allow_private = [\"{range}\"]", self.section()),
            None => format!("nothing: the address is {}", refusal.reason),
        };
        self.tell(destination, &remedy);
    }

    /// A name that no grant opens.
    pub(super) fn never(&self, name: &str) {
        self.tell(name, "nothing: it is a metadata service");
    }

    /// A group that the plugin may not read.
    pub(in crate::plugin) fn cache(&self, group: &str) {
        let remedy = format!("[plugins.{}.cache] read = [\"{group}\"]", self.plugin);
        self.tell(&format!("group {group}"), &remedy);
    }

    fn section(&self) -> String {
        format!("[plugins.{}.network]", self.plugin)
    }

    fn tell(&self, destination: &str, remedy: &str) {
        let destination = tidy(destination, DESTINATION_MAX);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < TOLD_MAX && told.insert(destination.clone()) {
            drop(told);
            warn!(
                plugin = &*self.plugin,
                destination,
                grant_it_with = tidy(remedy, 2 * DESTINATION_MAX),
                "The plugin was denied what its grants do not name."
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::text::logged;

    #[test]
    fn a_denial_is_told_once_with_the_line_that_grants_it() {
        let denials = Denials::new("dict".into());
        let refusal = Refusal { reason: "loopback", range: Some("127.0.0.0/8") };
        let text = logged(|| {
            for _ in 0..3 {
                denials.tcp("dict.org:2628");
                denials.http("https://api.example.com");
                denials.address("localhost at 127.0.0.1", &refusal);
                denials.cache("words");
                denials.never("metadata.google.internal");
            }
        });
        assert_eq!(text.lines().count(), 5, "{text}");
        let plain = text.replace('\\', "");
        for remedy in [
            r#"[plugins.dict.network] tcp = ["dict.org:2628"]"#,
            r#"[plugins.dict.network] http = ["https://api.example.com"]"#,
            r#"[plugins.dict.network] allow_private = ["127.0.0.0/8"]"#,
            r#"[plugins.dict.cache] read = ["words"]"#,
            "nothing: it is a metadata service",
        ] {
            assert!(plain.contains(remedy), "{remedy} is not in {text}");
        }
    }

    #[test]
    fn a_guest_that_tries_every_address_does_not_fill_the_log() {
        let denials = Denials::new("p".into());
        let text = logged(|| (0..1_000).for_each(|port| denials.tcp(&format!("1.2.3.4:{port}"))));
        assert_eq!(text.lines().count(), TOLD_MAX);
    }
}
