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
