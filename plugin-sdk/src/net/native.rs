//! TCP over std, for unit tests and other native use.

use super::{Address, timed_out};
use crate::Deadline;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// A socket without a deadline of its own.
#[derive(Debug)]
pub(super) struct Stream(TcpStream);

impl Stream {
    pub(super) fn connect(address: &Address, deadline: Deadline) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::HostUnreachable, "the name has no address");
        for address in resolve(address, deadline)? {
            let left = time_left(deadline, "the connect")?;
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => return Ok(Self(stream)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(super) fn read(&mut self, buffer: &mut [u8], deadline: Deadline) -> io::Result<usize> {
        self.0.set_read_timeout(Some(time_left(deadline, "the read")?))?;
        self.0.read(buffer).map_err(|error| late(error, "the read"))
    }

    pub(super) fn write(&mut self, bytes: &[u8], deadline: Deadline) -> io::Result<usize> {
        self.0.set_write_timeout(Some(time_left(deadline, "the write")?))?;
        self.0.write(bytes).map_err(|error| late(error, "the write"))
    }

    pub(super) fn flush(&mut self, _deadline: Deadline) -> io::Result<()> {
        self.0.flush()
    }
}

/// The addresses of `address`. The system's lookup cannot be given a deadline,
/// so a lookup that takes too long is left to finish on a thread of its own.
fn resolve(address: &Address, deadline: Deadline) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = address.host().parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, address.port())]);
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    let target = (address.host().to_owned(), address.port());
    thread::spawn(move || {
        let found = target.to_socket_addrs().map(Vec::from_iter);
        // Nobody listens any more when the deadline has passed.
        let _ = sender.send(found);
    });
    receiver
        .recv_timeout(deadline.remaining())
        .map_err(|_| timed_out("the name lookup"))?
        .map_err(|error| io::Error::new(io::ErrorKind::HostUnreachable, error))
}

/// The time left for `step`: std takes zero for no limit, so none is an error.
fn time_left(deadline: Deadline, step: &str) -> io::Result<Duration> {
    let left = deadline.remaining();
    if left.is_zero() { Err(timed_out(step)) } else { Ok(left) }
}

/// A socket's time limit shows as `WouldBlock` on some systems.
fn late(error: io::Error, step: &str) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => timed_out(step),
        _ => error,
    }
}
