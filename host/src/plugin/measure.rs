//! Calls whose cost is reckoned in full: for whoever makes a plugin, not for serving.
//!
//! A measured call goes the way of any other: it waits for its turn, takes a warm
//! instance or makes one, and has its answer checked. But it is never retried, and whether
//! the plugin fares well or not neither keeps it from being made nor is changed by it. It
//! tells a fault from an error that the plugin answered.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Plugin,
    generation::Generation,
    getter::{Carried, nesting, utf8},
    imports::CallContext,
    instance::Instance,
    store::thread_cpu_time,
    tally::Failure,
};
use crate::group::{Fill, FillError, Outcome};

/// How a measured call ended, and what it took.
#[derive(Clone, Debug)]
pub struct Measured {
    /// How it ended.
    pub ended: Ended,
    /// What it took.
    pub cost: Cost,
}

/// How a call ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// The origin was reached and spoke.
    Answered(Outcome),
    /// The plugin answered with an error of its own, or its key could not be given to it.
    Failed(FillError),
    /// The call cost its instance, or its answer was out of bounds: a trap, an exit, a
    /// deadline that passed.
    Faulted(FillError),
    /// The call was never begun.
    Refused(FillError),
}

/// What a call took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// From its turn to its answer, the making of an instance included.
    pub wall: Duration,
    /// CPU time of the guest and of the host on its behalf, the making of an instance
    /// included.
    pub cpu: Duration,
    /// How long its instance took to make, `lifecycle.init` included; none for a warm one.
    pub made: Option<Duration>,
    /// Memory of its instance at the end: the most it ever had, for it never shrinks.
    pub memory: u64,
}

impl Plugin {
    /// Loads the key of `fill` as for a group, and tells what that took.
    pub async fn measure(&self, fill: Fill) -> Measured {
        let Some(plugin) = self.elsewhere() else { return self.measure_here(&fill).await };
        let call = self.fills.spawn(async move { plugin.measure_here(&fill).await });
        match Carried(call).result().await {
            Ok(measured) => measured,
            Err(error) => Measured { ended: Ended::Refused(error), cost: Cost::default() },
        }
    }

    async fn measure_here(&self, fill: &Fill) -> Measured {
        let generation = self.generation();
        let mut cost = Cost::default();
        let ended = match utf8(&fill.key) {
            Ok(key) => self.measure_call(&generation, fill, key, &mut cost).await,
            Err(error) => Ended::Failed(error),
        };
        Measured { ended, cost }
    }

    async fn measure_call(
        &self,
        generation: &Generation,
        fill: &Fill,
        key: &str,
        cost: &mut Cost,
    ) -> Ended {
        let deadline = generation.deadline(fill.deadline);
        let turn = generation.admission.enter(nesting(fill), deadline).await;
        let _permit = match turn {
            Ok(permit) => permit,
            Err(refused) => return Ended::Refused(Failure::Refused(refused).into_fill_error()),
        };
        let began = Instant::now();
        let mut cpu = Duration::ZERO;
        let ended =
            in_full(&mut cpu, self.measure_answer(generation, fill, key, deadline, cost)).await;
        cost.wall = began.elapsed();
        cost.cpu = cpu;
        match ended {
            Ok(outcome) => Ended::Answered(outcome),
            Err(Failure::Answered(error)) => Ended::Failed(error),
            Err(failure) => Ended::Faulted(failure.into_fill_error()),
        }
    }

    async fn measure_answer(
        &self,
        generation: &Generation,
        fill: &Fill,
        key: &str,
        deadline: Instant,
        cost: &mut Cost,
    ) -> Result<Outcome, Failure> {
        let mut instance = if let Some(instance) = generation.pool.take() {
            instance
        } else {
            let began = Instant::now();
            let made = Instance::create(generation, deadline).await;
            cost.made = Some(began.elapsed());
            made.map_err(|error| Failure::Faulted(error.into()))?
        };
        let context = CallContext::of_one(fill, deadline);
        let answer = instance.get(key, context, deadline).await;
        cost.memory = instance.memory_bytes();
        let answer = answer.map_err(Failure::Faulted)?;
        generation.pool.give_back(instance);
        self.outcome(generation, answer, fill.validator.is_some())
    }
}

/// Waits for `call`, adding up the CPU time of all of its polls.
async fn in_full<T>(cpu: &mut Duration, call: impl Future<Output = T>) -> T {
    let mut call = pin!(call);
    poll_fn(|cx| {
        let start = thread_cpu_time();
        let result = call.as_mut().poll(cx);
        *cpu += thread_cpu_time().saturating_sub(start);
        result
    })
    .await
}
