//! Asking the node that owns a key: `impl group::Peers`.
//!
//! A [`Fleet`] knows who is there (a ring of names, and who was there a moment ago:
//! `members`), how each of them is reached (`client` for peers of the groupcache family,
//! `link` for nodes of this program) and how it fares (`health`, `signs`). It asks the owner
//! of a key; if that cannot be reached, the key's first stand-in; and if it cannot either,
//! the node fills the key itself (`asking`). A node that goes hands its hottest keys over
//! (`hand_over`), and peers of the family are told of purges (`changes`).
//!
//! Whoever cannot be reached is left alone and tried again off to the side: no request
//! finds out whether a dead peer is back.
//!
//! Invariants:
//! - a node is in its own ring, so that a key it owns is never asked for elsewhere;
//! - what a peer says about a key is taken as the last word where its dialect has one, and
//!   anything that is not an answer is never kept;
//! - whoever answers has heard of every purge of the key that this node knows of, or its
//!   answer is not kept;
//! - a question ends by its deadline, and an answer has a bound;
//! - what is looked up to save time or fills (`Peek`) never costs a fill.

mod asking;
mod changes;
mod client;
mod family;
mod foreign;
mod hand_over;
mod health;
mod link;
mod members;
mod signs;

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    runtime::Handle,
    task::JoinSet,
    time::{Instant, sleep},
};

pub use family::Family;
pub use foreign::PeerHealth;
pub use hand_over::HandedOver;

use self::{
    asking::Hedges,
    client::Client,
    foreign::Foreign,
    health::{Peer, Prober},
    link::Way,
    members::{Circle, Members, REMEMBERED},
};
use crate::{
    config::{self, peers::BadPeer},
    group::{Asked, BoxFuture, Change, Held, Peers, Question, Tidings, Told},
    metrics::FleetMetrics,
    ring::Node,
    wire::{Dialect, link::Secret},
};

/// Connections to one node of this program at most.
const LINKS_MAX: usize = 8;

/// Up to so many peers, links are made as soon as a peer is known, so that the first look into
/// its memory need not wait. In a larger fleet that would be a rush on whoever joins.
const LINKED_AHEAD_MAX: usize = 32;

/// The nodes that share the keys with this one.
pub struct Fleet {
    members: ArcSwap<Members>,
    /// For what it does off to the side.
    myself: Weak<Self>,
    prober: Prober,
    /// How to reach nodes of this program, where there may be any.
    ours: Option<Ours>,
    /// Who is there besides, without being a member.
    foreign: Foreign,
    tidings: Option<Arc<dyn Tidings>>,
    metrics: FleetMetrics,
    hedges: Hedges,
    times: Times,
    /// Time for a peer to begin its answer.
    answer_timeout: Duration,
}

/// What binds a node to others of this program.
#[derive(Clone)]
pub struct Ties {
    /// What all of them have in common.
    pub secret: Secret,
    /// What they must hear before they answer; see [`Tidings`].
    pub tidings: Option<Arc<dyn Tidings>>,
    /// Connections to each of them: as many as it has serving threads. From 1 to 8.
    pub links: usize,
    /// How long they are waited for.
    pub times: Times,
    /// Counts what is done with them.
    pub metrics: FleetMetrics,
}

/// How long nodes of this program are waited for. What is there where nothing else is said
/// is ample within one data centre.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// To connect and to shake hands.
    pub connect: Duration,
    /// For the first sign of life, which a node that is there gives at once, whatever it is
    /// asked.
    pub sign: Duration,
    /// For a look into the memory of a key's previous owner, for which the fill waits.
    pub peek: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let (connect, sign, peek) = (300, 500, 20);
        let [connect, sign, peek] = [connect, sign, peek].map(Duration::from_millis);
        Self { connect, sign, peek }
    }
}

/// How nodes of this program are reached.
struct Ours {
    secret: Secret,
    reply_max: usize,
    links: usize,
}

/// A node of this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it is called in the ring: the same text on every node.
    pub name: String,
    /// Where it serves its peers.
    pub address: SocketAddr,
    /// Its share of the keys.
    pub weight: u32,
    /// Whether it is this node.
    pub is_self: bool,
}

