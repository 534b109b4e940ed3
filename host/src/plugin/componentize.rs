//! From a core module to a component, where that can be.
//!
//! Toolchains without a target for components (C, Go) make core modules for WASI
//! preview 1. If such a module carries what its bindings know of the interfaces, in
//! custom sections whose names begin with `component-type`, it has all that a component
//! needs but the wrapping: this wraps it, with wasmtime's adapter from preview 1 to WASI
//! 0.2 for a library that is called again and again.
//!
//! The adapter takes the memory for its state from the module's own `cabi_realloc`, if
//! there is one, and that before the module has begun; else it grows the memory behind
//! the module's back. Guests whose allocator takes all of the memory for its own, as
//! Go's does, export a `cabi_realloc` that works that early.

use std::{borrow::Cow, panic::catch_unwind};

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

use super::{error::Problem, fault::guest_text};

/// Begins the names of the sections in which bindings keep the interfaces.
const METADATA: &str = "component-type";

/// The component in `bytes`: as they are, or wrapped if they are a core module.
///
/// # Errors
/// A core module without interfaces, or whose imports and exports are not those it
/// names.
pub fn componentize(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Problem> {
    if !is_core_module(bytes) {
        return Ok(Cow::Borrowed(bytes));
    }
    if !has_interfaces(bytes) {
        return Err(Problem::CoreModule);
    }
    // The encoder trusts metadata that passed its validator, and a few damaged bits can pass
    // and still name what is not there: then it panics. That is no more than a bad file.
    match catch_unwind(|| wrap(bytes)) {
        Ok(Ok(component)) => Ok(Cow::Owned(component)),
        // In which names of the module may stand.
        Ok(Err(error)) => Err(Problem::Componentize(guest_text(&format!("{error:#}")))),
        Err(_) => {
            let text = "what it says of its interfaces is damaged; build it anew";
            Err(Problem::Componentize(text.to_owned()))
        }
    }
}

/// The core module `bytes` in a component of its own.
fn wrap(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    ComponentEncoder::default()
        .module(bytes)?
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)?
        .validate(true)
        .encode()
}

/// Whether `bytes` begin like a core module.
pub(super) fn is_core_module(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\0asm\x01\0\0\0")
}

/// Whether the core module `bytes` names its interfaces. Reads the heads of its
/// sections and no more; what is damaged is found out later.
pub(super) fn has_interfaces(bytes: &[u8]) -> bool {
    Parser::new(0).parse_all(bytes).map_while(Result::ok).any(|payload| match payload {
        Payload::CustomSection(section) => section.name().starts_with(METADATA),
        _ => false,
    })
}
