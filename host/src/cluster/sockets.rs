//! The cluster's port: one for datagrams and one for TCP, of the same number.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use socket2::{Domain, Protocol, Socket, Type};

/// What the kernel keeps of datagrams while we are busy; it lowers this to its own limit.
const BUFFER: usize = 4 * 1024 * 1024;
const BACKLOG: i32 = 1_024;
/// Free ports that are tried until one is free for both.
const TRIES: usize = 32;

/// A port that is bound for both.
#[derive(Debug)]
pub struct Sockets {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
    address: SocketAddr,
}

impl Sockets {
    /// Binds `address`; with port 0 one that is free for both.
    ///
    /// # Errors
    /// The port is taken, or not ours to take.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut tries = if address.port() == 0 { TRIES } else { 1 };
        loop {
            tries -= 1;
            match Self::bind_both(address) {
                Err(error) if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
                bound => return bound,
            }
        }
    }

    /// The address with the port that was bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn bind_both(address: SocketAddr) -> io::Result<Self> {
        let tcp = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restarted node takes its port back from connections that are still closing.
        tcp.set_reuse_address(true)?;
        tcp.set_nonblocking(true)?;
        tcp.bind(&address.into())?;
        tcp.listen(BACKLOG)?;
        let tcp = TcpListener::from(tcp);
        let address = tcp.local_addr()?;
        let udp = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        udp.set_nonblocking(true)?;
        udp.set_recv_buffer_size(BUFFER)?;
        udp.bind(&address.into())?;
        // Our datagrams fit everywhere; one that does not must fail here, not be split.
        if address.is_ipv4() {
            set_ip_mtu_discover(&udp, Ipv4PathMtuDiscovery::DO)?;
        } else {
            set_ipv6_mtu_discover(&udp, Ipv6PathMtuDiscovery::DO)?;
        }
        Ok(Self { udp: udp.into(), tcp, address })
    }
}
