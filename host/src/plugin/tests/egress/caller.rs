//! A guest's side of `wasi:http`, without a guest: what it hands to the host and what
//! it is handed back.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use tokio::time::Instant;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::{
    config::Network,
    plugin::egress::{CallNotes, Egress, HttpHooks},
};

/// Far beyond what a busy machine needs.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What a network table grants in tests: these origins, on loopback.
pub(super) fn loopback(http: &[&str]) -> Network {
    Network {
        http: http.iter().map(ToString::to_string).collect(),
        allow_private: vec!["127.0.0.0/8".to_owned()],
        ..Network::default()
    }
}

/// One instance that sends requests.
pub(super) struct Caller {
    pub(super) egress: Arc<Egress>,
    notes: CallNotes,
    hooks: HttpHooks,
}

impl Caller {
    pub(super) fn new(network: &Network) -> Self {
        Self::of(Arc::new(Egress::of(network)))
    }

    /// Another instance of the same generation.
    pub(super) fn of(egress: Arc<Egress>) -> Self {
        let notes = CallNotes::default();
        let mut hooks = HttpHooks::new(Arc::clone(&egress), notes.clone());
        hooks.deadline = Instant::now() + PATIENCE;
        Self { egress, notes, hooks }
    }

    /// Begins a call that ends after `time`.
    pub(super) fn within(mut self, time: Duration) -> Self {
        self.hooks.deadline = Instant::now() + time;
        self
    }

    /// The head of the answer to `request`; its body is still to be read.
    pub(super) async fn send(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> Result<Response<WasiBody>, Error> {
        let answer = self.hooks.send_request(request, options, Box::new(async { Ok(()) }));
        Pin::from(answer).await.map(|(response, _io)| response)
    }

    /// The whole answer to a `GET` of `url`.
    pub(super) async fn get(&mut self, url: &str) -> Result<Response<Bytes>, Error> {
        let response = self.send(get(url)?, None).await?;
        let (head, body) = response.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }

    /// The words for what was refused last.
    pub(super) fn note(&self) -> String {
        self.notes.take().unwrap_or_default()
    }
}

/// A `GET` of `url`, if that can be written as one.
pub(super) fn get(url: &str) -> Result<Request<WasiBody>, Error> {
    let empty = Empty::new().map_err(|never| match never {}).boxed_unsync();
    Request::get(url).body(empty).map_err(|_| Error::HttpRequestUriInvalid)
}
