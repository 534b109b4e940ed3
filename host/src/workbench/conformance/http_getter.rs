//! The profile `http-getter`: the same little getter in each language.
//!
//! docs/conformance.md has all of its behaviour. Each case plays an origin of its own.

use std::{fmt::Debug, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use tokio::{net::TcpListener, task::JoinSet};

use super::{
    Case,
    stage::{Miss, Stage, expect, failed, get, get_with, key_text, no_fault, skipped},
};
use crate::{
    config,
    group::FillError,
    plugin::{Ended, Plugin, Problem},
    workbench::{
        answer,
        expectation::Expect,
        origin::{Asked, Delivery, Origin, Reply},
    },
};

/// What is shown, in the order of docs/conformance.md.
pub(super) const CASES: &[Case] = &[
    Case { name: "loads", shows: "it loads with `url` alone", run: |stage| Box::pin(loads(stage)) },
    Case {
        name: "url-missing",
        shows: "without `url`, the setting is named",
        run: |stage| Box::pin(url_missing(stage)),
    },
    Case {
        name: "url-empty",
        shows: "with an empty `url`, the setting is named",
        run: |stage| Box::pin(url_empty(stage)),
    },
    Case {
        name: "ttl-default",
        shows: "a value is fresh for 60 seconds",
        run: |stage| Box::pin(ttl_default(stage)),
    },
    Case {
        name: "ttl-set",
        shows: "a value is fresh for as long as `ttl` says",
        run: |stage| Box::pin(ttl_set(stage)),
    },
    Case {
        name: "ttl-wrong",
        shows: "with a `ttl` that is no number, the setting is named",
        run: |stage| Box::pin(ttl_wrong(stage)),
    },
    Case {
        name: "found",
        shows: "200 is the value, by one GET",
        run: |stage| Box::pin(found(stage)),
    },
    Case {
        name: "content-type",
        shows: "the media type is passed on, and absent where there is none",
        run: |stage| Box::pin(content_type(stage)),
    },
    Case {
        name: "encoding",
        shows: "keys arrive as one segment, percent-encoded",
        run: |stage| Box::pin(encoding(stage)),
    },
    Case {
        name: "no-segment",
        shows: "the empty key, `.` and `..` are invalid, without a request",
        run: |stage| Box::pin(no_segment(stage)),
    },
    Case {
        name: "validator",
        shows: "the ETag is the validator, quotes and all",
        run: |stage| Box::pin(validator(stage)),
    },
    Case {
        name: "conditional",
        shows: "If-None-Match is sent, and 304 is not-modified",
        run: |stage| Box::pin(conditional(stage)),
    },
    Case {
        name: "not-found",
        shows: "404 and 410 are not-found, for 10 seconds",
        run: |stage| Box::pin(not_found(stage)),
    },
    Case { name: "denied", shows: "401 and 403 are denied", run: |stage| Box::pin(denied(stage)) },
    Case {
        name: "unavailable",
        shows: "429 and 5xx are unavailable",
        run: |stage| Box::pin(unavailable(stage)),
    },
    Case {
        name: "retry-after",
        shows: "the seconds of Retry-After are passed on",
        run: |stage| Box::pin(retry_after(stage)),
    },
    Case {
        name: "other-status",
        shows: "any other status is internal, and named; redirects are not followed",
        run: |stage| Box::pin(other_status(stage)),
    },
    Case {
        name: "refused",
        shows: "an origin where nobody listens is unavailable",
        run: |stage| Box::pin(refused(stage)),
    },
    Case {
        name: "cut-off",
        shows: "a connection that ends early is unavailable, never half a value",
        run: |stage| Box::pin(cut_off(stage)),
    },
    Case {
        name: "slow",
        shows: "an origin that does not answer is given up in time",
        run: |stage| Box::pin(slow(stage)),
    },
    Case {
        name: "binary",
        shows: "every byte arrives as it was sent",
        run: |stage| Box::pin(binary(stage)),
    },
    Case {
        name: "empty",
        shows: "a value of no bytes is a value",
        run: |stage| Box::pin(empty(stage)),
    },
    Case {
        name: "large",
        shows: "200 KiB arrive as they were sent",
        run: |stage| Box::pin(large(stage)),
    },
    Case {
        name: "chunked",
        shows: "bodies without a length arrive too",
        run: |stage| Box::pin(chunked(stage)),
    },
    Case {
        name: "not-granted",
        shows: "an origin that is not granted is an error, not a fault",
        run: |stage| Box::pin(not_granted(stage)),
    },
    Case {
        name: "mixed",
        shows: "values, not-founds and errors in turn, each right",
        run: |stage| Box::pin(mixed(stage)),
    },
    Case {
        name: "concurrent",
        shows: "32 keys at once, each its own value",
        run: |stage| Box::pin(concurrent(stage)),
    },
];

/// Where the values are, below the origin.
const BASE: &str = "/items";

/// Time for a get of an origin that does not answer. A tenth of it is enough of a margin
/// for the slowest of guests.
const SLOW: Duration = Duration::from_secs(3);

/// Gets at once.
const CONCURRENT: usize = 32;

const LARGE: usize = 200 << 10;

type Shown = Result<(), Miss>;

/// The settings for values at `origin`: `url` alone, and the grants for it. What else
/// the manifest sets is kept, but for `ttl`.
fn settings(stage: &Stage, origin: SocketAddr) -> config::Plugin {
    let mut settings = stage.settings().clone();
    settings.config.remove("ttl");
    settings.config.insert("url".to_owned(), format!("http://{origin}{BASE}"));
    settings.network.http = vec![format!("http://{origin}")];
    settings.network.allow_private = vec!["127.0.0.0/8".to_owned()];
    settings
}

async fn play(
    stage: &Stage,
    answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
) -> Result<(Arc<Plugin>, Origin), Miss> {
    let origin = Origin::start(answer).await?;
    let settings = settings(stage, origin.address());
    Ok((stage.load_as(stage.mode(), &settings).await?, origin))
}

/// Plays an origin whose answer is the same whatever is asked.
async fn play_one(stage: &Stage, reply: Reply) -> Result<(Arc<Plugin>, Origin), Miss> {
    play(stage, move |_| reply.clone()).await
}

/// The part of a request's target that stands for the key.
fn segment(asked: &Asked) -> &str {
    asked.target.strip_prefix(BASE).and_then(|it| it.strip_prefix('/')).unwrap_or_default()
}

/// `key` as one segment of a path.
fn encoded(key: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    key.bytes().map(byte).collect()
}

fn expect_value(key: &str, ended: &Ended, value: &[u8]) -> Shown {
    expect(key, ended, Expect::Found)?;
    let found = answer::value(ended).map_or(&[][..], |value| value.body());
    match answer::difference(value, found) {
        None => Ok(()),
        Some(difference) => failed(format!("the value of {} is {difference}", key_text(key))),
    }
}

fn expect_ttl(key: &str, ended: &Ended, seconds: u64) -> Shown {
    let freshness = answer::freshness(ended).unwrap_or_default();
    let is_right = freshness.ttl == Some(Duration::from_secs(seconds));
    if is_right && freshness.grace.is_none() {
        return Ok(());
    }
    failed(format!(
        "the get of {} is {} where a ttl of {seconds}s and no stale time is expected",
        key_text(key),
        answer::line(ended)
    ))
}

fn expect_same<T: Copy + PartialEq + Debug>(what: &str, key: &str, found: T, expected: T) -> Shown {
    if found == expected {
        return Ok(());
    }
    let key = key_text(key);
    failed(format!("the {what} of {key} is {found:?} where {expected:?} is expected"))
}

fn expect_requests(origin: &Origin, count: u64, what: &str) -> Shown {
    match origin.count() {
        asked if asked == count => Ok(()),
        asked => failed(format!("{what} made {asked} requests where {count} is expected")),
    }
}

/// With `settings`, the plugin does not load, or fails its gets, with a text that names
/// the setting `name`.
async fn expect_named(stage: &Stage, settings: &config::Plugin, name: &str) -> Shown {
    let said = match stage.load_as(stage.mode(), settings).await {
        Err(error) => match error.problem {
            Problem::Lifecycle { function: "init", message, is_fault: false } => message,
            problem => return failed(format!("it is refused otherwise than by init: {problem}")),
        },
        Ok(plugin) => {
            if plugin.status().exports.lifecycle {
                return failed(format!("lifecycle.init does not refuse a wrong `{name}`"));
            }
            let ended = get(&plugin, "a").await;
            expect("a", &ended, Expect::Internal)?;
            answer::error(&ended).map(answer::message).unwrap_or_default().to_owned()
        }
    };
    if said.contains(name) {
        return Ok(());
    }
    failed(format!("its text does not name the setting `{name}`: {}", answer::quoted(&said)))
}

async fn loads(stage: Arc<Stage>) -> Shown {
    play_one(&stage, Reply::new(200, "x")).await.map(drop)
}

async fn url_missing(stage: Arc<Stage>) -> Shown {
    let mut settings = settings(&stage, ([127, 0, 0, 1], 1).into());
    settings.config.remove("url");
    expect_named(&stage, &settings, "url").await
}

async fn url_empty(stage: Arc<Stage>) -> Shown {
    let mut settings = settings(&stage, ([127, 0, 0, 1], 1).into());
    settings.config.insert("url".to_owned(), String::new());
    expect_named(&stage, &settings, "url").await
}

async fn ttl_default(stage: Arc<Stage>) -> Shown {
    let (plugin, _origin) = play_one(&stage, Reply::new(200, "x")).await?;
    let ended = get(&plugin, "a").await;
    expect_value("a", &ended, b"x")?;
    expect_ttl("a", &ended, 60)
}

async fn ttl_set(stage: Arc<Stage>) -> Shown {
    let origin = Origin::start(|_| Reply::new(200, "x")).await?;
    let mut settings = settings(&stage, origin.address());
    settings.config.insert("ttl".to_owned(), "7".to_owned());
    let plugin = stage.load_as(stage.mode(), &settings).await?;
    let ended = get(&plugin, "a").await;
    expect_value("a", &ended, b"x")?;
    expect_ttl("a", &ended, 7)
}

async fn ttl_wrong(stage: Arc<Stage>) -> Shown {
    let mut settings = settings(&stage, ([127, 0, 0, 1], 1).into());
    settings.config.insert("ttl".to_owned(), "soon".to_owned());
    expect_named(&stage, &settings, "ttl").await
}

async fn found(stage: Arc<Stage>) -> Shown {
    let (plugin, origin) = play_one(&stage, Reply::new(200, "an item\n")).await?;
    let ended = get(&plugin, "a").await;
    expect_value("a", &ended, b"an item\n")?;
    expect_requests(&origin, 1, "one get")?;
    let asked = origin.asked();
    let Some(asked) = asked.first() else { return failed("the request is not to be found") };
    if asked.method != Method::GET || asked.target != "/items/a" {
        let what = format!("{} {}", asked.method, asked.target);
        return failed(format!("it asked `{what}` where `GET /items/a` is expected"));
    }
    let head = answer::value(&ended).and_then(|value| value.head());
    match head {
        Some(head) if !head.tags.is_empty() || !head.metadata.is_empty() => {
            failed(format!("it has tags or metadata: {}", answer::line(&ended)))
        }
        _ => Ok(()),
    }
}

async fn content_type(stage: Arc<Stage>) -> Shown {
    let (plugin, _origin) = play(&stage, |asked| match segment(asked) {
        "typed" => Reply::new(200, "x").with("content-type", "text/plain; charset=utf-8"),
        _ => Reply::new(200, "x"),
    })
    .await?;
    for (key, expected) in [("typed", Some("text/plain; charset=utf-8")), ("bare", None)] {
        let ended = get(&plugin, key).await;
        expect(key, &ended, Expect::Found)?;
        let found = answer::value(&ended).and_then(|value| value.content_type()?.to_str().ok());
        expect_same("content-type", key, found, expected)?;
    }
    Ok(())
}

async fn encoding(stage: Arc<Stage>) -> Shown {
    let (plugin, origin) = play_one(&stage, Reply::new(200, "x")).await?;
    let keys = [
        "aZ09-._~",
        "a b/ü",
        "%2F",
        "?x=1&y",
        "#z",
        "a+b",
        "猫",
        "\0",
        "...",
        "../a",
        "\"<>\\^`{|}",
        "a;b,c:d@e$f!g'h(i)*j",
    ];
    for key in keys {
        expect(key, &get(&plugin, key).await, Expect::Found)?;
        let asked = origin.asked().last().map(|asked| asked.target.clone()).unwrap_or_default();
        let expected = format!("{BASE}/{}", encoded(key));
        if asked != expected {
            let key = key_text(key);
            return failed(format!("for {key} it asked `{asked}` where `{expected}` is expected"));
        }
    }
    Ok(())
}

async fn no_segment(stage: Arc<Stage>) -> Shown {
    let (plugin, origin) = play_one(&stage, Reply::new(200, "x")).await?;
    for key in ["", ".", ".."] {
        expect(key, &get(&plugin, key).await, Expect::InvalidKey)?;
        expect_requests(&origin, 0, &format!("the get of {}", key_text(key)))?;
    }
    Ok(())
}

/// An origin whose value has an entity tag, and one by another key without.
fn tagged(asked: &Asked) -> Reply {
    match segment(asked) {
        "strong" => Reply::new(200, "x").with("etag", "\"v1\""),
        "weak" => Reply::new(200, "x").with("etag", "W/\"v2\""),
        _ => Reply::new(200, "x"),
    }
}

/// The validator of `key`; where there is none though there could be, the getter has no
/// validators at all.
async fn validator_of(plugin: &Plugin, key: &str) -> Result<Option<String>, Miss> {
    let ended = get(plugin, key).await;
    expect(key, &ended, Expect::Found)?;
    Ok(answer::value(&ended).and_then(|value| value.validator()).map(str::to_owned))
}

async fn validator(stage: Arc<Stage>) -> Shown {
    let (plugin, _origin) = play(&stage, tagged).await?;
    let Some(strong) = validator_of(&plugin, "strong").await? else {
        return skipped("it gives no validators");
    };
    let weak = validator_of(&plugin, "weak").await?;
    let none = validator_of(&plugin, "none").await?;
    let found = (strong.as_str(), weak.as_deref(), none.as_deref());
    let expected = ("\"v1\"", Some("W/\"v2\""), None);
    if found != expected {
        return failed(format!("its validators are {found:?} where {expected:?} is expected"));
    }
    Ok(())
}

async fn conditional(stage: Arc<Stage>) -> Shown {
    let (plugin, origin) = play(&stage, |asked| {
        let held = asked.headers.get(header::IF_NONE_MATCH);
        if held.is_some_and(|held| held.as_bytes() == b"\"v1\"") {
            Reply::new(304, "").with("etag", "\"v1\"")
        } else {
            tagged(asked)
        }
    })
    .await?;
    if validator_of(&plugin, "strong").await?.is_none() {
        return skipped("it gives no validators");
    }
    if origin.asked().iter().any(|asked| asked.headers.contains_key(header::IF_NONE_MATCH)) {
        return failed("it sends If-None-Match in a call without a validator");
    }
    let same = get_with(&plugin, "strong", Some("\"v1\"")).await;
    expect("strong", &same, Expect::NotModified)?;
    expect_ttl("strong", &same, 60)?;
    let other = get_with(&plugin, "strong", Some("W/\"old\"")).await;
    expect_value("strong", &other, b"x")?;
    let sent =
        origin.asked().last().and_then(|asked| asked.headers.get(header::IF_NONE_MATCH).cloned());
    if sent.as_ref().map(HeaderValue::as_bytes) != Some(b"W/\"old\"") {
        return failed(format!("it sends If-None-Match {sent:?} for the validator W/\"old\""));
    }
    Ok(())
}

/// The status that `asked` names in the place of the key.
fn named_status(asked: &Asked) -> u16 {
    segment(asked).parse().unwrap_or(500)
}

async fn not_found(stage: Arc<Stage>) -> Shown {
    let (plugin, _origin) =
        play(&stage, |asked| Reply::new(named_status(asked), "no such item\n")).await?;
    for key in ["404", "410"] {
        let ended = get(&plugin, key).await;
        expect(key, &ended, Expect::NotFound)?;
        expect_ttl(key, &ended, 10)?;
    }
    Ok(())
}

async fn denied(stage: Arc<Stage>) -> Shown {
    let (plugin, _origin) = play(&stage, |asked| Reply::new(named_status(asked), "no\n")).await?;
    for key in ["401", "403"] {
        expect(key, &get(&plugin, key).await, Expect::Denied)?;
    }
    Ok(())
}

async fn unavailable(stage: Arc<Stage>) -> Shown {
    let (plugin, origin) = play(&stage, |asked| Reply::new(named_status(asked), "no\n")).await?;
    let keys = ["429", "500", "502", "503", "504"];
    for key in keys {
        expect(key, &get(&plugin, key).await, Expect::Unavailable)?;
    }
    expect_requests(&origin, keys.len() as u64, "five gets")
}

async fn retry_after(stage: Arc<Stage>) -> Shown {
    let (plugin, _origin) = play(&stage, |asked| match segment(asked) {
        "seconds" => Reply::new(503, "").with("retry-after", "7"),
        "date" => Reply::new(503, "").with("retry-after", "Wed, 21 Oct 2037 07:28:00 GMT"),
        _ => Reply::new(429, ""),
    })
    .await?;
    for (key, expected) in
        [("seconds", Some(Duration::from_secs(7))), ("date", None), ("none", None)]
    {
        let ended = get(&plugin, key).await;
        expect(key, &ended, Expect::Unavailable)?;
        let found = answer::error(&ended).and_then(FillError::retry_after);
        expect_same("retry-after", key, found, expected)?;
    }
    Ok(())
}

async fn other_status(stage: Arc<Stage>) -> Shown {
    let (plugin, origin) = play(&stage, |asked| {
        let reply = Reply::new(named_status(asked), "");
        if reply.status.is_redirection() { reply.with("location", "/items/200") } else { reply }
    })
    .await?;
    let keys = ["204", "301", "400", "418"];
    for key in keys {
        let ended = get(&plugin, key).await;
        expect(key, &ended, Expect::Internal)?;
        let said = answer::error(&ended).map(answer::message).unwrap_or_default();
        if !said.contains(key) {
            return failed(format!(
                "its text does not have the status {key}: {}",
                answer::quoted(said)
            ));
        }
    }
    expect_requests(&origin, keys.len() as u64, "four gets")
}

async fn refused(stage: Arc<Stage>) -> Shown {
    // A port that was free a moment ago.
    let address = free_address().await?;
    let plugin = stage.load_as(stage.mode(), &settings(&stage, address)).await?;
    expect("a", &get(&plugin, "a").await, Expect::Unavailable)
}

async fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0").await?.local_addr()
}

