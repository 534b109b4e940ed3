//! What the API says when it does not answer, and what is to be done about it.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;

use super::ask::{Answer, Unanswered};

/// The quota is counted by the minute.
const QUOTA_REST: Duration = Duration::from_mins(1);

/// The longest that a server's wish to be left alone is heeded.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(10);

/// Why a list did not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) kind: Kind,
    /// What happened and, where somebody can do something about it, what.
    pub(super) reason: String,
}

/// What follows from a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It may be otherwise in a moment.
    Passing,
    /// Whoever answers wants to be left alone for so long.
    Resting(Duration),
    /// The token is not taken.
    Token,
    /// It stays so until somebody changes something.
    Lasting,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    error: Said,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    message: String,
    errors: Vec<Detail>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Detail {
    reason: String,
}

impl Refusal {
    pub(super) fn passing(reason: impl Into<String>) -> Self {
        Self { kind: Kind::Passing, reason: reason.into() }
    }

    pub(super) fn lasting(reason: impl Into<String>) -> Self {
        Self { kind: Kind::Lasting, reason: reason.into() }
    }

    /// What an answer of another status than 200 means. A front end answers in HTML now and
    /// then, which says nothing but its status.
    pub(super) fn read(answer: &Answer, project: &str) -> Self {
        let said = serde_json::from_slice::<Written>(&answer.body).unwrap_or_default().error;
        let reasons: Vec<_> = said.errors.iter().map(|error| error.reason.as_str()).collect();
        let message: String = said.message.trim_end_matches('.').chars().take(500).collect();
        let status = answer.status;
        let told = if message.is_empty() { answer.beginning() } else { message };
        let told = format!("{status}: {told}");
        let has = |known: &[&str]| reasons.iter().any(|reason| known.contains(reason));
        let is_quota = has(&["rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded"]);
        let kind = match status {
            StatusCode::FORBIDDEN if is_quota => {
                Kind::Resting(QUOTA_REST.mul_f64(1.0 + 0.1 * fastrand::f64()))
            }
            StatusCode::UNAUTHORIZED => Kind::Token,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => passing(answer),
            _ if status.is_client_error() => Kind::Lasting,
            _ => passing(answer),
        };
        let remedy = match status {
            StatusCode::FORBIDDEN => permission(&reasons, is_quota, project),
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => Some(
                "check [match]: zones and regions are written as `gcloud compute zones list` and \
                 `gcloud compute regions list` print them, projects by their IDs"
                    .to_owned(),
            ),
            _ => None,
        };
        let reason = match remedy {
            Some(remedy) => format!("{told}; {remedy}"),
            None => told,
        };
        Self { kind, reason }
    }
}

impl From<Unanswered> for Refusal {
    fn from(error: Unanswered) -> Self {
        match error {
            Unanswered::TooLarge(_) => {
                Self::lasting(format!("{error}: name fewer zones, or labels, in [match]"))
            }
            error => Self::passing(error.to_string()),
        }
    }
}

fn passing(answer: &Answer) -> Kind {
    match answer.retry_after() {
        Some(rest) => Kind::Resting(rest.min(RETRY_AFTER_MAX)),
        None => Kind::Passing,
    }
}

/// What fixes a 403.
fn permission(reasons: &[&str], is_quota: bool, project: &str) -> Option<String> {
    let has = |reason: &str| reasons.contains(&reason);
    if is_quota {
        let remedy = "the project's quota of requests is used up for this minute; longer \
                      [discovery.gce] interval, or a higher quota";
        return Some(remedy.to_owned());
    }
    if has("insufficientPermissions") {
        return Some(
            "the instance's access scopes do not include Compute Engine: stop it and give them \
             with `gcloud compute instances set-service-account NAME --scopes=compute-ro`, or \
             create it with `--scopes=compute-ro`"
                .to_owned(),
        );
    }
    if has("accessNotConfigured") {
        return Some(format!(
            "the API is off in this project: `gcloud services enable compute.googleapis.com \
             --project={project}`"
        ));
    }
    has("forbidden").then(|| {
        format!(
            "the instance's service account may not list instances: `gcloud projects \
             add-iam-policy-binding {project} --member=serviceAccount:ACCOUNT \
             --role=roles/compute.viewer`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &str) -> Refusal {
        let status = StatusCode::from_u16(status).expect("a status");
        let body = body.as_bytes().to_vec();
        Refusal::read(
            &Answer { status, headers: reqwest::header::HeaderMap::new(), body },
            "my-project",
        )
    }

    fn written(status: u16, reason: &str) -> Refusal {
        let body = format!(
            "{{\"error\":{{\"code\":{status},\"message\":\"No.\",\"errors\":[{{\"message\":\"No.\",\
             \"domain\":\"global\",\"reason\":\"{reason}\"}}]}}}}"
        );
        refusal(status, &body)
    }

    #[test]
    fn a_403_is_a_quota_or_a_permission_and_not_the_same() {
        let quota = written(403, "rateLimitExceeded");
        assert!(matches!(quota.kind, Kind::Resting(rest) if rest >= QUOTA_REST), "{quota:?}");
        for (reason, remedy) in [
            ("insufficientPermissions", "--scopes=compute-ro"),
            ("forbidden", "my-project --member=serviceAccount:ACCOUNT --role=roles/compute.viewer"),
            ("accessNotConfigured", "services enable compute.googleapis.com --project=my-project"),
        ] {
            let refusal = written(403, reason);
            assert_eq!(refusal.kind, Kind::Lasting);
            assert!(refusal.reason.contains(remedy), "{}", refusal.reason);
        }
    }

    #[test]
    fn the_rest_is_told_apart_by_the_status() {
        assert_eq!(written(401, "authError").kind, Kind::Token);
        assert_eq!(written(429, "rateLimitExceeded").kind, Kind::Passing);
        assert_eq!(written(503, "backendError").kind, Kind::Passing);
        assert_eq!(written(404, "notFound").kind, Kind::Lasting);
        let zone = written(400, "invalid");
        assert!(zone.kind == Kind::Lasting && zone.reason.contains("zones list"), "{zone:?}");
        let html = refusal(502, "<html><title>502</title>\n<p>That’s an error.");
        assert_eq!(html.kind, Kind::Passing);
        assert!(html.reason.starts_with("502 Bad Gateway: <html>"), "{html:?}");
        let mut answer = Answer {
            status: StatusCode::SERVICE_UNAVAILABLE,
            headers: reqwest::header::HeaderMap::new(),
            body: Vec::new(),
        };
        answer.headers.insert("retry-after", "7".parse().expect("a value"));
        assert_eq!(Refusal::read(&answer, "p").kind, Kind::Resting(Duration::from_secs(7)));
    }
}
