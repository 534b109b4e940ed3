//! The signals that a node acts upon.

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGTERM or SIGINT, by its name: drain and end.
    End(&'static str),
    /// SIGHUP: reload.
    Reload,
}

/// Receives signals. Those that come while nobody waits are not lost.
pub(super) struct Signals {
    terminate: Stream,
    interrupt: Stream,
    /// Only a node that can reload its settings: elsewhere the signal says that the
    /// terminal is gone, and ends the process.
    hangup: Option<Stream>,
}

impl Signals {
    pub(super) fn new(can_reload: bool) -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: can_reload.then(|| signal(SignalKind::hangup())).transpose()?,
        })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> Signal {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => Signal::End("SIGTERM"),
            _ = self.interrupt.recv() => Signal::End("SIGINT"),
            _ = hangup => Signal::Reload,
        }
    }
}
