//! What it costs to find a key's owner, and how even the owners are: our ring, the two of
//! the groupcache family as we have them, and golang/groupcache's own where there is a Go
//! compiler and the library.
//!
//! Contenders take turns, and what counts is the CPU time of their threads for each lookup
//! of a key of 16 bytes. Run it with `cargo bench -p cachecluster --bench ring`. It fails if
//! our ring is less even than it has to be, or slower than golang's.
#![expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]
#![expect(clippy::cast_precision_loss, reason = "numbers far below 2^52")]

#[path = "contender/go.rs"]
mod go;

use std::{
    hint::black_box,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdout, ExitCode, Stdio},
};

use cachecluster::ring::{Kind, Node, Ring};
use rustix::time::{ClockId, clock_gettime};

/// Nodes, and the most that the fullest may have beside the mean.
const CASES: [(usize, Option<f64>); 4] =
    [(3, None), (10, Some(1.05)), (100, Some(1.10)), (1_000, None)];

/// Keys that are looked up in turn.
const KEYS: u64 = 4_096;

fn main() -> ExitCode {
    // `cargo test --all-targets` runs this too, to see that it works.
    let is_measuring = std::env::args().any(|argument| argument == "--bench");
    let (rounds, lookups) = if is_measuring { (9, 1 << 20) } else { (1, 1 << 12) };
    let program = go::program("ring");
    let keys: Vec<String> =
        (0..KEYS).map(|i| format!("{:016x}", i.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let mut is_good = true;
    println!(
        "{:>6} {:>16} {:>10} {:>10} {:>9}",
        "nodes", "ring", "ns/lookup", "x native", "max/mean"
    );
    for (count, most) in CASES {
        let nodes: Vec<Node> = (0..count)
            .map(|i| Node::new(format!("http://10.0.{}.{}:9080", i / 250, i % 250)))
            .collect();
        let mut contenders = vec![
            Contender::ours("native", Kind::Native, &nodes),
            Contender::ours("groupcache", Kind::Groupcache, &nodes),
            Contender::ours("groupcache-go", Kind::GroupcacheGo, &nodes),
        ];
        contenders.extend(program.as_deref().map(|program| Contender::go(program, count)));
        for _ in 0..rounds {
            for contender in &mut contenders {
                contender.round(&keys, lookups);
            }
        }
        let native = contenders[0].median();
        for contender in &mut contenders {
            let cost = contender.median();
            let balance = contender.balance(count);
            let shown = balance.map_or("as ours".to_owned(), |balance| format!("{balance:.3}"));
            let (name, ratio) = (contender.name, cost / native);
            println!("{count:>6} {name:>16} {cost:>10.1} {ratio:>10.2} {shown:>9}");
            is_good &= name != "Go" || ratio >= 1.0;
            if let (Some(most), "native", Some(balance)) = (most, name, balance) {
                is_good &= balance <= most;
            }
        }
    }
    if is_measuring && !is_good {
        println!("Our ring is less even than it has to be, or slower than golang's.");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// A ring whose lookups are measured.
struct Contender {
    name: &'static str,
    lookup: Lookup,
    /// Nanoseconds for each lookup, by round.
    costs: Vec<f64>,
}

enum Lookup {
    Ours(Ring),
    Go { process: Child, replies: BufReader<ChildStdout> },
}

impl Contender {
    fn ours(name: &'static str, kind: Kind, nodes: &[Node]) -> Self {
        Self { name, lookup: Lookup::Ours(Ring::new(kind, nodes)), costs: Vec::new() }
    }

    fn go(program: &std::path::Path, nodes: usize) -> Self {
        let mut process = std::process::Command::new(program)
            .arg(nodes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the Go ring runs");
        let replies = BufReader::new(process.stdout.take().expect("a pipe"));
        Self { name: "Go", lookup: Lookup::Go { process, replies }, costs: Vec::new() }
    }

    fn round(&mut self, keys: &[String], lookups: usize) {
        let cost = match &mut self.lookup {
            Lookup::Ours(ring) => {
                let before = used();
                for key in keys.iter().cycle().take(lookups) {
                    black_box(ring.owner(black_box(key.as_bytes())));
                }
                (used() - before) as f64 / lookups as f64
            }
            Lookup::Go { process, replies } => {
                let questions = process.stdin.as_mut().expect("a pipe");
                writeln!(questions, "{lookups}").expect("it reads");
                let mut line = String::new();
                replies.read_line(&mut line).expect("it answers");
                line.trim().parse().expect("a number")
            }
        };
        self.costs.push(cost);
    }

    fn median(&mut self) -> f64 {
        self.costs.sort_by(f64::total_cmp);
        self.costs[self.costs.len() / 2]
    }

    /// What the fullest of `nodes` owns of 200,000 keys (a million for many nodes), beside
    /// the mean.
    fn balance(&self, nodes: usize) -> Option<f64> {
        let Lookup::Ours(ring) = &self.lookup else { return None };
        let keys = if nodes > 100 { 1_000_000 } else { 200_000_u64 };
        let mut owned = vec![0_u64; nodes];
        for key in 0..keys {
            let key = format!("{:016x}", key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            owned[ring.owner(key.as_bytes()).expect("an owner")] += 1;
        }
        let fullest = owned.into_iter().max().unwrap_or_default();
        Some(fullest as f64 * nodes as f64 / keys as f64)
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        if let Lookup::Go { process, .. } = &mut self.lookup {
            process.kill().ok();
            process.wait().ok();
        }
    }
}

/// Nanoseconds that this thread has run.
fn used() -> i64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