async fn cut_off(stage: Arc<Stage>) -> Shown {
    let (plugin, _origin) = play(&stage, |asked| {
        let reply = Reply::new(200, "0123456789".repeat(1_000));
        match segment(asked) {
            "before" => reply.sent(Delivery::HungUp),
            _ => reply.sent(Delivery::CutShort),
        }
    })
    .await?;
    for key in ["before", "within"] {
        expect(key, &get(&plugin, key).await, Expect::Unavailable)?;
    }
    Ok(())
}

async fn slow(stage: Arc<Stage>) -> Shown {
    let origin = Origin::start(|_| Reply::new(200, "x").sent(Delivery::Silent)).await?;
    let mut settings = settings(&stage, origin.address());
    settings.limits.timeout = SLOW;
    let plugin = stage.load_as(stage.mode(), &settings).await?;
    let ended = get(&plugin, "a").await;
    match answer::kind(&ended) {
        Some(Expect::TimedOut) if matches!(ended, Ended::Faulted(_)) => {
            skipped("it does not give up by itself: the host cut it off")
        }
        Some(Expect::TimedOut | Expect::Unavailable) => no_fault("a", ended).map(drop),
        _ => expect("a", &ended, Expect::Unavailable),
    }
}

async fn exact(stage: &Stage, value: Vec<u8>, delivery: Delivery) -> Shown {
    let body = Bytes::from(value.clone());
    let (plugin, _origin) = play_one(stage, Reply::new(200, body).sent(delivery)).await?;
    for key in ["a", "b"] {
        expect_value(key, &get(&plugin, key).await, &value)?;
    }
    Ok(())
}

