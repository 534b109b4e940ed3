//! A cluster in one thread: a heap of events, a network that can be told to misbehave, and
//! the shipped state machine in every node.
//!
//! Time is virtual and all randomness comes from one seed, so that a run can be repeated
//! exactly. Datagrams take a random time, get lost, come twice and overtake one another;
//! TCP takes round trips and, for what gets lost, retransmissions; it is refused where a
//! process is dead and its host is not. Nodes crash, vanish with their hosts, restart with
//! or without their notes, and stand still.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use super::cluster::{
    Keys, NoticeId, Refused, View,
    machine::{
        Command, Counters, DATAGRAM_MAX, Event, Id, Input, Machine, Meta, NodeId, Output, Setup,
        Sizes, State, Tuning,
    },
};

/// What a socket's buffer holds, unless a test says otherwise.
const SOCKET_BUFFER: usize = 2_000;
/// When a lost segment is sent again.
const RETRANSMIT: Duration = Duration::from_millis(300);
/// What the envelope and UDP over IPv4 add to what is counted.
const IP_AND_UDP: u64 = 28;

/// What runs in a node.
pub(crate) trait Process {
    /// Takes in what happened.
    fn handle(&mut self, input: Input<'_>, now: Duration) -> Vec<Output>;
    /// When it wants a tick.
    fn next_wake(&self) -> Option<Duration>;
    /// Who it takes for alive, itself apart.
    fn members(&self) -> Vec<Id>;
    /// How much it keeps, if it can tell.
    fn sizes(&self) -> Option<Sizes>;
    /// What it has counted.
    fn counters(&self) -> Counters;
    /// How bad it takes itself to be.
    fn health(&self) -> u32;
}

impl Process for Machine {
    fn handle(&mut self, input: Input<'_>, now: Duration) -> Vec<Output> {
        Machine::handle(self, input, now)
    }

    fn next_wake(&self) -> Option<Duration> {
        Machine::next_wake(self)
    }

    fn members(&self) -> Vec<Id> {
        Machine::members(self).collect()
    }

    fn sizes(&self) -> Option<Sizes> {
        Some(Machine::sizes(self))
    }

    fn counters(&self) -> Counters {
        Machine::counters(self).clone()
    }

    fn health(&self) -> u32 {
        Machine::health(self)
    }
}

/// How the network is.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// The least and the greatest time one way.
    pub(crate) latency: (Duration, Duration),
    /// Share of packets that get lost.
    pub(crate) loss: f64,
    /// Share of datagrams that come twice.
    pub(crate) duplicates: f64,
    /// Share of datagrams with a flipped bit.
    pub(crate) corruption: f64,
}

impl Default for Network {
    fn default() -> Self {
        let latency = (Duration::from_micros(200), Duration::from_millis(1));
        Self { latency, loss: 0.0, duplicates: 0.0, corruption: 0.0 }
    }
}

/// What starts a process in a node.
pub(crate) type Start = Box<dyn Fn(Setup, Duration) -> Box<dyn Process> + Send>;

/// One node.
#[expect(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
pub(crate) struct Node {
    pub(crate) addr: SocketAddr,
    pub(crate) name: NodeId,
    process: Option<Box<dyn Process>>,
    /// Counts its starts, so that what was meant for a former one is not given to it.
    life: u32,
    /// The last generation that it wrote down.
    written: Option<u64>,
    /// Whether its host is there.
    host: bool,
    stands_still: bool,
    waiting: VecDeque<Happening>,
    wake_at: Option<Duration>,
    /// Which side of a partition it is on.
    side: u8,
    /// No datagrams reach it, or leave it.
    pub(crate) is_udp_blocked: bool,
    pub(crate) view: Arc<View>,
    pub(crate) has_left: bool,
    /// Whether anything was ever done to it that may make others take it for dead.
    pub(crate) is_tainted: bool,
    exchanges: HashSet<u64>,
    /// By index: whom it takes for alive.
    believes: Vec<bool>,
    pub(crate) renewals: u64,
    pub(crate) views: u64,
    /// The name of the key of its last datagram.
    pub(crate) sealed_with: u8,
    /// What it was told in this life, and when.
    pub(crate) told: Vec<(Duration, Told)>,
    /// What became of what it published last.
    published: Option<Result<NoticeId, Refused>>,
}

