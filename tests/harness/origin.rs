//! An HTTP origin in the test's hands, which counts what it is asked.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What the origin was asked: the target and the headers' lines.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) target: String,
    pub(crate) headers: Vec<String>,
}

impl Asked {
    pub(crate) fn has_header(&self, line: &str) -> bool {
        self.headers.iter().any(|header| header.eq_ignore_ascii_case(line))
    }
}

/// Answers every request with what a function makes of it, until dropped.
pub(crate) struct Origin {
    addr: SocketAddr,
    requests: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Origin {
    /// Listens on a free port of loopback. `answer` gives all bytes of an answer, its
    /// status line included; the connection ends after them.
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, answer).await
    }

    /// As [`Origin::start`], on a free port of another address.
    pub(crate) async fn start_at(
        address: Ipv4Addr,
        answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let (_always, open) = watch::channel(true);
        Self::listen(address, open, answer).await
    }

    /// As [`Origin::start`], and answers nobody before `open` is true.
    pub(crate) async fn gated(
        open: watch::Receiver<bool>,
        answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Ipv4Addr::LOCALHOST, open, answer).await
    }

    async fn listen(
        address: Ipv4Addr,
        open: watch::Receiver<bool>,
        answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((address, 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let requests = Arc::new(AtomicUsize::new(0));
        let (count, answer) = (Arc::clone(&requests), Arc::new(answer));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (count, answer) = (Arc::clone(&count), Arc::clone(&answer));
                let mut open = open.clone();
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    if let Some(asked) = read(&mut stream).await {
                        count.fetch_add(1, Ordering::SeqCst);
                        // A gate whose keeper has gone stays as it was left.
                        open.wait_for(|open| *open).await.ok();
                        stream.write_all(&answer(&asked)).await.ok();
                    }
                });
            }
        });
        Self { addr, requests, accepting }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An answer with a body, its length and further header lines.
pub(crate) fn ok(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// An answer without a body.
pub(crate) fn status(line: &str) -> Vec<u8> {
    format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes()
}

pub(super) async fn read(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        lines.push(line.to_owned());
    }
    let target = lines.first()?.split(' ').nth(1)?.to_owned();
    Some(Asked { target, headers: lines.split_off(1) })
}
