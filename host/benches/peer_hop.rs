//! What a hop between two nodes costs, of ours and of golang/groupcache: clients ask one node,
//! which has nothing, for what the other one holds.
//!
//! All processes and the client run on the same core, and the contenders take turns. Each key is
//! put into its owner's memory by a request to it, and then asked for once through the front, so
//! that nothing that a front may keep is of use to it. What counts is the CPU time of front and
//! owner together for each request. Run it with `cargo bench -p cachecluster --bench peer_hop`.
//!
//! Two more pairs show what can be had on this machine with one client, where there is nothing
//! to batch: one that is hyper and nothing else, and one that does nothing but the system calls
//! of a hop (the *floor*), below which nobody can be.
//!
//! It fails if ours has less than 4 times Go's capacity with one client, or 6.5 times with 32.
#![expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]

#[expect(dead_code, reason = "some of it is for the other benchmark")]
mod contender;

use std::{fmt::Write as _, net::SocketAddr, path::Path, process::ExitCode};

use cachecluster::ring::{self, Kind, Ring};
use contender::{CORE, Client, Process, floor, go, hyper, median, ours, stand_on, start_as};

/// Bytes of a value, clients, and the least capacity beside Go's.
const CASES: [(usize, usize, f64); 4] =
    [(1_024, 1, 4.0), (1_024, 32, 6.5), (10_240, 1, 4.0), (10_240, 32, 6.5)];

fn main() -> ExitCode {
    if ours::serve_if_told() || floor::serve_if_told() || hyper::serve_if_told() {
        return ExitCode::SUCCESS;
    }
    // `cargo test --all-targets` runs this too, to see that it works.
    let is_measuring = std::env::args().any(|argument| argument == "--bench");
    let (rounds, requests) = if is_measuring { (5, 3_200) } else { (1, 64) };
    let Some(program) = go::program("peer") else { return ExitCode::SUCCESS };
    let mut is_good = stand_on(CORE);
    println!(
        "{:>8} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "body B", "clients", "Go us", "ours us", "hyper us", "floor us", "capacity"
    );
    for (size, clients, least) in CASES {
        let mut contenders = [
            Pair::go(&program, size),
            Pair::ours(size),
            Pair::of_two(|owner| start_as(hyper::HYPER, size, owner)),
            Pair::of_two(|owner| start_as(floor::FLOOR, size, owner)),
        ];
        for pair in &mut contenders {
            pair.connect(clients);
        }
        for round in 0..=rounds {
            for pair in &mut contenders {
                pair.round(round * requests..(round + 1) * requests, size, round > 0);
            }
        }
        let [go, ours, hyper, floor] = contenders.map(|pair| median(pair.costs));
        let capacity = go / ours;
        is_good &= capacity >= least;
        println!(
            "{size:>8} {clients:>8} {go:>9.1} {ours:>9.1} {hyper:>9.1} {floor:>9.1} {capacity:>9.2}"
        );
    }
    if is_measuring && !is_good {
        println!("Less than 4 times Go's capacity with one client, or 6.5 times with 32.");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// A front and an owner.
struct Pair {
    front: Process,
    owner: Process,
    /// Where clients ask the front, and where the owner.
    addresses: [SocketAddr; 2],
    /// The path of the owner's key of that number.
    path: Box<dyn Fn(usize) -> String>,
    clients: Vec<Client>,
    /// Microseconds for each request, by round.
    costs: Vec<f64>,
}

impl Pair {
    fn ours(size: usize) -> Self {
        let [mut front, mut owner] = [(); 2].map(|()| ours::Node::start(size));
        let members = [front.peers, owner.peers];
        front.introduce(&members, owner.peers);
        owner.introduce(&members, owner.peers);
        let path = Box::new(|number| format!("/g/key-{number:08}"));
        let addresses = [front.front, owner.front];
        let (front, owner) = (front.process, owner.process);
        Self { front, owner, addresses, path, clients: Vec::new(), costs: Vec::new() }
    }

    /// A pair that is started one after the other, and whose front understands its owner.
    fn of_two(start: impl Fn(Option<SocketAddr>) -> (Process, SocketAddr)) -> Self {
        let (owner, at_owner) = start(None);
        let (front, at_front) = start(Some(at_owner));
        let path = Box::new(|number| format!("/g/key-{number:08}"));
        // They have nothing to put into anybody's memory first.
        let addresses = [at_front; 2];
        Self { front, owner, addresses, path, clients: Vec::new(), costs: Vec::new() }
    }

    fn go(program: &Path, size: usize) -> Self {
        let sockets = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
        let names =
            sockets.each_ref().map(|it| format!("http://{}", it.local_addr().expect("bound")));
        drop(sockets);
        let all = names.join(",");
        let [(front, at_front), (owner, at_owner)] = names.each_ref().map(|name| {
            let size = size.to_string();
            let arguments = ["-self", name, "-peers", &all, "-size", &size].map(str::to_owned);
            let mut process = Process::start(program, &arguments);
            let address: SocketAddr = process.line().parse().expect("an address");
            (process, address)
        });
        let ring = Ring::new(Kind::Groupcache, &names.map(ring::Node::new));
        let path = Box::new(move |number: usize| {
            let keys = (0..).map(|n| format!("key-{number:08}-{n}"));
            let mut own = keys.filter(|key| ring.owner(key.as_bytes()) == Some(1));
            let key = own.next().expect("a key of the owner");
            let mut hex = String::new();
            for byte in key.bytes() {
                _ = write!(hex, "{byte:02x}");
            }
            format!("/{hex}")
        });
        let addresses = [at_front, at_owner];
        Self { front, owner, addresses, path, clients: Vec::new(), costs: Vec::new() }
    }

    fn connect(&mut self, clients: usize) {
        let connect = |address| Client::new(address, clients).expect("connections");
        self.clients = self.addresses.map(connect).into();
    }

    fn round(&mut self, keys: std::ops::Range<usize>, size: usize, counts: bool) {
        let requests = keys.len();
        let paths: Vec<_> = keys.map(&self.path).collect();
        self.clients[1].get(&paths, size).expect("replies of the owner");
        let before = self.front.used() + self.owner.used();
        self.clients[0].get(&paths, size).expect("replies of the front");
        let used = self.front.used() + self.owner.used() - before;
        if counts {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            self.costs.push(used as f64 / requests as f64 / 1_000.0);
        }
    }
}