/// What the node that a machine runs in is told of notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Notice(NoticeId),
    Missed,
    Current(bool),
}

/// What comes to a node.
#[derive(Clone, Debug)]
enum Happening {
    Datagram { from: SocketAddr, bytes: Vec<u8> },
    Request { from: usize, life: u32, exchange: u64, bytes: Vec<u8> },
    Reply { exchange: u64, bytes: Vec<u8> },
    Refused { exchange: u64 },
    Failed { exchange: u64 },
    Wake,
}

struct Entry {
    at: Duration,
    number: u64,
    node: usize,
    /// `None`: whatever runs there.
    life: Option<u32>,
    happening: Happening,
}

/// What was seen from outside.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub(crate) datagrams: u64,
    /// Bytes of datagrams and TCP, with headers.
    pub(crate) bytes: u64,
    pub(crate) tcp_bytes: u64,
    /// Members taken for dead that were running, and could be reached.
    pub(crate) false_deaths: u64,
    /// The same of nodes to which nothing was ever done.
    pub(crate) deaths_of_untainted: u64,
    pub(crate) handled: u64,
    pub(crate) rejected: u64,
    pub(crate) other_rings: u64,
    /// Every datagram sent, if they are to be kept.
    pub(crate) kept_datagrams: Option<Vec<Vec<u8>>>,
    pub(crate) first_down: HashMap<usize, Duration>,
    pub(crate) last_down: HashMap<usize, Duration>,
}

/// The cluster and its network.
pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) network: Network,
    pub(crate) nodes: Vec<Node>,
    pub(crate) watch: Watch,
    pub(crate) dice: fastrand::Rng,
    pub(crate) tuning: Tuning,
    pub(crate) keys: Keys,
    pub(crate) describe: fn(usize) -> Meta,
    /// What a socket's buffer holds of a node that stands still.
    pub(crate) socket_buffer: usize,
    /// The longest datagram that is none of a defect.
    pub(crate) datagram_max: usize,
    /// Members speak of nodes that are not in `nodes`.
    pub(crate) has_strangers: bool,
    heap: BinaryHeap<Reverse<Entry>>,
    count: u64,
    index: HashMap<SocketAddr, usize>,
    responses: HashMap<u64, (usize, u32, u64)>,
    start: Start,
    /// The wall clock's advance over the virtual one, in milliseconds; a node's may differ.
    wall: u64,
}

/// What a node says of itself unless a test says otherwise.
pub(crate) fn meta(index: usize) -> Meta {
    Meta {
        peer: SocketAddr::new(address(index).ip(), 9080),
        weight: 100,
        zone: "eu-1a".to_owned(),
        version: "0.1.0".to_owned(),
        ring: 7,
        plugins: vec![1, 2],
        state: State::Serving,
    }
}

/// Where the node of that index is.
pub(crate) fn address(index: usize) -> SocketAddr {
    let [.., high, low] = u32::try_from(index + 1).unwrap_or_default().to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 9999))
}

impl World {
    /// `nodes` nodes with the shipped machine, none of them started.
    pub(crate) fn new(seed: u64, nodes: usize) -> Self {
        Self::of(seed, nodes, Box::new(|setup, now| Box::new(Machine::new(setup, now))))
    }

    /// The same with something else in them.
    pub(crate) fn of(seed: u64, nodes: usize, start: Start) -> Self {
        let mut world = Self {
            now: Duration::from_secs(1),
            network: Network::default(),
            nodes: Vec::new(),
            watch: Watch::default(),
            dice: fastrand::Rng::with_seed(seed),
            tuning: Tuning::default(),
            keys: Keys::insecure("sim"),
            describe: meta,
            socket_buffer: SOCKET_BUFFER,
            datagram_max: DATAGRAM_MAX,
            has_strangers: false,
            heap: BinaryHeap::new(),
            count: 0,
            index: HashMap::new(),
            responses: HashMap::new(),
            start,
            wall: 1_700_000_000_000,
        };
        for index in 0..nodes {
            let (addr, name) = (address(index), NodeId(world.dice.u64(1..)));
            world.index.insert(addr, index);
            world.nodes.push(Node::new(addr, name, nodes));
        }
        world
    }

