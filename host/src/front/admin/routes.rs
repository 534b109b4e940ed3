//! From a request to its answer; the routes are listed in the module above.

use std::{net::IpAddr, sync::Arc};

use ::http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    request::Parts,
};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::{
    super::{body::ReplyBody, problem::Problem, target},
    AdminState,
    actions::{self, Acting, Action},
    guard,
};
use crate::group::{Group, Told};

const READ: &str = "GET, HEAD";
const PURGE: &str = "DELETE";
const KEY: &str = "GET, HEAD, DELETE";
const ACT: &str = "POST";

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// What scrapers ask for; they parse by it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const INDEX: &str = "\
GET    /livez                       200 while the process answers
GET    /readyz[?verbose]            200, or 503 and the reason
GET    /metrics                     every metric
GET    /status                      the node, its cluster, its groups and its plugins
GET    /members                     the cluster as this node sees it
GET    /groups/{group}/keys/{key}   who owns a key, who holds it, what a get would do
DELETE /groups/{group}              purges a whole group
DELETE /groups/{group}/keys/{key}   purges one key
DELETE /groups/{group}/tags/{tag}   purges every value with a label
POST   /reload                      reads the settings and every plugin's file again
POST   /plugins/{name}/reload       has one plugin look at its file
";

/// The answer to a request without a body, which arrived at the address `local`.
pub(super) async fn respond(
    state: &AdminState,
    head: &Parts,
    local: Option<IpAddr>,
) -> Response<ReplyBody> {
    let is_head = head.method == Method::HEAD;
    let response = match route(state, head, local) {
        Ok(Routed::Answered(response)) => Ok(response),
        Ok(Routed::Acting(acting)) => actions::answer(acting).await,
        Err(problem) => Err(problem),
    };
    response
        .unwrap_or_else(|problem| problem.reply(HeaderMap::new(), false))
        .map(|body| if is_head { ReplyBody::empty() } else { body })
}

/// What a request leads to.
enum Routed {
    Answered(Response<ReplyBody>),
    Acting(Acting),
}

fn route(state: &AdminState, head: &Parts, local: Option<IpAddr>) -> Result<Routed, Problem> {
    let path = head.uri.path();
    if !matches!(path, "/livez" | "/readyz") {
        guard::check(&head.method, &head.uri, &head.headers, local)?;
    }
    if let Some(rest) = path.strip_prefix("/groups/") {
        if head.uri.query().is_some() {
            return Err(target::TargetError::Query.into());
        }
        let (group, part) = named(state, rest)?;
        return match (&head.method, part) {
            (&Method::DELETE, part) => Ok(purge(group, part)),
            (&Method::GET | &Method::HEAD, Part::Key(key)) => {
                Ok(Routed::Acting((state.explain)(group, key)))
            }
            (_, Part::Key(_)) => Err(Problem::method(KEY)),
            _ => Err(Problem::method(PURGE)),
        };
    }
    if let Some(action) = Action::at(path) {
        if head.method != Method::POST {
            return Err(Problem::method(ACT));
        }
        if head.uri.query().is_some() {
            return Err(target::TargetError::Query.into());
        }
        return action.begin(state).map(Routed::Acting);
    }
    let read: fn(&AdminState, &Parts) -> Response<ReplyBody> = match path {
        "/" => |_, _| text(StatusCode::OK, TEXT, INDEX.to_owned()),
        "/livez" => |_, _| text(StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" => |state, head| readyz(state, head.uri.query()),
        "/metrics" => |state, _| metrics(state),
        "/status" => |state, _| json(StatusCode::OK, &status(state)),
        "/members" => |state, _| json(StatusCode::OK, &members(state)),
        _ => return Err(not_found("see / for what is here; keys are served on the client port")),
    };
    if matches!(head.method, Method::GET | Method::HEAD) {
        Ok(Routed::Answered(read(state, head)))
    } else {
        Err(Problem::method(READ))
    }
}

fn not_found(detail: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
}

fn readyz(state: &AdminState, query: Option<&str>) -> Response<ReplyBody> {
    let reason = state.readiness.reason();
    let status = if reason.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let is_verbose = query.is_some_and(|query| {
        query.split('&').any(|part| part.split('=').next() == Some("verbose"))
    });
    let answer = match reason {
        _ if is_verbose => state.readiness.verbose(),
        None => "ready\n".to_owned(),
        Some(reason) => format!("{reason}\n"),
    };
    text(status, TEXT, answer)
}

fn metrics(state: &AdminState) -> Response<ReplyBody> {
    for group in state.groups.all() {
        group.observe();
    }
    text(StatusCode::OK, OPEN_METRICS, state.metrics.encode())
}

fn status(state: &AdminState) -> Value {
    let groups: serde_json::Map<String, Value> =
        state.groups.all().iter().map(|group| (group.name().to_owned(), describe(group))).collect();
    let reason = state.readiness.reason();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": state.started.elapsed().as_secs(),
        "ready": reason.is_none(),
        "not_ready_because": reason,
        "cluster": (state.cluster)(),
        "groups": groups,
        "plugins": (state.plugins)(),
        "last_reload": (state.last_reload)(),
    })
}

