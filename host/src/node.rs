//! A running node. Stands in for the composition of all parts until it is there.

use std::{net::SocketAddr, path::Path};

use crate::config::Config;

/// A running node.
#[derive(Debug)]
pub struct Node(());

/// One result for each plugin: its digest, or why it does not load.
pub type PluginResults = Vec<(String, Result<String, anyhow::Error>)>;

impl Node {
    /// Starts everything; returns when it serves. Errors name the setting and the remedy.
    pub fn start(_config: &Config, _base_dir: &Path) -> anyhow::Result<Self> {
        anyhow::bail!("the node is not part of this build")
    }

    /// Where clients are served.
    pub fn http_addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    /// Where operators are served.
    pub fn admin_addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    /// Drains and stops: refuses new work, lets requests under way end within
    /// `drain_timeout`, stops in order.
    pub fn stop(self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Blocks until SIGTERM or SIGINT, then stops. A second signal ends at once.
    pub fn run_until_signal(self) -> anyhow::Result<()> {
        self.stop()
    }

    /// Loads the plugins of `config` without serving, for `check`.
    pub fn check_plugins(_config: &Config, _base_dir: &Path) -> anyhow::Result<PluginResults> {
        Ok(Vec::new())
    }
}
