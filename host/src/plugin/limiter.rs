//! How much memory one instance may take, all its linear memories and tables together.
//!
//! Wasmtime's own limit is for each memory: a component with four of them would have
//! four times the limit.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use wasmtime::{Error, ResourceLimiter};

/// Core instances, memories and tables in one store: above what one component may
/// have in the pool, so that a store never holds more than one component's.
const INSTANCES_MAX: usize = 64;
const MEMORIES_MAX: usize = 8;
const TABLES_MAX: usize = 32;

/// Counts what an instance takes and refuses what goes beyond its limit.
pub(super) struct Limiter {
    bytes: usize,
    bytes_max: usize,
    denied: bool,
    /// What all instances of the plugin take together, for its status.
    total: Arc<AtomicU64>,
}

impl Limiter {
    /// A limit of `bytes_max`, counted in `total` too.
    pub(super) fn new(bytes_max: usize, total: Arc<AtomicU64>) -> Self {
        Self { bytes: 0, bytes_max, denied: false, total }
    }

    /// Bytes taken now. Linear memory never shrinks, so neither does this.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the instance asked for more than it may have. It has not recovered if
    /// it trapped since: few programs survive a failed allocation.
    pub(super) fn denied(&self) -> bool {
        self.denied
    }

    /// Grants a growth of something whose units take `unit_bytes` each, unless it goes
    /// beyond its own `maximum` or the instance's.
    fn grow(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
        unit_bytes: usize,
    ) -> bool {
        let fits = desired
            .checked_sub(current)
            .filter(|_| maximum.is_none_or(|maximum| desired <= maximum))
            .and_then(|units| units.checked_mul(unit_bytes))
            .and_then(|more| self.bytes.checked_add(more));
        if let Some(bytes) = fits.filter(|bytes| *bytes <= self.bytes_max) {
            self.total.fetch_add((bytes - self.bytes) as u64, Relaxed);
            self.bytes = bytes;
            true
        } else {
            self.denied = true;
            false
        }
    }

    /// A growth that was granted did not happen.
    fn forget_grant(&mut self) {
        // Which one is not told; counting it on errs towards the limit.
        self.denied = true;
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes as u64, Relaxed);
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, Error> {
        Ok(self.grow(current, desired, maximum, 1))
    }

    fn memory_grow_failed(&mut self, _error: Error) -> Result<(), Error> {
        self.forget_grant();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, Error> {
        Ok(self.grow(current, desired, maximum, size_of::<usize>()))
    }

    fn table_grow_failed(&mut self, _error: Error) -> Result<(), Error> {
        self.forget_grant();
        Ok(())
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_count_together() {
        let total = Arc::<AtomicU64>::default();
        let mut limiter = Limiter::new(1_000, Arc::clone(&total));
        assert!(limiter.memory_growing(0, 400, None).expect("decided"));
        assert!(limiter.memory_growing(0, 400, None).expect("decided"));
        assert!(limiter.table_growing(0, 25, None).expect("decided"));
        assert!(!limiter.denied());
        assert!(!limiter.table_growing(25, 26, None).expect("decided"));
        assert!(limiter.denied());
        assert_eq!((limiter.bytes(), total.load(Relaxed)), (1_000, 1_000));
        drop(limiter);
        assert_eq!(total.load(Relaxed), 0);
    }

    #[test]
    fn a_table_of_more_than_the_address_space_is_refused() {
        let mut limiter = Limiter::new(usize::MAX, Arc::default());
        assert!(!limiter.table_growing(0, usize::MAX, None).expect("decided"));
    }
}
