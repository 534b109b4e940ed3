//! Gathers misses that come close together into one trip to the origin.
//!
//! The first miss opens a batch and waits for the window; those that come within it
//! join. The batch sets off when the window has passed or when it is full. A batch of
//! one is an ordinary load.
//!
//! Invariants:
//! - a load waits for others no longer than the window of the first of them;
//! - a trip runs in its own task: no load that is given up takes the others along.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, sync::oneshot, time::sleep};

use super::{Fill, FillError, Getter, Outcome};

type Loaded = Result<Outcome, FillError>;

/// Loads keys, several in one trip where their getter can.
#[derive(Clone)]
pub(super) struct Batcher {
    getter: Arc<dyn Getter>,
    fills: Handle,
    gathering: Arc<Mutex<Gathering>>,
}

/// The batch that can be joined.
#[derive(Default)]
struct Gathering {
    /// Counts the batches that have set off, so that a window that ends late does
    /// not send off the next batch early.
    number: u64,
    passengers: Vec<Passenger>,
}

struct Passenger {
    fill: Fill,
    arrival: oneshot::Sender<Arrival>,
}

/// What a passenger gets out of its trip.
struct Arrival {
    loaded: Loaded,
    /// Whether the trip brought an answer for anybody.
    is_worthwhile: bool,
}

impl Batcher {
    /// Loads through `getter`.
    pub(super) fn new(getter: Arc<dyn Getter>, fills: Handle) -> Self {
        Self { getter, fills, gathering: Arc::default() }
    }

    /// Loads one key; perhaps together with others, up to `keys_max` of them, that come
    /// within `window`, if the getter takes several at once.
    pub(super) async fn load(&self, fill: Fill, window: Duration, keys_max: usize) -> Loaded {
        let keys_max = if window.is_zero() { 1 } else { keys_max.min(self.getter.batch_max()) };
        if keys_max <= 1 || self.getter.loads_alone(&fill) {
            return self.getter.load(fill).await;
        }
        let (arrival, arrived) = oneshot::channel();
        self.board(Passenger { fill: fill.clone(), arrival }, window, keys_max);
        match arrived.await {
            // In the fill's own time: the others of the trip have their answers.
            Ok(Arrival { loaded: Err(error @ FillError::Unavailable { .. }), is_worthwhile })
                if is_worthwhile =>
            {
                self.getter.retry(fill, error).await
            }
            Ok(Arrival { loaded, .. }) => loaded,
            Err(_lost) => {
                let text = "the getter panicked or left out a key of its batch";
                Err(FillError::Internal(text.into()))
            }
        }
    }

    /// See [`Getter::refusal`].
    pub(super) fn refusal(&self, group: &str, key: &[u8]) -> Option<FillError> {
        self.getter.refusal(group, key)
    }

    /// See [`Getter::code`].
    pub(super) fn code(&self) -> u64 {
        self.getter.code()
    }

    fn board(&self, passenger: Passenger, window: Duration, keys_max: usize) {
        let mut gathering = self.lock();
        gathering.passengers.push(passenger);
        let aboard = gathering.passengers.len();
        if aboard >= keys_max {
            self.set_off(&mut gathering);
        } else if aboard == 1 {
            let (batcher, number) = (self.clone(), gathering.number);
            self.fills.spawn(async move {
                sleep(window).await;
                let mut gathering = batcher.lock();
                if gathering.number == number {
                    batcher.set_off(&mut gathering);
                }
            });
        }
    }

    fn set_off(&self, gathering: &mut Gathering) {
        gathering.number += 1;
        let passengers = std::mem::take(&mut gathering.passengers);
        let getter = Arc::clone(&self.getter);
        self.fills.spawn(async move { travel(&*getter, passengers).await });
    }

    fn lock(&self) -> MutexGuard<'_, Gathering> {
        self.gathering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Loads what the passengers came for. A caller that has given up meanwhile is not
/// told, and that is all: its key is loaded with the rest.
async fn travel(getter: &dyn Getter, passengers: Vec<Passenger>) {
    let (mut fills, arrivals): (Vec<_>, Vec<_>) =
        passengers.into_iter().map(|Passenger { fill, arrival }| (fill, arrival)).unzip();
    let results = match fills.pop() {
        Some(only) if fills.is_empty() => vec![getter.load(only).await],
        Some(last) => {
            fills.push(last);
            getter.load_many(fills).await
        }
        None => Vec::new(),
    };
    let is_worthwhile = results.iter().any(Result::is_ok);
    for (arrival, loaded) in arrivals.into_iter().zip(results) {
        arrival.send(Arrival { loaded, is_worthwhile }).ok();
    }
}
