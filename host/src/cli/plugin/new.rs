//! `plugin new`: a project to begin with.

use std::path::PathBuf;

use cachecluster::workbench::{
    manifest::Lang,
    new::{NewError, new as write},
};
use clap::{Args, ValueEnum};

use super::{Exit, Failure};
use crate::cli::output::{complain, print};

/// What to begin.
#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    /// The plugin's name, which is that of its group and of its component too
    name: String,
    /// The language it is written in
    #[arg(long, value_enum)]
    lang: Choice,
    /// Where to write it [default: a folder of the plugin's name]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// A language, as it stands on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Choice {
    Rust,
    C,
    Js,
    Python,
    Go,
}

impl From<Choice> for Lang {
    fn from(choice: Choice) -> Self {
        match choice {
            Choice::Rust => Self::Rust,
            Choice::C => Self::C,
            Choice::Js => Self::Js,
            Choice::Python => Self::Python,
            Choice::Go => Self::Go,
        }
    }
}

/// Writes a project.
pub(super) fn new(options: &Options) -> Result<(), Failure> {
    let folder = options.dir.clone().unwrap_or_else(|| PathBuf::from(&options.name));
    match write(&options.name, options.lang.into(), &folder) {
        Ok(()) => {}
        Err(error @ NewError::Unwritable { .. }) => return Err(anyhow::Error::from(error).into()),
        Err(error) => {
            complain(&format!("error: {error}"));
            return Err(Failure::Said(Exit::Usage));
        }
    }
    let folder = folder.display();
    print(&format!(
        "✓ new      {folder}\n\nIts README.md says what it needs. Then:\n\n    cd {folder}\n    \
         cachecluster plugin build\n    cachecluster plugin test\n    cachecluster serve\n"
    ))?;
    Ok(())
}
