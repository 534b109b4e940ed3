//! How a peer fares: whether it is asked, and how it is found out that it can be again.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use super::{client::Client, link::Way, signs::Latency};
use crate::{
    breaker::{Breaker, Change, Pass, Policy, Report, State, Verdict},
    wire::Dialect,
};

/// When a peer is left alone: after three questions in a row that came to nothing, for
/// half a second at first. A dead peer is then found out within a second or two of
/// traffic, and a busy one that drops a question now and then is not.
const POLICY: Policy = Policy {
    window: Duration::from_secs(10),
    faults: 3,
    ratio: 0.5,
    calls_min: 20,
    open: Duration::from_millis(500),
    open_max: Duration::from_secs(30),
    healthy: Duration::from_mins(1),
    probe: PROBE_TIMEOUT,
};

/// When a peer's memory is no longer looked into: after three looks in a row that nobody
/// answered, for a second. Nobody probes for it; the next look finds out.
const PEEKS: Policy = Policy {
    window: Duration::from_secs(10),
    faults: 3,
    ratio: 1.0,
    calls_min: 20,
    open: Duration::from_secs(1),
    open_max: Duration::from_secs(10),
    healthy: Duration::from_secs(10),
    probe: Duration::from_secs(1),
};

/// Time for a probe.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Another node.
pub(super) struct Peer {
    /// Its host and port.
    pub(super) authority: String,
    pub(super) dialect: Dialect,
    /// The way to it, if it is a node of this program.
    pub(super) way: Option<Way>,
    /// How soon it shows a sign of life.
    pub(super) latency: Latency,
    breaker: Mutex<Breaker>,
    peeks: Mutex<Breaker>,
    /// Whether the cluster takes it for down, perhaps.
    is_suspect: AtomicBool,
}

/// Told of a peer that does not answer, by its host and port.
pub(super) type Doubt = dyn Fn(&str) + Send + Sync;

/// What finds out whether a peer is back, off to the side.
#[derive(Clone)]
pub(super) struct Prober {
    pub(super) client: Client,
    /// Where that is done.
    pub(super) control: Handle,
    /// Who else is to look at such a peer.
    pub(super) doubt: Arc<OnceLock<Box<Doubt>>>,
}

impl Peer {
    pub(super) fn new(authority: String, dialect: Dialect, way: Option<Way>) -> Self {
        let now = Instant::now();
        let breaker = Mutex::new(Breaker::new(POLICY, now));
        let peeks = Mutex::new(Breaker::new(PEEKS, now));
        Self {
            authority,
            dialect,
            way,
            latency: Latency::default(),
            breaker,
            peeks,
            is_suspect: AtomicBool::new(false),
        }
    }

    /// Leave to look into its memory, if it is well as far as is known.
    pub(super) fn admit_peek(&self) -> Option<Pass> {
        let now = Instant::now();
        if self.way.is_none() || !self.is_asked() {
            return None;
        }
        match self.peeks().admit(now) {
            Verdict::Go(pass) => Some(pass),
            Verdict::Wait(_) => None,
        }
    }

    /// How a look into its memory ended.
    pub(super) fn was_peeked(&self, pass: Pass, report: Report) {
        self.peeks().report(pass, report, Instant::now());
    }

    fn peeks(&self) -> MutexGuard<'_, Breaker> {
        self.peeks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it answers anything at all.
    pub(super) async fn is_there(&self, client: &Client) -> bool {
        let deadline = Instant::now() + PROBE_TIMEOUT;
        match &self.way {
            Some(way) => way.probe(deadline).await,
            None => client.probe(self, deadline).await,
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leave to ask it, if it is well as far as is known.
    pub(super) fn admit(&self, now: Instant) -> Option<Pass> {
        let mut breaker = self.breaker();
        // Half open is for the probe, not for somebody who waits for an answer.
        if breaker.state(now) != State::Closed {
            return None;
        }
        match breaker.admit(now) {
            Verdict::Go(pass) => Some(pass),
            Verdict::Wait(_) => None,
        }
    }

    /// Whether questions go to it at present.
    pub(super) fn is_asked(&self) -> bool {
        self.breaker().state(Instant::now()) == State::Closed
    }

    /// Whether somebody else is to be asked first: it may be down.
    pub(super) fn is_suspect(&self) -> bool {
        self.is_suspect.load(Relaxed)
    }

    pub(super) fn suspect(&self, is_suspect: bool) {
        self.is_suspect.store(is_suspect, Relaxed);
    }

    pub(super) fn was_well(&self, pass: Pass) {
        self.breaker().report(pass, Report::Well, Instant::now());
    }

    /// A question came to nothing. If that was one too many, the peer is left alone and
    /// probed until it is back.
    pub(super) fn was_at_fault(self: &Arc<Self>, pass: Pass, reason: &str, prober: &Prober) {
        let change = self.breaker().report(pass, Report::Fault, Instant::now());
        if let Some(Change::Opened { .. }) = change {
            warn!(
                peer = self.authority,
                reason, "A peer does not answer and is not asked until it does."
            );
            if let Some(doubt) = prober.doubt.get() {
                doubt(&self.authority);
            }
            let (peer, client) = (Arc::downgrade(self), prober.client.clone());
            prober.control.spawn(async move {
                // A fleet without the peer lets go of it.
                while let Some(peer) = peer.upgrade() {
                    let verdict = peer.breaker().admit(Instant::now());
                    let pass = match verdict {
                        Verdict::Go(pass) => pass,
                        Verdict::Wait(wait) => {
                            drop(peer);
                            sleep(wait).await;
                            continue;
                        }
                    };
                    let is_well = peer.is_there(&client).await;
                    let report = if is_well { Report::Well } else { Report::Fault };
                    let change = peer.breaker().report(pass, report, Instant::now());
                    if let Some(Change::Closed { after }) = change {
                        let after = humantime::format_duration(after);
                        info!(peer = peer.authority, %after, "A peer answers again.");
                        return;
                    }
                }
            });
        }
    }
}
