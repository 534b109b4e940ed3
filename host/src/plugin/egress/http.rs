//! `wasi:http` under the plugin's grants.
//!
//! Wasmtime's own sender connects to whatever a name resolves to, so requests take
//! this way instead: the origin is compared with the grants; the exchange waits for its
//! turn; then it takes an unused connection of this plugin's own to the same origin, or
//! dials one through the checks of `dial`.
//!
//! No proxy of the environment is asked, no redirect is followed and no body decoded:
//! a redirect is handed to the guest, whose next request is checked like the first.

use std::{error::Error as StdError, future::Future, io, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, header, request::Parts};
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until, timeout_at};
use url::Url;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody,
    WasiHttpHooks,
};

use super::{
    CallNotes, Egress,
    body::{Bounded, Lease},
    dial::{DialError, Origin},
    pool::Connection,
    target,
};
use crate::config::grants::Host;

/// Time to connect, the lookup and TLS included. A host that takes longer is down for a
/// cache.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a request's body that a guest may write at once.
const OUTGOING_CHUNK: usize = 16 << 10;

/// What a guest may not set beside wasmtime's own list: headers that belong to a
/// connection, and those that metadata services ask for.
const FORBIDDEN_HEADERS: [HeaderName; 5] = [
    header::TE,
    header::TRAILER,
    HeaderName::from_static("metadata"),
    HeaderName::from_static("metadata-flavor"),
    HeaderName::from_static("x-google-metadata-request"),
];

/// How the names of further ones begin.
const FORBIDDEN_PREFIX: &str = "x-aws-ec2-metadata-token";

type Answer =
    Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

/// Sends the requests of one instance.
pub(in crate::plugin) struct HttpHooks {
    egress: Arc<Egress>,
    notes: CallNotes,
    /// When the call under way ends, and every exchange with it.
    pub(in crate::plugin) deadline: Instant,
}

impl HttpHooks {
    pub(in crate::plugin) fn new(egress: Arc<Egress>, notes: CallNotes) -> Self {
        Self { egress, notes, deadline: Instant::now() }
    }
}

impl WasiHttpHooks for HttpHooks {
    // A body that nobody reads yet is in the host's memory, for each request that a guest
    // has begun: a MiB each, as it comes.
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        OUTGOING_CHUNK
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::new(is_forbidden)
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _sent: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Answer> + Send> {
        let (egress, notes) = (Arc::clone(&self.egress), self.notes.clone());
        let timing = Timing::new(options.unwrap_or_default(), self.deadline);
        Box::new(async move {
            let response = exchange(&egress, request, &timing, &notes).await?;
            // A connection drives itself.
            let io: Box<dyn Future<Output = Result<(), Error>> + Send> =
                Box::new(std::future::ready(Ok(())));
            Ok((response, io))
        })
    }
}

fn is_forbidden(name: &HeaderName) -> bool {
    DEFAULT_FORBIDDEN_HEADERS.contains(name)
        || FORBIDDEN_HEADERS.contains(name)
        || name.as_str().starts_with(FORBIDDEN_PREFIX)
}

/// The guest's timeouts, none of them beyond the call's deadline.
struct Timing {
    deadline: Instant,
    connect: Duration,
    /// When the response's head is there.
    response: Instant,
    between_bytes: Option<Duration>,
}

impl Timing {
    fn new(options: RequestOptions, deadline: Instant) -> Self {
        let now = Instant::now();
        let connect = options.connect_timeout.unwrap_or(CONNECT_TIMEOUT).min(CONNECT_TIMEOUT);
        let response = options
            .first_byte_timeout
            .and_then(|first_byte| now.checked_add(connect.saturating_add(first_byte)))
            .map_or(deadline, |response| response.min(deadline));
        Self { deadline, connect, response, between_bytes: options.between_bytes_timeout }
    }
}

