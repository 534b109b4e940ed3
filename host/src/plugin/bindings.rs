//! Rust types and call stubs of the plugin contract, track 0.1, made from `wit/0.1`.
//!
//! The world `plugin` is what every plugin exports. WIT has no optional exports, so
//! each optional interface is bound through a small world of its own that shares the
//! types of the first.
pub(super) mod contract {
    wasmtime::component::bindgen!({
        path: "../wit/0.1",
        world: "plugin",
        imports: {
            // Waits for a fill of another group.
            "cachecluster:plugin/cache.get": async | trappable,
            default: trappable,
        },
        exports: { default: async },
        with: { "cachecluster:plugin/types.context": crate::plugin::imports::CallContext },
        require_store_data_send: true,
    });
}

pub(super) mod batch {
    wasmtime::component::bindgen!({
        path: "../wit/0.1",
        world: "only-batch",
        exports: { default: async },
        with: {
            "cachecluster:plugin/types": crate::plugin::bindings::contract::cachecluster::plugin::types,
        },
        require_store_data_send: true,
    });
}

pub(super) mod lifecycle {
    wasmtime::component::bindgen!({
        path: "../wit/0.1",
        world: "only-lifecycle",
        exports: { default: async },
        require_store_data_send: true,
    });
}

pub(super) use contract::cachecluster::plugin::types;

/// The track this node speaks, as plugins name it in their imports and exports.
pub const TRACK: &str = "0.1";
/// Name of the contract's package.
pub const PACKAGE: &str = "cachecluster:plugin";
/// The export every plugin must have.
pub(super) const GETTER: &str = "cachecluster:plugin/getter@0.1.0";
/// Optional export: several keys in one trip.
pub(super) const BATCH_GETTER: &str = "cachecluster:plugin/batch-getter@0.1.0";
/// Optional export: preparation and self-check.
pub(super) const LIFECYCLE: &str = "cachecluster:plugin/lifecycle@0.1.0";
