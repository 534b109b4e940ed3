//! Keeps strangers' web pages out of an operator's loopback.
//!
//! A page in an operator's browser can send requests to `127.0.0.1`, and can, by
//! letting its own name resolve to that address (DNS rebinding), read the answers. Two
//! rules stop both:
//! - a request that changes something and names an `Origin` must come from a page of
//!   this very surface; programs such as curl name none;
//! - a listener on loopback answers only to `localhost` or an address as its `Host`,
//!   because a page cannot make its origin an address that is not its own.
//!
//! Health is exempt: it gives nothing away, and checkers send all kinds of hosts.

use std::net::IpAddr;

use ::http::{
    HeaderMap, Method, StatusCode, Uri,
    header::{HOST, ORIGIN},
    uri::Authority,
};

use super::super::problem::Problem;

/// Why a request is refused, if it is. `local` is the address it arrived at.
pub(super) fn check(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    local: Option<IpAddr>,
) -> Result<(), Problem> {
    // An absolute target overrides the header (RFC 9112 §3.2.2).
    let named = match uri.authority() {
        Some(authority) => Some(authority.clone()),
        None => headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok()),
    };
    let is_plain = named.as_ref().is_none_or(|host| is_address_or_localhost(host.host()));
    if local.is_some_and(|local| local.to_canonical().is_loopback()) && !is_plain {
        return Err(refused(
            "on loopback the Host must be `localhost` or an address, so that a web page whose \
             name resolves to this machine cannot ask",
        ));
    }
    let is_safe = matches!(*method, Method::GET | Method::HEAD);
    let Some(origin) = headers.get(ORIGIN).filter(|_| !is_safe) else { return Ok(()) };
    let is_own = named.is_some_and(|host| {
        is_plain
            && origin
                .as_bytes()
                .strip_prefix(b"http://")
                .is_some_and(|origin| origin.eq_ignore_ascii_case(host.as_str().as_bytes()))
    });
    if is_own { Ok(()) } else { Err(refused("a web page of another origin may not change this")) }
}

fn refused(detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "foreign-page", "Refused", detail)
}

fn is_address_or_localhost(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let name = host.strip_suffix('.').unwrap_or(host);
    address.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name
            .len()
            .checked_sub(".localhost".len())
            .and_then(|at| name.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(".localhost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: &str = "127.0.0.1";

    fn verdict(
        method: &Method,
        local: &str,
        host: &'static str,
        origin: Option<&'static str>,
    ) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().expect("a host"));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().expect("an origin"));
        }
        let local = local.parse().expect("an address");
        check(method, &Uri::from_static("/groups/g"), &headers, Some(local)).is_ok()
    }

    #[test]
    fn programs_are_let_through() {
        for host in ["127.0.0.1:9081", "localhost:9081", "[::1]:9081", "LOCALHOST", "a.localhost"] {
            assert!(verdict(&Method::DELETE, LOOPBACK, host, None), "{host}");
            assert!(verdict(&Method::GET, LOOPBACK, host, None), "{host}");
        }
        assert!(verdict(&Method::DELETE, "10.0.0.7", "cache-1.internal:9081", None));
    }

    #[test]
    fn a_name_that_resolves_to_loopback_is_refused() {
        for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example"] {
            assert!(!verdict(&Method::GET, LOOPBACK, host, None), "{host}");
            assert!(!verdict(&Method::GET, "::ffff:127.0.0.1", host, None), "{host}");
        }
    }

    #[test]
    fn a_page_changes_only_what_it_came_from() {
        let host = "127.0.0.1:9081";
        assert!(verdict(&Method::DELETE, LOOPBACK, host, Some("http://127.0.0.1:9081")));
        for origin in
            ["http://evil.example", "null", "http://127.0.0.1:80", "https://127.0.0.1:9081"]
        {
            assert!(!verdict(&Method::DELETE, LOOPBACK, host, Some(origin)), "{origin}");
            assert!(verdict(&Method::GET, LOOPBACK, host, Some(origin)), "{origin}");
        }
        // Rebound to an address beyond loopback: the origin is the host's own.
        let evil = "evil.example";
        assert!(!verdict(&Method::DELETE, "10.0.0.7", evil, Some("http://evil.example")));
    }
}
