//! `plugin call`: one get from the shell.

use std::{io::Write as _, path::PathBuf, time::Duration};

use cachecluster::{
    config::units::parse_duration,
    workbench::{
        Mode, answer,
        check::{size_text, time_text},
        fill,
    },
};
use clap::Args;

use super::{
    Exit, Failure,
    subject::{Grants, Subject, workbench},
};
use crate::cli::output::complain;

/// What to get, and how.
#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    /// A component, a project's folder, or its manifest
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,
    /// The key
    #[arg(value_name = "KEY")]
    key: String,
    #[command(flatten)]
    grants: Grants,
    /// The validator of the value that is refreshed
    #[arg(long, value_name = "TEXT")]
    validator: Option<String>,
    /// Get it so many times, and tell of the last
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Get it in an instance of its own each time
    #[arg(long)]
    fresh: bool,
    /// Time for each get; by default that of the manifest's limits
    #[arg(long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
    /// Which of the plugin's log records to show, as `info` or `warn`
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
}

fn time(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

/// Gets a key: its value goes to standard output, all else to standard error.
pub(super) fn call(options: &Options) -> Result<(), Failure> {
    let project = Subject::of(&options.path).open()?;
    let mode = if options.fresh { Mode::Fresh } else { Mode::Warm };
    let mut settings = mode.settings(&options.grants.over(&project));
    if let Some(timeout) = options.timeout {
        settings.limits.timeout = timeout;
    }
    let workbench = workbench(&options.log)?;
    let measured = workbench.run(async {
        let compiled = workbench.compile(&project.component).await?;
        let (_origin, settings) = project.play(&settings).await?;
        let plugin = workbench.load(&project, &compiled, &settings).await?;
        let fill = || fill(&options.key, options.validator.as_deref(), settings.limits.timeout);
        for _ in 1..options.times {
            plugin.measure(fill()).await;
        }
        Ok::<_, anyhow::Error>(plugin.measure(fill()).await)
    })?;
    let cost = measured.cost;
    complain(&answer::line(&measured.ended));
    let instance = match cost.made {
        Some(creation) => format!("a new instance, made in {}", time_text(creation)),
        None => "a warm instance".to_owned(),
    };
    complain(&format!(
        "{}, {} of CPU, {} of memory, {instance}",
        time_text(cost.wall),
        time_text(cost.cpu),
        size_text(cost.memory),
    ));
    if let Some(value) = answer::value(&measured.ended) {
        let mut out = std::io::stdout().lock();
        out.write_all(value.body())?;
        out.flush()?;
    }
    match answer::error(&measured.ended) {
        None => Ok(()),
        Some(_) => Err(Failure::Said(Exit::Failed)),
    }
}
