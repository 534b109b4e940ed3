//! From a request to its reply.
//!
//! Its `answer` is the whole of a plain `GET`: the key is a slice of the path, the
//! reply is written as text, and a large body is the value where memory holds it.
//! `respond` is for all else. Only a miss makes a future, which waits for
//! the fill and ends at the request's deadline.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ::http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode, Uri,
    header::{AGE, CACHE_STATUS, CONTENT_LENGTH, CONTENT_TYPE, ETAG, X_CONTENT_TYPE_OPTIONS},
    request::Parts,
};
use tokio::time::Instant;

use super::{
    super::{
        body::ReplyBody,
        cache_status, conditional,
        problem::Problem,
        target::{self, Target},
    },
    answers::{Answer, Answers},
    head::Limits,
    quick::{Made, content_type},
};
use crate::{
    config,
    group::{self, GetError, Group, Groups, Told},
    metrics::FrontMetrics,
    value::{Hit, Provenance},
};

/// What a client may ask of a key.
pub(super) const ALLOW: &str = "GET, HEAD, DELETE";

/// Answers requests from the groups.
#[derive(Clone, Debug)]
pub struct Handler {
    groups: Arc<Groups>,
    metrics: FrontMetrics,
    headers_max: usize,
    url_max: usize,
    request_timeout: Duration,
}

/// A reply that is ready, or one that waits for a fill.
pub(crate) enum Reply {
    /// The reply; `None` once it was taken.
    Ready(Option<Response<ReplyBody>>),
    /// The reply follows.
    Later(Pin<Box<dyn Future<Output = Response<ReplyBody>>>>),
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(response) => f.debug_tuple("Ready").field(response).finish(),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}

impl From<Response<ReplyBody>> for Reply {
    fn from(response: Response<ReplyBody>) -> Self {
        Self::Ready(Some(response))
    }
}

impl Future for Reply {
    type Output = Response<ReplyBody>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<ReplyBody>> {
        match self.get_mut() {
            Self::Ready(response) => response.take().map_or(Poll::Pending, Poll::Ready),
            Self::Later(later) => later.as_mut().poll(cx),
        }
    }
}

impl Handler {
    /// Answers from `groups`, within the limits of `settings`.
    pub fn new(groups: Arc<Groups>, metrics: FrontMetrics, settings: &config::Http) -> Self {
        Self {
            groups,
            metrics,
            headers_max: settings.headers_max.as_usize(),
            url_max: settings.url_max.as_usize(),
            request_timeout: settings.request_timeout,
        }
    }
}

impl Answers for Handler {
    fn limits(&self) -> Limits {
        Limits { headers_max: self.headers_max, url_max: self.url_max }
    }

    fn answer(&self, path: &str, now: Instant) -> Answer {
        let Ok(Target { group: name, key }) = target::parse_path(path) else {
            return Answer::NotHere;
        };
        let Some(group) = self.groups.get(&name) else { return Answer::NotHere };
        if let Some(answer) = group.recall_at(&key, now) {
            return Answer::Made(self.made(&group, answer, true));
        }
        let (handler, key) = (self.clone(), key.into_owned());
        Answer::Later(Box::pin(async move {
            let answer = handler.get(&group, &key, now).await;
            handler.made(&group, answer, false)
        }))
    }

    fn respond(&self, head: Parts) -> Reply {
        let Parts { method, uri, headers, .. } = head;
        let is_head = method == Method::HEAD;
        if let Some(problem) = self.over_limit(&uri, &headers) {
            return self.refuse(&problem, headers, is_head).into();
        }
        if !is_head && method != Method::GET && method != Method::DELETE {
            return self.refuse(&Problem::method(ALLOW), headers, false).into();
        }
        let Target { group: name, key } = match target::parse(&uri) {
            Ok(target) => target,
            Err(error) => return self.refuse(&error.into(), headers, is_head).into(),
        };
        let Some(group) = self.groups.get(&name) else {
            return self.refuse(&Problem::no_group(&name), headers, is_head).into();
        };
        if method == Method::DELETE {
            let (_, Some(telling)) = group.purge_everywhere(&key) else {
                return self.purged(headers).into();
            };
            let handler = self.clone();
            return Reply::Later(Box::pin(async move {
                match telling.await {
                    Told { missed: 0, .. } => handler.purged(headers),
                    told => handler.refuse(&Problem::missed(group.name(), told), headers, false),
                }
            }));
        }
        let now = Instant::now();
        if let Some(answer) = group.recall_at(&key, now) {
            return self.answered(&group, answer, headers, is_head, true).into();
        }
        let (handler, key) = (self.clone(), key.into_owned());
        Reply::Later(Box::pin(async move {
            let answer = handler.get(&group, &key, now).await;
            handler.answered(&group, answer, headers, is_head, false)
        }))
    }

