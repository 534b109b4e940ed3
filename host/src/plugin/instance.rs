//! One live instance of a plugin: it serves one call at a time, and many in turn.
//!
//! Invariants:
//! - an instance whose call failed is never used again: after a trap or an abandoned
//!   call its store refuses every other, so each method that fails consumes its
//!   worth and the owner drops it;
//! - `lifecycle.init` has succeeded before the first get.

use std::future::Future;

use tokio::time::{Instant, timeout_at};
use wasmtime::{Store, component::Resource};

use super::{
    bindings::{BATCH_GETTER, GETTER, LIFECYCLE, batch, contract, lifecycle, types},
    fault::{Fault, chain_text, guest_text},
    generation::Generation,
    imports::CallContext,
    store::{self, DeadlineExceeded, State},
};

/// What a guest answers for one key.
pub(super) type Answer = Result<types::Outcome, types::Error>;

/// Why there is no new instance.
#[derive(Debug)]
pub(super) enum CreateError {
    /// Instantiating it failed, or its start function.
    Instantiate(Fault),
    /// An export has other types than the contract says.
    Export { interface: &'static str, message: String },
    /// `lifecycle.init` trapped or ran out of time.
    Init(Fault),
    /// `lifecycle.init` returned an error.
    InitError(String),
}

impl From<CreateError> for Fault {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Instantiate(fault) | CreateError::Init(fault) => fault,
            CreateError::InitError(message) => Self::Init(message),
            CreateError::Export { interface, message } => {
                Self::Broken(format!("its export `{interface}` breaks the contract: {message}"))
            }
        }
    }
}

/// A live instance.
pub(super) struct Instance {
    store: Store<State>,
    getter: contract::Plugin,
    batch: Option<batch::OnlyBatch>,
    lifecycle: Option<lifecycle::OnlyLifecycle>,
    /// Calls until it is replaced.
    calls_left: u32,
    /// Memory beyond which it is replaced.
    bytes_max: usize,
    /// Resources of the host beyond which it is replaced.
    handles_max: usize,
    /// Since when it waits for a call.
    pub(super) idle_since: Instant,
}

impl Instance {
    /// A new instance that is ready for its first get by `deadline`.
    pub(super) async fn create(
        generation: &Generation,
        deadline: Instant,
    ) -> Result<Self, CreateError> {
        let environment = &generation.environment;
        let mut store = store::new_store(&generation.engine, environment.clone());

        store::begin_call(&mut store, deadline, 1);
        let cpu = store.data().cpu.clone();
        let instantiate = cpu.measure(generation.pre.instantiate_async(&mut store));
        let instance = match timeout_at(deadline, instantiate).await {
            Ok(Ok(instance)) => instance,
            failed => {
                return Err(CreateError::Instantiate(settle(
                    &store,
                    failed.ok().and_then(Result::err),
                )));
            }
        };
        let export = |interface| {
            move |error: wasmtime::Error| CreateError::Export {
                interface,
                message: chain_text(&error),
            }
        };
        let getter = generation.getter.load(&mut store, &instance).map_err(export(GETTER))?;
        let batch = match &generation.batch {
            Some(indices) => {
                Some(indices.load(&mut store, &instance).map_err(export(BATCH_GETTER))?)
            }
            None => None,
        };
        let lifecycle = match &generation.lifecycle {
            Some(indices) => Some(indices.load(&mut store, &instance).map_err(export(LIFECYCLE))?),
            None => None,
        };
        let bytes = store.data().limiter.bytes();
        let limit = environment.limits.memory.as_usize();
        let mut instance = Self {
            store,
            getter,
            batch,
            lifecycle,
            calls_left: lifetime(environment.limits.calls),
            // Half of what it may take beyond what it always takes.
            bytes_max: (limit / 2).max(bytes + limit.saturating_sub(bytes) / 2),
            handles_max: usize::try_from(environment.limits.handles / 2).unwrap_or(usize::MAX),
            idle_since: Instant::now(),
        };
        match instance.init(deadline).await {
            Ok(Ok(())) => Ok(instance),
            Ok(Err(message)) => Err(CreateError::InitError(instance.words(&message))),
            Err(fault) => Err(CreateError::Init(fault)),
        }
    }

    async fn init(&mut self, deadline: Instant) -> Result<Result<(), String>, Fault> {
        let Some(lifecycle) = &self.lifecycle else { return Ok(Ok(())) };
        store::begin_call(&mut self.store, deadline, 1);
        let cpu = self.store.data().cpu.clone();
        let call = lifecycle.cachecluster_plugin_lifecycle().call_init(&mut self.store);
        let result = within(deadline, cpu.measure(call)).await;
        result.map_err(|error| settle(&self.store, error))
    }

    /// The plugin's check of itself.
    pub(super) async fn check(&mut self, deadline: Instant) -> Result<Result<(), String>, Fault> {
        let Some(lifecycle) = &self.lifecycle else { return Ok(Ok(())) };
        store::begin_call(&mut self.store, deadline, 1);
        let cpu = self.store.data().cpu.clone();
        let call = lifecycle.cachecluster_plugin_lifecycle().call_check(&mut self.store);
        let result = within(deadline, cpu.measure(call)).await;
        result
            .map(|checked| checked.map_err(|message| self.words(&message)))
            .map_err(|error| settle(&self.store, error))
    }

