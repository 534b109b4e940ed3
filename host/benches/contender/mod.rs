//! Nodes in processes of their own, ours and Go's, whose CPU time is measured, and the client
//! that asks both in the same way.
//!
//! All processes run on one core, so that what they cost is comparable. Where the client runs
//! decides what is measured: on the same core, all its questions wait by the time that a process
//! gets to run, as they do for a node *at its limit*. On another core, a node *at ease* is woken
//! for nearly every question.

pub(crate) mod floor;
pub(crate) mod go;
pub(crate) mod hyper;
pub(crate) mod ours;

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

/// A node in a process, ended when dropped.
pub(crate) struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Process {
    /// Starts `program` on the core of all contenders.
    pub(crate) fn start(program: &Path, arguments: &[String]) -> Self {
        let mut child = Command::new("taskset")
            .args(["-c", &CORE.to_string()])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("taskset runs");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, lines }
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().expect("a pipe"), "{line}").expect("it reads");
    }

    /// Nanoseconds that its threads have run.
    pub(crate) fn used(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("procfs");
        let of = |task: io::Result<fs::DirEntry>| {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        };
        tasks.filter_map(of).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Starts this program once more, as one of a pair: an owner, or with one the front of it. Gives
/// the address at which it listens.
pub(crate) fn start_as(
    argument: &str,
    size: usize,
    owner: Option<SocketAddr>,
) -> (Process, SocketAddr) {
    let program = std::env::current_exe().expect("this program");
    let owner = owner.map(|owner| owner.to_string());
    let arguments = [argument.to_owned(), size.to_string()].into_iter().chain(owner);
    let mut process = Process::start(Path::new(&program), &arguments.collect::<Vec<_>>());
    let address = process.line().parse().expect("an address");
    (process, address)
}

/// The core of all contenders.
pub(crate) const CORE: u32 = 0;

/// Has the client, which is this thread, run on `core`; says whether there is such a core.
pub(crate) fn stand_on(core: u32) -> bool {
    let own = std::process::id().to_string();
    let moved = Command::new("taskset").args(["-c", "-p", &core.to_string(), &own]).output();
    moved.is_ok_and(|output| output.status.success())
}

/// A client that asks on all its connections, then reads all replies.
pub(crate) struct Client {
    connections: Vec<TcpStream>,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, connections: usize) -> io::Result<Self> {
        let connect = |_| {
            let socket = TcpStream::connect(address)?;
            socket.set_nodelay(true)?;
            Ok(socket)
        };
        let connections = (0..connections).map(connect).collect::<io::Result<_>>()?;
        Ok(Self { connections, buffer: vec![0; 1 << 20] })
    }

    /// Gets each of `paths`, whose replies must have a body of at least `body` bytes.
    pub(crate) fn get(&mut self, paths: &[String], body: usize) -> io::Result<()> {
        for paths in paths.chunks(self.connections.len()) {
            for (connection, path) in self.connections.iter_mut().zip(paths) {
                let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
                connection.write_all(request.as_bytes())?;
            }
            for (connection, path) in self.connections.iter_mut().zip(paths) {
                let got = read_reply(connection, &mut self.buffer)?;
                if got < body {
                    return Err(io::Error::other(format!("{got} bytes of {path}")));
                }
            }
        }
        Ok(())
    }
}

/// Reads a reply; how long its body is. It has a length, or comes in chunks, as Go's longer
/// ones do.
fn read_reply(connection: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut end = 0;
    let head = loop {
        end += read_some(connection, &mut buffer[end..])?;
        if let Some(at) = buffer[..end].windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    if !text.starts_with("http/1.1 200 ") {
        return Err(io::Error::other(format!("no value: {text}")));
    }
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if let Some(length) = field("content-length:").and_then(|length| length.parse().ok()) {
        while end < head + length {
            end += read_some(connection, &mut buffer[end..])?;
        }
        return Ok(length);
    }
    let (mut at, mut body) = (head, 0);
    loop {
        let line = loop {
            match buffer[at..end].windows(2).position(|two| two == b"\r\n") {
                Some(length) => break at + length,
                None => end += read_some(connection, &mut buffer[end..])?,
            }
        };
        let digits = std::str::from_utf8(&buffer[at..line]).unwrap_or_default();
        let length = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
        at = line + 2 + length + 2;
        while end < at {
            end += read_some(connection, &mut buffer[end..])?;
        }
        body += length;
        if length == 0 {
            return Ok(body);
        }
    }
}

fn read_some(connection: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    match connection.read(buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(count),
    }
}

/// The median of what rounds have cost.
pub(crate) fn median(mut costs: Vec<f64>) -> f64 {
    costs.sort_by(f64::total_cmp);
    costs[costs.len() / 2]
}
