//! JavaScript: the engine that the project's `package.json` asks for.
//!
//! `StarlingMonkey` (`componentize-js`) is large and has `fetch`; `QuickJS`
//! (`componentize-qjs`) is small and has not.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde::Deserialize;

use super::{BuildError, Tools, bindings::Interfaces, read, source, tool::find_npm};

const STARLING_MONKEY: &str = "@bytecodealliance/componentize-js";
const QUICK_JS: &str = "componentize-qjs";

/// What matters here of a `package.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Package {
    main: Option<String>,
    dependencies: BTreeMap<String, String>,
    dev_dependencies: BTreeMap<String, String>,
}

impl Package {
    fn asks_for(&self, name: &str) -> bool {
        self.dependencies.contains_key(name) || self.dev_dependencies.contains_key(name)
    }
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
    let (tool, engine) = if package.asks_for(QUICK_JS) && !package.asks_for(STARLING_MONKEY) {
        ("componentize-qjs", QUICK_JS)
    } else {
        ("componentize-js", STARLING_MONKEY)
    };
    let program = find_npm(tool, folder).ok_or_else(|| BuildError::Missing {
        what: format!("{engine}, which makes a component of JavaScript,"),
        install: if package.asks_for(engine) {
            "npm install".to_owned()
        } else {
            format!("npm install --save-dev {engine}")
        },
    })?;

    let interfaces = Interfaces::read(folder)?;
    let scratch = tempfile::tempdir().map_err(BuildError::Scratch)?;
    let output = scratch.path().join("component.wasm");
    let mut command = Command::new(program);
    command.current_dir(folder);
    if tool == "componentize-js" {
        command.args(["--wit", "wit", "--world-name", interfaces.name()]);
        command.arg("--out").arg(&output).arg(main);
    } else {
        // `--sync`: the contract's functions are, and the node offers nothing else.
        command.args(["--sync", "--wit", "wit", "--world", interfaces.name(), "--js", main]);
        command.arg("--output").arg(&output);
    }
    tools.run(command, "make a component of the sources")?;
    read(&output)
}
