//! How requests get in: HTTP for clients, HTTP for operators.
//!
//! [`http`] is the surface that clients use and where a hit is answered; [`admin`] is
//! the one for operators. Both take keys as raw bytes (`target`) and say what went
//! wrong in the same form (`problem`).
//!
//! Invariants:
//! - a key arrives as the client wrote it: percent-decoded once and nothing else;
//! - a hit waits for nothing and allocates as little as it can;
//! - every connection, request and answer has a bound in time and in size.

pub mod admin;
mod body;
mod cache_status;
mod conditional;
pub mod http;
mod listen;
mod problem;
mod readiness;
mod target;

pub use listen::BindError;
pub use readiness::{Latch, Readiness};
