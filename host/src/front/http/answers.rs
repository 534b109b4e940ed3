//! What a surface says to a request: clients and peers are served alike, by the same
//! threads' code, and are told different things.

use std::{fmt, future::Future, pin::Pin};

use ::http::{HeaderMap, Response, request::Parts};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    super::{body::ReplyBody, problem::Problem},
    handler::Reply,
    head::Limits,
    quick::Made,
};

/// What a surface makes of a plain `GET`.
pub(super) enum Answer {
    /// The reply.
    Made(Made),
    /// The reply, once it is there.
    Later(Later),
    /// It is no plain matter: hyper is to read the request.
    NotHere,
}

/// A reply that waits for something.
pub(super) type Later = Pin<Box<dyn Future<Output = Made>>>;

/// Answers the requests of one surface.
pub(super) trait Answers: fmt::Debug + Send + Sync {
    /// What a head may have to be answered by [`Answers::answer`].
    fn limits(&self) -> Limits;

    /// Answers a plain `GET` of `path` at `now`. The path is within the limits and holds
    /// neither query nor fragment.
    fn answer(&self, path: &str, now: Instant) -> Answer;

    /// The reply to a request without a body.
    fn respond(&self, head: Parts) -> Reply;

    /// Whether a request with this head may have a body, which [`Answers::receive`] then
    /// takes.
    fn takes_body(&self, head: &Parts) -> bool {
        let _ = head;
        false
    }

    /// The reply to a request with a body.
    fn receive(&self, head: Parts, body: Incoming) -> Reply {
        drop(body);
        self.respond(head)
    }

    /// The reply that refuses a request, whose `headers` are given.
    fn refuse(&self, problem: &Problem, headers: HeaderMap, is_head: bool) -> Response<ReplyBody>;
}
