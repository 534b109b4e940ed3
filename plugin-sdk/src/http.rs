//! A small HTTP client: GET requests with a deadline and a bound on the body.
//!
//! A plugin reaches only the origins the operator granted it:
//!
//! ```toml
//! [plugins.items.network]
//! http = ["https://api.example.com:443"]
//! ```
//!
//! Anything else fails with [`Error::Denied`], and the node puts the setting that is
//! missing beside it.
//! Redirects are not followed: a 3xx is an answer like any other.
//!
//! In a unit test, [`testing::Host`](../testing/struct.Host.html) answers the
//! requests.

#[cfg(target_family = "wasm")]
#[path = "http/wasi.rs"]
mod imp;
#[cfg(not(target_family = "wasm"))]
use crate::testing::http as imp;

use crate::{Deadline, Error};
use std::fmt;
use std::time::Duration;

/// The largest body read unless [`Request::body_bytes_max`] says otherwise:
/// more than most cached values, and little enough for a plugin's memory.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A GET request.
///
/// ```
/// # use cachecluster_plugin::{Deadline, Error, http::{Request, Response}, testing::Host};
/// # use std::time::Duration;
/// # let _host = Host::new().http("http://localhost:8000/items/1", Response::new(200));
/// let response = Request::get("http://localhost:8000/items/1")
///     .header("accept", "application/json")
///     .body_bytes_max(64 * 1024)
///     .send(Deadline::after(Duration::from_secs(2)))?;
/// assert_eq!(response.status(), 200);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Request {
    url: String,
    headers: Vec<(String, String)>,
    connect_timeout: Option<Duration>,
    body_bytes_max: usize,
}

impl Request {
    /// A request for `url`, which must be absolute and already encoded.
    pub fn get(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            headers: Vec::new(),
            connect_timeout: None,
            body_bytes_max: BODY_BYTES_MAX,
        }
    }

    /// Adds a header. The node sets `host` and the like by itself.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Gives the connect less time than the whole request has.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Fails with [`Error::Internal`] when the body is larger than `bytes`.
    /// Default: 8 MiB.
    #[must_use]
    pub fn body_bytes_max(mut self, bytes: usize) -> Self {
        self.body_bytes_max = bytes;
        self
    }

    /// The URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The headers added so far.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// Sends the request and reads the whole answer before `deadline`.
    ///
    /// Any status is an answer. Errors: [`Error::TimedOut`] at the deadline,
    /// [`Error::Denied`] for an origin that is not granted,
    /// [`Error::Unavailable`] when the origin cannot be reached or hangs up,
    /// [`Error::Internal`] for a URL or header that makes no sense and for a
    /// body that is too large.
    pub fn send(self, deadline: Deadline) -> Result<Response, Error> {
        let url = Url::parse(&self.url)
            .map_err(|why| Error::internal(format!("the URL {:?}: {why}", self.url)))?;
        if deadline.is_over() {
            return Err(Error::TimedOut);
        }
        let response = imp::send(&self, &url, deadline)?;
        if response.body.len() > self.body_bytes_max {
            return Err(self.body_too_large(&url));
        }
        Ok(response)
    }

    fn body_too_large(&self, url: &Url<'_>) -> Error {
        let bytes = self.body_bytes_max;
        Error::internal(format!("the answer of {url} is larger than {bytes} bytes"))
    }
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Response {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Response {
    /// An answer without headers or body, such as a test double gives.
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The status, 200 for instance.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first header named `name`, in any case, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.header_values(name).next()
    }

    /// Every header named `name`, in any case, that is text.
    pub fn header_values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers
            .iter()
            .filter(move |(header, _)| header.eq_ignore_ascii_case(name))
            .filter_map(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// Every header, in the order received.
    pub fn headers(&self) -> &[(String, Vec<u8>)] {
        &self.headers
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body, taken out of the response.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }
}

/// The parts of an absolute URL. Displays as its origin, port included: what
/// an operator grants.
#[derive(Debug)]
pub(crate) struct Url<'a> {
    is_https: bool,
    authority: &'a str,
    path_and_query: String,
}

impl<'a> Url<'a> {
    fn parse(url: &'a str) -> Result<Self, &'static str> {
        let (scheme, rest) = url.split_once("://").ok_or("expected `http://` or `https://`")?;
        let is_https = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err("expected `http://` or `https://`"),
        };
        if url.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err("it contains a space or a control character");
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.is_empty() {
            return Err("the host is missing");
        }
        if authority.contains('@') {
            return Err("credentials belong into a header");
        }
        // The fragment is the client's own business.
        let path = path.split('#').next().unwrap_or_default();
        let path_and_query =
            if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { is_https, authority, path_and_query })
    }

    /// The URL with its port and without its fragment, so that two ways to
    /// write one URL compare equal.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn canonical(url: &str) -> String {
        Url::parse(url)
            .map_or_else(|_| url.to_owned(), |url| format!("{url}{}", url.path_and_query))
    }

    /// The error for an origin that was not granted.
    #[cfg(target_family = "wasm")]
    fn denied(&self) -> Error {
        // Why not, and what would allow it, is what the node adds.
        Error::denied(format!("this plugin may not send requests to {self}"))
    }
}

impl fmt::Display for Url<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, port) = if self.is_https { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://{}", self.authority)?;
        // A colon inside brackets belongs to an IPv6 address.
        let after_host = self.authority.rsplit(']').next().unwrap_or_default();
        if after_host.contains(':') { Ok(()) } else { write!(f, ":{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_displays_as_its_origin_with_a_port() {
        for (url, origin, path) in [
            ("http://a/b?c#d", "http://a:80", "/b?c"),
            ("https://a", "https://a:443", "/"),
            ("https://a:8443?q", "https://a:8443", "/?q"),
            ("http://[::1]/x", "http://[::1]:80", "/x"),
            ("http://[::1]:81/x", "http://[::1]:81", "/x"),
        ] {
            let parsed = Url::parse(url).unwrap();
            assert_eq!(
                (parsed.to_string().as_str(), parsed.path_and_query.as_str()),
                (origin, path)
            );
        }
    }

    #[test]
    fn a_url_that_makes_no_sense_is_refused() {
        for url in
            ["", "a/b", "ftp://a/", "http:///b", "http://u:p@a/", "http://a/b c", "http://a/\r\n"]
        {
            assert!(Url::parse(url).is_err(), "{url:?}");
        }
    }

    #[test]
    fn headers_are_found_in_any_case() {
        let response =
            Response::new(200).with_header("ETag", "\"1\"").with_header("x-raw", vec![0xff]);
        assert_eq!(response.header("etag"), Some("\"1\""));
        assert_eq!(response.header("x-raw"), None);
    }
}
