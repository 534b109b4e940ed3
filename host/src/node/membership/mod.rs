//! This node as a member of a cluster: who else there is becomes who is asked for keys.
//!
//! The cluster knows members and no ring, the fleet a ring and no members; this is where the
//! one becomes the other. What is found is proposed here, and the order in which a node goes is
//! kept here: it drains, hands over what is hot, leaves, and is still asked for a while.
//!
//! - `follow`: from the cluster's view to the fleet's members.
//! - `purges`: what is purged anywhere is purged everywhere.
//! - `seeds`: what discovery finds is proposed to the cluster.
//! - `describe`: the cluster as operators see it.
//!
//! Invariants:
//! - a node serves whether it finds others or not;
//! - it is in its own ring while it serves, and in nobody's once it drains.

mod describe;
mod follow;
mod purges;
mod seeds;

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use serde_json::Value;
use tokio::{
    runtime::Handle,
    sync::{Mutex as TurnMutex, mpsc, watch},
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    cluster::{self, Cluster, Keys, Meta, Sockets, State, Tuning},
    config::{self, Config},
    discovery::{Discovery, Own},
    front::{Latch, http::Linked},
    group::Groups,
    metrics::{MembershipCounts, Metrics},
    peer::Fleet,
    plugin,
    wire::{Purge, link::Secret},
};
use purges::Purges;

/// How long a node that has seeds waits for the first of them before it serves: one that
/// serves alone asks the origin for what others hold.
const FIRST_CONTACT: Duration = Duration::from_millis(500);

/// How long it takes until most members know that this one is draining.
const NEWS_TRAVELS: Duration = Duration::from_millis(500);

/// Time for handing over what is hot.
const HAND_OVER: Duration = Duration::from_secs(3);

/// How long a node that has left is still there for those who have not heard of it.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// Digest of what this node makes its ring by: our way of making one, and the peers beside the
/// members. Nodes with another digest would find other owners, and are not in its ring.
fn ring_digest(peers: &config::Peers) -> u64 {
    let mut by = "native 1".to_owned();
    if peers.are_any() {
        let mut foreign = peers.groupcache.clone();
        foreign.sort_unstable();
        by = format!("{:?} 1 {foreign:?}", peers.family);
    }
    xxh3_64(by.as_bytes())
}

/// The ports and the keys of a member that is still to be one.
pub(super) struct Bound {
    sockets: Sockets,
    keys: Keys,
    secret: Secret,
    advertise: SocketAddr,
    purges: Arc<Purges>,
    to_tell: mpsc::Receiver<Purge>,
}

/// This node's place in its cluster.
pub(super) struct Membership {
    cluster: Arc<Cluster>,
    fleet: Arc<Fleet>,
    /// What this node says of itself.
    meta: TurnMutex<Meta>,
    secret: Secret,
    settings: config::Cluster,
    /// Whether the settings say where others may be found.
    looks: bool,
    /// Where other members reach this one.
    pub(super) advertise: SocketAddr,
    seeds: watch::Sender<Vec<String>>,
    discovery: Discovery,
    pub(super) purges: Arc<Purges>,
    tasks: Vec<AbortHandle>,
}

impl Bound {
    /// Takes the port for gossip and reads the keys; nothing is sent yet.
    pub(super) fn new(settings: &config::Cluster, base_dir: &Path) -> anyhow::Result<Self> {
        let keys = keys(settings, base_dir)?;
        let bind = SocketAddr::new(settings.bind_address(), settings.port);
        let sockets = Sockets::bind(bind).with_context(|| {
            format!(
                "cannot take {bind} for gossip ([cluster] bind and port), by UDP and TCP; is \
                 another node running?"
            )
        })?;
        let bound = sockets.address();
        let (ip, port) = match settings.advertised().context("read [cluster] advertise")? {
            Some((ip, port)) => (ip, port.unwrap_or(bound.port())),
            None if bound.ip().is_unspecified() => (own_address(bound.ip())?, bound.port()),
            None => (bound.ip(), bound.port()),
        };
        let (purges, to_tell) = Purges::new();
        let secret = Secret::new(&settings.name, &[]);
        renew(&secret, &settings.name, &keys);
        Ok(Self { sockets, keys, secret, advertise: SocketAddr::new(ip, port), purges, to_tell })
    }

