//! The groups of a node.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;

use super::{Group, waits::Waits};

/// The groups of a node by name, replaced as a whole when they change.
#[derive(Debug, Default)]
pub struct Groups {
    by_name: ArcSwap<BTreeMap<String, Arc<Group>>>,
    /// What their fills wait for among one another.
    waits: Arc<Waits>,
}

impl Groups {
    /// The group of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Group>> {
        self.by_name.load().get(name).cloned()
    }

    /// All groups in the order of their names.
    pub fn all(&self) -> Vec<Arc<Group>> {
        self.by_name.load().values().cloned().collect()
    }

    /// Puts `groups` in the place of all that were there.
    pub fn replace(&self, groups: impl IntoIterator<Item = Arc<Group>>) {
        let by_name = groups.into_iter().map(|group| {
            group.stand_with(&self.waits);
            (group.name().to_owned(), group)
        });
        self.by_name.store(Arc::new(by_name.collect()));
    }
}
