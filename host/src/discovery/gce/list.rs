//! Lists of instances: all pages of one project, from one zone or from several.
//!
//! A list is whole or it is none: whoever asks keeps what it had of a project whose list breaks
//! off, and of a zone of which the service says that it is not all there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use reqwest::{
    Client, StatusCode, Url,
    header::{AUTHORIZATION, HeaderValue},
};
use serde::Deserialize;

use super::{
    ask::ask,
    instance::{Instance, Rule},
    refusal::Refusal,
};

/// Time for a page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a page: a hundred instances with all the metadata that one may have.
const PAGE_MAX: usize = 64 << 20;

/// Pages of a list.
const PAGES_MAX: usize = 200;

/// Instances of a list.
const INSTANCES_MAX: usize = 20_000;

/// Instances of a page where their metadata comes along, which can be large, and where not.
const ON_A_PAGE: [usize; 2] = [100, 500];

/// What is said of a scope whose list is not whole.
const INCOMPLETE: [&str; 3] = ["UNREACHABLE", "PARTIAL_SUCCESS", "LIST_OVERHEAD_QUOTA_EXCEED"];

/// The zones that instances are looked for in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Places {
    /// This one.
    Zone(String),
    /// These, and those of these regions.
    Some { zones: BTreeSet<String>, regions: BTreeSet<String> },
    /// All there are.
    All,
}

impl Places {
    pub(super) fn cover(&self, zone: &str) -> bool {
        match self {
            Self::Zone(only) => only == zone,
            Self::All => true,
            Self::Some { zones, regions } => {
                let region = zone.rsplit_once('-').map_or("", |(region, _)| region);
                zones.contains(zone) || regions.contains(region)
            }
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) places: Places,
    filter: String,
    /// Metadata that is compared.
    meta: BTreeMap<String, String>,
}

impl Question {
    pub(super) fn new(places: Places, rule: &Rule) -> Self {
        let mut terms = vec!["status = RUNNING".to_owned()];
        // What a filter may not take as it stands is compared here all the same.
        let is_plain = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_lowercase())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let labels = rule.labels.iter().filter(|(key, value)| is_plain(key) && is_plain(value));
        terms.extend(labels.map(|(key, value)| format!("labels.{key} = {value}")));
        let filter = match &terms[..] {
            [one] => one.clone(),
            several => {
                let several: Vec<_> = several.iter().map(|term| format!("({term})")).collect();
                several.join(" AND ")
            }
        };
        Self { places, filter, meta: rule.meta.clone() }
    }

    fn url(&self, base: &Url, project: &str, page: Option<&str>) -> Url {
        let mut url = base.clone();
        let place: &[&str] = match &self.places {
            Places::Zone(zone) => &["zones", zone],
            _ => &["aggregated"],
        };
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["projects", project]).extend(place).push("instances");
        }
        let has_meta = !self.meta.is_empty();
        let meta = if has_meta { "metadata/items," } else { "" };
        let of_instance = format!(
            "id,name,status,zone,tags/items,{meta}labels,\
             networkInterfaces(name,networkIP,ipv6Address,network)"
        );
        let size = ON_A_PAGE[usize::from(!has_meta)].to_string();
        let mut query = url.query_pairs_mut();
        query.append_pair("filter", &self.filter).append_pair("maxResults", &size);
        if matches!(self.places, Places::Zone(_)) {
            let fields = format!("items({of_instance}),nextPageToken,warning(code,message)");
            query.append_pair("fields", &fields);
        } else {
            let fields = format!(
                "items/*/instances({of_instance}),items/*/warning(code,message),nextPageToken,\
                 unreachables,warning(code,message)"
            );
            query.append_pair("fields", &fields).append_pair("returnPartialSuccess", "true");
        }
        if let Some(page) = page {
            query.append_pair("pageToken", page);
        }
        drop(query);
        url
    }
}

