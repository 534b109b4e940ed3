//! The `cachecluster` binary: parse, call, exit code.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cachecluster::allocator::settle();
    cli::run(std::env::args_os()).into()
}
