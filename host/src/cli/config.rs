//! `config`: the settings as text.

use std::path::Path;

use cachecluster::config;
use clap::Subcommand;

use super::{Failure, load, output};

/// Which text.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum What {
    /// A commented file with every setting and its default
    Default,
    /// The settings in force, each with where it was set
    Show,
    /// The JSON Schema of the file, for editors
    Schema,
}

/// Prints `what`; only the settings in force need `file`.
pub(super) fn print(what: What, file: &Path) -> Result<(), Failure> {
    let text = match what {
        What::Default => config::template(),
        What::Show => config::effective(&load(file)?),
        What::Schema => config::schema_text(),
    };
    Ok(output::print(&text)?)
}
