//! A real dictionary server: Debian's `dictd` with the `gcide` dictionary.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{server::Server, until};

const PROGRAM: &str = "/usr/sbin/dictd";
const INDEX: &str = "/usr/share/dictd/gcide.index";
const DATA: &str = "/usr/share/dictd/gcide.dict.dz";

/// `dictd` on a loopback address of its own, until dropped.
pub(crate) struct Dictd {
    addr: SocketAddr,
    /// Goes before its folder does.
    server: Server,
    folder: TempDir,
}

/// Whether the server and its dictionary are installed. Where `CI` is set they must
/// be: there, a test that is skipped has not passed.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub(crate) fn installed() -> bool {
    let there = [PROGRAM, INDEX, DATA].iter().all(|path| Path::new(path).exists());
    assert!(
        there || std::env::var_os("CI").is_none(),
        "dictd is not installed: apt-get install dictd dict-gcide"
    );
    if !there {
        eprintln!("skipped: needs Debian's packages dictd and dict-gcide");
    }
    there
}

impl Dictd {
    /// Starts the server and waits until it answers.
    pub(crate) async fn start() -> Self {
        // An address for each server of this process, so that they never meet.
        static SERVERS: AtomicU8 = AtomicU8::new(1);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let host = Ipv4Addr::new(127, 64 + SERVERS.fetch_add(1, Ordering::SeqCst), high, low);
        let addr = SocketAddr::new(host.into(), 2_628);
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(
            folder.path().join("dictd.conf"),
            format!(
                "global {{ listen_to {host} }}\ndatabase gcide {{ data {DATA}\n index {INDEX} }}\n"
            ),
        )
        .expect("to write the configuration");
        let mut dictd = Self { addr, folder, server: Server::default() };
        dictd.restart().await;
        dictd
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Kills the server, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts the server again, at the address it had.
    pub(crate) async fn restart(&mut self) {
        let folder = self.folder.path();
        let mut command = Command::new(PROGRAM);
        command
            .args(["-d", "nodetach", "--config"])
            .arg(folder.join("dictd.conf"))
            .arg("--pid-file")
            .arg(folder.join("dictd.pid"))
            .args(["--limit", "200"]);
        self.server.restart(&mut command);
        let addr = self.addr;
        until("dictd listens", || async move { TcpStream::connect(addr).await.is_ok() }).await;
    }
}

/// `count` headwords of the dictionary, taken evenly from all over it.
pub(crate) fn headwords(count: usize) -> Vec<String> {
    let index = fs::read(INDEX).expect("the index");
    let words: Vec<_> = index
        .split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line.split(|byte| *byte == b'\t').next()?).ok())
        // What a headword of a database itself begins with is about the database.
        .filter(|word| !word.is_empty() && !word.starts_with("00-"))
        .collect();
    let step = words.len() / count;
    words.iter().step_by(step).take(count).map(|word| (*word).to_owned()).collect()
}
