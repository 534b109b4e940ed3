//! The API's lists of instances.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{Api, Interface, Machine, PROJECT, Reply, State, World, ZONES, reply, split};
use crate::harness::origin::Asked;

const ROOT: &str = "https://www.googleapis.com/compute/v1/projects";

pub(super) fn answer(world: &World, asked: &Asked) -> Reply {
    let mut state = world.lock();
    state.asked.push(asked.target.clone());
    match state.api {
        Api::Away => return Reply::Cut,
        Api::Hangs => return Reply::Hang,
        Api::Html => {
            let page = b"<!DOCTYPE html><title>Error 502 (Server Error)!!1</title>";
            return reply("502 Bad Gateway", "content-type: text/html\r\n", page);
        }
        Api::OverQuota => {
            let message = "Quota exceeded for quota metric 'Read requests'.";
            return error(403, "rateLimitExceeded", message);
        }
        Api::Forbids(reason) => return error(403, reason, "No."),
        Api::Fails(status) => return error(status, "backendError", "Internal error."),
        Api::Well | Api::Truncates | Api::Misses(_) => {}
    }
    match list(&state, asked) {
        Ok(page) => {
            let text = page.to_string();
            let json = "content-type: application/json; charset=UTF-8\r\n";
            let Reply::Bytes(mut bytes) = reply("200 OK", json, text.as_bytes()) else {
                return Reply::Cut;
            };
            if state.api == Api::Truncates {
                bytes.truncate(bytes.len() - text.len() / 2);
            }
            Reply::Bytes(bytes)
        }
        Err(refused) => refused,
    }
}

fn error(status: u16, reason: &str, message: &str) -> Reply {
    let written = json!({ "error": {
        "code": status, "message": message,
        "errors": [{ "message": message, "domain": "global", "reason": reason }],
    }});
    let status = http::StatusCode::from_u16(status).expect("a status").to_string();
    reply(&status, "content-type: application/json\r\n", written.to_string().as_bytes())
}

fn list(state: &State, asked: &Asked) -> Result<Value, Reply> {
    allowed(state, asked)?;
    let (path, query) = split(&asked.target);
    let parts: Vec<_> = path.trim_start_matches("/compute/v1/").split('/').collect();
    let absent = || error(404, "notFound", "The resource was not found.");
    let (project, zone) = match parts[..] {
        ["projects", project, "zones", zone, "instances"] => (project, Some(zone)),
        ["projects", project, "aggregated", "instances"] => (project, None),
        _ => return Err(absent()),
    };
    if !state.machines.iter().any(|it| it.project == project) {
        return Err(absent());
    }
    if let Some(zone) = zone.filter(|zone| !ZONES.contains(zone)) {
        let message = format!("Invalid value for field 'zone': '{zone}'. Unknown zone.");
        return Err(error(400, "invalid", &message));
    }
    let text = |key: &str| query.get(key).map_or("", String::as_str);
    let filter = filter(text("filter"))?;
    let found = state.machines.iter().filter(|it| {
        it.project == project
            && zone.is_none_or(|zone| it.zone == zone)
            && filter.iter().all(|term| term.takes(it))
    });
    let found: Vec<_> = found.collect();

    // Pages are numbered; those with odd numbers are empty where pages are small.
    let size = text("maxResults").parse().unwrap_or(500_usize).min(state.page);
    let number: usize = match text("pageToken").split_once(':') {
        Some((number, of)) if of == text("filter") => number.parse().unwrap_or(0),
        Some(_) => return Err(error(400, "invalid", "Invalid value for field 'pageToken'.")),
        None => 0,
    };
    let (first, is_empty) = if state.page < 500 {
        (number / 2 * size, number % 2 == 1)
    } else {
        (number * size, false)
    };
    let page = found.iter().skip(first).take(if is_empty { 0 } else { size });
    let page: Vec<_> = page.collect();
    let is_last = first + size >= found.len() && (is_empty || state.page >= 500);
    let fields = text("fields");
    let has = |field: &str| fields.is_empty() || fields.contains(field);
    let mut written = Map::new();
    if !is_last && has("nextPageToken") {
        let token = format!("{}:{}", number + 1, text("filter"));
        written.insert("nextPageToken".to_owned(), token.into());
    }
    if zone.is_some() {
        let items: Vec<_> = page.iter().map(|it| instance(it, has("metadata/items"))).collect();
        if !items.is_empty() {
            written.insert("items".to_owned(), items.into());
        }
    } else {
        let mut scopes = BTreeMap::new();
        for zone in ZONES {
            let its: Vec<_> = page.iter().filter(|it| it.zone == zone).collect();
            let scope = if state.api == Api::Misses(zone) {
                json!({ "warning": { "code": "UNREACHABLE", "message": "A zone is away." } })
            } else if its.is_empty() {
                json!({ "warning": { "code": "NO_RESULTS_ON_PAGE", "message": "None." } })
            } else {
                let its: Vec<_> =
                    its.iter().map(|it| instance(it, has("metadata/items"))).collect();
                json!({ "instances": its })
            };
            scopes.insert(format!("zones/{zone}"), scope);
        }
        written.insert("items".to_owned(), json!(scopes));
    }
    Ok(Value::Object(written))
}

