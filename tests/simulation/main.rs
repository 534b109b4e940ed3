//! Membership, simulated: the state machine that the node runs, in clusters of dozens, under
//! faults and in virtual time.

mod faults;
mod members;
mod notices;
mod rules;
#[expect(dead_code, reason = "some of it is for the benchmark alone")]
mod world;

use simulation::cluster;