/// A node as one of those that may answer for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it is called in the ring.
    pub name: String,
    /// Where it serves its peers; `None` for this node.
    pub address: Option<String>,
    /// Whether it is asked at all: not while it fails to answer.
    pub is_asked: bool,
}

impl Fleet {
    /// A fleet of peers that are known by hand. Probes run on `control`.
    ///
    /// # Errors
    /// A peer of the settings that is not one.
    pub fn fixed(settings: &config::Peers, control: Handle) -> Result<Arc<Self>, BadPeer> {
        let foreign = Foreign::read(settings)?;
        let me = foreign.name(&settings.url)?;
        let (mut nodes, mut peers) = (vec![Node::new(me)], vec![None]);
        foreign.join(&mut nodes, &mut peers);
        let circle = Circle::new(foreign.ring(), nodes, peers);
        Ok(Self::new(circle, foreign, None, settings, control))
    }

    /// A fleet of nodes of this program that have the same secret: nobody yet, see
    /// [`Fleet::set_members`]. Peers of the family that the settings name are in its ring
    /// beside them; then the ring is the family's, and a member is called in it what the
    /// family calls a peer at its address, whatever its own name.
    ///
    /// # Errors
    /// A peer of the settings that is not one.
    pub fn of_nodes(
        ties: Ties,
        settings: &config::Peers,
        control: Handle,
    ) -> Result<Arc<Self>, BadPeer> {
        let foreign = Foreign::read(settings)?;
        let circle = Circle::new(foreign.ring(), Vec::new(), Vec::new());
        Ok(Self::new(circle, foreign, Some(ties), settings, control))
    }

    fn new(
        circle: Circle,
        foreign: Foreign,
        ties: Option<Ties>,
        settings: &config::Peers,
        control: Handle,
    ) -> Arc<Self> {
        let reply_max = settings.reply_max.as_usize();
        let ours = ties.as_ref().map(|ties| Ours {
            secret: ties.secret.clone(),
            reply_max,
            links: ties.links.clamp(1, LINKS_MAX),
        });
        let (tidings, waits, metrics) =
            ties.map(|ties| (ties.tidings, ties.times, ties.metrics)).unwrap_or_default();
        let prober = Prober { client: Client::new(reply_max), control, doubt: Arc::default() };
        foreign.watch(&prober);
        Arc::new_cyclic(|myself| Self {
            members: ArcSwap::from_pointee(Members::first(circle)),
            myself: myself.clone(),
            prober,
            ours,
            foreign,
            tidings,
            metrics,
            hedges: Hedges::default(),
            times: waits,
            answer_timeout: settings.answer_timeout,
        })
    }

    /// From now on these are the members, all nodes of this program, beside the peers of the
    /// settings. Those that stay keep their links. For a minute, those that were there before are asked for what they held
    /// of the keys that are this node's now. One call at a time. Takes some ten milliseconds
    /// where something changes: not for a serving thread.
    pub fn set_members(&self, members: &[Member]) {
        let old = self.members.load_full();
        let peer = |member: &Member| {
            let authority = member.address.to_string();
            let known = old.known().find(|peer| peer.way.is_some() && peer.authority == authority);
            known.cloned().unwrap_or_else(|| Arc::new(self.reach(authority)))
        };
        let mut peers: Vec<_> =
            members.iter().map(|member| (!member.is_self).then(|| peer(member))).collect();
        let node =
            |member: &Member| Node { name: self.foreign.name_of(member), weight: member.weight };
        let mut nodes = members.iter().map(node).collect();
        self.foreign.join(&mut nodes, &mut peers);
        let (linked, now) = (peers.clone(), Instant::now());
        if let Some(changed) = old.changed(self.foreign.ring(), nodes, peers, now) {
            self.members.store(Arc::new(changed));
            self.forget_later();
            if linked.len() <= LINKED_AHEAD_MAX {
                self.prober.control.spawn(async move {
                    linked
                        .iter()
                        .flatten()
                        .filter_map(|peer| peer.way.as_ref())
                        .for_each(Way::link_ahead);
                });
            }
        }
    }

    /// These members, by where they serve their peers, may be down: others are asked first.
    pub fn suspect(&self, addresses: &[SocketAddr]) {
        for peer in self.members.load().known() {
            peer.suspect(addresses.iter().any(|address| address.to_string() == peer.authority));
        }
    }

