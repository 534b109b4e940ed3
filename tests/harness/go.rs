//! A peer of golang/groupcache, as a process: Debian's Go and its groupcache library.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

/// Where Debian's library packages for Go are.
const LIBRARIES: &str = "/usr/share/gocode";

/// Whether there is a Go compiler and the library. Where tests are run for a change to be
/// taken, both have to be there.
pub(crate) fn is_there() -> bool {
    let has_library = Path::new(LIBRARIES).join("src/github.com/golang/groupcache").is_dir();
    let is_there = has_library && Command::new("go").arg("version").output().is_ok();
    assert!(
        is_there || std::env::var_os("CI").is_none(),
        "install golang-go and golang-github-golang-groupcache-dev"
    );
    is_there
}

/// A running peer, ended when dropped.
pub(crate) struct GoPeer {
    process: Child,
    /// Where its clients ask.
    pub(crate) front: SocketAddr,
}

impl GoPeer {
    /// The peer `name` among `peers`, which fills from `origin`.
    pub(crate) fn start(name: &str, peers: &str, origin: &str) -> Self {
        let mut process = Command::new(program())
            .args(["-self", name, "-peers", peers, "-origin", origin])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the peer runs");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let Ok(front) = line.trim().parse() else {
            process.kill().ok();
            panic!("the peer does not serve: {line:?}");
        };
        Self { process, front }
    }
}

impl Drop for GoPeer {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// The program, built once for all tests of a run.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/go/peer");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-peer");
        let build = Command::new("go")
            .args(["build", "-o"])
            .arg(&program)
            .arg(".")
            .current_dir(source)
            .envs([("GO111MODULE", "off"), ("GOPATH", LIBRARIES), ("GOFLAGS", "")])
            .output()
            .expect("go runs");
        assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
        program
    })
}
