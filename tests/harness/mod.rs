//! Starts nodes, origins and proxies for the tests, and ends them.
//!
//! Whatever is started is ended when its handle is dropped, so that a failing test
//! leaves nothing behind. Waits are on conditions, with one generous bound.

pub(crate) mod chaos;
pub(crate) mod client;
pub(crate) mod command;
pub(crate) mod dict_client;
pub(crate) mod dictd;
pub(crate) mod doozer;
pub(crate) mod etcd;
pub(crate) mod gce;
pub(crate) mod go;
pub(crate) mod load;
pub(crate) mod node;
pub(crate) mod origin;
pub(crate) mod proxy;
mod server;
#[cfg(feature = "zookeeper")]
pub(crate) mod zookeeper;

use std::{future::Future, time::Duration};

use tokio::time::Instant;

/// How long a test waits for something that should happen at once: far beyond what a
/// busy machine needs, and short enough to report a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub(crate) async fn until<F>(what: &str, mut condition: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
