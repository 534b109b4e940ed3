//! From a project's sources to its component, with the tools of its language.
//!
//! One file a language says which tools it needs, where they are looked for and how they
//! are called. What they make is made a component where it is none yet, checked to be a
//! plugin, and only then put in its place, at once: a node that watches the file never
//! sees half of it, and a build that fails leaves what was there.

mod bindings;
mod c;
mod go;
mod js;
mod python;
mod rust;
mod tool;
mod watch;

use std::{
    borrow::Cow,
    fs::{self, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use thiserror::Error;
use wit_parser::decoding::DecodedWasm;

pub use self::{tool::Tools, watch::Watch};
use super::{manifest::Lang, project::Project};
use crate::plugin::{Problem, componentize};

/// What every plugin exports, whatever its version.
const GETTER: &str = "cachecluster:plugin/getter@";

/// Why nothing was built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The manifest does not say how.
    #[error(
        "{} does not say in which language the plugin is written: set `lang` in its table \
         `plugin`, to one of rust, c, js, python, go",
        .0.display()
    )]
    NoLang(PathBuf),
    /// A tool is not installed.
    #[error("{what} is missing; to install it: {install}")]
    Missing {
        /// The tool, and what it is there for.
        what: String,
        /// One command to copy.
        install: String,
    },
    /// A source file that the language cannot do without is not there.
    #[error("there is no {}, which {purpose}", .path.display())]
    NoSource {
        /// The file.
        path: PathBuf,
        /// What it is there for.
        purpose: &'static str,
    },
    /// A tool is there and does not run.
    #[error("cannot run {program}: {error}")]
    Unrunnable {
        /// The tool.
        program: String,
        /// What the system says.
        error: io::Error,
    },
    /// A tool was not content.
    #[error("{command}: {status}, and so failed to {purpose}\n\n{said}")]
    Failed {
        /// What it was to do.
        purpose: String,
        /// The whole command.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        said: String,
    },
    /// A tool came to no end.
    #[error("it took longer than {} s to {purpose}", .time.as_secs())]
    TooSlow {
        /// What it was to do.
        purpose: String,
        /// The time it had.
        time: Duration,
    },
    /// The build was stopped from outside.
    #[error("the build was stopped")]
    Stopped,
    /// There is no room for temporary files.
    #[error("cannot write a temporary file: {0}; set TMPDIR to a folder with room")]
    Scratch(io::Error),
    /// A file of the project cannot be written.
    #[error("cannot write {}: {error}", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The interfaces in the project's folder `wit` are none.
    #[error("the folder `wit`: {0}")]
    Wit(String),
    /// What was built is no component, and cannot be made one.
    #[error("what was built cannot be used: {0}")]
    Component(#[from] Problem),
    /// What was built is a component and no plugin.
    #[error("what was built is no plugin: {0}")]
    Contract(String),
}

/// Builds `project` with `tools`, and puts the component in its place; gives its bytes.
/// Takes as long as its tools do: not for a serving thread.
///
/// # Errors
/// A tool that is missing, with what installs it; what a tool said; or what is wrong with
/// what it made. The component in place is then the one that was there.
pub fn build(project: &Project, tools: &Tools) -> Result<Vec<u8>, BuildError> {
    let lang = project.manifest.as_ref().and_then(|manifest| manifest.plugin.lang);
    let lang = lang.ok_or_else(|| BuildError::NoLang(project.folder.clone()))?;
    let folder = &project.folder;
    let built = match lang {
        Lang::Rust => rust::build(folder, tools),
        Lang::C => c::build(folder, tools),
        Lang::Js => js::build(folder, tools),
        Lang::Python => python::build(folder, tools),
        Lang::Go => go::build(folder, tools),
    }?;
    let component = match componentize(&built)? {
        Cow::Borrowed(_) => built,
        Cow::Owned(component) => component,
    };
    check(&component)?;
    install(&component, &project.component)?;
    Ok(component)
}

/// Puts `component` at `path`, in the place of whatever is there, at once.
///
/// # Errors
/// The folder cannot be written to.
pub fn install(component: &[u8], path: &Path) -> Result<(), BuildError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let placed = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
        file.write_all(component)?;
        // Temporary files are their owner's alone, and a node runs as somebody else.
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)
    });
    placed.map(drop).map_err(|error| BuildError::Unwritable { path: path.to_owned(), error })
}

/// Whether `component` exports what makes it a plugin. The types, and what it imports,
/// are checked by whoever loads it.
fn check(component: &[u8]) -> Result<(), BuildError> {
    let contract = |error: &anyhow::Error| BuildError::Contract(format!("{error:#}"));
    match wit_parser::decoding::decode(component).map_err(|error| contract(&error))? {
        DecodedWasm::Component(resolve, world) => {
            let exports = &resolve.worlds[world].exports;
            let mut names = exports.keys().map(|key| resolve.name_world_key(key));
            if names.any(|name| name.starts_with(GETTER)) {
                return Ok(());
            }
            Err(BuildError::Contract(format!("it does not export `{GETTER}0.1.0`")))
        }
        DecodedWasm::WitPackage(..) => {
            Err(BuildError::Contract("it has interfaces and no code".to_owned()))
        }
    }
}

/// Reads what a tool made.
fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    fs::read(path)
        .map_err(|_| BuildError::NoSource { path: path.to_owned(), purpose: "the build makes" })
}

/// The file `name` of the project, which is there to `purpose`.
fn source(folder: &Path, name: &str, purpose: &'static str) -> Result<PathBuf, BuildError> {
    let path = folder.join(name);
    if path.is_file() { Ok(path) } else { Err(BuildError::NoSource { path, purpose }) }
}
