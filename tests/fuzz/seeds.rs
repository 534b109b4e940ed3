//! What the corpus begins with: what the node's own code says, so that inputs made from it
//! are nearly right.

use std::{collections::VecDeque, fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use fuzz::{
    MEMBERSHIP_TIME, subject,
    value::Head,
    wire::{
        GetResponse, PeerPath, Purge, PurgeId, Scope,
        link::{Failure, Frame, Offer, PREFACE, Question, Terms, Why, check},
    },
};
use simulation::cluster::machine::{Channel, Command, Envelope, Input, Machine, Output, Setup};

/// Writes the seeds of a target into its folder.
pub(crate) fn write(target: &str, folder: &Path) {
    let seeds = match target {
        "envelope" => envelope(),
        "exchange" => exchange(),
        "machine" => machine(),
        "link" => link(),
        "peer_reply" => peer_reply(),
        "peer_request" => peer_request(),
        "purge" => purge(),
        other => panic!("no seeds for {other}"),
    };
    fs::create_dir_all(folder).expect("a folder");
    for (number, seed) in seeds.iter().enumerate() {
        fs::write(folder.join(format!("seed-{number:02}")), seed).expect("a seed");
    }
}

/// What came to the first of three nodes, from another: opened.
struct Heard {
    at: Duration,
    from: u8,
    channel: Channel,
    payload: Vec<u8>,
}

/// What three nodes say to one another in a minute, as the first of them hears it. Datagrams
/// get lost while `is_lossy` nodes publish something, so that they hand it over by TCP; then
/// what the others say to one another by TCP is heard as well.
fn conversation(is_lossy: bool) -> Vec<Heard> {
    const NODES: u8 = 3;
    let mut nodes: Vec<_> =
        (0..NODES).map(|node| Machine::new(subject(node), MEMBERSHIP_TIME)).collect();
    let Setup { cluster, keys, .. } = subject(0);
    let mut ear = Envelope::new(&cluster, keys, 1);
    let number = |addr: SocketAddr| (0..NODES).find(|node| subject(*node).id.addr == addr);
    let mut heard = Vec::new();
    let mut todo: VecDeque<(u8, Output)> = VecDeque::new();
    let mut now = MEMBERSHIP_TIME;
    let (publish, end) = (now + Duration::from_secs(5), now + Duration::from_mins(1));
    for (node, machine) in (0..).zip(&mut nodes) {
        let others = (0..NODES).filter(|other| *other != node);
        let others = others.map(|other| subject(other).id.addr).collect();
        let outputs = machine.handle(Input::Command(Command::Candidates(others)), now);
        todo.extend(outputs.into_iter().map(|output| (node, output)));
    }
    let mut is_published = false;
    loop {
        while let Some((from, output)) = todo.pop_front() {
            let source = subject(from).id.addr;
            match output {
                Output::Datagram { to, bytes } => {
                    let Some(to) = number(to) else { continue };
                    if is_lossy && now > publish && now < publish + Duration::from_secs(2) {
                        continue;
                    }
                    if to == 0
                        && let Ok(opened) = ear.open(Channel::Datagram, &bytes)
                    {
                        let payload = opened.payload;
                        heard.push(Heard { at: now, from, channel: Channel::Datagram, payload });
                    }
                    let input = Input::Datagram { from: source, bytes: &bytes };
                    let outputs = nodes[usize::from(to)].handle(input, now);
                    todo.extend(outputs.into_iter().map(|output| (to, output)));
                }
                Output::Open { exchange, to, bytes, .. } => {
                    let Some(to) = number(to) else { continue };
                    if (to == 0 || is_lossy && from != 0)
                        && let Ok(opened) = ear.open(Channel::Request, &bytes)
                    {
                        let payload = opened.payload;
                        heard.push(Heard { at: now, from, channel: Channel::Request, payload });
                    }
                    let input = Input::Request { token: 0, from: source, bytes: &bytes };
                    for output in nodes[usize::from(to)].handle(input, now) {
                        let Output::Respond { bytes: Some(bytes), .. } = &output else {
                            todo.push_back((to, output));
                            continue;
                        };
                        if (from == 0 || is_lossy && to != 0)
                            && let Ok(opened) = ear.open(Channel::Reply, bytes)
                        {
                            let payload = opened.payload;
                            let channel = Channel::Reply;
                            heard.push(Heard { at: now, from: to, channel, payload });
                        }
                        let input = Input::Reply { exchange, bytes };
                        let outputs = nodes[usize::from(from)].handle(input, now);
                        todo.extend(outputs.into_iter().map(|output| (from, output)));
                    }
                }
                _ => {}
            }
        }
        if !is_published && now > publish {
            is_published = true;
            for node in 0..NODES {
                let body = Bytes::from_static(b"a notice");
                let command = Command::Publish { token: 0, body };
                let outputs = nodes[usize::from(node)].handle(Input::Command(command), now);
                todo.extend(outputs.into_iter().map(|output| (node, output)));
            }
            continue;
        }
        let next = (0..NODES)
            .filter_map(|node| nodes[usize::from(node)].next_wake().map(|at| (at.max(now), node)));
        let Some((at, node)) = next.min() else { break };
        if at > end {
            break;
        }
        now = at;
        let outputs = nodes[usize::from(node)].handle(Input::Tick, now);
        todo.extend(outputs.into_iter().map(|output| (node, output)));
    }
    heard
}

fn short(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a short text");
    [&length.to_be_bytes(), bytes].concat()
}

/// Of each kind a few, told by their first bytes or lengths.
fn few(heard: &[Heard], channel: Channel, most: usize) -> Vec<&Heard> {
    let mut kinds: Vec<(usize, u8)> = Vec::new();
    let it = heard.iter().filter(|it| it.channel == channel);
    it.filter(|it| {
        let kind = (it.payload.len() / 8, it.payload.first().copied().unwrap_or(0));
        let is_new = !kinds.contains(&kind);
        kinds.push(kind);
        is_new
    })
    .take(most)
    .collect()
}

fn envelope() -> Vec<Vec<u8>> {
    let heard = conversation(false);
    let packets = few(&heard, Channel::Datagram, 8);
    let mut seeds: Vec<Vec<u8>> =
        packets.iter().map(|it| [&[1, 0, 0, 0][..], &short(&it.payload)].concat()).collect();
    let mixed = packets
        .iter()
        .take(4)
        .zip(0_u8..)
        .flat_map(|(it, kind)| [&[kind, kind, 0, kind * 9][..], &short(&it.payload)].concat());
    seeds.push(mixed.collect());
    seeds
}

fn exchange() -> Vec<Vec<u8>> {
    let heard = conversation(true);
    let questions = few(&heard, Channel::Request, 10);
    let answers = few(&heard, Channel::Reply, 10);
    let questions = questions.iter().map(|it| [&[0][..], &it.payload].concat());
    questions.chain(answers.iter().map(|it| [&[1][..], &it.payload].concat())).collect()
}

/// The conversation as steps, whole and cut at its beginning, and one with faults.
fn machine() -> Vec<Vec<u8>> {
    let candidates = [&[7, 0, 2][..], &[10, 0, 0, 2, 0x27, 0x0f, 10, 0, 0, 3, 0x27, 0x0f]].concat();
    let mut script = candidates.clone();
    let mut now = MEMBERSHIP_TIME;
    let mut seeds = Vec::new();
    for it in &conversation(false) {
        let passed = u16::try_from(it.at.saturating_sub(now).as_millis()).unwrap_or(u16::MAX);
        now = it.at;
        if passed > 0 {
            script.push(0);
            script.extend_from_slice(&passed.to_be_bytes());
        }
        script.push(match it.channel {
            Channel::Datagram => 1,
            Channel::Request => 2,
            Channel::Reply => 3,
        });
        script.push(it.from.wrapping_sub(1));
        script.extend_from_slice(&short(&it.payload));
        if [1_000, 3_000, 6_000].iter().any(|len| script.len() / len == seeds.len() + 1)
            && seeds.len() < 3
        {
            seeds.push(script.clone());
        }
    }
    script.truncate(12_000);
    seeds.push(script);
    let told = [
        candidates,
        [&[7, 5][..], &short(b"a notice of its own")].concat(),
        vec![0, 8, 0, 4, 0, 8, 0, 5, 7, 1, 0, 50, 1, 0, 1, b'b', 7, 2, 2, 7, 4, 0, 7, 4, 1],
        vec![7, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x7f, 0xff, 7, 7, 0, 0, 0x7f, 0xff],
    ];
    seeds.push(told.concat());
    seeds
}

fn link() -> Vec<Vec<u8>> {
    let question = |key: &'static [u8], news: &'static [u8]| Question {
        group: "words".into(),
        key: Bytes::from_static(key),
        patience: Duration::from_millis(1_500),
        code: 9,
        news: Bytes::from_static(news),
    };
    let head = Head {
        content_type: Some(http_header("text/plain")),
        validator: Some("v1".into()),
        tags: vec!["a".into(), "b".into()],
        metadata: vec![("name".into(), "value".into())],
    };
    let terms = Terms {
        ttl: Some(Duration::from_mins(1)),
        grace: Duration::from_secs(3),
        age: Duration::from_millis(7),
        length: 5,
        is_given: true,
        head: Some(Arc::new(head)),
    };
    let offer = Offer {
        group: "words".into(),
        key: Bytes::from_static(b"k"),
        code: 9,
        news: Bytes::new(),
        terms: terms.clone(),
    };
    let frames = [
        Frame::Get(question(b"\xff//key", b"news")),
        Frame::Peek(question(b"k", b"")),
        Frame::Offer(offer),
        Frame::Found { check: check("words", b"k", 9), terms },
        Frame::Chunk(Bytes::from_static(b"hello")),
        Frame::NotFound { check: 9 },
        Frame::Failed {
            failure: Failure::Unavailable,
            retry_after: Duration::from_secs(1),
            text: "down".to_owned(),
        },
        Frame::Unanswered(Why::OtherCode),
        Frame::Working,
        Frame::Cancel,
        Frame::NotHeld,
        Frame::Taken(true),
    ];
    let mut all = Vec::new();
    let mut seeds = Vec::new();
    for (id, frame) in (1..).zip(&frames) {
        let mut bytes = Vec::new();
        assert!(frame.write(id, &mut bytes));
        all.extend_from_slice(&bytes);
        seeds.push([&[3, 6][..], &bytes].concat());
    }
    seeds.push([&[3, 6][..], &all].concat());
    seeds.push([&[2, 30, 0, 77][..], &all].concat());
    seeds.push([&[0][..], &short(b"hello"), &[0, 7, 1], &all[..40]].concat());
    seeds.push([&[0][..], &short(b"hello"), &[0, 0, 0]].concat());
    seeds.push([&[1][..], &PREFACE, &[7; 48]].concat());
    seeds
}

fn http_header(text: &'static str) -> http::HeaderValue {
    http::HeaderValue::from_static(text)
}

fn peer_reply() -> Vec<Vec<u8>> {
    let reply = |value: &[u8], expire| {
        let (head, tail) = GetResponse::around(value.len(), expire);
        [head.as_ref(), value, tail.as_ref()].concat()
    };
    vec![
        reply(b"", None),
        reply(b"a value", Some(1_700_000_000_000_000_000)),
        reply(&[7; 200], Some(-1)),
        // With `minute_qps`, a double, as golang/groupcache may send it.
        [&reply(b"v", None)[..], &[2 << 3 | 1, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]].concat(),
    ]
}

fn peer_request() -> Vec<Vec<u8>> {
    let path = |kind: u8, key: &[u8]| [&[kind][..], PeerPath::write("g", key).as_bytes()].concat();
    let set =
        [&[2][..], b"\x0a\x01g\x12\x03key\x1a\x05value\x20\x80\x80\xa8\xec\xe4\xbf\xd3\xcb\x17"];
    vec![
        path(0, b"a//b c+d"),
        path(1, b"../x\xff"),
        b"\x01/_groupcache/g/a+b%2B%20".to_vec(),
        b"\x00/_groupcache//".to_vec(),
        set.concat(),
        b"\x03{\"group\":\"g\",\"keys\":[\"a\",\"b\\u0000\",\"\"]}".to_vec(),
    ]
}

fn purge() -> Vec<Vec<u8>> {
    let id = PurgeId { node: 7, number: 9 };
    let scopes = [Scope::Key((*b"k//\xff").into()), Scope::Tag("label".into()), Scope::All];
    let mut all = Vec::new();
    let mut seeds = Vec::new();
    for scope in scopes {
        let mut one = Vec::new();
        assert!(Purge { id, group: "words".into(), scope }.write(&mut one));
        all.extend_from_slice(&one);
        seeds.push(one);
    }
    seeds.push(all);
    seeds
}
