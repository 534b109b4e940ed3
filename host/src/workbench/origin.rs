//! An origin that says what it is told to: on loopback, over real sockets.
//!
//! It can be as bad as origins are: slow, silent, gone in the middle of a sentence. It
//! writes down what it was asked.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use super::{expectation::base64, manifest::Route};

/// Connections at once: more than a plugin may have open.
const CONNECTIONS_MAX: usize = 512;

/// Requests that are written down; those after it are only counted.
const ASKED_MAX: usize = 4_096;

/// Bytes of a piece of a body that is sent in chunks.
const CHUNK: usize = 7_001;

/// Wait after a failed accept.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(20);

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Path and query, as they were sent.
    pub target: String,
    /// Its header fields.
    pub headers: HeaderMap,
}

/// What the origin says to a request.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields beside those that frame the body.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// How it is sent.
    pub delivery: Delivery,
    /// How long it takes to begin.
    pub delay: Duration,
}

/// How a reply is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// With its length.
    Whole,
    /// In chunks, without a length.
    Chunked,
    /// With its length, and after half of it the connection ends.
    CutShort,
    /// Never: the connection ends instead.
    HungUp,
    /// Never: the connection stays open.
    Silent,
}

impl Reply {
    /// A reply with `status` and `body`.
    ///
    /// # Panics
    /// If that is no status.
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: HeaderMap::new(),
            body: body.into(),
            delivery: Delivery::Whole,
            delay: Duration::ZERO,
        }
    }

    /// With one more header field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(HeaderName::from_static(name), value);
        }
        self
    }

    /// Sent in this way.
    #[must_use]
    pub fn sent(self, delivery: Delivery) -> Self {
        Self { delivery, ..self }
    }

    fn of(route: &Route) -> Self {
        let decoded = route.body_base64.as_deref().and_then(base64);
        let mut reply = Self {
            status: StatusCode::from_u16(route.status).unwrap_or(StatusCode::OK),
            headers: HeaderMap::new(),
            body: decoded.unwrap_or_else(|| route.body.clone().into_bytes()).into(),
            delivery: Delivery::Whole,
            delay: route.delay,
        };
        for (name, value) in &route.headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
                reply.headers.append(name, value);
            }
        }
        reply
    }
}

/// An origin, until it is dropped.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    asked: Arc<Log>,
    accepting: AbortHandle,
}

#[derive(Debug, Default)]
struct Log {
    count: AtomicU64,
    requests: Mutex<Vec<Asked>>,
}

impl Log {
    fn note(&self, asked: Asked) {
        self.count.fetch_add(1, Relaxed);
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.len() < ASKED_MAX {
            requests.push(asked);
        }
    }
}

type Answer = dyn Fn(&Asked) -> Reply + Send + Sync;

impl Origin {
    /// Listens on a free port of loopback and says to each request what `answer` makes
    /// of it. Within a tokio runtime.
    ///
    /// # Errors
    /// There is no port.
    pub async fn start(
        answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let asked = Arc::<Log>::default();
        let accepting = tokio::spawn(accept(listener, Arc::new(answer), Arc::clone(&asked)));
        Ok(Self { address, asked, accepting: accepting.abort_handle() })
    }

    /// As [`Origin::start`], with the routes of a manifest; everything else is a 404.
    ///
    /// # Errors
    /// There is no port.
    pub async fn of_routes(routes: &[Route]) -> io::Result<Self> {
        let replies: HashMap<String, Reply> =
            routes.iter().map(|route| (route.path.clone(), Reply::of(route))).collect();
        Self::start(move |asked| {
            replies
                .get(&asked.target)
                .cloned()
                .unwrap_or_else(|| Reply::new(404, "no such route\n"))
        })
        .await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests there were.
    pub fn count(&self) -> u64 {
        self.asked.count.load(Relaxed)
    }

    /// The requests, the first one first.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Dropped, it ends its connections as well.
async fn accept(listener: TcpListener, answer: Arc<Answer>, log: Arc<Log>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                connections.spawn(async move {
                    converse(socket, &*answer, &log).await;
                    drop(slot);
                });
            }
            Err(_) => sleep(ACCEPT_BACKOFF).await,
        }
    }
}

async fn converse(socket: TcpStream, answer: &Answer, log: &Log) {
    // A reply that waits for an acknowledgement would be measured as the plugin's time.
    socket.set_nodelay(true).ok();
    let service = service_fn(|request: Request<Incoming>| {
        let asked = Asked {
            method: request.method().clone(),
            target: request.uri().path_and_query().map_or("/", |it| it.as_str()).to_owned(),
            headers: request.headers().clone(),
        };
        let reply = answer(&asked);
        log.note(asked);
        say(reply)
    });
    // However it ends, it is the client's affair.
    http1::Builder::new().serve_connection(TokioIo::new(socket), service).await.ok();
}

