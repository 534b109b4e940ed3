//! Membership as a whole: whatever members send it, in any order and at any time.
//!
//! An input is a sequence of what happens to a node: time passes, datagrams, questions and
//! answers of members come (sealed here, so that they are read), what it asked ends, and it
//! is told to do things.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use bytes::Bytes;
use foca::{Codec as _, Header, Message};
use simulation::cluster::{
    Keys, NOTICE_MAX,
    machine::{
        Channel, Codec, Command, Envelope, Input, Machine, NodeId, Output, REPLY_MAX, Setup, Sizes,
        State,
    },
};

use super::{MEMBERSHIP_TIME, subject};
use crate::feed::Feed;

/// Members that send.
const MEMBERS: u8 = 4;
/// Steps of one input.
const STEPS_MAX: usize = 512;
/// Ticks that one step of time takes at most.
const TICKS_MAX: usize = 256;
/// What happens: these, and an unsealed packet.
const KINDS: u8 = 8;

/// One node, and what it has asked.
struct World {
    node: Machine,
    now: Duration,
    members: Vec<(SocketAddr, Envelope)>,
    asked: VecDeque<u64>,
    has_left: bool,
}

/// Runs one input; whether the node believed something.
///
/// # Panics
/// The node keeps more than it was told, or sends more than it may.
pub fn run(data: &[u8]) -> bool {
    let members = (1..=MEMBERS).map(|number| {
        let Setup { cluster, keys, id, boot, .. } = subject(number);
        (id.addr, Envelope::new(&cluster, keys, boot))
    });
    let mut world = World {
        node: Machine::new(subject(0), MEMBERSHIP_TIME),
        now: MEMBERSHIP_TIME,
        members: members.collect(),
        asked: VecDeque::new(),
        has_left: false,
    };
    let mut feed = Feed(data);
    for _ in 0..STEPS_MAX {
        if feed.is_empty() || world.has_left {
            break;
        }
        world.step(&mut feed);
        check_sizes(&world.node, data.len());
    }
    let counters = world.node.counters();
    counters.datagrams_in > 0 || counters.syncs > 0 || counters.trades > 0
}

impl World {
    fn step(&mut self, feed: &mut Feed<'_>) {
        match feed.byte() % KINDS {
            0 => self.pass(Duration::from_millis(u64::from(feed.short()))),
            1 => {
                let (from, bytes) = self.sealed(Channel::Datagram, feed);
                self.give(Input::Datagram { from, bytes: &bytes });
            }
            2 => {
                let (from, bytes) = self.sealed(Channel::Request, feed);
                self.give(Input::Request { token: 1, from, bytes: &bytes });
            }
            3 => self.reply(feed),
            4 => {
                let Some(exchange) = self.asked.pop_front() else { return };
                self.give(Input::Refused { exchange });
            }
            5 => {
                let Some(exchange) = self.asked.pop_front() else { return };
                self.give(Input::Failed { exchange });
            }
            6 => {
                let (from, bytes) = (self.members[0].0, feed.text());
                self.give(Input::Datagram { from, bytes });
            }
            _ => {
                let command = command(feed);
                self.give(Input::Command(command));
            }
        }
    }

