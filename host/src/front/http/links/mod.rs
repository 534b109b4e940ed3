//! The answering end of a link: the questions of another node of this program.
//!
//! It begins like any connection to the port for peers, and is told apart by its first
//! bytes. What memory holds is answered in the turn that read the question; for the rest the
//! asking node is told that this one is at it, again and again until the answer is there.
//! How answers leave is up to the `outbox`.
//!
//! Beside questions there are looks into memory alone, and values that are handed over
//! (`offers`). What a question brings along is heard before anything is looked up.
//!
//! A question that came in here is never sent on to another node.

mod offers;
mod outbox;

use std::{io, rc::Rc, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, tcp::OwnedReadHalf},
    sync::watch,
    task::{JoinSet, spawn_local},
    time::{Instant, interval_at, timeout},
};

use super::Stop;
use crate::{
    group::{Context, FillError, GetError, Group, Groups, Held, Tidings},
    value::Hit,
    wire::link::{
        Failure, Frame, Handshake, Incoming, PREFACE, Question, Records, Secret, Terms, Why, check,
    },
};
use offers::Offers;
use outbox::{Outbox, write};

/// Time for whoever dials to show that it has the key.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often an asking node is told that this one is at it.
const WORKING_EVERY: Duration = Duration::from_millis(500);

/// Questions of one link under way; one more goes unanswered.
const QUESTIONS_MAX: usize = 4_096;

/// The longest that a question may wait for its answer, whatever the other end says.
const PATIENCE_MAX: Duration = Duration::from_mins(10);

/// How long the other end may be silent before the system asks whether it is there.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// Whether a connection begins as a link does. No request that anybody answers begins with
/// this letter.
pub(super) async fn is_link(socket: &TcpStream, patience: Duration) -> bool {
    let mut first = [0];
    let peeked = timeout(patience, socket.peek(&mut first)).await;
    matches!(peeked, Ok(Ok(1))) && first[0] == PREFACE[0]
}

/// What answers links.
#[derive(Clone)]
pub(super) struct Links {
    pub(super) secret: Secret,
    pub(super) tidings: Option<Arc<dyn Tidings>>,
    pub(super) groups: Arc<Groups>,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("groups", &self.groups).finish_non_exhaustive()
    }
}

impl Links {
    /// Serves a link until it ends, or until the node is told to stop and nothing is under
    /// way.
    pub(super) async fn serve(self, socket: TcpStream, told: watch::Receiver<Stop>) {
        if let Ok(Ok((socket, records))) =
            timeout(HANDSHAKE_TIMEOUT, shake(socket, &self.secret)).await
        {
            self.converse(socket, records, told).await;
        }
    }

    async fn converse(self, socket: TcpStream, records: Records, mut told: watch::Receiver<Stop>) {
        let records = Arc::new(records);
        let (reader, writer) = socket.into_split();
        let outbox = Rc::new(Outbox::default());
        let mut writing = spawn_local(write(writer, Arc::clone(&records), Rc::clone(&outbox)));
        let mut talk = Talk {
            links: self,
            outbox: Rc::clone(&outbox),
            questions: JoinSet::new(),
            offers: Offers::default(),
        };
        tokio::select! {
            // Nobody reads any more.
            _ = &mut writing => return,
            _ = talk.read(reader, records) => {}
            _ = told.wait_for(|stop| *stop != Stop::No) => {
                // What is under way is answered; the other end asks nothing more of a node
                // that says it is going, and what it does ask is asked elsewhere.
                while talk.questions.join_next().await.is_some() {}
            }
        }
        outbox.close();
        let _ = writing.await;
    }
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
    let theirs = theirs.try_into().map_err(io::Error::other)?;
    // Without the key nothing is answered at all.
    let mut handshake = Handshake::accepted(secret, theirs).map_err(io::Error::other)?;
    let ours = handshake.write().map_err(io::Error::other)?;
    socket.write_all(&ours).await?;
    Ok((socket, handshake.finish().map_err(io::Error::other)?))
}

/// What is under way on one link.
struct Talk {
    links: Links,
    outbox: Rc<Outbox>,
    questions: JoinSet<()>,
    offers: Offers,
}

impl Talk {
    async fn read(&mut self, mut reader: OwnedReadHalf, records: Arc<Records>) -> io::Result<()> {
        let mut incoming = Incoming::new(records);
        loop {
            tokio::select! {
                read = reader.read_buf(incoming.room()) => if read? == 0 { return Ok(()) },
                Some(_) = self.questions.join_next() => continue,
            }
            self.outbox.has_room().await;
            incoming.open().map_err(io::Error::other)?;
            while let Some((id, frame)) = incoming.take().map_err(io::Error::other)? {
                self.hear(id, frame)?;
            }
        }
    }

