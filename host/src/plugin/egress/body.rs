//! The body of an HTTP response on its way to a guest.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep_until},
};
use wasmtime_wasi_http::Error;

use super::{
    dial::Origin,
    http::translate,
    pool::{Connection, Pool},
};

/// Time that a guest may spend waiting for a body before its rate is looked at: a slow
/// start is no slow origin.
const RATE_GRACE: Duration = Duration::from_secs(10);

/// What a response's body must keep within.
pub(super) struct Bounds {
    /// Bytes that may still come.
    pub(super) left: u64,
    /// When it ends at the latest.
    pub(super) deadline: Instant,
    /// The longest pause.
    pub(super) between_bytes: Option<Duration>,
    /// Bytes a second that must come on average while somebody waits for them; zero for
    /// any.
    pub(super) rate_min: u64,
}

/// The connection of an exchange under way. It is kept for another one if the response
/// is read to its end, and else closed.
pub(super) struct Lease {
    pub(super) pool: Arc<Pool>,
    pub(super) origin: Origin,
    pub(super) connection: Connection,
    /// Counts the exchange as under way.
    pub(super) _place: OwnedSemaphorePermit,
}

impl Lease {
    fn end(self) {
        self.pool.keep(self.origin, self.connection);
    }
}

/// A response's body, which ends at a size, at the deadline, or when its sender falls
/// silent or trickles. The connection goes with it.
pub(super) struct Bounded {
    body: Option<Incoming>,
    lease: Option<Lease>,
    bounds: Bounds,
    overdue: Pin<Box<Sleep>>,
    /// Since when somebody waits for the next frame.
    waiting: Option<Instant>,
    /// How long was waited for all frames before.
    waited: Duration,
    received: u64,
}

impl Bounded {
    pub(super) fn new(body: Incoming, bounds: Bounds, lease: Lease) -> Self {
        let mut bounded = Self {
            overdue: Box::pin(sleep_until(bounds.deadline)),
            bounds,
            body: Some(body),
            lease: Some(lease),
            waiting: None,
            waited: Duration::ZERO,
            received: 0,
        };
        bounded.end_if_read();
        bounded
    }

    /// When the frame that somebody begins to wait for at `now` is overdue.
    fn due(&self, now: Instant) -> Instant {
        let Bounds { deadline, between_bytes, rate_min, .. } = self.bounds;
        let mut due = deadline;
        if let Some(silent) = between_bytes.and_then(|pause| now.checked_add(pause)) {
            due = due.min(silent);
        }
        if let Some(millis) = self.received.saturating_mul(1_000).checked_div(rate_min) {
            let allowed = RATE_GRACE.saturating_add(Duration::from_millis(millis));
            let slow = now.checked_add(allowed.saturating_sub(self.waited));
            due = slow.map_or(due, |slow| due.min(slow));
        }
        due
    }

