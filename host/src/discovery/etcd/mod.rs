//! Members that etcd knows.
//!
//! Each node has a key below one prefix, which ends with its gossip address and whose value is
//! its name. The key hangs on a lease of the node's: it goes when the node revokes the lease, or
//! some seconds after the node has said nothing more. The others' keys are listed at one
//! revision of the store and watched from the next one on. When the watch breaks, or etcd has
//! compacted what it would need, they are listed again.
//!
//! - `gateway`: questions and answers over HTTP.
//! - `words`: what they say.

mod gateway;
#[cfg(test)]
mod tests;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use self::{
    gateway::{Gateway, Lines, Refusal, User},
    words::{Change, Told},
};
use super::{FOUND_MAX, Failed, Found, Own, Source, breaks::Breaks, credentials::TlsFiles};
use crate::config;

/// A lease is renewed so many times within its life.
const RENEWALS: u32 = 3;

/// Before a lease is renewed again after that failed.
const RENEW_AGAIN: Duration = Duration::from_secs(1);

/// Members come and go several at a time.
const SETTLE: Duration = Duration::from_millis(50);

/// Members by etcd.
pub struct Etcd {
    gateway: Gateway,
    prefix: String,
    own: Own,
    ttl: Duration,
    lease: Option<Lease>,
    listed: Listed,
    watch: Option<Lines>,
    /// How often servers had failed when it began.
    failures: u64,
    breaks: Breaks,
    /// What the watch has told is in `listed`, and nobody has looked since.
    has_news: bool,
}

/// What this node's key hangs on.
#[derive(Clone, Copy, Debug)]
struct Lease {
    id: i64,
    /// When it is to be renewed.
    due: Instant,
}

/// The keys below the prefix, as they were at one revision.
#[derive(Debug, Default)]
struct Listed {
    /// What follows the prefix, and the lease that it hangs on.
    by_rest: BTreeMap<String, i64>,
    revision: i64,
    are_more: bool,
}

impl Etcd {
    /// The members of the cluster `name` that `settings` lead to. `own` is to be one of them.
    pub fn new(settings: &config::Etcd, base_dir: &Path, name: &str, own: Own) -> Self {
        let file = |path: &PathBuf| {
            if path.as_os_str().is_empty() { PathBuf::new() } else { base_dir.join(path) }
        };
        let tls = TlsFiles {
            ca: file(&settings.ca_file),
            cert: file(&settings.cert_file),
            key: file(&settings.key_file),
        };
        let user = (!settings.username.is_empty()).then(|| User {
            name: settings.username.clone(),
            password_file: file(&settings.password_file),
        });
        Self {
            gateway: Gateway::new(&settings.endpoints, tls, user),
            prefix: settings.prefix_of(name),
            own,
            ttl: settings.ttl,
            lease: None,
            listed: Listed::default(),
            watch: None,
            failures: 0,
            breaks: Breaks::default(),
            has_news: false,
        }
    }

    /// Has a lease that lives.
    async fn keep(&mut self) -> Result<(), Refusal> {
        if let Some(lease) = self.lease {
            if Instant::now() < lease.due {
                return Ok(());
            }
            let question = json!({ "ID": lease.id.to_string() });
            let answer = self.gateway.ask("lease/keepalive", &question).await?;
            if words::number(&answer["result"]["TTL"]) > 0 {
                self.lease = Some(Lease { due: self.next_renewal(), ..lease });
                return Ok(());
            }
            warn!("etcd let go of this node's lease; registering again.");
            self.lease = None;
        }
        let question = json!({ "TTL": self.ttl.as_secs().max(1).to_string() });
        let answer = self.gateway.ask("lease/grant", &question).await?;
        let id = words::number(&answer["ID"]);
        if id == 0 {
            return Err(Refusal::Refused("etcd grants a lease without a number".to_owned()));
        }
        self.lease = Some(Lease { id, due: self.next_renewal() });
        Ok(())
    }

    fn next_renewal(&self) -> Instant {
        Instant::now() + self.ttl / RENEWALS
    }

    /// Writes this node's key, unless it is there.
    async fn register(&mut self) -> Result<(), Refusal> {
        let Some(lease) = self.lease else { return Ok(()) };
        let rest = self.own.place.to_string();
        if self.listed.by_rest.get(&rest) == Some(&lease.id) {
            return Ok(());
        }
        let key = format!("{}{rest}", self.prefix);
        let question = json!({
            "key": words::encoded(&key),
            "value": words::encoded(&self.own.name),
            "lease": lease.id.to_string(),
        });
        match self.gateway.ask("kv/put", &question).await {
            Ok(_) => {
                info!(key, "Registered with etcd.");
                self.listed.by_rest.insert(rest, lease.id);
                Ok(())
            }
            Err(refusal) => {
                if let Refusal::NotFound(_) = refusal {
                    self.lease = None;
                }
                Err(refusal)
            }
        }
    }

