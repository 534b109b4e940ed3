//! What etcd and we say to one another: JSON as its gateway maps it. Keys and values are in
//! base64, numbers of 64 bits are strings, and a field that is zero is left out.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// A key or a value.
pub(super) fn encoded(text: &str) -> String {
    STANDARD.encode(text)
}

/// The text of a key; `None` if it is none.
fn decoded(value: &Value) -> Option<String> {
    String::from_utf8(STANDARD.decode(value.as_str()?).ok()?).ok()
}

/// A number, which is a string as a rule and absent if it is zero.
pub(super) fn number(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

/// The revision of the whole store at the time of an answer.
pub(super) fn revision(answer: &Value) -> i64 {
    number(&answer["header"]["revision"])
}

/// The first key after all that begin with `prefix`.
fn end_of(prefix: &str) -> String {
    let mut bytes = prefix.as_bytes().to_vec();
    while let Some(last) = bytes.pop() {
        if last < u8::MAX {
            bytes.push(last + 1);
            return STANDARD.encode(bytes);
        }
    }
    // No such key: whatever there is.
    STANDARD.encode([0])
}

/// Asks for the keys that begin with `prefix`, at most so many.
pub(super) fn range(prefix: &str, count_max: usize) -> Value {
    json!({
        "key": encoded(prefix),
        "range_end": end_of(prefix),
        "limit": count_max.to_string(),
        "keys_only": true,
    })
}

/// Asks to be told of changes of such keys, from `revision` on.
pub(super) fn watch(prefix: &str, revision: i64) -> Value {
    json!({ "create_request": {
        "key": encoded(prefix),
        "range_end": end_of(prefix),
        "start_revision": revision.to_string(),
        "progress_notify": true,
    }})
}

/// A key as it stands in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) lease: i64,
}

/// The keys of an answer to [`range`], and whether there are more.
pub(super) fn entries(answer: &Value) -> (Vec<Entry>, bool) {
    let found = answer["kvs"].as_array().map_or(&[][..], Vec::as_slice);
    let entry = |it: &Value| Some(Entry { key: decoded(&it["key"])?, lease: number(&it["lease"]) });
    (found.iter().filter_map(entry).collect(), answer["more"].as_bool().unwrap_or(false))
}

/// What a line of the watch says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Keys that changed, in order, each with the revision of that.
    Changes(Vec<Change>),
    /// It ends here; there is no more to come.
    Over(String),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) key: String,
    pub(super) revision: i64,
    pub(super) is_gone: bool,
    pub(super) lease: i64,
}

/// Reads a line of the watch.
pub(super) fn told(line: &[u8]) -> Told {
    let Ok(answer) = serde_json::from_slice::<Value>(line) else {
        return Told::Over("it sent a line that is no JSON".to_owned());
    };
    let result = &answer["result"];
    if !answer["error"].is_null() {
        return Told::Over(reason(&answer));
    }
    if result["canceled"].as_bool().unwrap_or(false) {
        let compacted = number(&result["compact_revision"]);
        return Told::Over(if compacted > 0 {
            format!("what came before revision {compacted} is compacted")
        } else {
            let reason = result["cancel_reason"].as_str();
            reason.unwrap_or("it gives no reason").chars().take(200).collect()
        });
    }
    let events = result["events"].as_array().map_or(&[][..], Vec::as_slice);
    let change = |event: &Value| {
        Some(Change {
            key: decoded(&event["kv"]["key"])?,
            revision: number(&event["kv"]["mod_revision"]),
            is_gone: event["type"] == "DELETE",
            lease: number(&event["kv"]["lease"]),
        })
    };
    Told::Changes(events.iter().filter_map(change).collect())
}

/// Why etcd refuses something, in its words.
pub(super) fn reason(answer: &Value) -> String {
    let error = &answer["error"];
    let texts = [&answer["message"], &error["message"], error];
    let text = texts.into_iter().find_map(Value::as_str).unwrap_or("it gives no reason");
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_before_the_next_prefix() {
        for (prefix, end) in [("/a/", &b"/a0"[..]), ("a", b"b"), ("", &[0])] {
            assert_eq!(end_of(prefix), STANDARD.encode(end));
        }
    }

    // What etcd 3.4.23 sends.
    #[test]
    fn lists_and_changes_are_read_as_etcd_writes_them() {
        let answer = json!({
            "header": { "cluster_id": "6041968935951179002", "revision": "2", "raft_term": "2" },
            "kvs": [
                { "key": "L2MvYQ==", "mod_revision": "2", "lease": "6848464485159287303" },
                { "key": "/w==", "mod_revision": "2" },
            ],
            "count": "2",
        });
        assert_eq!(revision(&answer), 2);
        let entry = Entry { key: "/c/a".to_owned(), lease: 6_848_464_485_159_287_303 };
        assert_eq!(entries(&answer), (vec![entry], false), "a key that is no text is nobody's");
        let line = br#"{"result":{"header":{"revision":"5"},"events":[{"type":"DELETE","kv":{"key":"L2MvYQ==","mod_revision":"5"}}]}}"#;
        let change = Change { key: "/c/a".to_owned(), revision: 5, is_gone: true, lease: 0 };
        assert_eq!(told(line), Told::Changes(vec![change]));
        let created = br#"{"result":{"header":{"revision":"4"},"created":true}}"#;
        assert_eq!(told(created), Told::Changes(Vec::new()));
    }

    #[test]
    fn a_watch_that_is_over_says_why() {
        for (line, why) in [
            (r#"{"result":{"canceled":true,"compact_revision":"4"}}"#, "revision 4 is compacted"),
            (
                r#"{"result":{"watch_id":"-1","created":true,"canceled":true,"cancel_reason":"rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"}}"#,
                "invalid auth token",
            ),
            (r#"{"error":{"grpc_code":14,"message":"etcdserver: no leader"}}"#, "no leader"),
            (r#"{"error":"etcdserver: no leader","code":14}"#, "no leader"),
            ("<html>", "no JSON"),
            ("", "no JSON"),
        ] {
            match told(line.as_bytes()) {
                Told::Over(reason) => assert!(reason.contains(why), "{reason}"),
                Told::Changes(_) => panic!("{line} is not over"),
            }
        }
    }
}
