use foca::State;
use proptest::prelude::*;

use bytes::Bytes;

use super::*;
use crate::cluster::{
    NOTICE_MAX, Notice, NoticeId,
    machine::{
        NodeId, broadcasts, codec,
        meta::{Meta, Record, Subject},
        notices::{ORIGINS_MAX, Origin, RANGES_MAX},
        seqs::Seqs,
    },
};

fn id(number: u8) -> Id {
    let addr = if number.is_multiple_of(3) {
        format!("[2001:db8::{number:x}]:{number}").parse().unwrap()
    } else {
        ([10, 0, 0, number], 9999).into()
    };
    Id::new(addr, u64::from(number) << 20, NodeId(u64::from(number)))
}

fn record(number: u8) -> Vec<u8> {
    let meta = Meta {
        peer: id(number).addr,
        weight: 100,
        zone: "b".repeat(usize::from(number % 40)),
        version: "0.1".to_owned(),
        ring: 1,
        plugins: vec![2; usize::from(number % 9)],
        state: crate::cluster::State::Serving,
    };
    let subject = Subject::from(&id(number));
    Record { subject, epoch: 5, version: 6, meta: meta.into(), keys: vec![7] }.encode()
}

fn notes(count: u8) -> Notes {
    let states = [State::Alive, State::Suspect, State::Down];
    let member = |it: u8| Member::new(id(it), u16::from(it), states[usize::from(it) % 3]);
    Notes { members: (1..=count).map(member).collect(), records: (1..=count).map(record).collect() }
}

fn versions(count: u64) -> Vec<Version> {
    let version = |it: u64| {
        let mut seqs = Seqs::default();
        seqs.add(1, it);
        (1..it).for_each(|gap| seqs.add(10 * gap, 10 * gap + 3));
        Version { origin: Origin { node: NodeId(it), epoch: it << 20 }, seqs, age: 7 }
    };
    (1..=count).map(version).collect()
}

fn parcel(count: u64) -> Parcel {
    let handed = |seq: u64| {
        let id = NoticeId { node: NodeId(1), epoch: 1 << 47, seq };
        let body = Bytes::from(vec![9; usize::try_from(300 * seq).unwrap_or(0)]);
        Handed { notice: Notice { id, body }, age: u32::MAX }
    };
    Parcel { is_all: count.is_multiple_of(2), notices: (0..count).map(handed).collect() }
}

fn requests() -> Vec<Request> {
    let digests = Digests { members: 1, records: 2, notices: 3 };
    let questions = [
        Question::Challenge { asked: id(2), incarnation: 3, verdict: Verdict::Unheard },
        Question::Challenge { asked: id(2), incarnation: 3, verdict: Verdict::Suspect },
        Question::Challenge { asked: id(2), incarnation: 3, verdict: Verdict::Down },
        Question::Sync { incarnation: 4, digests, notes: notes(1) },
        Question::Push { notes: notes(40) },
        Question::Trade { versions: versions(3), parcel: parcel(4) },
    ];
    questions.map(|question| Request { exchange: 9, from: id(1), question }).into()
}

fn replies() -> Vec<Reply> {
    let digests = Digests { members: 1, records: 2, notices: 3 };
    let answers = [
        Answer::Alive { id: id(3), incarnation: 4 },
        Answer::Equal,
        Answer::Notes { digests, notes: notes(40), versions: versions(5) },
        Answer::Trade { versions: versions(0), parcel: parcel(3) },
    ];
    answers.map(|answer| Reply { exchange: u64::MAX, is_current: true, answer }).into()
}

#[test]
fn requests_and_replies_come_back_and_are_refused_when_cut() {
    for request in requests() {
        let bytes = request.encode();
        assert_eq!(Request::decode(&bytes), Ok(request));
        assert!((0..bytes.len()).all(|end| Request::decode(&bytes[..end]).is_err()));
    }
    for reply in replies() {
        let bytes = reply.encode();
        assert_eq!(Reply::decode(&bytes), Ok(reply));
        assert!((0..bytes.len()).all(|end| Reply::decode(&bytes[..end]).is_err()));
    }
}

