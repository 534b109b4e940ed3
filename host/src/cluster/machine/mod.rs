//! Membership as a state machine: foca's SWIM, and all that a cluster needs beside it.
//!
//! [`Machine::handle`] takes what happened and the time, and says what is to be done. It
//! has no socket, no clock, no task and no randomness but its seed's, so that the node and
//! a simulator drive the same code and a run can be repeated exactly.
//!
//! # Layout
//! - `surface`: what it takes and gives;
//! - `identity`, `codec`, `envelope`, `replay`: who members are, and their datagrams;
//! - `exchange`: what is asked over TCP; `challenge`: is it still there, `notes`: what do you
//!   know;
//! - `meta`, `records`: what members say of themselves; `broadcasts`: what gossip carries;
//! - `notices`, `seqs`, `trades`: what members publish, heard once by each; `currency`: whether
//!   this node has heard it;
//! - `swim`: foca and its timers, `tuning`, `health`, `timers`, `effects`: what it is given;
//!   `watch`: a probe beside foca's;
//! - `join`, `tombstones`: finding members again, forgetting them;
//! - `rivals`, `leave`: when this node has to go, and how it goes;
//! - `gate`, `publish`: what the rest of the node is told.
//!
//! Invariants:
//! - nothing reaches foca, or changes anything, that was not sealed with a key of the
//!   cluster; and nothing that was not is answered;
//! - foca's suspicions are followed up only while they hold (F1);
//! - a node that is alone never stops trying not to be;
//! - whatever is kept is bounded by the members, and they by a constant.

mod broadcasts;
mod challenge;
mod codec;
mod currency;
mod effects;
mod envelope;
mod exchange;
mod gate;
mod health;
mod identity;
mod join;
mod leave;
mod meta;
mod notes;
mod notices;
mod publish;
mod records;
mod replay;
mod rivals;
mod seqs;
mod surface;
mod swim;
mod timers;
mod tombstones;
mod trades;
mod tuning;
mod watch;

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use foca::Foca;

pub use codec::{Codec, CodecError, Malformed};
pub use envelope::{Channel, DATAGRAM_MAX, Envelope, OVERHEAD, Opened, PAYLOAD_MAX, Rejection};
pub use exchange::{REPLY_MAX, REQUEST_MAX};
pub use identity::{Id, NodeId};
pub use meta::{Meta, PLUGINS_MAX, RECORD_MAX, State, TEXT_MAX};
pub use surface::{Command, Counters, Event, Input, Output, Setup, Sizes};
pub use tuning::Tuning;

use broadcasts::Handler;
use challenge::Challenges;
use currency::Currency;
use effects::{Dice, Effects};
use gate::Gate;
use health::Health;
use join::Join;
use meta::{Record, Subject};
use notes::Syncs;
use notices::{Notices, Origin};
use publish::Publisher;
use records::Shared;
use rivals::Rivals;
use swim::Haste;
use timers::{Timer, Timers};
use tombstones::Tombstones;
use trades::Catching;
use watch::Watch;

use super::Keys;

/// Timers that are followed in one go, so that packets are not kept waiting by them.
const TIMERS_AT_ONCE: usize = 64;
/// Records that are being passed on by gossip; while there are more, notes carry them.
const PASSED_ON_MAX: usize = 64;
/// An exchange that nobody has ended after this was lost by whoever drives the machine.
const EXCHANGE_MAX: Duration = Duration::from_mins(1);
/// Exchanges under way. More are not begun.
const EXCHANGES_MAX: usize = 128;

type Swim = Foca<Id, Codec, Dice, Handler>;

/// Membership of one node; see the [module](self).
pub struct Machine {
    tuning: Tuning,
    foca: Swim,
    effects: Effects,
    envelope: Envelope,
    /// The keys that we were told to have, which may be waiting for the others.
    wanted_keys: Keys,
    timers: Timers,
    health: Health,
    haste: Haste,
    watch: Watch,
    records: Shared,
    /// What foca hands broadcasts to; the notices are in it.
    handler: Handler,
    own: Record,
    join: Join,
    exchanges: HashMap<u64, Exchange>,
    challenges: Challenges,
    syncs: Syncs,
    catching: Catching,
    currency: Currency,
    tombstones: Tombstones,
    rivals: Rivals,
    gate: Gate,
    publisher: Publisher,
    phase: Phase,
    /// The members for which foca and the envelope are sized.
    sized_for: usize,
    counters: Counters,
    dice: fastrand::Rng,
    /// The time of the call under way. It never goes back.
    now: Duration,
    /// Up to when timers that came late have been taken for late.
    lag_noted: Duration,
    out: Vec<Output>,
}

