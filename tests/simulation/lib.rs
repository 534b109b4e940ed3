//! The node's room `cluster`, as it is: see `host/src/cluster/mod.rs`.

#[path = "../../host/src/cluster/mod.rs"]
pub mod cluster;
