//! The targets, one file each.

pub mod envelope;
pub mod exchange;
pub mod link;
pub mod machine;
pub mod peer_reply;
pub mod peer_request;
pub mod purge;
mod subject_node;

pub use subject_node::{MEMBERSHIP_CLUSTER, MEMBERSHIP_TIME, subject};

/// A target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, which is that of its file and of its folder in `corpus/`.
    pub name: &'static str,
    /// Runs one input; whether it got past the first checks.
    pub run: fn(&[u8]) -> bool,
    /// Inputs of a bounded run, so that each takes some seconds.
    pub inputs: u32,
    /// The longest input.
    pub input_max: usize,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "envelope", run: envelope::run, inputs: 50_000, input_max: 4_096 },
    Target { name: "exchange", run: exchange::run, inputs: 50_000, input_max: 8_192 },
    Target { name: "machine", run: machine::run, inputs: 20_000, input_max: 16_384 },
    Target { name: "link", run: link::run, inputs: 100_000, input_max: 8_192 },
    Target { name: "peer_reply", run: peer_reply::run, inputs: 200_000, input_max: 2_048 },
    Target { name: "peer_request", run: peer_request::run, inputs: 200_000, input_max: 2_048 },
    Target { name: "purge", run: purge::run, inputs: 200_000, input_max: 2_048 },
];