/// One request and its response, whose body is still to come.
async fn exchange(
    egress: &Arc<Egress>,
    request: Request<WasiBody>,
    timing: &Timing,
    notes: &CallNotes,
) -> Result<Response<WasiBody>, Error> {
    let (parts, body) = request.into_parts();
    let (origin, url) = permitted(egress, &parts.uri).map_err(|refused| refused.noted(notes))?;
    let request = outgoing(parts, bounded(body, egress.request_max)?, &origin, &url)?;

    let Some(due) = egress.turn(timing.response) else {
        notes.add(egress.denials.too_fast());
        return Err(Error::ConnectionLimitReached);
    };
    sleep_until(due).await;
    let place = timeout_at(timing.response, Arc::clone(&egress.places).acquire_owned()).await;
    let Ok(Ok(place)) = place else {
        notes.add(egress.denials.too_many());
        return Err(Error::ConnectionLimitReached);
    };

    let sent = timeout_at(timing.response, send(egress, &origin, request, timing, notes)).await;
    let (response, connection) = sent.map_err(|_elapsed| Error::HttpResponseTimeout)??;
    let length = response.body().size_hint().exact();
    if length.is_some_and(|length| length > egress.response_max) {
        return Err(Error::HttpResponseBodySize(length));
    }
    let lease = Lease { pool: Arc::clone(&egress.pool), origin, connection, _place: place };
    let bounds = egress.bounds(timing.deadline, timing.between_bytes);
    Ok(response.map(|body| Bounded::new(body, bounds, lease).boxed_unsync()))
}

/// Why a request is not sent: for the guest, and in words.
#[derive(Debug)]
struct Refused(Error, Option<String>);

impl Refused {
    fn noted(self, notes: &CallNotes) -> Error {
        if let Some(text) = self.1 {
            notes.add(text);
        }
        self.0
    }
}

/// The origin of `uri` and its URL, if the grants cover them.
fn permitted(egress: &Egress, uri: &Uri) -> Result<(Origin, Url), Refused> {
    let invalid = || Refused(Error::HttpRequestUriInvalid, None);
    let url = Url::parse(&uri.to_string()).map_err(|_| invalid())?;
    // Credentials in a URL end up in logs; a header carries them as well.
    let has_credentials = !url.username().is_empty() || url.password().is_some();
    let (Some(host), Some(port)) = (target::host(&url), url.port_or_known_default()) else {
        return Err(invalid());
    };
    if has_credentials || port == 0 {
        return Err(invalid());
    }
    let origin = Origin { is_https: url.scheme() == "https", host, port };
    if let Host::Name(name) = &origin.host
        && target::is_metadata_name(name)
    {
        return Err(Refused(Error::HttpRequestDenied, Some(egress.denials.never(name))));
    }
    if !egress.http_grants.iter().any(|grant| target::covers(grant, &url)) {
        let text = egress.denials.http(&origin.text());
        return Err(Refused(Error::HttpRequestDenied, Some(text)));
    }
    Ok((origin, url))
}

/// A request's body, which fails beyond `max` bytes.
fn bounded(body: WasiBody, max: u64) -> Result<WasiBody, Error> {
    // One that says its length beforehand need not be begun.
    if body.size_hint().lower() > max {
        return Err(Error::HttpRequestBodySize(Some(body.size_hint().lower())));
    }
    let bounded = Limited::new(body, usize::try_from(max).unwrap_or(usize::MAX));
    let bounded = bounded.map_err(|error| match error.downcast::<Error>() {
        Ok(own) => *own,
        Err(_too_long) => Error::HttpRequestBodySize(None),
    });
    Ok(bounded.boxed_unsync())
}

/// The request as it goes over the wire.
fn outgoing(
    parts: Parts,
    body: WasiBody,
    origin: &Origin,
    url: &Url,
) -> Result<Request<WasiBody>, Error> {
    // A tunnel would carry what nobody can count.
    if parts.method == Method::CONNECT {
        return Err(Error::HttpRequestMethodInvalid);
    }
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = path.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    let headers = request.headers_mut();
    // `Host` is what was checked, whatever the guest wrote.
    let host = HeaderValue::from_str(&origin.authority());
    headers.insert(header::HOST, host.map_err(|_| Error::HttpRequestUriInvalid)?);
    for (name, value) in parts.headers.iter().filter(|(name, _)| !is_forbidden(name)) {
        headers.append(name.clone(), value.clone());
    }
    Ok(request)
}

