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
        if !found.write(id, &mut Vec::new()) {
            return self.say(id, Frame::Unanswered(Why::NoRoom));
        }
        self.say(id, found);
        if length > 0 {
            self.waiting.borrow_mut().push_back((id, Letter::Value { value, at: 0 }));
        }
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
    let (mut plain, mut sealed, mut count) = (Vec::new(), Vec::new(), 0);
    loop {
        while outbox.take(&mut plain) {
            outbox.taken.notify_one();
            records.seal(&plain, &mut count, &mut sealed).map_err(io::Error::other)?;
            timeout(READ_TIMEOUT, writer.write_all(&sealed)).await??;
            plain.clear();
            sealed.clear();
        }
        if *outbox.is_closed.borrow() {
            return Ok(());
        }
        outbox.changed.notified().await;
    }
}
