//! The token by which this instance's account asks the API.
//!
//! Written by hand, since a library would have to be wrapped for each of its ways: see
//! ARCHITECTURE.md. The metadata server keeps a token until it has five minutes left and says
//! the same one until then; so it is asked for another in the last four minutes, and not before.

use std::{fmt, time::Duration};

use reqwest::header::HeaderValue;
use serde::Deserialize;
use thiserror::Error;
use tokio::time::Instant;

use super::metadata::{Metadata, MetadataError};

/// Where the token is.
const PATH: &str = "instance/service-accounts/default/token";

/// Time that a token has left when another one is asked for.
const RENEW: Duration = Duration::from_mins(4);

/// Between two questions for a token, at least, for as long as there is one.
const PAUSE: Duration = Duration::from_secs(30);

/// Between two tokens that were refused, at least.
const REFUSED_PAUSE: Duration = Duration::from_mins(1);

/// The longest that a token is believed to hold.
const LIFE_MAX: Duration = Duration::from_hours(24);

/// Why there is no token.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum NoToken {
    /// The instance has no account.
    #[error(
        "this instance has no service account, and so no token for the API: give it one with \
         `gcloud compute instances set-service-account NAME --service-account=ACCOUNT \
         --scopes=compute-ro` (the instance must be stopped for it)"
    )]
    NoAccount,
    /// What the server says is no token. It is not shown.
    #[error("what the metadata server says is no token: {0}")]
    Malformed(&'static str),
    /// The server says nothing.
    #[error(transparent)]
    Metadata(MetadataError),
}

/// The token, and when it was asked for.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    held: Option<Held>,
    asked: Option<Instant>,
    refused: Option<Instant>,
}

struct Held {
    header: HeaderValue,
    until: Instant,
}

impl fmt::Debug for Held {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Held").field("until", &self.until).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Written {
    access_token: String,
    expires_in: u64,
    #[serde(default)]
    token_type: String,
}

impl Tokens {
    /// What stands in `Authorization`.
    pub(super) async fn header(&mut self, metadata: &Metadata) -> Result<HeaderValue, NoToken> {
        let now = Instant::now();
        if let Some(held) = self.held.as_ref().filter(|held| !self.is_due(held, now)) {
            return Ok(held.header.clone());
        }
        self.asked = Some(now);
        match metadata.get(PATH).await.map_err(no_token).and_then(|text| read(&text, now)) {
            Ok(held) => Ok(self.held.insert(held).header.clone()),
            Err(error) => {
                let held = self.held.take().filter(|held| held.until > Instant::now());
                match held {
                    Some(held) => Ok(self.held.insert(held).header.clone()),
                    None => Err(error),
                }
            }
        }
    }

    fn is_due(&self, held: &Held, now: Instant) -> bool {
        let left = held.until.saturating_duration_since(now);
        let is_early = self.asked.is_some_and(|asked| now < asked + PAUSE);
        left.is_zero() || (left < RENEW && !is_early)
    }

    /// The API has refused the token: it is dropped. Whether another one may be asked for at
    /// once, which is so once a minute: the server may say the same one again.
    pub(super) fn refuse(&mut self) -> bool {
        let now = Instant::now();
        self.held = None;
        let is_first = self.refused.is_none_or(|at| now.duration_since(at) >= REFUSED_PAUSE);
        if is_first {
            self.refused = Some(now);
        }
        is_first
    }
}

fn no_token(error: MetadataError) -> NoToken {
    match error {
        MetadataError::NotThere(_) => NoToken::NoAccount,
        error => NoToken::Metadata(error),
    }
}

fn read(text: &str, now: Instant) -> Result<Held, NoToken> {
    let malformed = NoToken::Malformed;
    // What serde says of it may quote it.
    let written: Written =
        serde_json::from_str(text).map_err(|_| malformed("it is not the JSON of one"))?;
    if !written.token_type.is_empty() && !written.token_type.eq_ignore_ascii_case("Bearer") {
        return Err(malformed("it is not a bearer's token"));
    }
    let header = HeaderValue::from_str(&format!("Bearer {}", written.access_token));
    let mut header = header.map_err(|_| malformed("it has characters that no header may have"))?;
    header.set_sensitive(true);
    let life = Duration::from_secs(written.expires_in).min(LIFE_MAX);
    Ok(Held { header, until: now + life })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(seconds: u64) -> Held {
        let text = format!(
            "{{\"access_token\":\"ya29.x\",\"expires_in\":{seconds},\"token_type\":\"Bearer\"}}"
        );
        read(&text, Instant::now()).expect("a token")
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_in_its_last_four_minutes_and_not_all_the_time() {
        let now = Instant::now();
        let mut tokens = Tokens { asked: Some(now), ..Tokens::default() };
        let long = held(3_599);
        for (seconds, is_due) in [(0, false), (3_300, false), (3_400, true), (3_700, true)] {
            let at = now + Duration::from_secs(seconds);
            assert_eq!(tokens.is_due(&long, at), is_due, "after {seconds} s");
        }
        // One that never has four minutes is asked for every half a minute, and when it is over.
        let short = held(100);
        for (seconds, is_due) in [(1, false), (29, false), (31, true)] {
            assert_eq!(tokens.is_due(&short, now + Duration::from_secs(seconds)), is_due);
        }
        tokens.asked = Some(now + Duration::from_secs(90));
        assert!(!tokens.is_due(&short, now + Duration::from_secs(99)));
        assert!(tokens.is_due(&short, now + Duration::from_secs(100)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_is_replaced_once_a_minute() {
        let mut tokens = Tokens { held: Some(held(3_599)), ..Tokens::default() };
        assert!(tokens.refuse() && tokens.held.is_none());
        assert!(!tokens.refuse());
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(tokens.refuse());
    }

    #[test]
    fn a_token_is_shown_nowhere() {
        let secret = "ya29.secret";
        let text = format!("{{\"access_token\":\"{secret}\",\"expires_in\":9}}");
        let held = read(&text, Instant::now()).expect("a token");
        assert!(!format!("{held:?} {:?}", held.header).contains(secret));
        for bad in [
            format!("{{\"access_token\":\"{secret}"),
            format!("{{\"access_token\":\"{secret}\\n\",\"expires_in\":1}}"),
        ] {
            let error = read(&bad, Instant::now()).expect_err("no token");
            assert!(!format!("{error} {error:?}").contains(secret), "{error}");
        }
    }
}
