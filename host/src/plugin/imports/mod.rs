//! What a guest may call: the contract's own interfaces, one file each, and WASI 0.2.
//!
//! All of WASI is linked, because language runtimes import files, sockets and
//! standard streams whether they use them or not; a plugin that was granted nothing
//! finds no directory, no variable and no reachable address behind them.

mod cache;
mod config;
mod context;
mod logging;
mod metrics;
mod stdio;

use std::sync::Arc;

use wasmtime::{
    Engine,
    component::{HasSelf, Linker},
};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder};

#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub use context::CallContext;
pub(super) use logging::{GuestLog, LogBudget};
pub(super) use metrics::{Families, GuestMetrics};

use super::{
    bindings::contract,
    egress::{self, Gate},
    environment::Environment,
    store::{RANDOM_BYTES_MAX, State},
};

/// Every function a plugin may import.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    // The network is used under the plugin's grants, not under WASI's few switches.
    linker.allow_shadowing(true);
    egress::add_to_linker(&mut linker)?;
    linker.allow_shadowing(false);
    contract::Plugin::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    Ok(linker)
}

/// The packages of [`linker`] with the version tracks it has of each.
pub(super) const OFFERED: [(&str, &str); 8] = [
    ("wasi:cli", "0.2"),
    ("wasi:clocks", "0.2"),
    ("wasi:filesystem", "0.2"),
    ("wasi:http", "0.2"),
    ("wasi:io", "0.2"),
    ("wasi:random", "0.2"),
    ("wasi:sockets", "0.2"),
    ("cachecluster:plugin", "0.1"),
];

/// WASI for one instance: nothing but clocks, random numbers, an outlet to the log and
/// the sockets that the plugin's grants allow.
pub(super) fn wasi(environment: &Arc<Environment>, gate: Gate) -> WasiCtx {
    let (log, secrets) = (&environment.log, &environment.secrets);
    WasiCtxBuilder::new()
        .stdout(stdio::LogStream::stdout(Arc::clone(log), Arc::clone(secrets)))
        .stderr(stdio::LogStream::stderr(Arc::clone(log), Arc::clone(secrets)))
        .max_random_size(RANDOM_BYTES_MAX)
        // Sockets and lookups are let through to the checks below, which know what was
        // granted and can tell the operator what was not.
        .allow_tcp(true)
        .allow_ip_name_lookup(true)
        .socket_addr_check(move |address, purpose| Box::pin(gate.clone().allows(address, purpose)))
        .build()
}
