//! `plugin check`: everything that can be known about a plugin without calling it.

use std::path::PathBuf;

use cachecluster::config::Config;
use clap::Args;

use super::{Exit, Failure, open};
use crate::cli::output::{chain, print};

/// What to check.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// A component, a project's folder, or its manifest
    #[arg(value_name = "FILE|DIR", default_value = ".")]
    path: PathBuf,
}

/// Checks a component under its manifest's limits and grants.
pub(super) fn check(options: &Options) -> Result<(), Failure> {
    let project = open(&options.path)?;
    let mut config = Config::default();
    config.plugins.insert(project.name(), project.settings(None));
    for (name, result) in cachecluster::node::Node::check_plugins(&config, "".as_ref())? {
        match result {
            Ok(digest) => print(&format!("✓ plugin   {name}  {digest}\n"))?,
            Err(error) => {
                print(&format!("✗ plugin   {name}  {}\n", chain(&error)))?;
                return Err(Failure::Said(Exit::Failed));
            }
        }
    }
    Ok(())
}
