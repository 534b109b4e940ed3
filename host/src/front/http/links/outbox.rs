//! What waits to be written on a link. Answers leave in the order in which they are ready,
//! several in one write, and a large value a chunk at a time in turn with the others.

use std::{cell::RefCell, collections::VecDeque, io, rc::Rc, sync::Arc, time::Duration};

use tokio::{io::AsyncWriteExt as _, net::tcp::OwnedWriteHalf, sync::Notify, time::timeout};

use crate::{
    value::Value,
    wire::link::{CHUNK_MAX, Frame, Records, Terms, Why},
};

/// Letters that wait to be written; until the other end reads them, none of its questions
/// is read.
const LETTERS_MAX: usize = 4_096;

/// The longest that the other end may take to read some of what it asked for.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes that are written at once, if so many wait.
const BATCH: usize = 64 << 10;

/// What waits to be written on a link.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: RefCell<VecDeque<(u32, Letter)>>,
    is_closed: RefCell<bool>,
    changed: Notify,
    taken: Notify,
}

enum Letter {
    Frame(Frame),
    /// One that is written already.
    Written(Vec<u8>),
    /// A value, from the byte `at` on; the frame before its first chunk is written.
    Value {
        value: Value,
        at: usize,
    },
}

impl Outbox {
    pub(super) fn say(&self, id: u32, frame: Frame) {
        self.waiting.borrow_mut().push_back((id, Letter::Frame(frame)));
        self.changed.notify_one();
    }

    /// Says that there is this value. `terms` need not say how long it is, nor what
    /// describes it.
    pub(super) fn found(&self, id: u32, check: u64, value: Value, terms: &Terms) {
        let Terms { ttl, grace, age, is_given, .. } = *terms;
        let head = value.head().cloned().map(Arc::new);
        let length = value.body().len() as u64;
        let found =
            Frame::Found { check, terms: Terms { ttl, grace, age, length, is_given, head } };
        // Labels may be more than there is room for; such a key is filled by whoever asks.
        let mut written = Vec::new();
        if !found.write(id, &mut written) {
            return self.say(id, Frame::Unanswered(Why::NoRoom));
        }
        let mut waiting = self.waiting.borrow_mut();
        waiting.push_back((id, Letter::Written(written)));
        if length > 0 {
            waiting.push_back((id, Letter::Value { value, at: 0 }));
        }
        self.changed.notify_one();
    }

    /// Nobody wants the answer any more.
    pub(super) fn cancel(&self, id: u32) {
        self.waiting.borrow_mut().retain(|(waiting, _)| *waiting != id);
    }

    /// Waits until the other end has read some of what waits.
    pub(super) async fn has_room(&self) {
        while self.waiting.borrow().len() >= LETTERS_MAX {
            self.taken.notified().await;
        }
    }

    pub(super) fn close(&self) {
        self.is_closed.replace(true);
        self.changed.notify_one();
    }

    /// Moves what is next into `plain`, up to a batch; `false` if nothing waits.
    fn take(&self, plain: &mut Vec<u8>) -> bool {
        while plain.len() < BATCH {
            let next = self.waiting.borrow_mut().pop_front();
            match next {
                None => break,
                Some((id, Letter::Frame(frame))) => _ = frame.write(id, plain),
                Some((_, Letter::Written(bytes))) => plain.extend_from_slice(&bytes),
                Some((id, Letter::Value { value, at })) => {
                    let end = value.body().len().min(at + CHUNK_MAX);
                    _ = Frame::write_chunk(&value.body()[at..end], id, plain);
                    if end < value.body().len() {
                        let rest = Letter::Value { value, at: end };
                        self.waiting.borrow_mut().push_back((id, rest));
                    }
                }
            }
        }
        !plain.is_empty()
    }
}

/// Writes what waits, until the outbox is closed and empty.
pub(super) async fn write(
    mut writer: OwnedWriteHalf,
    records: Arc<Records>,
    outbox: Rc<Outbox>,
) -> io::Result<()> {
    let (mut plain, mut room, mut count) = (Vec::new(), Vec::new(), 0);
    loop {
        while outbox.take(&mut plain) {
            outbox.taken.notify_one();
            let sealed = records.seal(&plain, &mut count, &mut room).map_err(io::Error::other)?;
            // Nearly always it takes all of it at once, and no time has to be kept.
            let sent = writer.try_write(sealed).or_else(|error| match error.kind() {
                io::ErrorKind::WouldBlock => Ok(0),
                _ => Err(error),
            })?;
            if sent < sealed.len() {
                timeout(READ_TIMEOUT, writer.write_all(&sealed[sent..])).await??;
            }
            plain.clear();
        }
        if *outbox.is_closed.borrow() {
            return Ok(());
        }
        outbox.changed.notified().await;
    }
}
