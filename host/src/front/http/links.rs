//! The answering end of a link: the questions of another node of this program.
//!
//! It begins like any connection to the port for peers, and is told apart by its first
//! bytes. What memory holds is answered in the turn that read the question; for the rest the
//! asking node is told that this one is at it, again and again until the answer is there.
//! Answers leave in the order in which they are ready, several in one write, and a large
//! value a chunk at a time in turn with the others.
//!
//! A question that came in here is never sent on to another node.

use std::{cell::RefCell, collections::VecDeque, io, rc::Rc, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, watch},
    task::{JoinSet, spawn_local},
    time::{Instant, interval_at, timeout},
};

use super::Stop;
use crate::{
    group::{Context, FillError, GetError, Group, Groups},
    value::{Hit, Value},
    wire::link::{
        CHUNK_MAX, Failure, Frame, Handshake, Incoming, PREFACE, Question, Records, Secret, check,
    },
};

/// Time for whoever dials to show that it has the key.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often an asking node is told that this one is at it.
const WORKING_EVERY: Duration = Duration::from_millis(500);

/// Questions of one link under way; one more goes unanswered.
const QUESTIONS_MAX: usize = 4_096;

/// The longest that a question may wait for its answer, whatever the other end says.
const PATIENCE_MAX: Duration = Duration::from_mins(10);

/// Letters that wait to be written; until the other end reads them, none of its questions
/// is read.
const LETTERS_MAX: usize = 4_096;

/// The longest that the other end may take to read some of what it asked for.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the other end may be silent before the system asks whether it is there.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// Bytes that are written at once, if so many wait.
const BATCH: usize = 64 << 10;

/// Whether a connection begins as a link does. No request that anybody answers begins with
/// this letter.
pub(super) async fn is_link(socket: &TcpStream, patience: Duration) -> bool {
    let mut first = [0];
    let peeked = timeout(patience, socket.peek(&mut first)).await;
    matches!(peeked, Ok(Ok(1))) && first[0] == PREFACE[0]
}

/// What answers links.
#[derive(Clone, Debug)]
pub(super) struct Links {
    pub(super) secret: Secret,
    pub(super) groups: Arc<Groups>,
}

impl Links {
    /// Serves a link until it ends, or until the node is told to stop and nothing is under
    /// way.
    pub(super) async fn serve(self, socket: TcpStream, told: watch::Receiver<Stop>) {
        if let Ok(Ok((socket, records))) =
            timeout(HANDSHAKE_TIMEOUT, shake(socket, &self.secret)).await
        {
            converse(socket, records, self.groups, told).await;
        }
    }
}

async fn converse(
    socket: TcpStream,
    records: Records,
    groups: Arc<Groups>,
    mut told: watch::Receiver<Stop>,
) {
    let records = Arc::new(records);
    let (reader, writer) = socket.into_split();
    let outbox = Rc::new(Outbox::default());
    let mut writing = spawn_local(write(writer, Arc::clone(&records), Rc::clone(&outbox)));
    let mut questions = JoinSet::new();
    tokio::select! {
        // Nobody reads any more.
        _ = &mut writing => return,
        _ = read(reader, records, &groups, &outbox, &mut questions) => {}
        _ = told.wait_for(|stop| *stop != Stop::No) => {
            // What is under way is answered; the other end asks nothing more of a node that
            // says it is going, and what it does ask is asked elsewhere.
            while questions.join_next().await.is_some() {}
        }
    }
    outbox.close();
    let _ = writing.await;
}

async fn shake(mut socket: TcpStream, secret: &Secret) -> io::Result<(TcpStream, Records)> {
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    let mut opening = [0; PREFACE.len() + Handshake::MESSAGE];
    socket.read_exact(&mut opening).await?;
    let (preface, theirs) = opening.split_at(PREFACE.len());
    if preface != PREFACE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut handshake = Handshake::accepted(secret).map_err(io::Error::other)?;
    let theirs = theirs.try_into().map_err(io::Error::other)?;
    // Without the key nothing is answered at all.
    handshake.read(theirs).map_err(io::Error::other)?;
    let ours = handshake.write().map_err(io::Error::other)?;
    socket.write_all(&ours).await?;
    Ok((socket, handshake.finish().map_err(io::Error::other)?))
}

