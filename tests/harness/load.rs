//! Clients of several nodes, at a rate that does not depend on how they are answered.
//!
//! Requests begin at even distances whatever becomes of those before (an open loop), on
//! connections that are kept, and each body is compared with what it has to be. A client
//! behaves as one behind a balancer does: a node that refuses to be connected to, or that
//! the balancer has taken out, costs it nothing but the next node; a kept connection that
//! has ended meanwhile costs it another one.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{
    client::{Connection, Response},
    until,
};

/// How long a client waits for an answer: longer than it should, since the machine may be
/// busy with other things.
const BUDGET: Duration = Duration::from_secs(20);

/// How long it should wait at the most.
const SLOW: Duration = Duration::from_secs(1);

/// What the order of keys begins from.
const SEED: u64 = 4;

/// Connections that are kept to each node.
const KEPT_MAX: usize = 64;

/// What is asked for, how often, and what the answers have to be.
pub(crate) struct Demand {
    /// Requests a second.
    pub(crate) rate: u32,
    /// How many keys there are: `0` is asked for the most, as Zipf's law has it with an
    /// exponent of 1.1.
    pub(crate) keys: usize,
    /// The share of all requests that is for key `0` beside that.
    pub(crate) hot: f64,
    /// The path of a key.
    pub(crate) path: fn(usize) -> String,
    /// The value of what is at a path.
    pub(crate) value: fn(&str) -> Vec<u8>,
}

/// A node as clients see it.
struct Target {
    address: SocketAddr,
    /// Whether the balancer sends requests there.
    is_on: AtomicBool,
    kept: Mutex<Vec<Connection>>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Good,
    /// It was answered 200 with what is not the value.
    Wrong,
    Status(u16),
    /// The connection ended in the middle of it.
    Broken,
    /// There was no answer within the budget.
    Late,
    /// Nobody could be connected to.
    Nobody,
}

/// One request: when it began, counted from the beginning of its window, which node was
/// asked last, how long it took and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) began: Duration,
    pub(crate) node: usize,
    pub(crate) took: Duration,
    pub(crate) end: End,
}

/// Requests of some time.
pub(crate) struct Window {
    pub(crate) done: Vec<Done>,
    /// Connections that were refused, and kept ones that had ended.
    pub(crate) refused: usize,
    pub(crate) stale: usize,
    pub(crate) lasted: Duration,
}

impl Window {
    /// Requests that were not answered with their value.
    pub(crate) fn errors(&self) -> Vec<&Done> {
        self.done.iter().filter(|done| done.end != End::Good).collect()
    }

    /// Those of [`Self::errors`] that were put to other nodes than `node`.
    pub(crate) fn errors_but(&self, node: usize) -> Vec<&Done> {
        self.errors().into_iter().filter(|done| done.node != node).collect()
    }

    /// The share of all requests that took longer than a second.
    pub(crate) fn slow(&self) -> f64 {
        let slow = self.done.iter().filter(|done| done.took > SLOW).count();
        slow as f64 / self.done.len().max(1) as f64
    }

    /// Answers that were not the value.
    pub(crate) fn wrong(&self) -> usize {
        self.done.iter().filter(|done| done.end == End::Wrong).count()
    }

    /// The time within which `share` of all requests were answered.
    pub(crate) fn within(&self, share: f64) -> Duration {
        let mut took: Vec<_> = self.done.iter().map(|done| done.took).collect();
        took.sort_unstable();
        let at = (took.len() as f64 * share) as usize;
        took.get(at.min(took.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// What is counted while a window is open.
struct Tally {
    opened: Instant,
    done: Mutex<Vec<Done>>,
    under_way: AtomicUsize,
    refused: AtomicUsize,
    stale: AtomicUsize,
}

impl Tally {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            done: Mutex::default(),
            under_way: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            stale: AtomicUsize::new(0),
        })
    }
}

struct Clients {
    targets: Vec<Target>,
    demand: Demand,
    /// For each key, the share of requests that is for it or for one before it.
    shares: Vec<f64>,
    tally: Mutex<Arc<Tally>>,
    turn: AtomicUsize,
    /// What decides about keys.
    random: Mutex<fastrand::Rng>,
}

/// Clients that go on asking until dropped.
pub(crate) struct Load {
    clients: Arc<Clients>,
    asking: JoinHandle<()>,
}

impl Load {
    /// Begins to ask the nodes at `addresses`.
    pub(crate) fn start(addresses: &[SocketAddr], demand: Demand) -> Self {
        let target =
            |&address| Target { address, is_on: AtomicBool::new(true), kept: Mutex::default() };
        let weights = (1..=demand.keys).map(|rank| (rank as f64).powf(-1.1));
        let whole: f64 = weights.clone().sum();
        let mut so_far = 0.0;
        let shares = weights.map(|weight| {
            so_far += weight / whole;
            so_far
        });
        let shares = shares.collect();
        let clients = Arc::new(Clients {
            targets: addresses.iter().map(target).collect(),
            demand,
            shares,
            tally: Mutex::new(Tally::new()),
            turn: AtomicUsize::new(0),
            random: Mutex::new(fastrand::Rng::with_seed(SEED)),
        });
        let asking = tokio::spawn(Arc::clone(&clients).go_on());
        Self { clients, asking }
    }

