//! Writing to the terminal, and to whatever stands in its place.

use std::io::{self, IsTerminal, Write as _};

use serde::Serialize;

/// Prints a result on standard output, at once.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints a result as a JSON document.
pub(super) fn print_json(result: &impl Serialize) -> io::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(result)?))
}

/// Prints a line for people on standard error. Where that is closed there is nobody to
/// tell.
pub(super) fn complain(line: &str) {
    _ = writeln!(io::stderr().lock(), "{line}");
}

/// An error and its causes in one line. A cause that the error before it has already
/// told is not told again.
pub(super) fn chain(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |told, cause| {
        let cause = cause.to_string();
        match told.as_str() {
            "" => cause,
            _ if told.ends_with(&cause) => told,
            _ => format!("{told}: {cause}"),
        }
    })
}

/// Whether `stream` shows colour: a terminal does, unless `NO_COLOR` is set.
pub(super) fn is_colored(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow!("no such file").context("read a: no such file").context("start");
        assert_eq!(chain(&error), "start: read a: no such file");
    }
}
