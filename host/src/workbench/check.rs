//! Everything that can be known about a plugin without calling it, step by step.
//!
//! A step that fails ends the check: those after it would only repeat its reason.

use std::{io, time::Duration};

use serde::Serialize;

use super::{Workbench, project::Project};
use crate::{
    config::{self, ByteSize},
    plugin::{Compiled, GETTER_PACKAGE, Plugin, Problem, TRACK},
};

/// What one step found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The step.
    pub step: Step,
    /// How it went.
    pub verdict: Verdict,
    /// What it found, and the remedy where there is one.
    pub text: String,
}

/// A step of the check, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// What `plugin.toml` says.
    Manifest,
    /// The component's file.
    File,
    /// What it exports.
    Contract,
    /// What it imports, against what it is granted.
    Imports,
    /// Compiling it.
    Compile,
    /// What it is granted.
    Grants,
    /// A first instance of it.
    Instance,
    /// How it prepares and checks itself.
    Lifecycle,
}

impl Step {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::File => "file",
            Self::Contract => "contract",
            Self::Imports => "imports",
            Self::Compile => "compile",
            Self::Grants => "grants",
            Self::Instance => "instance",
            Self::Lifecycle => "lifecycle",
        }
    }
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Usable, and perhaps not what was meant.
    Doubtful,
    /// A node would refuse it.
    Bad,
}

/// Checks the component of `project` under `settings`, and tells `each` what it found.
///
/// # Errors
/// `each` could not be told, or there is no port for the origin of the manifest.
pub async fn run(
    workbench: &Workbench,
    project: &Project,
    settings: &config::Plugin,
    mut each: impl FnMut(&Finding) -> io::Result<()>,
) -> io::Result<()> {
    if let Some(manifest) = &project.manifest {
        let tests = manifest.test.len();
        each(&good(Step::Manifest, format!("{} with {tests} tests", project.name())))?;
    }
    let compiled = match workbench.compile(&project.component).await {
        Ok(compiled) => compiled,
        Err(problem) => return each(&bad(&problem)),
    };
    let (_origin, settings) = project.play(settings).await?;
    for finding in of_component(project, &compiled, &settings) {
        each(&finding)?;
    }
    match workbench.load(project, &compiled, &settings).await {
        Ok(plugin) => of_instance(&plugin).iter().try_for_each(each),
        Err(error) => each(&bad(&error.problem)),
    }
}

fn of_component(project: &Project, compiled: &Compiled, settings: &config::Plugin) -> Vec<Finding> {
    let size = size_text(compiled.bytes());
    let file = format!("{}, {size}, {}", project.component.display(), compiled.digest());
    let (imported, exported) = compiled.interfaces();
    let mut findings = vec![
        good(Step::File, file),
        good(Step::Contract, format!("track {TRACK}: {}", own(&exported).join(", "))),
    ];
    findings.extend(imports(&imported, settings));
    findings.push(good(Step::Compile, time_text(compiled.took())));
    findings
}

/// The interfaces of the contract among `names`, without their package.
fn own(names: &[String]) -> Vec<&str> {
    let own = names.iter().filter_map(|name| name.strip_prefix(GETTER_PACKAGE)?.strip_prefix('/'));
    own.map(|name| name.split('@').next().unwrap_or(name)).collect()
}

