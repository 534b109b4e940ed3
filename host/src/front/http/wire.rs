//! A client's socket, as hyper sees it.
//!
//! Requests are looked at before hyper reads them. A plain `GET` is replied to right here
//! ([`quick`]), and if it has to wait for its answer, the next request waits for it. Any
//! other head without a body is handed to hyper on its own, and at the first oddity the
//! whole connection is hyper's.
//!
//! What is written, by us or by hyper, is gathered and sent once nothing more is to be
//! done, so that the replies to all requests of one read leave in one write. hyper's
//! own way to do that (`pipeline_flush`) waits while any byte of a further request is
//! unread: half a request would hold back the reply before it.
//!
//! Invariants:
//! - replies leave in the order of their requests: nothing is looked at while a reply
//!   waits for its answer, or hyper holds a request or a part of a reply;
//! - at most [`GATHER_MAX`] bytes are gathered before the socket has to take them;
//! - a large body is not copied: it goes to the socket from where memory holds it;
//! - a connection without a request under way holds no buffer of ours;
//! - a turn has one time: the clock is looked at when it begins.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Buf as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use super::{
    super::body::Chunk,
    answers::{Answer, Answers, Later},
    head::{Limits, Scan, scan},
    inbox::Inbox,
    quick,
};

/// Bytes that wait for one write together. More would leave the caches of the core
/// before it is sent.
const GATHER_MAX: usize = 64 * 1024;

/// Writes from here on are not gathered: a copy of so much costs more than a system
/// call, or the second part of one.
pub(super) const DIRECT_MIN: usize = 16 * 1024;

/// Reads in one turn of a connection; then others have theirs.
const FILLS_MAX: u32 = 4;

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

/// Who looks at the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// We do: hyper holds nothing.
    Ours,
    /// hyper was handed a head, so much of which it has still to read.
    Given(usize),
    /// hyper has the reply, and has perhaps not written all of it.
    Answered,
    /// hyper does, to the end of the connection.
    Hypers,
}

/// One side of a connection's wire; the clones share it.
#[derive(Clone)]
pub(super) struct Wire(Rc<Shared>);

struct Shared {
    socket: RefCell<TcpStream>,
    inbox: RefCell<Inbox>,
    unsent: RefCell<Unsent>,
    answers: Arc<dyn Answers>,
    limits: Limits,
    stage: Cell<Stage>,
    phase: Cell<Phase>,
    /// The reply that waits for its answer.
    later: RefCell<Option<Later>>,
    /// Heads that arrived whole, to tell one slow request from many quick ones.
    heads: Cell<u64>,
    fills: Cell<u32>,
    /// When the turn began.
    now: Cell<Instant>,
    has_moved: Cell<bool>,
    has_fragment: Cell<bool>,
}

/// What was written and not yet sent: `bytes` from `at` on, and then `tail`.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    pub(super) bytes: Vec<u8>,
    at: usize,
    /// A large body, behind which nothing more is gathered.
    pub(super) tail: Option<Chunk>,
    /// The connection ends after the reply that is written next.
    pub(super) is_last: bool,
}

impl Unsent {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.tail.is_none()
    }

    /// Whether the socket has to take some of it before more is written.
    fn is_full(&self) -> bool {
        self.bytes.len() >= GATHER_MAX || self.tail.is_some()
    }

    /// Takes a buffer if it has none.
    fn prepare(&mut self) {
        if self.bytes.capacity() == 0 {
            self.bytes = SPARE.take();
        }
    }

    /// Gathers `bufs`; `false` when they do not fit.
    fn gather(&mut self, bufs: &[IoSlice<'_>], length: usize) -> bool {
        if self.tail.is_some() || self.bytes.len() + length > GATHER_MAX {
            return false;
        }
        self.prepare();
        for buf in bufs {
            self.bytes.extend_from_slice(buf);
        }
        true
    }

    fn advance(&mut self, sent: usize) {
        let text = sent.min(self.bytes.len() - self.at);
        self.at += text;
        if let Some(tail) = &mut self.tail {
            tail.advance(sent - text);
        }
    }
}

