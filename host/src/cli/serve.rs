//! `serve`: a node, until it is told to stop.

use std::path::Path;

use cachecluster::node::Node;

use super::{Failure, load, read, start_logging};

/// Where the service manager listens, if it wants to be told: see `sd_notify(3)`.
const MANAGER_VARIABLE: &str = "NOTIFY_SOCKET";

/// Runs a node with the settings in `file`.
pub(super) fn serve(file: &Path) -> Result<(), Failure> {
    let loaded = load(file)?;
    let set_filter = start_logging(&loaded.config.log);
    let file = file.to_owned();
    let node = Node::from_config(&loaded.config, &loaded.base_dir)
        .settings_from(move || read(&file))
        .filter_log_by(set_filter)
        .take_signals()
        .notify(&std::env::var_os(MANAGER_VARIABLE).unwrap_or_default())
        .start()?;
    node.run_until_signal()?;
    Ok(())
}
