//! HTTP over `wasi:http`: the node makes the connection and speaks TLS.

use super::{Request, Response, Url};
use crate::clock::nanoseconds;
use crate::net::wait;
use crate::{Deadline, Error};
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingResponse, Method, OutgoingRequest, RequestOptions,
    Scheme, http_error_code,
};
use wasip2::io::streams::StreamError;

/// The most bytes asked for in one read: the host allocates them.
const READ_BYTES_MAX: u64 = 64 * 1024;

/// Sends `request` and reads the answer, up to one byte more than it allows.
pub(super) fn send(
    request: &Request,
    url: &Url<'_>,
    deadline: Deadline,
) -> Result<Response, Error> {
    let outgoing = outgoing(request, url)?;
    let pending =
        handle(outgoing, Some(options(request, deadline))).map_err(|code| failed(&code, url))?;
    let response = loop {
        match pending.get() {
            Some(Ok(Ok(response))) => break response,
            Some(Ok(Err(code))) => return Err(failed(&code, url)),
            Some(Err(())) => return Err(Error::internal("the node gave no answer to a request")),
            None => wait(&pending.subscribe(), deadline, "the request")?,
        }
    };
    Ok(Response {
        status: response.status(),
        headers: response.headers().entries(),
        body: body(&response, request, url, deadline)?,
    })
}

fn outgoing(request: &Request, url: &Url<'_>) -> Result<OutgoingRequest, Error> {
    let headers = Fields::new();
    for (name, value) in &request.headers {
        headers.append(name, value.as_bytes()).map_err(|_| {
            Error::internal(format!("the request header {name:?} is not valid, or not allowed"))
        })?;
    }
    let scheme = if url.is_https { Scheme::Https } else { Scheme::Http };
    let outgoing = OutgoingRequest::new(headers);
    outgoing
        .set_method(&Method::Get)
        .and_then(|()| outgoing.set_scheme(Some(&scheme)))
        .and_then(|()| outgoing.set_authority(Some(url.authority)))
        .and_then(|()| outgoing.set_path_with_query(Some(&url.path_and_query)))
        .map_err(|()| Error::internal(format!("the URL {:?} is not valid", request.url)))?;
    Ok(outgoing)
}

/// Time limits for the node's own side of the request. They only help it to
/// let go early; the deadline is kept by the guest whether or not the node
/// supports them, so a refusal is no error.
fn options(request: &Request, deadline: Deadline) -> RequestOptions {
    let options = RequestOptions::new();
    let left = deadline.remaining();
    let connect = request.connect_timeout.map_or(left, |timeout| timeout.min(left));
    let _ = options.set_connect_timeout(Some(nanoseconds(connect)));
    let _ = options.set_first_byte_timeout(Some(nanoseconds(left)));
    let _ = options.set_between_bytes_timeout(Some(nanoseconds(left)));
    options
}

fn body(
    response: &IncomingResponse,
    request: &Request,
    url: &Url<'_>,
    deadline: Deadline,
) -> Result<Vec<u8>, Error> {
    let no_body = |()| Error::internal("the node handed out a response without a body");
    let body: IncomingBody = response.consume().map_err(no_body)?;
    // Declared after `body`, so that it is dropped before: the host demands it.
    let stream = body.stream().map_err(no_body)?;
    let mut bytes = Vec::new();
    loop {
        match stream.read(READ_BYTES_MAX) {
            Ok(part) if part.is_empty() => {
                wait(&stream.subscribe(), deadline, "the response body")?;
            }
            Ok(part) => {
                if bytes.len().saturating_add(part.len()) > request.body_bytes_max {
                    return Err(request.body_too_large(url));
                }
                bytes.extend_from_slice(&part);
                // A body that never ends never waits either.
                if deadline.is_over() {
                    return Err(Error::TimedOut);
                }
            }
            Err(StreamError::Closed) => return Ok(bytes),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(match http_error_code(&error) {
                    Some(code) => failed(&code, url),
                    None => Error::unavailable(format!(
                        "reading the answer of {url} failed: {}",
                        error.to_debug_string()
                    )),
                });
            }
        }
    }
}

/// Sorts the node's error codes by what can be done about them.
fn failed(code: &ErrorCode, url: &Url<'_>) -> Error {
    match code {
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => url.denied(),
        ErrorCode::DnsTimeout
        | ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::HttpResponseTimeout => Error::TimedOut,
        ErrorCode::DnsError(_)
        | ErrorCode::DestinationNotFound
        | ErrorCode::DestinationUnavailable
        | ErrorCode::DestinationIpUnroutable
        | ErrorCode::ConnectionRefused
        | ErrorCode::ConnectionTerminated
        | ErrorCode::ConnectionLimitReached
        | ErrorCode::TlsProtocolError
        | ErrorCode::TlsCertificateError
        | ErrorCode::TlsAlertReceived(_)
        | ErrorCode::HttpResponseIncomplete
        | ErrorCode::HttpProtocolError => {
            Error::unavailable(format!("the request to {url} failed: {code:?}"))
        }
        ErrorCode::HttpResponseBodySize(_) => {
            Error::internal(format!("the answer of {url} is larger than the node allows"))
        }
        _ => Error::internal(format!("the request to {url} failed: {code:?}")),
    }
}
