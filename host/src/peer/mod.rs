//! Asking the node that owns a key: `impl group::Peers`.
//!
//! A [`Fleet`] knows who is there (a ring of names, `Ring`) and how each of them is reached
//! (`client`) and fares (`health`). It asks the owner of a key; if that cannot be reached,
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

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{runtime::Handle, time::Instant};

pub use family::Family;

use self::{
    client::{Client, Reply},
    health::Peer,
};
use crate::{
    config::{
        self,
        peers::{BadPeer, authority},
    },
    group::{Asked, BoxFuture, Peers, Question},
    ring::{Node, Ring},
};

/// How many nodes are asked for a key one after the other: its owner and one stand-in, so
/// that the keys of a dead node are filled once and not on every node.
const ASKED_MAX: usize = 2;

/// The nodes that share the keys with this one.
pub struct Fleet {
    members: ArcSwap<Members>,
    client: Client,
    /// Time for a peer to begin its answer.
    answer_timeout: Duration,
    /// Where peers are probed.
    control: Handle,
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
            let peer = || Arc::new(Peer::new(authority.to_owned(), family.dialect()));
            peers.push((!is_me).then(peer));
        }
        Ok(Arc::new(Self {
            members: ArcSwap::from_pointee(Members {
                ring: Ring::new(family.ring(), &members),
                peers,
            }),
            client: Client::new(settings.reply_max.as_usize()),
            answer_timeout: settings.answer_timeout,
            control,
        }))
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
            match self.client.get(peer, path, times).await {
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
