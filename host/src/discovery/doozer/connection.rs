//! A connection to one doozer server: many questions at a time, told apart by their tags, and
//! one reader for all of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::oneshot,
    task::AbortHandle,
    time::timeout,
};

use super::wire::{FRAME_MAX, Request, Response, error};

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for an answer to whatever does not wait for something to happen.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Questions that may be open at once, those that nobody waits for any more included.
const OPEN_MAX: usize = 64;

/// Why there is no answer, or none that helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection is of no use any more.
    Gone(String),
    /// doozer says no: its number of the error, and its words.
    Said(i64, String),
}

impl Fault {
    pub(super) fn told(self) -> String {
        match self {
            Self::Gone(why) => why,
            Self::Said(error::OTHER, detail) if detail.contains("permission denied") => {
                format!("{detail} ([discovery.doozer] secret, or `sk` of the URI)")
            }
            Self::Said(code, detail) => format!("doozer's error {code}: {detail}"),
        }
    }
}

type Open = Arc<Mutex<HashMap<i64, oneshot::Sender<Response>>>>;

/// A connection. Ends with this.
pub(super) struct Connection {
    writer: OwnedWriteHalf,
    open: Open,
    last_tag: i32,
    reader: AbortHandle,
}

/// An answer that may take its time. Dropped, the answer is ignored when it comes.
pub(super) struct Answer(oneshot::Receiver<Response>);

impl Connection {
    /// Connects to `host`, and shows the `secret` if there is one.
    pub(super) async fn new(
        (host, port): (&str, u16),
        secret: Option<&str>,
    ) -> Result<Self, Fault> {
        let gone = |why: String| Fault::Gone(format!("{host}:{port}: {why}"));
        let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port))).await;
        let connected = connected.map_err(|_| gone("no answer in time".to_owned()))?;
        let stream = connected.map_err(|error| gone(error.to_string()))?;
        stream.set_nodelay(true).ok();
        let (reader, writer) = stream.into_split();
        let open = Open::default();
        let reading = tokio::spawn(read_all(reader, Arc::clone(&open)));
        let mut connection = Self { writer, open, last_tag: 0, reader: reading.abort_handle() };
        if let Some(secret) = secret {
            let access = Request::of(super::wire::Verb::Access).value(secret.as_bytes());
            connection.call(&access).await?;
        }
        Ok(connection)
    }

    /// What doozer answers at once.
    pub(super) async fn call(&mut self, request: &Request<'_>) -> Result<Response, Fault> {
        let answered = async {
            let mut answer = self.ask(request).await?;
            answer.get().await
        };
        let answered = timeout(CALL_TIMEOUT, answered).await;
        answered.unwrap_or_else(|_| Err(Fault::Gone("doozer gives no answer in time".to_owned())))
    }

    /// Asks what may be answered much later.
    pub(super) async fn ask(&mut self, request: &Request<'_>) -> Result<Answer, Fault> {
        let (tell, told) = oneshot::channel();
        let tag = {
            let mut open = lock(&self.open);
            if open.len() >= OPEN_MAX {
                return Err(Fault::Gone("too many questions are open".to_owned()));
            }
            // A tag that doozer still holds would be refused.
            loop {
                self.last_tag = self.last_tag.checked_add(1).unwrap_or(1);
                if !open.contains_key(&i64::from(self.last_tag)) {
                    break;
                }
            }
            open.insert(i64::from(self.last_tag), tell);
            self.last_tag
        };
        let sent = timeout(CALL_TIMEOUT, self.writer.write_all(&request.frame(tag))).await;
        match sent {
            Ok(Ok(())) => Ok(Answer(told)),
            Ok(Err(error)) => Err(Fault::Gone(error.to_string())),
            Err(_elapsed) => Err(Fault::Gone("doozer takes no more questions".to_owned())),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Answer {
    /// Waits for it. May be dropped while it does.
    pub(super) async fn get(&mut self) -> Result<Response, Fault> {
        match (&mut self.0).await {
            Ok(response) if response.error == 0 => Ok(response),
            Ok(response) => Err(Fault::Said(response.error, response.detail)),
            Err(_gone) => Err(Fault::Gone("doozer closed the connection".to_owned())),
        }
    }
}

fn lock(open: &Open) -> MutexGuard<'_, HashMap<i64, oneshot::Sender<Response>>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands answers to whoever waits for them, until there are no more; then nobody waits.
async fn read_all(mut reader: OwnedReadHalf, open: Open) {
    while let Some(response) = read_one(&mut reader).await {
        // One whose tag nobody knows is of a question that was given up.
        if let Some(tell) = lock(&open).remove(&response.tag) {
            tell.send(response).ok();
        }
    }
    lock(&open).clear();
}

async fn read_one(reader: &mut OwnedReadHalf) -> Option<Response> {
    let length = usize::try_from(reader.read_u32().await.ok()?).ok()?;
    if length > FRAME_MAX {
        return None;
    }
    let mut message = vec![0; length];
    reader.read_exact(&mut message).await.ok()?;
    Response::read(&message).ok()
}