    /// What links to other members are sealed with, and bring along.
    pub(super) fn linked(&self) -> Linked {
        Linked { secret: self.secret.clone(), tidings: Some(Arc::clone(&self.purges) as _) }
    }

    /// Becomes a member that does not serve yet. `peers` is where this node serves peers.
    pub(super) fn join(
        self,
        settings: &Config,
        base_dir: &Path,
        peers: SocketAddr,
        fleet: Arc<Fleet>,
        (latch, metrics): (Latch, &Metrics),
        control: &Handle,
    ) -> anyhow::Result<Arc<Membership>> {
        let own = &settings.cluster;
        if !own.has_key() {
            warn!(
                name = own.name,
                bind = %self.sockets.address(),
                "The cluster has no key: whoever reaches this port can join it, and read and purge \
                 everything. `cachecluster keygen` makes one for [cluster] key_file."
            );
        }
        let meta = Meta {
            peer: SocketAddr::new(self.advertise.ip(), peers.port()),
            weight: u16::try_from(own.weight).unwrap_or(u16::MAX),
            zone: own.zone.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ring: ring_digest(&settings.peers),
            plugins: Vec::new(),
            state: State::Joining,
        };
        let identity = identity(settings, base_dir, self.advertise);
        let cluster = Cluster::start(
            cluster::Settings {
                cluster: own.name.clone(),
                keys: self.keys,
                advertise: self.advertise,
                meta: meta.clone(),
                identity: identity.clone(),
                tuning: Tuning::default(),
                hear: Arc::clone(&self.purges) as _,
            },
            self.sockets,
        );
        let cluster = Arc::new(cluster.with_context(|| match &identity {
            Some(file) => format!("become a member, as {} ([cluster] identity)", file.display()),
            None => "become a member".to_owned(),
        })?);
        info!(node = %cluster.node(), gossip = %self.advertise, "Looking for the cluster.");
        fleet.on_doubt(doubt(&cluster));
        let purges = self.purges;
        purges.feel(cluster.pulse());
        let telling = purges::tell(Arc::clone(&purges), self.to_tell, Arc::downgrade(&cluster));
        let telling = control.spawn(telling);
        let (seeds, named) = watch::channel(own.seeds.clone());
        let myself = Own { place: self.advertise, name: cluster.node().to_string() };
        let sources = seeds::sources(settings, base_dir, named, &myself);
        let (discovery, proposed) = Discovery::start(
            sources,
            seeds::size(&cluster),
            |kind| metrics.discovery(kind),
            control,
        );
        let following = control.spawn(follow::follow(
            cluster.view(),
            Arc::clone(&fleet),
            (Arc::clone(&purges), metrics.cluster()),
            latch,
        ));
        let looking =
            control.spawn(seeds::propose(Arc::downgrade(&cluster), proposed, self.advertise));
        Ok(Arc::new(Membership {
            cluster,
            fleet,
            meta: TurnMutex::new(meta),
            secret: self.secret,
            settings: own.clone(),
            looks: settings.looks_for_members(),
            advertise: self.advertise,
            seeds,
            discovery,
            purges,
            tasks: [following, looking, telling].map(|task| task.abort_handle()).into(),
        }))
    }
}

impl Membership {
    /// From now on this node serves, and is to own keys.
    pub(super) async fn serve(&self) {
        if self.looks {
            let mut view = self.cluster.view();
            let others = view.wait_for(|view| view.members.len() + view.unknown > 1);
            if timeout(FIRST_CONTACT, others).await.is_err() {
                info!("Nobody answers yet where members may be found: serving alone.");
            }
        }
        self.say(|meta| meta.state = State::Serving).await;
    }

    /// Tells the others by what code this node fills its groups.
    pub(super) async fn run(&self, plugins: Vec<u64>) {
        self.say(|meta| meta.plugins = plugins).await;
    }

    async fn say(&self, change: impl FnOnce(&mut Meta)) {
        // Held until it is said, so that what was said last is what holds.
        let mut meta = self.meta.lock().await;
        change(&mut meta);
        self.cluster.describe(meta.clone()).await;
    }

    /// From now on the cluster's keys are these, and members are looked for at other seeds.
    pub(super) async fn reload(&self, keys: Keys, settings: &config::Cluster) {
        self.seeds.send_replace(settings.seeds.clone());
        renew(&self.secret, &self.settings.name, &keys);
        self.cluster.set_keys(keys).await;
    }

