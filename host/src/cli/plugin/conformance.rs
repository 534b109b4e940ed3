//! `plugin conformance`: the suite that every getter can be held to.

use std::fmt::Write as _;

use cachecluster::workbench::conformance::{CaseReport, Profile, Suite, Verdict, run};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{
    Exit, Failure,
    subject::{Grants, Output, Subject, workbench},
};
use crate::cli::output::{complain, print, print_json};

/// What is asked of whom.
#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    grants: Grants,
    /// What is asked: of any getter, or of the little HTTP getter of each language
    #[arg(long, value_enum, default_value_t = Asked::Contract, value_name = "PROFILE")]
    profile: Asked,
    /// Run only this case; several may be named
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Which of the plugin's log records to show, as `info` or `warn`
    #[arg(long, value_name = "FILTER", default_value = "off")]
    log: String,
    /// How to report
    #[arg(short, long, value_enum, default_value_t = Output::Text, value_name = "FORMAT")]
    output: Output,
}

/// A profile on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Asked {
    /// What fits any getter
    Contract,
    /// Values from an HTTP origin, as docs/conformance.md says
    HttpGetter,
}

/// How the suite went.
#[derive(Serialize)]
struct Report {
    plugin: String,
    digest: String,
    profile: Profile,
    passed: bool,
    cases: Vec<CaseReport>,
}

/// Runs the suite against a component.
pub(super) fn conformance(options: &Options) -> Result<(), Failure> {
    let project = options.subject.open()?;
    let settings = options.grants.over(&project);
    let profile = match options.profile {
        Asked::Contract => Profile::Contract,
        Asked::HttpGetter => Profile::HttpGetter,
    };
    if let Some(name) =
        options.cases.iter().find(|name| !profile.cases().any(|(case, _)| case == *name))
    {
        let known: Vec<_> = profile.cases().map(|(case, _)| case).collect();
        complain(&format!("error: there is no case `{name}`; known are {}", known.join(", ")));
        return Err(Failure::Said(Exit::Usage));
    }
    let workbench = workbench(&options.log)?;
    let suite = Suite { profile, only: &options.cases, project: &project, settings: &settings };
    let mut cases = Vec::new();
    let each = |report: &CaseReport| {
        cases.push(report.clone());
        if options.output == Output::Text { print(&lines(report)) } else { Ok(()) }
    };
    let digest = workbench.run(run(&workbench, &suite, each)).map_err(anyhow::Error::from)?;
    let failed = cases.iter().filter(|case| case.failed()).count();
    match options.output {
        Output::Text => print(&summary(&cases, failed, profile))?,
        Output::Json => print_json(&Report {
            plugin: project.name(),
            digest,
            profile,
            passed: failed == 0,
            cases,
        })?,
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Said(Exit::Failed)) }
}

/// One row of the table, and below it the reasons.
fn lines(report: &CaseReport) -> String {
    let mut text = format!(
        "{:<14} {:<8} {:<8} {}\n",
        report.name,
        word(&report.warm),
        word(&report.fresh),
        report.shows
    );
    let reasons = [("warm", &report.warm), ("fresh", &report.fresh)];
    let once = [("both", &report.warm)];
    let reasons = if report.warm == report.fresh { &once[..] } else { &reasons };
    for (mode, verdict) in reasons {
        if let Verdict::Failed(reason) | Verdict::Skipped(reason) = verdict {
            _ = writeln!(text, "  {mode:<6}{reason}");
        }
    }
    text
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed(_) => "FAILED",
        Verdict::Skipped(_) => "skipped",
    }
}

fn summary(cases: &[CaseReport], failed: usize, profile: Profile) -> String {
    let is_skipped = |case: &&CaseReport| {
        let skipped = [&case.warm, &case.fresh].iter().any(|it| matches!(it, Verdict::Skipped(_)));
        !case.failed() && skipped
    };
    let skipped = cases.iter().filter(is_skipped).count();
    let passed = cases.len() - failed - skipped;
    format!(
        "\n{}, {} cases, each warm and fresh: {passed} passed, {failed} failed, {skipped} skipped\n",
        profile.name(),
        cases.len()
    )
}
