//! `config`: the settings as text.

use std::{
    io,
    path::{Path, PathBuf},
};

use cachecluster::config::{self, Config};
use clap::Subcommand;

use super::{
    Failure, load,
    output::{self, complain, is_colored},
};

/// Which text.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum What {
    /// A commented file with every setting and its default
    Default,
    /// The settings in force, each with where it was set
    Show,
    /// The JSON Schema of the file, for editors
    Schema,
    /// The `cachecluster.ini` of gce-cache-cluster as TOML, and what of it is lost
    Import {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Prints `what`; only the settings in force need `file`.
pub(super) fn print(what: &What, file: &Path) -> Result<(), Failure> {
    let text = match what {
        What::Default => config::template(),
        What::Show => config::effective(&load(file)?),
        What::Schema => config::schema_text(),
        What::Import { file } => import(file)?,
    };
    Ok(output::print(&text)?)
}

/// Writes the ancestor's file anew, and says what is to be said about it.
fn import(file: &Path) -> Result<String, Failure> {
    let (text, warnings) = Config::import(file)?;
    for warning in warnings {
        complain(&format!("{}\n", warning.render(is_colored(&io::stderr()))));
    }
    Ok(text)
}
