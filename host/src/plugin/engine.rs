//! The wasmtime engine: one for each node, shared by all plugins.
//!
//! Guests are interrupted by *epochs*: a thread raises a counter every few
//! milliseconds, and compiled code looks at it on every loop and call. What happens
//! then is decided by each store (see `store`).
//!
//! Memory, tables and stacks come from a pool whose addresses are reserved at start,
//! which makes a fresh instance cost microseconds. The pool needs terabytes of
//! address space (not of memory); where that is refused, instances are mapped one by
//! one.
//!
//! Invariants:
//! - the ticker holds the engine weakly and ends with its last user, so that a guest
//!   that still runs can always be interrupted;
//! - the pool is larger than what all plugins together may have, so that an
//!   admitted call finds a slot.

use std::{num::NonZeroUsize, thread, time::Duration};

use tracing::warn;
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails,
};

use super::{cache_dir, error::HostError};
use crate::config::Wasm;

/// How often a running guest yields and its deadlines are looked at. Shorter ends
/// overdue calls more exactly, longer costs fewer wake-ups; at 5 ms the ticker itself
/// costs under a thousandth of a core.
pub(super) const TICK: Duration = Duration::from_millis(5);

/// Wasm stack of one call. Deep recursion beyond it is a trap; a recursive parser
/// needs some hundred kilobytes.
const WASM_STACK_MAX: usize = 512 << 10;

/// Core instances in one component: a Rust guest has about 4, the adapters of other
/// toolchains bring it to a dozen.
const CORE_INSTANCES_MAX: u32 = 32;
/// Of which on average so many; the pool is shared.
const CORE_INSTANCES: u32 = 8;
/// Linear memories in one component: one for the program, one for an adapter, and
/// composed components.
const MEMORIES_MAX: u32 = 4;
/// Tables in one component.
const TABLES_MAX: u32 = 16;
/// Tables in one module; the default of 1 refuses what some toolchains emit.
const MODULE_TABLES_MAX: u32 = 4;
/// Elements of one table: debug builds of large programs pass the default of 20,000.
const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Bookkeeping of one instance: grows with its functions and types.
const INSTANCE_BYTES_MAX: usize = 4 << 20;
/// Memory that a freed slot keeps and clears by hand rather than by page faults:
/// about what a small guest dirties.
const MEMORY_KEPT: usize = 256 << 10;
/// The same for tables.
const TABLE_KEPT: usize = 64 << 10;

/// Instances beyond `instances_max`: for calls nested in other calls, which never wait
/// for a slot of the calls they serve, and for instances on trial at load time.
const INSTANCES_SPARE: u32 = 64;

/// The engine for `settings`, with its ticker running.
pub(super) fn start(settings: &Wasm) -> Result<Engine, HostError> {
    let cache = cache_dir::open(&settings.cache_dir);
    let mut config = base_config();
    config.cache(cache);

    // The reservation is its own probe: it either fits the address space or fails here.
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(settings)));
    let engine = match Engine::new(&config) {
        Ok(engine) => engine,
        Err(error) => {
            warn!(
                %error,
                "There is no address space for a pool of instances; they are mapped one by one. \
                 Raise the limit of virtual memory (ulimit -v) or lower wasm.instances_max."
            );
            config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
            Engine::new(&config).map_err(HostError::Engine)?
        }
    };
    start_ticker(&engine)?;
    Ok(engine)
}

fn base_config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        // The contract's functions are synchronous: the machinery for concurrent
        // guests would triple the cost of a call.
        .concurrency_support(false)
        .wasm_backtrace_max_frames(NonZeroUsize::new(16))
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .max_wasm_stack(WASM_STACK_MAX)
        // Plugins come and go; registering each with the system's unwinder does not pay.
        .native_unwind_info(false)
        // Less for a hostile module to try: shared memory would escape the limiter,
        // 64-bit memory the guard pages.
        .shared_memory(false)
        .wasm_memory64(false);
    config
}

fn pool(settings: &Wasm) -> PoolingAllocationConfig {
    let instances = settings.instances_max.saturating_add(INSTANCES_SPARE);
    let times = |factor: u32| instances.saturating_mul(factor);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(times(CORE_INSTANCES))
        .total_memories(times(2))
        .total_tables(times(4))
        .total_stacks(times(2))
        .max_memory_size(settings.memory_max.as_usize())
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_tables_per_module(MODULE_TABLES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .linear_memory_keep_resident(MEMORY_KEPT)
        .table_keep_resident(TABLE_KEPT)
        .max_unused_warm_slots(instances / 4);
    pool
}

/// A thread and not a task: a runtime whose threads all run guests must still be
/// interruptible.
#[expect(clippy::disallowed_methods, reason = "the sleeping thread is not a runtime's")]
fn start_ticker(engine: &Engine) -> Result<(), HostError> {
    let engine = engine.weak();
    thread::Builder::new()
        .name("epoch".to_owned())
        .spawn(move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                thread::sleep(TICK);
            }
        })
        .map(drop)
        .map_err(HostError::Ticker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_address_space_for_the_pool_maps_instances_one_by_one() {
        let settings = Wasm {
            // 2^31 instances of 8 GiB each are more than any address space.
            instances_max: i32::MAX.unsigned_abs() / CORE_INSTANCES - INSTANCES_SPARE,
            cache_dir: tempfile::tempdir().expect("a directory").keep(),
            ..Wasm::default()
        };
        let engine = start(&settings).expect("an engine");
        assert!(engine.pooling_allocator_metrics().is_none());
    }

    #[test]
    fn the_default_settings_get_a_pool() {
        let settings =
            Wasm { cache_dir: tempfile::tempdir().expect("a directory").keep(), ..Wasm::default() };
        let engine = start(&settings).expect("an engine");
        assert!(engine.pooling_allocator_metrics().is_some());
    }
}
