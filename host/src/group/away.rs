//! Keys that another node owns: they are asked for there, and kept here when they are hot.
//!
//! One question is under way for each key, however many callers there are, apart from the
//! fills of this node: a peer's request is filled here and must never wait for a question
//! that this node has put to a peer, or two nodes whose rings differ would wait for one
//! another.
//!
//! Invariants:
//! - a question that nobody can answer ends in a fill of this node's own;
//! - a purge that comes between a question and its answer keeps the answer out of memory.

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    time::{Instant, timeout_at},
};

use super::{Asked, Context, FillError, GetError, Group, Peers, Question};
use crate::{
    flight::{Flights, Joined, Ticket},
    metrics::PeerMetrics,
    sketch::Sketch,
    store::{Lifetime, Store},
    value::{Hit, Provenance, Served, Value},
};

/// The share of a group's memory that hot copies of other nodes' keys may take: an eighth,
/// as groupcache has it.
const HOT_SHARE: u64 = 8;

/// How often a key has to be asked for here before its copy is kept: more than once or
/// twice, which is what most keys ever are.
const HOT_FROM: u8 = 3;

/// What came of a question, for everyone who waited on it.
type Answer = Result<Hit, GetError>;

/// How a group gets at keys of other nodes.
pub(super) struct Away {
    peers: Arc<dyn Peers>,
    flights: Arc<Flights<Answer>>,
    /// Copies of keys that other nodes own.
    pub(super) hot: Store,
    popularity: Sketch,
    pub(super) metrics: PeerMetrics,
}

/// How the bytes of a group's memory are shared out: what it owns, and hot copies.
pub(super) fn shares(memory: u64) -> (u64, u64) {
    let hot = memory / HOT_SHARE;
    (memory - hot, hot)
}

impl Away {
    pub(super) fn new(
        peers: Arc<dyn Peers>,
        flights_max: usize,
        hot: Store,
        metrics: PeerMetrics,
    ) -> Self {
        Self {
            peers,
            flights: Flights::new(flights_max),
            hot,
            popularity: Sketch::default(),
            metrics,
        }
    }

    pub(super) fn peers(&self) -> &dyn Peers {
        &*self.peers
    }

    pub(super) fn set_max(&self, flights_max: usize) {
        self.flights.set_max(flights_max);
    }

    pub(super) fn flights(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn purge(&self, key: &[u8]) -> bool {
        self.flights.purge(key, || self.hot.remove(key))
    }

    pub(super) fn purge_all(&self) {
        self.flights.purge_all(|| self.hot.clear());
    }

    pub(super) fn purge_tag(&self, tag: &str) -> u64 {
        self.flights.purge_all(|| ());
        self.hot.remove_tagged(tag)
    }
}

impl Group {
    /// How to get at `key`, if another node owns it.
    pub(super) fn remote(&self, key: &[u8]) -> Option<&Arc<Away>> {
        self.away.get().filter(|away| away.peers.is_remote(&self.name, key))
    }

    /// Gets a key that another node owns and that is not in memory.
    pub(super) async fn get_away(
        self: &Arc<Self>,
        away: &Arc<Away>,
        key: &[u8],
        mut now: Instant,
        cx: &Context,
    ) -> Answer {
        let (mut tries, mut opened) = (0, false);
        let answer = loop {
            let look_again = || self.look(key, now);
            let flight = match away.flights.join(key, look_again) {
                Joined::Recalled((answer, _)) => return answer,
                Joined::Full => return self.failed(GetError::Overloaded),
                Joined::Waiting(flight) => flight,
                Joined::Opened(ticket, flight) => {
                    self.send_question(away, ticket, now, cx);
                    opened = true;
                    flight
                }
            };
            tries += 1;
            if tries == 1 {
                self.count_wait(opened);
            }
            match timeout_at(cx.deadline, flight.landed()).await {
                Ok(Ok(answer)) => break answer,
                // The thread that had put the question has ended, which one that still has
                // callers has not.
                Ok(Err(_lost)) if tries == 1 => now = Instant::now(),
                Ok(Err(_lost)) => {
                    let error = FillError::Internal("the node is stopping".into());
                    break Err(GetError::Fill { error, retry_after: Duration::ZERO });
                }
                Err(_elapsed) => break Err(GetError::Deadline),
            }
        };
        match answer {
            Ok(hit) if opened => Ok(hit),
            Ok(Hit { value, provenance }) => {
                let served = Served::Collapsed { stored: provenance.served.is_stored() };
                Ok(Hit { value, provenance: Provenance { served, ..provenance } })
            }
            Err(error @ GetError::NotFound(_)) => Err(error),
            Err(error) => self.failed(error),
        }
    }