/// Whether the node is a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Member,
    /// It has told everybody that it will leave.
    Farewell,
    /// It has left, and says so this many times more.
    Gone(u8),
}

/// Something that was asked over TCP.
#[derive(Debug)]
struct Exchange {
    to: SocketAddr,
    since: Duration,
    purpose: Purpose,
}

#[derive(Debug)]
enum Purpose {
    Challenge(challenge::Cause),
    /// With this digest of our notices.
    Sync {
        notices: u64,
    },
    Push,
    Trade {
        round: u8,
    },
}

impl Machine {
    /// A node that starts at `now`. It does nothing before its first [`Machine::handle`].
    pub fn new(setup: Setup, now: Duration) -> Self {
        let Setup { cluster, keys, id, boot, seed, meta, tuning } = setup;
        let mut dice = fastrand::Rng::with_seed(seed);
        let records = Shared::new(Subject::from(&id));
        let origin = Origin { node: id.node, epoch: id.generation };
        let handler = Handler::new(records.clone(), Notices::new(origin, &tuning, now));
        let own = Record {
            subject: Subject::from(&id),
            epoch: id.generation,
            version: 1,
            meta: Arc::new(meta),
            keys: keys.iter().map(super::keys::Key::fingerprint).collect(),
        };
        let config = tuning::config(&tuning, 1);
        let swim_dice = Dice(fastrand::Rng::with_seed(dice.u64(..)));
        let foca = Foca::with_custom_broadcast(id, config, swim_dice, Codec, handler.clone());
        let mut machine = Self {
            tuning,
            foca,
            effects: Effects::default(),
            envelope: Envelope::new(&cluster, keys.clone(), boot),
            wanted_keys: keys,
            timers: Timers::default(),
            health: Health::default(),
            haste: Haste::default(),
            watch: Watch::default(),
            records,
            handler,
            own,
            join: Join::default(),
            exchanges: HashMap::new(),
            challenges: Challenges::default(),
            syncs: Syncs::default(),
            catching: Catching::default(),
            currency: Currency::new(now),
            tombstones: Tombstones::default(),
            rivals: Rivals::default(),
            gate: Gate::default(),
            publisher: Publisher::new(now),
            phase: Phase::Member,
            sized_for: 1,
            counters: Counters::default(),
            dice,
            now,
            lag_noted: now,
            out: Vec::new(),
        };
        machine.set_off();
        machine
    }

    /// Takes in what happened at `now`, a time since any fixed moment; says what to do.
    pub fn handle(&mut self, input: Input<'_>, now: Duration) -> Vec<Output> {
        self.now = self.now.max(now);
        self.handler.notices().set_now(self.now);
        self.notice_lag();
        match input {
            Input::Datagram { from, bytes } => self.datagram(from, bytes),
            Input::Tick => self.tick(),
            Input::Request { token, from, bytes } => self.request(token, from, bytes),
            Input::Reply { exchange, bytes } => self.reply(exchange, bytes),
            Input::Refused { exchange } => self.ended(exchange, End::Refused),
            Input::Failed { exchange } => self.ended(exchange, End::Failed),
            Input::Command(command) => self.command(command),
        }
        self.follow_up();
        std::mem::take(&mut self.out)
    }

    /// When [`Input::Tick`] is wanted next, if nothing else happens before.
    pub fn next_wake(&self) -> Option<Duration> {
        self.timers.next_due()
    }

    /// Who this node is now.
    pub fn id(&self) -> Id {
        *self.foca.identity()
    }

    /// What it has counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How bad this node takes itself to be, from 0 (well) to 7.
    pub fn health(&self) -> u32 {
        self.health.level()
    }

