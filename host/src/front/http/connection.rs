//! One connection of a client, from its first byte to its last.
//!
//! hyper reads requests and writes replies; this adds the clock. A connection has one
//! timer, armed for the earliest moment at which it could have to end, and looked at
//! again when that comes: a request moves no timer.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
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
    super::{body::ReplyBody, problem::Problem, target::TargetError},
    Times,
    answers::Answers,
    handler::Reply,
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
    answers: Arc<dyn Answers>,
    http1: &http1::Builder,
    times: Times,
    is_draining: impl Fn() -> bool,
) {
    let wire = Wire::new(socket, answers);
    let requests = Requests(wire.clone());
    let mut connection = pin!(http1.serve_connection(TokioIo::new(wire.clone()), requests));
    let mut clock = Clock::new(times, wire.now());
    let mut alarm = pin!(sleep_until(clock.due(&wire)));
    let mut is_told = false;
    let mut is_over = false;
    let mut is_armed = false;
    poll_fn(|cx| {
        let is_last = is_draining();
        if is_last {
            wire.say_last();
        }
        wire.begin_turn();
        while !is_over {
            let is_hypers = match wire.poll_heads(cx) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => false,
            };
            is_over = is_last && wire.is_between_requests();
            // What waits for its answer here gets it first.
            let is_news = is_last && !is_told && !wire.is_answering();
            if is_over || !(is_hypers || is_news) {
                break;
            }
            if is_news {
                is_told = true;
                connection.as_mut().graceful_shutdown();
            }
            // How a connection ends is the client's affair: there is nothing to report.
            is_over = connection.as_mut().poll(cx).is_ready();
            if !wire.is_ours() {
                break;
            }
        }
        match wire.poll_send(cx) {
            Poll::Ready(Ok(())) if is_over => return Poll::Ready(()),
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        let due = clock.due(&wire);
        if due < alarm.deadline() {
            alarm.as_mut().reset(due);
            is_armed = false;
        }
        // An armed alarm wakes this task, always the same one: no need to tell it again.
        while !is_armed || alarm.is_elapsed() {
            is_armed = alarm.as_mut().poll(cx).is_pending();
            if !is_armed {
                let due = clock.due(&wire);
                if due <= Instant::now() {
                    return Poll::Ready(());
                }
                alarm.as_mut().reset(due);
            }
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
    /// When the first byte of the request that is being read arrived, and how many
    /// requests were read before it.
    reading_since: Option<(Instant, u64)>,
}

impl Clock {
    fn new(times: Times, now: Instant) -> Self {
        Self { times, moved: now, reading_since: None }
    }

    fn due(&mut self, wire: &Wire) -> Instant {
        if wire.has_moved() {
            self.moved = wire.now();
        }
        match wire.phase() {
            Phase::Reading => {
                let since = match self.reading_since {
                    Some((since, heads)) if heads == wire.heads() => since,
                    _ => self.moved,
                };
                self.reading_since = Some((since, wire.heads()));
                since + self.times.header
            }
            // The request ends by its own deadline. A client that does not read is
            // held to the idle time.
            Phase::Busy if !wire.has_unsent() => {
                wire.now() + self.times.request.max(self.times.idle)
            }
            Phase::Busy | Phase::Idle => self.moved + self.times.idle,
        }
    }
}

/// The requests of one connection that hyper has read.
struct Requests(Wire);

impl Service<Request<Incoming>> for Requests {
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let answers = self.0.answers();
        let has_fragment = self.0.begin();
        let (head, body) = request.into_parts();
        let reply = if !body.is_end_stream() {
            if answers.takes_body(&head) {
                answers.receive(head, body)
            } else {
                refuse_body(Arc::clone(answers), head, body)
            }
        } else if has_fragment {
            let is_head = head.method == Method::HEAD;
            answers.refuse(&TargetError::Fragment.into(), head.headers, is_head).into()
        } else {
            answers.respond(head)
        };
        Answer { reply, wire: self.0.clone() }
    }
}

/// The reply to one request.
struct Answer {
    reply: Reply,
    wire: Wire,
}

impl Future for Answer {
    type Output = Result<Response<ReplyBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = Pin::new(&mut self.reply).poll(cx);
        if reply.is_ready() {
            self.wire.end();
        }
        reply.map(Ok)
    }
}

/// Refuses a request for having a body, and ends the connection.
fn refuse_body(
    answers: Arc<dyn Answers>,
    head: ::http::request::Parts,
    mut body: Incoming,
) -> Reply {
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
        let mut response = answers.refuse(&problem, head.headers, is_head);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }))
}
