//! Why a get of a key answers as it does: who owns it, who holds it, and what comes next.

use serde_json::{Value, json};

use super::running::Running;
use crate::{
    group::{Explanation, Group, Holding},
    peer::Route,
};

/// Nodes that are named for a key: its owner and its stand-ins.
const OWNERS_MAX: usize = 3;

/// Everything that is known about `key` of `group`.
pub(super) fn explain(running: &Running, group: &Group, key: &[u8]) -> Value {
    let here = group.explain(key);
    let owners = running.fleet.as_ref().map_or_else(Vec::new, |it| it.owners(key, OWNERS_MAX));
    json!({
        "group": group.name(),
        "key": String::from_utf8_lossy(key),
        "owners": owners.iter().zip(ROLES).map(owner).collect::<Vec<_>>(),
        "here": describe(&here),
        "a_get_would": next(&here, &owners),
    })
}

const ROLES: [&str; OWNERS_MAX] = ["owner", "stand-in", "second stand-in"];

fn owner((route, role): (&Route, &str)) -> Value {
    json!({
        "role": role,
        "node": route.name,
        "peers": route.address,
        "is_self": route.address.is_none(),
        "is_asked": route.is_asked,
    })
}

/// What a node knows, in a form that travels.
fn describe(explanation: &Explanation) -> Value {
    let Explanation { held, failing, is_filling, refused } = explanation;
    json!({
        "held": held.as_ref().map(describe_held),
        "failing": failing.as_ref().map(|(error, rest)| json!({
            "error": error,
            "retry_after_seconds": rest.as_secs_f64(),
        })),
        "is_filling": is_filling,
        "refused": refused,
    })
}

fn describe_held(held: &Holding) -> Value {
    json!({
        "as": if held.is_copy { "copy of what its owner has" } else { "own" },
        "state": if held.is_stale { "stale" } else { "fresh" },
        "bytes": held.bytes,
        "age_seconds": held.age.as_secs_f64(),
        "ttl_seconds": held.ttl.as_secs_f64(),
    })
}

/// What a get at this node would do.
fn next(here: &Explanation, owners: &[Route]) -> String {
    let what =
        |held: &Holding| if held.bytes.is_some() { "the value" } else { "that there is none" };
    if let Some(held) = &here.held {
        return if held.is_stale {
            format!("answer {} from memory, stale, and refresh it behind", what(held))
        } else {
            format!("answer {} from memory", what(held))
        };
    }
    if let Some((error, _)) = &here.failing {
        return format!("answer the error of a moment ago from memory: {error}");
    }
    let asked = owners.iter().take(2).find(|route| route.is_asked);
    match asked {
        Some(Route { address: Some(address), name, .. }) => {
            let role = if owners.first().is_some_and(|owner| owner.is_asked) {
                "owns the key"
            } else {
                "stands in for its owner, which does not answer"
            };
            format!("ask {name} at {address}, which {role}")
        }
        _ if here.is_filling => "wait for the fill that is under way here".to_owned(),
        _ => match &here.refused {
            Some(reason) => format!("be refused: {reason}"),
            None => "have this node's getter fill it".to_owned(),
        },
    }
}
