//! A distributed, read-through cache whose misses are filled by sandboxed
//! WebAssembly plugins.
//!
//! # Layout
//! In the order of a request's way down; no module imports one that stands above it.
//!
//! - [`node`]: composes every part from a [`config::Config`] or from code.
//! - [`workbench`]: what the author of a plugin does with it before a node has it.
//! - [`front`]: how requests get in: HTTP for clients, HTTP for operators.
//! - [`peer`]: asks the node that owns a key; implements [`group::Peers`].
//! - [`plugin`]: hosts getter plugins; implements [`group::Getter`].
//! - [`cluster`]: which other nodes there are: SWIM, sealed; publishes a view.
//! - [`discovery`]: where the first of them may be found.
//! - [`group`]: the story of a lookup in one function, and the getter it calls.
//! - [`metrics`], [`config`]: named numbers, checked settings.
//! - [`ring`]: who owns a key.
//! - [`wire`]: the peer protocol, as bytes.
//! - [`sketch`]: how often keys are asked for.
//! - [`store`], [`flight`], [`failures`], [`breaker`], [`value`]: memory, single flight,
//!   backoff for a key and for a whole origin, and what they hold.
//! - [`allocator`]: what a byte of budget is in the process's memory.

pub mod node;
pub mod workbench;

pub mod cluster;
pub mod discovery;
pub mod front;
pub mod peer;
pub mod plugin;

pub mod group;

pub mod config;
pub mod metrics;

pub mod allocator;
pub mod breaker;
pub mod failures;
pub mod flight;
pub mod ring;
pub mod sketch;
pub mod store;
pub mod value;
pub mod wire;
