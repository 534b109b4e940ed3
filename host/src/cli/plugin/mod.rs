//! `plugin`: what the author of a plugin does with it; one verb a file.
//!
//! Each takes the file of a component, or a project's folder or manifest.

mod bench;
mod call;
mod check;
mod conformance;
mod inspect;
mod subject;
mod test;

use clap::Subcommand;

use super::{Exit, Failure};

/// What to do with a plugin.
#[derive(Debug, Subcommand)]
pub(super) enum What {
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

/// Does `what`.
pub(super) fn run(what: &What) -> Result<(), Failure> {
    match what {
        What::Check(options) => check::check(options),
        What::Test(options) => test::test(options),
        What::Call(options) => call::call(options),
        What::Bench(options) => bench::bench(options),
        What::Conformance(options) => conformance::conformance(options),
        What::Inspect(options) => inspect::inspect(options),
    }
}