    /// From now on `doubt` is told, with the host and port, of a peer that does not answer.
    /// The first call counts.
    pub fn on_doubt(&self, doubt: impl Fn(&str) + Send + Sync + 'static) {
        self.prober.doubt.get_or_init(|| Box::new(doubt));
    }

    /// Which of the others hold a fresh value of a key, up to `count` of them in the order in
    /// which they answer for it. Asks all of them at once.
    pub async fn holders(&self, question: &Question, count: usize) -> Vec<(Route, Held)> {
        let circle = Arc::clone(&self.members.load().now);
        let (Some(news), Some(fleet)) = (self.news(question), self.myself.upgrade()) else {
            return Vec::new();
        };
        let mut peeks = JoinSet::new();
        for (rank, at) in circle.ring.owners(&question.key, count).into_iter().enumerate() {
            let (Some(Some(peer)), Some(route)) = (circle.peers.get(at).cloned(), circle.route(at))
            else {
                continue;
            };
            let (fleet, question, news) = (Arc::clone(&fleet), question.clone(), news.clone());
            peeks.spawn(async move {
                let held = fleet.peek(&peer, &question, news, question.deadline).await?;
                Some((rank, route, held))
            });
        }
        let mut holders: Vec<_> = peeks.join_all().await.into_iter().flatten().collect();
        holders.sort_by_key(|(rank, ..)| *rank);
        holders.into_iter().map(|(_, route, held)| (route, held)).collect()
    }

    /// How many nodes own keys, this one included.
    pub fn size(&self) -> usize {
        self.members.load().now.peers.len()
    }

    /// The first `count` nodes in the order in which they are to answer for `key`: its owner,
    /// then its stand-ins.
    pub fn owners(&self, key: &[u8], count: usize) -> Vec<Route> {
        let circle = Arc::clone(&self.members.load().now);
        let owners = circle.ring.owners(key, count).into_iter();
        owners.filter_map(|at| circle.route(at)).collect()
    }

    /// A node of this program at `authority`.
    fn reach(&self, authority: String) -> Peer {
        let way = self.ours.as_ref().map(|Ours { secret, reply_max, links }| {
            let links = (*links, self.times.connect);
            Way::new(authority.clone(), secret.clone(), *reply_max, links)
        });
        Peer::new(authority, Dialect::V2, way)
    }

    /// How the other nodes fare, in the order of their addresses.
    pub fn health(&self) -> Vec<PeerHealth> {
        let members = self.members.load();
        let mut health: Vec<_> = members.now.peers.iter().flatten().map(|it| it.health()).collect();
        health.sort_by(|one, other| one.authority.cmp(&other.authority));
        health
    }

    /// Lets go of who was there before, once that is of no use any more.
    fn forget_later(&self) {
        let myself = self.myself.clone();
        self.prober.control.spawn(async move {
            sleep(REMEMBERED).await;
            if let Some(fleet) = myself.upgrade() {
                fleet.members.rcu(|members| members.forgetting(Instant::now()));
            }
        });
    }
}

impl Peers for Fleet {
    fn is_remote(&self, _group: &str, key: &[u8]) -> bool {
        self.members.load().now.owner(key).is_some()
    }

    fn ask(&self, question: Question) -> BoxFuture<'_, Asked> {
        Box::pin(self.ask_in_turn(question))
    }

    fn peek_previous(&self, question: Question) -> Option<BoxFuture<'_, Option<Held>>> {
        let members = self.members.load();
        let now = Instant::now();
        let peer = members.previous(&question.key, now)?;
        // What it must know before it answers, or its answer is of no use.
        let (peer, news) = (Arc::clone(peer), self.news(&question)?);
        let deadline = question.deadline.min(now + self.times.peek);
        Some(Box::pin(async move { self.peek(&peer, &question, news, deadline).await }))
    }

    fn tell(&self, group: &str, change: Change) -> Option<BoxFuture<'static, Told>> {
        self.tell_all(group, change)
    }

    fn takes_over(&self, _group: &str, key: &[u8]) -> bool {
        self.members.load().now.is_in_line(key)
    }
}