    /// Lets time pass, with a tick whenever the node wants one.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..TICKS_MAX {
            match self.node.next_wake() {
                Some(at) if at <= until && !self.has_left => {
                    self.now = self.now.max(at);
                    self.give(Input::Tick);
                }
                _ => break,
            }
        }
        self.now = until;
    }

    fn sealed(&mut self, channel: Channel, feed: &mut Feed<'_>) -> (SocketAddr, Vec<u8>) {
        let member = usize::from(feed.byte() % MEMBERS);
        let (from, envelope) = &mut self.members[member];
        (*from, envelope.seal(channel, feed.text()))
    }

    /// Answers what was asked first.
    fn reply(&mut self, feed: &mut Feed<'_>) {
        let member = usize::from(feed.byte() % MEMBERS);
        let mut body = feed.text().to_vec();
        let Some(exchange) = self.asked.pop_front() else { return };
        if let Some(number) = body.get_mut(1..9) {
            number.copy_from_slice(&exchange.to_be_bytes());
        }
        let bytes = self.members[member].1.seal(Channel::Reply, &body);
        self.give(Input::Reply { exchange, bytes: &bytes });
    }

    fn give(&mut self, input: Input<'_>) {
        for output in self.node.handle(input, self.now) {
            match output {
                Output::Datagram { bytes, .. } => assert!(bytes.len() <= 1_232),
                Output::Open { exchange, bytes, .. } => {
                    assert!(bytes.len() <= REPLY_MAX);
                    self.asked.push_back(exchange);
                }
                Output::Respond { bytes: Some(bytes), .. } => assert!(bytes.len() <= REPLY_MAX),
                Output::Notice(notice) => assert!(notice.body.len() <= NOTICE_MAX),
                Output::Left => self.has_left = true,
                _ => {}
            }
        }
    }
}

/// Something that the node is told to do.
fn command(feed: &mut Feed<'_>) -> Command {
    match feed.byte() % 8 {
        0 => {
            let count = feed.byte() % 8;
            let address = |_| SocketAddr::from((feed.array::<4>(), feed.short()));
            Command::Candidates((0..count).map(address).collect())
        }
        1 => {
            let mut meta = subject(0).meta;
            meta.weight = feed.short();
            meta.ring = u64::from(feed.byte() % 2);
            meta.zone = String::from_utf8_lossy(feed.text()).into_owned();
            Command::Describe(meta)
        }
        2 => Command::SetState(match feed.byte() % 3 {
            0 => State::Joining,
            1 => State::Serving,
            _ => State::Draining,
        }),
        3 => Command::Doubt(NodeId(feed.long())),
        4 => Command::SetKeys(Keys::insecure(if feed.byte().is_multiple_of(4) {
            "x"
        } else {
            "fuzz"
        })),
        5 | 6 => Command::Publish { token: 0, body: Bytes::copy_from_slice(feed.text()) },
        _ if feed.byte().is_multiple_of(8) => Command::Leave,
        _ => Command::SetState(State::Serving),
    }
}

/// Nothing that the node keeps is more than what `told` bytes can have said.
pub(super) fn check_sizes(node: &Machine, told: usize) {
    let sizes = node.sizes();
    let Sizes { members, down, timers, senders, exchanges, records, .. } = sizes;
    let known = members + down;
    // A member takes 21 bytes on the wire at least, a record 49, a notice 30, a publisher 20,
    // a range that was heard 16.
    let bounds = [
        ("members", known, told / 16 + 8),
        ("timers", timers, 32 + 8 * (known + exchanges)),
        ("senders", senders, 64 + 4 * known),
        ("exchanges", exchanges, 128),
        ("records", records, told / 32 + 8),
        ("updates", sizes.updates_backlog, known + 8),
        ("broadcasts", sizes.broadcasts_backlog, told / 16 + 32),
        ("notices to pass on", sizes.notices_backlog, told / 4 + 32),
        ("notices", sizes.notices, told / 4 + 8),
        ("bytes of notices", sizes.notices_bytes, 64 * told + 1_024),
        ("publishers", sizes.publishers, told / 8 + 8),
        ("gaps", sizes.gaps, told / 8 + 8),
    ];
    for (what, size, bound) in bounds {
        assert!(size <= bound, "{size} {what} after {told} bytes: {sizes:?}");
    }
}

/// What the first other node says to become a member.
pub(super) fn greetings() -> Vec<Vec<u8>> {
    let (own, src) = (subject(0).id, subject(1).id);
    let header = Header { src, src_incarnation: 0, dst: own, message: Message::Announce };
    let mut packet = Vec::new();
    Codec.encode_header(&header, &mut packet).expect("a Vec has room");
    vec![packet]
}
