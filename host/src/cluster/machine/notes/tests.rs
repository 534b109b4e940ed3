use super::*;
use crate::cluster::{
    Keys, Meta, NodeId, Tuning,
    machine::{Command, Input, Output, Setup},
};

const NOW: Duration = Duration::from_secs(5);

fn machine(number: u8) -> Machine {
    let addr: SocketAddr = ([10, 0, 0, number], 9999).into();
    let meta = Meta {
        peer: addr,
        weight: 100,
        zone: String::new(),
        version: String::new(),
        ring: 1,
        plugins: Vec::new(),
        state: crate::cluster::State::Serving,
    };
    let setup = Setup {
        cluster: "test".to_owned(),
        keys: Keys::insecure("test"),
        id: Id::new(addr, 1_000 + u64::from(number), NodeId(number.into())),
        boot: number.into(),
        seed: number.into(),
        meta,
        tuning: Tuning::default(),
    };
    Machine::new(setup, Duration::ZERO)
}

/// Hands `to` the requests among `outputs`, and whoever asked the answers, until all is said.
/// Datagrams get lost.
fn converse(machines: &mut [Machine; 2], from: usize, outputs: Vec<Output>) {
    for output in outputs {
        let Output::Open { exchange, bytes, .. } = output else { continue };
        let from_addr = machines[from].id().addr;
        let request = Input::Request { token: 1, from: from_addr, bytes: &bytes };
        for output in machines[1 - from].handle(request, NOW) {
            if let Output::Respond { bytes: Some(bytes), .. } = output {
                let more = machines[from].handle(Input::Reply { exchange, bytes: &bytes }, NOW);
                converse(machines, from, more);
            }
        }
    }
}

/// Two members that know the same.
fn two() -> [Machine; 2] {
    let mut machines = [machine(1), machine(2)];
    let other = machines[1].id().addr;
    let outputs = machines[0].handle(Input::Command(Command::Candidates(vec![other])), NOW);
    converse(&mut machines, 0, outputs);
    assert_eq!(machines[0].digests(), machines[1].digests());
    assert_eq!(machines[0].members().count(), 1);
    machines
}

fn answer(machines: &mut [Machine; 2]) -> Answer {
    let (asker, digests) = (machines[0].id(), machines[0].digests());
    let incarnation = machines[0].incarnation();
    machines[1].answer_sync(asker, incarnation, digests, &Notes::default())
}

#[test]
fn whoever_knows_the_same_is_told_nothing_more() {
    assert_eq!(answer(&mut two()), Answer::Equal);
    let mut machines = two();
    machines[0].handle(Input::Command(publish()), NOW);
    assert_ne!(answer(&mut machines), Answer::Equal);
    let to = machines[1].id().addr;
    machines[0].sync(to);
    let outputs = std::mem::take(&mut machines[0].out);
    converse(&mut machines, 0, outputs);
    assert_eq!(answer(&mut machines), Answer::Equal);
}

fn publish() -> Command {
    Command::Publish { token: 1, body: bytes::Bytes::from_static(b"text") }
}

#[test]
fn each_digest_tells_what_differs_and_nothing_else_goes_over() {
    // Who the members are, what they say of themselves, what they have published.
    let mut machines = two();
    let third = Member::new(machine(3).id(), 0, State::Alive);
    machines[1].swim(|foca, to| foca.apply_many(std::iter::once(third), true, to));
    let Answer::Notes { notes, versions, .. } = answer(&mut machines) else { panic!("equal") };
    assert_eq!((notes.members.len(), versions.len()), (3, 0));

    let mut machines = two();
    let told = Meta { weight: 7, ..(*machines[1].own.meta).clone() };
    machines[1].handle(Input::Command(Command::Describe(told)), NOW);
    let Answer::Notes { notes, versions, .. } = answer(&mut machines) else { panic!("equal") };
    assert_eq!((notes.records.len(), versions.len()), (2, 0));

    let mut machines = two();
    machines[1].handle(Input::Command(publish()), NOW);
    let Answer::Notes { notes, versions, .. } = answer(&mut machines) else { panic!("equal") };
    assert_eq!((notes, versions.len()), (Notes::default(), 1));
}

#[test]
fn a_suspect_that_knows_the_same_is_told_that_it_is_one() {
    let mut machines = two();
    let asker = machines[0].id();
    let suspect = Member::new(asker, 3, State::Suspect);
    machines[1].swim(|foca, to| foca.apply_many(std::iter::once(suspect.clone()), true, to));
    let Answer::Notes { notes, versions, .. } = answer(&mut machines) else { panic!("equal") };
    assert_eq!((notes.members, versions), (vec![suspect], Vec::new()));
}
