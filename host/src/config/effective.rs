//! The settings in force, each with where it was set.

use std::fmt::Write as _;

use toml::{Table, Value};

use super::{Loaded, walk::dotted};

/// Writes every setting in force as TOML, with its origin as a comment: the file's line,
/// the variable, or `default`.
pub fn effective(loaded: &Loaded) -> String {
    let mut out = String::new();
    if let Ok(table) = Table::try_from(&loaded.config) {
        section(&mut out, loaded, &table, &mut Vec::new());
    }
    out
}

fn section<'a>(out: &mut String, loaded: &Loaded, table: &'a Table, path: &mut Vec<&'a str>) {
    let (tables, leaves): (Vec<_>, Vec<_>) = table.iter().partition(|(_, value)| value.is_table());
    if !leaves.is_empty() {
        let lead = if out.is_empty() { "" } else { "\n" };
        _ = writeln!(out, "{lead}[{}]", dotted(path));
    }
    let lines: Vec<(String, String)> = leaves
        .into_iter()
        .map(|(key, value)| {
            path.push(key);
            let origin = loaded.origin(path).unwrap_or_else(|| "default".to_owned());
            path.pop();
            (format!("{} = {value}", dotted(&[key])), origin)
        })
        .collect();
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0).min(60);
    for (line, origin) in lines {
        _ = writeln!(out, "{line:width$}  # {origin}");
    }
    for (key, value) in tables {
        path.push(key);
        if let Value::Table(table) = value {
            section(out, loaded, table, path);
        }
        path.pop();
    }
}