    fn refuse(
        &self,
        problem: &Problem,
        mut headers: HeaderMap,
        is_head: bool,
    ) -> Response<ReplyBody> {
        headers.clear();
        self.count(problem.reply(headers, is_head))
    }
}

impl Handler {
    fn over_limit(&self, uri: &Uri, headers: &HeaderMap) -> Option<Problem> {
        if uri.path_and_query().is_some_and(|path| path.as_str().len() > self.url_max) {
            return Some(Problem::url(self.url_max));
        }
        // As they stood on the wire, with the colon, the space and the line's end.
        let line = |(name, value): (&::http::HeaderName, &HeaderValue)| {
            name.as_str().len() + value.len() + 4
        };
        (headers.iter().map(line).sum::<usize>() > self.headers_max)
            .then(|| Problem::headers(self.headers_max))
    }

    /// Gets what memory did not have at `now`.
    async fn get(&self, group: &Arc<Group>, key: &[u8], now: Instant) -> Result<Hit, GetError> {
        let patience = group::Context::until(now + self.request_timeout);
        group.get_missed(key, now, &group::Context { is_serving: true, ..patience }).await
    }

    /// The reply to a plain `GET` for what a group answered.
    fn made(&self, group: &Group, answer: Result<Hit, GetError>, from_memory: bool) -> Made {
        match answer {
            Ok(hit) => {
                self.metrics.answered(StatusCode::OK);
                Made::Value(hit)
            }
            error => {
                Made::Response(self.answered(group, error, HeaderMap::new(), false, from_memory))
            }
        }
    }

    /// The reply for what a group answered. `headers` are those of the request.
    fn answered(
        &self,
        group: &Group,
        answer: Result<Hit, GetError>,
        mut headers: HeaderMap,
        is_head: bool,
        from_memory: bool,
    ) -> Response<ReplyBody> {
        match answer {
            Ok(Hit { value, provenance }) => {
                let is_known = conditional::has(&headers, value.digest());
                // The map of the request has room for the reply's headers, and hyper
                // takes it back for the next request: no allocation on either side.
                headers.clear();
                described(&mut headers, &provenance);
                if let Some(etag) = conditional::etag(value.digest()) {
                    headers.insert(ETAG, etag);
                }
                if is_known {
                    return self.reply(StatusCode::NOT_MODIFIED, headers, ReplyBody::empty());
                }
                headers.insert(CONTENT_TYPE, content_type(&value).clone());
                headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
                if is_head {
                    headers.insert(CONTENT_LENGTH, HeaderValue::from(value.body().len()));
                    return self.reply(StatusCode::OK, headers, ReplyBody::empty());
                }
                self.reply(StatusCode::OK, headers, value.into())
            }
            Err(error) => {
                headers.clear();
                match &error {
                    GetError::NotFound(provenance) => described(&mut headers, provenance),
                    _ => {
                        headers.insert(CACHE_STATUS, cache_status::failed(from_memory));
                    }
                }
                let problem = Problem::from(&error).of_group(group.name());
                self.count(problem.reply(headers, is_head))
            }
        }
    }

    fn purged(&self, mut headers: HeaderMap) -> Response<ReplyBody> {
        headers.clear();
        self.reply(StatusCode::NO_CONTENT, headers, ReplyBody::empty())
    }

    fn reply(
        &self,
        status: StatusCode,
        headers: HeaderMap,
        body: ReplyBody,
    ) -> Response<ReplyBody> {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        self.count(response)
    }

    fn count(&self, response: Response<ReplyBody>) -> Response<ReplyBody> {
        self.metrics.answered(response.status());
        response
    }
}

/// Says where an answer came from.
fn described(headers: &mut HeaderMap, provenance: &Provenance) {
    headers.insert(AGE, cache_status::age(provenance));
    headers.insert(CACHE_STATUS, cache_status::answered(provenance));
}
