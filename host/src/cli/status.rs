//! `status`: how a node is doing.

use std::path::Path;

use serde_json::Value;

use super::{
    Failure,
    operator::{Shown, get, word},
    table::Table,
};

/// Shows how the node is doing.
pub(super) fn status(shown: &Shown, file: &Path) -> Result<(), Failure> {
    let answer = get("/status", shown.which, file)?;
    shown.show(&answer, told)
}

fn told(answer: &Value) -> String {
    let seconds = answer["uptime_seconds"].as_u64().unwrap_or(0);
    let uptime = humantime::format_duration(std::time::Duration::from_secs(seconds));
    let ready = match word(&answer["not_ready_because"]) {
        "" => "ready".to_owned(),
        reason => format!("not ready: {reason}"),
    };
    let cluster = match &answer["cluster"] {
        Value::Null => "none".to_owned(),
        cluster => {
            let members = cluster["members"].as_array().map(Vec::as_slice).unwrap_or_default();
            let in_ring = members.iter().filter(|member| member["in_ring"] == true).count();
            let (name, node) = (word(&cluster["name"]), word(&cluster["node"]));
            let count = members.len();
            format!("{name}, {count} members, {in_ring} of them in the ring; this is node {node}")
        }
    };
    format!(
        "version  {}\nuptime   {uptime}\nstate    {ready}\ncluster  {cluster}\n\n{}{}\n{}",
        word(&answer["version"]),
        sources(&answer["cluster"]["discovery"]),
        groups(answer),
        plugins(answer),
    )
}

/// Where members are looked for, if anywhere, and an empty line.
fn sources(discovery: &Value) -> String {
    let Some(sources) = discovery.as_array() else { return String::new() };
    let mut table = Table::new(&["MEMBERS BY", "FOUND", "JOINED", "TROUBLE"]);
    for source in sources {
        table.row([
            word(&source["source"]).to_owned(),
            source["found"].to_string(),
            source["joined"].to_string(),
            word(&source["error"]).to_owned(),
        ]);
    }
    format!("{table}\n")
}

fn groups(answer: &Value) -> Table {
    let mut table = Table::new(&["GROUP", "ITEMS", "BYTES", "BUDGET", "EVICTIONS", "FLIGHTS"]);
    for (name, group) in answer["groups"].as_object().into_iter().flatten() {
        let number = |key: &str| group[key].to_string();
        table.row([
            name.clone(),
            number("items"),
            number("bytes"),
            number("budget_bytes"),
            number("evictions"),
            number("flights"),
        ]);
    }
    table
}

fn plugins(answer: &Value) -> Table {
    let mut table = Table::new(&["PLUGIN", "GENERATION", "DIGEST", "SOURCE"]);
    for plugin in answer["plugins"].as_array().into_iter().flatten() {
        let digest: String = word(&plugin["digest"]).chars().take(19).collect();
        table.row([
            word(&plugin["name"]).to_owned(),
            plugin["generation"].to_string(),
            digest,
            word(&plugin["source"]).to_owned(),
        ]);
    }
    table
}
