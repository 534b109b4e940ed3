//! A second opinion on the DICT protocol: asks a server directly, over one
//! connection, so that a test can compare what a node serves with it.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

use super::PATIENCE;

/// A connection to a DICT server.
pub(crate) struct DictClient(BufReader<TcpStream>);

impl DictClient {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("a DICT server");
        let mut client = Self(BufReader::new(stream));
        assert!(client.line().await.starts_with(b"220 "));
        client
    }

    /// The definitions of each word, in order: see [`Self::definitions`].
    pub(crate) async fn define_all(&mut self, words: &[String]) -> Vec<Option<Vec<u8>>> {
        let mut answers = Vec::new();
        // Several at a time: the server takes its time over small packets.
        for words in words.chunks(20) {
            let command = |word: &String| {
                let quoted = word.replace('\\', "\\\\").replace('"', "\\\"");
                format!("DEFINE ! \"{quoted}\"\r\n")
            };
            let commands: String = words.iter().map(command).collect();
            self.0.write_all(commands.as_bytes()).await.expect("to send commands");
            for _ in words {
                answers.push(self.definitions().await);
            }
        }
        answers
    }

    /// All definitions of a word in the first database that has it: each line as the
    /// server sent it, ended by `\n`, with an empty line between definitions. `None`
    /// when there is none.
    async fn definitions(&mut self) -> Option<Vec<u8>> {
        let status = self.line().await;
        if status.starts_with(b"552 ") {
            return None;
        }
        assert!(status.starts_with(b"150 "), "{}", String::from_utf8_lossy(&status));
        let mut definitions: Vec<Vec<u8>> = Vec::new();
        loop {
            let status = self.line().await;
            if status.starts_with(b"250 ") {
                return Some(definitions.join(&b"\n"[..]));
            }
            assert!(status.starts_with(b"151 "), "{}", String::from_utf8_lossy(&status));
            let mut text = Vec::new();
            loop {
                let line = self.line().await;
                if line == b"." {
                    break;
                }
                text.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
                text.push(b'\n');
            }
            definitions.push(text);
        }
    }

    /// One line without its end.
    async fn line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        let read = timeout(PATIENCE, self.0.read_until(b'\n', &mut line));
        read.await.expect("a line in time").expect("a line");
        assert!(line.ends_with(b"\r\n"), "the server ended a line without CRLF: {line:?}");
        line.truncate(line.len() - 2);
        line
    }
}
