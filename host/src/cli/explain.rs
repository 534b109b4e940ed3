//! `explain`: who owns a key, who holds it, and what a get would do.

use std::{ffi::OsString, os::unix::ffi::OsStrExt as _, path::Path, time::Duration};

use clap::Args;
use serde_json::Value;

use super::{
    Failure,
    operator::{Shown, encoded, get, word},
    table::Table,
};

/// What to explain.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The group
    group: String,
    /// The key, as it is: no percent signs are decoded
    key: OsString,
    #[command(flatten)]
    shown: Shown,
}

/// Explains a key.
pub(super) fn explain(options: &Options, file: &Path) -> Result<(), Failure> {
    let (group, key) = (encoded(options.group.as_bytes()), encoded(options.key.as_bytes()));
    let answer = get(&format!("/groups/{group}/keys/{key}"), options.shown.which, file)?;
    options.shown.show(&answer, told)
}

fn told(answer: &Value) -> String {
    format!(
        "{}/{}: a get here would {}\n\n{}\n{}",
        word(&answer["group"]),
        word(&answer["key"]).escape_debug(),
        word(&answer["a_get_would"]),
        owners(answer),
        holders(answer),
    )
}

fn owners(answer: &Value) -> Table {
    let mut table = Table::new(&["ROLE", "NODE", "PEERS", "IS ASKED"]);
    for owner in answer["owners"].as_array().into_iter().flatten() {
        let at = if owner["is_self"] == true { "this node" } else { word(&owner["peers"]) };
        table.row([
            word(&owner["role"]).to_owned(),
            word(&owner["node"]).to_owned(),
            at.to_owned(),
            if owner["is_asked"] == true { "yes" } else { "no, it does not answer" }.to_owned(),
        ]);
    }
    table
}

fn holders(answer: &Value) -> Table {
    let mut table = Table::new(&["HELD BY", "AS", "STATE", "AGE", "TTL", "BYTES", "FILLED BY"]);
    let holders = answer["holders"].as_array().map(Vec::as_slice).unwrap_or_default();
    for holder in holders {
        table.row([
            word(&holder["node"]).to_owned(),
            word(&holder["as"]).to_owned(),
            word(&holder["state"]).to_owned(),
            time(&holder["age_seconds"]),
            time(&holder["ttl_seconds"]),
            holder["bytes"]
                .as_u64()
                .map_or_else(|| "none: not found".to_owned(), |it| it.to_string()),
            word(&holder["filled_by"]).to_owned(),
        ]);
    }
    table
}

fn time(seconds: &Value) -> String {
    let whole = Duration::from_secs_f64(seconds.as_f64().unwrap_or(0.0).clamp(0.0, 1e9)).as_secs();
    humantime::format_duration(Duration::from_secs(whole)).to_string()
}
