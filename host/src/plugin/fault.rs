//! What went wrong in a call, in words a plugin author can act on.

use std::time::Duration;

use wasmtime::{Error, PoolConcurrencyLimitError, Trap, component::ResourceTableError};
use wasmtime_wasi::I32Exit;

use super::{
    store::{CpuExceeded, DeadlineExceeded},
    text::tidy,
};
use crate::{config::Limits, group::FillError};

/// How much of an error's text is kept.
const TEXT_MAX: usize = 1 << 10;

/// Why a call has no answer. The instance it ran in is gone.
#[derive(Debug)]
pub(super) enum Fault {
    /// The wall clock ran out.
    Deadline(Duration),
    /// The wall clock ran out while the guest computed, as it had all along.
    Endless(Duration),
    /// The CPU budget ran out.
    Cpu(Duration),
    /// The node has no slot for another instance: not the plugin's doing.
    NoSlot,
    /// The plugin's `lifecycle.init` says it cannot work now.
    Init(String),
    /// A trap, an exit, or an answer that breaks the contract.
    Broken(String),
}

impl Fault {
    /// Puts `error`, which ended a call, into words. `denied`: the instance had asked
    /// for more memory than it may have.
    pub(super) fn classify(error: &Error, limits: &Limits, denied: bool) -> Self {
        if error.is::<DeadlineExceeded>() {
            return Self::Deadline(limits.timeout);
        }
        if error.is::<CpuExceeded>() {
            return Self::Cpu(limits.cpu);
        }
        if error.is::<PoolConcurrencyLimitError>() {
            return Self::NoSlot;
        }
        Self::Broken(describe(error, limits, denied))
    }
}

fn describe(error: &Error, limits: &Limits, denied: bool) -> String {
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return format!("it called exit({code}); a getter returns an error instead");
    }
    let reason = root_text(error);
    // Handles that a component makes for itself are counted by wasmtime, whose error has
    // no type of its own.
    let is_full = matches!(error.downcast_ref(), Some(ResourceTableError::Full));
    if is_full || reason.contains("handle limit exceeded") {
        return format!(
            "it holds more than {} resources (limits.handles); drop streams, requests and \
             sockets when they are done",
            limits.handles
        );
    }
    if denied {
        return format!(
            "it needs more memory than limits.memory allows ({}): {reason}",
            limits.memory
        );
    }
    // The error's own type is not public.
    if reason.contains("too much data") || reason.contains("fuel allocated for hostcalls") {
        return format!(
            "it passed more bytes to the host than limits.value allows ({})",
            limits.value
        );
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => "its call stack is exhausted; recurse less deeply".to_owned(),
        Some(Trap::UnreachableCodeReached) => format!(
            "it panicked or aborted ({reason}); its last words may be in the log, under stderr"
        ),
        Some(_) => format!("it trapped: {reason}"),
        None => format!("the call broke the contract: {reason}"),
    }
}

/// The innermost cause of `error`, without the backtrace that wasmtime puts around it.
pub(super) fn root_text(error: &Error) -> String {
    tidy(&error.root_cause().to_string(), TEXT_MAX)
}

/// `error` with all that was said around it.
pub(super) fn chain_text(error: &Error) -> String {
    tidy(&format!("{error:#}"), TEXT_MAX)
}

/// A guest's own words about an error.
pub(super) fn guest_text(text: &str) -> String {
    tidy(text, TEXT_MAX)
}

impl Fault {
    /// Whether the call cost the node an instance and maybe a good deal of CPU, so that
    /// one more for the same key had better be avoided.
    pub(super) fn is_costly(&self) -> bool {
        matches!(self, Self::Endless(_) | Self::Cpu(_) | Self::Broken(_))
    }
}

impl From<Fault> for FillError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Deadline(_) | Fault::Endless(_) => Self::TimedOut(fault.to_string()),
            Fault::NoSlot => Self::Overloaded(fault.to_string()),
            Fault::Init(_) => Self::Unavailable { message: fault.to_string(), retry_after: None },
            Fault::Cpu(_) | Fault::Broken(_) => Self::Internal(fault.to_string()),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Deadline(limit) => {
                write!(
                    f,
                    "the plugin did not answer in time (limits.timeout is {limit:?}; the group's \
                     fill_timeout may be sooner)"
                )
            }
            Self::Endless(limit) => {
                write!(
                    f,
                    "the plugin computed until its time was up (limits.timeout is {limit:?}; the \
                     group's fill_timeout may be sooner)"
                )
            }
            Self::Cpu(limit) => {
                write!(f, "the plugin computed for longer than limits.cpu allows ({limit:?})")
            }
            Self::NoSlot => f.write_str("the node has no room for another instance"),
            Self::Init(message) => write!(f, "the plugin's lifecycle.init failed: {message}"),
            Self::Broken(message) => write!(f, "the plugin failed: {message}"),
        }
    }
}
