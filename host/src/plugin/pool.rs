//! The instances of a plugin that wait for a call.
//!
//! The last one used is the first one taken, so that a quiet plugin keeps few of them
//! busy and the others grow idle and go.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use super::instance::Instance;

/// Idle instances, the longest unused first. As many at most as calls are admitted.
pub(super) struct Pool {
    /// `None` once it is closed.
    idle: Mutex<Option<Vec<Instance>>>,
    gauge: Gauge,
}

impl Pool {
    /// An empty pool that shows its size in `gauge`.
    pub(super) fn new(gauge: Gauge) -> Self {
        Self { idle: Mutex::new(Some(Vec::new())), gauge }
    }

    /// How many instances wait.
    pub(super) fn len(&self) -> usize {
        self.lock().as_ref().map_or(0, Vec::len)
    }

    /// A warm instance, if there is one.
    pub(super) fn take(&self) -> Option<Instance> {
        let instance = self.lock().as_mut()?.pop()?;
        self.gauge.dec();
        Some(instance)
    }

    /// Keeps `instance` for a later call, unless it has served its time or the pool is
    /// closed.
    pub(super) fn give_back(&self, mut instance: Instance) {
        if instance.is_spent() {
            return;
        }
        instance.idle_since = Instant::now();
        if let Some(idle) = self.lock().as_mut() {
            idle.push(instance);
            self.gauge.inc();
        }
    }

    /// The instance that has been idle longest, if it is not the only one.
    pub(super) fn take_spare(&self) -> Option<Instance> {
        let mut pool = self.lock();
        let idle = pool.as_mut().filter(|idle| idle.len() > 1)?;
        let spare = idle.remove(0);
        drop(pool);
        self.gauge.dec();
        Some(spare)
    }

    /// Puts back what [`Pool::take_spare`] took: it has been idle all along.
    pub(super) fn give_back_spare(&self, spare: Instance) {
        if let Some(idle) = self.lock().as_mut() {
            idle.insert(0, spare);
            self.gauge.inc();
        }
    }

    /// Drops what has been idle for longer than `idle`, but for the last one used.
    pub(super) fn sweep(&self, idle: Duration) {
        let now = Instant::now();
        let mut pool = self.lock();
        let Some(instances) = pool.as_mut() else { return };
        let candidates = &instances[..instances.len().saturating_sub(1)];
        let expired = candidates.partition_point(|instance| now - instance.idle_since >= idle);
        let dropped: Vec<_> = instances.drain(..expired).collect();
        drop(pool);
        self.gauge.dec_by(i64::try_from(dropped.len()).unwrap_or(i64::MAX));
        // Unmapping takes its time; it is done without the lock.
        drop(dropped);
    }

    /// Drops every instance, and from here on those that come back.
    pub(super) fn close(&self) {
        let closed = self.lock().take();
        let count = closed.as_ref().map_or(0, Vec::len);
        self.gauge.dec_by(i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Instance>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.gauge.dec_by(i64::try_from(self.len()).unwrap_or(i64::MAX));
    }
}
