//! A stand-in for doozerd, which nobody packages any more: what was seen of a running one, rule
//! by rule. It has its own reading and writing of frames, so that a mistake in ours shows.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex as TurnMutex, watch},
    task::{AbortHandle, JoinSet},
    time::interval,
};

const UNKNOWN_VERB: i64 = 2;
const TAG_IN_USE: i64 = 1;
const READONLY: i64 = 3;
const TOO_LATE: i64 = 4;
const REV_MISMATCH: i64 = 5;
const BAD_PATH: i64 = 6;
const MISSING_ARG: i64 = 7;
const OTHER: i64 = 127;

/// A doozer of one server, on a loopback address of its own, until dropped.
pub(crate) struct Doozer {
    address: SocketAddr,
    store: Arc<Store>,
    task: Option<AbortHandle>,
    pulse: AbortHandle,
}

/// What it keeps, also while nobody is served.
struct Store {
    state: Mutex<State>,
    /// The store's revision.
    rev: watch::Sender<i64>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, (Vec<u8>, i64)>,
    /// Changes, oldest first: revision, path, value, or none if it was deleted.
    history: VecDeque<(i64, String, Option<Vec<u8>>)>,
    /// What was before this revision is forgotten.
    forgotten: i64,
    secret: String,
    is_readonly: bool,
    is_silent: bool,
}

#[derive(Default, Debug)]
struct Request {
    tag: i64,
    verb: i64,
    path: Option<String>,
    value: Vec<u8>,
    rev: Option<i64>,
}

/// An answer's fields, in the order of their numbers.
#[derive(Default)]
struct Answer {
    flags: Option<i64>,
    rev: Option<i64>,
    path: Option<String>,
    value: Option<Vec<u8>>,
    error: Option<(i64, &'static str)>,
}

impl Doozer {
    /// Starts it on `host`. Where `secret` is not empty, it asks for it.
    pub(crate) async fn start(host: [u8; 4], secret: &str) -> Self {
        let address = SocketAddr::new(Ipv4Addr::from(host).into(), 8_046);
        let state = State { secret: secret.to_owned(), ..State::default() };
        let store = Arc::new(Store { state: Mutex::new(state), rev: watch::Sender::new(1) });
        // Its revision rises once a second, whether anything happens or not.
        let beating = Arc::clone(&store);
        let pulse = tokio::spawn(async move {
            let mut second = interval(Duration::from_secs(1));
            loop {
                second.tick().await;
                beating.rev.send_modify(|rev| *rev += 1);
            }
        });
        let mut doozer = Self { address, store, task: None, pulse: pulse.abort_handle() };
        doozer.restart().await;
        doozer
    }

    /// As it stands in settings.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Ends it, and every connection with it.
    pub(crate) fn kill(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// Starts it again, with the files that it had.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                // The one before goes in its own time.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let store = Arc::clone(&self.store);
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&store)));
            }
        });
        self.task = Some(serving.abort_handle());
    }

    /// The file at `path`.
    pub(crate) fn file(&self, path: &str) -> String {
        let state = self.store.lock();
        let value = state.files.get(path).map(|(value, _)| value.clone());
        String::from_utf8(value.unwrap_or_default()).expect("a text")
    }

    /// Writes the file at `path`, whatever it is.
    pub(crate) fn write(&self, path: &str, value: &str) {
        self.store.change(path, Some(value.as_bytes().to_vec()));
    }

    /// Forgets every change that was.
    pub(crate) fn forget(&self) {
        let mut state = self.store.lock();
        state.history.clear();
        state.forgotten = *self.store.rev.borrow() + 1;
    }

    /// From now on it only reads, or no longer so.
    pub(crate) fn be_readonly(&self, is_readonly: bool) {
        self.store.lock().is_readonly = is_readonly;
    }

    /// From now on it takes what comes and answers nothing, or no longer so.
    pub(crate) fn be_silent(&self, is_silent: bool) {
        self.store.lock().is_silent = is_silent;
    }
}