fn describe(group: &Group) -> Value {
    let usage = group.usage();
    json!({
        "items": usage.items,
        "bytes": usage.bytes,
        "budget_bytes": usage.budget,
        "evictions": usage.evictions,
        "flights": usage.flights,
        "settings": &*group.settings(),
    })
}

/// The cluster; a node without one is the only member of none.
fn members(state: &AdminState) -> Value {
    match (state.cluster)() {
        Value::Null => json!({ "name": null, "members": [] }),
        cluster => cluster,
    }
}

/// What of a group a path names.
enum Part {
    All,
    Key(Vec<u8>),
    Tag(String),
}

/// The group that `rest`, the path behind `/groups/`, names, and what of it.
fn named(state: &AdminState, rest: &str) -> Result<(Arc<Group>, Part), Problem> {
    let (name, part) = rest.split_once('/').map_or((rest, None), |(name, part)| (name, Some(part)));
    let part = match part.map(|part| part.split_once('/')) {
        None => Part::All,
        Some(Some(("keys", key))) => Part::Key(target::decode(key)?.into_owned()),
        Some(Some(("tags", tag))) => Part::Tag(target::name(tag)?.into_owned()),
        Some(_) => {
            return Err(not_found(
                "name /groups/{group}, one key as /groups/{group}/keys/{key}, or a label as \
                 /groups/{group}/tags/{tag}",
            ));
        }
    };
    let name = target::name(name)?;
    let group = state.groups.get(&name).ok_or_else(|| Problem::no_group(&name))?;
    Ok((group, part))
}

/// Purges a part of a group, or all of it.
fn purge(group: Arc<Group>, part: Part) -> Routed {
    let name = group.name().to_owned();
    let purged = match part {
        Part::All => {
            let items = group.usage().items;
            group.purge_all();
            json!({ "purged": { "group": name, "items": items } })
        }
        Part::Key(key) => {
            let (was_in_memory, telling) = group.purge_everywhere(&key);
            let key = String::from_utf8_lossy(&key).into_owned();
            let mut purged =
                json!({ "purged": { "group": name, "key": key, "was_in_memory": was_in_memory } });
            if let Some(telling) = telling {
                return Routed::Acting(Box::pin(async move {
                    let Told { told, missed } = telling.await;
                    purged["purged"]["peers"] = json!({ "told": told, "missed": missed });
                    Ok(purged)
                }));
            }
            purged
        }
        // All of memory is looked at.
        Part::Tag(tag) => {
            return Routed::Acting(Box::pin(async move {
                let purging = tag.clone();
                let items = spawn_blocking(move || group.purge_tag(&purging)).await.unwrap_or(0);
                Ok(json!({ "purged": { "group": name, "tag": tag, "items": items } }))
            }));
        }
    };
    Routed::Answered(json(StatusCode::OK, &purged))
}

/// A reply with `document` as its body.
pub(super) fn json(status: StatusCode, document: &Value) -> Response<ReplyBody> {
    text(status, JSON, format!("{document:#}\n"))
}

fn text(status: StatusCode, kind: &'static str, text: String) -> Response<ReplyBody> {
    let mut headers = HeaderMap::new();
    // A HEAD loses its body and keeps its length.
    headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let mut response = Response::new(ReplyBody::from(Bytes::from(text)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
