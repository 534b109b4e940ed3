//! Rust: the target for components where the compiler on the `PATH` has it; else Debian's
//! compiler, which can make the standard library for a target without a system.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

use super::{BuildError, Tools, read, source, tool::find};

const INSTALL: &str = "https://rustup.rs tells how; then rustup target add wasm32-wasip2";

const INSTALL_TARGET: &str = "rustup target add wasm32-wasip2";

/// Where Debian's compiler is, whatever else is on the `PATH`.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A line of what cargo prints about what it made.
#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    filenames: Vec<PathBuf>,
    #[serde(default)]
    target: Option<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    crate_types: Vec<String>,
}

/// Builds the package in `folder`.
pub(super) fn build(folder: &Path, tools: &Tools) -> Result<Vec<u8>, BuildError> {
    source(folder, "Cargo.toml", "names the package")?;
    let cargo = find("cargo", folder).ok_or_else(|| BuildError::Missing {
        what: "Rust".to_owned(),
        install: INSTALL.to_owned(),
    })?;
    let compiler = Compiler::choose(folder, tools)?;
    let mut command = Command::new(cargo);
    command
        .current_dir(folder)
        .args(["build", "--release", "--lib", "--message-format=json-render-diagnostics"])
        .args(["--target", compiler.target])
        .args(&compiler.arguments)
        .env("CARGO_ENCODED_RUSTFLAGS", compiler.flags())
        .envs(compiler.environment);
    let messages = tools.run(command, "build the package")?;
    read(&component_in(&messages).ok_or(BuildError::NoSource {
        path: folder.join("Cargo.toml"),
        purpose: "needs a library with `crate-type = [\"cdylib\"]`",
    })?)
}

/// The file of the last library that cargo made.
fn component_in(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let libraries = messages.filter(|message| {
        let is_library = |target: &Target| target.crate_types.iter().any(|kind| kind == "cdylib");
        message.reason == "compiler-artifact" && message.target.as_ref().is_some_and(is_library)
    });
    let is_component = |file: &PathBuf| file.extension().is_some_and(|it| it == "wasm");
    libraries.flat_map(|library| library.filenames).rfind(is_component)
}

/// What compiles for WebAssembly.
struct Compiler {
    target: &'static str,
    arguments: Vec<&'static str>,
    environment: Vec<(&'static str, OsString)>,
    linker: Option<&'static str>,
    sysroot: String,
}

impl Compiler {
    fn choose(folder: &Path, tools: &Tools) -> Result<Self, BuildError> {
        let rustc = find("rustc", folder);
        let target = "wasm32-wasip2";
        if let Some(rustc) = &rustc {
            let asked = ["--print", "target-libdir", "--target", target];
            if ask(tools, rustc, &asked).is_some_and(|folder| Path::new(&folder).is_dir()) {
                return Ok(Self {
                    target,
                    arguments: Vec::new(),
                    environment: Vec::new(),
                    linker: None,
                    sysroot: ask(tools, rustc, &["--print", "sysroot"]).unwrap_or_default(),
                });
            }
        }
        Self::debian(rustc.as_deref(), tools).ok_or_else(|| BuildError::Missing {
            what: "Rust's target for components".to_owned(),
            install: if find("rustup", folder).is_some() { INSTALL_TARGET } else { INSTALL }
                .to_owned(),
        })
    }

    /// Debian's compiler and the sources of its library, with the linker for components
    /// that comes with the compiler on the `PATH`.
    fn debian(rustc: Option<&Path>, tools: &Tools) -> Option<Self> {
        let debian = Path::new(DEBIAN_RUSTC);
        let sysroot = debian.is_file().then(|| ask(tools, debian, &["--print", "sysroot"]))??;
        Path::new(&sysroot).join("lib/rustlib/src/rust/library/std").is_dir().then_some(())?;
        let rustc = rustc?;
        let about = ask(tools, rustc, &["-vV"])?;
        let host = about.lines().find_map(|line| line.strip_prefix("host: "))?;
        let own = PathBuf::from(ask(tools, rustc, &["--print", "sysroot"])?);
        let linkers = own.join("lib/rustlib").join(host).join("bin");
        linkers.join("wasm-component-ld").is_file().then_some(())?;
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(std::iter::once(linkers).chain(env::split_paths(&path))).ok()?;
        Some(Self {
            target: "wasm32-unknown-unknown",
            arguments: vec!["-Zbuild-std=std,panic_abort"],
            environment: vec![
                ("PATH", path),
                ("RUSTC", DEBIAN_RUSTC.into()),
                // It is a stable compiler, and to build the library is not.
                ("RUSTC_BOOTSTRAP", "1".into()),
            ],
            linker: Some("-Clinker=wasm-component-ld"),
            sysroot,
        })
    }

    /// Flags for the compiler, in cargo's encoding. A component keeps the paths of its
    /// sources, for the messages of panics: they are no one's business. The package's own
    /// are relative to its folder already; to name that here would have the standard
    /// library built for each folder anew.
    fn flags(&self) -> OsString {
        let home = env::var_os("CARGO_HOME").map_or_else(
            || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"),
            PathBuf::from,
        );
        let renamed = [
            (home.join("registry/src"), "/crates"),
            (Path::new(&self.sysroot).join("lib/rustlib/src/rust"), "/rust"),
        ];
        let mut flags: Vec<OsString> = self.linker.into_iter().map(Into::into).collect();
        for (path, name) in renamed {
            let mut flag = OsString::from("--remap-path-prefix=");
            flag.push(path);
            flag.push("=");
            flag.push(name);
            flags.push(flag);
        }
        // The author's own flags would be lost otherwise.
        let own = env::var("RUSTFLAGS").unwrap_or_default();
        flags.extend(own.split_whitespace().map(Into::into));
        flags.join("\x1f".as_ref())
    }
}

/// What a compiler answers to a question.
fn ask(tools: &Tools, rustc: &Path, question: &[&str]) -> Option<String> {
    let mut command = Command::new(rustc);
    command.args(question);
    Some(tools.run(command, "ask a compiler").ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_component_is_the_last_library_that_cargo_made() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"crate_types":["lib"]},"filenames":["/t/liba.rlib"]}
{"reason":"compiler-artifact","target":{"crate_types":["cdylib","rlib"]},"filenames":["/t/b.wasm","/t/libb.rlib"]}
{"reason":"build-finished","success":true}"#;
        assert_eq!(component_in(messages), Some("/t/b.wasm".into()));
        assert_eq!(component_in(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
