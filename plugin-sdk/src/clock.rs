//! The point in time by which something must be done.

use crate::{Context, host};
use std::time::Duration;

/// A point on the monotonic clock by which work must be done.
///
/// This is the clock to use in a getter: `std::time::Instant` does not work
/// on every target a getter is built for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Deadline {
    /// Nanoseconds since the start of the monotonic clock.
    at: u64,
}

impl Deadline {
    /// The deadline that lies `duration` ahead. A duration past the end of the
    /// clock (584 years) is no deadline.
    pub fn after(duration: Duration) -> Self {
        Self { at: host::monotonic_now().saturating_add(nanoseconds(duration)) }
    }

    /// The moment at which the host abandons the call behind `ctx`.
    pub fn of(ctx: &Context) -> Self {
        Self::after(ctx.remaining())
    }

    /// The time left; zero once the deadline has passed.
    pub fn remaining(self) -> Duration {
        Duration::from_nanos(self.at.saturating_sub(host::monotonic_now()))
    }

    /// Whether the deadline has passed.
    pub fn is_over(self) -> bool {
        self.remaining().is_zero()
    }

    /// The point itself, in nanoseconds of the host's monotonic clock.
    #[cfg(target_family = "wasm")]
    pub(crate) fn at(self) -> u64 {
        self.at
    }
}

/// `duration` in the unit of the contract. More nanoseconds than fit are as
/// good as for ever, so the largest number stands for them.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_too_long_for_nanoseconds_saturates() {
        assert_eq!(nanoseconds(Duration::MAX), u64::MAX);
        assert_eq!(nanoseconds(Duration::from_micros(3)), 3000);
        assert!(!Deadline::after(Duration::MAX).is_over());
    }

    #[test]
    fn a_deadline_of_no_time_is_over() {
        assert!(Deadline::after(Duration::ZERO).is_over());
        assert!(Deadline::after(Duration::from_secs(1)) < Deadline::after(Duration::from_mins(1)));
    }
}
