//! The client side of groupcache's protocol, over HTTP/1.1.
//!
//! Connections are kept for each peer, as many as there were questions at once: Go's own
//! transport keeps two, and dials anew for the rest.

use std::{fmt::Display, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header::RETRY_AFTER};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::{Instant, timeout_at};

use super::health::Peer;
use crate::{
    group::{Asked, FillError},
    value::Value,
    wire::{BASE_PATH, GetResponse, Meaning, PeerPath, SetRequest, expire, remaining},
};

/// Time to connect. Peers are near; one that takes longer is as good as dead.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);

/// Connections to one peer that are kept without a question.
const IDLE_MAX: usize = 64;

/// How long they are kept: less than Go's servers do by default.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// Bytes of an error's text that are read.
const ERROR_MAX: usize = 4 << 10;

/// What came of a question to one peer.
#[derive(Debug)]
pub(super) enum Reply {
    /// The peer has spoken.
    Said(Asked),
    /// It has not, or not in a way that can be understood: why.
    Nothing(String),
}

/// Asks peers.
#[derive(Clone)]
pub(super) struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    reply_max: usize,
}

impl Client {
    pub(super) fn new(reply_max: usize) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_idle_timeout(IDLE_TIMEOUT)
            // A peer has a name and a port, and nobody needs to know ours.
            .set_host(true)
            .build(connector);
        Self { pool, reply_max }
    }

    /// Asks `peer` for a key of a group. The head of the answer has to be there by the
    /// first of two moments, and the whole of it by the second.
    pub(super) async fn get(
        &self,
        peer: &Peer,
        (group, key): (&str, &[u8]),
        (first_byte, deadline): (Instant, Instant),
    ) -> Reply {
        let request = match request(peer, Method::GET, PeerPath::write(group, key), Bytes::new()) {
            Ok(request) => request,
            // A key that is too long for a request is no fault of the peer's.
            Err(_too_long) => return Reply::Said(Asked::Unanswered),
        };
        let response = match timeout_at(first_byte, self.pool.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Reply::Nothing(chain(&error)),
            Err(_elapsed) => return Reply::Nothing("no answer in time".to_owned()),
        };
        let said = said(peer, response, self.reply_max);
        timeout_at(deadline, said)
            .await
            .unwrap_or_else(|_elapsed| Reply::Nothing("no end of its answer in time".to_owned()))
    }

    /// Has `peer` change what it holds of a key, by a method and a body (v2, v3). Says
    /// whether it has answered by `deadline` that it did.
    pub(super) async fn change(
        &self,
        peer: &Peer,
        (group, key): (&str, &[u8]),
        (method, body): (Method, Bytes),
        deadline: Instant,
    ) -> bool {
        let Ok(request) = request(peer, method, PeerPath::write(group, key), body) else {
            return false;
        };
        let changed = timeout_at(deadline, self.pool.request(request)).await;
        matches!(changed, Ok(Ok(response)) if response.status().is_success())
    }

    /// The body of a `PUT`.
    pub(super) fn set_request(
        group: &str,
        key: &[u8],
        value: &Value,
        ttl: Option<Duration>,
    ) -> Bytes {
        let request = SetRequest {
            group: Bytes::copy_from_slice(group.as_bytes()),
            key: Bytes::copy_from_slice(key),
            value: value.clone().into(),
            expire: ttl.map(|ttl| expire(ttl, std::time::SystemTime::now())),
        };
        request.write().into()
    }

    /// Whether `peer` answers anything at all.
    pub(super) async fn probe(&self, peer: &Peer, deadline: Instant) -> bool {
        // A path that names no key: every program of the family refuses it at once.
        let request = request(peer, Method::GET, BASE_PATH.to_owned(), Bytes::new());
        let Ok(request) = request else { return false };
        matches!(timeout_at(deadline, self.pool.request(request)).await, Ok(Ok(_)))
    }
}

fn request(
    peer: &Peer,
    method: Method,
    path: String,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let authority = peer.authority.as_str();
    let uri = Uri::builder().scheme("http").authority(authority).path_and_query(path).build()?;
    Request::builder().method(method).uri(uri).body(Full::new(body))
}

/// What `response` says about the key.
async fn said(peer: &Peer, response: Response<Incoming>, reply_max: usize) -> Reply {
    let status = response.status();
    let meaning = peer.dialect.meaning(status.as_u16());
    match meaning {
        Meaning::Value => value(response, reply_max).await,
        Meaning::NotFound => Reply::Said(Asked::NotFound),
        Meaning::Failed => Reply::Said(Asked::Failed(failure(response).await)),
        Meaning::Unanswered if status == StatusCode::BAD_GATEWAY => {
            Reply::Nothing(format!("it answered {status}"))
        }
        // It is there and has nothing to say about the key.
        Meaning::Unanswered => Reply::Said(Asked::Unanswered),
    }
}

async fn value(response: Response<Incoming>, reply_max: usize) -> Reply {
    // A message is a few bytes longer than its value.
    let body = Limited::new(response.into_body(), reply_max.saturating_add(64));
    let bytes = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) => return Reply::Nothing(format!("its answer broke off: {error}")),
    };
    match GetResponse::read(&bytes) {
        Ok(answer) => {
            let ttl = remaining(answer.expire, std::time::SystemTime::now());
            Reply::Said(Asked::Found(Value::new(&answer.value), ttl))
        }
        Err(error) => Reply::Nothing(error.to_string()),
    }
}

/// The failure of the owner's getter.
async fn failure(response: Response<Incoming>) -> FillError {
    let seconds = |text: &http::HeaderValue| text.to_str().ok()?.parse().ok();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(seconds);
    let text = Limited::new(response.into_body(), ERROR_MAX).collect().await;
    let text = text.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let message = format!("at its owner: {}", String::from_utf8_lossy(&text).trim());
    FillError::Unavailable { message, retry_after: retry_after.map(Duration::from_secs) }
}

/// An error with its causes, which say what happened.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        append(&mut text, cause);
        source = cause.source();
    }
    text
}

fn append(text: &mut String, cause: &dyn Display) {
    text.push_str(": ");
    text.push_str(&cause.to_string());
}
