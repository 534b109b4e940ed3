//! The cluster: which other nodes there are, and whether they are well.
//!
//! Members find one another by SWIM: each probes another now and then, news travels with
//! the probes, and nobody needs to know a leader. The protocol is a state machine without
//! sockets and clocks ([`machine`]); `driver` gives it both, `tcp` its connections, and the
//! node learns of the cluster as a [`View`] that is replaced whole.
//!
//! Invariants:
//! - the cluster does not know that there is a ring of keys, only who is to be in it;
//! - discovery proposes, SWIM decides;
//! - nobody without the cluster's key changes anything, or is answered;
//! - a notice comes to each member once, or the member learns that it missed something.
//!
//! Should the cluster's thread panic, the [view](Cluster::view) closes, the [`Pulse`] stops, and
//! nothing more is told: the node must go on as if it could not tell what the others purge.

mod driver;
pub mod keys;
mod lives;
pub mod machine;
mod notice;
mod pulse;
mod sockets;
mod tcp;
mod view;

use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    net::{TcpListener, UdpSocket},
    runtime,
    sync::{mpsc, oneshot, watch},
};

pub use driver::Status;
use driver::{Driver, Happening};
pub use keys::{Key, KeyError, Keys};
use lives::Lives;
use machine::{Command, Id, Machine, Setup};
pub use machine::{Counters, Meta, NodeId, State, Tuning};
pub use notice::{Hear, NOTICE_MAX, Notice, NoticeId, Refused};
pub use pulse::{PULSE, Pulse};
pub use sockets::Sockets;
pub use view::{Member, View};

/// The longest that [`Cluster::leave`] takes beyond the farewell.
const LEAVE_MAX: Duration = Duration::from_secs(3);

/// What a node needs to be a member.
#[derive(Clone)]
pub struct Settings {
    /// The cluster's name. Nodes of other clusters are not heard, whatever their keys.
    pub cluster: String,
    /// The cluster's keys.
    pub keys: Keys,
    /// Where the others reach this node's [`Sockets`].
    pub advertise: SocketAddr,
    /// What it says of itself.
    pub meta: Meta,
    /// Where it writes down who it is. Without a file it is a new node at each start.
    pub identity: Option<PathBuf>,
    /// The protocol's numbers.
    pub tuning: Tuning,
    /// Whom notices are told to; `Arc::new(())` for nobody.
    pub hear: Arc<dyn Hear>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Settings")
            .field("cluster", &self.cluster)
            .field("keys", &self.keys)
            .field("advertise", &self.advertise)
            .field("meta", &self.meta)
            .field("identity", &self.identity)
            .field("tuning", &self.tuning)
            .finish_non_exhaustive()
    }
}

/// This node's place in the cluster. Dropping it stops the node from answering, as if it
/// had died; see [`Cluster::leave`].
#[derive(Debug)]
pub struct Cluster {
    node: NodeId,
    commands: mpsc::Sender<Happening>,
    view: watch::Receiver<Arc<View>>,
    status: Arc<Mutex<Status>>,
    pulse: Pulse,
    farewell: Duration,
}

impl Cluster {
    /// Starts to be a member, on a thread of its own. The node is alone until it finds
    /// others, by [`Cluster::join`] or because they find it.
    ///
    /// # Errors
    /// Its identity cannot be read or written, the system has no randomness to give, or the
    /// sockets or the thread cannot be used.
    pub fn start(settings: Settings, sockets: Sockets) -> io::Result<Self> {
        let Settings { cluster, keys, advertise, meta, identity, tuning, hear } = settings;
        let mut lives = Lives::load(identity)?;
        let node = lives.node();
        let id = Id::new(advertise, lives.begin()?, node);
        let farewell = tuning.farewell;
        let (boot, seed) = (lives::random()?, lives::random()?);
        let setup = Setup { cluster, keys, id, boot, seed, meta, tuning };
        let (sender, happenings) = mpsc::channel(driver::QUEUE);
        let (view_sender, view) = watch::channel(Arc::default());
        let status = Arc::<Mutex<Status>>::default();
        let pulse = Pulse::new();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (udp, tcp) = {
            let _guard = runtime.enter();
            (UdpSocket::from_std(sockets.udp)?, TcpListener::from_std(sockets.tcp)?)
        };
        let driver = Driver {
            machine: Machine::new(setup, Duration::ZERO),
            udp,
            tcp,
            happenings,
            sender: sender.clone(),
            view: view_sender,
            status: Arc::clone(&status),
            pulse: pulse.clone(),
            hear,
            lives,
        };
        let thread = thread::Builder::new().name("cluster".to_owned());
        thread.spawn(move || runtime.block_on(driver.run()))?;
        Ok(Self { node, commands: sender, view, status, pulse, farewell })
    }

    /// This node's name.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The cluster as this node sees it, now and whenever it changes.
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// How membership is doing.
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Names addresses at which there may be members, instead of those named before. The
    /// node tries them for as long as they are no members.
    pub async fn join(&self, candidates: Vec<SocketAddr>) {
        self.send(Command::Candidates(candidates)).await;
    }

    /// Says something else of this node.
    pub async fn describe(&self, meta: Meta) {
        self.send(Command::Describe(meta)).await;
    }

    /// Says that this node is in another state now. It is in the ring while it serves.
    pub async fn set_state(&self, state: State) {
        self.send(Command::SetState(state)).await;
    }

    /// Takes other keys. A new first one is used as soon as all members have it.
    pub async fn set_keys(&self, keys: Keys) {
        self.send(Command::SetKeys(keys)).await;
    }

    /// Tells that a member did not answer on its peer port, and is to be looked at. Waits
    /// for nothing: if the cluster is busy, this is dropped.
    pub fn doubt(&self, node: NodeId) {
        let _ = self.commands.try_send(Happening::Command(Command::Doubt(node)));
    }

    /// Publishes a notice: every other member [hears](Hear) it once. This node does not, so
    /// whatever it is about is to be done here before.
    ///
    /// It is published as soon as this returns, and by then may have reached nobody: it goes by
    /// gossip and, where gossip does not reach, when notes are compared. A future that is
    /// dropped may have published it or not.
    ///
    /// # Errors
    /// The body is longer than [`NOTICE_MAX`], or this node is no member any more.
    pub async fn publish(&self, body: Bytes) -> Result<NoticeId, Refused> {
        if body.len() > NOTICE_MAX {
            return Err(Refused::TooLong);
        }
        let (respond, response) = oneshot::channel();
        let sent = self.commands.send(Happening::Publish { body, respond }).await;
        sent.map_err(|_| Refused::Gone)?;
        response.await.unwrap_or(Err(Refused::Gone))
    }

    /// When the cluster's thread ran last, for whoever must not serve after it has not for
    /// long: see [`Hear::is_current`].
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Leaves: tells everybody, waits until they know, and is no member any more.
    pub async fn leave(&self) {
        self.send(Command::Leave).await;
        let mut view = self.view.clone();
        let ended = async { while view.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(self.farewell + LEAVE_MAX, ended).await;
    }

    async fn send(&self, command: Command) {
        // Whoever has left has nobody to tell.
        let _ = self.commands.send(Happening::Command(command)).await;
    }
}