/// Sends `request` over an unused connection, or a new one.
async fn send(
    egress: &Egress,
    origin: &Origin,
    mut request: Request<WasiBody>,
    timing: &Timing,
    notes: &CallNotes,
) -> Result<(Response<Incoming>, Connection), Error> {
    // The origin may close an unused connection just when it is taken. What was not yet
    // written then comes back, and goes over the next one; a new one is the last.
    while let Some(mut connection) = egress.pool.take(origin) {
        if !connection.is_ready().await {
            continue;
        }
        match connection.send(request).await {
            Ok(response) => return Ok((response, connection)),
            Err(mut error) => match error.take_message() {
                Some(unsent) => request = unsent,
                None => return Err(translate(&error.into_error())),
            },
        }
    }
    let deadline = Instant::now().checked_add(timing.connect).unwrap_or(timing.response);
    let io = egress.dialer.connect(origin, deadline.min(timing.response)).await;
    let io = io.map_err(|error| dialled(egress, origin, &error).noted(notes))?;
    let mut connection = Connection::new(io).await.map_err(|error| translate(&error))?;
    match connection.send(request).await {
        Ok(response) => Ok((response, connection)),
        Err(error) => Err(translate(&error.into_error())),
    }
}

/// Why there is no connection, for a guest and in words.
fn dialled(egress: &Egress, origin: &Origin, error: &DialError) -> Refused {
    let kind = match error {
        DialError::Prohibited(text) => {
            return Refused(Error::DestinationIpProhibited, Some(text.clone()));
        }
        DialError::Tls(tls) => {
            let error = match tls {
                rustls::Error::InvalidCertificate(_) => Error::TlsCertificateError,
                _ => Error::TlsProtocolError,
            };
            return Refused(error, Some(egress.denials.tls(&origin.text(), tls)));
        }
        DialError::Unresolved(_) => Error::DnsError { rcode: None, info_code: None },
        DialError::TimedOut => Error::ConnectionTimeout,
        DialError::Unreachable(error) | DialError::Broken(error) => io_error(error),
    };
    Refused(kind, None)
}

fn io_error(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Error::ConnectionTerminated,
        _ => Error::DestinationUnavailable,
    }
}

