//! `wasi:http` under the plugin's grants.
//!
//! Wasmtime's own sender connects to whatever a name resolves to, so requests take
//! this way instead: the origin is compared with the grants, then a client of the
//! plugin's own sends the request. That client looks names up through a resolver that
//! drops addresses which may not be dialled, and dials what the resolver gave it:
//! there is no second lookup whose answer could differ.
//!
//! Redirects are handed to the guest, whose next request is checked like the first.

use std::{
    error::Error as StdError,
    future::Future,
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyDataStream, BodyExt};
use reqwest::{
    Client, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep_until, timeout_at},
};
use tracing::warn;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody,
    WasiHttpHooks,
};

use super::{AddressFilter, Denials, Egress, grant};

/// Time to connect, TLS included. A host that takes longer is down for a cache.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time an unused connection is kept: servers close theirs after a minute or so.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Unused connections kept for one host.
const IDLE_PER_HOST: usize = 16;

/// What a guest may not set beside wasmtime's own list: headers that belong to a
/// connection, and those that metadata services ask for.
const FORBIDDEN_HEADERS: [HeaderName; 8] = [
    header::TE,
    header::TRAILER,
    HeaderName::from_static("metadata"),
    HeaderName::from_static("metadata-flavor"),
    HeaderName::from_static("x-aws-ec2-metadata-token"),
    HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds"),
    HeaderName::from_static("x-google-metadata-request"),
    HeaderName::from_static("x-forwarded-for"),
];

type Answer =
    Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

/// Sends the requests of one instance.
pub(in crate::plugin) struct HttpHooks {
    egress: Arc<Egress>,
    /// When the call under way ends, and every exchange with it.
    pub(in crate::plugin) deadline: Instant,
}

impl HttpHooks {
    pub(in crate::plugin) fn new(egress: Arc<Egress>) -> Self {
        Self { egress, deadline: Instant::now() }
    }
}

impl WasiHttpHooks for HttpHooks {
    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::new(is_forbidden)
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _sent: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Answer> + Send> {
        let (egress, deadline) = (Arc::clone(&self.egress), self.deadline);
        Box::new(async move {
            let timing = Timing::new(options.unwrap_or_default(), deadline);
            let response = exchange(&egress, request, &timing).await?;
            // The client drives its connections by itself.
            let io: Box<dyn Future<Output = Result<(), Error>> + Send> =
                Box::new(std::future::ready(Ok(())));
            Ok((response, io))
        })
    }
}

fn is_forbidden(name: &HeaderName) -> bool {
    DEFAULT_FORBIDDEN_HEADERS.contains(name) || FORBIDDEN_HEADERS.contains(name)
}

/// The guest's timeouts, none of them beyond the call's deadline.
struct Timing {
    deadline: Instant,
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
        Self { deadline, response, between_bytes: options.between_bytes_timeout }
    }
}

async fn exchange(
    egress: &Arc<Egress>,
    request: Request<WasiBody>,
    timing: &Timing,
) -> Result<Response<WasiBody>, Error> {
    let (parts, body) = request.into_parts();
    let url = Url::parse(&parts.uri.to_string()).map_err(|_| Error::HttpRequestUriInvalid)?;
    let client = permitted(egress, &url)?;
    let permit = Arc::clone(&egress.in_flight)
        .try_acquire_owned()
        .map_err(|_| Error::ConnectionLimitReached)?;

    let mut outgoing = reqwest::Request::new(parts.method, url);
    // The client writes `Host` from the URL, which is what was checked.
    let headers = parts.headers.iter().filter(|(name, _)| !is_forbidden(name));
    *outgoing.headers_mut() = headers.map(|(name, value)| (name.clone(), value.clone())).collect();
    if !body.is_end_stream() {
        *outgoing.body_mut() = Some(reqwest::Body::wrap_stream(BodyDataStream::new(body)));
    }

    let response = timeout_at(timing.response, client.execute(outgoing))
        .await
        .map_err(|_| Error::HttpResponseTimeout)?
        .map_err(|error| translate(&error))?;
    if response.content_length().is_some_and(|length| length > egress.response_max) {
        return Err(Error::HttpResponseBodySize(response.content_length()));
    }
    let left = egress.response_max;
    Ok(Response::from(response).map(|body| {
        Bounded {
            body: Some(body),
            left,
            overdue: Box::pin(sleep_until(timing.next_frame())),
            deadline: timing.deadline,
            between_bytes: timing.between_bytes,
            _permit: permit,
        }
        .boxed_unsync()
    }))
}

impl Timing {
    fn next_frame(&self) -> Instant {
        frame_deadline(self.deadline, self.between_bytes)
    }
}

fn frame_deadline(deadline: Instant, between_bytes: Option<Duration>) -> Instant {
    between_bytes
        .and_then(|between| Instant::now().checked_add(between))
        .map_or(deadline, |next| next.min(deadline))
}

