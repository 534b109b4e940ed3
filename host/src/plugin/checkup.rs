//! Has a plugin check itself now and then while it serves.
//!
//! A check runs in an instance that no call misses: the one that has been idle longest
//! if there is another one, else one made for it. It takes no place in the queue. Only
//! its failure says something: many a check is well while the origin is down.

use std::{sync::Weak, time::Duration};

use tokio::time::{Instant, sleep};

use super::{fault::Fault, generation::Generation, getter::Plugin, instance::Instance};

/// Time for one check, unless the plugin's calls have less.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Share of the interval by which the checks of many plugins are spread.
const JITTER: f64 = 0.25;

/// How often to look again whether checks are wanted now.
const OFF: Duration = Duration::from_secs(30);

/// Checks `plugin` until it is gone.
pub(super) async fn check_now_and_then(plugin: Weak<Plugin>) {
    loop {
        let Some(generation) = plugin.upgrade().map(|plugin| plugin.generation()) else { return };
        let interval = generation.recipe.settings.failure.check;
        let is_wanted = !interval.is_zero() && generation.lifecycle.is_some();
        // Not held while it sleeps, so that what is let go ends at once.
        drop(generation);
        let interval = if is_wanted { interval } else { OFF };
        sleep(interval.mul_f64(1.0 + JITTER * (2.0 * fastrand::f64() - 1.0))).await;
        if !is_wanted {
            continue;
        }
        let Some(generation) = plugin.upgrade().and_then(|plugin| plugin.to_be_checked()) else {
            continue;
        };
        let Some(result) = check(&generation).await else { continue };
        let Some(plugin) = plugin.upgrade() else { return };
        plugin.checked(&generation, result);
    }
}

/// What the check of `generation` says; `None` if the node has no room for it.
async fn check(generation: &Generation) -> Option<Result<(), String>> {
    let own = generation.environment.limits.timeout;
    let deadline = Instant::now() + own.min(TIMEOUT);
    if let Some(mut spare) = generation.pool.take_spare() {
        let result = spare.check(deadline).await;
        if result.is_ok() {
            generation.pool.give_back_spare(spare);
        }
        return said(result);
    }
    match Instance::create(generation, deadline).await {
        Ok(mut instance) => said(instance.check(deadline).await),
        Err(error) => said(Err(error.into())),
    }
}

fn said(result: Result<Result<(), String>, Fault>) -> Option<Result<(), String>> {
    match result {
        Ok(result) => Some(result),
        Err(Fault::NoSlot) => None,
        Err(fault) => Some(Err(fault.to_string())),
    }
}
