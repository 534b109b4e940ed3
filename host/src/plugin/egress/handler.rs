//! `wasi:http/outgoing-handler`, which sends what `http` then takes on its way.
//!
//! It is wasmtime's, but for the options of a request. A guest gives them away with the
//! request; wasmtime-wasi-http (as of 48.0.8) copies them and leaves them in the table of
//! handles, where they would add up until the instance has as many as it may.

use wasmtime::{
    StoreContextMut,
    component::{Linker, Resource},
};
use wasmtime_wasi_http::{
    RequestOptions, WasiHttpView,
    p2::{
        HttpResult,
        bindings::http::{
            outgoing_handler::Host as _,
            types::{ErrorCode, Host as _},
        },
        types::{HostFutureIncomingResponse, HostOutgoingRequest},
    },
};

use crate::plugin::store::State;

/// What a guest hands over.
type Sent = (Resource<HostOutgoingRequest>, Option<Resource<RequestOptions>>);
type Answer = Result<Resource<HostFutureIncomingResponse>, ErrorCode>;

/// Puts this handler in the place of wasmtime's.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut interface = linker.instance("wasi:http/outgoing-handler@0.2.12")?;
    interface.func_wrap("handle", |mut cx: StoreContextMut<'_, State>, sent: Sent| {
        let answer: Answer = match handle(cx.data_mut(), sent) {
            Ok(response) => Ok(response),
            Err(error) => Err(cx.data_mut().http().convert_error_code(error)?),
        };
        Ok((answer,))
    })
}

fn handle(
    state: &mut State,
    (request, options): Sent,
) -> HttpResult<Resource<HostFutureIncomingResponse>> {
    let given_away = options.as_ref().map(|it| Resource::<RequestOptions>::new_own(it.rep()));
    let response = state.http().handle(request, options);
    if let Some(options) = given_away {
        state.table.delete(options)?;
    }
    response
}
