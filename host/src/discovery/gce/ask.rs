//! One question over HTTP, within a time and a size.

use std::time::Duration;

use reqwest::{
    Client, RequestBuilder, StatusCode,
    header::{HeaderMap, RETRY_AFTER},
    redirect,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use thiserror::Error;
use tokio::time::timeout;

use crate::discovery::http::{Unread, body, causes};

/// What came of a question, whatever its status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// Nobody can be reached there.
    #[error("{0}")]
    Unreachable(String),
    /// It broke off.
    #[error("{0}")]
    Broken(String),
    /// It took too long, names that had to be looked up included.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Late(Duration),
    /// It is larger than what is taken.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
}

impl Answer {
    /// For how long whoever answered wants to be left alone, if it says so in seconds.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    }

    /// The body as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// How the body begins, in one line.
    pub(super) fn beginning(&self) -> String {
        let text = self.text();
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        words.chars().take(200).collect()
    }
}

/// Sends `request` and takes the whole answer.
pub(super) async fn ask(
    request: RequestBuilder,
    time: Duration,
    size_max: usize,
) -> Result<Answer, Unanswered> {
    let answered = async {
        let mut response = request.send().await.map_err(|error| unanswered(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = body(&mut response, size_max).await.map_err(|unread| match unread {
            Unread::Broken(error) => unanswered(&error),
            Unread::TooLarge => Unanswered::TooLarge(size_max),
        })?;
        Ok(Answer { status, headers, body })
    };
    timeout(time, answered).await.unwrap_or(Err(Unanswered::Late(time)))
}

/// What went wrong, with its causes, which say more than the error itself.
fn unanswered(error: &reqwest::Error) -> Unanswered {
    let told: Vec<_> = causes(error).collect();
    let reason = if told.is_empty() { error.to_string() } else { told.join(": ") };
    if error.is_connect() { Unanswered::Unreachable(reason) } else { Unanswered::Broken(reason) }
}

/// A client that follows nobody elsewhere. Only one that asks over `https` looks at the
/// machine's root certificates, and goes through the proxies that its environment names: a
/// question that is not sealed leaves through none.
pub(super) fn client(is_sealed: bool, connect_timeout: Duration) -> Result<Client, String> {
    // Named here rather than installed for the process, which may embed us beside another one.
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot set up TLS: {error}"))?;
    let tls = if is_sealed {
        let tls = tls.with_platform_verifier();
        tls.map_err(|error| {
            format!("this machine has no root certificates (install ca-certificates): {error}")
        })?
    } else {
        tls.with_root_certificates(RootCertStore::empty())
    };
    let client = Client::builder()
        .tls_backend_preconfigured(tls.with_no_client_auth())
        .user_agent(concat!("cachecluster/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .connect_timeout(connect_timeout);
    let client = if is_sealed { client } else { client.no_proxy() };
    client.build().map_err(|error| format!("cannot set up HTTP: {error}"))
}
