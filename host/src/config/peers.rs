//! How a peer is written down.

use thiserror::Error;
use url::Url;

/// A text that is no base URL of a peer.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BadPeer {
    /// It is no URL, or one of something else.
    #[error("write it as http://10.0.0.5:9080")]
    NoUrl,
    /// A scheme that the family does not speak.
    #[error("peers of the groupcache family are reached over http://")]
    Scheme,
    /// More than scheme, host and port. A ring is made of these texts: two that differ by
    /// a slash are two peers.
    #[error("it ends with the port: no path, no slash, no user")]
    Rest,
    /// No port.
    #[error("name the port, as in http://10.0.0.5:9080")]
    Port,
}

/// The host and port that a peer's base URL names, as they stand in it.
///
/// # Errors
/// It is not one.
pub fn authority(url: &str) -> Result<&str, BadPeer> {
    let parsed = Url::parse(url).map_err(|_| BadPeer::NoUrl)?;
    let rest = url.strip_prefix("http://").ok_or(BadPeer::Scheme)?;
    if rest.contains(['/', '?', '#', '@', '\\']) {
        return Err(BadPeer::Rest);
    }
    // A URL forgets a port that goes without saying.
    if parsed.port().is_none() && !rest.ends_with(":80") {
        return Err(BadPeer::Port);
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_base_url_and_nothing_more() {
        assert_eq!(authority("http://10.0.0.5:9080"), Ok("10.0.0.5:9080"));
        assert_eq!(authority("http://[fd00::5]:9080"), Ok("[fd00::5]:9080"));
        assert_eq!(authority("http://cache:80"), Ok("cache:80"));
        for (bad, why) in [
            ("10.0.0.5:9080", BadPeer::NoUrl),
            ("", BadPeer::NoUrl),
            ("https://10.0.0.5:9080", BadPeer::Scheme),
            ("HTTP://10.0.0.5:9080", BadPeer::Scheme),
            ("http://10.0.0.5:9080/", BadPeer::Rest),
            ("http://10.0.0.5:9080/_groupcache/", BadPeer::Rest),
            ("http://me@10.0.0.5:9080", BadPeer::Rest),
            ("http://10.0.0.5", BadPeer::Port),
        ] {
            assert_eq!(authority(bad), Err(why), "{bad}");
        }
    }
}
