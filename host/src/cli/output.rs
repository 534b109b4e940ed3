//! Writing to the terminal, and to whatever stands in its place.

use std::io::{self, IsTerminal, Write as _};

/// Prints a result on standard output, at once.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints a line for people on standard error. Where that is closed there is nobody to
/// tell.
pub(super) fn complain(line: &str) {
    _ = writeln!(io::stderr().lock(), "{line}");
}

/// Whether `stream` shows colour: a terminal does, unless `NO_COLOR` is set.
pub(super) fn is_colored(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
