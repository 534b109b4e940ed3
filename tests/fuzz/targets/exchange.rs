//! What members ask one another over TCP and answer: challenges, comparing notes, notices.
//!
//! The first byte of an input says which it is; the rest is the body, sealed with a key of
//! the cluster, so that it is read. A reply is given to a question that the node has asked.

use simulation::cluster::machine::{
    Channel, Command, Envelope, Input, Machine, Output, REPLY_MAX, Setup,
};

use super::{MEMBERSHIP_TIME, machine::check_sizes, subject};

/// What a node answers at least, whatever it is asked: what it knows itself.
const ANSWER: usize = 4_096;

/// Runs one input; whether it was read.
///
/// # Panics
/// The node keeps or answers more than it was told.
pub fn run(data: &[u8]) -> bool {
    let Some((kind, body)) = data.split_first() else { return false };
    let mut node = Machine::new(subject(0), MEMBERSHIP_TIME);
    let Setup { cluster, keys, id, boot, .. } = subject(1);
    let mut other = Envelope::new(&cluster, keys, boot);
    let now = MEMBERSHIP_TIME;
    let from = id.addr;
    let outputs = if kind % 2 == 0 {
        let bytes = other.seal(Channel::Request, body);
        node.handle(Input::Request { token: 1, from, bytes: &bytes }, now)
    } else {
        let asked = ask(&mut node, &mut other, from);
        let Some(exchange) = asked else { return false };
        let mut body = body.to_vec();
        if let Some(number) = body.get_mut(1..9) {
            number.copy_from_slice(&exchange.to_be_bytes());
        }
        let bytes = other.seal(Channel::Reply, &body);
        node.handle(Input::Reply { exchange, bytes: &bytes }, now)
    };
    check_sizes(&node, data.len());
    for output in &outputs {
        match output {
            Output::Respond { bytes: Some(bytes), .. } | Output::Open { bytes, .. } => {
                let bound = ANSWER + 8 * data.len();
                assert!(bytes.len() <= bound.min(REPLY_MAX), "answers {} bytes", bytes.len());
            }
            _ => {}
        }
    }
    let counters = node.counters();
    counters.rejected_malformed == 0 && counters.syncs_failed == 0
}

/// Has `node` ask something, and says under which number.
fn ask(node: &mut Machine, other: &mut Envelope, from: std::net::SocketAddr) -> Option<u64> {
    // A node compares notes with whoever says hello at an address that it was told of.
    let now = MEMBERSHIP_TIME;
    let mut outputs = node.handle(Input::Command(Command::Candidates(vec![from])), now);
    for packet in super::machine::greetings() {
        let bytes = other.seal(Channel::Datagram, &packet);
        outputs.extend(node.handle(Input::Datagram { from, bytes: &bytes }, now));
    }
    for _ in 0..64 {
        let Some(at) = node.next_wake() else { break };
        outputs.extend(node.handle(Input::Tick, at));
        if let Some(exchange) = outputs.iter().find_map(|output| match output {
            Output::Open { exchange, .. } => Some(*exchange),
            _ => None,
        }) {
            return Some(exchange);
        }
    }
    None
}
