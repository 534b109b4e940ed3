//! A small HTTP/1.1 client that sends exactly the bytes it is told.
//!
//! An ordinary client tidies up what it is given; these tests must be able to send
//! `a//b`, `../x` and worse.

use std::{collections::BTreeMap, io, net::SocketAddr};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

use super::PATIENCE;

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// By lower-case name; the last one where a name comes twice.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A connection for one request after the other.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) async fn open(addr: SocketAddr) -> Self {
        Self::try_open(addr).await.expect("a listener")
    }

    pub(crate) async fn try_open(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// `GET` of `target`, sent as it stands.
    ///
    /// # Panics
    /// When there is no whole answer within [`PATIENCE`].
    pub(crate) async fn get(&mut self, target: &str) -> Response {
        let answer = timeout(PATIENCE, self.try_get(target)).await.expect("an answer in time");
        answer.expect("an answer")
    }

    /// `GET` of `target`, for as long as the caller waits.
    ///
    /// # Errors
    /// The connection ended, or what came is no answer.
    pub(crate) async fn try_get(&mut self, target: &str) -> io::Result<Response> {
        let head = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        self.0.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            if self.0.read_until(b'\n', &mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let mut response = parse(&answer).ok_or(io::ErrorKind::InvalidData)?;
        let length = response.header("content-length").parse();
        response.body = vec![0; length.map_err(|_| io::ErrorKind::InvalidData)?];
        self.0.read_exact(&mut response.body).await?;
        Ok(response)
    }
}

/// `GET` of `target`, sent as it stands.
pub(crate) async fn get(addr: SocketAddr, target: &str) -> Response {
    request(addr, "GET", target).await
}

/// A request without a body; `target` is sent as it stands.
pub(crate) async fn request(addr: SocketAddr, method: &str, target: &str) -> Response {
    let head =
        format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    exchange(addr, head.as_bytes()).await
}

/// Sends `bytes` and reads one answer to the end of the connection.
///
/// # Panics
/// When there is no whole answer within [`PATIENCE`].
pub(crate) async fn exchange(addr: SocketAddr, bytes: &[u8]) -> Response {
    timeout(PATIENCE, async {
        let mut stream = TcpStream::connect(addr).await.expect("a listener");
        stream.write_all(bytes).await.expect("to send a request");
        let mut answer = Vec::new();
        // A refusal may come with a reset, once its bytes are read.
        stream.read_to_end(&mut answer).await.ok();
        parse(&answer).unwrap_or_else(|| panic!("no whole answer: {answer:?}"))
    })
    .await
    .expect("an answer in time")
}

fn parse(answer: &[u8]) -> Option<Response> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines
        .map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect::<Option<_>>()?;
    Some(Response { status, headers, body: answer[end + 4..].to_vec() })
}
