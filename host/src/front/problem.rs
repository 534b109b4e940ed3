//! What went wrong, as RFC 9457 problem documents.
//!
//! Every error of both surfaces is one of these: a status, a stable `type` for
//! programs, a `detail` for people that says what to do, and what it is about.

use std::time::Duration;

use ::http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS},
};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{body::ReplyBody, target::TargetError};
use crate::group::{FillError, GetError, Told};

/// Wait that is suggested where nothing says how long the trouble lasts.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// One thing that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    status: StatusCode,
    /// Last part of the `type`; the same for every occurrence.
    kind: &'static str,
    title: &'static str,
    detail: String,
    /// What else the document says, such as the group it is about.
    members: Map<String, Value>,
    retry_after: Option<Duration>,
    allow: Option<&'static str>,
}

impl Problem {
    /// A problem that is about nothing in particular.
    pub(crate) fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let detail = detail.into();
        Self { status, kind, title, detail, members: Map::new(), retry_after: None, allow: None }
    }

    /// The group the problem is about.
    #[must_use]
    pub(crate) fn of_group(self, group: &str) -> Self {
        self.with("group", group)
    }

    /// Something else that the document says.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// When to try again.
    #[must_use]
    pub(crate) fn retry(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// There is no group of this name.
    pub(crate) fn no_group(name: &str) -> Self {
        let detail = format!("no group of this node is named `{name}`");
        Self::new(StatusCode::NOT_FOUND, "unknown-group", "Unknown group", detail).of_group(name)
    }

    /// A purge that did not reach everybody.
    pub(crate) fn missed(group: &str, told: Told) -> Self {
        let Told { told, missed } = told;
        let detail = format!(
            "forgotten here and by {told} peers; {missed} could not be told and may keep a copy \
             until it expires"
        );
        let status = StatusCode::BAD_GATEWAY;
        let problem = Self::new(status, "purge-incomplete", "Purge incomplete", detail);
        problem.of_group(group).with("told", told).with("missed", missed)
    }

    /// The resource knows other methods than this one.
    pub(crate) fn method(allow: &'static str) -> Self {
        let detail = format!("this resource takes {allow}");
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let mut problem = Self::new(status, "method-not-allowed", "Method not allowed", detail);
        problem.allow = Some(allow);
        problem
    }

    /// Requests carry no body.
    pub(crate) fn body() -> Self {
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        let detail = "requests carry no body: the key is in the path";
        Self::new(status, "body-not-allowed", "Request body not allowed", detail)
    }

    /// The path is longer than `max` bytes.
    pub(crate) fn url(max: usize) -> Self {
        let detail = format!("the path is longer than {max} bytes ([http] url_max)");
        Self::new(StatusCode::URI_TOO_LONG, "path-too-long", "Path too long", detail)
    }

    /// The headers are larger than `max` bytes together.
    pub(crate) fn headers(max: usize) -> Self {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let detail = format!("the headers are larger than {max} bytes ([http] headers_max)");
        Self::new(status, "headers-too-large", "Headers too large", detail)
    }

    /// The reply for this problem; without its body if `bodiless`, as to a HEAD.
    ///
    /// `headers` holds what else the reply says, and is reused for the reply.
    pub(crate) fn reply(&self, mut headers: HeaderMap, bodiless: bool) -> Response<ReplyBody> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(wait) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        let document = Bytes::from(self.document());
        let body = if bodiless {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(document.len()));
            ReplyBody::empty()
        } else {
            document.into()
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = headers;
        response
    }

    fn document(&self) -> String {
        let mut document = json!({
            "type": format!("urn:cachecluster:problem:{}", self.kind),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        for (name, value) in &self.members {
            document[name] = value.clone();
        }
        format!("{document:#}\n")
    }
}

/// Seconds to wait, rounded up: a client that comes back too early is answered the
/// same again.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

impl From<TargetError> for Problem {
    fn from(error: TargetError) -> Self {
        let detail = error.to_string();
        match error {
            TargetError::NoKey => {
                Self::new(StatusCode::NOT_FOUND, "not-a-key", "The path names no key", detail)
            }
            TargetError::Query | TargetError::Fragment | TargetError::Percent(_) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid-path", "Invalid path", detail)
            }
        }
    }
}

