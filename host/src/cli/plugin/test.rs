//! `plugin test`: the table `[[test]]` of a manifest, run in the real host.

use std::fmt::Write as _;

use cachecluster::workbench::{
    manifest::FILE_NAME,
    table::{TestReport, run},
};
use clap::Args;

use super::{
    Exit, Failure,
    subject::{Output, Subject, workbench},
};
use crate::cli::output::{complain, print, print_json};

/// Which tests.
#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    #[command(flatten)]
    subject: Subject,
    /// Run only the tests with this in their names
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Which of the plugin's log records to show, as `info` or `warn`
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log: String,
    /// How to report
    #[arg(short, long, value_enum, default_value_t = Output::Text, value_name = "FORMAT")]
    output: Output,
}

/// Runs the tests of a project.
pub(super) fn test(options: &Options) -> Result<(), Failure> {
    let project = options.subject.open()?;
    let Some(manifest) = &project.manifest else {
        complain(&format!(
            "error: a component's file has no tests; name a folder with a {FILE_NAME}"
        ));
        return Err(Failure::Said(Exit::Usage));
    };
    let mut manifest = manifest.clone();
    if let Some(text) = &options.only {
        manifest.test.retain(|test| test.name.contains(text));
    }
    if manifest.test.is_empty() {
        complain(&match &options.only {
            Some(text) => format!("error: no test has `{text}` in its name"),
            None => format!("error: {FILE_NAME} has no tests; write them as `[[test]]`"),
        });
        return Err(Failure::Said(Exit::Failed));
    }
    let workbench = workbench(&options.log)?;
    let mut reports = Vec::new();
    let each = |report: &TestReport| {
        reports.push(report.clone());
        if options.output == Output::Text { print(&lines(report)) } else { Ok(()) }
    };
    workbench.run(run(&workbench, &project, &manifest, each)).map_err(anyhow::Error::from)?;
    let passed = reports.iter().filter(|report| report.passed()).count();
    let failed = reports.len() - passed;
    match options.output {
        Output::Text => print(&format!(
            "\n{} tests, each in a warm and in a fresh instance: {passed} passed, {failed} failed\n",
            reports.len()
        ))?,
        Output::Json => print_json(&reports)?,
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Said(Exit::Failed)) }
}

fn lines(report: &TestReport) -> String {
    let mark = if report.passed() { '✓' } else { '✗' };
    let mut text = format!("{mark} {}\n", report.name);
    let runs = [("warm", &report.warm), ("fresh", &report.fresh)];
    let is_same = report.warm.differences == report.fresh.differences;
    let runs = if is_same { &[("both", &report.warm)][..] } else { &runs };
    for (mode, run) in runs {
        for difference in &run.differences {
            _ = writeln!(text, "  {mode:<5} {difference}");
        }
        if !run.differences.is_empty() {
            _ = writeln!(text, "        the get of `{}` came to {}", report.key, run.answer);
        }
    }
    text
}
