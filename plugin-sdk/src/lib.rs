//! Write a cachecluster getter: the plugin that fills a group's cache misses.
//!
//! A getter is a type that implements [`Getter`], exported once with
//! [`export!`]:
//!
//! ```
//! use cachecluster_plugin::{Context, Entry, Error, Getter, Outcome, export};
//! use std::time::Duration;
//!
//! struct Upper;
//!
//! impl Getter for Upper {
//!     fn get(key: &str, _ctx: &Context) -> Result<Outcome, Error> {
//!         Ok(Entry::new(key.to_uppercase()).ttl(Duration::from_mins(1)).into())
//!     }
//! }
//!
//! export!(Upper);
//! ```
//!
//! Built for `wasm32-wasip2` (or for `wasm32-unknown-unknown` with a component
//! linker) the crate becomes a component that a node loads as it is. Built for
//! any other target it is an ordinary library, so `cargo test` calls the very
//! same [`Getter::get`], with [`testing`] playing the host.
//!
//! What a getter may use:
//! - [`Context`]: the group, the time left, the validator of a refresh;
//! - [`config`]: its own settings; [`log`] and [`metrics`]: the node's;
//! - [`cache`]: other groups of the cache;
//! - [`net`] and [`http`]: whatever the operator granted, always with a
//!   deadline, because std's sockets and clock do not exist on every target;
//! - [`Deadline`]: the clock behind those.
//!
//! Nothing a plugin does not call is imported by its component: a getter that
//! only computes can be seen to reach nothing.

mod answer;
#[cfg(target_family = "wasm")]
mod bindings;
pub mod cache;
mod clock;
pub mod config;
mod context;
mod error;
mod getter;
pub mod http;
pub mod log;
pub mod metrics;
pub mod net;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use answer::{Entry, Freshness, Outcome};
pub use clock::Deadline;
pub use context::{Context, Reason};
pub use error::Error;
pub use getter::{BatchGetter, Getter, Lifecycle};

/// The host as the SDK's modules call it: the contract's imports in a
/// component, the test's own state everywhere else.
mod host {
    #[cfg(target_family = "wasm")]
    pub(crate) use crate::bindings::host::*;
    #[cfg(not(target_family = "wasm"))]
    pub(crate) use crate::testing::host::*;
}

/// What [`export!`] expands to. Not part of the interface of this crate.
#[doc(hidden)]
pub mod export_support {
    #[cfg(target_family = "wasm")]
    pub use crate::bindings::{
        Adapter, contract, export_batch_getter, export_getter, export_lifecycle, only_batch,
        only_lifecycle,
    };

    /// Holds when `T` can be exported as a getter.
    pub const fn is_getter<T: crate::Getter>() {}
    /// Holds when `T` can be exported with `batch`.
    pub const fn is_batch_getter<T: crate::BatchGetter>() {}
    /// Holds when `T` can be exported with `lifecycle`.
    pub const fn is_lifecycle<T: crate::Lifecycle>() {}
}
