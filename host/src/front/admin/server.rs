//! The socket side of the surface: a few connections at a time, none for long.

use std::{
    convert::Infallible, future::Future, io, net::IpAddr, pin::pin, sync::Arc, time::Duration,
};

use ::http::{HeaderMap, HeaderValue, Method, Request, Response, header::CONNECTION};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::warn;

use super::{
    super::{BindError, body::ReplyBody, listen, problem::Problem},
    AdminState, routes,
};
use crate::{config, metrics::FrontMetrics};

/// Connections at once: scrapers, health checkers and a few operators. One more waits.
const CONNECTIONS_MAX: usize = 64;

/// Time for a request's head to arrive, the wait for a further request included.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Life of one connection: one whose client does not read ends with it.
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(10);

/// Size of a request's head: a long key fits, as on the client port.
const HEAD_MAX: usize = 32 * 1024;

/// Time for answers under way when the node stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Wait after a failed accept.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Takes the address of `settings`. Called within a tokio runtime.
pub fn bind(settings: &config::Admin) -> Result<TcpListener, BindError> {
    const SETTING: &str = "[admin] listen";
    let address = settings.listen;
    let mut listeners = listen::bind(address, SETTING, 1)?;
    listeners
        .pop()
        .ok_or_else(|| io::ErrorKind::NotFound.into())
        .and_then(TcpListener::from_std)
        .map_err(|source| BindError { address, setting: SETTING, source })
}

/// Serves `state` on `listener` until `shutdown`, then lets answers under way end.
pub async fn serve(
    listener: TcpListener,
    state: Arc<AdminState>,
    shutdown: impl Future<Output = ()>,
) {
    let metrics = state.metrics.front("admin");
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stop, told) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            // Takes what has ended out of the set.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let socket = match accepted {
            Ok((socket, _client)) => socket,
            Err(error) => {
                warn!(%error, "Cannot accept a connection of an operator; trying again shortly.");
                sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        let (state, metrics, slots) = (Arc::clone(&state), metrics.clone(), Arc::clone(&slots));
        let told = told.clone();
        let slot = tokio::select! {
            biased;
            () = &mut shutdown => break,
            slot = slots.acquire_owned() => slot,
        };
        connections.spawn(async move {
            let _slot = slot;
            let _ = timeout(CONNECTION_TIMEOUT, converse(socket, state, metrics, told)).await;
        });
    }
    drop(listener);
    stop.send_replace(());
    let ended = async { while connections.join_next().await.is_some() {} };
    // What is left is dropped with the set.
    let _ = timeout(DRAIN_TIMEOUT, ended).await;
}

async fn converse(
    socket: TcpStream,
    state: Arc<AdminState>,
    metrics: FrontMetrics,
    mut told: watch::Receiver<()>,
) {
    let local = socket.local_addr().ok().map(|address| address.ip());
    let service = service_fn(|request: Request<Incoming>| async {
        Ok::<_, Infallible>(answer(&state, &metrics, request, local).await)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .max_buf_size(HEAD_MAX)
            .half_close(true)
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(socket), service)
    );
    let is_stopping = tokio::select! {
        _ = connection.as_mut() => false,
        _ = told.changed() => true,
    };
    if is_stopping {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

async fn answer(
    state: &AdminState,
    metrics: &FrontMetrics,
    request: Request<Incoming>,
    local: Option<IpAddr>,
) -> Response<ReplyBody> {
    let (head, body) = request.into_parts();
    let response = if body.is_end_stream() {
        routes::respond(state, &head, local).await
    } else {
        let close = HeaderMap::from_iter([(CONNECTION, HeaderValue::from_static("close"))]);
        Problem::body().reply(close, head.method == Method::HEAD)
    };
    metrics.answered(response.status());
    response
}
