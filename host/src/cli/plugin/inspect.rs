//! `plugin inspect`: what a file says about itself.

use std::{fmt::Write as _, path::PathBuf};

use cachecluster::workbench::{
    check::size_text,
    inspect::{Inspection, Kind, inspect as read},
};
use clap::Args;

use super::{Failure, subject::Output};
use crate::cli::output::{print, print_json};

/// What to inspect.
#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    /// A component, a WIT package in binary form, or a core module
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only what it is made of, without its WIT
    #[arg(long)]
    summary: bool,
    /// How to report
    #[arg(short, long, value_enum, default_value_t = Output::Text, value_name = "FORMAT")]
    output: Output,
}

/// Prints what a file says about itself. As text it is WIT: all else is in comments.
pub(super) fn inspect(options: &Options) -> Result<(), Failure> {
    let mut inspection = read(&options.file).map_err(anyhow::Error::from)?;
    if options.summary {
        inspection.wit = None;
    }
    match options.output {
        Output::Text => print(&text(options, &inspection))?,
        Output::Json => print_json(&inspection)?,
    }
    Ok(())
}

fn text(options: &Options, inspection: &Inspection) -> String {
    let mut text = String::new();
    let mut say = |line: &str| _ = writeln!(text, "// {line}");
    let size = size_text(inspection.bytes);
    say(&format!("{}: {}, {size}", options.file.display(), inspection.kind_text()));
    say(&inspection.digest);
    say(&inspection.getter_text());
    if inspection.kind == Kind::Module {
        say("without metadata of its interfaces: what it imports and exports are functions");
        say(&format!("imports: {}", listed(&inspection.imports)));
        say(&format!("exports: {}", listed(&inspection.exports)));
    }
    if inspection.kind == Kind::Component {
        let modules = inspection.modules.iter().map(|module| {
            let name = module.name.as_deref().unwrap_or("without a name");
            format!("{name} {}", size_text(module.bytes))
        });
        let modules: Vec<_> = modules.collect();
        say(&format!("core modules: {}", listed(&modules)));
    }
    let sections = inspection
        .custom_sections
        .iter()
        .map(|(name, size)| format!("{name} {}", size_text(*size)));
    say(&format!("custom sections: {}", listed(&sections.collect::<Vec<_>>())));
    for (field, values) in &inspection.producers {
        let values: Vec<_> = values
            .iter()
            .map(|(name, version)| format!("{name} {version}").trim_end().to_owned())
            .collect();
        say(&format!("{field}: {}", listed(&values)));
    }
    if let Some(wit) = &inspection.wit {
        _ = write!(text, "\n{wit}");
    }
    text
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
