//! The asking end of a link: all questions of this node to another one over one connection.
//!
//! One task writes, and takes along in one write whatever waits by then; one task reads,
//! and brings each answer to whoever asked. Nobody owns the connection: a question that is
//! given up is forgotten here and cancelled there, and harms no other.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex as TurnMutex, Notify, mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};

use super::client::Reply;
use crate::{
    group::{Asked, FillError},
    value::{Head, Value},
    wire::link::{
        Closed, Failure, Frame, Handshake, Incoming, PREFACE, Question, Records, Secret, check,
    },
};

/// Time to connect and to shake hands. Peers are near.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);

/// The longest that a node which works on an answer says nothing.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Silence after which a link is given up, and whoever is on it with it. A question whose
/// own time is shorter says nothing about the link.
const DEAD_AFTER: Duration = Duration::from_secs(1);

/// Questions that wait to be written; one more waits for room.
const QUEUE: usize = 1_024;

/// Bytes that are written at once, if so many wait.
const BATCH: usize = 64 << 10;

/// The way to one node, over a link that is made when it is needed.
#[derive(Debug)]
pub(super) struct Way {
    authority: String,
    secret: Secret,
    reply_max: usize,
    link: TurnMutex<State>,
}

/// What came of the last try to make a link.
#[derive(Debug)]
enum State {
    None,
    Made(Arc<Link>),
    Failed(Instant, String),
}

/// A connection.
#[derive(Debug)]
struct Link {
    /// Frames as they go over the wire.
    outgoing: mpsc::Sender<Vec<u8>>,
    waiting: Arc<Waiting>,
    /// Told when the link is given up.
    end: Arc<Notify>,
}

/// Who waits for what on a link.
#[derive(Debug)]
struct Waiting {
    /// `None` once the link is over.
    by_id: Mutex<Option<HashMap<u32, Place>>>,
    next: AtomicU32,
    reply_max: usize,
}

/// One question that waits for its answer.
#[derive(Debug)]
struct Place {
    check: u64,
    answer: oneshot::Sender<Reply>,
    /// Told of every sign of life.
    signs: Arc<Notify>,
    /// The value whose chunks arrive.
    found: Option<Found>,
}

#[derive(Debug)]
struct Found {
    ttl: Option<Duration>,
    length: usize,
    head: Option<Arc<Head>>,
    body: Vec<u8>,
}

impl Way {
    pub(super) fn new(authority: String, secret: Secret, reply_max: usize) -> Self {
        Self { authority, secret, reply_max, link: TurnMutex::new(State::None) }
    }

