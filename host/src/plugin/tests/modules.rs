//! Core modules: made components as they are loaded, or refused with the remedy.

use std::path::Path;

use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::guest::{Bench, fill};
use crate::{
    group::{Getter as _, Outcome},
    plugin::Plugin,
};

/// What a plugin has to export.
pub(super) const PLUGIN: &str = "export cachecluster:plugin/getter@0.1.0;";

/// A getter as C's toolchain makes it: its imports are those of WASI preview 1. It finds
/// nothing for any key, once it has been told the time.
pub(super) const GETTER: &str = r#"(module
    (import "wasi_snapshot_preview1" "clock_time_get"
        (func $time (param i32 i64 i32) (result i32)))
    (import "cachecluster:plugin/types@0.1.0" "[resource-drop]context"
        (func $drop-context (param i32)))
    (memory (export "memory") 2)
    (global $next (mut i32) (i32.const 4096))
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
        (global.set $next
            (i32.and (i32.add (i32.add (global.get $next) (local.get 3)) (i32.const 15))
                (i32.const -8)))
        (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
            (then (drop (memory.grow (i32.add (i32.const 1)
                (i32.div_u (local.get 3) (i32.const 65536)))))))
        (i32.and (i32.sub (global.get $next) (local.get 3)) (i32.const -8)))
    (func (export "cachecluster:plugin/getter@0.1.0#get") (param i32 i32 i32) (result i32)
        (call $drop-context (local.get 2))
        (if (call $time (i32.const 0) (i64.const 1) (i32.const 512)) (then unreachable))
        (if (i64.eqz (i64.load (i32.const 512))) (then unreachable))
        (memory.fill (i32.const 1024) (i32.const 0) (i32.const 96))
        (i32.store8 (i32.const 1032) (i32.const 1))
        (i32.const 1024)))"#;

/// The module `text`, which says that it has the world of these items.
pub(super) fn module(text: &str, items: &str) -> Vec<u8> {
    let mut bytes = wat::parse_str(text).expect("a module");
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit/0.1");
    let mut resolve = Resolve::default();
    resolve.push_dir(&contract).expect("the contract");
    let world = format!("package test:guest; world guest {{ {items} }}");
    let package = resolve.push_str("guest.wit", &world).expect("interfaces");
    let world = resolve.select_world(&[package], None).expect("a world");
    embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8).expect("embedded");
    bytes
}

async fn refusal(bytes: &[u8]) -> String {
    let refused = Bench::new().load_bytes(bytes, |_| ()).await.map(|_| ());
    refused.expect_err("refused").to_string()
}

async fn finds_nothing(plugin: &Plugin) -> bool {
    matches!(plugin.load(fill("a")).await, Ok(Outcome::NotFound(_)))
}

#[tokio::test]
async fn a_module_that_names_its_interfaces_serves() {
    let bytes = module(GETTER, PLUGIN);
    let bench = Bench::new();
    let plugin = bench.load_bytes(&bytes, |_| ()).await.expect("loaded");
    assert!(finds_nothing(&plugin).await);
    assert!(finds_nothing(&plugin).await);
    // It is known by the file that the operator has, not by what was made of it.
    assert_eq!(plugin.digest(), crate::plugin::digest(&bytes));
}

#[tokio::test]
async fn a_module_without_interfaces_is_refused_with_the_remedy() {
    let text = refusal(&wat::parse_str(GETTER).expect("a module")).await;
    for part in ["cachecluster plugin build", "wasm32-wasip2", "wasm-tools component embed wit"] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[tokio::test]
async fn a_module_that_is_no_plugin_is_refused() {
    let text = refusal(&module("(module (func (export \"run\")))", "export run: func();")).await;
    assert!(text.contains("does not export `cachecluster:plugin/getter@0.1.0`"), "{text}");
}

#[tokio::test]
async fn what_a_module_lacks_of_its_interfaces_is_named() {
    let text = refusal(&module("(module)", PLUGIN)).await;
    assert!(text.contains("no component can be made"), "{text}");
    assert!(text.contains("cachecluster:plugin/getter@0.1.0"), "{text}");
    let strange = GETTER.replace("wasi_snapshot_preview1", "wasi_unstable");
    let text = refusal(&module(&strange, PLUGIN)).await;
    assert!(text.contains("wasi_unstable"), "{text}");
}

#[tokio::test]
async fn a_damaged_module_costs_its_load() {
    let bytes = module(GETTER, PLUGIN);
    for end in [40, bytes.len() - 1] {
        let text = refusal(&bytes[..end]).await;
        assert!(!text.contains("defect"), "{end}: {text}");
    }
    let nonsense = r#"(module (@custom "component-type:x" "not an interface"))"#;
    let text = refusal(&wat::parse_str(nonsense).expect("a module")).await;
    assert!(text.contains("no component can be made"), "{text}");
}
