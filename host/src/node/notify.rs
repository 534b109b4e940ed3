//! Tells the service manager how the node is doing: the protocol of `sd_notify(3)`, a
//! datagram of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names.
//!
//! A manager that cannot be told is logged and changes nothing else: the node serves all
//! the same, and it is the manager that decides what silence means.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::{ffi::OsStrExt as _, net::UnixDatagram},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tracing::warn;

/// How long the manager's socket may be full: it has other things to do than to read, and
/// the node has other things to do than to wait.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// How the node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It serves; with what there is to say about it.
    Ready(&'static str),
    /// It reads its settings again; [`State::Ready`] follows.
    Reloading,
    /// It drains and ends.
    Stopping,
}

/// A way to tell the service manager, or none.
#[derive(Clone, Debug, Default)]
pub(super) struct Manager {
    socket: Option<OsString>,
}

impl Manager {
    /// The manager that listens at `socket`, which is a path, or a name in the abstract
    /// namespace after an `@`.
    pub(super) fn at(socket: &OsStr) -> Self {
        Self { socket: (!socket.is_empty()).then(|| socket.to_owned()) }
    }

    /// Tells it. May block, for a second at most.
    pub(super) fn tell(&self, state: State) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send(socket, &message(state)) {
            warn!(%error, ?socket, "The service manager (NOTIFY_SOCKET) cannot be told: {state:?}.");
        }
    }
}

/// What is sent.
fn message(state: State) -> String {
    match state {
        State::Ready(status) => format!("READY=1\nSTATUS={status}\n"),
        // The manager compares this with when it asked, so as not to take an earlier reload
        // for the one that it waits for.
        State::Reloading => {
            let now = clock_gettime(ClockId::Monotonic);
            let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
            format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=Reading the settings again.\n")
        }
        State::Stopping => "STOPPING=1\nSTATUS=Draining.\n".to_owned(),
    }
}

fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    let own = UnixDatagram::unbound()?;
    own.set_write_timeout(Some(SEND_TIMEOUT))?;
    let sent = match socket.as_bytes() {
        [b'/', ..] => own.send_to(message.as_bytes(), socket)?,
        [b'@', name @ ..] => send_abstract(&own, name, message.as_bytes())?,
        _ => {
            let reason = "it is neither a path nor a name after an `@`";
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
    };
    if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

#[cfg(target_os = "linux")]
fn send_abstract(own: &UnixDatagram, name: &[u8], message: &[u8]) -> io::Result<usize> {
    use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};

    own.send_to_addr(message, &SocketAddr::from_abstract_name(name)?)
}

#[cfg(not(target_os = "linux"))]
fn send_abstract(_own: &UnixDatagram, _name: &[u8], _message: &[u8]) -> io::Result<usize> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "there is no abstract namespace here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8(buffer[..length].to_vec()).expect("UTF-8")
    }

    #[test]
    fn the_manager_is_told_at_a_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let manager = Manager::at(path.as_os_str());
        manager.tell(State::Ready("Serving."));
        assert_eq!(received(&socket), "READY=1\nSTATUS=Serving.\n");
        manager.tell(State::Stopping);
        assert!(received(&socket).starts_with("STOPPING=1\n"));
        let monotonic = || clock_gettime(ClockId::Monotonic);
        let before = monotonic();
        manager.tell(State::Reloading);
        let (said, after) = (received(&socket), monotonic());
        let micros = said.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        let micros: i64 = micros.and_then(|text| text.parse().ok()).expect("a number");
        assert!(said.starts_with("RELOADING=1\n"), "{said}");
        let of = |time: rustix::time::Timespec| time.tv_sec * 1_000_000 + time.tv_nsec / 1_000;
        assert!((of(before)..=of(after)).contains(&micros), "{said}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_manager_is_told_at_an_abstract_name() {
        use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};

        let name = format!("cachecluster-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        Manager::at(OsStr::new(&format!("@{name}"))).tell(State::Ready("Serving."));
        assert_eq!(received(&socket), "READY=1\nSTATUS=Serving.\n");
    }

    #[test]
    fn nobody_and_nonsense_are_no_manager() {
        Manager::default().tell(State::Stopping);
        Manager::at(OsStr::new("")).tell(State::Stopping);
        let send =
            |socket: &str| super::send(OsStr::new(socket), "READY=1\n").map_err(|it| it.kind());
        assert_eq!(send("/no/such/socket"), Err(io::ErrorKind::NotFound));
        assert_eq!(send("vsock:2:1"), Err(io::ErrorKind::Unsupported));
    }

    #[test]
    fn a_manager_that_does_not_read_holds_the_node_up_for_a_moment_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let _deaf = UnixDatagram::bind(&path).expect("a socket");
        let full = (0..10_000).find_map(|_| send(path.as_os_str(), "READY=1\n").err());
        assert_eq!(full.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    }
}
