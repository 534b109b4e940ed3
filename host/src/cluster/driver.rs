//! Drives the machine: one task owns it, the socket and the clock.
//!
//! It runs on a thread of its own, so that a burst of requests or a guest that burns CPU
//! does not make this node slow to answer, which others would take for a death. What waits
//! in the socket is read before any timer is followed: after a pause, the packets that clear
//! a suspect are there already. TCP runs beside it in ordinary tasks, and what comes of it
//! arrives by a bounded queue.
//!
//! Invariants:
//! - the task waits for nothing but its socket, its queue and the next timer;
//! - a datagram that the socket has no room for is dropped and counted: they may get lost;
//! - a generation is written down before anything is sent under it.

use std::{
    collections::HashMap,
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    Hear, NoticeId, Pulse, Refused,
    lives::Lives,
    machine::{Command, Counters, DATAGRAM_MAX, Event, Input, Machine, Output, Rejection, Sizes},
    pulse::PULSE,
    tcp,
    view::View,
};

/// What may wait for the machine beside datagrams.
pub(super) const QUEUE: usize = 256;
/// Datagrams that are read before the timers are looked at.
const DATAGRAMS_AT_ONCE: usize = 64;
/// Between two words about packets that are not believed.
const QUIET: Duration = Duration::from_secs(10);

/// What comes to the machine beside datagrams and time.
#[derive(Debug)]
pub(super) enum Happening {
    Request { from: SocketAddr, bytes: Vec<u8>, respond: oneshot::Sender<Option<Vec<u8>>> },
    Ended { exchange: u64, end: tcp::End },
    Command(Command),
    Publish { body: Bytes, respond: oneshot::Sender<Result<NoticeId, Refused>> },
}

/// How membership is doing, for whoever shows numbers.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// What the machine has counted.
    pub counters: Counters,
    /// How much it keeps.
    pub sizes: Option<Sizes>,
    /// How bad this node takes itself to be, from 0 (well) to 7.
    pub health: u32,
    /// Datagrams that could not be sent.
    pub unsent: u64,
    /// The longest time that the task came too late.
    pub lag_max: Duration,
}

/// The task.
pub(super) struct Driver {
    pub(super) machine: Machine,
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
    pub(super) happenings: mpsc::Receiver<Happening>,
    /// For tasks that ask or are asked.
    pub(super) sender: mpsc::Sender<Happening>,
    pub(super) view: watch::Sender<Arc<View>>,
    pub(super) status: Arc<Mutex<Status>>,
    pub(super) pulse: Pulse,
    pub(super) hear: Arc<dyn Hear>,
    pub(super) lives: Lives,
}

/// What the task keeps beside the machine.
struct Loop {
    machine: Machine,
    udp: UdpSocket,
    began: Instant,
    view: watch::Sender<Arc<View>>,
    status: Arc<Mutex<Status>>,
    hear: Arc<dyn Hear>,
    lives: Lives,
    sender: mpsc::WeakSender<Happening>,
    asking: JoinSet<()>,
    responses: HashMap<u64, oneshot::Sender<Option<Vec<u8>>>>,
    publishing: HashMap<u64, oneshot::Sender<Result<NoticeId, Refused>>>,
    next_token: u64,
    unsent: u64,
    lag_max: Duration,
    rejections: Rejections,
    is_over: bool,
}

