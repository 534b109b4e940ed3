//! `wasi:sockets` under the plugin's grants: what one instance has open, and the checks
//! in the place of WASI's own.
//!
//! WASI's own check of a connection sees an address only, after the fact of a lookup that
//! anybody may make. Here lookups are bound to the grants (`lookup`), and connections to
//! addresses that such a lookup gave; both are counted and timed (`tcp`).

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep_until},
};
use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::{
    p2::{
        IoError, SocketError,
        bindings::sockets::{
            ip_name_lookup,
            network::{self, ErrorCode, Network},
            tcp, tcp_create_socket,
        },
    },
    sockets::{SocketAddrUse, WasiSocketsCtxView},
};

use super::{CallNotes, Egress};
use crate::plugin::store::State;

/// The raw connections of one instance.
pub(in crate::plugin) struct OpenSockets {
    /// A place for each socket, by its resource.
    pub(super) places: HashMap<u32, OwnedSemaphorePermit>,
    /// Bytes that the call under way may still send.
    pub(super) to_send: Arc<AtomicU64>,
    /// Bytes that it may still receive.
    pub(super) to_receive: Arc<AtomicU64>,
    pub(super) gate: Gate,
}

impl OpenSockets {
    pub(in crate::plugin) fn new(gate: Gate) -> Self {
        Self { places: HashMap::new(), to_send: Arc::default(), to_receive: Arc::default(), gate }
    }

    /// Makes ready for a call that answers with up to `answers` values.
    pub(in crate::plugin) fn begin_call(&self, egress: &Egress, answers: usize) {
        let answers = u64::try_from(answers.max(1)).unwrap_or(u64::MAX);
        self.to_send.store(egress.request_max.saturating_mul(answers), Relaxed);
        self.to_receive.store(egress.response_max.saturating_mul(answers), Relaxed);
        self.gate.notes.take();
    }
}

/// Lets the connections of one instance through, when they may be made and it is their
/// turn.
#[derive(Clone)]
pub(in crate::plugin) struct Gate {
    egress: Arc<Egress>,
    notes: CallNotes,
    /// Whether the last connection was refused for its number, and may be made later.
    was_busy: Arc<AtomicBool>,
}

impl Gate {
    pub(in crate::plugin) fn new(egress: Arc<Egress>, notes: CallNotes) -> Self {
        Self { egress, notes, was_busy: Arc::default() }
    }

    /// Whether a socket may be used so, once it is its turn.
    pub(in crate::plugin) async fn allows(
        self,
        address: std::net::SocketAddr,
        purpose: SocketAddrUse,
    ) -> bool {
        match purpose {
            SocketAddrUse::TcpConnect => {}
            // Any connection binds its own end to an address of the system's choice.
            SocketAddrUse::TcpBind => return address.ip().is_unspecified() && address.port() == 0,
            _ => return false,
        }
        if let Err(note) = self.egress.may_connect(address) {
            self.notes.add(note);
            return false;
        }
        let Some(due) = self.egress.turn(Instant::now() + self.egress.patience) else {
            self.notes.add(self.egress.denials.too_fast());
            self.was_busy.store(true, Relaxed);
            return false;
        };
        sleep_until(due).await;
        true
    }

    /// Whether the connection that was just refused could be made later.
    pub(super) fn was_busy(&self) -> bool {
        self.was_busy.swap(false, Relaxed)
    }

    /// A place for one more socket.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.egress.places).try_acquire_owned().ok();
        if place.is_none() {
            self.notes.add(self.egress.denials.too_many());
        }
        place
    }
}

pub(super) struct GrantedSockets;

impl HasData for GrantedSockets {
    type Data<'a> = View<'a>;
}

/// WASI's sockets, and what stands before them.
pub(super) struct View<'a> {
    pub(super) wasi: WasiSocketsCtxView<'a>,
    pub(super) egress: &'a Arc<Egress>,
    pub(super) open: &'a mut OpenSockets,
    pub(super) notes: &'a CallNotes,
}

/// Puts the checked sockets and lookups in the place of WASI's own.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    fn view(state: &mut State) -> View<'_> {
        let State { wasi, table, environment, sockets, notes, .. } = state;
        View {
            wasi: WasiSocketsCtxView { ctx: wasi.sockets(), table },
            egress: &environment.egress,
            open: sockets,
            notes,
        }
    }
    ip_name_lookup::add_to_linker::<State, GrantedSockets>(linker, view)?;
    tcp_create_socket::add_to_linker::<State, GrantedSockets>(linker, view)?;
    tcp::add_to_linker::<State, GrantedSockets>(linker, view)
}

// The bindings ask for this beside each interface; it converts errors and nothing else.
impl network::Host for View<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(
        &mut self,
        error: Resource<IoError>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        network::Host::network_error_code(&mut self.wasi, error)
    }
}

impl network::HostNetwork for View<'_> {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.wasi, network)
    }
}
