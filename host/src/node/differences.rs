//! How two settings of one kind differ, in words.

use serde::Serialize;
use serde_json::Value;

/// Tables whose values are a plugin's own and may be secret: only their keys are told.
const PRIVATE: [&str; 2] = ["config.", "secrets."];

/// Each setting that differs, as `limits.timeout 10s → 5s`, with commas between them.
/// Empty when there is none.
pub(super) fn differences(old: &impl Serialize, new: &impl Serialize) -> String {
    let value = |settings: Result<Value, _>| settings.unwrap_or_default();
    let mut found = Vec::new();
    walk("", &value(serde_json::to_value(old)), &value(serde_json::to_value(new)), &mut found);
    found.join(", ")
}

fn walk(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    if old == new {
        return;
    }
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        let is_private = PRIVATE.iter().any(|table| path.starts_with(table));
        found.push(if is_private {
            path.to_owned()
        } else {
            format!("{path} {} → {}", shown(old), shown(new))
        });
        return;
    };
    let added = after.keys().filter(|key| !before.contains_key(*key));
    for key in before.keys().chain(added) {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let side = |table: &serde_json::Map<String, Value>| table.get(key).cloned();
        walk(&path, &side(before).unwrap_or_default(), &side(after).unwrap_or_default(), found);
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "unset".to_owned(),
        Value::String(text) if !text.is_empty() => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{ByteSize, Caching, Plugin};

    #[test]
    fn settings_are_told_as_they_are_written() {
        let old = Caching::default();
        assert_eq!(differences(&old, &old), "");
        let new = Caching {
            ttl: Duration::from_secs(90),
            memory: ByteSize::mib(1),
            ttl_jitter: 0.5,
            ..old.clone()
        };
        assert_eq!(
            differences(&old, &new),
            "memory 64MiB → 1MiB, ttl 10m → 1m 30s, ttl_jitter 0.1 → 0.5"
        );
    }

    #[test]
    fn what_a_plugin_is_told_is_not_told_to_others() {
        let old = Plugin::new("a.wasm");
        let mut new = old.clone();
        new.digest = Some("sha256:00".to_owned());
        new.network.tcp.push("a:1".to_owned());
        new.config.insert("password".to_owned(), "hunter2".to_owned());
        let text = differences(&old, &new);
        assert!(text.contains("digest unset → sha256:00"), "{text}");
        assert!(text.contains("network.tcp [] → [\"a:1\"]"), "{text}");
        assert!(text.contains("config.password") && !text.contains("hunter2"), "{text}");
    }
}
