//! The body of an HTTP response on its way to a guest.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep_until},
};
use wasmtime_wasi_http::Error;

use super::http::translate;

/// A response's body, which ends at a size, at the deadline, or when its sender falls
/// silent. The connection goes with it.
pub(super) struct Bounded {
    body: Option<reqwest::Body>,
    left: u64,
    overdue: Pin<Box<Sleep>>,
    deadline: Instant,
    between_bytes: Option<Duration>,
    /// Counts the exchange as under way.
    _permit: OwnedSemaphorePermit,
}

impl Bounded {
    /// `body` with up to `left` bytes, by `deadline` and with no pause longer than
    /// `between_bytes`.
    pub(super) fn new(
        body: reqwest::Body,
        left: u64,
        deadline: Instant,
        between_bytes: Option<Duration>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let overdue = Box::pin(sleep_until(frame_deadline(deadline, between_bytes)));
        Self { body: Some(body), left, overdue, deadline, between_bytes, _permit: permit }
    }

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

/// When the next frame is due.
pub(super) fn frame_deadline(deadline: Instant, between_bytes: Option<Duration>) -> Instant {
    between_bytes
        .and_then(|between| Instant::now().checked_add(between))
        .map_or(deadline, |next| next.min(deadline))
}
