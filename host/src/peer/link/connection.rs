//! One connection: a task that writes, and takes along in one write whatever waits by then,
//! and a task that reads and brings each answer to whoever asked.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, mpsc, oneshot},
};

use super::waiting::{Answer, Place, Waiting};
use crate::wire::link::{Closed, Frame, Handshake, Incoming, PREFACE, Records, Secret};

/// Frames that wait to be written; one more waits for room.
const QUEUE: usize = 1_024;

/// Bytes that are written at once, if so many wait.
const BATCH: usize = 64 << 10;

/// A connection whose other end has shown that it has the key. While a key is replaced, the
/// other end may not have the new one yet: it is tried with the next.
pub(super) async fn connect(authority: &str, secret: &Secret) -> io::Result<(TcpStream, Records)> {
    let mut refused = io::Error::other(Closed);
    for number in 0..secret.keys() {
        let stream = TcpStream::connect(authority).await?;
        match shake(stream, secret, number).await {
            Ok(made) => return Ok(made),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

async fn shake(
    mut stream: TcpStream,
    secret: &Secret,
    number: usize,
) -> io::Result<(TcpStream, Records)> {
    stream.set_nodelay(true)?;
    let mut handshake = Handshake::dialled(secret, number).map_err(io::Error::other)?;
    let ours = handshake.write().map_err(io::Error::other)?;
    stream.write_all(&[&PREFACE[..], &ours].concat()).await?;
    let mut theirs = [0; Handshake::MESSAGE];
    // Without the key they say nothing and hang up.
    stream.read_exact(&mut theirs).await.map_err(|_| io::Error::other(Closed))?;
    handshake.read(&theirs).map_err(io::Error::other)?;
    Ok((stream, handshake.finish().map_err(io::Error::other)?))
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    /// Frames as they go over the wire.
    pub(super) outgoing: mpsc::Sender<Vec<u8>>,
    waiting: Arc<Waiting>,
    /// Told when the link is given up.
    end: Arc<Notify>,
}

impl Link {
    pub(super) fn start(stream: TcpStream, records: Records, reply_max: usize) -> Self {
        let (outgoing, to_write) = mpsc::channel(QUEUE);
        let waiting = Arc::new(Waiting::new(reply_max));
        let (reader, writer) = stream.into_split();
        let records = Arc::new(records);
        let (over, telling) = (Over(Arc::clone(&waiting)), Arc::clone(&records));
        let end = Arc::new(Notify::new());
        let ended = Arc::clone(&end);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = write(writer, &records, to_write) => {}
                _ = read(reader, telling, &over.0) => {}
                () = ended.notified() => {}
            }
        });
        Self { outgoing, waiting, end }
    }

    /// Ends the link: nothing comes of it any more.
    pub(super) fn give_up(&self) {
        self.waiting.close();
        self.end.notify_one();
    }

    pub(super) fn is_open(&self) -> bool {
        self.waiting.is_open()
    }

    /// A place for a question whose answer repeats `check`; `None` once the link is over.
    pub(super) fn ask(self: &Arc<Self>, check: u64) -> Option<Asking> {
        let (answer, answered) = oneshot::channel();
        let signs = Arc::new(Notify::new());
        let id = self.waiting.enter(Place::new(check, answer, Arc::clone(&signs)))?;
        Some(Asking { link: Arc::clone(self), id, signs, answered })
    }
}

/// Ends a link when its task does, also with the thread that it ran on: whoever waits hears of
/// it by the end of their channels.
struct Over(Arc<Waiting>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A question under way. Dropped before its answer, it is cancelled.
pub(super) struct Asking {
    link: Arc<Link>,
    pub(super) id: u32,
    /// Told of every sign of life.
    pub(super) signs: Arc<Notify>,
    pub(super) answered: oneshot::Receiver<Answer>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.link.waiting.leave(self.id) {
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
    let (mut room, mut count) = (Vec::new(), 0);
    while let Some(mut plain) = to_write.recv().await {
        while plain.len() < BATCH
            && let Ok(frame) = to_write.try_recv()
        {
            plain.extend_from_slice(&frame);
        }
        let sealed = records.seal(&plain, &mut count, &mut room).map_err(io::Error::other)?;
        writer.write_all(sealed).await?;
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
