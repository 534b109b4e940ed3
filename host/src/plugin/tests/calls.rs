//! What a call can end in.

use std::time::Duration;

use super::guest::{Bench, Guest, body, fill, guest, internal, number};
use crate::{
    config::ByteSize,
    group::{Fill, FillError, Getter, Outcome, Reason},
    value::Freshness,
};

const ECHO: &str = "(call $found (local.get $key) (local.get $len))";

#[tokio::test]
async fn a_plugin_finds_values() {
    let bench = Bench::new();
    let plugin = bench.load(&guest(ECHO)).await;
    for key in ["a", "", "ключ", &"x".repeat(10_000)] {
        assert_eq!(body(&plugin, key).await, Ok(key.as_bytes().to_vec()));
    }
    let status = plugin.status();
    assert_eq!((status.calls, status.faults, status.instances.idle), (4, 0, 1));
    assert!(status.memory_bytes > 0 && status.last_error.is_none());
}