impl Driver {
    /// Runs until the node has left, or nobody wants the cluster any more.
    pub(super) async fn run(self) {
        let Self { machine, udp, tcp, mut happenings, sender, view, status, .. } = self;
        let Self { pulse, hear, lives, .. } = self;
        let mut serving = JoinSet::new();
        // The queue is closed when the last handle of the node's is gone, so those who only
        // serve hold it weakly.
        let weak = sender.downgrade();
        serving.spawn(tcp::serve(tcp, weak.clone()));
        drop(sender);
        let mut it = Loop {
            machine,
            udp,
            began: Instant::now(),
            view,
            status,
            hear,
            lives,
            sender: weak,
            asking: JoinSet::new(),
            responses: HashMap::new(),
            publishing: HashMap::new(),
            next_token: 0,
            unsent: 0,
            lag_max: Duration::ZERO,
            rejections: Rejections::default(),
            is_over: false,
        };
        while !it.is_over {
            it.read_datagrams();
            it.handle(Input::Tick);
            it.report();
            // Only now: whoever sees that the task runs again may take it that it has said
            // whether the node was away.
            pulse.beat();
            let wake = it.wake();
            tokio::select! {
                biased;
                readable = it.udp.readable() => {
                    if readable.is_err() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
                happening = happenings.recv() => match happening {
                    Some(happening) => it.happened(happening),
                    None => break,
                },
                () = sleep_until(wake) => it.lag_max = it.lag_max.max(wake.elapsed()),
            }
            while it.asking.try_join_next().is_some() {}
        }
    }
}

impl Loop {
    /// Reads what waits in the socket, up to a bound.
    fn read_datagrams(&mut self) {
        // One byte more than the longest, so that a longer one is seen to be.
        let mut buffer = [0; DATAGRAM_MAX + 1];
        for _ in 0..DATAGRAMS_AT_ONCE {
            match self.udp.try_recv_from(&mut buffer) {
                Ok((len, from)) => {
                    let Some(bytes) = buffer.get(..len) else { continue };
                    self.handle(Input::Datagram { from, bytes });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // What the kernel has to say of datagrams that we sent: nothing of interest.
                Err(_) => {}
            }
        }
    }

    fn happened(&mut self, happening: Happening) {
        match happening {
            Happening::Command(command) => self.handle(Input::Command(command)),
            Happening::Publish { body, respond } => {
                self.next_token += 1;
                let token = self.next_token;
                self.publishing.insert(token, respond);
                self.handle(Input::Command(Command::Publish { token, body }));
            }
            Happening::Request { from, bytes, respond } => {
                self.next_token += 1;
                let token = self.next_token;
                self.responses.insert(token, respond);
                self.handle(Input::Request { token, from, bytes: &bytes });
            }
            Happening::Ended { exchange, end } => match end {
                tcp::End::Answered(bytes) => self.handle(Input::Reply { exchange, bytes: &bytes }),
                tcp::End::Refused => self.handle(Input::Refused { exchange }),
                tcp::End::Failed => self.handle(Input::Failed { exchange }),
            },
        }
    }

    fn handle(&mut self, input: Input<'_>) {
        for output in self.machine.handle(input, self.began.elapsed()) {
            self.obey(output);
        }
    }

    fn obey(&mut self, output: Output) {
        match output {
            Output::Datagram { to, bytes } => {
                if self.udp.try_send_to(&bytes, to).is_err() {
                    self.unsent += 1;
                }
            }
            Output::Open { exchange, to, bytes, timeout } => {
                let Some(sender) = self.sender.upgrade() else { return };
                self.asking.spawn(async move {
                    let end = tcp::ask(to, bytes, timeout).await;
                    let _ = sender.send(Happening::Ended { exchange, end }).await;
                });
            }
            Output::Respond { token, bytes } => {
                if let Some(respond) = self.responses.remove(&token) {
                    let _ = respond.send(bytes);
                }
            }
            Output::View(view) => {
                self.view.send_replace(view);
            }
            Output::Notice(notice) => self.hear.notice(&notice),
            Output::Missed => self.hear.missed(),
            Output::Current(is_current) => self.hear.is_current(is_current),
            Output::Published { token, id } => {
                if let Some(respond) = self.publishing.remove(&token) {
                    let _ = respond.send(id);
                }
            }
            Output::Generation(generation) => {
                if let Err(error) = self.lives.note(generation) {
                    tracing::warn!(%error, "cannot write down the node's generation");
                }
            }
            Output::Event(event) => self.log(&event),
            Output::Left => self.is_over = true,
        }
    }

    /// When to wake, whatever else happens.
    fn wake(&self) -> Instant {
        let longest = Instant::now() + PULSE;
        self.machine.next_wake().map_or(longest, |wake| longest.min(self.began + wake))
    }

    fn report(&mut self) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.counters.clone_from(self.machine.counters());
        status.sizes = Some(self.machine.sizes());
        status.health = self.machine.health();
        status.unsent = self.unsent;
        status.lag_max = self.lag_max;
    }

    fn log(&mut self, event: &Event) {
        match event {
            Event::Up(id) => tracing::info!(node = %id.node, addr = %id.addr, "member found"),
            Event::Down { id, has_left: true } => {
                tracing::info!(node = %id.node, addr = %id.addr, "member has left");
            }
            Event::Down { id, has_left: false } => {
                tracing::warn!(node = %id.node, addr = %id.addr, "member is dead");
            }
            Event::Joined => tracing::info!("joined the cluster"),
            Event::Alone => tracing::warn!("no other member left; looking for others"),
            Event::Renewed(id) => {
                tracing::warn!(generation = id.generation, "was taken for dead; came back");
            }
            Event::UdpDegraded(addr) => {
                tracing::debug!(%addr, "member answers by TCP and did not by UDP");
            }
            Event::Rejected { from, rejection } => self.rejections.note(*from, *rejection),
            Event::OtherRing(node) => {
                tracing::warn!(%node, "member has other ring parameters; left out of the ring");
            }
            Event::SameName(node) => {
                tracing::warn!(%node, "two members have this name; remove one's identity file");
            }
            Event::AddressTaken(node) => {
                tracing::error!(%node, "another node has this one's advertised address; leaving");
            }
            Event::KeyWaits(nodes) => {
                let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
                tracing::info!(?nodes, "the new cluster key waits until these have it");
            }
            Event::KeyTurned => tracing::info!("the new cluster key is in use"),
            Event::Lag(lag) => tracing::warn!(?lag, "the cluster's thread was held up"),
        }
    }
}

/// Packets that were not believed, told of now and then.
#[derive(Debug, Default)]
struct Rejections {
    since_last: u64,
    last: Option<Instant>,
}

impl Rejections {
    fn note(&mut self, from: SocketAddr, rejection: Rejection) {
        self.since_last += 1;
        if self.last.is_none_or(|last| last.elapsed() >= QUIET) {
            let count = self.since_last;
            tracing::warn!(%from, reason = %rejection, count, "packets were not believed");
            self.last = Some(Instant::now());
            self.since_last = 0;
        }
    }
}