    /// Tells the others that this node is going, so that they send no more keys here.
    pub(super) async fn drain(&self) {
        self.say(|meta| meta.state = State::Draining).await;
    }

    /// Takes this node out of the registries that it is in, so that nobody looks for it there.
    pub(super) async fn withdraw(&self) {
        self.discovery.withdraw().await;
    }

    /// Hands what is hot in `groups` to the nodes that own it once this one is gone.
    pub(super) async fn hand_over(&self, groups: &Groups) {
        if has_others(&self.cluster) {
            // They have to know first that this node drains, or they refuse.
            sleep(NEWS_TRAVELS).await;
            let handed = self.fleet.hand_over(&groups.all(), Instant::now() + HAND_OVER).await;
            info!(kept = handed.kept, refused = handed.refused, "Handed over what is hot.");
        }
    }

    /// Is no member any more. Returns when those who had not heard of it have had time to.
    pub(super) async fn leave(&self) {
        let had_others = has_others(&self.cluster);
        self.tasks.iter().for_each(AbortHandle::abort);
        self.cluster.leave().await;
        self.purges.has_ended();
        if had_others {
            sleep(AFTERWARDS).await;
        }
    }

    /// How many nodes own keys, as this node has it.
    pub(super) fn owners(&self) -> usize {
        self.fleet.size()
    }

    /// What membership counts, for whoever looks at it now and then.
    pub(super) fn counts(&self) -> impl Fn() -> MembershipCounts + Send + Sync + 'static {
        let (cluster, last) = (Arc::downgrade(&self.cluster), Mutex::default());
        move || {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            // Of a node that has left, what was counted last.
            if let Some(cluster) = cluster.upgrade() {
                *last = describe::counts(&cluster.status().counters);
            }
            *last
        }
    }

    /// The cluster as this node sees it.
    pub(super) fn describe(&self) -> Value {
        describe::describe(&self.cluster, &self.fleet, &self.settings, &self.discovery)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Has the cluster look at a member that does not answer its peers.
fn doubt(cluster: &Arc<Cluster>) -> impl Fn(&str) + Send + Sync + 'static {
    let (cluster, view) = (Arc::downgrade(cluster), cluster.view());
    move |peer| {
        let member = |member: &&cluster::Member| member.meta.peer.to_string() == peer;
        let doubted = view.borrow().members.iter().find(member).map(|member| member.node);
        if let (Some(cluster), Some(node)) = (cluster.upgrade(), doubted) {
            cluster.doubt(node);
        }
    }
}

/// Has links go by these keys.
fn renew(secret: &Secret, name: &str, keys: &Keys) {
    let keys: Vec<_> = keys.iter().map(|key| key.derive("links")).collect();
    secret.renew(name, keys.iter().map(|key| &key[..]));
}

fn has_others(cluster: &Cluster) -> bool {
    let view = cluster.view();
    let view = view.borrow();
    view.members.len() + view.unknown > 1
}

/// The keys that the settings name.
pub(super) fn keys(settings: &config::Cluster, base_dir: &Path) -> anyhow::Result<Keys> {
    if !settings.has_key() {
        return Ok(Keys::insecure(&settings.name));
    }
    let file = base_dir.join(&settings.key_file);
    Keys::from_file(&file).with_context(|| {
        format!("read the cluster's key from {} ([cluster] key_file)", file.display())
    })
}

/// The file in which the node writes down who it is. Nodes of one user share a folder, so
/// that each has a file of its own there.
fn identity(settings: &Config, base_dir: &Path, advertise: SocketAddr) -> Option<PathBuf> {
    let set = &settings.cluster.identity;
    if !set.as_os_str().is_empty() {
        return Some(base_dir.join(set));
    }
    // With another port at each start it is another node at each start.
    if settings.cluster.port == 0 {
        return None;
    }
    let folder = plugin::state_directory(&settings.wasm.data_dir)?.join("members");
    std::fs::create_dir_all(&folder).ok()?;
    let name = format!("{}-{}", settings.cluster.name, advertise);
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '_' };
    Some(folder.join(name.chars().map(plain).collect::<String>()))
}

/// The address from which this machine reaches others. Nothing is sent for it: the system is
/// asked for the way to an address that is nobody's.
fn own_address(unspecified: IpAddr) -> anyhow::Result<IpAddr> {
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
