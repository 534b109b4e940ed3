//! Real input: Debian's dictd with the gcide dictionary, through the dict plugin.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use tokio::task::JoinSet;

use crate::harness::{
    client::Response,
    dict_client::DictClient,
    dictd::{self, Dictd},
    node::{Node, component},
    proxy::Proxy,
    until,
};

/// A node whose group `define` asks the DICT server at `origin`.
fn node(origin: std::net::SocketAddr, caching: &str) -> Node {
    let plugin = component("dict");
    Node::with(format!(
        r#"
        [plugins.dict]
        source = "{}"
        config = {{ server = "{origin}", connect_timeout = "1s", timeout = "3s" }}
        network = {{ tcp = ["{origin}"], allow_private = ["127.0.0.0/8"] }}
        [groups.define]
        plugin = "dict"
        [groups.define.cache]
        backoff = "50ms"
        backoff_max = "100ms"
        {caching}
        "#,
        plugin.display(),
    ))
    .start()
}

async fn define(node: &Node, word: &str) -> Response {
    let mut path = "/define/".to_owned();
    for byte in word.bytes() {
        write!(path, "%{byte:02X}").expect("to write into a string");
    }
    node.get(&path).await
}

#[tokio::test]
async fn a_thousand_headwords_come_back_byte_for_byte_and_then_from_memory() {
    if !dictd::installed() {
        return;
    }
    let dictd = Dictd::start().await;
    let proxy = Proxy::start(dictd.addr()).await;
    let node = Arc::new(node(proxy.addr(), "memory = \"64MiB\""));
    let words = dictd::headwords(1_000);
    assert_eq!(words.len(), 1_000);
    let expected = DictClient::connect(dictd.addr()).await.define_all(&words).await;
    for (word, answer, expected) in together(&node, &words, &expected).await {
        assert_eq!(answer.status, 200, "{word:?}: {}", answer.text());
        assert_eq!(Some(answer.body.clone()), expected, "{word:?}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert!(answer.header("cache-status").contains("fwd=miss"), "{answer:?}");
    }
    let asked = proxy.connections();
    for (word, expected) in words.iter().zip(&expected) {
        let answer = define(&node, word).await;
        assert!(answer.header("cache-status").contains("; hit"), "{answer:?}");
        assert_eq!(Some(&answer.body), expected.as_ref(), "{word:?}");
    }
    assert_eq!(proxy.connections(), asked, "the second pass asks nobody");
}

/// Defines each word, a few at a time, beside what is expected of it.
async fn together(
    node: &Arc<Node>,
    words: &[String],
    expected: &[Option<Vec<u8>>],
) -> Vec<(String, Response, Option<Vec<u8>>)> {
    let mut answers = Vec::new();
    for (words, expected) in words.chunks(16).zip(expected.chunks(16)) {
        let mut asking = JoinSet::new();
        for (word, expected) in words.iter().cloned().zip(expected.iter().cloned()) {
            let node = Arc::clone(node);
            asking.spawn(async move {
                let answer = define(&node, &word).await;
                (word, answer, expected)
            });
        }
        answers.extend(asking.join_all().await);
    }
    answers
}

#[tokio::test]
async fn words_that_miss_together_share_a_connection() {
    if !dictd::installed() {
        return;
    }
    let dictd = Dictd::start().await;
    let proxy = Proxy::start(dictd.addr()).await;
    let node = Arc::new(node(proxy.addr(), "batch_window = \"500ms\"\nbatch_max = 32"));
    let words = dictd::headwords(31);
    let unknown = [words.as_slice(), &["zzqqx".to_owned()]].concat();
    let expected = DictClient::connect(dictd.addr()).await.define_all(&unknown).await;
    let mut asking = JoinSet::new();
    for (word, expected) in unknown.into_iter().zip(expected) {
        let node = Arc::clone(&node);
        asking.spawn(async move {
            let answer = define(&node, &word).await;
            match expected {
                Some(body) => assert_eq!((answer.status, answer.body), (200, body), "{word:?}"),
                None => assert_eq!(answer.status, 404, "{word:?}"),
            }
        });
    }
    asking.join_all().await;
    assert!(proxy.connections() <= 4, "{} connections for 32 words", proxy.connections());
}

#[tokio::test]
async fn an_unknown_word_is_not_found_and_is_remembered() {
    if !dictd::installed() {
        return;
    }
    let dictd = Dictd::start().await;
    let proxy = Proxy::start(dictd.addr()).await;
    let node = node(proxy.addr(), "");
    let unknown = define(&node, "zzqqx").await;
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.header("content-type"), "application/problem+json");
    assert_eq!(proxy.connections(), 1);
    for _ in 0..10 {
        let again = define(&node, "zzqqx").await;
        assert_eq!(again.status, 404);
        assert!(again.header("cache-status").contains("; hit"), "{again:?}");
    }
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn a_word_cannot_inject_a_command() {
    if !dictd::installed() {
        return;
    }
    let dictd = Dictd::start().await;
    let node = node(dictd.addr(), "");
    for word in ["a\r\nSHOW DB", "a\nQUIT", "\u{1}", ""] {
        assert_eq!(define(&node, word).await.status, 400, "{word:?}");
    }
    // What is quoted stays one word; that it means nothing is for the server to say.
    for word in ["\" \"piston", "\" piston \"", "\\\" piston", "'", "* piston"] {
        let status = define(&node, word).await.status;
        assert!(matches!(status, 404 | 502), "{word:?}: {status}");
    }
    assert_eq!(define(&node, "ice cream").await.status, 200);
}

#[tokio::test]
async fn a_dead_server_is_an_error_in_time_and_a_live_one_recovers_by_itself() {
    if !dictd::installed() {
        return;
    }
    let mut dictd = Dictd::start().await;
    let node = node(dictd.addr(), "");
    assert_eq!(define(&node, "piston").await.status, 200);
    dictd.kill();
    let down = tokio::time::timeout(Duration::from_secs(6), define(&node, "cache")).await;
    let down = down.expect("an answer within the deadline");
    assert!(matches!(down.status, 502 | 503), "{down:?}");
    assert!(!down.header("retry-after").is_empty(), "{down:?}");
    assert_eq!(define(&node, "piston").await.status, 200, "what is in memory is served");
    dictd.restart().await;
    until("the node recovers", || async { define(&node, "cache").await.status == 200 }).await;
}

#[tokio::test]
async fn a_stale_definition_is_served_while_the_server_is_down() {
    if !dictd::installed() {
        return;
    }
    let mut dictd = Dictd::start().await;
    let node = node(dictd.addr(), "ttl = \"200ms\"\ngrace = \"1h\"");
    let fresh = define(&node, "piston").await;
    dictd.kill();
    let is_stale = |answer: &Response| {
        answer.header("cache-status").contains("stale")
            || answer.header("cache-status").contains("ttl=-")
    };
    until("the definition is stale", || async { is_stale(&define(&node, "piston").await) }).await;
    let errors = "cachecluster_fills_total{group=\"define\",outcome=\"error\"}";
    until("a refresh fails", || async { node.metric(errors).await >= 1.0 }).await;
    let stale = define(&node, "piston").await;
    assert_eq!((stale.status, &stale.body), (200, &fresh.body));
    dictd.restart().await;
    let refreshed = "cachecluster_fills_total{group=\"define\",outcome=\"found\"}";
    until("the node recovers", || async {
        define(&node, "piston").await;
        node.metric(refreshed).await >= 2.0
    })
    .await;
}
