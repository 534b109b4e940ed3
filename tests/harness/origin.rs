//! An HTTP origin in the test's hands, which counts what it is asked.

use std::{
    net::SocketAddr,
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
pub struct Asked {
    pub target: String,
    pub headers: Vec<String>,
}

impl Asked {
    pub fn has_header(&self, line: &str) -> bool {
        self.headers.iter().any(|header| header.eq_ignore_ascii_case(line))
    }
}

/// Answers every request with what a function makes of it, until dropped.
pub struct Origin {
    addr: SocketAddr,
    requests: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Origin {
    /// Listens on a free port of loopback. `answer` gives all bytes of an answer, its
    /// status line included; the connection ends after them.
    pub async fn start(answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let (_always, open) = watch::channel(true);
        Self::gated(open, answer).await
    }

    /// As [`Origin::start`], and answers nobody before `open` is true.
    pub async fn gated(
        open: watch::Receiver<bool>,
        answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
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

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An answer with a body, its length and further header lines.
pub fn ok(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// An answer without a body.
pub fn status(line: &str) -> Vec<u8> {
    format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
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
