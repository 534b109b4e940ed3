//! A distributed, read-through cache whose misses are filled by sandboxed
//! WebAssembly plugins.
//!
//! # Layout
//! In the order of a request's way down; no module imports one that stands below it.
//!
//! - [`node`]: composes every part from a [`config::Config`] or from code.
//! - [`front`]: how requests get in: HTTP for clients, HTTP for operators.
//! - [`plugin`]: hosts getter plugins; implements [`group::Getter`].
//! - [`group`]: the story of a lookup in one function.
//! - [`metrics`], [`config`]: named numbers, checked settings.
//! - [`store`], [`flight`], [`value`]: memory, single flight, and what they hold.

pub mod config;
pub mod front;
pub mod group;
pub mod metrics;
pub mod value;