async fn say(reply: Reply) -> Result<Response<Payload>, HangUp> {
    sleep(reply.delay).await;
    let mut response = Response::new(Payload::of(reply.body, reply.delivery));
    match reply.delivery {
        Delivery::Whole | Delivery::Chunked => {}
        Delivery::CutShort => {
            let length = HeaderValue::from(response.body().promised);
            response.headers_mut().insert(header::CONTENT_LENGTH, length);
        }
        Delivery::HungUp => return Err(HangUp),
        Delivery::Silent => match std::future::pending::<Infallible>().await {},
    }
    *response.status_mut() = reply.status;
    response.headers_mut().extend(reply.headers);
    Ok(response)
}

/// Makes hyper end the connection.
#[derive(Debug, thiserror::Error)]
#[error("the origin hung up")]
struct HangUp;

/// A body on its way.
struct Payload {
    rest: Bytes,
    delivery: Delivery,
    /// How much there is of it, whatever is sent.
    promised: usize,
    /// Whether what was given to hyper has had its chance to be sent.
    is_flushed: bool,
}

impl Payload {
    fn of(body: Bytes, delivery: Delivery) -> Self {
        let promised = body.len();
        let rest = if delivery == Delivery::CutShort { body.slice(..promised / 2) } else { body };
        Self { rest, delivery, promised, is_flushed: false }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = HangUp;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HangUp>>> {
        if self.rest.is_empty() {
            if self.delivery != Delivery::CutShort {
                return Poll::Ready(None);
            }
            if self.is_flushed {
                return Poll::Ready(Some(Err(HangUp)));
            }
            // At an error hyper throws away what it holds; while a body makes it wait, it
            // sends it.
            self.is_flushed = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let length = match self.delivery {
            Delivery::Chunked => CHUNK.min(self.rest.len()),
            _ => self.rest.len(),
        };
        let piece = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.delivery != Delivery::CutShort
    }

    fn size_hint(&self) -> SizeHint {
        if self.delivery == Delivery::Whole {
            SizeHint::with_exact(self.rest.len() as u64)
        } else {
            SizeHint::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// All that the origin says to one request for `target`, until it ends.
    async fn ask(origin: &Origin, target: &str) -> String {
        let mut socket = TcpStream::connect(origin.address()).await.expect("to connect");
        let request = format!("GET {target} HTTP/1.1\r\nhost: o\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("to write");
        let mut said = Vec::new();
        socket.read_to_end(&mut said).await.ok();
        String::from_utf8_lossy(&said).into_owned()
    }

    #[tokio::test]
    async fn a_route_is_answered_and_everything_else_is_not_found() {
        let route = Route {
            path: "/items/a%20b?x=1".to_owned(),
            status: 203,
            headers: [("X-Note".to_owned(), "yes".to_owned())].into(),
            body: "an item\n".to_owned(),
            body_base64: None,
            delay: Duration::ZERO,
        };
        let origin = Origin::of_routes(&[route]).await.expect("an origin");
        let said = ask(&origin, "/items/a%20b?x=1").await;
        assert!(said.starts_with("HTTP/1.1 203 "), "{said}");
        assert!(said.contains("x-note: yes\r\n") && said.ends_with("\r\n\r\nan item\n"), "{said}");
        assert!(ask(&origin, "/items/a").await.starts_with("HTTP/1.1 404 "));
        assert_eq!(origin.count(), 2);
        assert_eq!(origin.asked()[1].target, "/items/a");
    }

    #[tokio::test]
    async fn it_can_be_as_bad_as_origins_are() {
        let origin = Origin::start(|asked| {
            let reply = Reply::new(200, "0123456789").with("etag", "\"e\"");
            reply.sent(match asked.target.as_str() {
                "/chunked" => Delivery::Chunked,
                "/short" => Delivery::CutShort,
                _ => Delivery::HungUp,
            })
        });
        let origin = origin.await.expect("an origin");
        let chunked = ask(&origin, "/chunked").await.to_lowercase();
        assert!(chunked.contains("transfer-encoding: chunked"), "{chunked}");
        assert!(chunked.ends_with("a\r\n0123456789\r\n0\r\n\r\n"), "{chunked}");
        let short = ask(&origin, "/short").await;
        assert!(short.contains("content-length: 10\r\n") && short.ends_with("01234"), "{short}");
        assert_eq!(ask(&origin, "/gone").await, "");
    }
}
