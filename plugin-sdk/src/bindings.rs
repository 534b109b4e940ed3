//! The contract as generated code, and the way between it and the types of
//! this crate. Only in components.
//!
//! Three worlds are generated because an export is optional by being in a
//! world of its own: what a plugin does not name in [`export!`](crate::export)
//! leaves no trace in its component.
#![expect(unsafe_code, reason = "the canonical ABI is made of raw pointers")]
#![allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "generated code")]

use crate::clock::nanoseconds;
use crate::{BatchGetter, Context, Entry, Error, Freshness, Getter, Lifecycle, Outcome, Reason};
use contract::cachecluster::plugin::types;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::time::Duration;

/// World `plugin`: every import, and the getter.
pub mod contract {
    wit_bindgen::generate!({
        path: "../wit/0.1",
        world: "plugin",
        pub_export_macro: true,
        export_macro_name: "export_getter",
        default_bindings_module: "cachecluster_plugin::export_support::contract",
    });
}

/// World `only-batch`, sharing the types of `plugin`.
pub mod only_batch {
    wit_bindgen::generate!({
        path: "../wit/0.1",
        world: "only-batch",
        with: {
            "cachecluster:plugin/types@0.1.0": crate::bindings::contract::cachecluster::plugin::types,
        },
        pub_export_macro: true,
        export_macro_name: "export_batch_getter",
        default_bindings_module: "cachecluster_plugin::export_support::only_batch",
    });
}

/// World `only-lifecycle`.
pub mod only_lifecycle {
    wit_bindgen::generate!({
        path: "../wit/0.1",
        world: "only-lifecycle",
        pub_export_macro: true,
        export_macro_name: "export_lifecycle",
        default_bindings_module: "cachecluster_plugin::export_support::only_lifecycle",
    });
}

pub use contract::export_getter;
pub use only_batch::export_batch_getter;
pub use only_lifecycle::export_lifecycle;

/// Answers the contract's exports with the traits of `T`.
#[derive(Debug)]
pub struct Adapter<T>(PhantomData<T>);

impl<T: Getter> contract::exports::cachecluster::plugin::getter::Guest for Adapter<T> {
    fn get(key: String, ctx: &types::Context) -> Result<types::Outcome, types::Error> {
        T::get(&key, &Context::borrowed(ctx)).map(Into::into).map_err(Into::into)
    }
}

impl<T: BatchGetter> only_batch::exports::cachecluster::plugin::batch_getter::Guest for Adapter<T> {
    fn get_many(
        keys: Vec<String>,
        ctx: &types::Context,
    ) -> Result<Vec<Result<types::Outcome, types::Error>>, types::Error> {
        let answers = T::get_many(&keys, &Context::borrowed(ctx))?;
        Ok(answers.into_iter().map(|answer| answer.map(Into::into).map_err(Into::into)).collect())
    }
}

impl<T: Lifecycle> only_lifecycle::exports::cachecluster::plugin::lifecycle::Guest for Adapter<T> {
    fn init() -> Result<(), String> {
        T::init()
    }

    fn check() -> Result<(), String> {
        T::check()
    }
}

/// The host's handle of a call, lent to the guest while the call lasts.
#[derive(Debug)]
pub(crate) struct CallHandle(ManuallyDrop<types::Context>);

impl Context {
    fn borrowed(raw: &types::Context) -> Self {
        // SAFETY: the handle is valid while `raw` is borrowed, which is as long
        // as the getter runs: it is handed `&Context` and cannot keep one. The
        // generated code gives the handle back, so that this copy must not.
        let copy = unsafe { types::Context::from_handle(raw.handle()) };
        Self { call: CallHandle(ManuallyDrop::new(copy)) }
    }
}

impl CallHandle {
    pub(crate) fn group(&self) -> String {
        self.0.group()
    }

    pub(crate) fn remaining(&self) -> Duration {
        Duration::from_nanos(self.0.remaining())
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.0.attempt()
    }

