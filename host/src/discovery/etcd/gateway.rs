//! Asks etcd over its JSON gateway: one server at a time, the next one when it fails; logs in
//! when there is a user.

use std::{iter, path::PathBuf, time::Duration};

use reqwest::{
    Client, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
    redirect::Policy,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::words::reason;
use crate::discovery::{
    credentials::{self, TlsFiles},
    http::{Unread, body, causes},
};

/// Time to connect to a server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for one answer, or for a watch to begin.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer: as many entries as there may be, with room to spare.
const ANSWER_MAX: usize = 8 << 20;

/// Bytes of a line of a watch.
const LINE_MAX: usize = 1 << 20;

/// How often the system asks whether a server that says nothing is still there.
const ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// etcd's way of saying that a token means nothing (any more), as gRPC numbers it.
const UNAUTHENTICATED: i64 = 16;

/// Ways of being away, as gRPC numbers them: cancelled, deadline exceeded, unavailable.
const AWAY: [i64; 3] = [1, 4, 14];

/// What etcd's word for it means.
const COMMON_NAME: &str = "etcd has users, and then takes no certificate with a common name; give \
                           this node one without ([discovery.etcd] cert_file)";

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No server answers.
    Away(String),
    /// etcd has no such thing: a lease, for one.
    NotFound(String),
    /// etcd will not.
    Refused(String),
}

/// How a user logs in.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) password_file: PathBuf,
}

/// The way to etcd.
pub(super) struct Gateway {
    /// URLs without a slash at the end.
    endpoints: Vec<String>,
    /// The one that is asked.
    at: usize,
    tls: TlsFiles,
    user: Option<User>,
    /// Made when it is needed, and again after trouble: certificates may have been replaced.
    client: Option<Client>,
    token: Option<HeaderValue>,
    failures: u64,
}

impl Gateway {
    /// The way to the servers at `endpoints`; there is at least one.
    pub(super) fn new(endpoints: &[String], tls: TlsFiles, user: Option<User>) -> Self {
        let bare = |url: &String| url.trim_end_matches('/').to_owned();
        // Nodes of one list do not all begin with the same server.
        let at = fastrand::usize(..endpoints.len().max(1));
        let endpoints = endpoints.iter().map(bare).collect();
        Self { endpoints, at, tls, user, client: None, token: None, failures: 0 }
    }

    /// What etcd answers to `question` at `/v3/{path}`.
    pub(super) async fn ask(&mut self, path: &str, question: &Value) -> Result<Value, Refusal> {
        let response = self.begin(path, question).await?;
        let read = timeout(CALL_TIMEOUT, whole(response)).await;
        let read = read.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let bytes = read.map_err(|error| self.failed(&error))?;
        serde_json::from_slice(&bytes).map_err(|_| self.failed("its answer is no JSON"))
    }

    /// Has etcd answer `question` at `/v3/{path}` line by line.
    pub(super) async fn lines(&mut self, path: &str, question: &Value) -> Result<Lines, Refusal> {
        let response = self.begin(path, question).await?;
        Ok(Lines { response, held: Vec::new() })
    }

    /// How often a server has failed: what hung on the one before is of no use then.
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    /// Trouble with the server that is asked: next time it is another one.
    fn failed(&mut self, why: &str) -> Refusal {
        let refusal = Refusal::Away(format!("{}: {why}", self.endpoints[self.at]));
        self.at = (self.at + 1) % self.endpoints.len();
        self.client = None;
        self.failures += 1;
        refusal
    }

    /// The beginning of an answer that is none of trouble, of whatever server has one.
    async fn begin(&mut self, path: &str, question: &Value) -> Result<Response, Refusal> {
        let mut last = None;
        for _ in 0..self.endpoints.len() {
            match self.begin_here(path, question).await {
                Err(Refusal::Away(why)) => last = Some(Refusal::Away(why)),
                other => return other,
            }
        }
        Err(last.unwrap_or_else(|| Refusal::Away("no server is named".to_owned())))
    }

    async fn begin_here(&mut self, path: &str, question: &Value) -> Result<Response, Refusal> {
        let has_logged_in = self.log_in().await?;
        match self.send(path, question).await? {
            Ok(response) => Ok(response),
            // A token is good for some minutes. One that is new and no good will not get better.
            Err((UNAUTHENTICATED, _)) if self.user.is_some() && !has_logged_in => {
                self.token = None;
                self.log_in().await?;
                self.send(path, question).await?.map_err(|(code, why)| self.refusal(code, why))
            }
            Err((code, why)) => Err(self.refusal(code, why)),
        }
    }

    fn refusal(&mut self, code: i64, why: String) -> Refusal {
        match code {
            5 => Refusal::NotFound(why),
            UNAUTHENTICATED => {
                self.token = None;
                Refusal::Refused(format!("{why} ([discovery.etcd] username, password_file)"))
            }
            code if AWAY.contains(&code) => self.failed(&why),
            _ => Refusal::Refused(why),
        }
    }

