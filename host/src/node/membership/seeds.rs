//! Where members may be found, looked up again and again: what a name means changes, and a
//! name that means nothing yet may do so in a moment.

use std::{net::SocketAddr, sync::Weak, time::Duration};

use tokio::{
    net::lookup_host,
    sync::watch,
    time::{sleep, timeout},
};
use tracing::warn;

use crate::{cluster::Cluster, config::cluster::seed};

/// Between two looks when all is well, at most; a fifth of it less by chance.
const EVERY: Duration = Duration::from_secs(30);

/// Before the second look after one in which a name meant nothing; then twice as long.
const AGAIN: Duration = Duration::from_millis(500);

/// Time for one name.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses that one name may mean.
const ADDRESSES_MAX: usize = 64;

/// Looks `seeds` up for as long as `cluster` is there. A seed without a port has `port`;
/// `own` is this node's address, which is left out.
pub(super) async fn look(
    cluster: Weak<Cluster>,
    mut seeds: watch::Receiver<Vec<String>>,
    (port, own): (u16, SocketAddr),
) {
    let mut failed = 0;
    loop {
        let named = seeds.borrow_and_update().clone();
        let (mut found, mut unknown) = (Vec::new(), Vec::new());
        for text in &named {
            match addresses(text, port).await {
                Ok(addresses) => found.extend(addresses),
                Err(reason) => unknown.push(format!("{text}: {reason}")),
            }
        }
        found.retain(|address| *address != own);
        found.sort_unstable();
        found.dedup();
        // A name that fails for a moment does not take the addresses along that it had.
        if unknown.is_empty() || !found.is_empty() {
            let Some(cluster) = cluster.upgrade() else { return };
            cluster.join(found).await;
        }
        failed = if unknown.is_empty() { 0 } else { failed + 1 };
        if failed == 1 {
            warn!(seeds = ?unknown, "Seeds cannot be looked up; trying again.");
        }
        let pause = match failed {
            0 => EVERY,
            times => EVERY.min(AGAIN * (1 << times.min(8))),
        };
        tokio::select! {
            () = sleep(pause.mul_f64(1.0 - 0.2 * fastrand::f64())) => {}
            changed = seeds.changed() => if changed.is_err() { return },
        }
    }
}

async fn addresses(text: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let seed = seed(text).map_err(|error| error.to_string())?;
    let looked_up = lookup_host((seed.host.as_str(), seed.port.unwrap_or(port)));
    let found = timeout(LOOKUP_TIMEOUT, looked_up).await;
    let found = found.map_err(|_elapsed| "no answer in time".to_owned())?;
    Ok(found.map_err(|error| error.to_string())?.take(ADDRESSES_MAX).collect())
}
