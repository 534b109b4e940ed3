//! A client's socket, as hyper sees it.
//!
//! What hyper writes is gathered here and sent once it has nothing more to do, so that
//! the replies to all requests of one read leave in one write. hyper's own way to do
//! that (`pipeline_flush`) waits while any byte of a further request is unread: half a
//! request would hold back the reply before it.
//!
//! Invariants:
//! - at most [`GATHER_MAX`] bytes are gathered; a larger write waits for the socket;
//! - a large body is not copied: it goes to the socket from where memory holds it.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Bytes that wait for one write together. More would leave the caches of the core
/// before it is sent.
const GATHER_MAX: usize = 64 * 1024;

/// Writes from here on are not gathered: two copies cost more than one system call.
const DIRECT_MIN: usize = 16 * 1024;

thread_local! {
    /// The buffer of the last connection that sent all it had. Connections of a thread
    /// take turns, so that one buffer, warm in the cache, serves nearly all of them.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Where a connection stands between requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing of the next request has arrived.
    Idle,
    /// Some of the next request has.
    Reading,
    /// A request is being answered.
    Busy,
}

/// One side of a connection's wire; the clones share it.
#[derive(Clone, Debug)]
pub(super) struct Wire(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    socket: RefCell<TcpStream>,
    unsent: RefCell<Unsent>,
    phase: Cell<Phase>,
    has_moved: Cell<bool>,
}

/// What was written and not yet sent: the bytes from `at` on.
#[derive(Debug, Default)]
struct Unsent {
    bytes: Vec<u8>,
    at: usize,
}

impl Wire {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self(Rc::new(Shared {
            socket: RefCell::new(socket),
            unsent: RefCell::default(),
            phase: Cell::new(Phase::Idle),
            has_moved: Cell::new(false),
        }))
    }

    pub(super) fn phase(&self) -> Phase {
        self.0.phase.get()
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.0.phase.set(phase);
    }

    /// Whether a byte went either way since this was last asked.
    pub(super) fn has_moved(&self) -> bool {
        self.0.has_moved.replace(false)
    }

    /// Whether bytes wait for the client to read.
    pub(super) fn has_unsent(&self) -> bool {
        !self.0.unsent.borrow().bytes.is_empty()
    }

    /// Sends what was gathered.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut unsent = self.0.unsent.borrow_mut();
        if unsent.bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while unsent.at < unsent.bytes.len() {
            let mut socket = self.0.socket.borrow_mut();
            let sent = ready!(Pin::new(&mut *socket).poll_write(cx, &unsent.bytes[unsent.at..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.0.has_moved.set(true);
            unsent.at += sent;
        }
        let Unsent { mut bytes, .. } = std::mem::take(&mut *unsent);
        bytes.clear();
        SPARE.set(bytes);
        Poll::Ready(Ok(()))
    }

    /// Gathers `bufs`; `false` when they do not fit.
    fn gather(&self, bufs: &[IoSlice<'_>], length: usize) -> bool {
        let mut unsent = self.0.unsent.borrow_mut();
        if unsent.bytes.len() + length > GATHER_MAX {
            return false;
        }
        if unsent.bytes.capacity() == 0 {
            unsent.bytes = SPARE.take();
        }
        for buf in bufs {
            unsent.bytes.extend_from_slice(buf);
        }
        true
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut *self.0.socket.borrow_mut()).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.0.has_moved.set(true);
            if self.phase() == Phase::Idle {
                self.set_phase(Phase::Reading);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if length < DIRECT_MIN && self.gather(bufs, length) {
            return Poll::Ready(Ok(length));
        }
        ready!(self.poll_send(cx))?;
        if length < DIRECT_MIN {
            self.gather(bufs, length);
            return Poll::Ready(Ok(length));
        }
        let mut socket = self.0.socket.borrow_mut();
        let sent = ready!(Pin::new(&mut *socket).poll_write_vectored(cx, bufs))?;
        self.0.has_moved.set(sent > 0);
        Poll::Ready(Ok(sent))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing is sent here: see [`Wire::poll_send`].
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut *self.0.socket.borrow_mut()).poll_shutdown(cx)
    }
}
