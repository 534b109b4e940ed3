//! Targets for fuzzing: each takes any bytes for what somebody sent, and panics if what the
//! node makes of them breaks a rule.
//!
//! A target builds all that it needs for each input, so that an input does the same wherever
//! it is run, and says whether the input got past the first checks: a run none of whose inputs
//! did has tested nothing. What it holds its decoder to, beside that it must not panic: what is
//! read can be written and read again, and nothing grows beyond a small multiple of the input.
//!
//! `main.rs` runs them on stable Rust, for a bounded number of inputs made from `corpus/`;
//! `coverage/` is for `cargo fuzz`, which is led by coverage and needs a nightly compiler.

mod feed;
mod targets;
#[path = "../../host/src/value.rs"]
pub mod value;
#[path = "../../host/src/wire/mod.rs"]
pub mod wire;

pub use targets::{
    MEMBERSHIP_CLUSTER, MEMBERSHIP_TIME, TARGETS, Target, envelope, exchange, link, machine,
    peer_reply, peer_request, purge, subject,
};
