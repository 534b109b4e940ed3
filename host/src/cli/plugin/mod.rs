//! `plugin`: what the author of a plugin does with it; one verb a file.

mod check;

use std::{io, path::Path};

use cachecluster::workbench::project::{Project, ProjectError};
use clap::Subcommand;

use super::{
    Exit, Failure,
    output::{complain, is_colored},
};

/// What to do with a plugin.
#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// Check a component, or a project with its manifest, without calling it
    Check(check::Options),
}

/// Does `what`.
pub(super) fn run(what: &What) -> Result<(), Failure> {
    match what {
        What::Check(options) => check::check(options),
    }
}

/// Opens what a verb was given, and says what is doubtful about it.
fn open(path: &Path) -> Result<Project, Failure> {
    let is_colored = is_colored(&io::stderr());
    match Project::open(path) {
        Ok(project) => {
            for warning in &project.warnings {
                complain(&format!("{}\n", warning.render(is_colored)));
            }
            Ok(project)
        }
        Err(ProjectError::Manifest(reports)) => Err(Failure::Settings(reports)),
        Err(error @ (ProjectError::NotFound(_) | ProjectError::NoManifest(_))) => {
            complain(&format!("error: {error}"));
            Err(Failure::Said(Exit::Usage))
        }
        Err(error) => Err(Failure::Other(error.into())),
    }
}
