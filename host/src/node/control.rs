//! The runtime for operators, reloads and the fills of native getters.

use std::{ops::Deref, thread, time::Duration};

use tokio::runtime::{self, Handle, Runtime};

/// Threads of the runtime for operators and for the fills of native getters. They
/// wait most of the time; a getter that computes belongs on threads of its own.
const CONTROL_THREADS: usize = 2;

/// Time for tasks that are left on a runtime when it stops. By then every front has
/// drained, so that nobody waits for them.
const RUNTIME_STOP: Duration = Duration::from_secs(1);

/// Unlike a bare [`Runtime`] it may be dropped anywhere, within another runtime too: its
/// tasks then end by themselves.
#[derive(Debug)]
pub(super) struct Control(Option<Runtime>);

impl Control {
    pub(super) fn start() -> std::io::Result<Self> {
        let runtime = runtime::Builder::new_multi_thread()
            .thread_name("control")
            .worker_threads(CONTROL_THREADS)
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Ends the threads, and waits a moment for what they are at.
    pub(super) fn stop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(RUNTIME_STOP);
        }
    }
}

impl Deref for Control {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        self.0.as_ref().expect("taken by `stop` and `drop` alone, which are the last to look")
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Runs `work`, which waits and drops runtimes, on a thread where that is allowed: the
/// caller may be in the middle of a runtime of its own.
pub(super) fn outside_runtimes<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if Handle::try_current().is_err() {
        return work();
    }
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
