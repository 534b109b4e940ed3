//! Keys and values are opaque bytes, from the first socket to the last.

use std::collections::HashSet;

use crate::{
    harness::{
        client,
        node::Node,
        origin::{self, Origin},
    },
    stampede,
};

/// Each odd key as a client writes it, and as the HTTP origin is asked for it.
const ODD: &[(&str, &str)] = &[
    ("a//b", "a%2F%2Fb"),
    ("a/b", "a%2Fb"),
    ("../x", "..%2Fx"),
    ("/lead", "%2Flead"),
    ("lead", "lead"),
    ("trail/", "trail%2F"),
    ("a%20b", "a%20b"),
    ("a+b", "a%2Bb"),
    ("%252F", "%252F"),
    ("%2F", "%2F"),
    ("%3Fq=1", "%3Fq%3D1"),
    ("%23", "%23"),
    ("%00", "%00"),
    ("%C3%BC", "%C3%BC"),
    ("ab", "ab"),
    ("AB", "AB"),
    ("", ""),
];

/// An origin that answers with the target it was asked for.
async fn echo() -> (Origin, Node) {
    let origin = Origin::start(|asked| origin::ok("", asked.target.as_bytes())).await;
    let node = stampede::node(origin.addr(), "");
    (origin, node)
}

#[tokio::test]
async fn odd_keys_are_distinct_and_reach_the_origin_exact() {
    let (origin, node) = echo().await;
    let mut bodies = HashSet::new();
    for (written, asked) in ODD {
        for pass in ["miss", "hit"] {
            let answer = node.get(&format!("/items/{written}")).await;
            assert_eq!(answer.status, 200, "{written:?}: {}", answer.text());
            let target = answer.text();
            let decoded = |text: &str| text.replace("%2b", "%2B").to_ascii_uppercase();
            assert_eq!(decoded(&target), decoded(&format!("/items/{asked}")), "{written:?}");
            assert!(answer.header("cache-status").contains(pass), "{written:?}: {answer:?}");
            bodies.insert(answer.body);
        }
    }
    assert_eq!(bodies.len(), ODD.len(), "no two keys share a value");
    assert_eq!(origin.requests(), ODD.len());
}

#[tokio::test]
async fn a_purged_key_is_asked_for_again_and_its_neighbours_are_not() {
    let (origin, node) = echo().await;
    for (written, _) in ODD {
        node.get(&format!("/items/{written}")).await;
    }
    assert_eq!(client::request(node.http, "DELETE", "/items/a//b").await.status, 204);
    let purged = client::request(node.admin, "DELETE", "/groups/items/keys/..%2Fx").await;
    assert_eq!(purged.status, 200, "{}", purged.text());
    for (written, _) in ODD {
        node.get(&format!("/items/{written}")).await;
    }
    assert_eq!(origin.requests(), ODD.len() + 2);
    assert_eq!(client::request(node.admin, "DELETE", "/groups/items").await.status, 200);
    for (written, _) in ODD {
        node.get(&format!("/items/{written}")).await;
    }
    assert_eq!(origin.requests(), 2 * ODD.len() + 2);
}

#[tokio::test]
async fn a_key_that_is_not_utf8_is_refused_by_name() {
    let (origin, node) = echo().await;
    let refused = node.get("/items/%FF%FE").await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("UTF-8"), "{}", refused.text());
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_key_that_would_climb_out_of_the_url_is_refused() {
    let (origin, node) = echo().await;
    for key in ["..", ".", "%2E%2E"] {
        assert_eq!(node.get(&format!("/items/{key}")).await.status, 400, "{key:?}");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn values_are_any_bytes() {
    let body: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let expected = body.clone();
    let origin = Origin::start(move |_| origin::ok("", &body)).await;
    let node = stampede::node(origin.addr(), "");
    for _ in 0..2 {
        let answer = node.get("/items/k").await;
        assert_eq!(answer.body, expected);
        assert_eq!(answer.header("content-length"), "70000");
    }
}

#[tokio::test]
async fn what_the_origin_says_about_caching_is_honoured() {
    let origin = Origin::start(|asked| match asked.target.as_str() {
        "/items/private" => origin::ok("cache-control: no-store\r\n", b"p"),
        "/items/gone" => origin::status("410 Gone"),
        "/items/denied" => origin::status("403 Forbidden"),
        "/items/moved" => origin::status("302 Found"),
        _ if asked.has_header("if-none-match: \"v1\"") => origin::status("304 Not Modified"),
        _ => origin::ok(
            "cache-control: max-age=1, stale-while-revalidate=3600\r\netag: \"v1\"\r\n\
             content-type: text/x-test\r\n",
            b"tagged",
        ),
    })
    .await;
    let node = stampede::node(origin.addr(), "ttl_jitter = 0.0\nbackoff = \"1h\"\nbackoff_max = \"1h\"");
    for _ in 0..2 {
        assert_eq!(node.get("/items/private").await.status, 200);
    }
    assert_eq!(origin.requests(), 2, "no-store is not kept");
    assert_eq!(node.get("/items/gone").await.status, 404);
    assert_eq!(node.get("/items/denied").await.status, 403);
    assert_eq!(node.get("/items/moved").await.status, 502);

    let first = node.get("/items/k").await;
    assert_eq!((first.status, first.header("content-type")), (200, "text/x-test"));
    let unmodified = "cachecluster_fills_total{group=\"items\",outcome=\"not_modified\"}";
    crate::harness::until("a conditional refresh", || async {
        assert_eq!(node.get("/items/k").await.body, b"tagged");
        node.metric(unmodified).await >= 1.0
    })
    .await;
}

#[tokio::test]
async fn clients_revalidate_with_the_entity_tag() {
    let (_origin, node) = echo().await;
    let first = node.get("/items/k").await;
    let tag = first.header("etag").to_owned();
    let ask = |condition: String| {
        let head = format!("GET /items/k HTTP/1.1\r\nhost: x\r\nconnection: close\r\nif-none-match: {condition}\r\n\r\n");
        async move { client::exchange(node.http, head.as_bytes()).await }
    };
    let same = ask(format!("\"other\", W/{tag}")).await;
    assert_eq!((same.status, same.body.len()), (304, 0));
    assert_eq!(same.header("etag"), tag);
    let other = ask("\"other\"".to_owned()).await;
    assert_eq!((other.status, other.body), (200, first.body.clone()));
    let head = client::request(node.http, "HEAD", "/items/k").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), first.body.len().to_string());
}
