//! Python: `componentize-py`, which brings its own interpreter.

use std::{path::Path, process::Command};

use super::{BuildError, Tools, bindings::Interfaces, read, source, tool::find};

const INSTALL: &str = "python3 -m venv .venv && .venv/bin/pip install componentize-py==0.25.1";

/// The module that is the plugin.
const MODULE: &str = "app";

/// Makes a component of `app.py` and what it imports.
pub(super) fn build(folder: &Path, tools: &Tools) -> Result<Vec<u8>, BuildError> {
    source(folder, "app.py", "is the plugin")?;
    let program = find("componentize-py", folder).ok_or_else(|| BuildError::Missing {
        what: "componentize-py, which makes a component of Python,".to_owned(),
        install: INSTALL.to_owned(),
    })?;
    let interfaces = Interfaces::read(folder)?;
    let scratch = tempfile::tempdir().map_err(BuildError::Scratch)?;
    let output = scratch.path().join("component.wasm");
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .args(["--wit-path", "wit", "--world", interfaces.name(), "componentize", MODULE])
        .arg("--output")
        .arg(&output);
    tools.run(command, "make a component of the sources")?;
    read(&output)
}
