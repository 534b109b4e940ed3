//! Membership, simulated: the state machine that the node runs, in clusters of dozens, under
//! faults and in virtual time.

mod faults;
mod members;
mod rules;
mod world;
