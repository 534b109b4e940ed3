//! Why a getter has no answer.

use std::fmt;
use std::io;
use std::time::Duration;

/// A failure to answer. Failures are never cached.
///
/// `?` works on [`io::Error`], on the errors of this crate, and on `String`
/// (which becomes [`Error::Internal`]).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Error {
    /// The key can never be valid for this group. Does not count against the
    /// plugin's health; clients are told that the request was wrong.
    InvalidKey(String),
    /// The source, or the node, refused. Not retried.
    Denied(String),
    /// The source is slow, down or overloaded. Retried within the deadline.
    Unavailable {
        /// What happened, for the node's log.
        message: String,
        /// Do not try again before this much time has passed.
        retry_after: Option<Duration>,
    },
    /// The time the host gave this call ran out.
    TimedOut,
    /// Anything else: a bug, or a mistake in the configuration. Not retried.
    Internal(String),
}

impl Error {
    /// The key can never be valid, because of `why`.
    pub fn invalid_key(why: impl Into<String>) -> Self {
        Self::InvalidKey(why.into())
    }

    /// Access was refused, because of `why`.
    pub fn denied(why: impl Into<String>) -> Self {
        Self::Denied(why.into())
    }

    /// The source cannot answer just now, because of `why`.
    pub fn unavailable(why: impl Into<String>) -> Self {
        Self::Unavailable { message: why.into(), retry_after: None }
    }

    /// Something else went wrong, namely `what`.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::Internal(what.into())
    }

    /// Asks not to be tried again for `wait`. Changes [`Error::Unavailable`]
    /// only: no other failure is retried.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        if let Self::Unavailable { retry_after, .. } = &mut self {
            *retry_after = Some(wait);
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidKey(why) => write!(f, "invalid key: {why}"),
            Self::Denied(why) => write!(f, "denied: {why}"),
            Self::Unavailable { message, retry_after: None } => write!(f, "unavailable: {message}"),
            Self::Unavailable { message, retry_after: Some(wait) } => {
                write!(f, "unavailable: {message} (retry after {wait:?})")
            }
            Self::TimedOut => f.write_str("timed out"),
            Self::Internal(what) => write!(f, "internal: {what}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<String> for Error {
    fn from(what: String) -> Self {
        Self::Internal(what)
    }
}

impl From<&str> for Error {
    fn from(what: &str) -> Self {
        Self::Internal(what.to_owned())
    }
}

/// Sorts an I/O error by what the node can do about it: a peer that is away or
/// hung up may be back in a moment, a refusal will not change by itself.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::TimedOut => Self::TimedOut,
            Kind::PermissionDenied => Self::Denied(error.to_string()),
            Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::NotConnected
            | Kind::BrokenPipe
            | Kind::UnexpectedEof
            | Kind::WriteZero
            | Kind::Interrupted
            | Kind::WouldBlock
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::AddrInUse
            | Kind::ResourceBusy => Self::unavailable(error.to_string()),
            _ => Self::Internal(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: io::ErrorKind) -> Error {
        io::Error::new(kind, "why").into()
    }

    #[test]
    fn a_source_that_is_away_is_unavailable_and_one_that_is_late_timed_out() {
        for kind in [
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::BrokenPipe,
            io::ErrorKind::HostUnreachable,
        ] {
            assert_eq!(of(kind), Error::unavailable("why"), "{kind:?}");
        }
        assert_eq!(of(io::ErrorKind::TimedOut), Error::TimedOut);
        assert_eq!(of(io::ErrorKind::PermissionDenied), Error::denied("why"));
        assert_eq!(of(io::ErrorKind::InvalidData), Error::internal("why"));
    }

    #[test]
    fn only_unavailable_carries_a_retry_after() {
        let wait = Duration::from_secs(3);
        assert_eq!(
            Error::unavailable("busy").retry_after(wait).to_string(),
            "unavailable: busy (retry after 3s)"
        );
        assert_eq!(Error::denied("no").retry_after(wait), Error::denied("no"));
    }

    #[test]
    fn a_string_is_an_internal_error() {
        fn fails() -> Result<(), Error> {
            Err(String::from("broken"))?
        }
        assert_eq!(fails(), Err(Error::internal("broken")));
    }
}
