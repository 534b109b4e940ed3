//! Whether this node wants traffic: a set of named latches.
//!
//! Whatever has to be up before a node serves (its plugins, its listeners) holds a
//! latch and releases it once it is. The node is ready while every latch is released
//! and it is not draining.

use std::sync::{Arc, Mutex, PoisonError};

/// The latches of one node. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    latches: Vec<(String, Closed)>,
    is_draining: bool,
}

/// Why a latch is still closed; `None` once it is released.
type Closed = Option<String>;

/// One thing that has to be up first. Dropped without a release, it stays closed.
#[derive(Debug)]
#[must_use = "a latch that is never released keeps the node from being ready"]
pub struct Latch {
    state: Arc<Mutex<State>>,
    index: usize,
}

impl Readiness {
    /// No latches yet: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a closed latch of this name.
    pub fn latch(&self, name: &str) -> Latch {
        let mut state = lock(&self.0);
        state.latches.push((name.to_owned(), Some("not yet up".to_owned())));
        Latch { state: Arc::clone(&self.0), index: state.latches.len() - 1 }
    }

    /// From now on the node is not ready, for good: it finishes what it has begun.
    pub fn draining(&self) {
        lock(&self.0).is_draining = true;
    }

    /// Whether the node is ready.
    pub fn is_ready(&self) -> bool {
        self.reason().is_none()
    }

    /// Why the node is not ready: the first reason, if there is one.
    pub fn reason(&self) -> Option<String> {
        let state = lock(&self.0);
        if state.is_draining {
            return Some("draining".to_owned());
        }
        let closed =
            |(name, why): &(String, Closed)| why.as_ref().map(|why| format!("{name}: {why}"));
        state.latches.iter().find_map(closed)
    }

    /// Every latch on its own line: `[+]name ok`, or `[-]name` and the reason.
    pub fn verbose(&self) -> String {
        let state = lock(&self.0);
        let mut text = String::new();
        let drain = state.is_draining.then(|| "the node is stopping".to_owned());
        let latches = state.latches.iter().map(|(name, why)| (name.as_str(), why));
        for (name, why) in latches.chain([("draining", &drain)]) {
            match why {
                None => text.push_str(&format_line('+', name, "ok")),
                Some(why) => text.push_str(&format_line('-', name, why)),
            }
        }
        text
    }
}

impl Latch {
    /// What this latch stands for is up.
    pub fn release(&self) {
        self.set(None);
    }

    /// What this latch stands for is not up, for this reason.
    pub fn close(&self, why: &str) {
        self.set(Some(why.to_owned()));
    }

    fn set(&self, why: Closed) {
        if let Some(latch) = lock(&self.state).latches.get_mut(self.index) {
            latch.1 = why;
        }
    }
}

fn format_line(sign: char, name: &str, state: &str) -> String {
    format!("[{sign}]{name} {state}\n")
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    // Nothing in here leaves the state half changed.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_once_every_latch_is_released() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let (plugins, listeners) = (readiness.latch("plugins"), readiness.latch("listeners"));
        listeners.release();
        assert_eq!(readiness.reason().as_deref(), Some("plugins: not yet up"));
        plugins.close("dict does not compile");
        assert_eq!(
            readiness.verbose(),
            "[-]plugins dict does not compile\n[+]listeners ok\n[+]draining ok\n"
        );
        plugins.release();
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_draining_node_is_not_ready_again() {
        let readiness = Readiness::new();
        let latch = readiness.latch("plugins");
        latch.release();
        readiness.clone().draining();
        assert_eq!(readiness.reason().as_deref(), Some("draining"));
        assert!(readiness.verbose().ends_with("[-]draining the node is stopping\n"));
    }
}