fn every_byte() -> Vec<u8> {
    (0..=u8::MAX).chain((0..=u8::MAX).rev()).collect()
}

/// Bytes that are not the same anywhere near one another.
fn many_bytes() -> Vec<u8> {
    let byte = |n: u32| n.wrapping_mul(2_654_435_761).to_le_bytes()[3];
    (0..).map(byte).take(LARGE).collect()
}

async fn binary(stage: Arc<Stage>) -> Shown {
    exact(&stage, every_byte(), Delivery::Whole).await
}

async fn empty(stage: Arc<Stage>) -> Shown {
    exact(&stage, Vec::new(), Delivery::Whole).await
}

async fn large(stage: Arc<Stage>) -> Shown {
    exact(&stage, many_bytes(), Delivery::Whole).await
}

async fn chunked(stage: Arc<Stage>) -> Shown {
    for value in [every_byte(), Vec::new(), many_bytes()] {
        exact(&stage, value, Delivery::Chunked).await?;
    }
    Ok(())
}

async fn not_granted(stage: Arc<Stage>) -> Shown {
    let origin = Origin::start(|_| Reply::new(200, "x")).await?;
    let mut settings = settings(&stage, origin.address());
    settings.network.http.clear();
    let plugin = stage.load_as(stage.mode(), &settings).await?;
    let ended = no_fault("a", get(&plugin, "a").await)?;
    if answer::error(&ended).is_none() {
        return failed(format!("the get of \"a\" is {}", answer::line(&ended)));
    }
    expect_requests(&origin, 0, "a get without a grant")
}

