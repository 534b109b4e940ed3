//! The threads that compile components: apart from those that serve, and after them.
//!
//! Compiling is all computation, for seconds where a guest carries a language runtime.
//! It has a pool of threads of its own with a low priority, so that the node serves as
//! before while a new version is made ready. Wasmtime compiles the functions of a
//! component on whatever pool of rayon's it is called in; left alone, that would be one
//! of the process with the priority of those that serve.
//!
//! Invariants:
//! - one component is compiled at a time: it uses all threads of the pool;
//! - nothing waits here but loads.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use rayon_core::{ThreadPool, ThreadPoolBuilder};
use tokio::{
    sync::{Semaphore, oneshot},
    time::timeout,
};

use super::{
    error::{HostError, Problem},
    priority,
};

/// Time for one component to compile. The largest guests with a language runtime take half
/// a minute on two idle cores, and more than two minutes where everything else on the
/// machine goes first.
const TIMEOUT: Duration = Duration::from_mins(5);

/// How much nicer than the rest of the node these threads are. Enough for the scheduler
/// to let whoever serves go first, and little enough for a load to come to its end on a
/// node that is busy with all cores: this is about a tenth of a fair share.
const NICENESS: i32 = 10;

/// Compiles components, one at a time.
pub(super) struct Compilers {
    pool: ThreadPool,
    turn: Arc<Semaphore>,
}

impl Compilers {
    /// Starts the threads, one a core.
    pub(super) fn start() -> Result<Self, HostError> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let pool = ThreadPoolBuilder::new()
            .num_threads(cores)
            .thread_name(|_| "compile".to_owned())
            .start_handler(|_| priority::lower(NICENESS))
            .build()
            .map_err(HostError::Compilers)?;
        Ok(Self { pool, turn: Arc::new(Semaphore::new(1)) })
    }

    /// Runs `job` on these threads when its turn has come. A job that nobody waits for
    /// any longer runs to its end all the same, and keeps its turn until then.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = Arc::clone(&self.turn).acquire_owned().await.map_err(|_| Problem::Shutdown)?;
        let (done, result) = oneshot::channel();
        self.pool.spawn(move || {
            // A panic that left a thread of the pool would end the process.
            let result = catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|_| {
                let text = "the host panicked over it, which is a defect of this program";
                Err(Problem::Invalid(text.to_owned()))
            });
            drop(turn);
            done.send(result).ok();
        });
        match timeout(TIMEOUT, result).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Problem::Shutdown),
            Err(_) => Err(Problem::CompileTimeout(TIMEOUT)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn components_are_compiled_after_everything_else_is_served() {
        let niceness = || rustix::process::getpriority_process(None).expect("a priority");
        let here = move || (thread::current().name().map(str::to_owned), niceness());
        let compilers = Compilers::start().expect("threads");
        // What a job forks, as wasmtime does for each function, stays in the pool.
        let forked = compilers.run(move || Ok(rayon_core::join(here, here))).await;
        let expected = (Some("compile".to_owned()), (niceness() + NICENESS).min(19));
        assert_eq!(forked.expect("done"), (expected.clone(), expected));
    }

    #[tokio::test]
    async fn one_component_is_compiled_at_a_time() {
        let compilers = Arc::new(Compilers::start().expect("threads"));
        let running = Arc::<AtomicUsize>::default();
        let jobs: Vec<_> = (0..20)
            .map(|_| {
                let (compilers, running) = (Arc::clone(&compilers), Arc::clone(&running));
                tokio::spawn(async move {
                    let job = move || {
                        let others = running.fetch_add(1, SeqCst);
                        thread::yield_now();
                        running.fetch_sub(1, SeqCst);
                        Ok(others)
                    };
                    compilers.run(job).await.expect("done")
                })
            })
            .collect();
        for job in jobs {
            assert_eq!(job.await.expect("no panic"), 0);
        }
    }

    #[tokio::test]
    async fn a_panic_of_the_compiler_costs_one_load() {
        let compilers = Compilers::start().expect("threads");
        let panicked = compilers.run(|| -> Result<(), _> { panic!("at the compiler") }).await;
        assert!(matches!(panicked, Err(Problem::Invalid(text)) if text.contains("defect")));
        assert!(compilers.run(|| Ok(())).await.is_ok());
    }
}