    /// Nodes all of which have been running for a while and know one another.
    pub(crate) fn settled(seed: u64, nodes: usize) -> Self {
        let mut world = Self::new(seed, nodes);
        world.settle();
        world
    }

    /// Starts all nodes and lets them find one another.
    pub(crate) fn settle(&mut self) {
        // Not in step with one another, and each knows some that are there before it.
        let count = self.nodes.len();
        for node in 0..count {
            self.start(node);
            let others: Vec<_> = (0..3).map(|_| self.dice.usize(..=node)).collect();
            self.discover(node, &others);
            let pause = Duration::from_millis(self.dice.u64(..20));
            self.run(pause);
        }
        let candidates: Vec<_> = (0..count).collect();
        self.discover_all(&candidates);
        let limit = self.now + Duration::from_mins(2);
        let all = self.run_until(limit, Self::all_agree);
        assert!(all, "the nodes did not find one another");
        self.run(Duration::from_secs(15));
        self.forget_what_happened();
    }

    /// Begins to watch anew.
    pub(crate) fn forget_what_happened(&mut self) {
        for node in &mut self.nodes {
            node.is_tainted = false;
        }
        self.watch = Watch::default();
    }

    /// The generation that a node without notes would have now.
    pub(crate) fn generation(&self) -> u64 {
        Id::generation_at(self.wall_ms(), None)
    }

    // === what is done to nodes ===

    /// Starts a process in `node`, with its notes from before, if there are any.
    pub(crate) fn start(&mut self, node: usize) {
        let generation = Id::generation_at(self.wall_ms(), self.nodes[node].written);
        self.start_with(node, generation);
    }

    /// The same with a given generation, as if its notes were lost and its clock wrong.
    pub(crate) fn start_with(&mut self, node: usize, generation: u64) {
        let setup = Setup {
            cluster: "sim".to_owned(),
            keys: self.keys.clone(),
            id: Id::new(self.nodes[node].addr, generation, self.nodes[node].name),
            boot: self.dice.u64(..),
            seed: self.dice.u64(..),
            meta: (self.describe)(node),
            tuning: self.tuning.clone(),
        };
        self.start_as(node, setup);
    }

    /// The same with everything given.
    pub(crate) fn start_as(&mut self, node: usize, setup: Setup) {
        let it = &mut self.nodes[node];
        assert!(it.process.is_none(), "it runs already");
        it.written = Some(setup.id.generation);
        it.is_tainted = true;
        it.has_left = false;
        it.host = true;
        it.stands_still = false;
        it.life += 1;
        it.believes.fill(false);
        it.told.clear();
        it.view = Arc::default();
        it.wake_at = None;
        let process = (self.start)(setup, self.now);
        self.nodes[node].process = Some(process);
        self.plan_wake(node);
    }

    /// Kills the process: its host refuses connections from now on.
    pub(crate) fn kill(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        it.process = None;
        it.is_tainted = true;
        it.waiting.clear();
        it.exchanges.clear();
    }

    /// The host is gone: nothing comes back from it.
    pub(crate) fn vanish(&mut self, node: usize) {
        self.kill(node);
        self.nodes[node].host = false;
    }

    /// The process stands still.
    pub(crate) fn pause(&mut self, node: usize) {
        self.nodes[node].stands_still = true;
        self.nodes[node].is_tainted = true;
    }

    /// It goes on: what waits in its sockets first, then what its timers are late for.
    pub(crate) fn resume(&mut self, node: usize) {
        self.nodes[node].stands_still = false;
        self.nodes[node].wake_at = None;
        for happening in std::mem::take(&mut self.nodes[node].waiting) {
            self.give(node, happening);
        }
        self.plan_wake(node);
    }

