//! `plugin`: what the author of a plugin does with it; one verb a file.
//!
//! Each takes the file of a component, or a project's folder or manifest.

mod bench;
mod build;
mod call;
mod check;
mod conformance;
mod inspect;
mod new;
mod subject;
mod test;

use std::path::Path;

use clap::Subcommand;

use super::{Exit, Failure};

/// What to do with a plugin.
#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// Write a project to begin with: a getter that works, its tests, a node to serve it
    New(new::Options),
    /// Build a project's component with the tools of its language
    Build(build::Options),
    /// Check a component, or a project with its manifest, without calling it
    Check(check::Options),
    /// Run the tests of a project's manifest in the real host
    Test(test::Options),
    /// Get one key, and say what it took
    Call(call::Options),
    /// Measure a plugin under load, in warm and in fresh instances
    Bench(bench::Options),
    /// Hold a component to the conformance suite, in warm and in fresh instances
    Conformance(conformance::Options),
    /// Print the WIT of any component, and what it is made of
    Inspect(inspect::Options),
}

/// Does `what`. `settings` is the file of the node it may concern.
pub(super) fn run(what: &What, settings: &Path) -> Result<(), Failure> {
    match what {
        What::New(options) => new::new(options),
        What::Build(options) => build::build(options, settings),
        What::Check(options) => check::check(options),
        What::Test(options) => test::test(options),
        What::Call(options) => call::call(options),
        What::Bench(options) => bench::bench(options),
        What::Conformance(options) => conformance::conformance(options),
        What::Inspect(options) => inspect::inspect(options),
    }
}