    pub(crate) fn reason(&self) -> Reason {
        match self.0.reason() {
            types::FillReason::Miss => Reason::Miss,
            types::FillReason::Refresh => Reason::Refresh,
            types::FillReason::Warm => Reason::Warm,
        }
    }

    pub(crate) fn validator(&self) -> Option<String> {
        self.0.validator()
    }

    pub(crate) fn traceparent(&self) -> Option<String> {
        self.0.traceparent()
    }
}

impl From<Freshness> for types::Freshness {
    fn from(freshness: Freshness) -> Self {
        Self { ttl: freshness.ttl.map(nanoseconds), stale: freshness.stale.map(nanoseconds) }
    }
}

impl From<Entry> for types::Entry {
    fn from(entry: Entry) -> Self {
        Self {
            value: entry.value,
            freshness: entry.freshness.into(),
            validator: entry.validator,
            content_type: entry.content_type,
            tags: entry.tags,
            metadata: entry.metadata,
        }
    }
}

impl From<Outcome> for types::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Found(entry) => Self::Found(entry.into()),
            Outcome::NotFound(freshness) => Self::NotFound(freshness.into()),
            Outcome::NotModified(freshness) => Self::NotModified(freshness.into()),
        }
    }
}

impl From<Error> for types::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidKey(why) => Self::InvalidKey(why),
            Error::Denied(why) => Self::Denied(why),
            Error::Unavailable { message, retry_after } => {
                let retry_after = retry_after.map(nanoseconds);
                Self::Unavailable(types::Unavailable { message, retry_after })
            }
            Error::TimedOut => Self::TimedOut,
            Error::Internal(what) => Self::Internal(what),
        }
    }
}

/// The contract's imports, as the modules of this crate call them.
pub(crate) mod host {
    use super::contract::cachecluster::plugin::{cache, config, logging, metrics};
    use crate::Context;
    use crate::cache::Error as CacheError;
    use crate::log::Level;

    pub(crate) fn monotonic_now() -> u64 {
        wasip2::clocks::monotonic_clock::now()
    }

    pub(crate) fn config_get(key: &str) -> Option<String> {
        config::get(key)
    }

    pub(crate) fn config_get_all() -> Vec<(String, String)> {
        config::get_all()
    }

    pub(crate) fn log_enabled(level: Level) -> bool {
        logging::enabled(to_wit(level))
    }

    pub(crate) fn log(level: Level, message: &str, fields: &[(&str, &str)]) {
        logging::log(to_wit(level), message, &owned(fields));
    }

    pub(crate) fn cache_peek(group: &str, key: &str) -> Result<Option<Vec<u8>>, CacheError> {
        cache::peek(group, key).map_err(from_wit)
    }

    pub(crate) fn cache_get(
        ctx: &Context,
        group: &str,
        key: &str,
    ) -> Result<Option<Vec<u8>>, CacheError> {
        cache::get(&ctx.call.0, group, key).map_err(from_wit)
    }

    pub(crate) fn counter_add(name: &str, delta: u64, labels: &[(&str, &str)]) {
        metrics::counter_add(name, delta, &owned(labels));
    }

    pub(crate) fn histogram_record(name: &str, value: f64, labels: &[(&str, &str)]) {
        metrics::histogram_record(name, value, &owned(labels));
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn to_wit(level: Level) -> logging::Level {
        match level {
            Level::Trace => logging::Level::Trace,
            Level::Debug => logging::Level::Debug,
            Level::Info => logging::Level::Info,
            Level::Warn => logging::Level::Warn,
            Level::Error => logging::Level::Error,
        }
    }

    fn from_wit(error: cache::CacheError) -> CacheError {
        match error {
            cache::CacheError::NoSuchGroup => CacheError::NoSuchGroup,
            cache::CacheError::Denied => CacheError::Denied,
            cache::CacheError::Cycle => CacheError::Cycle,
            cache::CacheError::TooLarge => CacheError::TooLarge,
            cache::CacheError::Failed(why) => CacheError::Failed(why),
        }
    }
}
