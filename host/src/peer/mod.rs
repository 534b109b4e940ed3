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
use thiserror::Error;
use tokio::{runtime::Handle, time::Instant};
use url::Url;

pub use family::Family;

use self::{
    client::{Client, Reply},
    health::Peer,
};
use crate::{
    config,
    group::{Asked, BoxFuture, Peers, Question},
    ring::{Node, Ring},
};

/// How many nodes are asked for a key one after the other: its owner and one stand-in, so
/// that the keys of a dead node are filled once and not on every node.
const ASKED_MAX: usize = 2;

/// A peer that is not one.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{url:?} is no base URL of a peer: {reason}")]
pub struct BadPeer {
    /// What was given.
    pub url: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

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
            members.push(Node::new(family.name(url, &authority)));
            peers.push((!is_me).then(|| Arc::new(Peer::new(authority, family.dialect()))));
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

/// Checks a base URL of a peer, and says which host and port it names.
///
/// # Errors
/// It is not one.
pub fn authority(url: &str) -> Result<String, BadPeer> {
    let bad = |reason| BadPeer { url: url.to_owned(), reason };
    let parsed = Url::parse(url).map_err(|_| bad("write it as http://10.0.0.5:9080"))?;
    if parsed.scheme() != "http" {
        return Err(bad("peers of the family are reached over http"));
    }
    let rest = url.strip_prefix("http://").ok_or(bad("write http:// in small letters"))?;
    // The ring is made of these texts: two that differ by a slash are two peers.
    if rest.contains(['/', '?', '#', '@']) {
        return Err(bad("it ends with the port: no path, no slash, no user"));
    }
    if parsed.port().is_none() {
        return Err(bad("name the port, as in http://10.0.0.5:9080"));
    }
    Ok(rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_base_url_and_nothing_more() {
        assert_eq!(authority("http://10.0.0.5:9080"), Ok("10.0.0.5:9080".to_owned()));
        assert_eq!(authority("http://[fd00::5]:9080"), Ok("[fd00::5]:9080".to_owned()));
        for bad in [
            "10.0.0.5:9080",
            "https://10.0.0.5:9080",
            "HTTP://10.0.0.5:9080",
            "http://10.0.0.5:9080/",
            "http://10.0.0.5:9080/_groupcache/",
            "http://10.0.0.5",
            "http://me@10.0.0.5:9080",
            "",
        ] {
            assert!(authority(bad).is_err(), "{bad}");
        }
    }
}
