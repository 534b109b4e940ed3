//! The asking end of links: all questions of this node to another one over a connection for
//! each serving thread.
//!
//! Nobody owns a connection (`connection`): a question that is given up is forgotten here
//! (`waiting`) and cancelled there, and harms no other.

mod connection;
mod waiting;

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{mpsc::error::TrySendError, watch},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use self::{
    connection::{Asking, Link, connect},
    waiting::Answer,
};
use super::{client::Reply, signs::Signs};
use crate::{
    group::{self, Asked, Held},
    wire::link::{CHUNK_MAX, Frame, Offer, Question, Secret, Terms, Why, check},
};

/// The longest that a node which works on an answer says nothing.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Silence after which a link is given up, and whoever is on it with it. A question whose
/// own time is shorter says nothing about the link.
const DEAD_AFTER: Duration = Duration::from_secs(1);

/// The way to one node, over links that are made when they are needed.
#[derive(Debug)]
pub(super) struct Way {
    authority: String,
    secret: Secret,
    reply_max: usize,
    connect_timeout: Duration,
    /// The first half: one for each serving thread, whose questions and answers stay on it
    /// that way. The others are for all other threads, of which each takes the one that the
    /// key falls to.
    links: Box<[Arc<Mutex<State>>]>,
}

/// A place for a link.
#[derive(Debug)]
enum State {
    None,
    /// It is being made; whoever needs it hears of it here.
    Making(Outcome),
    Made(Arc<Link>),
}

/// What comes of making a link: nothing yet, the link, or why there is none.
type Outcome = watch::Receiver<Option<Result<Arc<Link>, String>>>;

impl Way {
    /// A way of up to `links` connections, each of which is made within a time.
    pub(super) fn new(
        authority: String,
        secret: Secret,
        reply_max: usize,
        (links, connect_timeout): (usize, Duration),
    ) -> Self {
        let links = (0..2 * links.max(1)).map(|_| Arc::new(Mutex::new(State::None))).collect();
        Self { authority, secret, reply_max, connect_timeout, links }
    }

    /// Asks for a key of a group. There has to be a sign of life by the first of two
    /// moments, and the answer by the second. The other end hears `news` first.
    pub(super) async fn get(
        &self,
        asked: &group::Question,
        news: Bytes,
        (first_sign, deadline): (Instant, Instant),
        signs: &Signs,
    ) -> Reply {
        let check = check(&asked.group, &asked.key, asked.code);
        let place = self.place(check);
        let (link, mut heard) = match self.made(place) {
            Ok(link) => (link, signs.began()),
            Err(making) => match made_by(making).await {
                Ok(link) => (link, Instant::now()),
                Err(error) => return Reply::Nothing(error.to_string()),
            },
        };
        let frame = Frame::Get(question(asked, news, deadline.saturating_duration_since(heard)));
        let mut asking = match pose(&link, check, &frame).await {
            Ok(asking) => asking,
            Err(reply) => return reply,
        };
        let mut due = first_sign.min(deadline);
        loop {
            tokio::select! {
                biased;
                answer = &mut asking.answered => {
                    signs.show();
                    return answer.map_or_else(|_| Reply::Nothing(ENDED.to_owned()), reply);
                }
                () = asking.signs.notified() => {
                    signs.show();
                    heard = Instant::now();
                    due = (heard + SILENCE_MAX).min(deadline);
                }
                () = sleep_until(due) => {
                    // A node that is there says so at once, whatever it is asked.
                    if heard.elapsed() >= DEAD_AFTER {
                        link.give_up();
                    }
                    return Reply::Nothing("no sign of it in time".to_owned());
                }
            }
        }
    }

    /// Looks into the other node's memory, until `deadline`. An error if there was no word
    /// of it at all.
    pub(super) async fn peek(
        &self,
        asked: &group::Question,
        news: Bytes,
        deadline: Instant,
    ) -> Result<Option<Held>, Silent> {
        let check = check(&asked.group, &asked.key, asked.code);
        let peek = async {
            let link = self.link(check).await.ok()?;
            let frame = Frame::Peek(question(asked, news, patience(deadline)));
            let mut asking = pose(&link, check, &frame).await.ok()?;
            (&mut asking.answered).await.ok()
        };
        match timeout_at(deadline, peek).await {
            Ok(Some(Answer::Found(value, terms))) => {
                let Terms { ttl, grace, age, is_given, .. } = terms;
                Ok(ttl.map(|ttl| Held { value, ttl, grace, age, is_given }))
            }
            Ok(Some(_)) => Ok(None),
            Ok(None) | Err(_) => Err(Silent),
        }
    }

    /// Hands a value over, until `deadline`. Says whether the other node has kept it.
    pub(super) async fn offer(
        &self,
        asked: &group::Question,
        held: &Held,
        news: Bytes,
        deadline: Instant,
    ) -> bool {
        let check = check(&asked.group, &asked.key, asked.code);
        let offer = async {
            let link = self.link(check).await.ok()?;
            let frame = Frame::Offer(Offer {
                group: (&*asked.group).into(),
                key: Bytes::copy_from_slice(&asked.key),
                code: asked.code,
                news,
                terms: Terms {
                    ttl: Some(held.ttl),
                    grace: held.grace,
                    age: held.age,
                    length: held.value.body().len() as u64,
                    is_given: held.is_given,
                    head: held.value.head().cloned().map(Arc::new),
                },
            });
            let mut asking = pose(&link, check, &frame).await.ok()?;
            for chunk in held.value.body().chunks(CHUNK_MAX) {
                // It may be refused before it has arrived.
                if let Ok(answer) = asking.answered.try_recv() {
                    return Some(answer);
                }
                let mut frame = Vec::new();
                let _ = Frame::write_chunk(chunk, asking.id, &mut frame);
                link.outgoing.send(frame).await.ok()?;
            }
            (&mut asking.answered).await.ok()
        };
        matches!(timeout_at(deadline, offer).await, Ok(Some(Answer::Taken(true))))
    }

