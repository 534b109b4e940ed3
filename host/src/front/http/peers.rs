//! The surface for peers: groupcache's protocol, `/_groupcache/{group}/{key}`.
//!
//! | request | is answered by |
//! |---|---|
//! | `GET` | the value as a `GetResponse`, from memory or a fill of this node's own |
//! | `DELETE` | forgetting the key here (v2, v3) |
//! | `PUT` with a `SetRequest` | keeping the value here (v2, v3) |
//! | `POST {group}/_remove-keys/` with JSON | forgetting the keys here (v3) |
//!
//! A request that came in here is never sent on to another node, whatever this node's own
//! ring says: rings that differ for a moment cost a second fill and no loop.
//!
//! There is no authentication in this protocol.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use ::http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
    request::Parts,
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    super::{body::ReplyBody, problem::Problem},
    answers::{Answer, Answers},
    handler::Reply,
    head::Limits,
    quick::{self, Made},
};
use crate::{
    config,
    group::{Context, GetError, Group, Groups, Purged},
    metrics::FrontMetrics,
    value::{Hit, Value},
    wire::{self, Dialect, GetResponse, PeerPath, Refusal, RemoveKeys, SetRequest},
};

/// What a peer may ask.
const ALLOW: &str = "GET, PUT, DELETE, POST";

/// The key below which v3 posts lists of keys to forget. Any other request names the key
/// of this name.
const REMOVE_KEYS: &[u8] = b"_remove-keys/";

/// The shortest life that a value is given on its way to another node. It may be of no use
/// any more, or not to be kept; but v2 takes a value that has expired for an error, and
/// clocks differ a little.
const TTL_MIN: Duration = Duration::from_secs(1);

/// How a fleet's peers speak.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// How errors are told.
    pub dialect: Dialect,
    /// Whether their clients write a space in a key as `+`.
    pub plus_is_space: bool,
    /// Bytes of a value that a peer may put here.
    pub value_max: usize,
}

/// Answers peers from the groups.
#[derive(Clone, Debug)]
pub(super) struct PeerHandler {
    groups: Arc<Groups>,
    metrics: FrontMetrics,
    manners: Manners,
    limits: Limits,
    request_timeout: Duration,
}

/// A refusal with its reason in words.
struct Refused(Refusal, String, Option<Duration>);

impl PeerHandler {
    pub(super) fn new(
        groups: Arc<Groups>,
        metrics: FrontMetrics,
        manners: Manners,
        settings: &config::Http,
    ) -> Self {
        let limits = Limits {
            headers_max: settings.headers_max.as_usize(),
            url_max: settings.url_max.as_usize(),
        };
        Self { groups, metrics, manners, limits, request_timeout: settings.request_timeout }
    }

    /// The group and key that `path` names.
    fn target(&self, path: &str) -> Result<(Arc<Group>, Vec<u8>), Refused> {
        let named = PeerPath::parse(path, self.manners.plus_is_space)
            .map_err(|error| Refused(Refusal::BadRequest, error.to_string(), None))?;
        let group = std::str::from_utf8(&named.group).ok().and_then(|name| self.groups.get(name));
        let group = group.ok_or_else(|| {
            let name = String::from_utf8_lossy(&named.group);
            Refused(Refusal::NoGroup, format!("no such group: {name}"), None)
        })?;
        Ok((group, named.key.into_owned()))
    }

    fn reply(&self, response: Response<ReplyBody>) -> Response<ReplyBody> {
        self.metrics.answered(response.status());
        response
    }