    /// Lists all keys, and watches from there unless that is being done.
    async fn list(&mut self) -> Result<(), Refusal> {
        let question = words::range(&self.prefix, FOUND_MAX);
        let answer = self.gateway.ask("kv/range", &question).await?;
        let revision = words::revision(&answer);
        let (entries, are_more) = words::entries(&answer);
        if revision < self.listed.revision {
            debug!(revision, "etcd has gone back; watching anew.");
            self.watch = None;
        }
        let rest = |key: &str| key.strip_prefix(&self.prefix).map(str::to_owned);
        let by_rest = entries.iter().filter_map(|it| Some((rest(&it.key)?, it.lease))).collect();
        self.listed = Listed { by_rest, revision, are_more };
        if self.failures != self.gateway.failures() {
            self.watch = None;
        }
        if self.watch.is_none() {
            let question = words::watch(&self.prefix, revision + 1);
            self.watch = Some(self.gateway.lines("watch", &question).await?);
            self.failures = self.gateway.failures();
            self.breaks.begin();
        }
        Ok(())
    }

    /// What the watch says next; `None` when it is over.
    async fn next(&mut self) -> Option<Vec<Change>> {
        let Some(watch) = &mut self.watch else { return std::future::pending().await };
        let told = match watch.next().await {
            Ok(line) => words::told(&line),
            Err(why) => Told::Over(why),
        };
        match told {
            Told::Changes(changes) => Some(changes),
            Told::Over(why) => {
                info!(reason = why, "The watch of etcd is over; listing members again.");
                self.watch = None;
                None
            }
        }
    }

    /// Takes in what the watch has told; says whether anything is new.
    fn take_in(&mut self, changes: Vec<Change>) -> bool {
        let own = self.own.place.to_string();
        let mut is_new = false;
        for change in changes {
            let Some(rest) = change.key.strip_prefix(&self.prefix) else { continue };
            // What was listed is as it was at that revision.
            if change.revision <= self.listed.revision {
                continue;
            }
            let by_rest = &mut self.listed.by_rest;
            if change.is_gone {
                by_rest.remove(rest);
            } else if by_rest.len() < FOUND_MAX {
                by_rest.insert(rest.to_owned(), change.lease);
            } else {
                self.listed.are_more = true;
            }
            // Somebody else's word of this node: the lease may have ended.
            let ours = self.lease.map(|lease| lease.id);
            if rest == own && self.listed.by_rest.get(rest).copied() != ours {
                self.lease = self.lease.map(|it| Lease { due: Instant::now(), ..it });
                self.has_news = false;
                return true;
            }
            self.has_news = true;
            is_new = true;
        }
        is_new
    }

    fn found(&self, trouble: Option<String>) -> Found {
        let mut bad = BTreeSet::new();
        let mut places = Vec::new();
        for rest in self.listed.by_rest.keys() {
            match rest.parse::<SocketAddr>() {
                Ok(place) => places.push(place),
                Err(_) => _ = bad.insert(rest),
            }
        }
        let strange = bad.first().map(|first| {
            let first: String = first.chars().take(60).collect();
            format!("{} keys below {} are no addresses: {first:?}", bad.len(), self.prefix)
        });
        let many = self.listed.are_more.then(|| {
            format!("below {} are more than {FOUND_MAX} keys; others are left out", self.prefix)
        });
        let trouble: Vec<_> = trouble.into_iter().chain(strange).chain(many).collect();
        Found { places, trouble: (!trouble.is_empty()).then(|| trouble.join("; ")) }
    }
}

fn told(refusal: Refusal) -> String {
    match refusal {
        Refusal::Away(why) | Refusal::NotFound(why) | Refusal::Refused(why) => why,
    }
}

#[async_trait]
impl Source for Etcd {
    fn kind(&self) -> &'static str {
        "etcd"
    }

    async fn look(&mut self) -> Result<Found, Failed> {
        if std::mem::take(&mut self.has_news) && self.watch.is_some() {
            return Ok(self.found(None));
        }
        // Whoever may not write may still find the others.
        let kept = self.keep().await;
        self.list().await.map_err(|refusal| Failed(told(refusal)))?;
        let registered = match kept {
            Ok(()) => self.register().await,
            Err(refusal) => Err(refusal),
        };
        let trouble = registered.err().map(|it| format!("cannot register: {}", told(it)));
        Ok(self.found(trouble))
    }

    async fn changed(&mut self) {
        loop {
            let due = self.lease.map(|lease| lease.due);
            let renewal = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = renewal => {
                    let before = self.lease.map(|lease| lease.id);
                    if let Err(refusal) = self.keep().await {
                        debug!(reason = told(refusal), "This node's lease is not renewed.");
                        let due = Instant::now() + RENEW_AGAIN;
                        self.lease = self.lease.map(|lease| Lease { due, ..lease });
                    }
                    if self.lease.map(|lease| lease.id) != before {
                        return;
                    }
                }
                told = self.next() => {
                    let Some(changes) = told else {
                        self.breaks.pause().await;
                        return;
                    };
                    if self.take_in(changes) {
                        sleep(SETTLE).await;
                        return;
                    }
                }
            }
        }
    }

    async fn withdraw(&mut self) {
        self.watch = None;
        let Some(lease) = self.lease.take() else { return };
        let question = json!({ "ID": lease.id.to_string() });
        match self.gateway.ask("lease/revoke", &question).await {
            Ok(_) | Err(Refusal::NotFound(_)) => info!("Taken out of etcd."),
            Err(refusal) => {
                let reason = told(refusal);
                warn!(reason, "This node's entry in etcd stays until its lease ends.");
            }
        }
    }
}
