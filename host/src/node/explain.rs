//! Why a get of a key answers as it does: who owns it, who holds it, and what comes next.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::running::Running;
use crate::{
    group::{Explanation, Group, Held, Holding, Question},
    peer::Route,
};

/// Nodes that are named for a key: its owner and its stand-ins.
const OWNERS_MAX: usize = 3;

/// Nodes whose memory is looked into for a key.
const HOLDERS_MAX: usize = 64;

/// Time for that.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// Everything that is known about `key` of `group`.
pub(super) async fn explain(running: &Running, group: &Group, key: &[u8]) -> Value {
    let here = group.explain(key);
    let fleet = running.fleet.as_ref();
    let owners = fleet.map_or_else(Vec::new, |it| it.owners(key, OWNERS_MAX));
    let others = match fleet {
        None => Vec::new(),
        Some(fleet) => {
            let now = Instant::now();
            let question = Question {
                group: group.name().into(),
                key: key.into(),
                asked: now,
                deadline: now + LOOK_TIMEOUT,
                code: group.code(),
            };
            fleet.holders(&question, HOLDERS_MAX).await
        }
    };
    json!({
        "group": group.name(),
        "key": String::from_utf8_lossy(key),
        "owners": owners.iter().zip(ROLES).map(owner).collect::<Vec<_>>(),
        "here": describe(&here),
        "holders": holders(&here, &owners, &others),
        "a_get_would": next(&here, &owners),
    })
}

/// Who holds the key, this node first. A copy was filled by the node that owns the key; of a
/// value that has changed hands nobody knows any more who filled it.
fn holders(here: &Explanation, owners: &[Route], others: &[(Route, Held)]) -> Vec<Value> {
    let owner = owners.first().map(|owner| owner.name.as_str());
    let myself = owners.iter().find(|route| route.address.is_none());
    let own = here.held.as_ref().map(|held| {
        let mut shown = describe_held(held);
        shown["node"] = json!("this node");
        shown["filled_by"] = json!(match held {
            Holding { is_copy: true, .. } => owner,
            Holding { is_given: true, .. } => Some(GIVEN),
            _ => Some("this node"),
        });
        shown["is_owner"] = json!(myself.is_some_and(|it| Some(it.name.as_str()) == owner));
        shown
    });
    let other = |(route, held): &(Route, Held)| {
        let is_owner = Some(route.name.as_str()) == owner;
        json!({
            "node": route.name,
            "peers": route.address,
            "is_owner": is_owner,
            "filled_by": if held.is_given { Some(GIVEN) } else { owner },
            "as": if is_owner { OWN } else { COPY },
            "state": "fresh",
            "bytes": held.value.body().len(),
            "age_seconds": held.age.as_secs_f64(),
            "ttl_seconds": held.ttl.as_secs_f64(),
        })
    };
    own.into_iter().chain(others.iter().map(other)).collect()
}

/// Who filled what a node has from the memory of a previous owner.
const GIVEN: &str = "another node (handed over)";

const OWN: &str = "own";
const COPY: &str = "copy";

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
        "as": if held.is_copy { COPY } else { OWN },
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