    fn refused(&self, Refused(refusal, text, retry_after): Refused) -> Response<ReplyBody> {
        let status = self.manners.dialect.status(refusal);
        let mut response = Response::new(ReplyBody::from(Bytes::from(text + "\n")));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Some(wait) = retry_after.filter(|wait| !wait.is_zero()) {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        self.reply(response)
    }

    fn answered(&self, answer: Result<Hit, GetError>) -> Response<ReplyBody> {
        match answer {
            Ok(hit) => self.reply(found(&hit)),
            Err(error) => self.refused(refusal(&error)),
        }
    }

    async fn get(&self, group: &Arc<Group>, key: &[u8], now: Instant) -> Result<Hit, GetError> {
        let patience = Context::until(now + self.request_timeout);
        group.get_missed(key, now, &Context { is_from_peer: true, ..patience }).await
    }

    /// The reply to a plain `GET`.
    fn made(&self, answer: Result<Hit, GetError>) -> Made {
        match answer {
            Ok(hit) => {
                self.metrics.answered(StatusCode::OK);
                let (before, after) = around(&hit, quick::wall());
                Made::Message(before, hit.value, after)
            }
            Err(error) => Made::Response(self.refused(refusal(&error))),
        }
    }

    fn done(&self) -> Response<ReplyBody> {
        self.reply(Response::new(ReplyBody::empty()))
    }

    /// Does what a request with a body asks for.
    fn act(&self, head: &Parts, body: &Bytes) -> Result<(), Refused> {
        let (group, key) = self.target(head.uri.path())?;
        let bad = |error: wire::Malformed| Refused(Refusal::BadRequest, error.to_string(), None);
        if head.method == Method::POST {
            let request = RemoveKeys::read(body).map_err(bad)?;
            for key in request.keys {
                group.forget(Purged::Key(key.as_bytes()));
            }
            return Ok(());
        }
        // The key of the message counts, as it does for the originals. It is the same one.
        let request = SetRequest::read(body).map_err(bad)?;
        if *request.key != *key {
            let text = "the message and the path name two keys".to_owned();
            return Err(Refused(Refusal::BadRequest, text, None));
        }
        let ttl = wire::remaining(request.expire, SystemTime::now());
        group.put(&key, Value::new(&request.value), ttl);
        Ok(())
    }
}

impl Answers for PeerHandler {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn answer(&self, path: &str, now: Instant) -> Answer {
        let Ok(PeerPath { group, key }) = PeerPath::parse(path, self.manners.plus_is_space) else {
            return Answer::NotHere;
        };
        let group = std::str::from_utf8(&group).ok().and_then(|name| self.groups.get(name));
        let Some(group) = group else { return Answer::NotHere };
        if let Some(answer) = group.recall_at(&key, now) {
            return Answer::Made(self.made(answer));
        }
        let (handler, key) = (self.clone(), key.into_owned());
        Answer::Later(Box::pin(async move {
            let answer = handler.get(&group, &key, now).await;
            handler.made(answer)
        }))
    }

    fn respond(&self, head: Parts) -> Reply {
        let (group, key) = match self.target(head.uri.path()) {
            Ok(target) => target,
            Err(refused) => return self.refused(refused).into(),
        };
        if head.method == Method::DELETE {
            group.forget(Purged::Key(&key));
            return self.done().into();
        }
        if head.method != Method::GET {
            return self.refuse(&Problem::method(ALLOW), head.headers, false).into();
        }
        let now = Instant::now();
        if let Some(answer) = group.recall_at(&key, now) {
            return self.answered(answer).into();
        }
        let handler = self.clone();
        Reply::Later(Box::pin(async move {
            let answer = handler.get(&group, &key, now).await;
            handler.answered(answer)
        }))
    }

    fn takes_body(&self, head: &Parts) -> bool {
        let is_list = || head.uri.path().as_bytes().ends_with(REMOVE_KEYS);
        head.method == Method::PUT || (head.method == Method::POST && is_list())
    }

    fn receive(&self, head: Parts, body: Incoming) -> Reply {
        let handler = self.clone();
        // The value, and the key and the group beside it.
        let max = self.manners.value_max.saturating_add(self.limits.url_max + 64);
        Reply::Later(Box::pin(async move {
            let timeout = handler.request_timeout;
            let body = Limited::new(body, max).collect();
            let text = match tokio::time::timeout(timeout, body).await {
                Ok(Ok(body)) => match handler.act(&head, &body.to_bytes()) {
                    Ok(()) => return handler.done(),
                    Err(refused) => return handler.refused(refused),
                },
                Ok(Err(_)) => "the message is too large, or broke off",
                Err(_elapsed) => "the message took too long",
            };
            handler.refused(Refused(Refusal::BadRequest, text.to_owned(), None))
        }))
    }

    fn refuse(
        &self,
        problem: &Problem,
        mut headers: HeaderMap,
        is_head: bool,
    ) -> Response<ReplyBody> {
        headers.clear();
        self.reply(problem.reply(headers, is_head))
    }
}

/// What stands around a value in its message.
fn around(hit: &Hit, now: SystemTime) -> (wire::Head, wire::Head) {
    let expire = wire::expire(hit.provenance.ttl.max(TTL_MIN), now);
    GetResponse::around(hit.value.body().len(), Some(expire))
}

fn found(hit: &Hit) -> Response<ReplyBody> {
    let (before, after) = around(hit, SystemTime::now());
    let message = [before.as_ref(), hit.value.body(), after.as_ref()].concat();
    let mut response = Response::new(ReplyBody::from(Bytes::from(message)));
    let protobuf = HeaderValue::from_static("application/x-protobuf");
    response.headers_mut().insert(CONTENT_TYPE, protobuf);
    response
}

fn refusal(error: &GetError) -> Refused {
    let refusal = match error {
        GetError::NotFound(_) => Refusal::NotFound,
        GetError::Fill { .. } | GetError::Cycle | GetError::Deadline => Refusal::Failed,
        GetError::Overloaded => Refusal::Overloaded,
    };
    let retry_after = match error {
        GetError::Fill { retry_after, .. } => Some(*retry_after),
        _ => None,
    };
    Refused(refusal, error.to_string(), retry_after)
}
