//! Datagrams as they come from anybody: the seal around them, and foca's packets inside.
//!
//! An input is packets one after another, each with a byte that says whether it comes as it
//! is or is sealed first, with a key of the cluster or another one, and is then cut or changed.

use bytes::Buf as _;
use foca::Codec as _;
use simulation::cluster::{
    Keys,
    machine::{Channel, Codec, Envelope, OVERHEAD, Rejection},
};

use super::MEMBERSHIP_CLUSTER;
use crate::feed::Feed;

/// Senders that an envelope for a small cluster keeps something of.
const SENDERS_MAX: usize = 64;

/// Runs one input; whether a packet in it was one of foca's.
///
/// # Panics
/// A packet that was changed is believed, one is believed twice, what is opened is not what
/// was sealed, or something grows.
pub fn run(data: &[u8]) -> bool {
    let keys = Keys::insecure(MEMBERSHIP_CLUSTER);
    let mut receiver = Envelope::new(MEMBERSHIP_CLUSTER, keys.clone(), 1);
    let mut feed = Feed(data);
    let mut is_known = false;
    let mut boot = 1;
    while !feed.is_empty() {
        let kind = feed.byte();
        let channel = match feed.byte() % 3 {
            0 => Channel::Datagram,
            1 => Channel::Request,
            _ => Channel::Reply,
        };
        let at = usize::from(feed.short());
        let bytes = feed.text();
        boot += 1;
        match kind % 4 {
            0 => {
                let opened = receiver.open(channel, bytes);
                assert!(opened.is_err(), "believed without a seal: {opened:?}");
            }
            1 => {
                let sealed =
                    Envelope::new(MEMBERSHIP_CLUSTER, keys.clone(), boot).seal(channel, bytes);
                is_known |= honest(&mut receiver, channel, bytes, &sealed);
            }
            2 => {
                let mut packet =
                    Envelope::new(MEMBERSHIP_CLUSTER, keys.clone(), boot).seal(channel, bytes);
                let at = at % packet.len();
                packet[at] ^= kind.rotate_left(3) | 1;
                assert!(receiver.open(channel, &packet).is_err(), "changed at {at}");
                packet.truncate(at);
                assert!(receiver.open(channel, &packet).is_err(), "cut at {at}");
            }
            _ => {
                let cluster = if at.is_multiple_of(2) { "other" } else { MEMBERSHIP_CLUSTER };
                let keys = Keys::insecure(if at.is_multiple_of(3) { "x" } else { cluster });
                let is_ours = keys == Keys::insecure(MEMBERSHIP_CLUSTER);
                let is_ours = is_ours && cluster == MEMBERSHIP_CLUSTER;
                let packet = Envelope::new(cluster, keys, boot).seal(channel, bytes);
                let opened = receiver.open(channel, &packet);
                assert!(is_ours || opened.is_err(), "believed from a stranger: {opened:?}");
            }
        }
        assert!(receiver.senders() <= SENDERS_MAX, "{} senders", receiver.senders());
    }
    is_known
}

/// A packet of a member: once, and no more than once.
fn honest(receiver: &mut Envelope, channel: Channel, bytes: &[u8], sealed: &[u8]) -> bool {
    assert_eq!(sealed.len(), bytes.len() + OVERHEAD);
    let opened = match receiver.open(channel, sealed) {
        Ok(opened) => opened,
        Err(rejection) => {
            let is_long = channel == Channel::Datagram && bytes.len() + OVERHEAD > 1_232;
            assert!(is_long && rejection == Rejection::Length, "an honest packet: {rejection}");
            return false;
        }
    };
    assert_eq!(opened.payload, bytes);
    assert_eq!(receiver.open(channel, sealed), Err(Rejection::Replay));
    is_foca(&opened.payload)
}

/// Whether `payload` is a packet of foca's. What is read of it must be written and read alike.
fn is_foca(mut payload: &[u8]) -> bool {
    let codec = &mut Codec;
    let Ok(header) = codec.decode_header(&mut payload) else { return false };
    let mut again = Vec::new();
    codec.encode_header(&header, &mut again).expect("a Vec has room");
    assert_eq!(codec.decode_header(&again[..]), Ok(header));
    let members = payload.try_get_u16().unwrap_or(0);
    for _ in 0..members {
        let Ok(member) = codec.decode_member(&mut payload) else { break };
        let mut again = Vec::new();
        codec.encode_member(&member, &mut again).expect("a Vec has room");
        assert_eq!(codec.decode_member(&again[..]), Ok(member));
    }
    true
}
