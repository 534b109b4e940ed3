//! `plugin bench`: how fast a plugin is, in warm and in fresh instances.

use std::{fmt::Write as _, time::Duration};

use cachecluster::{
    config::units::parse_duration,
    workbench::{
        Mode,
        bench::{Load, Outcome, Percentiles},
        check::{size_text, time_text},
    },
};
use clap::Args;
use serde::Serialize;

use super::{
    Exit, Failure,
    subject::{Grants, Output, Subject, workbench},
};
use crate::cli::output::{complain, print, print_json};

/// How long gets are made before any is measured: instances are made and connections
/// opened.
const WARM_UP: Duration = Duration::from_millis(200);

/// What to measure, and for how long.
#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    grants: Grants,
    /// A key to get; several are taken in turn. By default those of the manifest's tests
    #[arg(short, long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// How long to measure, in each mode
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time)]
    time: Duration,
    /// Gets at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: u32,
    /// Which of the plugin's log records to show, as `info` or `warn`
    #[arg(long, value_name = "FILTER", default_value = "error")]
    log: String,
    /// How to report
    #[arg(short, long, value_enum, default_value_t = Output::Text, value_name = "FORMAT")]
    output: Output,
}

fn time(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

/// What was measured.
#[derive(Serialize)]
struct Report {
    plugin: String,
    digest: String,
    bytes: u64,
    concurrency: u32,
    /// Memory of an instance that has served nothing yet.
    start_memory_bytes: u64,
    warm: Outcome,
    fresh: Outcome,
}

/// Measures a plugin.
pub(super) fn bench(options: &Options) -> Result<(), Failure> {
    let project = options.subject.open()?;
    let mut settings = options.grants.over(&project);
    // Every caller has an instance, so that none is measured waiting for another.
    settings.limits.instances = settings.limits.instances.max(options.concurrency);
    let keys = match (&options.keys[..], &project.manifest) {
        ([], Some(manifest)) if !manifest.test.is_empty() => {
            manifest.test.iter().map(|test| test.key.clone()).collect()
        }
        ([], _) => {
            complain("error: there is no key to get; name one with `--key`");
            return Err(Failure::Said(Exit::Usage));
        }
        (keys, _) => keys.to_vec(),
    };
    let mut load = Load {
        keys,
        concurrency: usize::try_from(options.concurrency).unwrap_or(1),
        time: WARM_UP,
        timeout: settings.limits.timeout,
    };
    let workbench = workbench(&options.log)?;
    let report = workbench.run(async {
        let compiled = workbench.compile(&project.component).await?;
        let (_origin, settings) = project.play(&settings).await?;
        let mut measure = async |mode: Mode| {
            let settings = mode.settings(&settings);
            let plugin = workbench.load(&project, &compiled, &settings).await?;
            let start = plugin.status().memory_bytes;
            load.time = WARM_UP;
            workbench.bench(&plugin, &load).await;
            load.time = options.time;
            Ok::<_, anyhow::Error>((start, workbench.bench(&plugin, &load).await))
        };
        let (start_memory_bytes, warm) = measure(Mode::Warm).await?;
        let (_, fresh) = measure(Mode::Fresh).await?;
        Ok::<_, anyhow::Error>(Report {
            plugin: project.name(),
            digest: compiled.digest().to_owned(),
            bytes: compiled.bytes(),
            concurrency: options.concurrency,
            start_memory_bytes,
            warm,
            fresh,
        })
    })?;
    match options.output {
        Output::Text => print(&text(&report))?,
        Output::Json => print_json(&report)?,
    }
    let faults = report.warm.faults + report.fresh.faults;
    if faults == 0 { Ok(()) } else { Err(Failure::Said(Exit::Failed)) }
}

fn text(report: &Report) -> String {
    let mut text = format!(
        "{}, {}, {}\n{} at once; an instance has {} of memory at start\n\n",
        report.plugin,
        size_text(report.bytes),
        report.digest,
        report.concurrency,
        size_text(report.start_memory_bytes),
    );
    _ = writeln!(
        text,
        "{:<16}{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}",
        "", "p50", "p90", "p99", "p99.9", "max", "mean"
    );
    for (mode, outcome) in [("warm", &report.warm), ("fresh", &report.fresh)] {
        let mut row = |name: &str, times: &Percentiles| {
            let cells = [times.p50, times.p90, times.p99, times.p999, times.max, times.mean];
            _ = write!(text, "{:<16}", format!("{mode} {name}"));
            for cell in cells {
                _ = write!(text, "{:>12}", time_text(Duration::from_secs_f64(cell)));
            }
            text.push('\n');
        };
        row("get", &outcome.latency);
        row("CPU", &outcome.cpu);
        if outcome.instances > 0 {
            row("instance made", &outcome.made);
        }
    }
    for (mode, outcome) in [("warm", &report.warm), ("fresh", &report.fresh)] {
        let answers = outcome.answers.iter().map(|(answer, count)| format!("{count} {answer}"));
        #[expect(clippy::cast_precision_loss, reason = "a rate to four digits")]
        let rate = outcome.calls as f64 / outcome.seconds;
        _ = write!(
            text,
            "\n{mode}: {rate:.0} gets a second; {}; {} instances made; at most {} of memory each",
            answers.collect::<Vec<_>>().join(", "),
            outcome.instances,
            size_text(outcome.memory_bytes),
        );
        if let Some(error) = &outcome.first_error {
            _ = write!(text, "\n  the first error: {error}");
        }
    }
    text.push('\n');
    text
}