    /// Gets a token where one is needed and there is none; says whether it did.
    async fn log_in(&mut self) -> Result<bool, Refusal> {
        let Some(user) = self.user.clone().filter(|_| self.token.is_none()) else {
            return Ok(false);
        };
        let told = |why: &str| {
            let name = &user.name;
            Refusal::Refused(format!("cannot log in as {name}: {why} ([discovery.etcd] username)"))
        };
        let password = credentials::secret_file(user.password_file.clone()).await;
        let password = password.map_err(|why| told(&why))?;
        let question = json!({ "name": user.name, "password": password });
        let response = match self.send("auth/authenticate", &question).await? {
            Ok(response) => response,
            Err((code, why)) if AWAY.contains(&code) => return Err(self.failed(&why)),
            Err((_, why)) => return Err(told(&why)),
        };
        let bytes = timeout(CALL_TIMEOUT, whole(response)).await;
        let bytes = bytes.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let bytes = bytes.map_err(|error| self.failed(&error))?;
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let token = answer["token"].as_str().and_then(|it| HeaderValue::from_str(it).ok());
        let mut token = token.ok_or_else(|| told("etcd gives no token"))?;
        token.set_sensitive(true);
        self.token = Some(token);
        Ok(true)
    }

    /// Asks the server whose turn it is. Within: gRPC's number of a refusal, and its reason.
    async fn send(
        &mut self,
        path: &str,
        question: &Value,
    ) -> Result<Result<Response, (i64, String)>, Refusal> {
        let client = self.client().await?;
        let url = format!("{}/v3/{path}", self.endpoints[self.at]);
        let mut request = client.post(url).header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let sent = timeout(CALL_TIMEOUT, request.body(question.to_string()).send()).await;
        let response = match sent {
            Err(_elapsed) => return Err(self.failed("no answer in time")),
            Ok(Err(error)) => return Err(self.failed(&chain(&error.without_url()))),
            Ok(Ok(response)) => response,
        };
        let status = response.status();
        if status.is_success() {
            return Ok(Ok(response));
        }
        let body = timeout(CALL_TIMEOUT, whole(response)).await;
        let body = body.unwrap_or_else(|_| Ok(Vec::new())).unwrap_or_default();
        let Ok(answer) = serde_json::from_slice::<Value>(&body) else {
            if body.starts_with(b"CommonName") {
                return Err(Refusal::Refused(COMMON_NAME.to_owned()));
            }
            return Err(self.failed(&format!("it answers {status}, and is no etcd from 3.4 on")));
        };
        Ok(Err((code(status, &answer), reason(&answer))))
    }

    async fn client(&mut self) -> Result<Client, Refusal> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let tls = credentials::tls(self.tls.clone()).await;
        let tls = tls.map_err(|why| Refusal::Refused(format!("{why} ([discovery.etcd])")))?;
        let made = Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(ALIVE_INTERVAL)
            .build();
        let client = made.map_err(|error| Refusal::Refused(chain(&error)))?;
        self.client = Some(client.clone());
        Ok(client)
    }
}

/// gRPC's number of a refusal. Some come under another one: of a token that has run out, and of
/// none at all where there are users.
fn code(status: StatusCode, answer: &Value) -> i64 {
    let reason = reason(answer);
    let is_about_tokens = status == StatusCode::UNAUTHORIZED
        || ["invalid auth token", "user name is empty", "auth store is old"]
            .iter()
            .any(|it| reason.contains(it));
    if is_about_tokens {
        return UNAUTHENTICATED;
    }
    let told = super::words::number(&answer["code"]);
    match status {
        _ if told != 0 => told,
        StatusCode::NOT_FOUND => 5,
        it if it.is_server_error() => 14,
        _ => 2,
    }
}

async fn whole(mut response: Response) -> Result<Vec<u8>, String> {
    body(&mut response, ANSWER_MAX).await.map_err(|unread| match unread {
        Unread::Broken(error) => chain(&error.without_url()),
        Unread::TooLarge => format!("its answer has more than {ANSWER_MAX} bytes"),
    })
}

/// An error and what it comes from.
fn chain(error: &dyn std::error::Error) -> String {
    iter::once(error.to_string()).chain(causes(error)).collect::<Vec<_>>().join(": ")
}

/// An answer that comes line by line.
pub(super) struct Lines {
    response: Response,
    held: Vec<u8>,
}

impl Lines {
    /// The next line, or why there is none. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, String> {
        let mut looked_at = 0;
        loop {
            let end = self.held[looked_at..].iter().position(|byte| *byte == b'\n');
            if let Some(end) = end.map(|end| looked_at + end) {
                let rest = self.held.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.held, rest);
                line.pop();
                return Ok(line);
            }
            looked_at = self.held.len();
            if looked_at > LINE_MAX {
                return Err(format!("it sent a line of more than {LINE_MAX} bytes"));
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.held.extend_from_slice(&chunk),
                Ok(None) => return Err("it ended".to_owned()),
                Err(error) => return Err(chain(&error.without_url())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // As etcd 3.4.23 puts it.
    #[test]
    fn whoever_is_not_logged_in_is_told_apart_from_whoever_may_not() {
        let code = |status: u16, text: &str, number: i64| {
            let answer = json!({ "error": text, "message": text, "code": number });
            code(StatusCode::from_u16(status).expect("a status"), &answer)
        };
        assert_eq!(code(401, "etcdserver: invalid auth token", 16), UNAUTHENTICATED);
        assert_eq!(code(400, "etcdserver: user name is empty", 3), UNAUTHENTICATED);
        assert_eq!(code(403, "etcdserver: permission denied", 7), 7);
        assert_eq!(code(404, "etcdserver: requested lease not found", 5), 5);
        assert_eq!(code(503, "etcdserver: no leader", 0), 14);
    }
}
