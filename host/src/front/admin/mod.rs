//! The surface for operators: health, metrics, status, purges and reloads.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | this table |
//! | `GET /livez` | 200 while the process answers |
//! | `GET /readyz` | 200, or 503 and the reason; `?verbose` lists every latch |
//! | `GET /metrics` | every metric, in the text format of `OpenMetrics` |
//! | `GET /status` | the node, its cluster, its groups and its plugins, as JSON |
//! | `GET /members` | the cluster as this node sees it, as JSON |
//! | `GET /groups/{group}/keys/{key…}` | who owns the key, who holds it, what a get would do |
//! | `DELETE /groups/{group}` | purges a whole group |
//! | `DELETE /groups/{group}/keys/{key…}` | purges one key, written as clients write it |
//! | `DELETE /groups/{group}/tags/{tag}` | purges every value with this label |
//! | `POST /reload` | reads the settings again, and every plugin's file; says what changed |
//! | `POST /plugins/{name}/reload` | has one plugin look at its file; says what came of it |
//!
//! `HEAD` works wherever `GET` does. Errors are problem documents: 409 when a reload was
//! refused and nothing has changed, with the reasons.
//!
//! Invariants:
//! - a browser that a stranger's page drives cannot purge, reload or read here: see
//!   `guard`;
//! - reading is cheap and never waits for a group, a plugin or a peer, but for the
//!   explanation of a key, which asks them;
//! - a reload belongs to nobody's request: who hangs up does not stop it.
//!
//! There is no authentication: whoever reaches the address may purge and reload.

mod actions;
mod guard;
mod routes;
mod server;

use std::{fmt, sync::Arc};

use tokio::time::Instant;

pub use actions::{Acting, Refusal, RefusalKind};
pub use server::{bind, serve};

use super::Readiness;
use crate::{
    group::{Group, Groups},
    metrics::Metrics,
};

/// What the surface shows and acts upon.
pub struct AdminState {
    /// The groups of the node.
    pub groups: Arc<Groups>,
    /// The metrics of the node.
    pub metrics: Metrics,
    /// Whether the node wants traffic.
    pub readiness: Readiness,
    /// Describes the plugins, as a JSON value of its maker's choice.
    pub plugins: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// Describes the cluster, as a JSON value of its maker's choice; null where there is none.
    pub cluster: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// Explains a key of a group, as a JSON value of its maker's choice.
    pub explain: Box<dyn Fn(Arc<Group>, Vec<u8>) -> Acting + Send + Sync>,
    /// Describes the last reload, as a JSON value of its maker's choice.
    pub last_reload: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// Reads the settings again, and every plugin's file.
    pub reload: Box<dyn Fn() -> Acting + Send + Sync>,
    /// Has the plugin of this name look at its file.
    pub reload_plugin: Box<dyn Fn(String) -> Acting + Send + Sync>,
    /// When the node started.
    pub started: Instant,
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminState")
            .field("groups", &self.groups)
            .field("readiness", &self.readiness)
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