impl Wire {
    pub(super) fn new(socket: TcpStream, answers: Arc<dyn Answers>) -> Self {
        Self(Rc::new(Shared {
            socket: RefCell::new(socket),
            inbox: RefCell::default(),
            unsent: RefCell::default(),
            limits: answers.limits(),
            answers,
            stage: Cell::new(Stage::Ours),
            phase: Cell::new(Phase::Idle),
            later: RefCell::new(None),
            heads: Cell::new(0),
            fills: Cell::new(0),
            now: Cell::new(Instant::now()),
            has_moved: Cell::new(false),
            has_fragment: Cell::new(false),
        }))
    }

    pub(super) fn answers(&self) -> &Arc<dyn Answers> {
        &self.0.answers
    }

    pub(super) fn phase(&self) -> Phase {
        self.0.phase.get()
    }

    /// How many heads have arrived whole.
    pub(super) fn heads(&self) -> u64 {
        self.0.heads.get()
    }

    /// hyper has read a head; says whether its target has a fragment, which hyper has
    /// dropped.
    pub(super) fn begin(&self) -> bool {
        self.0.heads.set(self.heads() + 1);
        self.0.phase.set(Phase::Busy);
        self.0.has_fragment.take()
    }

    /// hyper has the reply to the head it read.
    pub(super) fn end(&self) {
        self.0.phase.set(Phase::Idle);
        if matches!(self.0.stage.get(), Stage::Given(_)) {
            self.0.stage.set(Stage::Answered);
        }
    }

    /// A new turn of the connection begins. It has one time, for all that is done in it.
    pub(super) fn begin_turn(&self) {
        self.0.fills.set(0);
        self.0.now.set(Instant::now());
        quick::keep_time(self.now());
    }

    /// When the turn began.
    pub(super) fn now(&self) -> Instant {
        self.0.now.get()
    }

    /// From now on replies say that the connection ends after them.
    pub(super) fn say_last(&self) {
        self.0.unsent.borrow_mut().is_last = true;
    }

    /// Whether hyper has nothing to do.
    pub(super) fn is_ours(&self) -> bool {
        self.0.stage.get() == Stage::Ours
    }

    /// Whether a reply of ours waits for its answer.
    pub(super) fn is_answering(&self) -> bool {
        self.0.later.borrow().is_some()
    }

    /// Whether a request was answered and nothing of the next one has arrived.
    pub(super) fn is_between_requests(&self) -> bool {
        self.is_ours() && self.phase() == Phase::Idle && self.heads() > 0
    }

    /// Whether a byte went either way since this was last asked.
    pub(super) fn has_moved(&self) -> bool {
        self.0.has_moved.take()
    }

    /// Whether bytes wait for the client to read.
    pub(super) fn has_unsent(&self) -> bool {
        !self.0.unsent.borrow().is_empty()
    }

