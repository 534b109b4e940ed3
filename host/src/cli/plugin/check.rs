//! `plugin check`: everything that can be known about a plugin without calling it.

use cachecluster::{
    config::Wasm,
    workbench::{
        Workbench,
        check::{Finding, Verdict, run},
    },
};
use clap::Args;

use super::{
    Exit, Failure,
    subject::{Grants, Output, Subject},
};
use crate::cli::output::{print, print_json};

/// What to check.
#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    grants: Grants,
    /// How to report
    #[arg(short, long, value_enum, default_value_t = Output::Text, value_name = "FORMAT")]
    output: Output,
}

/// Checks a component under its manifest's limits and grants.
pub(super) fn check(options: &Options) -> Result<(), Failure> {
    let project = options.subject.open()?;
    let settings = options.grants.over(&project);
    // What was compiled before would be found rather than compiled, and its time told
    // for the compiler's.
    let cold = tempfile::tempdir()?;
    let wasm = Wasm { cache_dir: cold.path().to_owned(), ..Wasm::default() };
    let workbench = Workbench::start(&wasm).map_err(anyhow::Error::from)?;
    let mut findings = Vec::new();
    let each = |finding: &Finding| {
        findings.push(finding.clone());
        if options.output == Output::Text { print(&line(finding)) } else { Ok(()) }
    };
    workbench.run(run(&workbench, &project, &settings, each))?;
    if options.output == Output::Json {
        print_json(&findings)?;
    }
    let is_bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    if is_bad { Err(Failure::Said(Exit::Failed)) } else { Ok(()) }
}

fn line(finding: &Finding) -> String {
    let mark = match finding.verdict {
        Verdict::Good => '✓',
        Verdict::Doubtful => '!',
        Verdict::Bad => '✗',
    };
    format!("{mark} {:<10} {}\n", finding.step.name(), finding.text)
}