    /// Gets one key by `deadline`.
    pub(super) async fn get(
        &mut self,
        key: &str,
        context: CallContext,
        deadline: Instant,
    ) -> Result<Answer, Fault> {
        self.calls_left = self.calls_left.saturating_sub(1);
        store::begin_call(&mut self.store, deadline, 1);
        let lent = self.lend(context)?;
        let cpu = self.store.data().cpu.clone();
        let getter = self.getter.cachecluster_plugin_getter();
        let call = getter.call_get(&mut self.store, key, Resource::new_borrow(lent));
        let result = within(deadline, cpu.measure(call)).await;
        self.take_back(lent);
        let answer = result.map_err(|error| settle(&self.store, error))?;
        let refused = self.store.data().notes.take();
        Ok(answer.map_err(|error| self.told(error, refused.as_deref())))
    }

    /// Gets several keys by `deadline`; `None` where the plugin cannot.
    pub(super) async fn get_many(
        &mut self,
        keys: &[String],
        context: CallContext,
        deadline: Instant,
    ) -> Option<Result<Result<Vec<Answer>, types::Error>, Fault>> {
        self.batch.as_ref()?;
        self.calls_left = self.calls_left.saturating_sub(1);
        store::begin_call(&mut self.store, deadline, keys.len());
        let lent = match self.lend(context) {
            Ok(lent) => lent,
            Err(fault) => return Some(Err(fault)),
        };
        let cpu = self.store.data().cpu.clone();
        let getter = self.batch.as_ref()?.cachecluster_plugin_batch_getter();
        let call = getter.call_get_many(&mut self.store, keys, Resource::new_borrow(lent));
        let result = within(deadline, cpu.measure(call)).await;
        self.take_back(lent);
        let answers = match result {
            Ok(answers) => answers,
            Err(error) => return Some(Err(settle(&self.store, error))),
        };
        let refused = self.store.data().notes.take();
        let told = |error| self.told(error, refused.as_deref());
        let each = |answer: Answer| answer.map_err(told);
        Some(Ok(match answers {
            Ok(answers) => Ok(answers.into_iter().map(each).collect()),
            Err(error) => Err(told(error)),
        }))
    }

    /// The guest's own words, as others may read them.
    fn words(&self, text: &str) -> String {
        guest_text(&self.store.data().environment.secrets.redact(text))
    }

    /// The guest's error in [its words](Self::words), and what the call was `refused`.
    fn told(&self, error: types::Error, refused: Option<&str>) -> types::Error {
        let words = |text: &str| match refused {
            Some(refused) => format!("{} ({refused})", self.words(text)),
            None => self.words(text),
        };
        match error {
            types::Error::InvalidKey(text) => types::Error::InvalidKey(self.words(&text)),
            types::Error::Denied(text) => types::Error::Denied(words(&text)),
            types::Error::Internal(text) => types::Error::Internal(words(&text)),
            types::Error::Unavailable(unavailable) => {
                types::Error::Unavailable(types::Unavailable {
                    message: words(&unavailable.message),
                    retry_after: unavailable.retry_after,
                })
            }
            types::Error::TimedOut => types::Error::TimedOut,
        }
    }

    fn lend(&mut self, context: CallContext) -> Result<u32, Fault> {
        match self.store.data_mut().table.push(context) {
            Ok(resource) => Ok(resource.rep()),
            Err(error) => Err(settle(&self.store, Some(error.into()))),
        }
    }

    fn take_back(&mut self, lent: u32) {
        let context = Resource::<CallContext>::new_own(lent);
        let deleted = self.store.data_mut().table.delete(context);
        debug_assert!(deleted.is_ok(), "a guest only borrows its context");
    }

    /// Memory it has taken. It never gives any back, so this is the most it ever had.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.store.data().limiter.bytes() as u64
    }

    /// Whether it has served long enough to be replaced: memory and resources that a
    /// guest leaks, and state that it should not keep, end with it. Garbage collectors
    /// leak resources until they run, which may be never.
    pub(super) fn is_spent(&mut self) -> bool {
        let State { limiter, table, .. } = self.store.data_mut();
        let is_full = limiter.bytes() > self.bytes_max || limiter.denied();
        self.calls_left == 0 || is_full || table.iter_mut().nth(self.handles_max).is_some()
    }
}

/// Waits for `call` until `deadline`: `Err(None)` when that passed first.
async fn within<T>(
    deadline: Instant,
    call: impl Future<Output = wasmtime::Result<T>>,
) -> Result<T, Option<wasmtime::Error>> {
    match timeout_at(deadline, call).await {
        Ok(result) => result.map_err(Some),
        Err(_elapsed) => Err(None),
    }
}

fn settle(store: &Store<State>, error: Option<wasmtime::Error>) -> Fault {
    let state = store.data();
    let limits = &state.environment.limits;
    match error {
        Some(error) if error.is::<DeadlineExceeded>() && state.has_computed() => {
            Fault::Endless(limits.timeout)
        }
        Some(error) => Fault::classify(&error, limits, state.limiter.denied()),
        None if state.has_computed_to_the_end() => Fault::Endless(limits.timeout),
        None => Fault::Deadline(limits.timeout),
    }
}

/// `calls`, give or take a quarter, so that instances made together are not replaced
/// together.
fn lifetime(calls: u32) -> u32 {
    let quarter = calls / 4;
    let range = calls - quarter..=calls.saturating_add(quarter);
    fastrand::u32(range).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_differ_by_up_to_a_quarter() {
        for _ in 0..1_000 {
            assert!((75..=125).contains(&lifetime(100)));
            assert_eq!(lifetime(1), 1);
            assert_eq!(lifetime(0), 1);
            assert!(lifetime(u32::MAX) > u32::MAX / 2);
        }
    }
}