    /// Sends what was gathered.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut unsent = self.0.unsent.borrow_mut();
        if unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut socket = self.0.socket.borrow_mut();
        let mut socket = Pin::new(&mut *socket);
        loop {
            let text = &unsent.bytes[unsent.at..];
            let tail = unsent.tail.as_ref().map_or(&[][..], |tail| tail.chunk());
            let sent = match (text, tail) {
                ([], []) => break,
                (text, []) => ready!(socket.as_mut().poll_write(cx, text))?,
                (text, tail) => {
                    let bufs = [IoSlice::new(text), IoSlice::new(tail)];
                    ready!(socket.as_mut().poll_write_vectored(cx, &bufs))?
                }
            };
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.0.has_moved.set(true);
            unsent.advance(sent);
        }
        let mut bytes = std::mem::take(&mut unsent.bytes);
        (unsent.at, unsent.tail) = (0, None);
        bytes.clear();
        SPARE.set(bytes);
        Poll::Ready(Ok(()))
    }

    /// Answers what can be answered here. Ready when hyper has something to read.
    pub(super) fn poll_heads(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = &*self.0;
        while self.is_ours() {
            if shared.unsent.borrow().is_full() {
                ready!(self.poll_send(cx))?;
            }
            ready!(self.poll_later(cx));
            let mut inbox = shared.inbox.borrow_mut();
            match scan(inbox.bytes(), shared.limits) {
                Scan::Plain { length, quick, has_fragment } => {
                    let answer = quick
                        .map_or(Answer::NotHere, |path| shared.answers.answer(path, self.now()));
                    if matches!(answer, Answer::NotHere) {
                        shared.phase.set(Phase::Reading);
                        shared.has_fragment.set(has_fragment);
                        shared.stage.set(Stage::Given(length));
                    } else {
                        inbox.consume(length);
                        shared.heads.set(shared.heads.get() + 1);
                        self.take(answer);
                    }
                }
                Scan::Odd => shared.stage.set(Stage::Hypers),
                Scan::Partial if inbox.is_full() => shared.stage.set(Stage::Hypers),
                Scan::Partial => {
                    let is_idle = inbox.bytes().is_empty();
                    shared.phase.set(if is_idle { Phase::Idle } else { Phase::Reading });
                    if shared.fills.replace(shared.fills.get() + 1) == FILLS_MAX {
                        inbox.release();
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    let mut socket = shared.socket.borrow_mut();
                    let Poll::Ready(read) = inbox.poll_fill(&mut socket, cx) else {
                        inbox.release();
                        return Poll::Pending;
                    };
                    if read? == 0 {
                        // The client is done: hyper knows how to end.
                        shared.stage.set(Stage::Hypers);
                    } else {
                        shared.has_moved.set(true);
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the reply, or keeps what it waits for.
    fn take(&self, answer: Answer) {
        match answer {
            Answer::Made(made) => {
                let mut unsent = self.0.unsent.borrow_mut();
                unsent.prepare();
                quick::write(&mut unsent, made);
            }
            Answer::Later(later) => {
                self.0.phase.set(Phase::Busy);
                self.0.later.replace(Some(later));
            }
            Answer::NotHere => {}
        }
    }

    /// Ready once no reply waits for its answer.
    fn poll_later(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut later = self.0.later.borrow_mut();
        let Some(waiting) = later.as_mut() else { return Poll::Ready(()) };
        let made = ready!(waiting.as_mut().poll(cx));
        *later = None;
        drop(later);
        self.take(Answer::Made(made));
        Poll::Ready(())
    }

    /// Lets hyper read the head it was given, `left` bytes of which are in the inbox.
    fn poll_given(
        &self,
        inbox: &mut Inbox,
        left: usize,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if left == 0 {
            // hyper does not read while it answers. If it asks for more, it did not
            // find the end where we did: the clock ends the connection.
            return Poll::Pending;
        }
        let count = inbox.pour(buf, left);
        self.0.stage.set(Stage::Given(left - count));
        Poll::Ready(Ok(()))
    }

    fn poll_through(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inbox = self.0.inbox.borrow_mut();
        if inbox.pour(buf, usize::MAX) > 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut *self.0.socket.borrow_mut()).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.0.has_moved.set(true);
            if self.phase() == Phase::Idle {
                self.0.phase.set(Phase::Reading);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0.stage.get() {
            // It is told when there is something: see [`Wire::poll_heads`].
            Stage::Ours | Stage::Answered => Poll::Pending,
            Stage::Given(left) => self.poll_given(&mut self.0.inbox.borrow_mut(), left, buf),
            Stage::Hypers => self.poll_through(cx, buf),
        }
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
        if length < DIRECT_MIN {
            if !self.0.unsent.borrow_mut().gather(bufs, length) {
                ready!(self.poll_send(cx))?;
                self.0.unsent.borrow_mut().gather(bufs, length);
            }
            return Poll::Ready(Ok(length));
        }
        ready!(self.poll_send(cx))?;
        let mut socket = self.0.socket.borrow_mut();
        let sent = ready!(Pin::new(&mut *socket).poll_write_vectored(cx, bufs))?;
        self.0.has_moved.set(true);
        Poll::Ready(Ok(sent))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Sends nothing: see [`Wire::poll_send`]. hyper calls this when it has written all
    /// that it had.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.stage.get() == Stage::Answered {
            self.0.stage.set(Stage::Ours);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut *self.0.socket.borrow_mut()).poll_shutdown(cx)
    }
}