    /// Asks the owner for another version of `key`, whose answer in memory is stale and is
    /// a copy from when this node owned it.
    pub(super) fn refresh_away(self: &Arc<Self>, away: &Arc<Away>, key: &[u8]) {
        if let Joined::Opened(ticket, _nobody_waits) = away.flights.join(key, || None::<()>) {
            let now = Instant::now();
            self.send_question(away, ticket, now, &Context::until(now));
        }
    }

    /// Puts the question in a task of its own, which belongs to no caller. Where a serving
    /// thread asks, it stays there, and so does its answer: to change threads twice would
    /// cost more than all the rest.
    fn send_question(
        self: &Arc<Self>,
        away: &Arc<Away>,
        ticket: Ticket<Answer>,
        now: Instant,
        cx: &Context,
    ) {
        let (group, away) = (Arc::clone(self), Arc::clone(away));
        let chain = cx.chain.clone();
        let here = cx.is_serving.then(Handle::try_current).and_then(Result::ok);
        here.as_ref().unwrap_or(&self.fills).spawn(async move {
            let key = Arc::clone(ticket.key());
            let deadline = now + group.settings.load().fill_timeout;
            let question = Question {
                group: Arc::clone(&group.name),
                key: Arc::clone(&key),
                asked: now,
                deadline,
                code: group.code(),
            };
            let asked = timeout_at(deadline, away.peers.ask(question)).await;
            let answer = match asked.unwrap_or(Asked::Unanswered) {
                Asked::Found(value, ttl) => {
                    away.metrics.found.inc();
                    return ticket.land(|keep| Ok(group.received(&away, &key, value, ttl, keep)));
                }
                Asked::NotFound => {
                    away.metrics.not_found.inc();
                    Err(GetError::NotFound(provenance(Served::Peer { stored: false }, None)))
                }
                Asked::Failed(error) => {
                    away.metrics.failed.inc();
                    Err(GetError::Fill { error: error.bounded(), retry_after: Duration::ZERO })
                }
                asked @ (Asked::Unanswered | Asked::OtherCode) => {
                    match asked {
                        Asked::OtherCode => away.metrics.other_code.inc(),
                        _ => away.metrics.unanswered.inc(),
                    };
                    let cx = Context { chain, ..Context::until(deadline) };
                    group.get_here(&key, &cx).await
                }
            };
            ticket.land(|_keep| answer);
        });
    }

    /// Takes in the value of another node's key: keeps a copy if the key is hot, unless a
    /// purge came in between.
    fn received(
        &self,
        away: &Away,
        key: &[u8],
        value: Value,
        ttl: Option<Duration>,
        keep: bool,
    ) -> Hit {
        let settings = self.settings.load();
        let ttl = ttl.unwrap_or(settings.ttl).min(settings.ttl_max);
        // What this node filled itself and may still serve is out of date now.
        let was_ours = self.store.remove(key);
        let is_hot = away.popularity.note(key) >= HOT_FROM || was_ours;
        let fits = value.body().len() as u64 <= settings.value_max.get();
        let stored = keep && is_hot && fits && !ttl.is_zero() && {
            let lifetime = Lifetime::new(ttl, Duration::ZERO);
            let inserted = away.hot.insert(key, Some(value.clone()), lifetime, Instant::now());
            self.count_evictions(inserted)
        };
        Hit { value, provenance: provenance(Served::Peer { stored }, Some(ttl)) }
    }
}

/// Of an answer that was given just now.
fn provenance(served: Served, ttl: Option<Duration>) -> Provenance {
    Provenance { served, age: Duration::ZERO, ttl: ttl.unwrap_or_default() }
}
