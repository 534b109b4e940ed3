//! The metadata server of one instance.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, timeout};

use super::{Machine, PROJECT, Reply, State, World, reply, split};
use crate::harness::origin::Asked;

const ROOT: &str = "/computeMetadata/v1/";

/// What every answer has.
const HEADERS: &str = "metadata-flavor: Google\r\nserver: Metadata Server for VM\r\n";

pub(super) async fn answer(world: &World, id: u64, asked: &Asked) -> Reply {
    let (path, query) = split(&asked.target);
    if path == "/" {
        return reply("200 OK", HEADERS, b"computeMetadata/\n");
    }
    let is_forwarded = |line: &String| line.to_ascii_lowercase().starts_with("x-forwarded-for:");
    if !asked.has_header("Metadata-Flavor: Google") || asked.headers.iter().any(is_forwarded) {
        return reply("403 Forbidden", HEADERS, b"Missing Metadata-Flavor:Google header.");
    }
    let Some(path) = path.strip_prefix(ROOT) else { return absent() };
    let seconds = query.get("timeout_sec").and_then(|seconds| seconds.parse().ok());
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(3_600));
    let mut changes = world.changes.subscribe();
    loop {
        let (value, is_hanging) = {
            let mut state = world.lock();
            let hangs = state.metadata_hangs;
            (value(&mut state, id, path), hangs)
        };
        if is_hanging {
            return Reply::Hang;
        }
        let Some((kind, value)) = value else { return absent() };
        if kind == REDIRECT {
            let headers = format!("{HEADERS}location: {ROOT}{path}/\r\n");
            return reply("301 Moved Permanently", &headers, b"");
        }
        let etag = etag(&value);
        let waits = query.get("wait_for_change").is_some_and(|waits| waits == "true")
            && query.get("last_etag") == Some(&etag);
        if waits && !path.ends_with('/') && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            _ = timeout(left, changes.changed()).await;
            continue;
        }
        let headers = format!("{HEADERS}content-type: {kind}\r\netag: {etag}\r\n");
        return reply("200 OK", &headers, value.as_bytes());
    }
}

const TEXT: &str = "application/text";
const JSON: &str = "application/json";
const REDIRECT: &str = "";

fn absent() -> Reply {
    reply("404 Not Found", HEADERS, b"<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>")
}

fn etag(value: &str) -> String {
    let hash = value.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// The kind and the text of the value at `path`; `None` if there is no such value.
fn value(state: &mut State, id: u64, path: &str) -> Option<(&'static str, String)> {
    let machine = state.machines.iter().find(|it| it.id == id)?.clone();
    let text = |text: String| Some((TEXT, text));
    match path {
        "project/project-id" => text(machine.project.to_owned()),
        "project/numeric-project-id" => text(PROJECT.1.to_string()),
        "instance/zone" => text(format!("projects/{}/zones/{}", PROJECT.1, machine.zone)),
        "instance/id" => text(machine.id.to_string()),
        "instance/name" => text(machine.name),
        "instance/tags" => Some((JSON, json!(machine.tags).to_string())),
        "instance/preempted" => {
            text(if machine.is_preempted { "TRUE" } else { "FALSE" }.to_owned())
        }
        "instance/shutdown-details/stop-state" => text(machine.stop_state?.to_owned()),
        "instance/network-interfaces" => Some((REDIRECT, String::new())),
        "instance/network-interfaces/" => {
            let numbers = (0..machine.interfaces.len()).map(|number| format!("{number}/\n"));
            text(numbers.collect::<Vec<_>>().concat())
        }
        "instance/service-accounts/default/scopes" => text(machine.scopes.join("\n")),
        "instance/service-accounts/default/token" => token(state, &machine),
        path => {
            if let Some(key) = path.strip_prefix("instance/attributes/") {
                let found = machine.metadata.iter().find(|(its, _)| *its == key)?;
                return text(found.1.unwrap_or_default().to_owned());
            }
            let rest = path.strip_prefix("instance/network-interfaces/")?;
            let (number, key) = rest.split_once('/')?;
            let interface = machine.interfaces.get(number.parse::<usize>().ok()?)?;
            match key {
                "ip" => text(interface.ip?.to_string()),
                "ipv6s" => text(interface.ipv6?.to_owned()),
                "network" => text(format!("projects/{}/networks/{}", PROJECT.1, interface.network)),
                _ => None,
            }
        }
    }
}

/// The account's token: the same one until it has little time left.
fn token(state: &mut State, machine: &Machine) -> Option<(&'static str, String)> {
    if machine.scopes.is_empty() {
        return None;
    }
    state.tokens_asked += 1;
    let now = Instant::now();
    let least = Duration::from_mins(5).min(state.token_life / 2);
    let held =
        |(_, (id, until)): &(&String, &(u64, Instant))| *id == machine.id && *until > now + least;
    let held = state.tokens.iter().find(held).map(|(token, (_, until))| (token.clone(), *until));
    let (token, until) = if let Some(held) = held {
        held
    } else {
        let token = format!("ya29.{}-{}", machine.name, state.tokens_asked);
        let until = now + state.token_life;
        state.tokens.insert(token.clone(), (machine.id, until));
        (token, until)
    };
    let seconds = until.saturating_duration_since(now).as_secs();
    let written = json!({
        "access_token": token, "expires_in": seconds, "token_type": "Bearer",
    });
    Some((JSON, written.to_string()))
}