/// All instances that a project has there.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) instances: Vec<Instance>,
    /// Zones of which not all are there, and what was said of each.
    pub(super) incomplete: BTreeMap<String, String>,
    /// Said of the list as a whole, if that is not all there.
    pub(super) is_part: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Page<Items> {
    items: Items,
    next_page_token: Option<String>,
    warning: Option<Warning>,
    unreachables: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Scope {
    instances: Vec<Instance>,
    warning: Option<Warning>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Warning {
    code: String,
    message: String,
}

impl Warning {
    /// What it says, where that is that something is missing.
    fn told(self) -> Option<String> {
        let is_incomplete = INCOMPLETE.iter().any(|code| self.code.starts_with(code));
        is_incomplete.then(|| format!("{} {}", self.code, self.message).trim().to_owned())
    }
}

/// Where the API is, and how it is reached.
#[derive(Clone, Debug)]
pub(super) struct Api {
    pub(super) client: Client,
    pub(super) base: Url,
}

impl Api {
    /// Asks for all pages of `project`.
    pub(super) async fn list(
        &self,
        question: &Question,
        project: &str,
        token: &HeaderValue,
    ) -> Result<Listing, Refusal> {
        let (mut listing, mut next) = (Listing::default(), None::<String>);
        for _page in 0..PAGES_MAX {
            let url = question.url(&self.base, project, next.as_deref());
            let request = self.client.get(url).header(AUTHORIZATION, token);
            let answer = ask(request, PAGE_TIMEOUT, PAGE_MAX).await?;
            if answer.status != StatusCode::OK {
                return Err(Refusal::read(&answer, project));
            }
            let before = listing.instances.len();
            let after = listing.take(&question.places, &answer.body).map_err(|error| {
                Refusal::passing(format!("its answer is not a list of instances: {error}"))
            })?;
            // Metadata can be large, and most of it is of no use.
            for instance in &mut listing.instances[before..] {
                instance.keep_metadata(&question.meta);
            }
            if listing.instances.len() > INSTANCES_MAX {
                return Err(Refusal::lasting(format!(
                    "there are more than {INSTANCES_MAX} instances: name fewer zones, or labels, \
                     in [match]"
                )));
            }
            match after {
                None => return Ok(listing),
                Some(after) if next.as_ref() == Some(&after) => {
                    return Err(Refusal::passing("its list does not go on after a page"));
                }
                after => next = after,
            }
        }
        Err(Refusal::lasting(format!(
            "its list has more than {PAGES_MAX} pages: name fewer zones, or labels, in [match]"
        )))
    }
}

impl Listing {
    /// Takes a page in; gives the token of the next one.
    fn take(&mut self, places: &Places, body: &[u8]) -> serde_json::Result<Option<String>> {
        let (next, warning, unreachables) = if let Places::Zone(zone) = places {
            let page: Page<Vec<Instance>> = serde_json::from_slice(body)?;
            self.instances.extend(page.items);
            if let Some(told) = page.warning.and_then(Warning::told) {
                self.incomplete.insert(zone.clone(), told);
            }
            (page.next_page_token, None, Vec::new())
        } else {
            let page: Page<BTreeMap<String, Scope>> = serde_json::from_slice(body)?;
            for (scope, found) in page.items {
                let zone = last(&scope);
                if !places.cover(zone) {
                    continue;
                }
                self.instances.extend(found.instances);
                if let Some(told) = found.warning.and_then(Warning::told) {
                    self.incomplete.insert(zone.to_owned(), told);
                }
            }
            (page.next_page_token, page.warning.and_then(Warning::told), page.unreachables)
        };
        for scope in &unreachables {
            if places.cover(last(scope)) {
                let told = || "UNREACHABLE".to_owned();
                self.incomplete.entry(last(scope).to_owned()).or_insert_with(told);
            }
        }
        // It may be of a zone that is none of ours; where it names one, that has been said.
        if unreachables.is_empty() && self.incomplete.is_empty() {
            self.is_part = self.is_part.take().or(warning);
        }
        Ok(next.filter(|next| !next.is_empty()))
    }
}

/// What a URL or a path ends in.
pub(super) fn last(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Places {
        Places::Some {
            zones: ["us-east1-b".to_owned()].into(),
            regions: ["us-central1".to_owned()].into(),
        }
    }

    #[test]
    fn the_question_names_the_next_page_and_no_tags() {
        let base = "https://compute.googleapis.com/compute/v1/".parse().expect("a URL");
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let mut rule = Rule { tags: vec!["cache".to_owned()], ..Rule::default() };
        let zone = Places::Zone("us-central1-b".to_owned());
        let url = Question::new(zone.clone(), &rule).url(&base, "my-project", None);
        assert_eq!(url.path(), "/compute/v1/projects/my-project/zones/us-central1-b/instances");
        let query: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!(
            (query["filter"].as_str(), query["maxResults"].as_str()),
            ("status = RUNNING", "500")
        );
        assert!(query["fields"].contains("nextPageToken") && !query["fields"].contains("metadata"));
        assert!(!query.contains_key("returnPartialSuccess"));

        rule.labels = [pair("app", "cache"), pair("odd", "-1")].into();
        rule.meta = [pair("k", "v")].into();
        let url = Question::new(some(), &rule).url(&base, "example.com:p", Some("a/b="));
        assert_eq!(url.path(), "/compute/v1/projects/example.com:p/aggregated/instances");
        let query: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!(query["filter"], "(status = RUNNING) AND (labels.app = cache)");
        assert_eq!((query["pageToken"].as_str(), query["maxResults"].as_str()), ("a/b=", "100"));
        assert!(
            query["fields"].contains("metadata/items") && query["fields"].contains("unreachables")
        );
    }

    #[test]
    fn a_scope_may_be_on_several_pages_and_be_missing_in_part() {
        let mut listing = Listing::default();
        let first = br#"{"items": {
            "zones/us-central1-a": {"instances": [{"id": "1"}]},
            "zones/us-central1-b": {"warning": {"code": "NO_RESULTS_ON_PAGE", "message": "x"}},
            "zones/europe-west1-b": {"instances": [{"id": "9"}]}
        }, "nextPageToken": "t"}"#;
        assert_eq!(listing.take(&some(), first).expect("a page"), Some("t".to_owned()));
        let second = br#"{"items": {
            "zones/us-central1-a": {"instances": [{"id": "2"}]},
            "zones/us-central1-b": {"warning": {"code": "UNREACHABLE", "message": "gone"}}
        }, "unreachables": ["projects/p/zones/us-east1-b", "projects/p/zones/asia-east1-a"]}"#;
        assert_eq!(listing.take(&some(), second).expect("a page"), None);
        let ids: Vec<_> = listing.instances.iter().map(|it| it.id.as_str()).collect();
        assert_eq!(ids, ["1", "2"]);
        let incomplete: Vec<_> = listing.incomplete.keys().map(String::as_str).collect();
        assert_eq!(incomplete, ["us-central1-b", "us-east1-b"]);
        assert_eq!(listing.is_part, None);
        let whole = br#"{"warning": {"code": "LIST_OVERHEAD_QUOTA_EXCEEDED"}}"#;
        let mut listing = Listing::default();
        assert_eq!(listing.take(&some(), whole).expect("a page"), None);
        assert!(listing.is_part.is_some());
    }

    #[test]
    fn an_empty_list_has_no_items_and_half_a_page_is_none() {
        let zone = Places::Zone("us-central1-b".to_owned());
        let mut listing = Listing::default();
        let empty = br#"{"kind": "compute#instanceList", "nextPageToken": "n"}"#;
        assert_eq!(listing.take(&zone, empty).expect("a page"), Some("n".to_owned()));
        assert!(listing.take(&zone, br#"{"items": [{"id": "1"#).is_err());
        assert!(listing.take(&zone, b"<html>").is_err());
        assert!(listing.instances.is_empty());
    }

    #[test]
    fn a_region_is_what_its_zones_begin_with() {
        assert!(some().cover("us-central1-ai1a") && some().cover("us-east1-b"));
        assert!(!some().cover("us-central10-a") && !some().cover("us-east1-c"));
        assert!(Places::All.cover("anywhere"));
    }
}
