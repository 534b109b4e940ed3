//! How the process ends.

use std::process::ExitCode;

/// What the exit code says. Part of the interface: service managers act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Ok,
    /// It did not work; it may at another time.
    Failed,
    /// The command line is not one.
    Usage,
    /// The settings have to change first: `EX_CONFIG` of `sysexits.h`.
    BadConfig,
}

impl Exit {
    /// The number.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::BadConfig => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_that_are_documented() {
        let codes = [Exit::Ok, Exit::Failed, Exit::Usage, Exit::BadConfig].map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 78]);
    }
}
