//! The demo's origin: a DICT server on loopback, on a thread of its own.
//!
//! Invariants: a line, a connection's idle time and the number of connections are
//! bounded; [`Origin::stop`] ends every connection and the thread.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    runtime,
    sync::{Semaphore, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    dictionary::Dictionary,
    protocol::{BANNER, BUSY, COMMAND_BYTES_MAX, TOO_LONG, answer},
};

/// More than the plugin's instances, which have one connection each.
const CONNECTIONS_MAX: usize = 64;

/// How long a client may take for its next line, or for taking a reply.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Told of every question the dictionary is asked.
pub(super) type OnQuestion = Arc<dyn Fn(&str) + Send + Sync>;

/// How an origin serves.
#[derive(Clone)]
pub(super) struct Manners {
    /// Time taken for a question, to resemble an origin that is far away.
    pub(super) delay: Duration,
    pub(super) connections_max: usize,
    pub(super) idle_max: Duration,
    pub(super) on_question: OnQuestion,
}

impl Manners {
    pub(super) fn new(delay: Duration, on_question: OnQuestion) -> Self {
        Self { delay, connections_max: CONNECTIONS_MAX, idle_max: IDLE_MAX, on_question }
    }
}

/// A running DICT server.
pub(super) struct Origin {
    address: SocketAddr,
    /// Dropping it ends the thread.
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Origin {
    /// Serves `dictionary` on a free port of loopback.
    pub(super) fn start(dictionary: Dictionary, manners: Manners) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("demo-origin".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, Arc::new(dictionary), manners) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { address, stop, thread })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection and the thread.
    pub(super) fn stop(self) {
        drop(self.stop);
        // A thread that panicked has said so, and is as stopped as any.
        _ = self.thread.join();
    }
}

/// Accepts connections for ever; they end with this future, which owns them.
async fn serve(listener: TcpListener, dictionary: Arc<Dictionary>, manners: Manners) {
    let places = Arc::new(Semaphore::new(manners.connections_max));
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = tokio::select! {
            Ok(accepted) = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            // No file descriptors left, or the like: let some come back.
            else => { sleep(Duration::from_millis(100)).await; continue }
        };
        let place = Arc::clone(&places).try_acquire_owned();
        let (dictionary, manners) = (Arc::clone(&dictionary), manners.clone());
        connections.spawn(async move {
            // Whoever hangs up early loses nothing but the answer.
            _ = match place {
                Ok(_place) => converse(stream, &dictionary, &manners).await,
                Err(_) => refuse(stream).await,
            };
        });
    }
}

async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    timeout(Duration::from_secs(1), stream.write_all(BUSY.as_bytes())).await?
}

/// One client, from the banner to the end.
async fn converse(
    mut stream: TcpStream,
    dictionary: &Dictionary,
    manners: &Manners,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    timeout(manners.idle_max, writer.write_all(BANNER.as_bytes())).await??;
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut reader).take(COMMAND_BYTES_MAX as u64);
        let length = timeout(manners.idle_max, bounded.read_until(b'\n', &mut line)).await??;
        if length == 0 {
            return Ok(());
        }
        if line.pop() != Some(b'\n') {
            // Either the client left in the middle of a line, or the line has no end;
            // what follows it would be taken for a command.
            return timeout(manners.idle_max, writer.write_all(TOO_LONG.as_bytes())).await?;
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let reply = answer(dictionary, &line);
        if let Some(question) = &reply.question {
            (manners.on_question)(question);
            sleep(manners.delay).await;
        }
        timeout(manners.idle_max, writer.write_all(reply.text.as_bytes())).await??;
        if reply.is_last {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Read as _, Write as _},
        net::TcpStream,
        sync::Mutex,
    };

    use super::*;

    fn manners() -> Manners {
        Manners::new(Duration::ZERO, Arc::new(|_| {}))
    }

    fn start(manners: Manners) -> Origin {
        Origin::start(Dictionary::bundled(), manners).expect("listen on loopback")
    }

    /// Sends `commands` at once and reads until the server ends the connection.
    fn converse(origin: &Origin, commands: &[u8]) -> String {
        let mut stream = connect(origin);
        stream.write_all(commands).expect("send");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("receive");
        text
    }

    fn connect(origin: &Origin) -> TcpStream {
        let stream = TcpStream::connect(origin.address()).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set a timeout");
        stream
    }

    #[test]
    fn a_word_is_defined_over_a_socket() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let note = move |question: &str| seen.lock().expect("no panic").push(question.to_owned());
        let origin = start(Manners::new(Duration::ZERO, Arc::new(note)));
        let text = converse(&origin, b"CLIENT test\r\nDEFINE ! piston\r\nQUIT\r\n");
        assert!(text.starts_with("220 "), "{text}");
        assert!(
            text.contains("\r\n150 1 definitions follow\r\n151 \"piston\" everyday "),
            "{text}"
        );
        assert!(text.ends_with(".\r\n250 ok\r\n221 goodbye\r\n"), "{text}");
        assert_eq!(*asked.lock().expect("no panic"), ["DEFINE ! \"piston\""]);
        origin.stop();
    }

    #[test]
    fn pipelined_commands_are_answered_in_order() {
        let origin = start(manners());
        let text = converse(&origin, b"DEFINE ! dot\r\nDEFINE ! nonesuch\nSTATUS\r\nQUIT\r\n");
        let place = |code: &str| text.find(code).unwrap_or_else(|| panic!("{code} in {text}"));
        assert!(place("\r\n150 1") < place("\r\n552") && place("\r\n552") < place("\r\n210"));
        assert!(text.contains("\r\n..\r\n"), "a dot is doubled: {text}");
        origin.stop();
    }

    #[test]
    fn a_line_without_an_end_ends_the_connection() {
        let origin = start(manners());
        let text = converse(&origin, &[b'x'; COMMAND_BYTES_MAX]);
        assert!(text.ends_with(TOO_LONG), "{text}");
        origin.stop();
    }

    #[test]
    fn an_idle_client_is_dropped() {
        let origin = start(Manners { idle_max: Duration::from_millis(50), ..manners() });
        assert_eq!(converse(&origin, b"DEF"), BANNER);
        origin.stop();
    }

    #[test]
    fn one_connection_too_many_is_refused_until_another_ends() {
        let origin = start(Manners { connections_max: 1, ..manners() });
        let mut first = BufReader::new(connect(&origin));
        let mut line = String::new();
        first.read_line(&mut line).expect("a banner");
        assert_eq!(line, BANNER);
        assert_eq!(converse(&origin, b""), BUSY);
        first.get_mut().write_all(b"QUIT\r\n").expect("send");
        let mut rest = String::new();
        first.read_to_string(&mut rest).expect("the end");
        // The place is free once the server has dropped the connection, which the
        // client sees before the next accept only because both are one thread's.
        assert!(converse(&origin, b"QUIT\r\n").starts_with("220 "));
        origin.stop();
    }

    #[test]
    fn stopping_ends_open_connections() {
        let origin = start(manners());
        let mut open = connect(&origin);
        let mut banner = [0; BANNER.len()];
        open.read_exact(&mut banner).expect("a banner");
        origin.stop();
        assert_eq!(open.read(&mut banner).expect("the end"), 0);
    }
}
