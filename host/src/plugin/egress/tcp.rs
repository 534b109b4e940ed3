//! `wasi:sockets/tcp` with a bound on sockets and on what they send and receive.
//!
//! Each socket has a place among the plugin's connections for as long as it lives, and
//! the bytes that go out and come in over all of a call's sockets are counted together.
//! Everything else is WASI's own.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, InputStream, OutputStream, Pollable, SocketError,
    StreamError, StreamResult,
    bindings::sockets::{
        network::{ErrorCode, IpAddressFamily, IpSocketAddress, Network},
        tcp::{Duration, Host, HostTcpSocket, ShutdownType, TcpSocket},
        tcp_create_socket,
    },
};

use super::sockets::View;

type Result<T, E = SocketError> = std::result::Result<T, E>;
type Socket = Resource<TcpSocket>;

/// What comes in over a socket, up to what its call may receive.
struct Counted {
    input: DynInputStream,
    left: Arc<AtomicU64>,
}

#[wasmtime_wasi::async_trait]
impl Pollable for Counted {
    async fn ready(&mut self) {
        self.input.ready().await;
    }
}

#[wasmtime_wasi::async_trait]
impl InputStream for Counted {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let left = self.left.load(Relaxed);
        if left == 0 && size > 0 {
            return Err(StreamError::LastOperationFailed(wasmtime::format_err!(
                "this call received more than network.response_max allows"
            )));
        }
        let bytes = self.input.read(size.min(usize::try_from(left).unwrap_or(usize::MAX)))?;
        // The sockets of a call are read one at a time, by its one thread.
        self.left.store(left.saturating_sub(bytes.len() as u64), Relaxed);
        Ok(bytes)
    }

    async fn cancel(&mut self) {
        self.input.cancel().await;
    }
}

/// What goes out over a socket, up to what its call may send.
struct Metered {
    output: DynOutputStream,
    left: Arc<AtomicU64>,
}

#[wasmtime_wasi::async_trait]
impl Pollable for Metered {
    async fn ready(&mut self) {
        self.output.ready().await;
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Metered {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        // A guest that writes more than it was told it may is at fault; it is refused here
        // before the stream traps it.
        let left = self.left.load(Relaxed).checked_sub(bytes.len() as u64).ok_or_else(sent_all)?;
        self.output.write(bytes)?;
        self.left.store(left, Relaxed);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.output.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let left = self.left.load(Relaxed);
        let ready = self.output.check_write()?;
        if left == 0 {
            return Err(sent_all());
        }
        Ok(ready.min(usize::try_from(left).unwrap_or(usize::MAX)))
    }

    async fn cancel(&mut self) {
        self.output.cancel().await;
    }
}

fn sent_all() -> StreamError {
    StreamError::LastOperationFailed(wasmtime::format_err!(
        "this call sent as much as network.request_max allows"
    ))
}

impl tcp_create_socket::Host for View<'_> {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> Result<Socket> {
        let place = self.open.gate.place().ok_or(ErrorCode::NewSocketLimit)?;
        let socket = tcp_create_socket::Host::create_tcp_socket(&mut self.wasi, family)?;
        self.open.places.insert(socket.rep(), place);
        Ok(socket)
    }
}

impl Host for View<'_> {}

