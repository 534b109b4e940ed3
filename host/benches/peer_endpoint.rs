//! What a peer's request costs: `/_groupcache/{group}/{key}` of a node of ours, beside that of
//! golang/groupcache.
//!
//! Each answers from memory, in a process of its own on the same core, to the same client on 32
//! connections, and they take turns; what counts is the CPU time of the process for each
//! request. A third one does nothing but the system calls of an answer (the *floor*): nobody can
//! be below it, and what it has beside Go is all that can be had on this machine. Run it with
//! `cargo bench -p cachecluster --bench peer_endpoint`.
//!
//! Capacity is what a node has at its limit, with the client on the same core. It fails if ours
//! has less than three times Go's there up to 1 KiB, or four times above. The same is shown for
//! nodes at ease, where questions come one by one and the kernel takes more for each, of all alike.
#![expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]

#[expect(dead_code, reason = "some of it is for the other benchmark")]
mod contender;

use std::{net::SocketAddr, path::Path, process::ExitCode};

use contender::{CORE, Client, Process, floor, go, median, ours, stand_on, start_as};

/// Bytes of a value, and the least capacity beside Go's.
const CASES: [(usize, f64); 4] = [(100, 3.0), (1_024, 3.0), (10_240, 4.0), (102_400, 4.0)];

const CONNECTIONS: usize = 32;
const KEYS: usize = 64;

/// Where the client runs.
const PLACES: [(&str, u32); 2] = [("limit", CORE), ("ease", CORE + 1)];

fn main() -> ExitCode {
    if ours::serve_if_told() || floor::answer_if_told() {
        return ExitCode::SUCCESS;
    }
    // `cargo test --all-targets` runs this too, to see that it works.
    let is_measuring = std::env::args().any(|argument| argument == "--bench");
    let (rounds, turns) = if is_measuring { (7, 64) } else { (1, 1) };
    let Some(program) = go::program("peer") else { return ExitCode::SUCCESS };
    let mut is_good = true;
    println!(
        "{:>6} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "at", "body B", "Go us", "ours us", "floor us", "capacity", "at most"
    );
    for (place, core) in PLACES {
        if !stand_on(core) {
            println!("{place:>6}: there is no other core.");
            continue;
        }
        for (size, least) in CASES {
            let [go, ours, floor] = costs(&program, size, (rounds, turns));
            let (capacity, most) = (go / ours, go / floor);
            is_good &= core != CORE || capacity >= least;
            println!(
                "{place:>6} {size:>8} {go:>9.1} {ours:>9.1} {floor:>9.1} {capacity:>9.2} {most:>9.2}"
            );
        }
    }
    if is_measuring && !is_good {
        println!("Less than 3 times Go's capacity up to 1 KiB, or 4 times above.");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Microseconds for each answer of `size` bytes: of Go's, of ours, and of the floor.
fn costs(program: &Path, size: usize, (rounds, turns): (usize, usize)) -> [f64; 3] {
    let paths: Vec<_> = (0..KEYS).map(|key| format!("/_groupcache/g/key-{key:02}")).collect();
    let mut node = ours::Node::start(size);
    node.introduce(&[node.peers], node.peers);
    let own: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let name = format!("http://{own}");
    let go = ["-self", &name, "-peers", &name, "-size", &size.to_string()].map(str::to_owned);
    let mut go = Process::start(program, &go);
    go.line();
    let all = [(go, own), (node.process, node.peers), start_as(floor::ALONE, size, None)];
    let mut contenders = all.map(|(process, address)| {
        let client = Client::new(address, CONNECTIONS).expect("connections");
        (process, client, Vec::new())
    });
    for round in 0..=rounds {
        for (process, client, costs) in &mut contenders {
            let before = process.used();
            for _ in 0..turns {
                client.get(&paths, size).expect("replies");
            }
            let used = process.used() - before;
            // The first round fills and warms.
            if round > 0 {
                #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
                costs.push(used as f64 / (turns * KEYS) as f64 / 1_000.0);
            }
        }
    }
    contenders.map(|(_, _, costs)| median(costs))
}

/// A port that nobody has now. Go's peer must know its own before it listens.
fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("an address").port()
}
