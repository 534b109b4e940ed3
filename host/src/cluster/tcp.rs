//! The cluster's TCP: a frame there, a frame back, and the connection is over.
//!
//! A frame is its length in four bytes and that many bytes, which the machine has sealed and
//! will open. Nothing here knows a key; so whatever comes is bounded before it is read.
//!
//! Invariants:
//! - a frame takes memory as its bytes come, whatever length it claims;
//! - connections are bounded, in all and for each host, and each has a deadline;
//! - what the machine does not believe is closed without a word.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use super::{
    driver::Happening,
    machine::{REPLY_MAX, REQUEST_MAX},
};

/// Requests that are served at once, and for one host.
const CONNECTIONS_MAX: usize = 64;
const CONNECTIONS_OF_ONE_HOST: usize = 16;
/// For a request to come and its answer to go.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause after an `accept` that failed, as when there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// How asking ended.
#[derive(Debug)]
pub(super) enum End {
    Answered(Vec<u8>),
    Refused,
    Failed,
}

/// Asks whoever is at `to`.
pub(super) async fn ask(to: SocketAddr, request: Vec<u8>, within: Duration) -> End {
    let asking = async {
        let mut stream = TcpStream::connect(to).await?;
        write(&mut stream, &request).await?;
        read(&mut stream, REPLY_MAX).await
    };
    match timeout(within, asking).await {
        Ok(Ok(answer)) => End::Answered(answer),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => End::Refused,
        Ok(Err(_)) | Err(_) => End::Failed,
    }
}

/// Accepts connections for as long as somebody takes what they bring.
pub(super) async fn serve(listener: TcpListener, to: mpsc::WeakSender<Happening>) {
    let hosts = Hosts::default();
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        if connections.len() >= CONNECTIONS_MAX {
            continue;
        }
        let Some(guest) = hosts.admit(from.ip()) else { continue };
        let Some(to) = to.upgrade() else { return };
        connections.spawn(async move {
            let _ = timeout(PATIENCE, answer(stream, from, to)).await;
            drop(guest);
        });
    }
}

async fn answer(
    mut stream: TcpStream,
    from: SocketAddr,
    to: mpsc::Sender<Happening>,
) -> io::Result<()> {
    let bytes = read(&mut stream, REQUEST_MAX).await?;
    let (respond, response) = oneshot::channel();
    if to.send(Happening::Request { from, bytes, respond }).await.is_err() {
        return Ok(());
    }
    if let Ok(Some(bytes)) = response.await {
        write(&mut stream, &bytes).await?;
    }
    Ok(())
}

async fn read(stream: &mut (impl AsyncRead + Unpin), max: usize) -> io::Result<Vec<u8>> {
    let len = stream.read_u32().await?;
    if len as usize > max {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    stream.take(u64::from(len)).read_to_end(&mut bytes).await?;
    if bytes.len() == len as usize { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

async fn write(stream: &mut TcpStream, frame: &[u8]) -> io::Result<()> {
    let len = u32::try_from(frame.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // In one write, so that a short frame is one packet.
    let mut bytes = Vec::with_capacity(frame.len() + 4);
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(frame);
    stream.write_all(&bytes).await
}

/// Who is connected, so that one host does not take all of it.
#[derive(Clone, Debug, Default)]
struct Hosts(Arc<Mutex<HashMap<IpAddr, usize>>>);

struct Guest {
    hosts: Hosts,
    ip: IpAddr,
}

impl Hosts {
    fn admit(&self, ip: IpAddr) -> Option<Guest> {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = hosts.entry(ip).or_default();
        if *count >= CONNECTIONS_OF_ONE_HOST {
            return None;
        }
        *count += 1;
        Some(Guest { hosts: self.clone(), ip })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut hosts = self.hosts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = hosts.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                hosts.remove(&self.ip);
            }
        }
    }
}
