//! What discovery finds is proposed to the cluster.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Weak},
};

use tokio::sync::watch;

use crate::{
    cluster::Cluster,
    config,
    discovery::{Names, SeedsFile, Source},
};

/// Where the settings say that members may be found. `seeds` are those that they name, which a
/// reload may replace.
pub(super) fn sources(
    settings: &config::Cluster,
    base_dir: &Path,
    seeds: watch::Receiver<Vec<String>>,
) -> Vec<Box<dyn Source>> {
    // Also where there are none: a reload may bring some.
    let mut sources: Vec<Box<dyn Source>> = vec![Box::new(Names::new(seeds, settings.port))];
    if !settings.seeds_file.as_os_str().is_empty() {
        let file = base_dir.join(&settings.seeds_file);
        sources.push(Box::new(SeedsFile::new(file, settings.port)));
    }
    sources
}

/// How many members `cluster` has at each moment.
pub(super) fn size(cluster: &Arc<Cluster>) -> impl Fn() -> usize + Clone + Send + 'static {
    let view = cluster.view();
    move || {
        let view = view.borrow();
        view.members.len() + view.unknown
    }
}

/// Has `cluster` try what is `proposed`, for as long as both are there. `own` is this node's
/// address, which is left out.
pub(super) async fn propose(
    cluster: Weak<Cluster>,
    mut proposed: watch::Receiver<Vec<SocketAddr>>,
    own: SocketAddr,
) {
    while proposed.changed().await.is_ok() {
        let mut places = proposed.borrow_and_update().clone();
        places.retain(|place| *place != own);
        let Some(cluster) = cluster.upgrade() else { return };
        cluster.join(places).await;
    }
}