/// The client for `url`, if the grants cover it.
fn permitted<'a>(egress: &'a Egress, url: &Url) -> Result<&'a Client, Error> {
    if !url.username().is_empty() || url.password().is_some() {
        // Credentials in a URL end up in logs; a header carries them as well.
        return Err(Error::HttpRequestUriInvalid);
    }
    let host = url.host_str().map(grant::plain_host).filter(|host| !host.is_empty());
    let Some(host) = host else { return Err(Error::HttpRequestUriInvalid) };
    if grant::is_metadata_name(&host) {
        egress.denials.never(&host);
        return Err(Error::HttpRequestDenied);
    }
    let granted = egress.http_grants.iter().any(|grant| grant.covers(url));
    let (true, Some(client)) = (granted, &egress.client) else {
        egress.denials.http(&url.origin().ascii_serialization());
        return Err(Error::HttpRequestDenied);
    };
    // A literal never reaches the client's resolver.
    if let Ok(ip) = host.parse::<IpAddr>() {
        egress.filter.check(ip).map_err(|refusal| {
            egress.denials.address(&host, &refusal);
            Error::DestinationIpProhibited
        })?;
    }
    Ok(client)
}

/// A client for one plugin, whose connections no other plugin uses.
pub(super) fn client(filter: Arc<AddressFilter>, denials: Arc<Denials>) -> Result<Client, String> {
    Client::builder()
        .tls_backend_preconfigured(tls()?)
        .dns_resolver(Arc::new(FilteredResolver { filter, denials }))
        .redirect(redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .no_proxy()
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .build()
        .map_err(|error| format!("cannot set up the HTTP client: {error}"))
}

/// TLS that trusts what this machine trusts. The provider is named here rather than
/// installed for the process, which may embed us beside another one.
fn tls() -> Result<ClientConfig, String> {
    let problem = |error: rustls::Error| format!("cannot set up TLS: {error}");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = || {
        ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(problem)
    };
    match builder()?.with_platform_verifier() {
        Ok(builder) => Ok(builder.with_no_client_auth()),
        Err(error) => {
            warn!(%error, "This machine has no root certificates: https will fail, http works.");
            let roots = rustls::RootCertStore::empty();
            Ok(builder()?.with_root_certificates(roots).with_no_client_auth())
        }
    }
}

/// Looks names up and keeps the addresses that may be dialled.
struct FilteredResolver {
    filter: Arc<AddressFilter>,
    denials: Arc<Denials>,
}

/// A granted name has only addresses that may not be dialled.
#[derive(Debug, thiserror::Error)]
#[error("every address of the host is in a range that is not granted")]
struct Prohibited;

/// A granted name does not resolve.
#[derive(Debug, thiserror::Error)]
#[error("the host's name does not resolve: {0}")]
struct Unresolved(io::Error);

impl Resolve for FilteredResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (filter, denials) = (Arc::clone(&self.filter), Arc::clone(&self.denials));
        Box::pin(async move {
            let host = name.as_str();
            let found = tokio::net::lookup_host((host, 0)).await.map_err(Unresolved)?;
            let mut refused = None;
            let mut addresses = Vec::new();
            for address in found {
                match filter.check(address.ip()) {
                    Ok(()) => addresses.push(address),
                    Err(refusal) => refused = Some((address.ip(), refusal)),
                }
            }
            if let (true, Some((ip, refusal))) = (addresses.is_empty(), refused) {
                denials.address(&format!("{host} at {ip}"), &refusal);
                return Err(Prohibited.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The client's error as a guest may see it.
fn translate(error: &reqwest::Error) -> Error {
    if find::<Prohibited>(error).is_some() {
        return Error::DestinationIpProhibited;
    }
    if find::<Unresolved>(error).is_some() {
        return Error::DnsError { rcode: None, info_code: None };
    }
    if let Some(tls) = find::<rustls::Error>(error) {
        return match tls {
            rustls::Error::InvalidCertificate(_) => Error::TlsCertificateError,
            _ => Error::TlsProtocolError,
        };
    }
    if error.is_timeout() {
        return if error.is_connect() {
            Error::ConnectionTimeout
        } else {
            Error::HttpResponseTimeout
        };
    }
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => Error::ConnectionRefused,
        Some(io::ErrorKind::TimedOut) => Error::ConnectionTimeout,
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            Error::ConnectionTerminated
        }
        Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
            Error::DestinationUnavailable
        }
        Some(io::ErrorKind::UnexpectedEof) => Error::HttpResponseIncomplete,
        _ if error.is_connect() => Error::DestinationUnavailable,
        _ => Error::HttpProtocolError,
    }
}

/// A response's body, which ends at a size, at the deadline, or when its sender falls
/// silent. The connection goes with it.
struct Bounded {
    body: Option<reqwest::Body>,
    left: u64,
    overdue: Pin<Box<Sleep>>,
    deadline: Instant,
    between_bytes: Option<Duration>,
    /// Counts the exchange as under way.
    _permit: OwnedSemaphorePermit,
}

impl Bounded {
    fn fail(&mut self, error: Error) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.body = None;
        Poll::Ready(Some(Err(error)))
    }
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let frame = match Pin::new(body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.overdue.as_mut().poll(cx));
                return self.fail(Error::ConnectionReadTimeout);
            }
        };
        match frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                let Some(left) = self.left.checked_sub(bytes) else {
                    return self.fail(Error::HttpResponseBodySize(None));
                };
                self.left = left;
                if self.between_bytes.is_some() {
                    let next = frame_deadline(self.deadline, self.between_bytes);
                    self.overdue.as_mut().reset(next);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                let error = translate(&error);
                self.fail(error)
            }
            None => {
                self.body = None;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
