//! `check`: everything that can be known without serving.
//!
//! Three phases, each only after the one before it: the file is read, its settings mean
//! something, its plugins load. Standard output has one line a phase and a plugin; what
//! is wrong goes to standard error.

use std::{fmt::Write as _, path::Path};

use cachecluster::{
    config::{Phase, Reports},
    node::Node,
};

use super::{Exit, Failure, load, output::print};

/// Checks the settings in `file` and loads its plugins.
pub(super) fn check(file: &Path) -> Result<(), Failure> {
    let loaded = match load(file) {
        Ok(loaded) => loaded,
        Err(reports) => {
            print(&failed_phases(file, &reports))?;
            return Err(reports.into());
        }
    };
    let config = &loaded.config;
    print(&format!(
        "✓ parse    {}\n✓ meaning  {}, {}\n",
        file.display(),
        counted(config.plugins.len(), "plugin"),
        counted(config.groups.len(), "group"),
    ))?;
    let results = Node::check_plugins(config, &loaded.base_dir)?;
    let mut text = String::new();
    let mut failures = 0;
    for (name, result) in &results {
        match result {
            Ok(digest) => _ = writeln!(text, "✓ plugin   {name}  {digest}"),
            Err(error) => {
                failures += 1;
                _ = writeln!(text, "✗ plugin   {name}  {error:#}");
            }
        }
    }
    print(&text)?;
    if failures == 0 { Ok(()) } else { Err(Failure::Said(Exit::BadConfig)) }
}

fn failed_phases(file: &Path, reports: &Reports) -> String {
    let count = counted(reports.errors(), "error");
    match reports.phase() {
        Phase::Parse => format!("✗ parse    {}: {count}\n", file.display()),
        Phase::Meaning => format!("✓ parse    {}\n✗ meaning  {count}\n", file.display()),
    }
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
