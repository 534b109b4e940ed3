//! Compute Engine: members are the instances that run and are as the settings say.
//!
//! - `metadata`: what this instance is told about itself; `notice` waits there for the word that
//!   it is to be stopped.
//! - `token`: by which the API is asked.
//! - `list`: all pages of a project's instances; `refusal`: why they do not come, and what helps.
//! - `instance`: which of them are members.
//! - `ask`: one question over HTTP, within bounds.
//!
//! Invariants:
//! - what cannot be listed as a whole, be it a project or a zone, stays as it was;
//! - who is not allowed to ask, or asks too much, does not ask again at once;
//! - this instance proposes neither itself nor who is in another network.

mod ask;
mod instance;
mod list;
mod metadata;
mod notice;
mod refusal;
mod token;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use reqwest::header::HeaderValue;
use tokio::task::JoinSet;
use tracing::{info, warn};

use self::{
    instance::{Candidate, Rule},
    list::{Api, Listing, Places, Question, last},
    refusal::{Kind, Refusal},
    token::Tokens,
};
pub use self::{
    metadata::{Metadata, MetadataError},
    notice::stopping,
};
use super::{Failed, Found, Source};
use crate::config::{Config, matching::endpoint};

/// Time to connect to the API.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for a look: enough for a large project's list, page after page.
const LOOK_TIMEOUT: Duration = Duration::from_mins(2);

/// How many times longer the next look has to wait where only somebody who changes something can
/// help, such as the project's owner.
const SLOW: u32 = 5;

/// The least time after a token that was not taken.
const TOKEN_REST: Duration = Duration::from_mins(1);

/// Instances of Compute Engine.
pub struct Gce {
    metadata: Metadata,
    api: Result<Arc<Api>, String>,
    rule: Rule,
    projects: Vec<String>,
    /// `None`: this instance's own zone.
    places: Option<Places>,
    port: u16,
    interval: Duration,
    rest: Duration,
    tokens: Tokens,
    own: Option<Own>,
    known: BTreeMap<String, Known>,
    /// What was wrong with the last look.
    trouble: Option<String>,
    /// What was said last about this instance's own record, so that it is said once.
    said: Option<String>,
}

/// What this instance is told about itself.
#[derive(Clone, Debug)]
struct Own {
    project: String,
    zone: String,
    id: u64,
    /// Its network tags when this program began, for as long as its record is not known.
    tags: Vec<String>,
}

/// What a project's list had when it was whole, zone by zone.
#[derive(Debug, Default)]
struct Known {
    by_zone: BTreeMap<String, Vec<Candidate>>,
    /// This instance's record, if it is one of this project: a candidate, or what it lacks.
    own: Option<Result<Candidate, String>>,
}

/// Why a look has come to nothing.
struct Nothing {
    reason: String,
    rest: Duration,
}

impl Gce {
    /// The instances that `config` describes, whose members are reached at `[cluster] port`.
    pub fn new(config: &Config, metadata: Metadata) -> Self {
        let (matching, own) = (&config.matching, &config.discovery.gce);
        let api = endpoint(&own.endpoint).map_err(|error| error.to_string()).and_then(|base| {
            let client = ask::client(base.scheme() == "https", CONNECT_TIMEOUT)?;
            Ok(Arc::new(Api { client, base }))
        });
        let zones: BTreeSet<_> = matching.all_zones().map(str::to_owned).collect();
        let regions: BTreeSet<_> = matching.regions.iter().cloned().collect();
        let places = match (zones.len(), regions.len()) {
            (0, 0) => None,
            _ if zones.contains("*") => Some(Places::All),
            (1, 0) => zones.into_iter().next().map(Places::Zone),
            _ => Some(Places::Some { zones, regions }),
        };
        let projects: BTreeSet<_> = matching.all_projects().map(str::to_owned).collect();
        Self {
            metadata,
            api,
            rule: Rule::new(matching, &config.meta),
            projects: projects.into_iter().collect(),
            places,
            port: config.cluster.port,
            interval: own.interval,
            rest: Duration::ZERO,
            tokens: Tokens::default(),
            own: None,
            known: BTreeMap::new(),
            trouble: None,
            said: None,
        }
    }

    fn slow(&self) -> Duration {
        self.interval * SLOW
    }