/// The error of an exchange as a guest may see it.
pub(super) fn translate(error: &hyper::Error) -> Error {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return io_error(io);
        }
        if let Some(Error::HttpRequestBodySize(size)) = cause.downcast_ref::<Error>() {
            return Error::HttpRequestBodySize(*size);
        }
        source = cause.source();
    }
    if error.is_parse_too_large() {
        Error::HttpResponseHeaderSectionSize(None)
    } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        Error::HttpResponseIncomplete
    } else if error.is_timeout() {
        Error::HttpResponseTimeout
    } else {
        Error::HttpProtocolError
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Network;

    fn egress(http: &[&str]) -> Egress {
        let http = http.iter().map(ToString::to_string).collect();
        Egress::of(&Network { http, ..Network::default() })
    }

    fn permitted_to(egress: &Egress, url: &str) -> Result<Origin, Error> {
        let uri = url.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
        permitted(egress, &uri).map(|(origin, _)| origin).map_err(|refused| refused.0)
    }

    #[test]
    fn only_granted_origins_are_permitted() {
        let egress = egress(&["https://api.example.com", "http://10.0.0.5:8000"]);
        assert!(permitted_to(&egress, "https://api.example.com/x").is_ok());
        assert!(permitted_to(&egress, "http://10.0.0.5:8000/").is_ok());
        for url in [
            "http://api.example.com/",
            "https://api.example.com:8443/",
            "https://example.com/",
            "https://x.api.example.com/",
            "http://10.0.0.5/",
            "http://169.254.169.254/",
            "http://metadata.google.internal/",
        ] {
            let result = permitted_to(&egress, url);
            assert!(matches!(result, Err(Error::HttpRequestDenied)), "{url}: {result:?}");
        }
    }

    #[test]
    fn tricks_with_the_authority_do_not_help() {
        let egress = egress(&["https://api.example.com", "http://api.example.com"]);
        for url in [
            "https://user@api.example.com/",
            "https://:secret@api.example.com/",
            "https://api.example.com@evil.example/",
            "https://api.example.com:443@evil.example/",
            "https://evil.example\\@api.example.com/",
            "https://api.example.com%00.evil.example/",
            "https://api.example.com%2f.evil.example/",
            "https://api.example.com%40evil.example/",
            "https://evil.example#@api.example.com/",
            "https://evil.example?@api.example.com/",
            "https://api.example.com:0/",
            "https://api.example.com:99999/",
            "https://[api.example.com]/",
            "https://api.example.com./../evil.example",
            "ftp://api.example.com/",
            "https:api.example.com/",
        ] {
            if let Ok(origin) = permitted_to(&egress, url) {
                // What is taken leads to the granted host and nowhere else.
                assert_eq!(origin.host, Host::Name("api.example.com".to_owned()), "{url}");
            }
        }
        for url in ["https://user@api.example.com/", "https://api.example.com@evil.example/"] {
            assert!(permitted_to(&egress, url).is_err(), "{url}");
        }
    }

    #[test]
    fn host_and_path_are_those_of_the_url() {
        let egress = egress(&["http://api.example.com"]);
        let guests = Request::builder()
            .method("GET")
            .uri("http://API.Example.com./a//b/%2F?q=%C3%A9")
            .header("host", "evil.example")
            .header("metadata-flavor", "Google")
            .header("x-aws-ec2-metadata-token-ttl-seconds", "60")
            .header("accept", "a")
            .header("accept", "b")
            .body(())
            .expect("a request");
        let (parts, ()) = guests.into_parts();
        let (origin, url) = permitted(&egress, &parts.uri).expect("permitted");
        let empty = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
        let request = outgoing(parts, empty, &origin, &url).expect("a request");
        assert_eq!(request.uri(), "/a//b/%2F?q=%C3%A9");
        let headers: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        assert_eq!(
            headers,
            [("host", &b"api.example.com"[..]), ("accept", b"a"), ("accept", b"b")]
        );
    }

    #[test]
    fn a_guest_sets_no_headers_of_the_connection_or_of_metadata_services() {
        for name in [
            "connection",
            "host",
            "te",
            "transfer-encoding",
            "proxy-authorization",
            "metadata-flavor",
            "metadata",
            "x-aws-ec2-metadata-token",
            "x-aws-ec2-metadata-token-ttl-seconds",
        ] {
            assert!(is_forbidden(&HeaderName::from_static(name)), "{name}");
        }
        assert!(!is_forbidden(&header::AUTHORIZATION));
    }

    #[tokio::test(start_paused = true)]
    async fn no_timeout_goes_beyond_the_calls_deadline() {
        let deadline = Instant::now() + Duration::from_secs(1);
        let patient = RequestOptions {
            connect_timeout: Some(Duration::MAX),
            first_byte_timeout: Some(Duration::MAX),
            between_bytes_timeout: Some(Duration::from_hours(1)),
        };
        let timing = Timing::new(patient, deadline);
        assert_eq!((timing.response, timing.connect), (deadline, CONNECT_TIMEOUT));
        let hasty = RequestOptions {
            connect_timeout: Some(Duration::ZERO),
            first_byte_timeout: Some(Duration::from_millis(10)),
            ..RequestOptions::default()
        };
        assert!(Timing::new(hasty, deadline).response < deadline);
    }
}