    /// Asks for a key of a group. There has to be a sign of life by the first of two
    /// moments, and the answer by the second.
    pub(super) async fn get(
        &self,
        (group, key): (&str, &[u8]),
        (first_sign, deadline): (Instant, Instant),
    ) -> Reply {
        let link = match self.link().await {
            Ok(link) => link,
            Err(error) => return Reply::Nothing(error.to_string()),
        };
        let patience = deadline.saturating_duration_since(Instant::now());
        let question = Question { group: group.into(), key: Bytes::copy_from_slice(key), patience };
        let signs = Arc::new(Notify::new());
        let (answer, mut answered) = oneshot::channel();
        let place =
            Place { check: check(group, key), answer, signs: Arc::clone(&signs), found: None };
        let Some(asked) = link.ask(place) else { return Reply::Nothing("the link ended".into()) };
        let mut frame = Vec::new();
        // A key that has no room in a frame is no fault of the peer's.
        if !Frame::Get(question).write(asked.id, &mut frame) {
            return Reply::Said(Asked::Unanswered);
        }
        let sent = link.outgoing.send(frame);
        if timeout(SILENCE_MAX, sent).await.is_err() {
            return Reply::Nothing("it does not read what it is asked".to_owned());
        }
        let mut heard = Instant::now();
        let mut due = first_sign.min(deadline);
        loop {
            tokio::select! {
                biased;
                reply = &mut answered => {
                    return reply.unwrap_or_else(|_| Reply::Nothing("the link ended".to_owned()));
                }
                () = signs.notified() => {
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

    /// Whether a link can be made.
    pub(super) async fn probe(&self) -> bool {
        self.link().await.is_ok()
    }

    /// The link in use, or a new one. Whoever comes while it is being made waits for it, and
    /// shares what comes of it.
    async fn link(&self) -> io::Result<Arc<Link>> {
        let came = Instant::now();
        let mut state = self.link.lock().await;
        match &*state {
            State::Made(link) if link.is_open() => return Ok(Arc::clone(link)),
            State::Failed(at, error) if *at >= came => return Err(io::Error::other(error.clone())),
            _ => {}
        }
        let connected = timeout(CONNECT_TIMEOUT, connect(&self.authority, &self.secret)).await;
        match connected.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into())) {
            Ok((stream, records)) => {
                let link = Arc::new(Link::start(stream, records, self.reply_max));
                *state = State::Made(Arc::clone(&link));
                Ok(link)
            }
            Err(error) => {
                *state = State::Failed(Instant::now(), error.to_string());
                Err(error)
            }
        }
    }
}

/// A connection whose other end has shown that it has the key.
async fn connect(authority: &str, secret: &Secret) -> io::Result<(TcpStream, Records)> {
    let mut stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    let mut handshake = Handshake::dialled(secret).map_err(io::Error::other)?;
    let ours = handshake.write().map_err(io::Error::other)?;
    stream.write_all(&[&PREFACE[..], &ours].concat()).await?;
    let mut theirs = [0; Handshake::MESSAGE];
    // Without the key they say nothing and hang up.
    stream.read_exact(&mut theirs).await.map_err(|_| io::Error::other(Closed))?;
    handshake.read(&theirs).map_err(io::Error::other)?;
    Ok((stream, handshake.finish().map_err(io::Error::other)?))
}

impl Link {
    fn start(stream: TcpStream, records: Records, reply_max: usize) -> Self {
        let (outgoing, to_write) = mpsc::channel(QUEUE);
        let waiting = Arc::new(Waiting {
            by_id: Mutex::new(Some(HashMap::new())),
            next: AtomicU32::new(0),
            reply_max,
        });
        let (reader, writer) = stream.into_split();
        let records = Arc::new(records);
        let (told, telling) = (Arc::clone(&waiting), Arc::clone(&records));
        let end = Arc::new(Notify::new());
        let ended = Arc::clone(&end);
        tokio::spawn(async move {
            tokio::select! {
                _ = write(writer, &records, to_write) => {}
                _ = read(reader, telling, &told) => {}
                () = ended.notified() => {}
            }
            // Whoever waits hears of it by the end of their channels.
            told.close();
        });
        Self { outgoing, waiting, end }
    }

    /// Ends the link: nothing comes of it any more.
    fn give_up(&self) {
        self.waiting.close();
        self.end.notify_one();
    }

    fn is_open(&self) -> bool {
        self.waiting.lock().is_some()
    }

    fn ask(self: &Arc<Self>, place: Place) -> Option<Asking> {
        let id = self.waiting.next.fetch_add(1, Relaxed);
        self.waiting.lock().as_mut()?.insert(id, place);
        Some(Asking { link: Arc::clone(self), id })
    }
}

/// A question under way. Dropped before its answer, it is cancelled.
struct Asking {
    link: Arc<Link>,
    id: u32,
}

impl Drop for Asking {
    fn drop(&mut self) {
        let forgotten = self.link.waiting.lock().as_mut().and_then(|it| it.remove(&self.id));
        if forgotten.is_some() {
            let mut frame = Vec::new();
            let _ = Frame::Cancel.write(self.id, &mut frame);
            // An answer that comes all the same finds nobody.
            let _ = self.link.outgoing.try_send(frame);
        }
    }
}

async fn write(
    mut writer: OwnedWriteHalf,
    records: &Records,
    mut to_write: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    let (mut sealed, mut count) = (Vec::new(), 0);
    while let Some(mut plain) = to_write.recv().await {
        while plain.len() < BATCH
            && let Ok(frame) = to_write.try_recv()
        {
            plain.extend_from_slice(&frame);
        }
        records.seal(&plain, &mut count, &mut sealed).map_err(io::Error::other)?;
        writer.write_all(&sealed).await?;
        sealed.clear();
    }
    Ok(())
}

async fn read(
    mut reader: OwnedReadHalf,
    records: Arc<Records>,
    waiting: &Waiting,
) -> io::Result<()> {
    let mut incoming = Incoming::new(records);
    loop {
        if reader.read_buf(incoming.room()).await? == 0 {
            return Ok(());
        }
        incoming.open().map_err(io::Error::other)?;
        while let Some((id, frame)) = incoming.take().map_err(io::Error::other)? {
            waiting.hear(id, frame);
        }
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Option<HashMap<u32, Place>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of all who wait.
    fn close(&self) {
        let left = self.lock().take();
        drop(left);
    }

    /// Something was said about the question `id`, which perhaps nobody asks any more.
    fn hear(&self, id: u32, frame: Frame) {
        let mut by_id = self.lock();
        let Some(by_id) = by_id.as_mut() else { return };
        let Some(place) = by_id.get_mut(&id) else { return };
        place.signs.notify_one();
        if let Some(reply) = place.hear(frame, self.reply_max)
            && let Some(place) = by_id.remove(&id)
        {
            // Whoever asked may just be leaving.
            let _ = place.answer.send(reply);
        }
    }
}

impl Place {
    /// What `frame` makes of the answer, if it is whole with it.
    fn hear(&mut self, frame: Frame, reply_max: usize) -> Option<Reply> {
        let wrong = |text: &str| Some(Reply::Nothing(text.to_owned()));
        match frame {
            Frame::Working => None,
            Frame::Found { check, .. } | Frame::NotFound { check } if check != self.check => {
                wrong("it answered another question")
            }
            Frame::Found { ttl, length, head, .. } => match usize::try_from(length) {
                Ok(length) if length <= reply_max => {
                    self.found = Some(Found { ttl, length, head, body: Vec::new() });
                    self.whole()
                }
                _ => wrong("its value is larger than [peers] reply_max"),
            },
            Frame::Chunk(bytes) => {
                let Some(found) = &mut self.found else {
                    return wrong("a value without a beginning");
                };
                found.body.extend_from_slice(&bytes);
                if found.body.len() > found.length {
                    return wrong("more of a value than it said");
                }
                self.whole()
            }
            Frame::NotFound { .. } => Some(Reply::Said(Asked::NotFound)),
            Frame::Failed { failure, retry_after, text } => {
                Some(Reply::Said(Asked::Failed(error(failure, retry_after, text))))
            }
            Frame::Unanswered => Some(Reply::Said(Asked::Unanswered)),
            Frame::Get(_) | Frame::Cancel => wrong("it asks where it should answer"),
        }
    }

    fn whole(&mut self) -> Option<Reply> {
        let found = self.found.take_if(|found| found.body.len() == found.length)?;
        let value = match found.head {
            Some(head) => Value::with_head(&found.body, head),
            None => Value::new(&found.body),
        };
        // Not to be kept: as good as expired.
        Some(Reply::Said(Asked::Found(value, Some(found.ttl.unwrap_or_default()))))
    }
}

fn error(failure: Failure, retry_after: Duration, text: String) -> FillError {
    match failure {
        Failure::InvalidKey => FillError::InvalidKey(text),
        Failure::Denied => FillError::Denied(text),
        Failure::Unavailable => FillError::Unavailable {
            message: text,
            retry_after: (!retry_after.is_zero()).then_some(retry_after),
        },
        Failure::TimedOut => FillError::TimedOut(text),
        Failure::Internal => FillError::Internal(text),
    }
}