    fn fail(&mut self, error: Error) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.body = None;
        self.lease = None;
        Poll::Ready(Some(Err(error)))
    }

    /// Hands the connection back as soon as nothing more comes over it: a guest that
    /// knows the length may not ask for the end.
    fn end_if_read(&mut self) {
        if self.body.as_ref().is_some_and(Body::is_end_stream)
            && let Some(lease) = self.lease.take()
        {
            lease.end();
        }
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
        let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
            if self.waiting.is_none() {
                let now = Instant::now();
                self.waiting = Some(now);
                let due = self.due(now);
                self.overdue.as_mut().reset(due);
            }
            ready!(self.overdue.as_mut().poll(cx));
            return self.fail(Error::ConnectionReadTimeout);
        };
        if let Some(since) = self.waiting.take() {
            self.waited += since.elapsed();
        }
        match frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                let Some(left) = self.bounds.left.checked_sub(bytes) else {
                    return self.fail(Error::HttpResponseBodySize(None));
                };
                self.bounds.left = left;
                self.received = self.received.saturating_add(bytes);
                if frame.is_trailers()
                    && let Some(lease) = self.lease.take()
                {
                    lease.end();
                }
                self.end_if_read();
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                let error = translate(&error);
                self.fail(error)
            }
            None => {
                self.body = None;
                if let Some(lease) = self.lease.take() {
                    lease.end();
                }
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

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use http_body_util::{BodyExt, Empty};
    use hyper::client::conn::TrySendError;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        sync::Semaphore,
        time::sleep,
    };

    use super::*;
    use crate::config::grants::Host;

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";

    /// A response whose head `serve` has sent, within `bounds`, over a pipe in memory:
    /// unlike a socket, that stands still with the clock.
    async fn response<F: Future<Output = ()> + Send + 'static>(
        bounds: Bounds,
        serve: impl FnOnce(DuplexStream) -> F + Send + 'static,
    ) -> Response<Bounded> {
        let (client, mut server) = duplex(1 << 10);
        let mut connection = Connection::new(Box::new(client)).await.expect("a connection");
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let sent = connection.send(Request::get("/").body(body).expect("a request"));
        tokio::spawn(async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(server.read_u8().await.expect("a request"));
            }
            serve(server).await;
        });
        let response = sent.await.map_err(TrySendError::into_error).expect("a head");
        let places = Arc::new(Semaphore::new(1));
        let lease = Lease {
            pool: Arc::new(Pool::new(1)),
            origin: Origin { is_https: false, host: Host::Name("a".into()), port: 80 },
            connection,
            _place: places.try_acquire_owned().expect("a place"),
        };
        response.map(|body| Bounded::new(body, bounds, lease))
    }

    fn bounds() -> Bounds {
        Bounds {
            left: 1 << 20,
            deadline: Instant::now() + Duration::from_mins(1),
            between_bytes: None,
            rate_min: 0,
        }
    }

    /// One byte every two seconds, for ever.
    async fn trickle(mut stream: DuplexStream) {
        stream.write_all(HEAD).await.expect("sent");
        while stream.write_all(b"x").await.is_ok() {
            sleep(Duration::from_secs(2)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_ended_once_it_was_waited_for_long_enough() {
        let start = Instant::now();
        for (rate_min, seconds) in [(128, 10..12), (0, 60..61)] {
            let began = Instant::now();
            let body = response(Bounds { rate_min, ..bounds() }, trickle).await.into_body();
            let ended = body.collect().await.map(|_| ());
            assert!(matches!(ended, Err(Error::ConnectionReadTimeout)), "{ended:?}");
            assert!(seconds.contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        }
        assert!(start.elapsed() > Duration::from_mins(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_falls_silent_is_ended_after_the_guests_own_pause() {
        let silent = async |mut stream: DuplexStream| {
            stream.write_all(HEAD).await.expect("sent");
            sleep(Duration::from_hours(1)).await;
        };
        let bounds = Bounds { between_bytes: Some(Duration::from_secs(3)), ..bounds() };
        let body = response(bounds, silent).await.into_body();
        let began = Instant::now();
        let ended = body.collect().await.map(|_| ());
        assert!(matches!(ended, Err(Error::ConnectionReadTimeout)), "{ended:?}");
        assert_eq!(began.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_takes_its_time_is_no_slow_origin() {
        let steady = async |mut stream: DuplexStream| {
            stream.write_all(HEAD).await.expect("sent");
            while stream.write_all(&[b'x'; 1 << 10]).await.is_ok() {}
        };
        let bounds = Bounds { rate_min: 1 << 20, ..bounds() };
        let mut body = response(bounds, steady).await.into_body();
        for _ in 0..5 {
            sleep(Duration::from_secs(10)).await;
            let frame = body.frame().await.expect("more");
            assert!(frame.is_ok(), "{:?}", frame.err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_ends_at_its_size() {
        let large = async |mut stream: DuplexStream| {
            stream.write_all(HEAD).await.expect("sent");
            while stream.write_all(&[b'x'; 1 << 10]).await.is_ok() {}
        };
        let body = response(Bounds { left: 5_000, ..bounds() }, large).await.into_body();
        let ended = body.collect().await.map(|_| ());
        assert!(matches!(ended, Err(Error::HttpResponseBodySize(None))), "{ended:?}");
    }
}