    /// Whether the balancer is to send requests to `node`.
    pub(crate) fn switch(&self, node: usize, is_on: bool) {
        self.clients.targets[node].is_on.store(is_on, SeqCst);
    }

    /// What became of the requests that began since the last window; waits for those that
    /// are under way, while the next window is open already.
    pub(crate) async fn window(&self) -> Window {
        let tally = {
            let mut open = self.clients.tally.lock().expect("the tally");
            std::mem::replace(&mut *open, Tally::new())
        };
        let lasted = tally.opened.elapsed();
        until("all are answered", || async { tally.under_way.load(SeqCst) == 0 }).await;
        Window {
            done: std::mem::take(&mut *tally.done.lock().expect("the tally")),
            refused: tally.refused.load(SeqCst),
            stale: tally.stale.load(SeqCst),
            lasted,
        }
    }

    /// From now on the same keys are asked for, in the same order, as from the beginning.
    pub(crate) fn rewind(&self) {
        *self.clients.random.lock().expect("randomness") = fastrand::Rng::with_seed(SEED);
    }

    /// How many requests have been answered in the window that is open.
    pub(crate) fn so_far(&self) -> usize {
        let tally = self.clients.tally.lock().expect("the tally");
        tally.done.lock().expect("the tally").len()
    }

    /// Waits until `count` requests have been answered in the window that is open.
    pub(crate) async fn answered(&self, count: usize) {
        let tally = Arc::clone(&self.clients.tally.lock().expect("the tally"));
        until("so many are answered", || async {
            tally.done.lock().expect("the tally").len() >= count
        })
        .await;
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.asking.abort();
    }
}

impl Clients {
    async fn go_on(self: Arc<Self>) {
        let mut beats = interval(Duration::from_secs(1) / self.demand.rate);
        beats.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            beats.tick().await;
            let tally = {
                // Counted under the lock, so that a window that is closed knows of it.
                let open = self.tally.lock().expect("the tally");
                open.under_way.fetch_add(1, SeqCst);
                Arc::clone(&open)
            };
            tokio::spawn(Arc::clone(&self).one(self.key(), tally));
        }
    }

    async fn one(self: Arc<Self>, key: usize, tally: Arc<Tally>) {
        let path = (self.demand.path)(key);
        let (start, began) = (Instant::now(), tally.opened.elapsed());
        let first = self.turn.fetch_add(1, SeqCst);
        let asked = timeout(BUDGET, self.ask_around(&path, first, &tally)).await;
        let (node, end) = asked.unwrap_or((first % self.targets.len(), End::Late));
        let done = Done { began, node, took: start.elapsed(), end };
        tally.done.lock().expect("the tally").push(done);
        tally.under_way.fetch_sub(1, SeqCst);
    }

    /// A key, by chance.
    fn key(&self) -> usize {
        let mut random = self.random.lock().expect("randomness");
        let (is_hot, at) = (random.f64() < self.demand.hot, random.f64());
        if is_hot {
            return 0;
        }
        self.shares.partition_point(|share| *share < at).min(self.shares.len() - 1)
    }

    /// Asks the node whose turn it is, and the next ones if it cannot be connected to.
    async fn ask_around(&self, path: &str, first: usize, tally: &Tally) -> (usize, End) {
        let count = self.targets.len();
        for node in (first..first + count).map(|node| node % count) {
            let target = &self.targets[node];
            if !target.is_on.load(SeqCst) {
                continue;
            }
            if let Some(end) = self.ask(target, path, tally).await {
                return (node, end);
            }
            tally.refused.fetch_add(1, SeqCst);
        }
        (first % count, End::Nobody)
    }

    /// What `target` answers, or nothing if it takes no connection.
    async fn ask(&self, target: &Target, path: &str, tally: &Tally) -> Option<End> {
        let kept = target.kept.lock().expect("connections").pop();
        if let Some(mut connection) = kept {
            match connection.try_get(path).await {
                Ok(response) => return Some(self.judge(target, connection, path, &response)),
                // It had ended while nobody looked, or has now.
                Err(_) => tally.stale.fetch_add(1, SeqCst),
            };
        }
        let mut connection = match Connection::try_open(target.address).await {
            Ok(connection) => connection,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return None,
            Err(_) => return Some(End::Broken),
        };
        Some(match connection.try_get(path).await {
            Ok(response) => self.judge(target, connection, path, &response),
            Err(_) => End::Broken,
        })
    }

    fn judge(
        &self,
        target: &Target,
        connection: Connection,
        path: &str,
        response: &Response,
    ) -> End {
        let mut kept = target.kept.lock().expect("connections");
        if response.header("connection") != "close" && kept.len() < KEPT_MAX {
            kept.push(connection);
        }
        drop(kept);
        match response.status {
            200 if response.body == (self.demand.value)(path) => End::Good,
            200 => End::Wrong,
            status => End::Status(status),
        }
    }
}
