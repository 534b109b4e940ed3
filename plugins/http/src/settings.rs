//! What the operator decided.

use crate::template::Template;
use cachecluster_plugin::Freshness;
use cachecluster_plugin::config::{self, Invalid};
use std::time::Duration;

/// Long enough for an origin under load, and shorter than the time a node gives
/// a call, so that the error can name the reason.
const TIMEOUT: Duration = Duration::from_secs(5);

/// As much as a plugin's memory holds twice without effort.
const MAX_BODY: usize = 8 * 1024 * 1024;

/// Headers that belong to the connection, which is the node's own.
const FORBIDDEN: [&str; 9] = [
    "host",
    "connection",
    "keep-alive",
    "content-length",
    "transfer-encoding",
    "upgrade",
    "te",
    "trailer",
    "accept-encoding",
];

/// How long answers last whose origin does not say.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Defaults {
    pub(crate) found: Freshness,
    pub(crate) not_found: Freshness,
}

/// The checked settings; the table in the crate's documentation explains them.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) url: Template,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) timeout: Duration,
    pub(crate) max_body: usize,
    pub(crate) defaults: Defaults,
}

impl Settings {
    /// Reads the settings. The error names the one that is wrong.
    pub(crate) fn load() -> Result<Self, Invalid> {
        let url = config::parse_with("url", Template::parse)?
            .ok_or_else(|| Invalid::new("url", "is required"))?;
        let timeout = match config::duration("timeout")? {
            Some(Duration::ZERO) => return Err(Invalid::new("timeout", "must be more than zero")),
            timeout => timeout.unwrap_or(TIMEOUT),
        };
        Ok(Self {
            url,
            headers: headers()?,
            timeout,
            max_body: config::bytes("max_body")?.unwrap_or(MAX_BODY),
            defaults: Defaults {
                found: Freshness {
                    ttl: config::duration("ttl")?,
                    stale: config::duration("stale")?,
                },
                not_found: Freshness { ttl: config::duration("negative_ttl")?, stale: None },
            },
        })
    }

    /// Reads the settings and refuses those that do not exist.
    pub(crate) fn check() -> Result<(), Invalid> {
        config::only(&["url", "header.", "timeout", "max_body", "ttl", "stale", "negative_ttl"])?;
        Self::load().map(|_| ())
    }
}

/// The settings `header.<Name>`. Their values may be secrets, so that no error
/// repeats one.
fn headers() -> Result<Vec<(String, String)>, Invalid> {
    let mut headers = Vec::new();
    for (key, value) in config::get_all() {
        let Some(name) = key.strip_prefix("header.") else { continue };
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(is_token) {
            return Err(Invalid::new(key, "does not name a header"));
        }
        if FORBIDDEN.iter().any(|forbidden| forbidden.eq_ignore_ascii_case(name)) {
            return Err(Invalid::new(key, "names a header that is the node's to set"));
        }
        if value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(Invalid::new(key, "has a control character in its value"));
        }
        headers.push((name.to_owned(), value));
    }
    Ok(headers)
}