    async fn look_once(&mut self) -> Result<Found, Nothing> {
        let api = self.api.clone().map_err(|reason| Nothing { reason, rest: self.slow() })?;
        let own = self.own().await?;
        let places = self.places.clone().unwrap_or_else(|| Places::Zone(own.zone.clone()));
        let question = Arc::new(Question::new(places, &self.rule));
        let mut projects = self.projects.clone();
        if projects.is_empty() {
            projects.push(own.project.clone());
        }
        let mut listed = list_all(&api, &question, projects, self.token().await?).await;
        let refused: Vec<_> = refused(&listed).collect();
        if !refused.is_empty() && self.tokens.refuse() {
            let token = self.token().await?;
            listed.extend(list_all(&api, &question, refused, token).await);
        }
        self.take(&own, &question.places, listed)
    }

    /// What this instance is. Asked for once: none of it changes while a program runs.
    async fn own(&mut self) -> Result<Own, Nothing> {
        if let Some(own) = &self.own {
            return Ok(own.clone());
        }
        let asked = async {
            let id = self.metadata.get("instance/id").await?;
            let project = self.metadata.get("project/project-id").await?;
            let zone = self.metadata.get("instance/zone").await?;
            Ok((id, project, zone, self.metadata.list("instance/tags").await?))
        };
        let told: Result<_, MetadataError> = asked.await;
        let (id, project, zone, tags) = told.map_err(|error| self.without_metadata(&error))?;
        let Ok(id) = id.parse() else {
            let reason = format!("the metadata server says that this instance's id is {id:?}");
            return Err(Nothing { reason, rest: self.slow() });
        };
        let own = Own { project, zone: last(&zone).to_owned(), id, tags };
        info!(instance = own.id, project = own.project, zone = own.zone, "This is Compute Engine.");
        Ok(self.own.insert(own).clone())
    }

    fn without_metadata(&self, error: &MetadataError) -> Nothing {
        let is_here = self.metadata.is_expected() && matches!(error, MetadataError::Away { .. });
        if is_here {
            return Nothing { reason: error.to_string(), rest: Duration::ZERO };
        }
        let reason = format!(
            "{error}: this is not Compute Engine, and the node serves alone. Here, name members in \
             [cluster] seeds and set [discovery.gce] enabled = false"
        );
        Nothing { reason, rest: self.slow() }
    }

    async fn token(&mut self) -> Result<HeaderValue, Nothing> {
        let rest = self.slow();
        self.tokens.header(&self.metadata).await.map_err(|error| match error {
            token::NoToken::Metadata(MetadataError::Away { .. }) => {
                Nothing { reason: error.to_string(), rest: Duration::ZERO }
            }
            error => Nothing { reason: error.to_string(), rest },
        })
    }

    /// Takes in what came of the lists of some projects.
    fn take(
        &mut self,
        own: &Own,
        places: &Places,
        listed: BTreeMap<String, Result<Listing, Refusal>>,
    ) -> Result<Found, Nothing> {
        let (mut trouble, mut rest, mut is_any) = (Vec::new(), Duration::ZERO, false);
        for (project, listed) in listed {
            match listed {
                Ok(listing) => {
                    is_any = true;
                    let known = self.known.remove(&project).unwrap_or_default();
                    let (known, missing) = known.with(listing, &self.rule, own.id);
                    trouble.extend(missing.map(|it| format!("project {project}: {it}")));
                    self.known.insert(project, known);
                }
                Err(refusal) => {
                    rest = rest.max(match refusal.kind {
                        Kind::Passing => Duration::ZERO,
                        Kind::Resting(rest) => rest,
                        Kind::Token => TOKEN_REST,
                        Kind::Lasting => self.slow(),
                    });
                    trouble.push(format!("project {project}: {}", refusal.reason));
                }
            }
        }
        let trouble = (!trouble.is_empty()).then(|| trouble.join("; "));
        match trouble {
            Some(reason) if !is_any => Err(Nothing { reason, rest }),
            trouble => {
                self.rest = rest;
                self.look_at_own(own, places, trouble.is_none());
                Ok(Found { places: self.places_of_others(own), trouble })
            }
        }
    }

    /// Notes what is wrong. Discovery says so when it begins; what follows on something else is
    /// said here, if it lasts until somebody does what it says.
    fn remember(&mut self, trouble: Option<String>) {
        if let (Some(before), Some(reason)) = (&self.trouble, &trouble)
            && before != reason
            && self.rest >= self.slow()
        {
            warn!(reason, "Compute Engine does not say who is there, for another reason now.");
        }
        self.trouble = trouble;
    }

