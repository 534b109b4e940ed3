use proptest::prelude::*;

use super::*;

const CHANNELS: [Channel; 3] = [Channel::Datagram, Channel::Request, Channel::Reply];

fn keys(lines: &[u8]) -> Keys {
    let line = |byte: &u8| {
        use base64::Engine as _;
        base64::prelude::BASE64_STANDARD.encode([*byte; 32]) + "\n"
    };
    Keys::from_text(&lines.iter().map(line).collect::<String>()).unwrap()
}

fn pair() -> (Envelope, Envelope) {
    (Envelope::new("blue", keys(&[1]), 10), Envelope::new("blue", keys(&[1]), 20))
}

#[test]
fn a_packet_is_opened_once_and_says_which_start_of_its_sender_it_is_from() {
    let (mut here, mut there) = pair();
    let packet = here.seal(Channel::Datagram, b"hello");
    assert_eq!(packet.len(), 5 + OVERHEAD);
    let opened = there.open(Channel::Datagram, &packet).unwrap();
    assert_eq!((opened.boot, &opened.payload[..]), (10, &b"hello"[..]));
    assert_eq!(there.open(Channel::Datagram, &packet), Err(Rejection::Replay));
    assert_eq!(here.open(Channel::Datagram, &packet), Err(Rejection::Own));
}

#[test]
fn equal_payloads_look_different_each_time_and_for_each_start() {
    let (mut here, mut there) = pair();
    let one = here.seal(Channel::Datagram, b"equal");
    let two = here.seal(Channel::Datagram, b"equal");
    let three = there.seal(Channel::Datagram, b"equal");
    assert_ne!(one[HEAD..], two[HEAD..]);
    assert_ne!(one[HEAD..], three[HEAD..]);
}

#[test]
fn another_key_cluster_channel_or_version_is_not_opened() {
    let (mut here, _) = pair();
    let packet = here.seal(Channel::Request, b"hello");
    let open = |cluster, lines: &[u8], channel, packet: &[u8]| {
        Envelope::new(cluster, keys(lines), 20).open(channel, packet)
    };
    assert!(open("blue", &[1], Channel::Request, &packet).is_ok());
    assert_eq!(open("blue", &[2], Channel::Request, &packet), Err(Rejection::Key));
    assert_eq!(open("green", &[1], Channel::Request, &packet), Err(Rejection::Seal));
    assert_eq!(open("blue", &[1], Channel::Reply, &packet), Err(Rejection::Seal));
    let mut later = packet.clone();
    later[0] += 1;
    assert_eq!(open("blue", &[1], Channel::Request, &later), Err(Rejection::Version));
}

#[test]
fn a_key_is_turned_without_a_packet_lost() {
    let mut old = Envelope::new("blue", keys(&[1]), 10);
    let mut both = Envelope::new("blue", keys(&[1, 2]), 20);
    let mut new = Envelope::new("blue", keys(&[2, 1]), 30);
    let packet = new.seal(Channel::Datagram, b"new");
    assert!(both.open(Channel::Datagram, &packet).is_ok());
    assert_eq!(old.open(Channel::Datagram, &packet), Err(Rejection::Key));
    let packet = old.seal(Channel::Datagram, b"old");
    assert!(both.open(Channel::Datagram, &packet).is_ok());
    // What was seen stays seen when the keys change.
    both.set_keys(keys(&[2, 1]));
    assert_eq!(both.open(Channel::Datagram, &packet), Err(Rejection::Replay));
    both.set_keys(keys(&[2]));
    let packet = old.seal(Channel::Datagram, b"late");
    assert_eq!(both.open(Channel::Datagram, &packet), Err(Rejection::Key));
}

#[test]
fn nothing_is_kept_of_senders_that_are_not_believed() {
    let mut here = Envelope::new("blue", keys(&[1]), 1);
    for boot in 10..2_000 {
        let mut stranger = Envelope::new("green", keys(&[1]), boot);
        let packet = stranger.seal(Channel::Datagram, b"hello");
        assert_eq!(here.open(Channel::Datagram, &packet), Err(Rejection::Seal));
    }
    assert_eq!(here.senders(), 0);
    // And of those that are, no more than a bound.
    here.set_members(20);
    for boot in 10..2_000 {
        let mut member = Envelope::new("blue", keys(&[1]), boot);
        here.open(Channel::Datagram, &member.seal(Channel::Datagram, b"hello")).unwrap();
    }
    assert_eq!(here.senders(), 80);
}

#[test]
fn the_longest_payload_fills_a_datagram() {
    let (mut here, mut there) = pair();
    let packet = here.seal(Channel::Datagram, &[0; PAYLOAD_MAX]);
    assert_eq!(packet.len(), DATAGRAM_MAX);
    assert!(there.open(Channel::Datagram, &packet).is_ok());
    let packet = here.seal(Channel::Datagram, &[0; PAYLOAD_MAX + 1]);
    assert_eq!(there.open(Channel::Datagram, &packet), Err(Rejection::Length));
    let packet = here.seal(Channel::Request, &[0; PAYLOAD_MAX + 1]);
    assert!(there.open(Channel::Request, &packet).is_ok());
}

proptest! {
    #[test]
    fn random_bytes_open_nothing(bytes: Vec<u8>, channel in 0..3_usize) {
        let (_, mut there) = pair();
        prop_assert!(there.open(CHANNELS[channel], &bytes).is_err());
    }

    #[test]
    fn a_packet_that_changed_anywhere_opens_nothing(
        payload: Vec<u8>,
        at: prop::sample::Index,
        bit in 0..8_u8,
    ) {
        let (mut here, mut there) = pair();
        let mut packet = here.seal(Channel::Datagram, &payload);
        let at = at.index(packet.len());
        packet[at] ^= 1_u8 << bit;
        prop_assert!(there.open(Channel::Datagram, &packet).is_err());
        packet[at] ^= 1_u8 << bit;
        prop_assert_eq!(there.open(Channel::Datagram, &packet).unwrap().payload, payload);
        prop_assert!(there.open(Channel::Datagram, &packet[..packet.len() - 1]).is_err());
    }
}
