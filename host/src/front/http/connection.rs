//! One connection of a client, from its first byte to its last.
//!
//! hyper reads requests and writes replies; this adds the clock. A connection has one
//! timer, armed for the earliest moment at which it could have to end, and looked at
//! again when that comes: a request moves no timer.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use ::http::{
    HeaderValue, Method, Request, Response,
    header::{CONNECTION, EXPECT},
};
use http_body_util::BodyExt as _;
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::Service,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};

use super::{
    super::{body::ReplyBody, problem::Problem},
    Times,
    handler::{Handler, Reply},
    wire::{Phase, Wire},
};

/// Bytes of a refused body that are read and dropped, so that the client has sent all
/// of it and reads the reply. Beyond that it may see a reset connection instead.
const REFUSED_BODY_MAX: usize = 64 * 1024;

/// Time for a refused body to arrive.
const REFUSED_BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves one connection until it ends.
///
/// `is_draining` is asked whenever the connection is polled; who makes it true wakes
/// this future.
pub(super) async fn serve(
    socket: TcpStream,
    handler: Handler,
    http1: &http1::Builder,
    times: Times,
    is_draining: impl Fn() -> bool,
) {
    let wire = Wire::new(socket);
    let requests = Requests { handler, wire: wire.clone() };
    let mut connection = pin!(http1.serve_connection(TokioIo::new(wire.clone()), requests));
    let mut clock = Clock::new(times);
    let mut timer = pin!(sleep_until(clock.due(&wire)));
    let mut is_told = false;
    let mut is_over = false;
    poll_fn(|cx| {
        if is_draining() && !is_told {
            is_told = true;
            connection.as_mut().graceful_shutdown();
        }
        // How a connection ends is the client's affair: there is nothing to report.
        is_over = is_over || connection.as_mut().poll(cx).is_ready();
        match wire.poll_send(cx) {
            Poll::Ready(Ok(())) if is_over => return Poll::Ready(()),
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        let due = clock.due(&wire);
        if due < timer.deadline() {
            timer.as_mut().reset(due);
        }
        // Usually registered already and far from elapsed, which this finds cheaply.
        while timer.as_mut().poll(cx).is_ready() {
            let due = clock.due(&wire);
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    })
    .await;
}

/// When a connection has to end unless something happens.
#[derive(Debug)]
struct Clock {
    times: Times,
    /// When a byte last went either way.
    moved: Instant,
    /// When the first byte of the request that is being read arrived.
    reading_since: Option<Instant>,
}

impl Clock {
    fn new(times: Times) -> Self {
        Self { times, moved: Instant::now(), reading_since: None }
    }

    fn due(&mut self, wire: &Wire) -> Instant {
        if wire.has_moved() {
            self.moved = Instant::now();
        }
        let phase = wire.phase();
        if phase != Phase::Reading {
            self.reading_since = None;
        }
        match phase {
            Phase::Reading => *self.reading_since.get_or_insert(self.moved) + self.times.header,
            // The request ends by its own deadline. A client that does not read is
            // held to the idle time.
            Phase::Busy if !wire.has_unsent() => {
                Instant::now() + self.times.request.max(self.times.idle)
            }
            Phase::Busy | Phase::Idle => self.moved + self.times.idle,
        }
    }
}

/// The requests of one connection.
struct Requests {
    handler: Handler,
    wire: Wire,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let reply = if body.is_end_stream() {
            self.handler.respond(head)
        } else {
            refuse_body(self.handler.clone(), head, body)
        };
        let is_ready = matches!(reply, Reply::Ready(_));
        self.wire.set_phase(if is_ready { Phase::Idle } else { Phase::Busy });
        Answer { reply, waiting: (!is_ready).then(|| self.wire.clone()) }
    }
}

/// The reply to one request.
struct Answer {
    reply: Reply,
    /// The wire to report to when the reply is there; `None` if it is from the start.
    waiting: Option<Wire>,
}

impl Future for Answer {
    type Output = Result<Response<ReplyBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.reply).poll(cx).map(|response| {
            if let Some(wire) = self.waiting.take() {
                wire.set_phase(Phase::Idle);
            }
            Ok(response)
        })
    }
}

/// Refuses a request for having a body, and ends the connection.
fn refuse_body(handler: Handler, head: ::http::request::Parts, mut body: Incoming) -> Reply {
    let is_head = head.method == Method::HEAD;
    // Whoever asks first is told before it sends anything.
    let is_coming = !head.headers.contains_key(EXPECT);
    let takes_none = matches!(head.method, Method::GET | Method::HEAD | Method::DELETE);
    Reply::Later(Box::pin(async move {
        if is_coming {
            let swallow = async {
                let mut left = REFUSED_BODY_MAX;
                while let Some(Ok(frame)) = body.frame().await {
                    let length = frame.data_ref().map_or(0, bytes::Bytes::len);
                    let Some(rest) = left.checked_sub(length) else { break };
                    left = rest;
                }
            };
            // A client that is too slow or sends too much loses the reply, not us.
            let _ = timeout(REFUSED_BODY_TIMEOUT, swallow).await;
        }
        let problem =
            if takes_none { Problem::body() } else { Problem::method(super::handler::ALLOW) };
        let mut response = handler.refuse(&problem, head.headers, is_head);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }))
}