    /// Says so if this instance is none of those that are looked for. `is_whole`: nothing was
    /// missing from the lists.
    fn look_at_own(&mut self, own: &Own, places: &Places, is_whole: bool) {
        let record = self.known.values().find_map(|known| known.own.as_ref());
        let is_in_project = self.projects.is_empty() || self.projects.contains(&own.project);
        let lack = match record {
            Some(Ok(_)) => None,
            Some(Err(lack)) => Some(lack.clone()),
            None if !places.cover(&own.zone) => {
                Some(format!("its zone {} is not in [match]", own.zone))
            }
            None if !is_in_project => {
                Some(format!("its project {} is not in [match]", own.project))
            }
            None if is_whole => Some(match self.rule.lacking_tag(&own.tags) {
                Some(tag) => format!("it has no network tag {tag}"),
                None => "it is not in the list: it is not RUNNING yet, or lacks a label".to_owned(),
            }),
            None => return,
        };
        if lack != self.said {
            if let Some(lack) = &lack {
                warn!(
                    instance = own.id,
                    lack,
                    "This instance is none of those that it looks for: others do not find it."
                );
            } else {
                info!(instance = own.id, "This instance is one of those that are looked for.");
            }
            self.said = lack;
        }
    }

    /// Where the others are, of this instance's own network.
    fn places_of_others(&self, own: &Own) -> Vec<SocketAddr> {
        let record = self.known.values().find_map(|known| known.own.as_ref()?.as_ref().ok());
        let network = record.map(|record| &record.network);
        let all = self.known.values().flat_map(|known| known.by_zone.values().flatten());
        all.filter(|it| it.id != own.id && network.is_none_or(|network| it.network == *network))
            .map(|it| SocketAddr::new(it.address, self.port))
            .collect()
    }
}

impl Known {
    /// As this is after a list, and what was missing from that. Of zones that were not all there
    /// nobody is forgotten.
    fn with(mut self, listing: Listing, rule: &Rule, own: u64) -> (Self, Option<String>) {
        let Listing { instances, incomplete, is_part } = listing;
        let mut by_zone: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
        let mut record = None;
        for instance in instances {
            let applied = rule.apply(&instance);
            if instance.id.parse() == Ok(own) {
                record = Some(applied.clone());
            }
            if let Ok(candidate) = applied {
                by_zone.entry(last(&instance.zone).to_owned()).or_default().push(candidate);
            }
        }
        for (zone, before) in self.by_zone {
            if is_part.is_some() || incomplete.contains_key(&zone) {
                let now = by_zone.entry(zone).or_default();
                let missing = before.into_iter().filter(|it| now.iter().all(|now| now.id != it.id));
                let missing: Vec<_> = missing.collect();
                now.extend(missing);
            }
        }
        let is_whole = is_part.is_none() && incomplete.is_empty();
        self.own = if is_whole { record } else { record.or(self.own) };
        let zones = incomplete.iter().map(|(zone, told)| format!("zone {zone}: {told}"));
        let missing: Vec<_> = zones.chain(is_part).collect();
        let told = (!missing.is_empty()).then(|| missing.join("; "));
        (Self { by_zone, own: self.own }, told)
    }
}

/// Asks for the lists of all `projects` at once, so that one that hangs holds up no other.
async fn list_all(
    api: &Arc<Api>,
    question: &Arc<Question>,
    projects: Vec<String>,
    token: HeaderValue,
) -> BTreeMap<String, Result<Listing, Refusal>> {
    let mut asking = JoinSet::new();
    for project in projects {
        let (api, question, token) = (Arc::clone(api), Arc::clone(question), token.clone());
        asking.spawn(async move {
            let listed = api.list(&question, &project, &token).await;
            (project, listed)
        });
    }
    let mut listed = BTreeMap::new();
    while let Some(one) = asking.join_next().await {
        listed.extend(one.ok());
    }
    listed
}

/// The projects in which the token was not taken.
fn refused(
    listed: &BTreeMap<String, Result<Listing, Refusal>>,
) -> impl Iterator<Item = String> + '_ {
    let refused = |listed: &Result<Listing, Refusal>| {
        listed.as_ref().is_err_and(|refusal| refusal.kind == Kind::Token)
    };
    listed.iter().filter(move |(_, it)| refused(it)).map(|(project, _)| project.clone())
}

#[async_trait]
impl Source for Gce {
    fn kind(&self) -> &'static str {
        "gce"
    }

    fn every(&self) -> Duration {
        self.interval
    }

    fn patience(&self) -> Duration {
        LOOK_TIMEOUT
    }

    fn rest(&self) -> Duration {
        self.rest
    }

    async fn look(&mut self) -> Result<Found, Failed> {
        self.rest = Duration::ZERO;
        let looked = self.look_once().await.map_err(|Nothing { reason, rest }| {
            self.rest = rest;
            Failed(reason)
        });
        self.remember(match &looked {
            Ok(found) => found.trouble.clone(),
            Err(Failed(reason)) => Some(reason.clone()),
        });
        looked
    }

    async fn changed(&mut self) {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
