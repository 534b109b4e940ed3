//! What the SDK's modules call in the place of the contract's imports.

use super::{Record, owned, series, with};
use crate::cache::Error as CacheError;
use crate::clock::nanoseconds;
use crate::log::Level;
use crate::{Context, Error};
use std::sync::OnceLock;
use std::time::Instant;

#[expect(
    clippy::disallowed_methods,
    reason = "there is no runtime here whose clock could be paused"
)]
pub(crate) fn monotonic_now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    nanoseconds(START.get_or_init(Instant::now).elapsed())
}

pub(crate) fn config_get(key: &str) -> Option<String> {
    with(|state| state.config.get(key).cloned())
}

pub(crate) fn config_get_all() -> Vec<(String, String)> {
    with(|state| state.config.clone().into_iter().collect())
}

pub(crate) fn log_enabled(_level: Level) -> bool {
    true
}

pub(crate) fn log(level: Level, message: &str, fields: &[(&str, &str)]) {
    let record = Record { level, message: message.to_owned(), fields: owned(fields) };
    with(|state| state.records.push(record));
}

pub(crate) fn cache_peek(group: &str, key: &str) -> Result<Option<Vec<u8>>, CacheError> {
    with(|state| match state.cached.get(&(group.to_owned(), key.to_owned())) {
        Some(answer) => answer.clone(),
        None if state.cached.keys().any(|(known, _)| known == group) => Ok(None),
        None => Err(CacheError::NoSuchGroup),
    })
}

pub(crate) fn cache_get(
    ctx: &Context,
    group: &str,
    key: &str,
) -> Result<Option<Vec<u8>>, CacheError> {
    if ctx.remaining().is_zero() {
        return Err(CacheError::Failed(Error::TimedOut.to_string()));
    }
    cache_peek(group, key)
}

pub(crate) fn counter_add(name: &str, delta: u64, labels: &[(&str, &str)]) {
    with(|state| {
        let sum = state.counters.entry(series(name, labels)).or_default();
        *sum = sum.saturating_add(delta);
    });
}

pub(crate) fn histogram_record(name: &str, value: f64, labels: &[(&str, &str)]) {
    with(|state| {
        state.histograms.entry(series(name, labels)).or_default().push(value);
    });
}
