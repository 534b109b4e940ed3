//! `wasi:sockets/ip-name-lookup` under the plugin's grants.
//!
//! Names in `network.tcp` resolve, no others; each address found is checked and then
//! remembered as one that may be dialled on the granted ports.

use std::{collections::HashMap, net::IpAddr};

use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::{
    p2::{
        DynPollable, IoError, SocketError,
        bindings::sockets::{
            ip_name_lookup::{self, Host, HostResolveAddressStream, ResolveAddressStream},
            network::{self, ErrorCode, IpAddress, Network},
        },
    },
    sockets::WasiSocketsCtxView,
};

use super::{Egress, grant};
use crate::plugin::store::State;

/// Lookups of one instance at once; each takes a thread while it lasts.
const LOOKUPS_MAX: usize = 8;

/// The lookups under way in one instance, by their resource.
#[derive(Default)]
pub(in crate::plugin) struct OpenLookups(HashMap<u32, Lookup>);

struct Lookup {
    host: String,
    /// Addresses found that may be dialled.
    allowed: usize,
    /// Addresses found that may not.
    refused: usize,
}

struct GrantedLookup;

impl HasData for GrantedLookup {
    type Data<'a> = View<'a>;
}

struct View<'a> {
    wasi: WasiSocketsCtxView<'a>,
    egress: &'a Egress,
    open: &'a mut HashMap<u32, Lookup>,
}

/// Puts the checked lookup in the place of WASI's own.
pub(in crate::plugin) fn add_name_lookup(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    ip_name_lookup::add_to_linker::<State, GrantedLookup>(linker, |state| {
        let State { wasi, table, environment, lookups, .. } = state;
        View {
            wasi: WasiSocketsCtxView { ctx: wasi.sockets(), table },
            egress: &environment.egress,
            open: &mut lookups.0,
        }
    })
}

impl Host for View<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> Result<Resource<ResolveAddressStream>, SocketError> {
        let Some(host) = grant::normal_host(&name) else {
            return Err(ErrorCode::InvalidArgument.into());
        };
        // An address needs no lookup; whether it may be dialled is decided then.
        let is_address = host.parse::<IpAddr>().is_ok();
        if !is_address {
            if grant::is_metadata_name(&host) {
                self.egress.denials.never(&host);
                return Err(ErrorCode::AccessDenied.into());
            }
            if !self.egress.may_look_up(&host) {
                self.egress.denials.tcp(&format!("{host}:PORT"));
                return Err(ErrorCode::AccessDenied.into());
            }
        }
        if self.open.len() >= LOOKUPS_MAX {
            return Err(ErrorCode::TemporaryResolverFailure.into());
        }
        let stream = self.wasi.resolve_addresses(network, host.clone())?;
        if !is_address {
            self.open.insert(stream.rep(), Lookup { host, allowed: 0, refused: 0 });
        }
        Ok(stream)
    }
}

impl HostResolveAddressStream for View<'_> {
    fn resolve_next_address(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> Result<Option<IpAddress>, SocketError> {
        let rep = stream.rep();
        loop {
            let next = self.wasi.resolve_next_address(Resource::new_borrow(rep))?;
            let Some(lookup) = self.open.get_mut(&rep) else { return Ok(next) };
            let Some(address) = next else {
                // A name without an address it may use looks like one without any;
                // say that it was refused.
                let all_refused = lookup.allowed == 0 && lookup.refused > 0;
                return if all_refused { Err(ErrorCode::AccessDenied.into()) } else { Ok(None) };
            };
            if self.egress.remember(&lookup.host, ip_of(&address)) {
                lookup.allowed += 1;
                return Ok(Some(address));
            }
            lookup.refused += 1;
        }
    }

    fn subscribe(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        self.wasi.subscribe(stream)
    }

    fn drop(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.open.remove(&stream.rep());
        HostResolveAddressStream::drop(&mut self.wasi, stream)
    }
}

// The bindings ask for this beside a lookup; it converts errors and nothing else.
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

fn ip_of(address: &IpAddress) -> IpAddr {
    match *address {
        IpAddress::Ipv4(octets) => IpAddr::from(<[u8; 4]>::from(octets)),
        IpAddress::Ipv6(segments) => IpAddr::from(<[u16; 8]>::from(segments)),
    }
}