    /// How much it keeps.
    pub fn sizes(&self) -> Sizes {
        let known = self.foca.iter_membership_state().len();
        let notices = self.handler.notices();
        let passed_on = notices.backlog.items();
        Sizes {
            members: self.foca.num_members(),
            down: known - self.foca.num_members(),
            timers: self.timers.len(),
            senders: self.envelope.senders(),
            exchanges: self.exchanges.len(),
            records: self.records.lock().iter().count(),
            updates_backlog: self.foca.updates_backlog(),
            broadcasts_backlog: self.foca.custom_broadcast_backlog() - passed_on,
            notices_backlog: passed_on,
            notices: notices.kept(),
            notices_bytes: notices.bytes(),
            publishers: notices.origins(),
            gaps: notices.gaps(),
        }
    }

    /// The members that it takes for alive, itself apart.
    pub fn members(&self) -> impl Iterator<Item = Id> {
        self.foca.iter_members().map(|member| *member.id())
    }

    /// Sets the timers that go round for ever.
    fn set_off(&mut self) {
        let own = self.own.clone();
        self.say(own);
        for timer in [Timer::Join, Timer::Publish] {
            self.timers.set(self.now, timer);
        }
        self.begin_watch();
        self.set_jittered(self.tuning.rejoin, Timer::Rejoin);
        self.set_jittered(self.tuning.sync, Timer::Sync);
        self.timers.set(self.now + tombstones::SWEEP, Timer::Sweep);
        self.begin_currency();
    }

