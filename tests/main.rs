//! The whole system, from outside: whatever crosses a process or a socket.
//!
//! One binary, so that the node's library is linked once. `harness` starts nodes,
//! origins and proxies and ends them; everything listens on loopback, on ports the
//! system chooses or on loopback addresses of the test's own.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::float_cmp,
    reason = "figures of tests are far from the bounds of their types"
)]

mod architecture;
mod cli;
mod cluster;
mod conformance;
mod demo;
mod dictionary;
mod discovery;
mod egress;
mod embedding;
mod examples;
mod failing;
mod faults;
mod fleet;
mod gce;
#[path = "fixtures/guest/mod.rs"]
#[expect(dead_code, reason = "tests from outside need only some kinds of guests")]
mod guest;
mod harness;
mod hostile;
mod ini;
mod keys;
mod languages;
mod links;
mod membership;
mod memory;
mod misbehaviour;
mod notify;
mod operations;
mod purges;
mod reconfigure;
mod reload;
mod stampede;
mod trouble;
#[path = "fixtures/versions.rs"]
mod versions;
mod workbench;