impl Drop for Doozer {
    fn drop(&mut self) {
        self.kill();
        self.pulse.abort();
    }
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the store")
    }

    /// Changes a file; says the revision of that.
    fn change(&self, path: &str, value: Option<Vec<u8>>) -> i64 {
        let mut state = self.lock();
        let rev = *self.rev.borrow() + 1;
        match &value {
            Some(value) => _ = state.files.insert(path.to_owned(), (value.clone(), rev)),
            None => _ = state.files.remove(path),
        }
        state.history.push_back((rev, path.to_owned(), value));
        drop(state);
        self.rev.send_replace(rev);
        rev
    }
}

async fn serve(stream: TcpStream, store: Arc<Store>) {
    let (mut reader, writer) = stream.into_split();
    let writer = Arc::new(TurnMutex::new(writer));
    let open = Arc::new(Mutex::new(HashSet::new()));
    let mut has_access = store.lock().secret.is_empty();
    let mut waits = JoinSet::new();
    while let Some(request) = read(&mut reader).await {
        if store.lock().is_silent {
            continue;
        }
        if open.lock().expect("tags").contains(&request.tag) {
            reply(&writer, request.tag, Answer::error(TAG_IN_USE, "")).await;
            continue;
        }
        if request.verb == 99 {
            has_access = request.value == store.lock().secret.as_bytes();
            let denied = Answer::error(OTHER, "permission denied");
            reply(&writer, request.tag, if has_access { Answer::default() } else { denied }).await;
        } else if !has_access {
            reply(&writer, request.tag, Answer::error(OTHER, "permission denied")).await;
        } else if request.verb == 6 {
            open.lock().expect("tags").insert(request.tag);
            let (store, writer, open) =
                (Arc::clone(&store), Arc::clone(&writer), Arc::clone(&open));
            waits.spawn(async move {
                let answer = wait(&store, &request).await;
                open.lock().expect("tags").remove(&request.tag);
                reply(&writer, request.tag, answer).await;
            });
        } else {
            let answer = answer(&store, &request);
            reply(&writer, request.tag, answer).await;
        }
    }
}

impl Answer {
    fn error(code: i64, detail: &'static str) -> Self {
        Self { error: Some((code, detail)), ..Self::default() }
    }
}

/// Whether doozer takes a path.
fn is_path(path: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
    };
    path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_name))
}

fn answer(store: &Store, request: &Request) -> Answer {
    let now = *store.rev.borrow();
    if request.verb == 5 {
        return Answer { rev: Some(now), ..Answer::default() };
    }
    let Some(path) = &request.path else { return Answer::error(MISSING_ARG, "") };
    if !is_path(path) {
        return Answer::error(BAD_PATH, "");
    }
    let (value, rev) = store.lock().files.get(path).cloned().unwrap_or_default();
    match request.verb {
        // One that is missing is no error.
        1 => Answer { rev: Some(rev), value: Some(value), ..Answer::default() },
        2 | 3 => {
            let Some(given) = request.rev else { return Answer::error(MISSING_ARG, "") };
            if store.lock().is_readonly {
                return Answer::error(READONLY, "");
            }
            if given != -1 && given < rev {
                return Answer::error(REV_MISMATCH, "");
            }
            let is_set = request.verb == 2;
            let rev = store.change(path, is_set.then(|| request.value.clone()));
            Answer { rev: is_set.then_some(rev), ..Answer::default() }
        }
        _ => Answer::error(UNKNOWN_VERB, ""),
    }
}