impl HostTcpSocket for View<'_> {
    fn finish_connect(
        &mut self,
        socket: Socket,
    ) -> Result<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let parent = Resource::<TcpSocket>::new_borrow(socket.rep());
        let (input, output) = match self.wasi.finish_connect(socket) {
            Ok(streams) => streams,
            Err(error) => {
                // Not denied for good, but for now.
                let refused = matches!(error.downcast_ref(), Some(ErrorCode::AccessDenied));
                let was_busy = refused && self.open.gate.was_busy();
                return Err(if was_busy { ErrorCode::NewSocketLimit.into() } else { error });
            }
        };
        let input = self.wasi.table.delete(input)?;
        let output = self.wasi.table.delete(output)?;
        let input: DynInputStream =
            Box::new(Counted { input, left: Arc::clone(&self.open.to_receive) });
        let output: DynOutputStream =
            Box::new(Metered { output, left: Arc::clone(&self.open.to_send) });
        let input = self.wasi.table.push_child(input, &parent)?;
        Ok((input, self.wasi.table.push_child(output, &parent)?))
    }

    fn drop(&mut self, socket: Socket) -> wasmtime::Result<()> {
        let rep = socket.rep();
        HostTcpSocket::drop(&mut self.wasi, socket)?;
        self.open.places.remove(&rep);
        Ok(())
    }

    // The rest is passed on.

    fn start_bind(
        &mut self,
        socket: Socket,
        network: Resource<Network>,
        address: IpSocketAddress,
    ) -> impl Future<Output = Result<()>> + Send {
        self.wasi.start_bind(socket, network, address)
    }

    fn finish_bind(&mut self, socket: Socket) -> Result<()> {
        self.wasi.finish_bind(socket)
    }

    fn start_connect(
        &mut self,
        socket: Socket,
        network: Resource<Network>,
        address: IpSocketAddress,
    ) -> Result<()> {
        self.wasi.start_connect(socket, network, address)
    }

    fn start_listen(&mut self, socket: Socket) -> impl Future<Output = Result<()>> + Send {
        self.wasi.start_listen(socket)
    }

    fn finish_listen(&mut self, socket: Socket) -> Result<()> {
        self.wasi.finish_listen(socket)
    }

    fn accept(
        &mut self,
        _socket: Socket,
    ) -> Result<(Socket, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        // Nothing listens, so there is nothing to accept.
        Err(ErrorCode::InvalidState.into())
    }

    fn local_address(&mut self, socket: Socket) -> Result<IpSocketAddress> {
        self.wasi.local_address(socket)
    }

    fn remote_address(&mut self, socket: Socket) -> Result<IpSocketAddress> {
        self.wasi.remote_address(socket)
    }

    fn is_listening(&mut self, socket: Socket) -> wasmtime::Result<bool> {
        self.wasi.is_listening(socket)
    }

    fn address_family(&mut self, socket: Socket) -> wasmtime::Result<IpAddressFamily> {
        self.wasi.address_family(socket)
    }

    fn set_listen_backlog_size(&mut self, socket: Socket, value: u64) -> Result<()> {
        self.wasi.set_listen_backlog_size(socket, value)
    }

    fn keep_alive_enabled(&mut self, socket: Socket) -> Result<bool> {
        self.wasi.keep_alive_enabled(socket)
    }

    fn set_keep_alive_enabled(&mut self, socket: Socket, value: bool) -> Result<()> {
        self.wasi.set_keep_alive_enabled(socket, value)
    }

    fn keep_alive_idle_time(&mut self, socket: Socket) -> Result<Duration> {
        self.wasi.keep_alive_idle_time(socket)
    }

    fn set_keep_alive_idle_time(&mut self, socket: Socket, value: Duration) -> Result<()> {
        self.wasi.set_keep_alive_idle_time(socket, value)
    }

    fn keep_alive_interval(&mut self, socket: Socket) -> Result<Duration> {
        self.wasi.keep_alive_interval(socket)
    }

    fn set_keep_alive_interval(&mut self, socket: Socket, value: Duration) -> Result<()> {
        self.wasi.set_keep_alive_interval(socket, value)
    }

    fn keep_alive_count(&mut self, socket: Socket) -> Result<u32> {
        self.wasi.keep_alive_count(socket)
    }

    fn set_keep_alive_count(&mut self, socket: Socket, value: u32) -> Result<()> {
        self.wasi.set_keep_alive_count(socket, value)
    }

    fn hop_limit(&mut self, socket: Socket) -> Result<u8> {
        self.wasi.hop_limit(socket)
    }

    fn set_hop_limit(&mut self, socket: Socket, value: u8) -> Result<()> {
        self.wasi.set_hop_limit(socket, value)
    }

    fn receive_buffer_size(&mut self, socket: Socket) -> Result<u64> {
        self.wasi.receive_buffer_size(socket)
    }

    fn set_receive_buffer_size(&mut self, socket: Socket, value: u64) -> Result<()> {
        self.wasi.set_receive_buffer_size(socket, value)
    }

    fn send_buffer_size(&mut self, socket: Socket) -> Result<u64> {
        self.wasi.send_buffer_size(socket)
    }

    fn set_send_buffer_size(&mut self, socket: Socket, value: u64) -> Result<()> {
        self.wasi.set_send_buffer_size(socket, value)
    }

    fn subscribe(&mut self, socket: Socket) -> wasmtime::Result<Resource<DynPollable>> {
        HostTcpSocket::subscribe(&mut self.wasi, socket)
    }

    fn shutdown(&mut self, socket: Socket, shutdown: ShutdownType) -> Result<()> {
        HostTcpSocket::shutdown(&mut self.wasi, socket, shutdown)
    }
}
