//! The conformance suite: what a getter has to do, shown by doing it, in the real host.
//!
//! docs/conformance.md says what each profile asks for; the cases are in the order of
//! that page. Every case runs in warm and in fresh instances.
//!
//! Invariants:
//! - a case has plugins, origins and a bound of time of its own: one that fails, panics
//!   or hangs spoils no other;
//! - what is not tried is skipped with its reason, and counts neither way.

mod contract;
mod http_getter;
mod stage;

use std::{io, pin::Pin, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::time::timeout;

use self::stage::{Miss, Stage};
use super::{Mode, Workbench, project::Project};
use crate::{config, plugin::Problem};

/// Time for one case in one mode: far more than any takes with the slowest of guests on
/// a busy machine.
const CASE_TIMEOUT: Duration = Duration::from_mins(2);

/// What is asked of a getter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// What fits any getter.
    Contract,
    /// The same little getter in each language.
    HttpGetter,
}

impl Profile {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Contract => "contract",
            Self::HttpGetter => "http-getter",
        }
    }

    /// Names of its cases and what they show, in their order.
    pub fn cases(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.all().iter().map(|case| (case.name, case.shows))
    }

    fn all(self) -> &'static [Case] {
        match self {
            Self::Contract => contract::CASES,
            Self::HttpGetter => http_getter::CASES,
        }
    }
}

/// A case under way.
type Showing = Pin<Box<dyn Future<Output = Result<(), Miss>> + Send>>;

/// One thing that is shown.
struct Case {
    name: &'static str,
    shows: &'static str,
    run: fn(Arc<Stage>) -> Showing,
}

/// How one case went.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport {
    /// Its name.
    pub name: &'static str,
    /// What it shows.
    pub shows: &'static str,
    /// In instances that serve many calls.
    pub warm: Verdict,
    /// In instances that serve one call.
    pub fresh: Verdict,
}

/// How a case went in one mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "verdict", content = "reason")]
pub enum Verdict {
    /// As it should be.
    Passed,
    /// What is wrong.
    Failed(String),
    /// Why it was not tried.
    Skipped(String),
}

impl CaseReport {
    /// Whether it failed in either mode.
    pub fn failed(&self) -> bool {
        [&self.warm, &self.fresh].iter().any(|verdict| matches!(verdict, Verdict::Failed(_)))
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Suite<'a> {
    /// What is asked.
    pub profile: Profile,
    /// Only the cases of these names; all of them where none is named.
    pub only: &'a [String],
    /// Of whom.
    pub project: &'a Project,
    /// With these settings, limits and grants.
    pub settings: &'a config::Plugin,
}

/// Runs `suite`, and tells `each` how a case went when it has ended. Gives the digest of
/// the component.
///
/// # Errors
/// The component cannot be read or compiled, or `each` could not be told.
pub async fn run(
    workbench: &Workbench,
    suite: &Suite<'_>,
    mut each: impl FnMut(&CaseReport) -> io::Result<()>,
) -> Result<String, SuiteError> {
    let compiled = workbench.compile(&suite.project.component).await?;
    let stage = Stage::new(workbench, suite.project, compiled.clone(), suite.settings);
    let is_wanted =
        |case: &&Case| suite.only.is_empty() || suite.only.iter().any(|name| name == case.name);
    for case in suite.profile.all().iter().filter(is_wanted) {
        let report = CaseReport {
            name: case.name,
            shows: case.shows,
            warm: run_case(case, stage.in_mode(Mode::Warm)).await,
            fresh: run_case(case, stage.in_mode(Mode::Fresh)).await,
        };
        each(&report)?;
    }
    Ok(compiled.digest().to_owned())
}

/// Why the suite does not run, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// The component cannot be read or compiled.
    #[error(transparent)]
    Component(#[from] Problem),
    /// A report could not be written.
    #[error(transparent)]
    Report(#[from] io::Error),
}

async fn run_case(case: &Case, stage: Stage) -> Verdict {
    let mut task = tokio::spawn((case.run)(Arc::new(stage)));
    match timeout(CASE_TIMEOUT, &mut task).await {
        Ok(Ok(Ok(()))) => Verdict::Passed,
        Ok(Ok(Err(Miss::Failed(reason)))) => Verdict::Failed(reason),
        Ok(Ok(Err(Miss::Skipped(reason)))) => Verdict::Skipped(reason),
        Ok(Err(error)) => Verdict::Failed(format!("the suite itself failed: {error}")),
        Err(_) => {
            task.abort();
            Verdict::Failed(format!("it did not end within {CASE_TIMEOUT:?}"))
        }
    }
}
