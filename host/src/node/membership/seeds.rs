//! What discovery finds is proposed to the cluster.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Weak},
};

use tokio::sync::watch;

use crate::{
    cluster::Cluster,
    config::Config,
    discovery::{
        Doozer, Etcd, Names, Own, SeedsFile, Source,
        gce::{Gce, Metadata},
    },
};

/// Where the settings say that members may be found. `seeds` are those that they name, which a
/// reload may replace; `own` is this node, for registries; `metadata` is there where Compute
/// Engine is to be asked.
pub(super) fn sources(
    settings: &Config,
    base_dir: &Path,
    seeds: watch::Receiver<Vec<String>>,
    own: &Own,
    metadata: Option<Metadata>,
) -> Vec<Box<dyn Source>> {
    let cluster = &settings.cluster;
    // Also where there are none: a reload may bring some.
    let mut sources: Vec<Box<dyn Source>> = vec![Box::new(Names::new(seeds, cluster.port))];
    if !cluster.seeds_file.as_os_str().is_empty() {
        let file = base_dir.join(&cluster.seeds_file);
        sources.push(Box::new(SeedsFile::new(file, cluster.port)));
    }
    let discovery = &settings.discovery;
    if discovery.etcd.is_on() {
        let etcd = Etcd::new(&discovery.etcd, base_dir, &cluster.name, own.clone());
        sources.push(Box::new(etcd));
    }
    #[cfg(feature = "zookeeper")]
    if discovery.zookeeper.is_on() {
        let settings = &discovery.zookeeper;
        let zookeeper =
            crate::discovery::ZooKeeper::new(settings, base_dir, &cluster.name, own.clone());
        sources.push(Box::new(zookeeper));
    }
    if discovery.doozer.is_on() {
        let doozer = Doozer::new(&discovery.doozer, base_dir, &cluster.name, own.clone());
        sources.push(Box::new(doozer));
    }
    if let Some(metadata) = metadata {
        sources.push(Box::new(Gce::new(settings, metadata)));
    }
    sources
}

/// How many members `cluster` has at each moment.
pub(super) fn size(cluster: &Arc<Cluster>) -> impl Fn() -> usize + Clone + Send + Sync + 'static {
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