async fn mixed(stage: Arc<Stage>) -> Shown {
    let (plugin, _origin) = play(&stage, |asked| match segment(asked) {
        "missing" => Reply::new(404, ""),
        "broken" => Reply::new(500, ""),
        "locked" => Reply::new(403, ""),
        key => Reply::new(200, format!("value of {key}")),
    })
    .await?;
    for _ in 0..4 {
        expect_value("one", &get(&plugin, "one").await, b"value of one")?;
        expect("missing", &get(&plugin, "missing").await, Expect::NotFound)?;
        expect("broken", &get(&plugin, "broken").await, Expect::Unavailable)?;
        expect_value("two", &get(&plugin, "two").await, b"value of two")?;
        expect("", &get(&plugin, "").await, Expect::InvalidKey)?;
        expect("locked", &get(&plugin, "locked").await, Expect::Denied)?;
    }
    Ok(())
}

async fn concurrent(stage: Arc<Stage>) -> Shown {
    let (plugin, origin) =
        play(&stage, |asked| Reply::new(200, format!("value of {}", segment(asked)))).await?;
    let mut calls = JoinSet::new();
    for number in 0..CONCURRENT {
        let plugin = Arc::clone(&plugin);
        calls.spawn(async move {
            let key = format!("key-{number}");
            (get(&plugin, &key).await, key)
        });
    }
    while let Some(call) = calls.join_next().await {
        let Ok((ended, key)) = call else { return failed("a call panicked") };
        expect_value(&key, &ended, format!("value of {key}").as_bytes())?;
    }
    expect_requests(&origin, CONCURRENT as u64, "32 gets")
}
