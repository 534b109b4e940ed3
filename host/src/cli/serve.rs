//! `serve`: a node, until it is told to stop.

use std::path::Path;

use cachecluster::node::Node;

use super::{Failure, load, start_logging};

/// Runs a node with the settings in `file`.
pub(super) fn serve(file: &Path) -> Result<(), Failure> {
    let loaded = load(file)?;
    start_logging(&loaded.config.log);
    let node = Node::start(&loaded.config, &loaded.base_dir)?;
    node.run_until_signal()?;
    Ok(())
}
