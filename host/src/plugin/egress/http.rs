//! `wasi:http` under the plugin's grants.
//!
//! Wasmtime's own sender connects to whatever a name resolves to, so requests take
//! this way instead: the origin is compared with the grants, then a client of the
//! plugin's own sends the request. That client looks names up through a resolver that
//! drops addresses which may not be dialled, and dials what the resolver gave it:
//! there is no second lookup whose answer could differ.
//!
//! Redirects are handed to the guest, whose next request is checked like the first.

use std::{error::Error as StdError, future::Future, io, net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderName, Request, Response, header};
use http_body::Body;
use http_body_util::{BodyDataStream, BodyExt};
use reqwest::{
    Client, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::time::{Instant, timeout_at};
use tracing::warn;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody,
    WasiHttpHooks,
};

use super::{AddressFilter, Denials, Egress, body::Bounded, grant};

/// Time to connect, TLS included. A host that takes longer is down for a cache.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time an unused connection is kept: servers close theirs after a minute or so.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Unused connections kept for one host.
const IDLE_PER_HOST: usize = 16;

/// What a guest may not set beside wasmtime's own list: headers that belong to a
/// connection, and those that metadata services ask for.
const FORBIDDEN_HEADERS: [HeaderName; 7] = [
    header::TE,
    header::TRAILER,
    HeaderName::from_static("metadata"),
    HeaderName::from_static("metadata-flavor"),
    HeaderName::from_static("x-aws-ec2-metadata-token"),
    HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds"),
    HeaderName::from_static("x-google-metadata-request"),
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
    Ok(Response::from(response).map(|body| {
        Bounded::new(body, egress.response_max, timing.deadline, timing.between_bytes, permit)
            .boxed_unsync()
    }))
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
pub(super) fn translate(error: &reqwest::Error) -> Error {
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

#[cfg(test)]
mod tests {
    use super::{super::body::frame_deadline, *};
    use crate::config::Network;

    fn egress(http: &[&str], allow_private: &[&str]) -> Egress {
        let text = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let network =
            Network { http: text(http), allow_private: text(allow_private), ..Network::default() };
        Egress::new(&"p".into(), &network).expect("grants")
    }

    fn permitted_to(egress: &Egress, url: &str) -> Result<(), Error> {
        permitted(egress, &Url::parse(url).expect(url)).map(drop)
    }

    #[test]
    fn only_granted_origins_get_a_client() {
        let egress = egress(&["https://api.example.com", "http://10.0.0.5:8000"], &[]);
        assert!(permitted_to(&egress, "https://api.example.com/x").is_ok());
        for url in ["http://api.example.com/", "https://example.com/", "http://169.254.169.254/"] {
            assert!(matches!(permitted_to(&egress, url), Err(Error::HttpRequestDenied)), "{url}");
        }
        let private = permitted_to(&egress, "http://10.0.0.5:8000/");
        assert!(matches!(private, Err(Error::DestinationIpProhibited)));
    }

    #[test]
    fn credentials_in_a_url_are_refused() {
        let egress = egress(&["https://api.example.com"], &[]);
        for url in ["https://user@api.example.com/", "https://:secret@api.example.com/"] {
            assert!(
                matches!(permitted_to(&egress, url), Err(Error::HttpRequestUriInvalid)),
                "{url}"
            );
        }
    }

    #[test]
    fn a_disguised_loopback_address_is_refused() {
        let granted = ["http://127.0.0.1", "http://[::1]", "http://[::ffff:127.0.0.1]"];
        let egress = egress(&granted, &[]);
        for url in
            ["http://2130706433/", "http://0x7f.1/", "http://[::1]/", "http://[::ffff:7f00:1]/"]
        {
            let result = permitted_to(&egress, url);
            assert!(matches!(result, Err(Error::DestinationIpProhibited)), "{url}: {result:?}");
        }
    }

    #[test]
    fn a_guest_sets_no_headers_of_the_connection_or_of_metadata_services() {
        for name in ["connection", "host", "te", "transfer-encoding", "metadata-flavor", "metadata"]
        {
            assert!(is_forbidden(&HeaderName::from_static(name)), "{name}");
        }
        assert!(!is_forbidden(&header::AUTHORIZATION));
    }

    #[tokio::test(start_paused = true)]
    async fn no_timeout_goes_beyond_the_calls_deadline() {
        let deadline = Instant::now() + Duration::from_secs(1);
        let patient = RequestOptions {
            first_byte_timeout: Some(Duration::MAX),
            between_bytes_timeout: Some(Duration::from_hours(1)),
            ..RequestOptions::default()
        };
        let timing = Timing::new(patient, deadline);
        assert_eq!(
            (timing.response, frame_deadline(timing.deadline, timing.between_bytes)),
            (deadline, deadline)
        );
        let hasty = RequestOptions {
            connect_timeout: Some(Duration::ZERO),
            first_byte_timeout: Some(Duration::from_millis(10)),
            ..RequestOptions::default()
        };
        assert!(Timing::new(hasty, deadline).response < deadline);
    }
}
