//! What it costs a node to be a member while nothing happens: real nodes with sockets and
//! clocks on this machine, and the CPU time of the thread that each of them has for it.
//!
//! `cargo bench -p simulation --bench idle`. Bytes of larger clusters, with loss and in virtual
//! time, are in the benchmark `membership`.

#![expect(clippy::print_stdout, reason = "a benchmark reports to whoever runs it")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use simulation::cluster::{Cluster, Keys, Meta, Settings, Sockets, State, Tuning};
use tokio::{runtime, time::sleep};

/// Nodes of each cluster.
const CASES: [usize; 3] = [2, 5, 20];

fn main() {
    // `cargo test --all-targets` runs this too, to see that it works.
    let is_measuring = std::env::args().any(|argument| argument == "--bench");
    let time = Duration::from_secs(if is_measuring { 20 } else { 1 });
    println!("{:>6} {:>14} {:>10} {:>14}", "nodes", "datagrams/s", "bytes/s", "CPU us/s");
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for nodes in CASES {
        runtime.block_on(measure(nodes, time));
    }
}

/// What one of `nodes` does in a second.
async fn measure(nodes: usize, time: Duration) {
    let clusters: Vec<_> = (0..nodes).map(|_| start()).collect();
    let seeds: Vec<_> = clusters.iter().take(3).map(|(_, address)| *address).collect();
    for (cluster, _) in &clusters {
        cluster.join(seeds.clone()).await;
    }
    for (cluster, _) in &clusters {
        let mut view = cluster.view();
        let found = view.wait_for(|view| view.ring().count() == nodes);
        let found = tokio::time::timeout(Duration::from_mins(2), found).await;
        found.expect("the nodes find one another").expect("the cluster runs");
    }
    // Until the news of them has gone round.
    sleep(time / 2).await;
    let sent = || {
        let counters = clusters.iter().map(|(cluster, _)| cluster.status().counters);
        counters.fold((0, 0), |(datagrams, bytes), it| {
            (datagrams + it.datagrams_out, bytes + it.bytes_out)
        })
    };
    let (before, used_before) = (sent(), used());
    sleep(time).await;
    let (after, used) = (sent(), used() - used_before);
    let each = |all: u64| all as f64 / nodes as f64 / time.as_secs_f64();
    println!(
        "{nodes:>6} {:>14.1} {:>10.0} {:>14.0}",
        each(after.0 - before.0),
        each(after.1 - before.1),
        each(used) / 1_000.0,
    );
}

/// A node that serves.
fn start() -> (Cluster, SocketAddr) {
    let sockets = Sockets::bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = sockets.address();
    let meta = Meta {
        peer: address,
        weight: 100,
        zone: String::new(),
        version: "0.1.0".to_owned(),
        ring: 7,
        plugins: vec![1, 2],
        state: State::Serving,
    };
    let settings = Settings {
        cluster: "idle".to_owned(),
        keys: Keys::insecure("idle"),
        advertise: address,
        meta,
        identity: None,
        tuning: Tuning::default(),
        hear: Arc::new(()),
    };
    (Cluster::start(settings, sockets).expect("a member"), address)
}

/// Nanoseconds that the threads of all members have run.
fn used() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").expect("procfs");
    let of = |task: std::io::Result<fs::DirEntry>| {
        let folder = task.ok()?.path();
        let name = fs::read_to_string(folder.join("comm")).ok()?;
        let text = fs::read_to_string(folder.join("schedstat")).ok()?;
        let time = text.split(' ').next()?.parse::<u64>().ok();
        time.filter(|_| name.trim_end() == "cluster")
    };
    tasks.filter_map(of).sum()
}
