//! A node of ours in a process: the program is the benchmark itself.

use std::{io::BufRead as _, net::SocketAddr, path::Path, sync::Arc};

use cachecluster::{
    config::{ByteSize, Caching, Http, Peers},
    front::http::{HttpFront, Linked, Manners},
    group::{BoxFuture, Fill, FillError, Getter, Group, Groups, Outcome},
    metrics::Metrics,
    peer::{Fleet, Member, Ties, Times},
    wire::{Dialect, link::Secret},
};
use tokio::runtime;

use super::Process;

/// The argument by which the benchmark's program is a node.
const NODE: &str = "--as-node";

/// A node in a process of its own, of which the others know nothing yet.
pub(crate) struct Node {
    pub(crate) process: Process,
    /// Where clients ask.
    pub(crate) front: SocketAddr,
    /// Where peers do.
    pub(crate) peers: SocketAddr,
}

impl Node {
    /// A node all of whose values have `size` bytes.
    pub(crate) fn start(size: usize) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut process = Process::start(Path::new(&program), &[NODE.to_owned(), size.to_string()]);
        let line = process.line();
        let (front, peers) = line.split_once(' ').expect("two addresses");
        let [front, peers] = [front, peers].map(|text| text.parse().expect("an address"));
        Self { process, front, peers }
    }

    /// Tells it who is in the fleet; `owner` owns all keys.
    pub(crate) fn introduce(&mut self, members: &[SocketAddr], owner: SocketAddr) {
        let names: Vec<_> = members.iter().map(SocketAddr::to_string).collect();
        self.process.tell(&format!("{owner} {}", names.join(" ")));
        assert_eq!(self.process.line(), "ready");
    }
}

/// If this process is to be a node, is one until the benchmark ends.
pub(crate) fn serve_if_told() -> bool {
    let mut arguments = std::env::args().skip_while(|argument| argument != NODE).skip(1);
    let Some(size) = arguments.next() else { return false };
    serve(size.parse().expect("a size")).expect("a node");
    true
}

/// Answers every key with a value of one size.
struct Fixed(Vec<u8>);

impl Getter for Fixed {
    fn load(&self, _fill: Fill) -> BoxFuture<'_, Result<Outcome, FillError>> {
        Box::pin(async { Ok(Outcome::found(&self.0)) })
    }
}

fn serve(size: usize) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (groups, metrics) = (Arc::new(Groups::default()), Metrics::new());
    let caching = Caching { memory: ByteSize::mib(1024), ..Caching::default() };
    let getter = Arc::new(Fixed(vec![b'x'; size]));
    let control = runtime.handle().clone();
    let group = Group::new("g", caching, getter, control.clone(), metrics.group("g"));
    let secret = Secret::new("bench", b"key");
    let ties = Ties {
        secret: secret.clone(),
        tidings: None,
        links: 1,
        times: Times::default(),
        metrics: metrics.fleet(),
    };
    let fleet = Fleet::of_nodes(ties, &Peers::default(), control)?;
    group.join_peers(Arc::clone(&fleet) as _, metrics.peers("g"));
    groups.replace([group]);
    let http = Http { listen: ([127, 0, 0, 1], 0).into(), threads: 1, ..Http::default() };
    let front = HttpFront::bind(&http)?;
    let between = HttpFront::bind_peers(http.listen, &http)?;
    let (own, at) = (between.local_addr(), front.local_addr());
    let manners = Manners { dialect: Dialect::V2, plus_is_space: false, value_max: 1 << 20 };
    let linked = Linked { secret, tidings: None };
    let _peers = between.serve_peers(&groups, &metrics, manners, Some(linked))?;
    let _clients = front.serve(&groups, &metrics)?;
    println!("{at} {own}");
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut addresses = line.split(' ').map(str::parse::<SocketAddr>);
        let owner = addresses.next().ok_or("no owner")??;
        let members = addresses.map(|address| {
            let address = address?;
            let weight = u16::from(address == owner);
            let is_self = address == own;
            Ok(Member { name: address.to_string(), address, weight: weight.into(), is_self })
        });
        let members = members.collect::<Result<Vec<_>, std::net::AddrParseError>>()?;
        fleet.set_members(&members);
        println!("ready");
    }
    Ok(())
}