    /// Splits the network: `on_far_side` says who is on the other side.
    pub(crate) fn split(&mut self, on_far_side: impl Fn(usize) -> bool) {
        for (index, node) in self.nodes.iter_mut().enumerate() {
            node.side = u8::from(on_far_side(index));
            node.is_tainted = true;
        }
    }

    /// Undoes that.
    pub(crate) fn heal(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.side = 0);
    }

    pub(crate) fn command(&mut self, node: usize, command: Command) {
        self.drive(node, |process, now| process.handle(Input::Command(command), now));
    }

    /// Tells `node` that those are candidates.
    pub(crate) fn discover(&mut self, node: usize, candidates: &[usize]) {
        let addresses = candidates.iter().map(|it| self.nodes[*it].addr).collect();
        self.command(node, Command::Candidates(addresses));
    }

    pub(crate) fn discover_all(&mut self, candidates: &[usize]) {
        for node in 0..self.nodes.len() {
            self.discover(node, candidates);
        }
    }

    /// `node` publishes a notice.
    pub(crate) fn publish(&mut self, node: usize, body: Bytes) -> Result<NoticeId, Refused> {
        self.command(node, Command::Publish { token: 0, body });
        self.nodes[node].published.take().expect("it says what became of it")
    }

    /// Bytes come to `node` from nowhere.
    pub(crate) fn inject(&mut self, node: usize, bytes: &[u8]) -> usize {
        let from = SocketAddr::from(([192, 0, 2, 1], 1));
        let mut outputs = 0;
        self.drive(node, |process, now| {
            let done = process.handle(Input::Datagram { from, bytes }, now);
            outputs = done.iter().filter(|it| !matches!(it, Output::Event(_))).count();
            done
        });
        outputs
    }

    // === what is seen of them ===

    pub(crate) fn is_running(&self, node: usize) -> bool {
        self.nodes[node].process.is_some() && !self.nodes[node].has_left
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|node| self.is_running(*node))
    }

    pub(crate) fn process(&self, node: usize) -> &dyn Process {
        self.nodes[node].process.as_deref().expect("it runs")
    }

    /// Whether `node` takes `other` for alive.
    pub(crate) fn believes(&self, node: usize, other: usize) -> bool {
        self.nodes[node].believes[other]
    }

    /// How many of those that run take `node` for alive.
    pub(crate) fn believers(&self, node: usize) -> usize {
        self.running().filter(|it| *it != node && self.believes(*it, node)).count()
    }

    /// How many `node` takes for alive.
    pub(crate) fn known_by(&self, node: usize) -> usize {
        self.nodes[node].believes.iter().filter(|it| **it).count()
    }

    /// Whether every node takes exactly those for alive that run.
    pub(crate) fn all_agree(&self) -> bool {
        self.disagreement().is_none()
    }

    /// A node and another one about which it is wrong.
    pub(crate) fn disagreement(&self) -> Option<(usize, usize)> {
        self.running().find_map(|node| {
            let others = (0..self.nodes.len()).filter(|other| *other != node);
            let wrong = others
                .filter(|other| self.is_running(*other) != self.believes(node, *other))
                .map(|other| (node, other));
            wrong.into_iter().next()
        })
    }

    /// Whether the rings of all that run are the same, and of all of them.
    pub(crate) fn rings_are_equal(&self) -> bool {
        let count = self.running().count();
        let mut digests = self.running().map(|node| &self.nodes[node].view);
        let Some(first) = digests.next() else { return true };
        let digest = first.ring_digest();
        first.ring().count() == count && digests.all(|view| view.ring_digest() == digest)
    }

    // === time ===

    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        self.run_until(until, |_| false);
    }

    /// Runs until `is_done`, asked every 10 ms, or `limit`; whether it was done.
    pub(crate) fn run_until(&mut self, limit: Duration, is_done: impl Fn(&Self) -> bool) -> bool {
        let mut ask_at = self.now;
        loop {
            if self.now >= ask_at {
                if is_done(self) {
                    return true;
                }
                ask_at = self.now + Duration::from_millis(10);
            }
            let Some(Reverse(entry)) = self.heap.peek() else { break };
            if entry.at > limit {
                break;
            }
            let Some(Reverse(entry)) = self.heap.pop() else { break };
            self.now = entry.at;
            self.arrive(entry);
        }
        self.now = limit;
        is_done(self)
    }

    fn wall_ms(&self) -> u64 {
        self.wall + u64::try_from(self.now.as_millis()).unwrap_or_default()
    }

    fn arrive(&mut self, entry: Entry) {
        let Entry { node, life, happening, .. } = entry;
        let it = &mut self.nodes[node];
        if life.is_some_and(|life| life != it.life) {
            return;
        }
        if it.process.is_none() {
            if let Happening::Request { from, life, exchange, .. } = happening {
                // Refused, if anybody is there to do so.
                if it.host {
                    self.back(node, from, life, Happening::Refused { exchange });
                }
            }
            return;
        }
        if it.stands_still {
            if it.waiting.len() < self.socket_buffer && !matches!(happening, Happening::Wake) {
                it.waiting.push_back(happening);
            }
            return;
        }
        self.give(node, happening);
    }

    fn give(&mut self, node: usize, happening: Happening) {
        match happening {
            Happening::Wake => {
                if self.nodes[node].wake_at.take().is_some_and(|at| at <= self.now) {
                    self.drive(node, |it, now| it.handle(Input::Tick, now));
                } else {
                    self.plan_wake(node);
                }
            }
            Happening::Datagram { from, bytes } => {
                self.drive(node, |it, now| it.handle(Input::Datagram { from, bytes: &bytes }, now));
            }
            Happening::Request { from, life, exchange, bytes } => {
                self.count += 1;
                let token = self.count;
                self.responses.insert(token, (from, life, exchange));
                let from = self.nodes[from].addr;
                self.drive(node, |it, now| {
                    it.handle(Input::Request { token, from, bytes: &bytes }, now)
                });
            }
            Happening::Reply { exchange, bytes } => {
                if self.nodes[node].exchanges.remove(&exchange) {
                    self.drive(node, |it, now| {
                        it.handle(Input::Reply { exchange, bytes: &bytes }, now)
                    });
                }
            }
            Happening::Refused { exchange } => {
                if self.nodes[node].exchanges.remove(&exchange) {
                    self.drive(node, |it, now| it.handle(Input::Refused { exchange }, now));
                }
            }
            Happening::Failed { exchange } => {
                if self.nodes[node].exchanges.remove(&exchange) {
                    self.drive(node, |it, now| it.handle(Input::Failed { exchange }, now));
                }
            }
        }
    }

    /// Hands the process something, and sees to what it wants.
    fn drive(&mut self, node: usize, with: impl FnOnce(&mut dyn Process, Duration) -> Vec<Output>) {
        let Some(process) = self.nodes[node].process.as_deref_mut() else { return };
        self.watch.handled += 1;
        let outputs = with(process, self.now);
        if self.watch.handled.is_multiple_of(61) {
            self.check_sizes(node);
        }
        for output in outputs {
            self.obey(node, output);
        }
        self.plan_wake(node);
    }

    fn plan_wake(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        let Some(wake) = it.process.as_deref().and_then(Process::next_wake) else { return };
        let wake = wake.max(self.now);
        if it.wake_at.is_none_or(|at| wake < at) {
            it.wake_at = Some(wake);
            let life = it.life;
            self.push(wake, node, Some(life), Happening::Wake);
        }
    }

    fn obey(&mut self, node: usize, output: Output) {
        match output {
            Output::Datagram { to, bytes } => self.send(node, to, bytes),
            Output::Open { exchange, to, bytes, timeout } => {
                self.connect(node, exchange, to, bytes, timeout);
            }
            Output::Respond { token, bytes } => {
                let Some((to, life, exchange)) = self.responses.remove(&token) else { return };
                match bytes {
                    Some(bytes) => {
                        self.watch.tcp_bytes += bytes.len() as u64 + 200;
                        self.watch.bytes += bytes.len() as u64 + 200;
                        self.back(node, to, life, Happening::Reply { exchange, bytes });
                    }
                    None => self.back(node, to, life, Happening::Failed { exchange }),
                }
            }
            Output::View(view) => {
                self.nodes[node].view = view;
                self.nodes[node].views += 1;
            }
            Output::Notice(notice) => self.tell(node, Told::Notice(notice.id)),
            Output::Missed => self.tell(node, Told::Missed),
            Output::Current(is_current) => self.tell(node, Told::Current(is_current)),
            Output::Published { id, .. } => self.nodes[node].published = Some(id),
            Output::Generation(generation) => self.nodes[node].written = Some(generation),
            Output::Event(event) => self.note(node, &event),
            Output::Left => {
                self.nodes[node].has_left = true;
                self.nodes[node].is_tainted = true;
            }
        }
    }

    fn tell(&mut self, node: usize, told: Told) {
        self.nodes[node].told.push((self.now, told));
    }

    fn note(&mut self, node: usize, event: &Event) {
        match event {
            Event::Up(id) => {
                if let Some(other) = self.index.get(&id.addr) {
                    self.nodes[node].believes[*other] = true;
                }
            }
            Event::Down { id, has_left } => {
                let Some(&other) = self.index.get(&id.addr) else { return };
                self.nodes[node].believes[other] = false;
                self.watch.first_down.entry(other).or_insert(self.now);
                self.watch.last_down.insert(other, self.now);
                let it = &self.nodes[other];
                let can_be_reached = it.side == self.nodes[node].side;
                let is_well = self.is_running(other) && !it.stands_still && can_be_reached;
                if is_well && !has_left {
                    self.watch.false_deaths += 1;
                }
                if !it.is_tainted && !self.nodes[node].is_tainted {
                    self.watch.deaths_of_untainted += 1;
                }
            }
            Event::Renewed(_) => self.nodes[node].renewals += 1,
            Event::Rejected { .. } => self.watch.rejected += 1,
            Event::OtherRing(_) => self.watch.other_rings += 1,
            _ => {}
        }
    }

    // === the network ===

    fn send(&mut self, from: usize, to: SocketAddr, mut bytes: Vec<u8>) {
        assert!(bytes.len() <= self.datagram_max, "a datagram of {} bytes", bytes.len());
        self.watch.datagrams += 1;
        self.watch.bytes += bytes.len() as u64 + IP_AND_UDP;
        self.nodes[from].sealed_with = bytes[1];
        if let Some(kept) = &mut self.watch.kept_datagrams {
            kept.push(bytes.clone());
        }
        let Some(&to) = self.index.get(&to) else { return };
        let is_blocked = self.nodes[from].is_udp_blocked || self.nodes[to].is_udp_blocked;
        if is_blocked || self.is_cut(from, to) || self.dice.f64() < self.network.loss {
            return;
        }
        if self.network.corruption > 0.0 && self.dice.f64() < self.network.corruption {
            let at = self.dice.usize(..bytes.len());
            bytes[at] ^= 1 << self.dice.u8(..8);
        }
        let from = self.nodes[from].addr;
        let copies = 1 + usize::from(self.dice.f64() < self.network.duplicates);
        for _ in 0..copies {
            let at = self.now + self.latency();
            self.push(at, to, None, Happening::Datagram { from, bytes: bytes.clone() });
        }
    }

    fn connect(
        &mut self,
        from: usize,
        exchange: u64,
        to: SocketAddr,
        bytes: Vec<u8>,
        timeout: Duration,
    ) {
        self.watch.tcp_bytes += bytes.len() as u64 + 300;
        self.watch.bytes += bytes.len() as u64 + 300;
        self.nodes[from].exchanges.insert(exchange);
        let life = self.nodes[from].life;
        self.push(self.now + timeout, from, Some(life), Happening::Failed { exchange });
        let Some(&to) = self.index.get(&to) else { return };
        if self.is_cut(from, to) {
            return;
        }
        // The handshake, then the request.
        let at = self.now + self.segment() + self.segment() + self.segment();
        self.push(at, to, None, Happening::Request { from, life, exchange, bytes });
    }

    /// An answer over TCP, or that there is none.
    fn back(&mut self, from: usize, to: usize, life: u32, happening: Happening) {
        if !self.is_cut(from, to) {
            let at = self.now + self.segment();
            self.push(at, to, Some(life), happening);
        }
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.nodes[from].side != self.nodes[to].side
    }

    fn latency(&mut self) -> Duration {
        let (least, most) = self.network.latency;
        least + most.saturating_sub(least).mul_f64(self.dice.f64())
    }

    /// The time that a segment takes, with what gets lost sent again.
    fn segment(&mut self) -> Duration {
        let mut time = self.latency();
        let mut wait = RETRANSMIT;
        while self.dice.f64() < self.network.loss {
            time += wait;
            wait *= 2;
        }
        time
    }

    fn push(&mut self, at: Duration, node: usize, life: Option<u32>, happening: Happening) {
        self.count += 1;
        self.heap.push(Reverse(Entry { at, number: self.count, node, life, happening }));
    }

    /// What must hold at every moment: nothing grows.
    fn check_sizes(&self, node: usize) {
        let Some(process) = self.nodes[node].process.as_deref() else { return };
        let Some(sizes) = process.sizes().filter(|_| !self.has_strangers) else { return };
        let all = self.nodes.len();
        assert!(sizes.members + sizes.down < all, "more members than addresses: {sizes:?}");
        assert_eq!(sizes.members, process.members().len());
        assert!(sizes.senders <= 4 * all.max(16), "{sizes:?}");
        assert!(sizes.records <= all, "{sizes:?}");
        assert!(sizes.timers <= 64 + 8 * all, "{sizes:?}");
        assert!(sizes.exchanges <= 128, "{sizes:?}");
        let tuning = &self.tuning;
        assert!(sizes.notices <= tuning.keep_notices, "{sizes:?}");
        assert!(sizes.notices_bytes <= tuning.keep_bytes, "{sizes:?}");
        assert!(sizes.notices_backlog <= 1_024 && sizes.gaps <= 1_024, "{sizes:?}");
        assert!(sizes.updates_backlog <= all && sizes.broadcasts_backlog <= all, "{sizes:?}");
    }
}

