//! When a node becomes a member: as soon as it knows where others reach it.
//!
//! As a rule that stands in the settings or is what was bound, and then it is at once. On Compute
//! Engine the metadata server is asked, which may take its time, or not be there: the node serves
//! alone until then.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    task::{AbortHandle, spawn_blocking},
};
use tracing::{debug, info, warn};

use super::{doubt, follow, identity, purges, purges::Purges, seeds};
use crate::{
    cluster::{self, Cluster, Keys, Meta, Sockets, Tuning},
    config::Config,
    discovery::{Discovery, Own, gce::Metadata},
    front::Latch,
    metrics::Metrics,
    peer::Fleet,
    wire::Purge,
};

/// How long the metadata server is asked where it should be, and where it may be.
const PATIENCE: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(1)];

/// Where others reach this node.
#[derive(Clone, Debug)]
pub(super) enum Reached {
    /// Here.
    At(SocketAddr),
    /// The metadata server knows.
    AsToldBy {
        metadata: Metadata,
        /// The interface that it is asked for.
        interface: String,
        /// Every interface is bound, with this port.
        bound: SocketAddr,
    },
}

/// What it takes to become a member.
pub(super) struct Waiting {
    pub(super) sockets: Sockets,
    pub(super) keys: Keys,
    pub(super) to_tell: mpsc::Receiver<Purge>,
    pub(super) settings: Config,
    pub(super) base_dir: PathBuf,
    pub(super) named: watch::Receiver<Vec<String>>,
    pub(super) metadata: Option<Metadata>,
    pub(super) latch: Arc<Latch>,
    pub(super) metrics: Metrics,
    pub(super) control: Handle,
}

/// A member.
pub(super) struct Begun {
    pub(super) cluster: Arc<Cluster>,
    pub(super) discovery: Discovery,
    /// Where other members reach this one.
    pub(super) advertise: SocketAddr,
    tasks: Vec<AbortHandle>,
}

impl Reached {
    /// The address, however long that takes within bounds. What is not told is found out as
    /// it is elsewhere.
    pub(super) async fn find(self) -> anyhow::Result<SocketAddr> {
        let (metadata, interface, bound) = match self {
            Self::At(address) => return Ok(address),
            Self::AsToldBy { metadata, interface, bound } => (metadata, interface, bound),
        };
        let patience = PATIENCE[usize::from(!metadata.is_expected())];
        let address = match metadata.address_within(&interface, patience).await {
            Ok(address) => address,
            Err(error) => {
                let address = own_address(bound.ip())?;
                if metadata.is_expected() {
                    warn!(
                        %error, %address,
                        "Compute Engine does not say at which address others reach this node: it \
                         tells them the one from which this machine reaches its network. \
                         [cluster] advertise names another."
                    );
                } else {
                    // Elsewhere that is as it should be; discovery says where this is.
                    debug!(%error, %address, "Others are told the address of this machine.");
                }
                address
            }
        };
        if address.is_ipv6() != bound.is_ipv6() {
            warn!(
                %address, %bound,
                "Others are told an address that is not bound: set [cluster] bind to \"::\" where \
                 the network has IPv6."
            );
        }
        Ok(SocketAddr::new(address, bound.port()))
    }
}

impl Waiting {
    /// Becomes a member that is what `meta` says.
    pub(super) async fn begin(
        self,
        advertise: SocketAddr,
        meta: Meta,
        fleet: &Arc<Fleet>,
        purges: &Arc<Purges>,
    ) -> anyhow::Result<Begun> {
        let Self { settings, control, metrics, .. } = self;
        let identity = identity(&settings, &self.base_dir, advertise);
        let start = cluster::Settings {
            cluster: settings.cluster.name.clone(),
            keys: self.keys,
            advertise,
            meta,
            identity: identity.clone(),
            tuning: Tuning::default(),
            hear: Arc::clone(purges) as _,
        };
        let sockets = self.sockets;
        // It reads and writes a file, and makes a runtime.
        let cluster = spawn_blocking(move || Cluster::start(start, sockets)).await;
        let cluster = cluster.map_err(Into::into).and_then(|started| started);
        let cluster = Arc::new(cluster.with_context(|| match &identity {
            Some(file) => format!("become a member, as {} ([cluster] identity)", file.display()),
            None => "become a member".to_owned(),
        })?);
        info!(node = %cluster.node(), gossip = %advertise, "Looking for the cluster.");
        fleet.on_doubt(doubt(&cluster));
        purges.feel(cluster.pulse());
        let telling = purges::tell(Arc::clone(purges), self.to_tell, Arc::downgrade(&cluster));
        let telling = control.spawn(telling);
        let own = Own { place: advertise, name: cluster.node().to_string() };
        let sources = seeds::sources(&settings, &self.base_dir, self.named, &own, self.metadata);
        let (discovery, proposed) = Discovery::start(
            sources,
            seeds::size(&cluster),
            |kind| metrics.discovery(kind),
            &control,
        );
        let following = control.spawn(follow::follow(
            cluster.view(),
            Arc::clone(fleet),
            (Arc::clone(purges), metrics.cluster()),
            self.latch,
        ));
        let looking = control.spawn(seeds::propose(Arc::downgrade(&cluster), proposed, advertise));
        let tasks = [following, looking, telling].map(|task| task.abort_handle()).into();
        Ok(Begun { cluster, discovery, advertise, tasks })
    }
}

impl Begun {
    /// Whether there is anybody else.
    pub(super) fn has_others(&self) -> bool {
        let view = self.cluster.view();
        let view = view.borrow();
        view.members.len() + view.unknown > 1
    }

    /// Looks for nobody any more, and follows nobody.
    pub(super) fn end(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.end();
    }
}

/// The address from which this machine reaches others. Nothing is sent for it: the system is
/// asked for the way to an address that is nobody's.
pub(super) fn own_address(unspecified: IpAddr) -> anyhow::Result<IpAddr> {
    let nobody: SocketAddr = match unspecified {
        IpAddr::V4(_) => ([192, 0, 2, 1], 9).into(),
        IpAddr::V6(_) => ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9).into(),
    };
    let found = UdpSocket::bind((unspecified, 0)).and_then(|socket| {
        socket.connect(nobody)?;
        socket.local_addr()
    });
    found.map(|address| address.ip()).map_err(|error| {
        anyhow!(
            "cannot find out at which address others reach this machine: {error}; set \
             [cluster] advertise to it"
        )
    })
}
