//! Listening sockets, and errors that say what to do about them.
//!
//! The threads of a surface share a port through `SO_REUSEPORT`. Set from the start,
//! that option would let a second node of the same user take a share of the first
//! one's connections in silence. So the first socket of a port binds and listens
//! without it, which fails if anyone is there, and sets it only then, for its siblings.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

/// Connections that wait in the kernel to be accepted, for each listener; the kernel
/// lowers it to its own limit.
const BACKLOG: i32 = 4_096;

/// A surface that cannot listen.
#[derive(Debug, Error)]
#[error("cannot listen on {address} ({setting}): {}", remedy(.source, *.address))]
pub struct BindError {
    /// The address that was asked for.
    pub address: SocketAddr,
    /// The setting that asked for it, as `[http] listen`.
    pub setting: &'static str,
    /// What the operating system says.
    pub source: io::Error,
}

fn remedy(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "address already in use; stop the other process (`ss -ltnp 'sport = :{}'` names it) \
             or choose another port",
            address.port()
        ),
        io::ErrorKind::PermissionDenied => format!(
            "permission denied; ports below 1024 take CAP_NET_BIND_SERVICE, and {} may be one",
            address.port()
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("no interface of this machine has the address {}", address.ip())
        }
        _ => error.to_string(),
    }
}

/// `count` listeners on `address`, the one port shared by all and by nobody else.
pub(crate) fn bind(
    address: SocketAddr,
    setting: &'static str,
    count: usize,
) -> Result<Vec<TcpListener>, BindError> {
    let mut listeners = Vec::with_capacity(count);
    let mut bind = || -> io::Result<()> {
        let first = open(address)?;
        first.listen(BACKLOG)?;
        let first = if count > 1 {
            first.set_reuse_port(true)?;
            TcpListener::from(first)
        } else {
            first.into()
        };
        // With port 0 the first took a free one.
        let address = first.local_addr()?;
        listeners.push(first);
        while listeners.len() < count {
            let sibling = open_shared(address)?;
            sibling.listen(BACKLOG)?;
            listeners.push(sibling.into());
        }
        Ok(())
    };
    bind().map_err(|source| BindError { address, setting, source })?;
    Ok(listeners)
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = prepared(address)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn open_shared(address: SocketAddr) -> io::Result<Socket> {
    let socket = prepared(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn prepared(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted node takes its port back from connections that are still closing.
    socket.set_reuse_address(true)?;
    // Connections inherit this: a reply is one write and must not wait for another.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    const FREE: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn siblings_share_a_port_that_nobody_else_can_take() {
        let listeners = bind(FREE, "[http] listen", 3).expect("a free port");
        let address = listeners[0].local_addr().expect("a bound socket");
        for listener in &listeners {
            assert_eq!(listener.local_addr().expect("a bound socket"), address);
        }
        for count in [1, 3] {
            let error = bind(address, "[http] listen", count).expect_err("the port is taken");
            let text = error.to_string();
            let expected =
                format!("cannot listen on {address} ([http] listen): address already in use; ");
            assert!(text.starts_with(&expected), "{text}");
        }
    }

    #[test]
    fn every_sibling_gets_its_share() {
        let listeners = bind(FREE, "[http] listen", 2).expect("a free port");
        let address = listeners[0].local_addr().expect("a bound socket");
        let clients: Vec<_> =
            (0..64).map(|_| TcpStream::connect(address).expect("somebody listens")).collect();
        let waiting = |listener: &TcpListener| {
            std::iter::from_fn(|| listener.accept().ok()).collect::<Vec<_>>().len()
        };
        let accepted: Vec<_> = listeners.iter().map(waiting).collect();
        assert_eq!(accepted.iter().sum::<usize>(), clients.len());
        assert!(accepted.iter().all(|&count| count > 0), "{accepted:?}");
    }

    #[test]
    fn an_address_of_another_machine_says_so() {
        let address = "192.0.2.1:0".parse().expect("an address");
        let error = bind(address, "[http] listen", 1).expect_err("not ours");
        assert!(error.to_string().contains("no interface of this machine"), "{error}");
    }
}
