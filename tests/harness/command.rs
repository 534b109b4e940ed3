//! The command that users run, to its end.

use std::process::Command;

use super::node::cachecluster;

/// What a run of the command came to.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the command as `prepare` would have it.
///
/// # Panics
/// When it panicked itself, or was ended by a signal.
pub(crate) fn run(prepare: impl FnOnce(&mut Command)) -> Ran {
    let mut command = cachecluster();
    prepare(&mut command);
    let output = command.output().expect("to run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let ran = Ran {
        code: output.status.code().expect("no signal"),
        out: text(output.stdout),
        err: text(output.stderr),
    };
    assert!(!ran.err.contains("panicked"), "{command:?}: {}", ran.err);
    ran
}