    /// Whether the other node answers. That a link is open says nothing: the system keeps it
    /// so for a process that stands still. Without an answer, links are given up.
    pub(super) async fn probe(&self, deadline: Instant) -> bool {
        // Of a group that nobody has.
        let asked = Instant::now();
        let nothing =
            group::Question { group: "".into(), key: [].into(), asked, deadline, code: 0 };
        let is_there = self.peek(&nothing, Bytes::new(), deadline).await.is_ok();
        if !is_there {
            for place in &self.links {
                if let State::Made(link) = &*lock(place) {
                    link.give_up();
                }
            }
        }
        is_there
    }

    /// Begins to make those links that no serving thread has for its own.
    pub(super) fn link_ahead(&self) {
        for place in &self.links[self.links.len() / 2..] {
            // Whoever needs it hears what came of it.
            drop(self.made(place));
        }
    }

    /// The link of this thread, or of the key.
    async fn link(&self, check: u64) -> io::Result<Arc<Link>> {
        match self.made(self.place(check)) {
            Ok(link) => Ok(link),
            Err(making) => made_by(making).await,
        }
    }

    /// Where that is kept.
    fn place(&self, check: u64) -> &Arc<Mutex<State>> {
        let half = self.links.len() / 2;
        let of_key = || half + usize::try_from(check % half as u64).unwrap_or_default();
        &self.links[serving_thread().map_or_else(of_key, |number| number % half)]
    }

    /// The link at `place`, or what comes of making one. That is begun if it is not under way,
    /// in a task of its own: nobody who asks and leaves takes it along.
    fn made(&self, place: &Arc<Mutex<State>>) -> Result<Arc<Link>, Outcome> {
        let mut state = lock(place);
        match &*state {
            State::Made(link) if link.is_open() => return Ok(Arc::clone(link)),
            State::Making(outcome) if outcome.has_changed().is_ok() => return Err(outcome.clone()),
            _ => {}
        }
        let (told, outcome) = watch::channel(None);
        *state = State::Making(outcome.clone());
        let (authority, secret) = (self.authority.clone(), self.secret.clone());
        let (reply_max, patience) = (self.reply_max, self.connect_timeout);
        let place = Arc::clone(place);
        // Where the link's own tasks are to run, too.
        tokio::spawn(async move {
            let connected = timeout(patience, connect(&authority, &secret)).await;
            let connected =
                connected.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
            let made = connected
                .map(|(stream, records)| Arc::new(Link::start(stream, records, reply_max)))
                .map_err(|error| error.to_string());
            *lock(&place) = made.clone().map_or(State::None, State::Made);
            told.send_replace(Some(made));
        });
        Err(outcome)
    }
}

/// Waits for a link that is being made.
async fn made_by(mut making: Outcome) -> io::Result<Arc<Link>> {
    let made = making.wait_for(Option::is_some).await.ok().and_then(|made| made.clone());
    // The thread that was to make it has ended.
    made.unwrap_or_else(|| Err(ENDED.to_owned())).map_err(io::Error::other)
}

fn lock(place: &Mutex<State>) -> MutexGuard<'_, State> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of this thread among those with a runtime of their own, as serving threads have.
fn serving_thread() -> Option<usize> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Relaxed);
    }
    let flavor = Handle::try_current().ok()?.runtime_flavor();
    (flavor == RuntimeFlavor::CurrentThread).then(|| NUMBER.with(|number| *number))
}

/// There was no word from the other node in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silent;

const ENDED: &str = "the link ended";

/// How long there is until `deadline`.
fn patience(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn question(asked: &group::Question, news: Bytes, patience: Duration) -> Question {
    Question {
        group: (&*asked.group).into(),
        key: Bytes::copy_from_slice(&asked.key),
        patience,
        code: asked.code,
        news,
    }
}

/// Puts a question on the link.
async fn pose(link: &Arc<Link>, check: u64, frame: &Frame) -> Result<Asking, Reply> {
    let Some(asking) = link.ask(check) else { return Err(Reply::Nothing(ENDED.to_owned())) };
    let mut bytes = Vec::new();
    // A key that has no room in a frame is no fault of the peer's.
    if !frame.write(asking.id, &mut bytes) {
        return Err(Reply::Said(Asked::Unanswered));
    }
    // There is room but for a peer that does not read.
    let Err(TrySendError::Full(bytes)) = link.outgoing.try_send(bytes) else { return Ok(asking) };
    match timeout(SILENCE_MAX, link.outgoing.send(bytes)).await {
        Ok(_) => Ok(asking),
        Err(_) => Err(Reply::Nothing("it does not read what it is asked".to_owned())),
    }
}

fn reply(answer: Answer) -> Reply {
    Reply::Said(match answer {
        // Not to be kept: as good as expired.
        Answer::Found(value, terms) => Asked::Found(value, Some(terms.ttl.unwrap_or_default())),
        Answer::NotFound => Asked::NotFound,
        Answer::Failed(error) => Asked::Failed(error),
        Answer::Unanswered(Why::NoRoom) => Asked::Unanswered,
        Answer::Unanswered(Why::OtherCode) => Asked::OtherCode,
        Answer::NotHeld | Answer::Taken(_) => {
            return Reply::Nothing("it answered what it was not asked".to_owned());
        }
        Answer::Wrong(text) => return Reply::Nothing(text.to_owned()),
    })
}
