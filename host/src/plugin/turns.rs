//! Turns of guests that go on computing.
//!
//! A call that has computed for more than two ticks takes turns with all others of its
//! kind: all threads for guests but one are theirs, and those whose turn it is not wait
//! outside the threads' queues. So a call that wakes up because its origin has answered
//! finds a thread, however many guests spin, and a core is left for those who are served
//! from memory. A getter waits more than it computes: the price is paid by few.
//!
//! Where a plugin's calls have just computed for so long, its next ones begin with a turn:
//! a hundred of them that begin at once would take the threads for a few ticks each.
//!
//! A turn lasts for one poll of its call: to the end of a tick, or to whatever the call
//! waits for.
//!
//! Invariant: no turn is held by a call that waits for anything but a thread.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::yield_now,
    time::Instant,
};

/// For how long a plugin counts as one that computes: until most of those that do have had
/// another turn.
const COMPUTING: Duration = Duration::from_millis(200);

/// The turns of a node: one for each thread that runs guests, but for one thread.
#[derive(Clone)]
pub(super) struct Turns(Arc<Semaphore>);

impl Turns {
    /// Those of the threads of `fills`.
    pub(super) fn of(fills: &Handle) -> Self {
        let threads = fills.metrics().num_workers();
        Self(Arc::new(Semaphore::new(threads.saturating_sub(1).max(1))))
    }

    /// What the instances of one plugin share of them.
    pub(super) fn of_plugin(&self) -> PluginTurns {
        let began = Instant::now();
        PluginTurns { turns: Arc::clone(&self.0), began, computed: Arc::default() }
    }
}

/// The turns as the instances of one plugin take them.
#[derive(Clone)]
pub(super) struct PluginTurns {
    turns: Arc<Semaphore>,
    began: Instant,
    /// When one of its calls last went on computing, in milliseconds since then; 0 when
    /// none ever did. Every call looks at it.
    computed: Arc<AtomicU64>,
}

impl PluginTurns {
    fn has_just_computed(&self) -> bool {
        let computed = Duration::from_millis(self.computed.load(Relaxed));
        !computed.is_zero() && self.began.elapsed().saturating_sub(computed) < COMPUTING
    }

    fn computes(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.computed.store(millis.max(1), Relaxed);
    }

    /// The turn of one instance.
    pub(super) fn of_instance(&self) -> Turn {
        Turn { plugin: self.clone(), held: Arc::default(), waits: Arc::default() }
    }
}

/// The turn of one instance, if it has one. Clones are of the same instance.
#[derive(Clone)]
pub(super) struct Turn {
    plugin: PluginTurns,
    held: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
    waits: Arc<AtomicBool>,
}

impl Turn {
    /// Waits for a turn to begin a call with, if the plugin has to.
    pub(super) async fn first(&self) {
        if self.plugin.has_just_computed() {
            self.take().await;
        }
    }

    /// For a call that goes on computing: ends its turn, if it is one, and
    /// waits for the next.
    pub(super) async fn next(self) {
        self.plugin.computes();
        self.take().await;
    }

    async fn take(&self) {
        self.end();
        self.waits.store(true, Relaxed);
        let permit = Arc::clone(&self.plugin.turns).acquire_owned().await;
        // Whoever is ready goes first, where there is but one thread. A task that yields is
        // the last to be woken, and for that the first to run: hence twice.
        yield_now().await;
        yield_now().await;
        // Not before: until here it waits for a thread.
        self.waits.store(false, Relaxed);
        *lock(&self.held) = permit.ok();
    }

    /// Ends this turn, if it is one.
    pub(super) fn end(&self) {
        drop(lock(&self.held).take());
    }

    /// Forgets the call before.
    pub(super) fn reset(&self) {
        self.end();
        self.waits.store(false, Relaxed);
    }

    /// Whether the call waits for its turn, or waited for it to the end.
    pub(super) fn is_awaited(&self) -> bool {
        self.waits.load(Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_go_round_and_are_given_up_at_the_end_of_a_poll() {
        let turns = Turns(Arc::new(Semaphore::new(1)));
        let plugin = turns.of_plugin();
        let (one, other) = (plugin.of_instance(), plugin.of_instance());
        one.clone().next().await;
        assert!(!one.is_awaited());
        let waiting = tokio::spawn(other.clone().next());
        yield_now().await;
        assert!(other.is_awaited() && !waiting.is_finished());
        // Its next one comes after the other's.
        let again = tokio::spawn(one.clone().next());
        waiting.await.expect("a turn");
        assert!(one.is_awaited() && !again.is_finished());
        other.end();
        again.await.expect("a turn");
        // Who gives up waiting leaves no turn behind, and is known to have waited.
        let waiting = tokio::spawn(other.clone().next());
        yield_now().await;
        waiting.abort();
        assert!(waiting.await.is_err() && other.is_awaited());
        other.reset();
        one.end();
        assert!(!other.is_awaited());
        assert_eq!(turns.0.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_begins_with_a_turn_after_one_of_its_plugin_that_computed() {
        let turns = Turns(Arc::new(Semaphore::new(1)));
        let (plugin, other) = (turns.of_plugin(), turns.of_plugin());
        plugin.of_instance().first().await;
        let spinning = plugin.of_instance();
        spinning.clone().next().await;
        // No turn is left.
        other.of_instance().first().await;
        let beginning = plugin.of_instance();
        let waiting = tokio::spawn(async move { beginning.first().await });
        yield_now().await;
        assert!(!waiting.is_finished());
        spinning.end();
        waiting.await.expect("a turn");
        // It held its turn to its end.
        assert_eq!(turns.0.available_permits(), 1);
        let _taken = turns.0.acquire().await.expect("a turn");
        tokio::time::advance(2 * COMPUTING).await;
        plugin.of_instance().first().await;
    }
}