    fn hear(&mut self, id: u32, frame: Frame) -> io::Result<()> {
        let tidings = self.links.tidings.as_deref();
        let answer = match frame {
            Frame::Get(question) => {
                self.asked(id, question);
                None
            }
            Frame::Peek(question) => {
                self.peeked(id, &question);
                None
            }
            Frame::Offer(offer) => self.offers.begin(id, offer, &self.links.groups, tidings),
            Frame::Chunk(bytes) => self.offers.extend(id, &bytes, tidings),
            Frame::Cancel => {
                self.outbox.cancel(id);
                self.offers.cancel(id);
                None
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        if let Some(answer) = answer {
            self.outbox.say(id, answer);
        }
        Ok(())
    }

    /// The group that a question is about, once its news are heard.
    fn group_of(&self, question: &Question) -> Option<Arc<Group>> {
        if let Some(tidings) = self.links.tidings.as_ref().filter(|_| !question.news.is_empty()) {
            tidings.heard(&question.news);
        }
        self.links.groups.get(&question.group)
    }

    /// Answers a question from memory, or sets about it.
    fn asked(&mut self, id: u32, question: Question) {
        let outbox = &self.outbox;
        let Some(group) = self.group_of(&question) else {
            return outbox.say(id, Frame::Unanswered(Why::NoRoom));
        };
        let Question { key, patience, code, .. } = question;
        if !is_same_code(code, group.code()) {
            return outbox.say(id, Frame::Unanswered(Why::OtherCode));
        }
        let check = check(group.name(), &key, code);
        let now = Instant::now();
        if let Some(answer) = group.recall_at(&key, now) {
            return outbox.answer(id, check, answer);
        }
        if self.questions.len() >= QUESTIONS_MAX {
            return outbox.say(id, Frame::Unanswered(Why::NoRoom));
        }
        let outbox = Rc::clone(outbox);
        self.questions.spawn_local(async move {
            outbox.say(id, Frame::Working);
            let patience = Context::until(now + patience.min(PATIENCE_MAX));
            let cx = Context { is_from_peer: true, ..patience };
            let mut get = std::pin::pin!(group.get_missed(&key, now, &cx));
            let mut working = interval_at(Instant::now() + WORKING_EVERY, WORKING_EVERY);
            let answer = loop {
                tokio::select! {
                    biased;
                    answer = &mut get => break answer,
                    _ = working.tick() => outbox.say(id, Frame::Working),
                }
            };
            // The code may have been replaced meanwhile.
            if is_same_code(code, group.code()) {
                outbox.answer(id, check, answer);
            } else {
                outbox.say(id, Frame::Unanswered(Why::OtherCode));
            }
        });
    }

    /// Answers from memory alone.
    fn peeked(&self, id: u32, question: &Question) {
        let group = self.group_of(question);
        let group = group.filter(|group| is_same_code(question.code, group.code()));
        match group.as_ref().and_then(|group| group.held(&question.key)) {
            None => self.outbox.say(id, Frame::NotHeld),
            Some(Held { value, ttl, grace, age, is_given }) => {
                let check = check(&question.group, &question.key, question.code);
                let ttl = Some(ttl);
                let terms = Terms { ttl, grace, age, is_given, ..Terms::default() };
                self.outbox.found(id, check, value, &terms);
            }
        }
    }
}

/// Whether an answer of one code will do for a question that asks for another's: it must be
/// the same, where both have a digest at all.
fn is_same_code(one: u64, other: u64) -> bool {
    one == other || one == 0 || other == 0
}

impl Outbox {
    /// What came of a get.
    fn answer(&self, id: u32, check: u64, answer: Result<Hit, GetError>) {
        match answer {
            Ok(Hit { value, provenance }) => {
                let ttl = Some(provenance.ttl)
                    .filter(|ttl| !ttl.is_zero() && provenance.served.is_stored());
                let terms = Terms { ttl, age: provenance.age, ..Terms::default() };
                self.found(id, check, value, &terms);
            }
            Err(error) => self.say(id, failed(error, check)),
        }
    }
}

/// Why there is no value.
fn failed(error: GetError, check: u64) -> Frame {
    let (error, retry_after) = match error {
        GetError::NotFound(_) => return Frame::NotFound { check },
        GetError::Overloaded => return Frame::Unanswered(Why::NoRoom),
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
        FillError::Overloaded(_) | FillError::NotAsked { .. } => {
            return Frame::Unanswered(Why::NoRoom);
        }
    };
    Frame::Failed { failure, retry_after, text }
}
