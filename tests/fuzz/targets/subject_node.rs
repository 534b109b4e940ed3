//! The node that membership's inputs are given to. Who it is never changes, so that inputs
//! that name it stay valid.

use std::{net::SocketAddr, time::Duration};

use simulation::cluster::{
    Keys,
    machine::{Id, Meta, NodeId, Setup, State, Tuning},
};

/// The cluster's name.
pub const MEMBERSHIP_CLUSTER: &str = "fuzz";
/// When the node starts.
pub const MEMBERSHIP_TIME: Duration = Duration::from_secs(1_000);

/// What the node of that number starts with; 0 is the one that inputs are given to.
pub fn subject(number: u8) -> Setup {
    let addr = SocketAddr::from(([10, 0, 0, 1 + number], 9999));
    Setup {
        cluster: MEMBERSHIP_CLUSTER.to_owned(),
        keys: Keys::insecure(MEMBERSHIP_CLUSTER),
        id: Id::new(addr, 1_700_000_000_000, NodeId(1 + u64::from(number))),
        boot: 100 + u64::from(number),
        seed: 7 + u64::from(number),
        meta: Meta {
            peer: SocketAddr::new(addr.ip(), 9080),
            weight: 100,
            zone: "a".to_owned(),
            version: "0.1.0".to_owned(),
            ring: 7,
            plugins: vec![1, 2],
            state: State::Serving,
        },
        tuning: Tuning::default(),
    }
}
