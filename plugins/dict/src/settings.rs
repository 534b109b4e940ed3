//! What the operator decided, and what to tell them when it does not work.

use crate::protocol::Failure;
use cachecluster_plugin::config::{self, Invalid};
use cachecluster_plugin::net::Address;
use cachecluster_plugin::{Context, Error, Freshness};
use std::time::Duration;

/// The port IANA gave DICT.
const PORT: u16 = 2628;

/// Enough for a connect across the world, and for one lost packet.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Longer than a healthy server ever takes for a word, and shorter than the
/// time a node gives a call, so that the error can name the server.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The checked settings; the table in the crate's documentation explains them.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) server: Address,
    pub(crate) database: String,
    pub(crate) found: Freshness,
    pub(crate) not_found: Freshness,
    pub(crate) connect_timeout: Duration,
    pub(crate) timeout: Duration,
    pub(crate) client: Option<String>,
}

impl Settings {
    /// Reads the settings. The error names the one that is wrong.
    pub(crate) fn load() -> Result<Self, Invalid> {
        config::required("server")?;
        let server = config::parse_with("server", |text| Address::parse(text, PORT))?
            .ok_or_else(|| Invalid::new("server", "is required"))?;
        Ok(Self {
            server,
            database: config::parse_with("database", database)?.unwrap_or_else(|| "!".into()),
            found: Freshness { ttl: config::duration("ttl")?, stale: config::duration("stale")? },
            not_found: Freshness { ttl: config::duration("negative_ttl")?, stale: None },
            connect_timeout: timeout("connect_timeout")?.unwrap_or(CONNECT_TIMEOUT),
            timeout: timeout("timeout")?.unwrap_or(TIMEOUT),
            client: config::parse_with("client", client)?,
        })
    }

    /// Reads the settings and refuses those that do not exist.
    pub(crate) fn check() -> Result<(), Invalid> {
        config::only(&[
            "server",
            "database",
            "ttl",
            "stale",
            "negative_ttl",
            "connect_timeout",
            "timeout",
            "client",
        ])?;
        Self::load().map(|_| ())
    }

    /// What `failure` means for the node. Only a call that has no time left
    /// timed out: if the server was merely too slow for the settings, another
    /// try may be worth it.
    pub(crate) fn explain(&self, failure: Failure, ctx: &Context) -> Error {
        let server = &self.server;
        match failure {
            Failure::TimedOut if ctx.remaining().is_zero() => Error::TimedOut,
            Failure::TimedOut => Error::unavailable(format!("{server} did not answer in time")),
            Failure::Closed => Error::unavailable(format!("{server} closed the connection")),
            Failure::Io(error) => error.into(),
            Failure::Busy(reply) => {
                Error::unavailable(format!("{server} is not available: {reply}"))
            }
            Failure::Denied(reply) => Error::denied(format!("{server} denies access: {reply}")),
            Failure::BadDatabase(reply) => Error::internal(format!(
                "{server} has no database {:?} (the setting `database`): {reply}",
                self.database
            )),
            Failure::Refused(reply) => {
                Error::internal(format!("{server} refused the command: {reply}"))
            }
            Failure::Malformed(what) => {
                Error::internal(format!("{server} does not speak DICT: {what}"))
            }
            Failure::TooLarge => Error::internal(format!("the answer of {server} is too large")),
        }
    }
}

fn timeout(key: &str) -> Result<Option<Duration>, Invalid> {
    match config::duration(key)? {
        Some(Duration::ZERO) => Err(Invalid::new(key, "must be more than zero")),
        timeout => Ok(timeout),
    }
}

/// A database is sent as it is, so it must be a single plain word.
fn database(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\');
    if !text.is_empty() && text.len() <= 64 && text.chars().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err("expected the name of a database, `!` or `*`".into())
    }
}

fn client(text: &str) -> Result<String, String> {
    let is_plain = |c: char| !c.is_control() && !matches!(c, '"' | '\'' | '\\');
    if !text.is_empty() && text.len() <= 256 && text.chars().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err("expected at most 256 bytes of text without quotes or control characters".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cachecluster_plugin::testing::Host;

    #[test]
    fn a_server_is_all_that_is_required() {
        let _host = Host::new().config("server", "dict.example");
        let settings = Settings::load().unwrap();
        assert_eq!(settings.server, Address::new("dict.example", 2628));
        assert_eq!(settings.database, "!");
        assert_eq!(settings.found, Freshness::default());
        assert_eq!((settings.connect_timeout, settings.timeout), (CONNECT_TIMEOUT, TIMEOUT));
    }

    #[test]
    fn a_setting_that_makes_no_sense_is_named() {
        for (key, value) in [
            ("server", "a:b"),
            ("database", ""),
            ("database", "a b"),
            ("database", "a\r\nQUIT"),
            ("ttl", "soon"),
            ("negative_ttl", "1"),
            ("stale", "-1s"),
            ("timeout", "0"),
            ("connect_timeout", "0s"),
            ("client", "a\r\nSHOW DB"),
        ] {
            let mut host = Host::new();
            if key != "server" {
                host = host.config("server", "dict.example");
            }
            let _host = host.config(key, value);
            let message = Settings::load().unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}`")), "{key} = {value:?}: {message}");
        }
        let _host = Host::new();
        assert_eq!(Settings::load().unwrap_err().to_string(), "the setting `server` is required");
    }
}
