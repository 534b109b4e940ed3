//! The machine's surface: what it takes, and what it says is to be done.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{Id, Meta, NodeId, Rejection, State, Tuning};
use crate::cluster::{Keys, Notice, NoticeId, Refused, View};

/// What a machine begins with.
#[derive(Debug)]
pub struct Setup {
    /// The cluster's name; nodes of other clusters are not heard.
    pub cluster: String,
    /// The cluster's keys.
    pub keys: Keys,
    /// Who this node is. Its generation must be above all that it has had.
    pub id: Id,
    /// A random number that no other start of any node has drawn.
    pub boot: u64,
    /// What all its randomness comes from.
    pub seed: u64,
    /// What it says of itself.
    pub meta: Meta,
    /// The protocol's numbers.
    pub tuning: Tuning,
}

/// What happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// A datagram came.
    Datagram {
        /// From where, for the log alone.
        from: SocketAddr,
        /// As it came.
        bytes: &'a [u8],
    },
    /// Time has passed: [`Machine::next_wake`](super::Machine::next_wake) came.
    Tick,
    /// Somebody asks over TCP. To be answered as [`Output::Respond`] says.
    Request {
        /// The driver's name for the connection.
        token: u64,
        /// From where, for the log alone.
        from: SocketAddr,
        /// As it came.
        bytes: &'a [u8],
    },
    /// The answer to an [`Output::Open`].
    Reply {
        /// Which.
        exchange: u64,
        /// As it came.
        bytes: &'a [u8],
    },
    /// The host of an [`Output::Open`] is there, and nobody listens.
    Refused {
        /// Which.
        exchange: u64,
    },
    /// An [`Output::Open`] came to nothing in any other way: nobody answered in time.
    Failed {
        /// Which.
        exchange: u64,
    },
    /// The node wants something.
    Command(Command),
}

/// What the node may want.
#[derive(Clone, Debug)]
pub enum Command {
    /// These addresses may be members. They replace those named before; none is left out
    /// of the cluster for not being among them.
    Candidates(Vec<SocketAddr>),
    /// This is what the node says of itself now.
    Describe(Meta),
    /// The same but for the state, which is now this.
    SetState(State),
    /// The member did not answer on its peer port. It is asked whether it is there.
    Doubt(NodeId),
    /// Other keys. A new one seals as soon as all members have it.
    SetKeys(Keys),
    /// Tell all members this, once each. Answered by [`Output::Published`].
    Publish {
        /// The driver's name for whoever publishes.
        token: u64,
        /// The text.
        body: Bytes,
    },
    /// Go: drain, tell everybody, and stop.
    Leave,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send a datagram.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// As it is.
        bytes: Vec<u8>,
    },
    /// Connect by TCP, send a frame, wait for one, and report it with
    /// [`Input::Reply`], [`Input::Refused`] or [`Input::Failed`].
    Open {
        /// To be reported.
        exchange: u64,
        /// Where to.
        to: SocketAddr,
        /// The frame.
        bytes: Vec<u8>,
        /// For all of it.
        timeout: Duration,
    },
    /// End what [`Input::Request`] brought.
    Respond {
        /// The driver's name for the connection.
        token: u64,
        /// The frame to answer with; `None`: close it without a word.
        bytes: Option<Vec<u8>>,
    },
    /// The cluster looks different now.
    View(Arc<View>),
    /// A member has published this.
    Notice(Notice),
    /// Members have published something that nobody has any more.
    Missed,
    /// Whether this node has heard what the others have.
    Current(bool),
    /// What became of a [`Command::Publish`].
    Published {
        /// The driver's name for whoever publishes.
        token: u64,
        /// Under which name it is published.
        id: Result<NoticeId, Refused>,
    },
    /// The node has a new generation, to be written down before it is restarted.
    Generation(u64),
    /// Something for the log.
    Event(Event),
    /// The node has left; nothing more will come.
    Left,
}

/// Something that somebody may want to read about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A member was found.
    Up(Id),
    /// A member is dead, or has left.
    Down {
        /// Which.
        id: Id,
        /// Whether it said so itself.
        has_left: bool,
    },
    /// This node is in touch with others.
    Joined,
    /// This node is in touch with nobody, and looks for others.
    Alone,
    /// Others took this node for dead; it goes on in a new life.
    Renewed(Id),
    /// A member answers by TCP and not by UDP: something filters datagrams.
    UdpDegraded(SocketAddr),
    /// A packet was not believed. Whoever logs these must bound them.
    Rejected {
        /// From where.
        from: SocketAddr,
        /// Why.
        rejection: Rejection,
    },
    /// A member builds its ring by other parameters and is left out of ours.
    OtherRing(NodeId),
    /// Two members have the same name; one of them is left out.
    SameName(NodeId),
    /// Another node insists that it is at this node's address: this one leaves.
    AddressTaken(NodeId),
    /// The new key does not seal yet, since these do not have it.
    KeyWaits(Vec<NodeId>),
    /// The new key seals from now on.
    KeyTurned,
    /// The machine was woken this much too late.
    Lag(Duration),
}

/// What has been counted since the start; only ever more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Counters {
    pub datagrams_in: u64,
    pub datagrams_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub rejected_length: u64,
    pub rejected_version: u64,
    pub rejected_key: u64,
    pub rejected_seal: u64,
    pub rejected_replay: u64,
    pub rejected_malformed: u64,
    pub probes_failed: u64,
    pub suspicions_dropped: u64,
    pub challenges: u64,
    pub challenges_answered: u64,
    pub challenges_refused: u64,
    pub challenges_failed: u64,
    pub udp_degraded: u64,
    pub syncs: u64,
    pub syncs_equal: u64,
    pub syncs_failed: u64,
    pub renewals: u64,
    pub members_down: u64,
    pub lags: u64,
    pub notices_published: u64,
    pub notices_heard: u64,
    pub notices_missed: u64,
    pub trades: u64,
    pub doubts: u64,
    pub swim_errors: u64,
}

/// How much a machine keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Sizes {
    pub members: usize,
    pub down: usize,
    pub timers: usize,
    pub senders: usize,
    pub exchanges: usize,
    pub records: usize,
    pub updates_backlog: usize,
    pub broadcasts_backlog: usize,
    pub notices_backlog: usize,
    pub notices: usize,
    pub notices_bytes: usize,
    pub publishers: usize,
    pub gaps: usize,
}
