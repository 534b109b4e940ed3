//! Bytes of a client that nobody has taken yet.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
};

/// Size of the buffer: more than most heads, and enough requests for one write. A
/// longer head is hyper's.
const SIZE: usize = 16 * 1024;

thread_local! {
    /// The buffer of the last connection that had taken all of it.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The bytes from `start` to `end` of `buffer`, which is either of [`SIZE`] or empty.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Whether the bytes fill the whole buffer.
    pub(super) fn is_full(&self) -> bool {
        self.end - self.start == SIZE
    }

    /// Takes the first `count` bytes out.
    pub(super) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Moves up to `most` bytes to `buf`; returns how many.
    pub(super) fn pour(&mut self, buf: &mut ReadBuf<'_>, most: usize) -> usize {
        let count = self.bytes().len().min(buf.remaining()).min(most);
        buf.put_slice(&self.bytes()[..count]);
        self.consume(count);
        self.release();
        count
    }

    /// Gives the buffer to the next connection if there is nothing in it.
    pub(super) fn release(&mut self) {
        if self.start == self.end && !self.buffer.is_empty() {
            SPARE.set(std::mem::take(&mut self.buffer));
            (self.start, self.end) = (0, 0);
        }
    }

    /// Reads from `socket` behind the bytes that are here. Zero is the end, or no room.
    pub(super) fn poll_fill(
        &mut self,
        socket: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.buffer.is_empty() {
            self.buffer = SPARE.take();
            self.buffer.resize(SIZE, 0);
        }
        // Bytes of the heads before are done with.
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let mut rest = ReadBuf::new(&mut self.buffer[self.end..]);
        ready!(Pin::new(socket).poll_read(cx, &mut rest))?;
        let count = rest.filled().len();
        self.end += count;
        Poll::Ready(Ok(count))
    }
}
