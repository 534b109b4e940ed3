//! How fast members learn of one another's deaths, leaves and joins, and what it costs.
//!
//! The shipped machine and foca as it comes (`Config::new_lan`, driven like its own example
//! agent) run in one simulator, in virtual time and from the same seeds; each line has both
//! and, where there is one, the target. `cargo bench -p simulation`
//! takes long; `-- --large` adds clusters of 5,000 nodes. `--only=kill`, `--nodes=1000`, `--loss=0`
//! and `--ours` (without foca) measure a part; `--seed=2 --kills=30` other deaths, and more of
//! them. It fails if a target is missed.

#![expect(clippy::print_stdout, reason = "a benchmark reports to whoever runs it")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

mod bare;
mod scenarios;
#[path = "../world.rs"]
#[expect(dead_code, reason = "a benchmark does not do everything to its nodes")]
mod world;

use std::process::ExitCode;

use simulation::cluster;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name: &str| arguments.iter().any(|it| it == name);
    let given = |name: &str| arguments.iter().find_map(|it| it.strip_prefix(name));
    let only = given("--only=");
    // `cargo test --all-targets` runs this too, to see that it works.
    let size = match (has("--bench"), has("--large")) {
        (false, _) => scenarios::Size::Small,
        (true, false) => scenarios::Size::Full,
        (true, true) => scenarios::Size::Large,
    };
    let parts = scenarios::Parts {
        size,
        only,
        nodes: given("--nodes=").and_then(|it| it.parse().ok()),
        loss: given("--loss=").and_then(|it| it.parse().ok()),
        seed: given("--seed=").and_then(|it| it.parse().ok()).unwrap_or(0),
        kills: given("--kills=").and_then(|it| it.parse().ok()),
        has_foca: !has("--ours"),
    };
    if scenarios::run(&parts) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