impl Node {
    fn new(addr: SocketAddr, name: NodeId, nodes: usize) -> Self {
        Self {
            addr,
            name,
            process: None,
            life: 0,
            written: None,
            host: true,
            stands_still: false,
            waiting: VecDeque::new(),
            wake_at: None,
            side: 0,
            is_udp_blocked: false,
            view: Arc::default(),
            has_left: false,
            is_tainted: false,
            exchanges: HashSet::new(),
            believes: vec![false; nodes],
            renewals: 0,
            views: 0,
            sealed_with: 0,
            told: Vec::new(),
            published: None,
        }
    }

    /// Forgets what it has written down.
    pub(crate) fn lose_notes(&mut self) {
        self.written = None;
    }

    pub(crate) fn stands_still(&self) -> bool {
        self.stands_still
    }

    /// Which of its lives this is.
    pub(crate) fn life(&self) -> u32 {
        self.life
    }

    /// Whether it was told last that it is current.
    pub(crate) fn is_current(&self) -> bool {
        let told = self.told.iter().rev();
        let last = told.filter_map(|(_, told)| match told {
            Told::Current(is_current) => Some(*is_current),
            Told::Notice(_) | Told::Missed => None,
        });
        last.into_iter().next().unwrap_or(false)
    }

    /// How many times it was told a notice.
    pub(crate) fn times_told(&self, id: NoticeId) -> usize {
        self.told.iter().filter(|(_, told)| *told == Told::Notice(id)).count()
    }

    /// How many times it was told that it missed some.
    pub(crate) fn times_missed(&self) -> usize {
        self.told.iter().filter(|(_, told)| *told == Told::Missed).count()
    }
}

// === impl Entry ===

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}
