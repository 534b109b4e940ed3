//! The whole system, from outside: whatever crosses a process or a socket.
//!
//! One binary, so that the node's library is linked once. `harness` starts nodes,
//! origins and proxies and ends them; everything listens on loopback, on ports the
//! system chooses or on loopback addresses of the test's own.

mod architecture;
mod dictionary;
mod embedding;
mod harness;
mod keys;
mod memory;
mod operations;
mod stampede;
