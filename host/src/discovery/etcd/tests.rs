//! What the source makes of what etcd says, and of what is no etcd.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

fn own() -> Own {
    Own { place: ([10, 0, 0, 1], 9_999).into(), name: "me".to_owned() }
}

fn source(endpoints: Vec<String>) -> Etcd {
    let settings = config::Etcd { endpoints, ..config::Etcd::default() };
    Etcd::new(&settings, Path::new("."), "images", own())
}

fn change(rest: &str, revision: i64, lease: i64) -> Change {
    let key = format!("/cachecluster/images/{rest}");
    Change { key, revision, is_gone: lease == 0, lease }
}

/// Something that answers every request by `answer`, and goes on holding the connection.
async fn serve(answer: impl Fn(usize) -> String + Send + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            let number = count.fetch_add(1, Ordering::SeqCst);
            let mut request = vec![0; 4_096];
            if connection.read(&mut request).await.is_ok() {
                connection.write_all(answer(number).as_bytes()).await.ok();
                held.push(connection);
            }
        }
    });
    (url, asked)
}

fn http(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn changes_after_the_list_count_and_those_before_do_not() {
    let mut etcd = source(vec!["http://127.0.0.1:1".to_owned()]);
    etcd.listed.revision = 10;
    assert!(!etcd.take_in(vec![change("10.0.0.2:1", 10, 7)]));
    assert!(etcd.take_in(vec![change("10.0.0.2:1", 11, 7), change("nonsense", 12, 7)]));
    let found = etcd.found(None);
    assert_eq!(found.places, [([10, 0, 0, 2], 1).into()]);
    assert!(found.trouble.expect("told").contains("1 keys below /cachecluster/images/"));
    assert!(etcd.take_in(vec![change("10.0.0.2:1", 13, 0), change("nonsense", 13, 0)]));
    assert_eq!(etcd.found(None), Found::default());
}

#[tokio::test]
async fn who_is_told_that_it_is_gone_looks_at_its_lease() {
    let mut etcd = source(vec!["http://127.0.0.1:1".to_owned()]);
    let later = Instant::now() + Duration::from_mins(1);
    etcd.lease = Some(Lease { id: 7, due: later });
    assert!(etcd.take_in(vec![change("10.0.0.1:9999", 1, 7)]));
    assert_eq!(etcd.lease.expect("there").due, later);
    assert!(etcd.take_in(vec![change("10.0.0.1:9999", 2, 0)]));
    assert!(etcd.lease.expect("there").due < later);
    assert!(!etcd.has_news, "a look is to ask etcd");
}

#[tokio::test]
async fn what_is_no_etcd_is_told_and_the_next_server_asked() {
    let (html, asked) = serve(|_| http("502 Bad Gateway", "<html>busy</html>")).await;
    let (good, _) = serve(|_| http("200 OK", r#"{"header":{"revision":"3"}}"#)).await;
    let mut gateway = source(vec![html.clone(), good]).gateway;
    for _ in 0..2 {
        let answer = gateway.ask("kv/range", &json!({})).await.expect("the other answers");
        assert_eq!(words::revision(&answer), 3);
    }
    assert!(asked.load(Ordering::SeqCst) <= 1, "it is not asked again");
    let mut gateway = source(vec![html]).gateway;
    let refusal = gateway.ask("kv/range", &json!({})).await.expect_err("no etcd");
    assert!(told(refusal).contains("502 Bad Gateway, and is no etcd"));
}

#[tokio::test]
async fn a_line_without_an_end_is_cut() {
    let body = "x".repeat(3 << 20);
    let (url, _) = serve(move |_| http("200 OK", &body)).await;
    let mut gateway = source(vec![url]).gateway;
    let mut lines = gateway.lines("watch", &json!({})).await.expect("it begins");
    let why = lines.next().await.expect_err("no line");
    assert!(why.contains("a line of more than"), "{why}");
}

#[tokio::test]
async fn an_answer_without_an_end_is_cut() {
    let body = format!("\"{}\"", "x".repeat(9 << 20));
    let (url, _) = serve(move |_| http("200 OK", &body)).await;
    let refusal = source(vec![url]).gateway.ask("kv/range", &json!({})).await.expect_err("long");
    assert!(told(refusal).contains("its answer has more than"));
}