/// The first change at or after a revision, also if it has been already.
async fn wait(store: &Store, request: &Request) -> Answer {
    let (Some(path), Some(from)) = (&request.path, request.rev) else {
        return Answer::error(MISSING_ARG, "");
    };
    let mut now = store.rev.subscribe();
    loop {
        now.borrow_and_update();
        {
            let state = store.lock();
            if from < state.forgotten {
                return Answer::error(TOO_LATE, "");
            }
            let change = state.history.iter().find(|(rev, at, _)| *rev >= from && at == path);
            if let Some((rev, path, value)) = change.filter(|_| !state.is_silent) {
                return Answer {
                    flags: Some(if value.is_some() { 4 } else { 8 }),
                    rev: Some(*rev),
                    path: Some(path.clone()),
                    value: Some(value.clone().unwrap_or_default()),
                    error: None,
                };
            }
        }
        if now.changed().await.is_err() {
            return Answer::error(OTHER, "closed");
        }
    }
}

async fn read(reader: &mut OwnedReadHalf) -> Option<Request> {
    let length = reader.read_u32().await.ok()? as usize;
    let mut message = vec![0; length];
    reader.read_exact(&mut message).await.ok()?;
    let (mut at, mut request) = (0, Request::default());
    while at < message.len() {
        let key = varint(&message, &mut at);
        let number = varint(&message, &mut at);
        match key {
            0x08 => request.tag = number,
            0x10 => request.verb = number,
            0x48 => request.rev = Some(number),
            0x22 | 0x2a => {
                let end = at + number as usize;
                let bytes = message[at..end].to_vec();
                at = end;
                if key == 0x22 {
                    request.path = Some(String::from_utf8(bytes).expect("a text"));
                } else {
                    request.value = bytes;
                }
            }
            other => panic!("a field that doozer does not know: {other:#x}"),
        }
    }
    Some(request)
}

fn varint(message: &[u8], at: &mut usize) -> i64 {
    let mut value = 0_u64;
    for shift in (0..).step_by(7) {
        let byte = message[*at];
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value.cast_signed()
}

async fn reply(writer: &TurnMutex<OwnedWriteHalf>, tag: i64, answer: Answer) {
    let mut message = Vec::new();
    let mut number = |key: &[u8], mut value: u64, bytes: &[u8]| {
        message.extend_from_slice(key);
        while value >= 0x80 {
            message.push(value as u8 | 0x80);
            value >>= 7;
        }
        message.push(value as u8);
        message.extend_from_slice(bytes);
    };
    number(&[0x08], tag.cast_unsigned(), b"");
    if let Some(flags) = answer.flags {
        number(&[0x10], flags.cast_unsigned(), b"");
    }
    if let Some(rev) = answer.rev {
        number(&[0x18], rev.cast_unsigned(), b"");
    }
    if let Some(path) = answer.path {
        number(&[0x2a], path.len() as u64, path.as_bytes());
    }
    if let Some(value) = answer.value {
        number(&[0x32], value.len() as u64, &value);
    }
    if let Some((code, detail)) = answer.error {
        number(&[0xa0, 0x06], code.cast_unsigned(), b"");
        if !detail.is_empty() {
            number(&[0xaa, 0x06], detail.len() as u64, detail.as_bytes());
        }
    }
    let mut frame = (message.len() as u32).to_be_bytes().to_vec();
    frame.extend(message);
    writer.lock().await.write_all(&frame).await.ok();
}

/// The frames that were seen, over the wire of the stand-in.
#[tokio::test]
async fn the_stand_in_answers_with_the_frames_that_were_seen() {
    let doozer = Doozer::start([127, 0, 97, 250], "").await;
    let mut stream = TcpStream::connect(doozer.address).await.expect("it listens");
    stream.write_all(b"\0\0\0\x0c\x08\x01\x10\x01\x22\x06/peers").await.expect("sent");
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"\0\0\0\x06\x08\x01\x18\x00\x32\x00");
    // A file that is there is not created.
    doozer.write("/peers", "a");
    stream
        .write_all(b"\0\0\0\x11\x08\x02\x10\x02\x22\x06/peers\x2a\x01b\x48\x00")
        .await
        .expect("sent");
    let mut answer = [0; 9];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"\0\0\0\x05\x08\x02\xa0\x06\x05");
}
