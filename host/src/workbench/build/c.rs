//! C: Zig's compiler, and bindings that are generated here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{BuildError, Tools, bindings::Interfaces, read, tool::find};

const INSTALL: &str = "python3 -m venv .venv && .venv/bin/pip install ziglang==0.17.1";

/// Compiles `src/*.c` and the bindings into one module.
pub(super) fn build(folder: &Path, tools: &Tools) -> Result<Vec<u8>, BuildError> {
    let sources = files(&folder.join("src"), "c")?;
    if sources.is_empty() {
        let path = folder.join("src");
        return Err(BuildError::NoSource { path, purpose: "has the sources, `*.c`" });
    }
    let mut compile = compiler(folder, tools)?;
    let bindings = Interfaces::read(folder)?.write_c(folder)?;
    let scratch = tempfile::tempdir().map_err(BuildError::Scratch)?;
    let module = scratch.path().join("module.wasm");
    compile
        // A library: it is called again and again, and has no `main`.
        .args(["-mexec-model=reactor", "-Os", "-Wall", "-Wextra", "-s"])
        // Zig's own choice is 16 MiB, which every instance would take.
        .arg("-Wl,-z,stack-size=1048576")
        .arg("-I")
        .arg(&bindings)
        .arg("-o")
        .arg(&module)
        .args(sources)
        .args(files(&bindings, "c")?)
        .args(files(&bindings, "o")?);
    tools.run(compile, "compile the sources")?;
    read(&module)
}

/// The first compiler that there is: Zig by itself, or as a Python package.
fn compiler(folder: &Path, tools: &Tools) -> Result<Command, BuildError> {
    let zig = |mut zig: Command| {
        zig.args(["cc", "-target", "wasm32-wasi"]);
        zig
    };
    if let Some(program) = find("zig", folder) {
        return Ok(zig(Command::new(program)));
    }
    if let Some(python) = find("python3", folder) {
        let mut probe = Command::new(&python);
        probe.args(["-c", "import ziglang"]);
        if tools.run(probe, "look for Zig").is_ok() {
            let mut command = Command::new(python);
            command.args(["-m", "ziglang"]);
            return Ok(zig(command));
        }
    }
    Err(BuildError::Missing {
        what: "Zig, which compiles C for WebAssembly,".to_owned(),
        install: INSTALL.to_owned(),
    })
}

/// The files in `folder` whose names end in `extension`, in order.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, BuildError> {
    let unreadable =
        || BuildError::NoSource { path: folder.to_owned(), purpose: "has the sources, `*.c`" };
    let entries = fs::read_dir(folder).map_err(|_| unreadable())?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    Ok(files)
}
