//! What one instance runs in: its memory limit, its host resources, its deadlines.
//!
//! Two clocks bound a call. The wall clock is watched twice: by a timer around the
//! whole call, for a guest that waits in the host, and by the epoch callback below,
//! for a guest that computes and would never let the timer run. The second clock is
//! the guest's CPU time, measured around each poll of its call: a getter may wait
//! ten seconds for its origin but has no business computing for one.
//!
//! Invariants:
//! - a running guest yields on every tick, so no guest holds a thread for long, and goes
//!   on when its turn has come (see `turns`);
//! - every call begins with fresh deadlines and hostcall fuel; nothing is left of
//!   the call before.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use thiserror::Error;
use tokio::{task::yield_now, time::Instant};
use wasmtime::{Engine, Store, UpdateDeadline, component::ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::{
    egress::{CallNotes, Gate, HttpHooks, OpenSockets},
    environment::Environment,
    imports,
    limiter::Limiter,
    turns::Turn,
};

/// Bytes a call may hand to the host beside its value: labels, log records, settings
/// it looks up. Each such transfer is bounded by this and the value's limit together.
const HOSTCALL_SLACK: usize = 64 << 10;

/// Bytes a call for several keys may hand over, where one value is not larger still. A
/// guest can name the same bytes in each answer, so its own memory is no bound.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// Handles a component may hold across its own tables; resources of the host count
/// against `limits.handles` as well.
const COMPONENT_HANDLES_MIN: usize = 64;

/// Bytes of random numbers in one request: keys and nonces need tens.
pub(super) const RANDOM_BYTES_MAX: u64 = 64 << 10;

/// Headers of one HTTP message as they lie in memory.
const HTTP_FIELDS_MAX: usize = 128 << 10;

/// The call's wall clock ran out while the guest computed.
#[derive(Debug, Error)]
#[error("the call's deadline passed")]
pub(super) struct DeadlineExceeded;

/// The call's CPU time ran out.
#[derive(Debug, Error)]
#[error("the call's CPU budget is used up")]
pub(super) struct CpuExceeded;

/// What a store holds for one instance.
pub(super) struct State {
    pub(super) environment: Arc<Environment>,
    pub(super) limiter: Limiter,
    pub(super) table: ResourceTable,
    pub(super) wasi: WasiCtx,
    pub(super) http: WasiHttpCtx,
    pub(super) hooks: HttpHooks,
    pub(super) sockets: OpenSockets,
    /// What the call under way was refused.
    pub(super) notes: CallNotes,
    /// When the call under way began.
    began: Instant,
    /// When it ends at the latest.
    pub(super) deadline: Instant,
    pub(super) cpu: CpuMeter,
}

/// CPU time after which a call takes turns with others that compute: two ticks.
const COMPUTING: Duration = Duration::from_millis(10);

/// Share of its time that a call has computed if it has computed all along: as many
/// guests as there are threads for may run beside it.
const COMPUTING_SHARE: u32 = 20;

impl State {
    /// Whether the call under way has computed rather than waited.
    pub(super) fn has_computed(&self) -> bool {
        self.cpu.used() * COMPUTING_SHARE >= self.began.elapsed()
    }

    /// Whether the call that ran out of time waited for nothing but its turn to compute.
    pub(super) fn has_computed_to_the_end(&self) -> bool {
        self.cpu.turn.is_awaited() && self.has_computed()
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

/// A store with the limits of `environment` in force. Nothing runs in it before
/// [`begin_call`].
pub(super) fn new_store(engine: &Engine, environment: Arc<Environment>) -> Store<State> {
    let limits = &environment.limits;
    let handles = usize::try_from(limits.handles).unwrap_or(usize::MAX);
    let mut table = ResourceTable::new();
    table.set_max_capacity(handles);
    let mut http = WasiHttpCtx::new();
    http.set_field_size_limit(HTTP_FIELDS_MAX);

    let (egress, notes) = (&environment.egress, CallNotes::default());
    let gate = Gate::new(Arc::clone(egress), notes.clone());
    let state = State {
        limiter: Limiter::new(limits.memory.as_usize(), Arc::clone(&environment.memory)),
        table,
        wasi: imports::wasi(&environment, gate.clone()),
        http,
        hooks: HttpHooks::new(Arc::clone(egress), notes.clone()),
        sockets: OpenSockets::new(gate),
        notes,
        began: Instant::now(),
        deadline: Instant::now(),
        cpu: CpuMeter { nanos: Arc::default(), turn: environment.turns.of_instance() },
        environment,
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    store.set_max_component_handles(handles.max(COMPONENT_HANDLES_MIN));
    store.epoch_deadline_callback(|cx| {
        let state = cx.data();
        if Instant::now() >= state.deadline || state.environment.is_killed() {
            return Err(DeadlineExceeded.into());
        }
        if state.cpu.used() >= state.environment.limits.cpu {
            return Err(CpuExceeded.into());
        }
        // A short call may be running when the tick comes, and goes on like any other task.
        Ok(UpdateDeadline::YieldCustom(
            1,
            if state.cpu.used() < COMPUTING {
                Box::pin(yield_now())
            } else {
                Box::pin(state.cpu.turn.clone().next())
            },
        ))
    });
    store
}

/// Makes `store` ready for one call that ends by `deadline` and answers with up to
/// `answers` values.
pub(super) fn begin_call(store: &mut Store<State>, deadline: Instant, answers: usize) {
    let value_max = store.data().environment.limits.value.as_usize();
    let one = value_max.saturating_add(HOSTCALL_SLACK);
    store.set_hostcall_fuel(one.saturating_mul(answers.max(1)).min(BATCH_BYTES_MAX.max(one)));
    let state = store.data_mut();
    state.began = Instant::now();
    state.deadline = deadline;
    state.hooks.deadline = deadline;
    state.sockets.begin_call(&state.environment.egress, answers);
    state.cpu.reset();
    // The deadline is absolute: that of an idle store has long passed.
    store.set_epoch_deadline(1);
}

/// The CPU time of one call, and its turn to use more of it.
#[derive(Clone)]
pub(super) struct CpuMeter {
    nanos: Arc<AtomicU64>,
    turn: Turn,
}

impl CpuMeter {
    fn used(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Relaxed))
    }

    fn reset(&self) {
        self.nanos.store(0, Relaxed);
        self.turn.reset();
    }

    /// Runs `call`, adding up the CPU time of its polls but the last.
    ///
    /// Counting epochs instead would be unfair: a guest that waits two hundred times
    /// for a packet would be charged two hundred ticks.
    pub(super) async fn measure<T>(&self, call: impl Future<Output = T>) -> T {
        let mut call = pin!(async {
            self.turn.first().await;
            call.await
        });
        poll_fn(|cx| {
            let start = thread_cpu_time();
            let result = call.as_mut().poll(cx);
            self.turn.end();
            if result.is_ready() {
                // Nobody looks at the meter after the call, and reading this clock is a
                // system call.
                return result;
            }
            let nanos = thread_cpu_time().saturating_sub(start).as_nanos();
            self.nanos.fetch_add(u64::try_from(nanos).unwrap_or(u64::MAX), Relaxed);
            result
        })
        .await
    }
}

/// CPU time of this thread. Not the time of day: on a busy machine a guest is not
/// charged for the time in which others ran.
pub(super) fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
