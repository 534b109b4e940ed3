//! Changes that peers of the groupcache family are told of.

use std::{sync::Arc, time::Duration};

use super::{BoxFuture, Change, Group, Told};
use crate::value::Value;

impl Group {
    /// Forgets `key` as [`Group::purge`] does, and has the peers that can be told by nothing
    /// else forget it too. Gives whether memory here held an answer, and what is to be waited
    /// for to know how many could be told; it goes on by itself.
    pub fn purge_everywhere(
        self: &Arc<Self>,
        key: &[u8],
    ) -> (bool, Option<BoxFuture<'static, Told>>) {
        let was_here = self.purge(key);
        (was_here, self.tell(Change { key: key.into(), value: None }))
    }

    /// Keeps a value as [`Group::put`] does, and has the owner of the key keep it and all
    /// others forget what they have.
    pub fn put_everywhere(
        self: &Arc<Self>,
        key: &[u8],
        value: Value,
        ttl: Option<Duration>,
    ) -> Option<BoxFuture<'static, Told>> {
        let told = self.tell(Change { key: key.into(), value: Some((value.clone(), ttl)) });
        match self.remote(key) {
            // A copy here would be one more that later changes have to reach.
            Some(_) if told.is_some() => _ = self.purge(key),
            _ => self.put(key, value, ttl),
        }
        told
    }

    fn tell(self: &Arc<Self>, change: Change) -> Option<BoxFuture<'static, Told>> {
        let away = self.away.get()?;
        let key = Arc::clone(&change.key);
        let telling = away.peers().tell(&self.name, change)?;
        let away = Arc::clone(away);
        let telling = self.fills.spawn(async move {
            let told = telling.await;
            // What was got from the owner before it was told.
            away.purge(&key);
            told
        });
        // A node that stops in between has told nobody for certain.
        Some(Box::pin(async move { telling.await.unwrap_or(Told { told: 0, missed: 1 }) }))
    }
}