#[test]
fn a_count_that_is_only_claimed_takes_no_memory() {
    for request in requests().into_iter().skip(2).take(1) {
        let mut bytes = request.encode();
        // The count of members, after the tag, the exchange and the asker.
        let at = 1 + 8 + id(1).encoded_len();
        bytes[at..at + 4].copy_from_slice(&20_000_u32.to_be_bytes());
        assert_eq!(Request::decode(&bytes), Err(Malformed));
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(Request::decode(&bytes), Err(Malformed));
    }
}

#[test]
fn notes_of_any_length_are_cut_to_what_a_request_may_have() {
    let mut all = notes(200);
    for _ in 0..5 {
        all.members.extend(all.members.clone());
        all.records.extend(all.records.clone());
    }
    all.cut();
    let asked = Request { exchange: 1, from: id(3), question: Question::Push { notes: all } };
    let len = asked.encode().len();
    assert!((REQUEST_MAX - 2_000..REQUEST_MAX - 100).contains(&len), "{len} bytes");
}

/// Everything that reads what came from the network.
fn read_all(bytes: &[u8]) {
    let _ = Request::decode(bytes);
    let _ = Reply::decode(bytes);
    let _ = Record::decode(bytes);
    broadcasts::tests::receive(bytes);
    if let Ok((_, members)) = codec::peek(bytes) {
        assert!(members.count() <= bytes.len());
    }
}

proptest! {
    #[test]
    fn random_bytes_panic_nowhere(bytes: Vec<u8>, tag in 0..12_u8) {
        read_all(&bytes);
        let tagged: Vec<u8> = std::iter::once(tag).chain(bytes).collect();
        read_all(&tagged);
    }

    #[test]
    fn changed_bytes_panic_nowhere(
        which in 0..9_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut valid: Vec<Vec<u8>> = requests().iter().map(Request::encode).collect();
        valid.extend(replies().iter().map(Reply::encode));
        valid.push(record(200));
        let mut bytes = valid.swap_remove(which);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read_all(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        read_all(&bytes);
    }
}

#[test]
fn versions_that_nobody_has_written_are_refused() {
    let encode = |versions: &[Version]| {
        let mut bytes = Vec::new();
        Version::encode_all(versions, &mut bytes);
        bytes
    };
    let one = encode(&versions(2));
    assert_eq!(Version::decode_all(&mut &one[..]), Ok(versions(2)));
    // The second range of the second publisher, moved before its first.
    let mut unordered = one.clone();
    let at = one.len() - 16;
    unordered[at..at + 8].copy_from_slice(&1_u64.to_be_bytes());
    assert_eq!(Version::decode_all(&mut &unordered[..]), Err(Malformed));
    // More publishers, and more ranges, than anybody keeps.
    let origins = u32::try_from(ORIGINS_MAX).unwrap() + 1;
    let mut many = vec![0; 20 * ORIGINS_MAX + 40];
    many[..4].copy_from_slice(&origins.to_be_bytes());
    assert_eq!(Version::decode_all(&mut &many[..]), Err(Malformed));
    let mut seqs = Seqs::default();
    (1..=RANGES_MAX as u64 + 2).for_each(|it| seqs.add(2 * it, 2 * it));
    let ragged = Version { seqs, ..versions(1).remove(0) };
    assert_eq!(Version::decode_all(&mut &encode(&[ragged])[..]), Err(Malformed));
}

#[test]
fn a_request_has_room_for_all_versions_and_the_longest_notice() {
    let versions = ORIGINS_MAX * (20 + 16) + RANGES_MAX * 16 + 4;
    let id = NoticeId { node: NodeId(1), epoch: 1, seq: 1 };
    let notice = Notice { id, body: vec![0; NOTICE_MAX].into() };
    assert!(versions + Handed { notice, age: 1 }.len() <= PUSHED_MAX);
}
