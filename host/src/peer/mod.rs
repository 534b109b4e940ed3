//! Asking the node that owns a key: `impl group::Peers`.
//!
//! A [`Fleet`] knows who is there (a ring of names, `Ring`), how each of them is reached
//! (`client` for peers of the groupcache family, `link` for nodes of this program) and how
//! it fares (`health`). It asks the owner of a key; if that cannot be reached,
//! the key's first stand-in; and if it cannot either, the node fills the key itself.
//!
//! Whoever cannot be reached is left alone and tried again off to the side: no request
//! finds out whether a dead peer is back.
//!
//! Invariants:
//! - a node is in its own ring, so that a key it owns is never asked for elsewhere;
//! - what a peer says about a key is taken as the last word where its dialect has one, and
//!   anything that is not an answer is never kept;
//! - a question ends by its deadline, and an answer has a bound.

mod client;
mod family;
mod health;
mod link;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{runtime::Handle, time::Instant};

pub use family::Family;

use self::{
    client::{Client, Reply},
    health::Peer,
    link::Way,
};
use crate::{
    config::{
        self,
        peers::{BadPeer, authority},
    },
    group::{Asked, BoxFuture, Peers, Question},
    ring::{Kind, Node, Ring},
    wire::{Dialect, link::Secret},
};

/// How many nodes are asked for a key one after the other: its owner and one stand-in, so
/// that the keys of a dead node are filled once and not on every node.
const ASKED_MAX: usize = 2;

/// The nodes that share the keys with this one.
pub struct Fleet {
    members: ArcSwap<Members>,
    client: Client,
    /// How to reach nodes of this program: with what secret, and for values of what size.
    links: Option<(Secret, usize)>,
    /// Time for a peer to begin its answer.
    answer_timeout: Duration,
    /// Where peers are probed.
    control: Handle,
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

/// Who is there at one moment.
struct Members {
    ring: Ring,
    /// In the order of the ring's members; `None` for this node.
    peers: Vec<Option<Arc<Peer>>>,
}

impl Fleet {
    /// A fleet of peers that are known by hand. Probes run on `control`.
    ///
    /// # Errors
    /// A peer of the settings that is not one.
    pub fn fixed(settings: &config::Peers, control: Handle) -> Result<Arc<Self>, BadPeer> {
        let family = Family::from(settings.family);
        let mut members = Vec::new();
        let mut peers = Vec::new();
        for (url, is_me) in [(&settings.url, true)]
            .into_iter()
            .chain(settings.groupcache.iter().map(|url| (url, false)))
        {
            let authority = authority(url)?;
            members.push(Node::new(family.name(url, authority)));
            let peer = || Arc::new(Peer::new(authority.to_owned(), family.dialect(), None));
            peers.push((!is_me).then(peer));
        }
        let members = Members { ring: Ring::new(family.ring(), &members), peers };
        Ok(Self::new(members, None, settings, control))
    }

    /// A fleet of nodes of this program that have the same `secret`: nobody yet. See
    /// [`Fleet::set_members`].
    pub fn of_nodes(secret: Secret, settings: &config::Peers, control: Handle) -> Arc<Self> {
        let members = Members { ring: Ring::new(Kind::Native, &[]), peers: Vec::new() };
        Self::new(members, Some(secret), settings, control)
    }

    fn new(
        members: Members,
        secret: Option<Secret>,
        settings: &config::Peers,
        control: Handle,
    ) -> Arc<Self> {
        let reply_max = settings.reply_max.as_usize();
        Arc::new(Self {
            members: ArcSwap::from_pointee(members),
            client: Client::new(reply_max),
            links: secret.map(|secret| (secret, reply_max)),
            answer_timeout: settings.answer_timeout,
            control,
        })
    }

    /// From now on these are the members, all nodes of this program. Those that stay keep
    /// their links. Takes some ten milliseconds: not for a serving thread.
    pub fn set_members(&self, members: &[Member]) {
        let old = self.members.load_full();
        let known = |authority: &str| {
            old.peers.iter().flatten().find(|peer| peer.authority == authority).map(Arc::clone)
        };
        let peers = members.iter().filter(|member| !member.is_self).map(|member| {
            let authority = member.address.to_string();
            known(&authority).unwrap_or_else(|| {
                let way = self.links.as_ref().map(|(secret, reply_max)| {
                    Way::new(authority.clone(), secret.clone(), *reply_max)
                });
                Arc::new(Peer::new(authority, Dialect::V2, way))
            })
        });
        let mut peers = peers.collect::<Vec<_>>().into_iter();
        let peers =
            members.iter().map(|member| if member.is_self { None } else { peers.next() }).collect();
        let nodes: Vec<_> = members
            .iter()
            .map(|member| Node { name: member.name.clone(), weight: member.weight })
            .collect();
        self.members.store(Arc::new(Members { ring: Ring::new(Kind::Native, &nodes), peers }));
    }

    async fn ask_in_turn(&self, question: Question) -> Asked {
        let members = self.members.load_full();
        for owner in members.ring.owners(&question.key, ASKED_MAX) {
            // Its own turn: nobody before it in the key's order could be asked.
            let Some(Some(peer)) = members.peers.get(owner) else { return Asked::Unanswered };
            let Some(pass) = peer.admit() else { continue };
            let now = Instant::now();
            let half = question.deadline.saturating_duration_since(now) / 2;
            let first_byte = now + half.min(self.answer_timeout);
            let times = (first_byte, question.deadline);
            let path = (&*question.group, &*question.key);
            let reply = match &peer.way {
                Some(way) => way.get(path, times).await,
                None => self.client.get(peer, path, times).await,
            };
            match reply {
                Reply::Said(asked) => {
                    peer.was_well(pass);
                    return asked;
                }
                Reply::Nothing(reason) => peer.was_at_fault(pass, &reason, self),
            }
        }
        Asked::Unanswered
    }
}

impl Peers for Fleet {
    fn is_remote(&self, _group: &str, key: &[u8]) -> bool {
        let members = self.members.load();
        let owner = members.ring.owner(key).and_then(|owner| members.peers.get(owner));
        matches!(owner, Some(Some(_)))
    }

    fn ask(&self, question: Question) -> BoxFuture<'_, Asked> {
        Box::pin(self.ask_in_turn(question))
    }
}
