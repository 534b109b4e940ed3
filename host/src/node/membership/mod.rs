//! This node as a member of a cluster: who else there is becomes who is asked for keys.
//!
//! The cluster knows members and no ring, the fleet a ring and no members; this is where the
//! one becomes the other. What is found is proposed here, and the order in which a node goes is
//! kept here: it drains, hands over what is hot, leaves, and is still asked for a while.
//!
//! - `beginning`: when a node becomes a member, and what that takes.
//! - `follow`: from the cluster's view to the fleet's members.
//! - `purges`: what is purged anywhere is purged everywhere.
//! - `seeds`: what discovery finds is proposed to the cluster.
//! - `describe`: the cluster as operators see it.
//!
//! Invariants:
//! - a node serves whether it finds others or not;
//! - it is in its own ring while it serves, and in nobody's once it drains.

mod beginning;
mod describe;
mod follow;
mod purges;
mod seeds;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Duration,
};

use anyhow::Context as _;
use serde_json::Value;
use tokio::{
    runtime::Handle,
    sync::{Mutex as TurnMutex, SetOnce, mpsc, watch},
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};
use tracing::{error, info, warn};
use xxhash_rust::xxh3::xxh3_64;

use self::{
    beginning::{Begun, Reached, Waiting, own_address},
    purges::Purges,
};
use crate::{
    cluster::{self, Cluster, Keys, Meta, Sockets, State},
    config::{self, Config},
    discovery::gce::Metadata,
    front::{Latch, http::Linked},
    group::Groups,
    metrics::{MembershipCounts, Metrics},
    peer::Fleet,
    plugin,
    wire::{Purge, link::Secret},
};

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

/// How long a node that is to be told its address waits for that before it serves.
const ADDRESS: Duration = Duration::from_millis(300);

/// The ports and the keys of a member that is still to be one.
pub(super) struct Bound {
    sockets: Sockets,
    keys: Keys,
    secret: Secret,
    reached: Reached,
    metadata: Option<Metadata>,
    purges: Arc<Purges>,
    to_tell: mpsc::Receiver<Purge>,
}

/// This node's place in its cluster.
pub(super) struct Membership {
    fleet: Arc<Fleet>,
    turn: TurnMutex<Turn>,
    /// Set once this node is a member.
    begun: SetOnce<Begun>,
    latch: Arc<Latch>,
    secret: Secret,
    settings: config::Cluster,
    /// Whether the settings say where others may be found.
    looks: bool,
    seeds: watch::Sender<Vec<String>>,
    pub(super) purges: Arc<Purges>,
    /// Waits to be told this node's address.
    asking: OnceLock<AbortHandle>,
}

/// What changes one by one.
struct Turn {
    /// What this node says of itself.
    meta: Meta,
    /// `None` once this node has become a member, or has left before.
    waiting: Option<Waiting>,
}

impl Bound {
    /// Takes the port for gossip and reads the keys; nothing is sent yet. `metadata` is asked for
    /// this node's address where the settings do not say it.
    pub(super) fn new(
        config: &Config,
        base_dir: &Path,
        metadata: Option<Metadata>,
    ) -> anyhow::Result<Self> {
        let settings = &config.cluster;
        let keys = keys(settings, base_dir)?;
        let bind = SocketAddr::new(settings.bind_address(), settings.port);
        let sockets = Sockets::bind(bind).with_context(|| {
            format!(
                "cannot take {bind} for gossip ([cluster] bind and port), by UDP and TCP; is \
                 another node running?"
            )
        })?;
        let bound = sockets.address();
        let reached = match (settings.advertised().context("read [cluster] advertise")?, &metadata)
        {
            (Some((ip, port)), _) => Reached::At(SocketAddr::new(ip, port.unwrap_or(bound.port()))),
            (None, Some(metadata)) if bound.ip().is_unspecified() => Reached::AsToldBy {
                metadata: metadata.clone(),
                interface: config.matching.network_interface.clone(),
                bound,
            },
            (None, _) if bound.ip().is_unspecified() => {
                Reached::At(SocketAddr::new(own_address(bound.ip())?, bound.port()))
            }
            (None, _) => Reached::At(bound),
        };
        let (purges, to_tell) = Purges::new();
        let secret = Secret::new(&settings.name, &[]);
        renew(&secret, &settings.name, &keys);
        Ok(Self { sockets, keys, secret, reached, metadata, purges, to_tell })
    }

    /// What links to other members are sealed with, and bring along.
    pub(super) fn linked(&self) -> Linked {
        Linked { secret: self.secret.clone(), tidings: Some(Arc::clone(&self.purges) as _) }
    }

    /// Becomes a member that does not serve yet, at once or when it is known where others reach
    /// this node. `peers` is where this node serves peers.
    pub(super) async fn join(
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
            peer: peers,
            weight: u16::try_from(own.weight).unwrap_or(u16::MAX),
            zone: own.zone.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ring: ring_digest(&settings.peers),
            plugins: Vec::new(),
            state: State::Joining,
        };
        let (seeds, named) = watch::channel(own.seeds.clone());
        let latch = Arc::new(latch);
        let waiting = Waiting {
            sockets: self.sockets,
            keys: self.keys,
            to_tell: self.to_tell,
            settings: settings.clone(),
            base_dir: base_dir.to_owned(),
            named,
            metadata: self.metadata,
            latch: Arc::clone(&latch),
            metrics: metrics.clone(),
            control: control.clone(),
        };
        let membership = Arc::new(Membership {
            fleet,
            turn: TurnMutex::new(Turn { meta, waiting: Some(waiting) }),
            begun: SetOnce::new(),
            latch,
            secret: self.secret,
            settings: own.clone(),
            looks: settings.looks_for_members(),
            seeds,
            purges: self.purges,
            asking: OnceLock::new(),
        });
        match self.reached {
            Reached::At(address) => membership.begin(address).await?,
            reached @ Reached::AsToldBy { .. } => {
                let asking = control.spawn(begin_later(Arc::downgrade(&membership), reached));
                membership.asking.get_or_init(|| asking.abort_handle());
            }
        }
        Ok(membership)
    }
}

