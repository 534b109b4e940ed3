//! HTTP connections of one generation of a plugin, kept open for its next requests.
//!
//! A connection that is reused has been checked for the plugin that opened it and for
//! nobody else, so no pool is ever shared; it ends with its generation.
//!
//! Invariants:
//! - a connection serves one exchange at a time, and another one only when the response
//!   before was read to its end;
//! - unused connections are bounded in number and age, and closed by themselves.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{Instant, sleep},
};
use wasmtime_wasi_http::WasiBody;

use super::{
    ADDRESS_AGE_MAX,
    dial::{Io, Origin},
};

/// Time an unused connection is kept: servers close theirs after a minute or so.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Bytes of a response's head.
const HEAD_MAX: usize = 128 << 10;

/// A connection to an origin.
pub(super) struct Connection {
    requests: http1::SendRequest<WasiBody>,
    /// Moves the bytes; the socket closes when it ends.
    driver: AbortHandle,
    opened: Instant,
}

impl Connection {
    /// Prepares to speak HTTP over `io`.
    pub(super) async fn new(io: Box<dyn Io>) -> Result<Self, hyper::Error> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_MAX);
        let (requests, driver) = builder.handshake(TokioIo::new(io)).await?;
        let driver = tokio::spawn(async move {
            // What goes wrong on a connection is told to the exchange it serves.
            driver.await.ok();
        });
        Ok(Self { requests, driver: driver.abort_handle(), opened: Instant::now() })
    }

    /// Whether it can serve one more exchange, once it is done with the one before.
    pub(super) async fn is_ready(&mut self) -> bool {
        self.requests.ready().await.is_ok()
    }

    /// Sends `request`. Dropped before it is done, the connection is of no more use.
    pub(super) fn send(
        &mut self,
        request: Request<WasiBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<WasiBody>>>> {
        self.requests.try_send_request(request)
    }

    /// The address it leads to was looked up too long ago to be sure of it.
    fn is_old(&self) -> bool {
        self.opened.elapsed() >= ADDRESS_AGE_MAX
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The unused connections of one generation.
pub(super) struct Pool {
    idle_max: usize,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// The longest unused first.
    connections: VecDeque<Unused>,
    /// Closes them in time, while there are some.
    sweeper: Option<AbortHandle>,
}

struct Unused {
    origin: Origin,
    connection: Connection,
    since: Instant,
}

impl Unused {
    fn is_fresh(&self) -> bool {
        self.since.elapsed() < IDLE_TIMEOUT
            && !self.connection.is_old()
            && !self.connection.requests.is_closed()
    }
}

impl Pool {
    /// A pool of up to `idle_max` unused connections.
    pub(super) fn new(idle_max: usize) -> Self {
        Self { idle_max, idle: Mutex::default() }
    }

    /// The connection to `origin` that was used last.
    pub(super) fn take(&self, origin: &Origin) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.connections.retain(Unused::is_fresh);
        let at = idle.connections.iter().rposition(|unused| unused.origin == *origin)?;
        idle.connections.remove(at).map(|unused| unused.connection)
    }

    /// Keeps `connection` for another exchange with `origin`.
    pub(super) fn keep(self: &Arc<Self>, origin: Origin, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.connections.push_back(Unused { origin, connection, since: Instant::now() });
        if idle.connections.len() > self.idle_max {
            idle.connections.pop_front();
        }
        if idle.sweeper.is_none() {
            // Without a runtime there is nobody to sweep, nor to use a connection.
            let sweeping = Handle::try_current().map(|it| it.spawn(sweep(Arc::downgrade(self))));
            idle.sweeper = sweeping.ok().map(|sweeper| sweeper.abort_handle());
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).connections.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let idle = self.idle.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(sweeper) = &idle.sweeper {
            sweeper.abort();
        }
    }
}

/// Closes connections that nobody has used for long, until none is left.
async fn sweep(pool: Weak<Pool>) {
    loop {
        sleep(IDLE_TIMEOUT / 4).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.connections.retain(Unused::is_fresh);
        if idle.connections.is_empty() {
            idle.sweeper = None;
            return;
        }
    }
}
