//! Peers of the groupcache family, which are known by hand and not by gossip.
//!
//! They have their own ring, so that where there are any, everybody goes by it. Nobody else
//! watches over them: each is probed now and then, so that one that is gone is known before
//! a request finds it out.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, interval_at};

use super::{
    Family, Member,
    health::{Peer, Prober},
};
use crate::{
    config::{
        self,
        peers::{BadPeer, authority},
    },
    ring::{Kind, Node},
};

/// How often each is probed.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// Probes in a row that one has to fail before it is left alone.
const PROBES: usize = 3;

/// How another node fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerHealth {
    /// Its host and port.
    pub authority: String,
    /// Whether it is a node of this program, reached over links.
    pub is_ours: bool,
    /// Whether it is asked; if not, it did not answer of late, and is probed until it does.
    pub is_asked: bool,
    /// The time in which 99 of 100 of its first signs of life come, once that is known.
    pub slow: Option<Duration>,
}

/// The peers that the settings name.
pub(super) struct Foreign {
    family: Family,
    /// With their names in the ring.
    peers: Vec<(Node, Arc<Peer>)>,
}

impl Foreign {
    pub(super) fn read(settings: &config::Peers) -> Result<Self, BadPeer> {
        let family = Family::from(settings.family);
        let peer = |url: &String| {
            let authority = authority(url)?;
            let peer = Peer::new(authority.to_owned(), family.dialect(), None);
            Ok((Node::new(family.name(url, authority)), Arc::new(peer)))
        };
        let peers = settings.groupcache.iter().map(peer).collect::<Result<_, _>>()?;
        Ok(Self { family, peers })
    }

    /// The ring that everybody has.
    pub(super) fn ring(&self) -> Kind {
        if self.peers.is_empty() { Kind::Native } else { self.family.ring() }
    }

    /// What a peer with this URL is called in the ring.
    pub(super) fn name(&self, url: &str) -> Result<String, BadPeer> {
        Ok(self.family.name(url, authority(url)?))
    }

    /// What a node of this program is called in the ring. Peers of the family know it by its
    /// URL, and so does everybody.
    pub(super) fn name_of(&self, member: &Member) -> String {
        if self.peers.is_empty() {
            return member.name.clone();
        }
        let authority = member.address.to_string();
        self.family.name(&format!("http://{authority}"), &authority)
    }

    /// Adds these peers to the members of a ring, but those that are among them already: a
    /// list may name nodes of this program too.
    pub(super) fn join(&self, nodes: &mut Vec<Node>, peers: &mut Vec<Option<Arc<Peer>>>) {
        for (node, peer) in &self.peers {
            if !nodes.iter().any(|known| known.name == node.name) {
                nodes.push(node.clone());
                peers.push(Some(Arc::clone(peer)));
            }
        }
    }

    /// Has each of these peers probed for as long as it is known.
    pub(super) fn watch(&self, prober: &Prober) {
        for (_, peer) in &self.peers {
            let (peer, prober) = (Arc::downgrade(peer), prober.clone());
            prober.control.clone().spawn(async move {
                // Not at once: a fleet that starts together is not gone.
                let mut every = interval_at(Instant::now() + PROBE_EVERY, PROBE_EVERY);
                loop {
                    every.tick().await;
                    let Some(peer) = peer.upgrade() else { return };
                    peer.look_after(&prober).await;
                }
            });
        }
    }
}

impl Peer {
    /// Probes it while it is well as far as is known, and notes if it is not. Once it is
    /// left alone, others find out whether it is back.
    async fn look_after(self: &Arc<Self>, prober: &Prober) {
        for _ in 0..PROBES {
            let Some(pass) = self.admit(Instant::now()) else { return };
            if self.is_there(&prober.client).await {
                return self.was_well(pass);
            }
            self.was_at_fault(pass, "it does not answer a probe", prober);
        }
    }

    pub(super) fn health(&self) -> PeerHealth {
        PeerHealth {
            authority: self.authority.clone(),
            is_ours: self.way.is_some(),
            is_asked: self.is_asked(),
            slow: self.latency.slow(),
        }
    }
}
