//! Standard output and error of a guest: lines in the log.
//!
//! What a language runtime prints when it panics arrives here, so standard error is
//! written as warnings.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

use super::logging::GuestLog;
use crate::plugin::{bindings::contract::cachecluster::plugin::logging::Level, secrets::Secrets};

/// A line without an end is written when it has grown so long.
const LINE_MAX: usize = 4 << 10;

/// What one write may bring; the guest makes more of them.
const WRITE_MAX: usize = 64 << 10;

/// One of a guest's standard streams. Its clones continue one another's line.
#[derive(Clone)]
pub(super) struct LogStream {
    log: Arc<GuestLog>,
    secrets: Arc<Secrets>,
    level: Level,
    stream: &'static str,
    line: Arc<Mutex<Vec<u8>>>,
}

impl LogStream {
    pub(super) fn stdout(log: Arc<GuestLog>, secrets: Arc<Secrets>) -> Self {
        Self { log, secrets, level: Level::Info, stream: "stdout", line: Arc::default() }
    }

    pub(super) fn stderr(log: Arc<GuestLog>, secrets: Arc<Secrets>) -> Self {
        Self { log, secrets, level: Level::Warn, stream: "stderr", line: Arc::default() }
    }

    fn take(&self, bytes: &[u8]) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            for piece in part.chunks(LINE_MAX) {
                line.extend_from_slice(piece);
                if line.ends_with(b"\n") {
                    self.record(&line);
                    line.clear();
                } else if line.len() >= LINE_MAX {
                    // What may become a secret waits for its rest, up to a secret's length.
                    let begun = self.secrets.begun(&line);
                    let end = line.len() - begun;
                    self.record(&line[..end]);
                    line.drain(..end);
                }
            }
        }
    }

    fn record(&self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\r', '\n']);
        if !text.is_empty() {
            let stream = [("stream".to_owned(), self.stream.to_owned())];
            self.log.write(self.level, text, &stream, &self.secrets);
        }
    }
}

impl Drop for LogStream {
    fn drop(&mut self) {
        // The last words of a guest that trapped may lack their newline.
        if Arc::strong_count(&self.line) == 1 {
            let line =
                std::mem::take(&mut *self.line.lock().unwrap_or_else(PoisonError::into_inner));
            self.record(&line);
        }
    }
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    // The default would run a task for each stream.
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {}
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_MAX)
    }
}

impl AsyncWrite for LogStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;
    use crate::plugin::{imports::LogBudget, text::logged};

    fn log() -> Arc<GuestLog> {
        let node = Arc::new(LogBudget::of_node());
        Arc::new(GuestLog::new("p".into(), node, Counter::default()))
    }

    #[test]
    fn lines_are_records_however_they_are_written() {
        let log = log();
        let text = logged(|| {
            let stream = LogStream::stderr(log, Arc::default());
            let mut writer = stream.p2_stream();
            for bytes in ["thread pan", "icked\r\n\nat ", "line 1"] {
                writer.write(Bytes::from_static(bytes.as_bytes())).expect("written");
            }
            drop(writer);
            drop(stream);
        });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains("thread panicked") && lines[0].contains("stderr"), "{text}");
        assert!(lines[1].contains("at line 1"), "{text}");
        assert!(lines.iter().all(|line| line.trim_start().starts_with("WARN")), "{text}");
    }

    #[test]
    fn a_secret_is_found_across_writes_and_pieces() {
        let log = log();
        let secrets = Arc::new(Secrets::of(&[("token", "s3cr3t-Token")]));
        let text = logged(|| {
            let stream = LogStream::stderr(log, secrets);
            stream.take(b"s3cr3t");
            stream.take(b"-Token\n");
            // The line is as long as it may be somewhere within the secret.
            for before in LINE_MAX - 11..LINE_MAX {
                stream.take(&vec![b'x'; before]);
                b"s3cr3t-Token\n".iter().for_each(|byte| stream.take(&[*byte]));
            }
        });
        assert!(!text.contains("s3cr3t") && !text.contains("-Token"));
        assert_eq!(text.matches("[secret token]").count(), 12);
    }

    #[test]
    fn a_line_without_an_end_is_written_in_pieces() {
        let log = log();
        let text =
            logged(|| LogStream::stdout(log, Arc::default()).take(&[b'x'; 3 * LINE_MAX + 1]));
        assert_eq!(text.lines().count(), 4);
    }
}