/// Becomes a member once it is known where others reach this node.
async fn begin_later(membership: Weak<Membership>, reached: Reached) {
    let found = reached.find().await;
    let Some(membership) = membership.upgrade() else { return };
    let begun = match found {
        Ok(address) => membership.begin(address).await,
        Err(error) => Err(error),
    };
    if let Err(error) = begun {
        membership.latch.close("this node could not become a member; its log says why");
        error!("This node cannot become a member, and serves alone: {error:#}");
    }
}

impl Membership {
    /// Becomes a member, which others reach at `advertise`.
    async fn begin(&self, advertise: SocketAddr) -> anyhow::Result<()> {
        let mut turn = self.turn.lock().await;
        if let Some(waiting) = turn.waiting.take() {
            turn.meta.peer.set_ip(advertise.ip());
            let meta = turn.meta.clone();
            let begun = waiting.begin(advertise, meta, &self.fleet, &self.purges).await?;
            _ = self.begun.set(begun);
        }
        Ok(())
    }

    /// From now on this node serves, and is to own keys.
    pub(super) async fn serve(&self) {
        match timeout(ADDRESS, self.begun.wait()).await {
            Ok(begun) if self.looks => {
                let mut view = begun.cluster.view();
                let others = view.wait_for(|view| view.members.len() + view.unknown > 1);
                if timeout(FIRST_CONTACT, others).await.is_err() {
                    info!("Nobody answers yet where members may be found: serving alone.");
                }
            }
            Ok(_) => {}
            Err(_elapsed) => {
                info!("It is not known yet where others reach this node: serving alone.");
                self.latch.release();
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
        let mut turn = self.turn.lock().await;
        change(&mut turn.meta);
        if let Some(begun) = self.begun.get() {
            begun.cluster.describe(turn.meta.clone()).await;
        }
    }

    /// From now on the cluster's keys are these, and members are looked for at other seeds.
    pub(super) async fn reload(&self, keys: Keys, settings: &config::Cluster) {
        self.seeds.send_replace(settings.seeds.clone());
        renew(&self.secret, &self.settings.name, &keys);
        let mut turn = self.turn.lock().await;
        match (&mut turn.waiting, self.begun.get()) {
            (Some(waiting), _) => waiting.keys = keys,
            (None, Some(begun)) => begun.cluster.set_keys(keys).await,
            (None, None) => {}
        }
    }

    /// Tells the others that this node is going, so that they send no more keys here.
    pub(super) async fn drain(&self) {
        self.say(|meta| meta.state = State::Draining).await;
    }

    /// Takes this node out of the registries that it is in, so that nobody looks for it there.
    pub(super) async fn withdraw(&self) {
        if let Some(begun) = self.begun.get() {
            begun.discovery.withdraw().await;
        }
    }

    /// Hands what is hot in `groups` to the nodes that own it once this one is gone.
    pub(super) async fn hand_over(&self, groups: &Groups) {
        if self.begun.get().is_some_and(Begun::has_others) {
            // They have to know first that this node drains, or they refuse.
            sleep(NEWS_TRAVELS).await;
            let handed = self.fleet.hand_over(&groups.all(), Instant::now() + HAND_OVER).await;
            info!(kept = handed.kept, refused = handed.refused, "Handed over what is hot.");
        }
    }

    /// Is no member any more, and does not become one. Returns when those who had not heard of it
    /// have had time to.
    pub(super) async fn leave(&self) {
        self.turn.lock().await.waiting = None;
        if let Some(begun) = self.begun.get() {
            let had_others = begun.has_others();
            begun.end();
            begun.cluster.leave().await;
            self.purges.has_ended();
            if had_others {
                sleep(AFTERWARDS).await;
            }
        }
    }

    /// How many nodes own keys, as this node has it.
    pub(super) fn owners(&self) -> usize {
        self.fleet.size()
    }

    /// Where other members reach this one, once that is known.
    pub(super) fn advertise(&self) -> Option<SocketAddr> {
        self.begun.get().map(|begun| begun.advertise)
    }

    /// What membership counts, for whoever looks at it now and then.
    pub(super) fn counts(
        self: &Arc<Self>,
    ) -> impl Fn() -> MembershipCounts + Send + Sync + 'static {
        let (membership, last) = (Arc::downgrade(self), Mutex::default());
        move || {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            // Of a node that has left, what was counted last.
            if let Some(membership) = membership.upgrade()
                && let Some(begun) = membership.begun.get()
            {
                *last = describe::counts(begun);
            }
            last.clone()
        }
    }

    /// The cluster as this node sees it.
    pub(super) fn describe(&self) -> Value {
        describe::describe(self.begun.get(), &self.fleet, &self.settings)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(asking) = self.asking.get() {
            asking.abort();
        }
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
