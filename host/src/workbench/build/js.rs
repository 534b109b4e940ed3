//! JavaScript: `componentize-js`, which brings the engine `StarlingMonkey`.
//!
//! The smaller engine of `componentize-qjs` 0.4.5 cannot be used: it keeps what a call only
//! borrows, as the contract's context, and it cannot build a world with `wasi:http`.

use std::{fs, path::Path, process::Command};

use serde::Deserialize;

use super::{BuildError, Tools, bindings::Interfaces, read, source, tool::find_npm};

/// What matters here of a `package.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Package {
    main: Option<String>,
}

/// Makes a component of the module that `package.json` calls `main`.
pub(super) fn build(folder: &Path, tools: &Tools) -> Result<Vec<u8>, BuildError> {
    let manifest = source(folder, "package.json", "names the source and the tools")?;
    let package: Package = fs::read(&manifest)
        .map_err(serde_json::Error::io)
        .and_then(|text| serde_json::from_slice(&text))
        .map_err(|_| BuildError::NoSource {
            path: manifest,
            purpose: "has to be JSON: `main` names the source, `devDependencies` the tools",
        })?;
    let main = package.main.as_deref().unwrap_or("getter.js");
    source(folder, main, "is the `main` of package.json")?;
    let program = find_npm("componentize-js", folder).ok_or_else(|| BuildError::Missing {
        what: "componentize-js, which makes a component of JavaScript,".to_owned(),
        install: "npm install".to_owned(),
    })?;

    let interfaces = Interfaces::read(folder)?;
    let scratch = tempfile::tempdir().map_err(BuildError::Scratch)?;
    let output = scratch.path().join("component.wasm");
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .args(["--wit", "wit", "--world-name", interfaces.name()])
        .arg("--out")
        .arg(&output)
        .arg(main);
    tools.run(command, "make a component of the sources")?;
    read(&output)
}
