//! Programs in Go that benchmarks stand beside ours, built from `tests/go/`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Where Debian's library packages for Go are.
const LIBRARIES: &str = "/usr/share/gocode";

/// The program `name`; `None`, and a word about it, where there is no Go compiler or not the
/// library (Debian's `golang-go` and `golang-github-golang-groupcache-dev`).
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/go").join(name);
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("go-{name}"));
    let build = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(source)
        .envs([("GO111MODULE", "off"), ("GOPATH", LIBRARIES), ("GOFLAGS", "")])
        .output();
    match build {
        Ok(output) if output.status.success() => Some(program),
        Ok(output) => {
            println!("not beside Go: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            println!("not beside Go: {error}");
            None
        }
    }
}