/// What the imports and the grants say to one another.
fn imports(imported: &[String], settings: &config::Plugin) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut doubt = |text: &str| {
        findings.push(Finding {
            step: Step::Imports,
            verdict: Verdict::Doubtful,
            text: text.to_owned(),
        });
    };
    let has =
        |interface: &str| imported.iter().any(|name| name.split('@').next() == Some(interface));
    let network = &settings.network;
    let has_http = has("wasi:http/outgoing-handler");
    if has_http && network.http.is_empty() {
        doubt(
            "it can make HTTP requests, and is granted no origin: name those it needs, as \
             `[network] http = [\"https://api.example.com\"]` or `--allow-http`",
        );
    }
    if !has_http && !network.http.is_empty() {
        doubt("it is granted HTTP, and imports none: `[network] http` can go");
    }
    let has_tcp = has("wasi:sockets/tcp-create-socket");
    if !has_tcp && !network.tcp.is_empty() {
        doubt("it is granted TCP, and imports none: `[network] tcp` can go");
    }
    if has("cachecluster:plugin/cache") {
        doubt(
            "it reads other groups of the node: grant them there, as `[plugins.NAME.cache] read = \
             [\"GROUP\"]`; here every read is denied",
        );
    }
    if findings.is_empty() {
        let wasi = imported.iter().filter(|name| name.starts_with("wasi:")).count();
        let own = own(imported).join(", ");
        findings.push(good(Step::Imports, format!("{own}; {wasi} of WASI")));
    }
    findings
}

fn of_instance(plugin: &Plugin) -> Vec<Finding> {
    let status = plugin.status();
    let limits = &status.limits;
    let instance = format!(
        "{} of memory at start, {} at most; up to {} at once, with {} in all",
        size_text(status.memory_bytes),
        limits.memory,
        limits.instances,
        size_text(limits.memory.get().saturating_mul(u64::from(limits.instances))),
    );
    let lifecycle = if status.exports.lifecycle { "init and check" } else { "it has none" };
    vec![good(Step::Instance, instance), good(Step::Lifecycle, lifecycle.to_owned())]
}

fn good(step: Step, text: String) -> Finding {
    Finding { step, verdict: Verdict::Good, text }
}

fn bad(problem: &Problem) -> Finding {
    let step = match problem {
        Problem::WrongTrack { .. } | Problem::NoGetter | Problem::Export { .. } => Step::Contract,
        Problem::Import { .. } | Problem::ImportType(_) => Step::Imports,
        Problem::Invalid(_)
        | Problem::Async(_)
        | Problem::CompileTimeout(_)
        | Problem::Resources(_) => Step::Compile,
        Problem::Grant(_) | Problem::Secret { .. } => Step::Grants,
        Problem::Instantiate(_) | Problem::TrialTimeout(_) => Step::Instance,
        Problem::Lifecycle { .. } | Problem::Probe { .. } => Step::Lifecycle,
        _ => Step::File,
    };
    Finding { step, verdict: Verdict::Bad, text: problem.to_string() }
}

/// A size for people, with three digits.
pub fn size_text(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let float = bytes as f64;
    match bytes {
        0..1_024 => ByteSize::bytes(bytes).to_string(),
        1_024..1_048_576 => format!("{:.1}KiB", float / 1_024.0),
        1_048_576..1_073_741_824 => format!("{:.1}MiB", float / 1_048_576.0),
        _ => format!("{:.1}GiB", float / 1_073_741_824.0),
    }
}

/// A time for people, with three digits.
pub fn time_text(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (number, unit) = match seconds {
        0.0..1e-6 => (seconds * 1e9, "ns"),
        1e-6..1e-3 => (seconds * 1e6, "µs"),
        1e-3..1.0 => (seconds * 1e3, "ms"),
        _ => (seconds, "s"),
    };
    match number {
        0.0..10.0 => format!("{number:.2} {unit}"),
        10.0..100.0 => format!("{number:.1} {unit}"),
        _ => format!("{number:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_told_in_three_digits() {
        for (nanos, text) in [
            (0, "0.00 ns"),
            (999, "999 ns"),
            (12_345, "12.3 µs"),
            (464_170_000, "464 ms"),
            (1_500_000_000, "1.50 s"),
            (125_000_000_000, "125 s"),
        ] {
            assert_eq!(time_text(Duration::from_nanos(nanos)), text);
        }
        for (bytes, text) in [(0, "0B"), (1_023, "1023B"), (1_536, "1.5KiB"), (64 << 20, "64.0MiB")]
        {
            assert_eq!(size_text(bytes), text);
        }
    }
}