async fn read(
    mut reader: OwnedReadHalf,
    records: Arc<Records>,
    groups: &Arc<Groups>,
    outbox: &Rc<Outbox>,
    questions: &mut JoinSet<()>,
) -> io::Result<()> {
    let mut incoming = Incoming::new(records);
    loop {
        tokio::select! {
            read = reader.read_buf(incoming.room()) => if read? == 0 { return Ok(()) },
            Some(_) = questions.join_next() => continue,
        }
        outbox.has_room().await;
        incoming.open().map_err(io::Error::other)?;
        while let Some((id, frame)) = incoming.take().map_err(io::Error::other)? {
            match frame {
                Frame::Get(question) => hear(id, question, groups, outbox, questions),
                Frame::Cancel => outbox.cancel(id),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
}

/// Answers a question from memory, or sets about it.
fn hear(
    id: u32,
    question: Question,
    groups: &Arc<Groups>,
    outbox: &Rc<Outbox>,
    questions: &mut JoinSet<()>,
) {
    let Question { group: name, key, patience } = question;
    let Some(group) = groups.get(&name) else { return outbox.say(id, Frame::Unanswered) };
    if let Some(answer) = group.recall(&key) {
        return outbox.answer(id, &group, &key, answer);
    }
    if questions.len() >= QUESTIONS_MAX {
        return outbox.say(id, Frame::Unanswered);
    }
    let outbox = Rc::clone(outbox);
    questions.spawn_local(async move {
        outbox.say(id, Frame::Working);
        let cx = Context { is_from_peer: true, ..Context::within(patience.min(PATIENCE_MAX)) };
        let mut get = std::pin::pin!(group.get(&key, &cx));
        let mut working = interval_at(Instant::now() + WORKING_EVERY, WORKING_EVERY);
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut get => break answer,
                _ = working.tick() => outbox.say(id, Frame::Working),
            }
        };
        outbox.answer(id, &group, &key, answer);
    });
}

/// What waits to be written on a link.
#[derive(Default)]
struct Outbox {
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
    fn say(&self, id: u32, frame: Frame) {
        self.waiting.borrow_mut().push_back((id, Letter::Frame(frame)));
        self.changed.notify_one();
    }

    fn answer(&self, id: u32, group: &Group, key: &[u8], answer: Result<Hit, GetError>) {
        let check = check(group.name(), key);
        match answer {
            Ok(Hit { value, provenance }) => {
                let ttl = Some(provenance.ttl)
                    .filter(|ttl| !ttl.is_zero() && provenance.served.is_stored());
                let head = value.head().cloned().map(Arc::new);
                let length = value.body().len() as u64;
                let found = Frame::Found { check, ttl, length, head };
                // Labels may be more than there is room for; such a key is filled by
                // whoever asks.
                if !found.write(id, &mut Vec::new()) {
                    return self.say(id, Frame::Unanswered);
                }
                self.say(id, found);
                if length > 0 {
                    let letter = Letter::Value { value, at: 0 };
                    self.waiting.borrow_mut().push_back((id, letter));
                }
            }
            Err(error) => self.say(id, failed(error, check)),
        }
    }

    /// Nobody wants the answer any more.
    fn cancel(&self, id: u32) {
        self.waiting.borrow_mut().retain(|(waiting, _)| *waiting != id);
    }

    /// Waits until the other end has read some of what waits.
    async fn has_room(&self) {
        while self.waiting.borrow().len() >= LETTERS_MAX {
            self.taken.notified().await;
        }
    }

    fn close(&self) {
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
                    let chunk = bytes::Bytes::copy_from_slice(&value.body()[at..end]);
                    _ = Frame::Chunk(chunk).write(id, plain);
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

async fn write(
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

/// Why there is no value.
fn failed(error: GetError, check: u64) -> Frame {
    let (error, retry_after) = match error {
        GetError::NotFound(_) => return Frame::NotFound { check },
        GetError::Overloaded => return Frame::Unanswered,
        GetError::Fill { error, retry_after } => (error, retry_after),
        other => (FillError::TimedOut(other.to_string()), Duration::ZERO),
    };
    let (failure, text) = match error {
        FillError::InvalidKey(text) => (Failure::InvalidKey, text),
        FillError::Denied(text) => (Failure::Denied, text),
        FillError::Unavailable { message, .. } => (Failure::Unavailable, message),
        FillError::TimedOut(text) => (Failure::TimedOut, text),
        FillError::Internal(text) => (Failure::Internal, text),
        // Another node may have room, or a breaker that is closed.
        FillError::Overloaded(_) | FillError::NotAsked { .. } => return Frame::Unanswered,
    };
    Frame::Failed { failure, retry_after, text }
}
