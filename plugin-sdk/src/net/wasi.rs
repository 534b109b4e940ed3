//! TCP over `wasi:sockets`. Every wait is a poll of two things: the socket,
//! and the clock at the deadline.

use super::{Address, timed_out};
use crate::Deadline;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wasip2::clocks::monotonic_clock::subscribe_instant;
use wasip2::io::poll::{Pollable, poll};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
    Network,
};
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

/// The most bytes asked for in one read: the host allocates them.
const READ_BYTES_MAX: usize = 64 * 1024;

/// A socket without a deadline of its own.
///
/// Fields are dropped from first to last, and the host demands that the
/// streams go before the socket they belong to.
#[derive(Debug)]
pub(super) struct Stream {
    input: InputStream,
    output: OutputStream,
    _socket: TcpSocket,
}

impl Stream {
    pub(super) fn connect(address: &Address, deadline: Deadline) -> io::Result<Self> {
        let network = instance_network();
        let mut last = io::Error::new(io::ErrorKind::HostUnreachable, "the name has no address");
        for ip in resolve(&network, address.host(), deadline)? {
            match connect_to(&network, ip, address.port(), deadline) {
                Ok(stream) => return Ok(stream),
                // No time is left for another address.
                Err(error) if deadline.is_over() => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(super) fn read(&mut self, buffer: &mut [u8], deadline: Deadline) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let wanted = buffer.len().min(READ_BYTES_MAX);
        loop {
            match self.input.read(wanted as u64) {
                // The host may not return more than was asked for.
                Ok(bytes) if !bytes.is_empty() => {
                    let count = bytes.len().min(wanted);
                    buffer[..count].copy_from_slice(&bytes[..count]);
                    return Ok(count);
                }
                Ok(_) => wait(&self.input.subscribe(), deadline, "the read")?,
                Err(StreamError::Closed) => return Ok(0),
                Err(error) => return Err(failed(&error)),
            }
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8], deadline: Deadline) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        loop {
            let room = self.output.check_write().map_err(|error| failed(&error))?;
            let count = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            if count > 0 {
                self.output.write(&bytes[..count]).map_err(|error| failed(&error))?;
                return Ok(count);
            }
            wait(&self.output.subscribe(), deadline, "the write")?;
        }
    }

    pub(super) fn flush(&mut self, deadline: Deadline) -> io::Result<()> {
        self.output.flush().map_err(|error| failed(&error))?;
        // The flush is over when the stream takes bytes again.
        while self.output.check_write().map_err(|error| failed(&error))? == 0 {
            wait(&self.output.subscribe(), deadline, "the flush")?;
        }
        Ok(())
    }
}

/// The addresses of `host`. An IP address stands for itself, without a lookup
/// that the plugin may not be allowed to make.
fn resolve(network: &Network, host: &str, deadline: Deadline) -> io::Result<Vec<IpAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![ip]);
    }
    let answers = resolve_addresses(network, host).map_err(lookup_failed)?;
    let mut found = Vec::new();
    loop {
        match answers.resolve_next_address() {
            Ok(Some(ip)) => found.push(from_wasi(ip)),
            Ok(None) => return Ok(found),
            Err(ErrorCode::WouldBlock) => wait(&answers.subscribe(), deadline, "the name lookup")?,
            // One address is enough to go on with.
            Err(_) if !found.is_empty() => return Ok(found),
            Err(code) => return Err(lookup_failed(code)),
        }
    }
}

fn connect_to(network: &Network, ip: IpAddr, port: u16, deadline: Deadline) -> io::Result<Stream> {
    let family = if ip.is_ipv4() { IpAddressFamily::Ipv4 } else { IpAddressFamily::Ipv6 };
    let socket = create_tcp_socket(family).map_err(socket_failed)?;
    socket.start_connect(network, to_wasi(ip, port)).map_err(socket_failed)?;
    loop {
        match socket.finish_connect() {
            Ok((input, output)) => {
                return Ok(Stream { input, output, _socket: socket });
            }
            Err(ErrorCode::WouldBlock) => wait(&socket.subscribe(), deadline, "the connect")?,
            Err(code) => return Err(socket_failed(code)),
        }
    }
}

/// Waits until `what` is ready, or fails at the deadline.
///
/// The deadline is checked first: something that is always ready without ever
/// getting anywhere would otherwise never end.
pub(crate) fn wait(what: &Pollable, deadline: Deadline, step: &str) -> io::Result<()> {
    if deadline.is_over() {
        return Err(timed_out(step));
    }
    let clock = subscribe_instant(deadline.at());
    if poll(&[what, &clock]).contains(&0) { Ok(()) } else { Err(timed_out(step)) }
}

fn lookup_failed(code: ErrorCode) -> io::Error {
    match code {
        // A host that allows no name lookups at all says so with this code.
        ErrorCode::PermanentResolverFailure | ErrorCode::AccessDenied => {
            io::Error::new(io::ErrorKind::PermissionDenied, "the name lookup was refused")
        }
        ErrorCode::NameUnresolvable => {
            io::Error::new(io::ErrorKind::HostUnreachable, "the name has no address")
        }
        ErrorCode::InvalidArgument => {
            io::Error::new(io::ErrorKind::InvalidInput, "this is not a host name")
        }
        ErrorCode::TemporaryResolverFailure => {
            io::Error::new(io::ErrorKind::HostUnreachable, "the name lookup failed")
        }
        code => socket_failed(code),
    }
}

fn socket_failed(code: ErrorCode) -> io::Error {
    let kind = match code {
        ErrorCode::AccessDenied => io::ErrorKind::PermissionDenied,
        ErrorCode::Timeout => io::ErrorKind::TimedOut,
        ErrorCode::ConnectionRefused => io::ErrorKind::ConnectionRefused,
        ErrorCode::ConnectionReset => io::ErrorKind::ConnectionReset,
        ErrorCode::ConnectionAborted => io::ErrorKind::ConnectionAborted,
        ErrorCode::RemoteUnreachable => io::ErrorKind::HostUnreachable,
        ErrorCode::NewSocketLimit | ErrorCode::AddressInUse => io::ErrorKind::ResourceBusy,
        ErrorCode::NotSupported => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, code.name())
}

/// What a broken stream means: the peer, or the way to it, is gone.
fn failed(error: &StreamError) -> io::Error {
    let why = match error {
        StreamError::Closed => "the connection is closed".to_owned(),
        StreamError::LastOperationFailed(error) => error.to_debug_string(),
    };
    io::Error::new(io::ErrorKind::ConnectionReset, why)
}

fn to_wasi(ip: IpAddr, port: u16) -> IpSocketAddress {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: (a, b, c, d) })
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, g, h] = ip.segments();
            IpSocketAddress::Ipv6(Ipv6SocketAddress {
                port,
                flow_info: 0,
                address: (a, b, c, d, e, f, g, h),
                scope_id: 0,
            })
        }
    }
}

fn from_wasi(ip: IpAddress) -> IpAddr {
    match ip {
        IpAddress::Ipv4((a, b, c, d)) => Ipv4Addr::new(a, b, c, d).into(),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => Ipv6Addr::new(a, b, c, d, e, f, g, h).into(),
    }
}
