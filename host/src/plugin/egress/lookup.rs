//! `wasi:sockets/ip-name-lookup` under the plugin's grants.
//!
//! Names in `network.tcp` resolve, no others; the addresses found are checked and then
//! remembered as ones that may be dialled on the granted ports.

use std::{net::IpAddr, sync::Arc, task::Poll, vec};

use wasmtime::component::Resource;
use wasmtime_wasi::{
    p2::{
        DynPollable, Pollable, SocketError,
        bindings::sockets::{
            ip_name_lookup::{Host, HostResolveAddressStream, ResolveAddressStream},
            network::{ErrorCode, IpAddress, Network},
        },
        subscribe,
    },
    runtime::{AbortOnDropJoinHandle, poll_noop, spawn},
};

use super::{dial::DialError, sockets::View, target};
use crate::config::grants::Host as Named;

type Found = Result<vec::IntoIter<IpAddr>, ErrorCode>;

/// A lookup of a guest. Its resource has the type that the bindings know.
enum Lookup {
    UnderWay(AbortOnDropJoinHandle<Found>),
    Done(Found),
}

impl Lookup {
    /// What was found, if it is there by now.
    fn poll(&mut self) -> Poll<&mut Found> {
        if let Self::UnderWay(task) = self {
            let Some(found) = poll_noop(std::pin::Pin::new(task)) else { return Poll::Pending };
            *self = Self::Done(found);
        }
        match self {
            Self::Done(found) => Poll::Ready(found),
            Self::UnderWay(_) => Poll::Pending,
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        if let Self::UnderWay(task) = self {
            *self = Self::Done(task.await);
        }
    }
}

fn lookup(stream: &Resource<ResolveAddressStream>) -> Resource<Lookup> {
    Resource::new_borrow(stream.rep())
}

impl Host for View<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> Result<Resource<ResolveAddressStream>, SocketError> {
        // The resource stands for the permission to use this function.
        self.wasi.table.get(&network)?;
        let Some(host) = target::named(&name) else {
            return Err(ErrorCode::InvalidArgument.into());
        };
        let lookup = match host {
            // An address needs no lookup; whether it may be dialled is decided then.
            Named::Ip(ip) => Lookup::Done(Ok(vec![ip].into_iter())),
            Named::Name(name) => {
                if let Err(note) = self.egress.may_look_up(&name) {
                    self.notes.add(note);
                    return Err(ErrorCode::AccessDenied.into());
                }
                let (egress, notes) = (Arc::clone(self.egress), self.notes.clone());
                Lookup::UnderWay(spawn(async move {
                    match egress.look_up(&name).await {
                        Ok(found) => Ok(found.into_iter()),
                        Err(DialError::Prohibited(note)) => {
                            notes.add(note);
                            Err(ErrorCode::AccessDenied)
                        }
                        Err(_) => Err(ErrorCode::NameUnresolvable),
                    }
                }))
            }
        };
        let lookup = self.wasi.table.push(lookup)?;
        Ok(Resource::new_own(lookup.rep()))
    }
}

impl HostResolveAddressStream for View<'_> {
    fn resolve_next_address(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> Result<Option<IpAddress>, SocketError> {
        match self.wasi.table.get_mut(&lookup(&stream))?.poll() {
            Poll::Ready(Ok(found)) => Ok(found.next().map(IpAddress::from)),
            Poll::Ready(Err(code)) => Err((*code).into()),
            Poll::Pending => Err(ErrorCode::WouldBlock.into()),
        }
    }

    fn subscribe(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.wasi.table, lookup(&stream))
    }

    fn drop(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.wasi.table.delete(Resource::<Lookup>::new_own(stream.rep()))?;
        Ok(())
    }
}
