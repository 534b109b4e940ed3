//! How well this node itself is: an accuser that is slow must not be believed too fast.
//!
//! Most false deaths come from a node that handles its own packets late. So it keeps
//! count: each probe of its own that fails, each suspicion of itself that it has to refute,
//! each time its loop comes late makes it slower to probe and slower to condemn; each answer
//! that it gets makes it faster again.

use std::time::Duration;

const WORST: u32 = 7;

/// The multiplier of Lifeguard's local health, from 0 (well) to 7.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Health(u32);

impl Health {
    pub(super) fn worse(&mut self) {
        self.0 = (self.0 + 1).min(WORST);
    }

    pub(super) fn better(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }

    /// How bad it is.
    pub(super) fn level(self) -> u32 {
        self.0
    }

    /// How long a timer of foca's waits in truth.
    pub(super) fn stretch(self, timer: &foca::Timer<super::Id>, after: Duration) -> Duration {
        match timer {
            // Both of a probe are set at once, so they keep their order.
            foca::Timer::ProbeRandomMember(_) | foca::Timer::SendIndirectProbe { .. } => {
                after * (self.0 + 1)
            }
            // One failed probe says more about the other than about us: at 1 this would
            // double the time to find a death, for nothing.
            foca::Timer::ChangeSuspectToDown { .. } => after * self.0.max(1),
            _ => after,
        }
    }
}