impl From<&GetError> for Problem {
    fn from(error: &GetError) -> Self {
        let detail = error.to_string();
        match error {
            GetError::NotFound(_) => Self::new(
                StatusCode::NOT_FOUND,
                "key-not-found",
                "Key not found",
                "the origin has no such key",
            ),
            GetError::Fill { error, retry_after } => {
                let (status, kind, title, wait) = match error {
                    FillError::InvalidKey(_) => {
                        (StatusCode::BAD_REQUEST, "invalid-key", "Invalid key", None)
                    }
                    FillError::Denied(_) => (StatusCode::FORBIDDEN, "denied", "Denied", None),
                    FillError::Unavailable { retry_after: origins, .. } => (
                        StatusCode::SERVICE_UNAVAILABLE,
                        "origin-unavailable",
                        "Origin unavailable",
                        Some(origins.map_or(*retry_after, |wait| wait.max(*retry_after))),
                    ),
                    FillError::NotAsked { retry_after: worth, .. } => (
                        StatusCode::SERVICE_UNAVAILABLE,
                        "left-alone",
                        "Left alone after failures",
                        Some(*worth),
                    ),
                    FillError::Overloaded(_) => (
                        StatusCode::SERVICE_UNAVAILABLE,
                        "overloaded",
                        "Overloaded",
                        Some(*retry_after),
                    ),
                    FillError::TimedOut(_) => (
                        StatusCode::GATEWAY_TIMEOUT,
                        "origin-timeout",
                        "Origin timed out",
                        Some(*retry_after),
                    ),
                    FillError::Internal(_) => {
                        (StatusCode::BAD_GATEWAY, "getter-failed", "Getter failed", None)
                    }
                };
                let problem = Self::new(status, kind, title, detail);
                match wait {
                    Some(wait) => problem.retry(wait),
                    None => problem,
                }
            }
            GetError::Deadline => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "deadline",
                "No answer in time",
                "no answer within [http] request_timeout; the fill goes on and a later request \
                 may find its value",
            )
            .retry(RETRY_SOON),
            GetError::Overloaded => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Overloaded", detail)
                    .retry(RETRY_SOON)
            }
            GetError::Cycle => Self::new(StatusCode::BAD_GATEWAY, "cycle", "Getter cycle", detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(error: FillError) -> GetError {
        GetError::Fill { error, retry_after: Duration::from_millis(2_300) }
    }

    fn answer(error: &GetError) -> (u16, Option<String>) {
        let reply = Problem::from(error).reply(HeaderMap::new(), false);
        let wait = reply.headers().get(RETRY_AFTER);
        let wait = wait.map(|wait| wait.to_str().expect("a number").to_owned());
        (reply.status().as_u16(), wait)
    }

    #[test]
    fn each_error_has_its_status_and_its_wait() {
        let text = || "why".to_owned();
        let unavailable = |after: Option<u64>| FillError::Unavailable {
            message: text(),
            retry_after: after.map(Duration::from_secs),
        };
        for (error, status, wait) in [
            (fill(FillError::InvalidKey(text())), 400, None),
            (fill(FillError::Denied(text())), 403, None),
            (fill(unavailable(None)), 503, Some("3")),
            (fill(unavailable(Some(60))), 503, Some("60")),
            (
                fill(FillError::NotAsked { message: text(), retry_after: Duration::from_secs(9) }),
                503,
                Some("9"),
            ),
            (fill(FillError::Overloaded(text())), 503, Some("3")),
            (fill(FillError::TimedOut(text())), 504, Some("3")),
            (fill(FillError::Internal(text())), 502, None),
            (GetError::Deadline, 504, Some("1")),
            (GetError::Overloaded, 503, Some("1")),
            (GetError::Cycle, 502, None),
        ] {
            assert_eq!(answer(&error), (status, wait.map(str::to_owned)), "{error}");
        }
    }

    #[test]
    fn texts_from_outside_are_escaped() {
        let nasty = "a\"b\\c\n</script>\u{7f}";
        let problem = Problem::no_group(nasty);
        let document: serde_json::Value =
            serde_json::from_str(&problem.document()).expect("a JSON document");
        assert_eq!(document["group"], nasty);
        assert_eq!(document["status"], 404);
        assert_eq!(document["type"], "urn:cachecluster:problem:unknown-group");
    }

    #[test]
    fn the_reply_to_a_head_says_the_length_only() {
        let problem = Problem::body();
        let reply = problem.reply(HeaderMap::new(), true);
        assert_eq!(reply.headers()[CONTENT_LENGTH], problem.document().len().to_string());
        assert!(http_body::Body::is_end_stream(reply.body()));
    }
}
