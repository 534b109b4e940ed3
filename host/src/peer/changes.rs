//! Telling peers of the groupcache family (v2, v3) of a value that is gone, or of another.
//!
//! Nothing else reaches them. The owner is told first, so that nobody gets the old value
//! from it again, and then all others, who may have copies. A peer that cannot be told keeps
//! its copy until that expires: whoever asked for the change is told how many those are.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Method;
use tokio::{task::JoinSet, time::Instant};

use super::{Fleet, client::Client, health::Peer};
use crate::{
    group::{BoxFuture, Change, Told},
    wire::Dialect,
};

/// Peers that are told at once.
const AT_ONCE: usize = 16;

/// One change, as it is told.
struct Message {
    group: Box<str>,
    change: Change,
    /// Time for each peer.
    timeout: Duration,
}

impl Fleet {
    /// See [`crate::group::Peers::tell`].
    pub(super) fn tell_all(&self, group: &str, change: Change) -> Option<BoxFuture<'static, Told>> {
        let circle = Arc::clone(&self.members.load().now);
        let takes = |peer: &&Arc<Peer>| peer.takes_changes();
        let owner = circle.owner(&change.key).filter(takes).cloned();
        let is_owner = |peer: &&Arc<Peer>| owner.as_ref().is_some_and(|it| Arc::ptr_eq(it, peer));
        let others: Vec<_> = circle
            .peers
            .iter()
            .flatten()
            .filter(takes)
            .filter(|peer| !is_owner(peer))
            .cloned()
            .collect();
        if owner.is_none() && others.is_empty() {
            return None;
        }
        let count = others.len() + usize::from(owner.is_some());
        let message = Message { group: group.into(), change, timeout: self.answer_timeout };
        let client = self.prober.client.clone();
        // Goes on when nobody waits for it any more.
        let telling = self.prober.control.spawn(tell(client, Arc::new(message), owner, others));
        Some(Box::pin(async move { telling.await.unwrap_or(Told { told: 0, missed: count }) }))
    }
}

async fn tell(
    client: Client,
    message: Arc<Message>,
    owner: Option<Arc<Peer>>,
    others: Vec<Arc<Peer>>,
) -> Told {
    let mut told = Told::default();
    if let Some(owner) = owner {
        told.count(message.tell(&client, &owner, true).await);
    }
    let mut telling = JoinSet::new();
    for peer in others {
        if telling.len() >= AT_ONCE
            && let Some(is_told) = telling.join_next().await
        {
            told.count(is_told.unwrap_or(false));
        }
        let (client, message) = (client.clone(), Arc::clone(&message));
        telling.spawn(async move { message.tell(&client, &peer, false).await });
    }
    while let Some(is_told) = telling.join_next().await {
        told.count(is_told.unwrap_or(false));
    }
    told
}

impl Message {
    /// Tells one peer; says whether it has done so.
    async fn tell(&self, client: &Client, peer: &Peer, is_owner: bool) -> bool {
        let (group, key) = (&*self.group, &*self.change.key);
        let (method, body) = match &self.change.value {
            Some((value, ttl)) if is_owner => {
                (Method::PUT, Client::set_request(group, key, value, *ttl))
            }
            // What others may have is a copy, which is out of date now.
            _ => (Method::DELETE, Bytes::new()),
        };
        // One that is known not to answer is not waited for.
        peer.is_asked()
            && client
                .change(peer, (group, key), (method, body), Instant::now() + self.timeout)
                .await
    }
}

impl Peer {
    /// Whether it can be told to forget a key: v2 and v3 can, while golang/groupcache takes
    /// whatever it is asked for a `GET`.
    fn takes_changes(&self) -> bool {
        self.way.is_none() && self.dialect == Dialect::V2
    }
}
