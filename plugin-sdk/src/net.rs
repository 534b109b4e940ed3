//! TCP with deadlines.
//!
//! A [`TcpStream`] blocks like std's, and every step of its life (the name
//! lookup, the connect, each read and each write) ends at its [`Deadline`]
//! with [`io::ErrorKind::TimedOut`].
//!
//! A plugin reaches only what the operator granted it:
//!
//! ```toml
//! [plugins.dict.network]
//! tcp = ["dict.example:2628"]
//! ```
//!
//! Anything else fails with [`io::ErrorKind::PermissionDenied`]; `?` makes it
//! [`Error::Denied`](crate::Error::Denied), and the node puts the setting that is
//! missing beside it.

#[cfg(not(target_family = "wasm"))]
#[path = "net/native.rs"]
mod imp;
#[cfg(target_family = "wasm")]
#[path = "net/wasi.rs"]
mod imp;

#[cfg(target_family = "wasm")]
pub(crate) use imp::wait;

use crate::Deadline;
use std::fmt;
use std::io::{self, Read, Write};

/// A connected TCP socket.
#[derive(Debug)]
pub struct TcpStream {
    inner: imp::Stream,
    deadline: Deadline,
}

impl TcpStream {
    /// Connects to `address` before `deadline`, which then holds for every
    /// read and write until [`TcpStream::set_deadline`] moves it.
    ///
    /// The addresses a name stands for are tried in turn; the error is that of
    /// the last one.
    pub fn connect(address: &Address, deadline: Deadline) -> io::Result<Self> {
        match imp::Stream::connect(address, deadline) {
            Ok(inner) => Ok(Self { inner, deadline }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                // Why not, and what would allow it, is what the node adds.
                format!("this plugin may not connect to {address}"),
            )),
            Err(error) => Err(io::Error::new(
                error.kind(),
                format!("connecting to {address} failed: {error}"),
            )),
        }
    }

    /// Ends every later read and write at `deadline`.
    pub fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// When reads and writes end.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }
}

impl Read for TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer, self.deadline)
    }
}

impl Write for TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes, self.deadline)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush(self.deadline)
    }
}

/// Where to connect to: a host (a name, or an IP address) and a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// The port `port` of `host`.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`; the port is
    /// `default_port` where none is given. The error says what is wrong.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, String> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) =
                    rest.split_once(']').ok_or("the `[` of an IPv6 address is not closed")?;
                match after.strip_prefix(':') {
                    None if after.is_empty() => (host, None),
                    None => return Err("expected `:port` after `]`".into()),
                    port => (host, port),
                }
            }
            // More than one colon and no brackets: a bare IPv6 address.
            None if text.matches(':').count() > 1 => (text, None),
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let is_odd = |c: char| c.is_whitespace() || c.is_control() || "/@[]".contains(c);
        if host.is_empty() || host.contains(is_odd) {
            return Err("expected `host:port`".into());
        }
        let port = match port {
            None => default_port,
            Some(port) => port
                .parse::<u16>()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| format!("{port:?} is not a port"))?,
        };
        Ok(Self::new(host, port))
    }

    /// The host: a name, or an IP address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What a step returns that its deadline ended.
fn timed_out(step: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{step} timed out"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::time::Duration;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_millis(50))
    }

    #[test]
    fn addresses_are_read_with_and_without_a_port() {
        for (text, host, port) in [
            ("dict.example", "dict.example", 2628),
            ("dict.example:99", "dict.example", 99),
            ("127.0.0.1:1", "127.0.0.1", 1),
            ("[::1]:99", "::1", 99),
            ("[::1]", "::1", 2628),
            ("::1", "::1", 2628),
        ] {
            assert_eq!(Address::parse(text, 2628), Ok(Address::new(host, port)), "{text}");
        }
        for text in ["", ":1", "a:", "a:0", "a:70000", "a:b", "[::1", "[::1]9", "a b", "a/b:1"] {
            assert!(Address::parse(text, 2628).is_err(), "{text:?}");
        }
        assert_eq!(Address::new("::1", 7).to_string(), "[::1]:7");
    }

    #[test]
    fn a_stream_carries_bytes_both_ways() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut ping = [0; 4];
            peer.read_exact(&mut ping).unwrap();
            peer.write_all(&ping).unwrap();
        });
        let deadline = Deadline::after(Duration::from_secs(10));
        let mut stream = TcpStream::connect(&Address::new("localhost", port), deadline).unwrap();
        stream.write_all(b"ping").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"ping");
        server.join().unwrap();
    }

    #[test]
    fn a_silent_peer_ends_a_read_at_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::new("127.0.0.1", listener.local_addr().unwrap().port());
        let mut stream = TcpStream::connect(&address, soon()).unwrap();
        let error = stream.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_peer_that_does_not_read_ends_a_write_at_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::new("127.0.0.1", listener.local_addr().unwrap().port());
        let mut stream = TcpStream::connect(&address, soon()).unwrap();
        let error = stream.write_all(&vec![0; 64 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_closed_port_is_refused_by_name() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = TcpStream::connect(&Address::new("127.0.0.1", port), soon()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    }
}
