//! What a question brings along.

use std::sync::{Mutex, OnceLock, atomic::AtomicBool};

use bytes::Bytes;
use tokio::time::Instant;

use super::*;

/// Purges that a node knows of: whoever is asked for a key hears of the key's purge.
#[derive(Default)]
pub(super) struct Notebook {
    purges: Mutex<Vec<(Vec<u8>, Instant)>>,
    pub(super) groups: OnceLock<Arc<Groups>>,
    pub(super) is_overfull: AtomicBool,
}

impl Notebook {
    /// Purges a key here, and nowhere else.
    pub(super) fn purge(&self, key: &[u8]) {
        let mut purges = self.purges.lock().expect("the purges");
        if !purges.iter().any(|(purged, _)| purged == key) {
            purges.push((key.to_vec(), Instant::now()));
        }
        drop(purges);
        let groups = self.groups.get().expect("the groups");
        groups.get("g").expect("the group").purge(key);
    }
}

impl Tidings for Notebook {
    fn for_question(&self, _group: &str, key: &[u8]) -> Option<Bytes> {
        if self.is_overfull.load(SeqCst) {
            return None;
        }
        let purges = self.purges.lock().expect("the purges");
        let is_purged = purges.iter().any(|(purged, _)| purged == key);
        Some(if is_purged { Bytes::copy_from_slice(key) } else { Bytes::new() })
    }

    fn heard(&self, news: &[u8]) {
        // Each is heard of once.
        let is_known = self.purges.lock().expect("the purges").iter().any(|(key, _)| key == news);
        if !is_known {
            self.purge(news);
        }
    }

    fn is_outdated(&self, _group: &str, key: &[u8], age: Duration) -> bool {
        let purges = self.purges.lock().expect("the purges");
        purges.iter().any(|(purged, when)| purged == key && when.elapsed() <= age)
    }
}

/// Nodes that tell one another of purges, with their notebooks.
pub(super) fn telling(count: usize) -> (Vec<Node>, Vec<Arc<Notebook>>) {
    let books: Vec<_> = (0..count).map(|_| Arc::new(Notebook::default())).collect();
    let nodes: Vec<_> = books
        .iter()
        .map(|book| {
            let node = start(&Wish { tidings: Some(Arc::clone(book) as _), ..Wish::default() });
            book.groups.set(Arc::clone(&node.groups)).expect("the first groups");
            node
        })
        .collect();
    (nodes, books)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_answers_hears_of_a_purge_before_it_looks_for_the_answer() {
    let (nodes, books) = telling(2);
    introduce(&nodes.iter().collect::<Vec<_>>());
    for key in nodes[1].own_keys("numbered", 20) {
        let old = nodes[0].get(&key).await;
        assert_eq!(nodes[1].get(&key).await, old, "the owner holds it");
        books[0].purge(&key);
        let new = nodes[0].get(&key).await;
        assert_ne!(new, old, "the owner has not answered from before the purge");
        assert_eq!(nodes[1].get(&key).await, new);
        assert_eq!(nodes[0].get(&key).await, new, "a purge is heard once");
    }
    assert_eq!((nodes[0].fills.load(SeqCst), nodes[1].fills.load(SeqCst)), (0, 40));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_not_kept_if_there_was_too_much_to_say_first() {
    let (nodes, books) = telling(2);
    introduce(&nodes.iter().collect::<Vec<_>>());
    let key = key_of_the_other(&nodes, "numbered");
    books[0].is_overfull.store(true, SeqCst);
    for _ in 0..6 {
        let hit = nodes[0].group.get(&key, &patience()).await.expect("a value");
        assert_eq!(hit.provenance.served, Served::Peer { stored: false });
    }
    books[0].is_overfull.store(false, SeqCst);
    let hit = nodes[0].group.get(&key, &patience()).await.expect("a value");
    assert_eq!(hit.provenance.served, Served::Peer { stored: true }, "it is hot by now");
}
