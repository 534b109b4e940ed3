//! `members`: who is in the cluster, as one of its nodes sees it.

use std::path::Path;

use serde_json::Value;

use super::{
    Failure,
    operator::{Shown, get, word},
    table::Table,
};

/// Shows the members that the node knows.
pub(super) fn members(shown: &Shown, file: &Path) -> Result<(), Failure> {
    let answer = get("/members", shown.which, file)?;
    shown.show(&answer, table)
}

fn table(answer: &Value) -> String {
    let members = answer["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut table =
        Table::new(&["NODE", "STATE", "RING", "WEIGHT", "ZONE", "PEERS", "GOSSIP", "VERSION"]);
    for member in members {
        let is_self = member["is_self"] == true;
        table.row([
            format!("{}{}", word(&member["node"]), if is_self { " *" } else { "" }),
            word(&member["state"]).to_owned(),
            if member["in_ring"] == true { "in" } else { "out" }.to_owned(),
            member["weight"].to_string(),
            word(&member["zone"]).to_owned(),
            word(&member["peers"]).to_owned(),
            word(&member["gossip"]).to_owned(),
            word(&member["version"]).to_owned(),
        ]);
    }
    let unknown = match answer["unknown"].as_u64() {
        None | Some(0) => String::new(),
        Some(count) => format!("and {count} that have not told of themselves yet\n"),
    };
    format!(
        "cluster {}, seen from the node with *; ring {}\n\n{table}{unknown}",
        word(&answer["name"]),
        word(&answer["ring"]),
    )
}