    fn tick(&mut self) {
        for _ in 0..TIMERS_AT_ONCE {
            let Some(timer) = self.timers.take_due(self.now) else { return };
            match timer {
                Timer::Swim(timer) => self.swim(|foca, effects| foca.handle_timer(timer, effects)),
                Timer::Suspicion(timer) => self.suspicion_ended(timer),
                Timer::Watch => self.watch(),
                Timer::Doubt { id, incarnation } => self.doubt_ended(id, incarnation),
                Timer::Join => self.try_to_join(),
                Timer::Rejoin => self.knock(),
                Timer::Sync => self.sync_by_turn(),
                Timer::Hungry => self.sync_for_records(),
                Timer::Soon => self.sync_after_news(),
                Timer::CatchUp => self.catch_up(),
                Timer::Currency => self.currency_round(),
                Timer::Look => self.sync_with_any(),
                Timer::Publish => self.publisher.wake(),
                Timer::Sweep => self.sweep(),
                Timer::Leave => self.leave_step(),
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Candidates(candidates) => self.take_candidates(candidates),
            Command::Describe(meta) => self.describe(meta),
            Command::SetState(state) => {
                let meta = Meta { state, ..(*self.own.meta).clone() };
                self.describe(meta);
            }
            Command::Doubt(node) => self.doubt(node),
            Command::SetKeys(keys) => self.set_keys(keys),
            Command::Publish { token, body } => {
                let id = self.issue(body);
                self.out.push(Output::Published { token, id });
            }
            Command::Leave => self.leave(),
        }
    }

    /// Opens what came by TCP; counts what cannot be believed.
    fn open(&mut self, channel: Channel, from: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
        match self.envelope.open(channel, bytes) {
            Ok(opened) => Some(opened.payload),
            Err(rejection) => {
                self.reject(from, rejection);
                None
            }
        }
    }

    fn reject(&mut self, from: SocketAddr, rejection: Rejection) {
        let counters = &mut self.counters;
        *match rejection {
            Rejection::Length => &mut counters.rejected_length,
            Rejection::Version => &mut counters.rejected_version,
            Rejection::Key => &mut counters.rejected_key,
            Rejection::Seal => &mut counters.rejected_seal,
            Rejection::Replay | Rejection::Own => &mut counters.rejected_replay,
            Rejection::Malformed => &mut counters.rejected_malformed,
        } += 1;
        self.out.push(Output::Event(Event::Rejected { from, rejection }));
    }

    /// Somebody asks.
    fn request(&mut self, token: u64, from: SocketAddr, bytes: &[u8]) {
        let payload = self.open(Channel::Request, from, bytes);
        let answer = payload.and_then(|payload| {
            let Ok(request) = exchange::Request::decode(&payload) else {
                self.reject(from, Rejection::Malformed);
                return None;
            };
            self.answer(&request)
        });
        let bytes = answer.map(|answer| self.envelope.seal(Channel::Reply, &answer.encode()));
        self.out.push(Output::Respond { token, bytes });
    }

    fn answer(&mut self, request: &exchange::Request) -> Option<exchange::Reply> {
        if matches!(self.phase, Phase::Gone(_)) || request.from.addr == self.id().addr {
            self.sight(&request.from);
            return None;
        }
        let answer = match &request.question {
            exchange::Question::Challenge { asked, incarnation, verdict } => {
                self.answer_challenge(asked, *incarnation, *verdict)?
            }
            exchange::Question::Sync { incarnation, digests, notes } => {
                self.answer_sync(request.from, *incarnation, *digests, notes)
            }
            exchange::Question::Push { notes } => {
                self.merge(notes);
                exchange::Answer::Equal
            }
            exchange::Question::Trade { versions, parcel } => {
                let answer = self.answer_trade(versions, parcel.clone());
                // Told before it is answered: whoever asked may take it for told.
                self.hear();
                answer
            }
        };
        let is_current = self.currency.is_current();
        Some(exchange::Reply { exchange: request.exchange, is_current, answer })
    }

    /// Asks, unless too much is being asked already.
    fn ask(&mut self, to: SocketAddr, question: exchange::Question, purpose: Purpose) -> bool {
        if self.exchanges.len() >= EXCHANGES_MAX {
            return false;
        }
        let timeout = match purpose {
            Purpose::Challenge(_) => challenge::TIMEOUT,
            Purpose::Sync { .. } | Purpose::Push | Purpose::Trade { .. } => notes::TIMEOUT,
        };
        let exchange = self.dice.u64(..);
        let request = exchange::Request { exchange, from: self.id(), question };
        let bytes = self.envelope.seal(Channel::Request, &request.encode());
        self.exchanges.insert(exchange, Exchange { to, since: self.now, purpose });
        self.out.push(Output::Open { exchange, to, bytes, timeout });
        true
    }

    /// An answer came.
    fn reply(&mut self, exchange: u64, bytes: &[u8]) {
        let Some(asked) = self.exchanges.get(&exchange).map(|it| it.to) else { return };
        let payload = self.open(Channel::Reply, asked, bytes);
        let reply = payload.and_then(|payload| exchange::Reply::decode(&payload).ok());
        match reply.filter(|reply| reply.exchange == exchange) {
            Some(reply) => self.ended(exchange, End::Answered(reply)),
            None => self.ended(exchange, End::Failed),
        }
    }

    fn ended(&mut self, exchange: u64, end: End) {
        let Some(Exchange { to, since, purpose }) = self.exchanges.remove(&exchange) else {
            return;
        };
        if matches!(end, End::Answered(_)) {
            self.currency.heard_somebody();
        }
        match purpose {
            Purpose::Challenge(cause) => self.challenge_ended(to, cause, &end),
            Purpose::Sync { notices } => self.sync_ended(to, notices, since, end),
            Purpose::Push => {}
            Purpose::Trade { round } => self.trade_ended(to, round, since, end),
        }
    }

    /// Sends a packet of foca's.
    fn send(&mut self, to: SocketAddr, packet: &[u8]) {
        let bytes = self.envelope.seal(Channel::Datagram, packet);
        self.counters.datagrams_out += 1;
        self.counters.bytes_out += bytes.len() as u64;
        self.out.push(Output::Datagram { to, bytes });
    }

    /// What one input may have set off.
    fn follow_up(&mut self) {
        let outdo = self.records.lock().take_outdo();
        if let Some((epoch, version)) = outdo {
            self.outdo(epoch, version);
        }
        self.hear();
        self.hurry();
        let notices = self.handler.notices().backlog.items();
        let is_flooded = self.foca.custom_broadcast_backlog() - notices >= PASSED_ON_MAX;
        let has_news = {
            let mut records = self.records.lock();
            records.is_flooded = is_flooded;
            records.take_news()
        };
        if has_news {
            self.publisher.touch();
            self.sync_soon();
        }
        self.give_way();
        if self.publisher.is_touched() {
            self.resize();
            self.turn_keys();
        }
        self.publish();
        self.settle_currency();
    }

    /// A time from now, within a fifth of `after`.
    fn set_jittered(&mut self, after: Duration, timer: Timer) {
        let due = self.now + after.mul_f64(0.8 + 0.4 * self.dice.f64());
        self.timers.set(due, timer);
    }

    fn event(&mut self, event: Event) {
        self.out.push(Output::Event(event));
    }
}

/// How an exchange ended.
#[derive(Debug)]
enum End {
    Answered(exchange::Reply),
    Refused,
    Failed,
}
