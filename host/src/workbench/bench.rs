//! How fast a plugin is, and what it takes: many gets at once for some seconds.
//!
//! Times are those of the plugin's host: a get in a node costs a little more (the group,
//! the flight, the store) and is answered from memory most of the time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::{task::JoinSet, time::Instant};

use super::{Workbench, answer, fill, histogram::Histogram};
use crate::plugin::{Ended, Plugin};

/// What is asked, by how many at once, for how long.
#[derive(Clone, Debug)]
pub struct Load {
    /// The keys, in turn.
    pub keys: Vec<String>,
    /// Gets at once.
    pub concurrency: usize,
    /// How long.
    pub time: Duration,
    /// Time for one get.
    pub timeout: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Gets that ended, in whatever way.
    pub calls: u64,
    /// How long all of it took, in seconds.
    pub seconds: f64,
    /// Time of a get, from its turn on.
    pub latency: Percentiles,
    /// CPU time of a get, host and guest together.
    pub cpu: Percentiles,
    /// How long instances took to make.
    pub made: Percentiles,
    /// How many were made.
    pub instances: u64,
    /// The most memory that an instance had, in bytes.
    pub memory_bytes: u64,
    /// Gets by how they ended.
    pub answers: BTreeMap<&'static str, u64>,
    /// Gets that cost their instance.
    pub faults: u64,
    /// What the first of the errors said.
    pub first_error: Option<String>,
}

/// A distribution of times, in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Percentiles {
    /// Half of them are shorter.
    pub p50: f64,
    /// Nine in ten are shorter.
    pub p90: f64,
    /// All but one in a hundred are shorter.
    pub p99: f64,
    /// All but one in a thousand are shorter.
    pub p999: f64,
    /// The longest.
    pub max: f64,
    /// Their mean.
    pub mean: f64,
}

impl Percentiles {
    fn of(times: &Histogram) -> Self {
        let at = |share: f64| times.at(share).as_secs_f64();
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: times.max().as_secs_f64(),
            mean: times.mean().as_secs_f64(),
        }
    }
}

#[derive(Default)]
struct Tally {
    latency: Histogram,
    cpu: Histogram,
    made: Histogram,
    outcome: Outcome,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.latency.add(&other.latency);
        self.cpu.add(&other.cpu);
        self.made.add(&other.made);
        let (sum, part) = (&mut self.outcome, other.outcome);
        sum.calls += part.calls;
        sum.faults += part.faults;
        sum.memory_bytes = sum.memory_bytes.max(part.memory_bytes);
        for (answer, count) in part.answers {
            *sum.answers.entry(answer).or_default() += count;
        }
        sum.first_error = sum.first_error.take().or(part.first_error);
    }
}

impl Workbench {
    /// Puts `load` on `plugin`.
    pub async fn bench(&self, plugin: &Arc<Plugin>, load: &Load) -> Outcome {
        let load = Arc::new(load.clone());
        let tally = Arc::<Mutex<Tally>>::default();
        let began = Instant::now();
        let end = began + load.time;
        let mut callers = JoinSet::new();
        for caller in 0..load.concurrency {
            let (plugin, load) = (Arc::clone(plugin), Arc::clone(&load));
            let tally = Arc::clone(&tally);
            // On the guests' own threads, where a node's fills run too.
            let call = async move {
                let own = call_until(end, &plugin, &load, caller).await;
                tally.lock().unwrap_or_else(PoisonError::into_inner).add(own);
            };
            callers.spawn_on(call, self.host.fills());
        }
        while callers.join_next().await.is_some() {}
        let tally = std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner));
        Outcome {
            seconds: began.elapsed().as_secs_f64(),
            latency: Percentiles::of(&tally.latency),
            cpu: Percentiles::of(&tally.cpu),
            made: Percentiles::of(&tally.made),
            instances: tally.made.count(),
            ..tally.outcome
        }
    }
}

/// One caller: get after get until `end`.
async fn call_until(end: Instant, plugin: &Plugin, load: &Load, caller: usize) -> Tally {
    let mut tally = Tally::default();
    let mut keys = load.keys.iter().cycle().skip(caller % load.keys.len().max(1));
    while Instant::now() < end
        && let Some(key) = keys.next()
    {
        let measured = plugin.measure(fill(key, None, load.timeout)).await;
        let cost = measured.cost;
        tally.latency.record(cost.wall);
        tally.cpu.record(cost.cpu);
        if let Some(made) = cost.made {
            tally.made.record(made);
        }
        let outcome = &mut tally.outcome;
        outcome.calls += 1;
        outcome.faults += u64::from(matches!(measured.ended, Ended::Faulted(_)));
        outcome.memory_bytes = outcome.memory_bytes.max(cost.memory);
        *outcome.answers.entry(answer::word(&measured.ended)).or_default() += 1;
        if outcome.first_error.is_none() && answer::error(&measured.ended).is_some() {
            outcome.first_error = Some(answer::line(&measured.ended));
        }
        // A call that never waits would keep the others of this thread from theirs.
        tokio::task::yield_now().await;
    }
    tally
}