/// Whether the token is one, still holds, and may list instances.
fn allowed(state: &State, asked: &Asked) -> Result<(), Reply> {
    let bearer = asked.headers.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("authorization").then(|| value.trim().strip_prefix("Bearer "))?
    });
    let held = bearer.and_then(|token| state.tokens.get(token));
    let Some((id, _)) = held.filter(|(_, until)| *until > Instant::now()) else {
        return Err(error(401, "authError", "Invalid Credentials"));
    };
    let scopes = state.machines.iter().find(|it| it.id == *id).map(|it| &it.scopes);
    let suffices = |scope: &&str| {
        ["compute", "compute.readonly", "cloud-platform"].iter().any(|it| scope.ends_with(it))
    };
    if scopes.is_some_and(|scopes| scopes.iter().any(suffices)) {
        return Ok(());
    }
    let message = "Request had insufficient authentication scopes.";
    Err(error(403, "insufficientPermissions", message))
}

enum Term {
    Status(String),
    Label(String, String),
}

impl Term {
    fn takes(&self, machine: &Machine) -> bool {
        match self {
            Self::Status(status) => machine.status == status,
            Self::Label(key, value) => {
                machine.labels.iter().any(|(its, held)| its == key && held == value)
            }
        }
    }
}

/// The terms of a filter. Tags and metadata are refused, as the service does.
fn filter(text: &str) -> Result<Vec<Term>, Reply> {
    let terms = text.split(" AND ").filter(|term| !term.is_empty()).map(|term| {
        let bare = term.trim_start_matches('(').trim_end_matches(')');
        match bare.split_once(" = ") {
            Some(("status", status)) => Ok(Term::Status(status.to_owned())),
            Some((key, value)) if key.starts_with("labels.") => {
                Ok(Term::Label(key["labels.".len()..].to_owned(), value.to_owned()))
            }
            _ => {
                let message = format!(
                    "Invalid value for field 'filter': '{text}'. Invalid list filter expression."
                );
                Err(error(400, "invalid", &message))
            }
        }
    });
    terms.collect()
}

fn instance(machine: &Machine, has_metadata: bool) -> Value {
    let (project, zone) = (machine.project, machine.zone);
    let mut written = json!({
        "id": machine.id.to_string(), "name": machine.name, "status": machine.status,
        "zone": format!("{ROOT}/{project}/zones/{zone}"),
        "networkInterfaces":
            machine.interfaces.iter().enumerate().map(|(number, it)| {
                interface(number, it)
            }).collect::<Vec<_>>(),
    });
    if !machine.tags.is_empty() {
        written["tags"] = json!({ "items": machine.tags });
    }
    if has_metadata && !machine.metadata.is_empty() {
        let items = machine.metadata.iter().map(|(key, value)| match value {
            Some(value) => json!({ "key": key, "value": value }),
            None => json!({ "key": key }),
        });
        written["metadata"] = json!({ "items": items.collect::<Vec<_>>() });
    }
    if !machine.labels.is_empty() {
        written["labels"] = machine.labels.iter().map(|(key, value)| (*key, *value)).collect();
    }
    written
}

/// An interface. All projects share the networks of the first one.
fn interface(number: usize, interface: &Interface) -> Value {
    let mut written = json!({
        "name": format!("nic{number}"),
        "network": format!("{ROOT}/{}/global/networks/{}", PROJECT.0, interface.network),
    });
    if let Some(ip) = interface.ip {
        written["networkIP"] = ip.to_string().into();
    }
    if let Some(ipv6) = interface.ipv6 {
        written["ipv6Address"] = ipv6.into();
    }
    written
}
