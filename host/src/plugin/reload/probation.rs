//! The first time of a new version, in which it can still be taken back.
//!
//! A version that loads and answers its probes may yet fail on real keys. While it is
//! on probation every call it ends is counted, and when its faults are more than
//! chance, the version before it is put back. This is the counting alone: it knows
//! neither clock nor plugin.
//!
//! What counts is what the code does wrong: traps, exits, CPU and memory beyond the
//! limits, answers that break the contract, and internal errors. An origin that is
//! down makes any version answer `unavailable`, so that says nothing about this one.
//! One key may be poisonous to every version: faults on the same key count once.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

/// Keys on which a version may fault before it is taken back.
const FAULTY_KEYS_MAX: usize = 3;
/// Calls after which a version of which most fail is taken back.
const CALLS_MIN: u32 = 8;
/// Calls a version must have ended to pass.
const CALLS_TO_PASS: u32 = 50;
/// Times the length of a probation after which it ends however few calls there were.
const PATIENCE: u32 = 10;

/// How one call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plugin) enum Ending {
    /// It answered, or failed for reasons that are not its own.
    Fine,
    /// It answered with an internal error, or not in time.
    Bad,
    /// It cost an instance.
    Fault,
}

/// What becomes of the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plugin) enum Verdict {
    /// It stays on probation.
    Open,
    /// It is as good as the one before it.
    Passed,
    /// It is worse.
    Failed(Reason),
}

/// Why a version is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plugin) enum Reason {
    /// It faulted on so many different keys.
    Faults(usize),
    /// So many of its calls failed, of so many.
    MostCalls { bad: u32, calls: u32 },
}

/// The probation of one version.
#[derive(Debug)]
pub(in crate::plugin) struct Probation {
    length: Duration,
    began: Instant,
    calls: u32,
    bad: u32,
    /// Hashes of the keys on which it faulted.
    faulty: BTreeSet<u64>,
}

impl Probation {
    /// A probation of `length` from `now` on.
    pub(in crate::plugin) fn new(length: Duration, now: Instant) -> Self {
        Self { length, began: now, calls: 0, bad: 0, faulty: BTreeSet::new() }
    }

    /// Counts a call that ended at `now` on the key with the hash `key`.
    pub(in crate::plugin) fn record(&mut self, key: u64, ending: Ending, now: Instant) -> Verdict {
        if ending == Ending::Fault && !self.faulty.insert(key) {
            return self.verdict(now);
        }
        self.calls = self.calls.saturating_add(1);
        if ending != Ending::Fine {
            self.bad = self.bad.saturating_add(1);
        }
        if self.faulty.len() >= FAULTY_KEYS_MAX {
            return Verdict::Failed(Reason::Faults(self.faulty.len()));
        }
        self.verdict(now)
    }

    /// Whether time alone has ended it.
    pub(in crate::plugin) fn verdict(&self, now: Instant) -> Verdict {
        if self.calls >= CALLS_MIN && self.bad > self.calls / 2 {
            return Verdict::Failed(Reason::MostCalls { bad: self.bad, calls: self.calls });
        }
        let lasted = now.saturating_duration_since(self.began);
        let is_over = if self.calls >= CALLS_TO_PASS {
            lasted >= self.length
        } else {
            lasted >= self.length.saturating_mul(PATIENCE)
        };
        if is_over { Verdict::Passed } else { Verdict::Open }
    }

    /// When to look at [`Probation::verdict`] where no call comes.
    pub(in crate::plugin) fn next_look(&self, now: Instant) -> Duration {
        let end = if now.saturating_duration_since(self.began) < self.length {
            self.length
        } else {
            self.length.saturating_mul(PATIENCE)
        };
        end.saturating_sub(now.saturating_duration_since(self.began))
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Faults(keys) => write!(f, "it failed on {keys} different keys"),
            Self::MostCalls { bad, calls } => write!(f, "{bad} of its {calls} calls failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_mins(1);

    fn probation() -> (Probation, Instant) {
        let now = Instant::now();
        (Probation::new(LENGTH, now), now)
    }

    #[test]
    fn faults_on_different_keys_end_it_at_once() {
        let (mut probation, now) = probation();
        assert_eq!(probation.record(1, Ending::Fault, now), Verdict::Open);
        assert_eq!(probation.record(2, Ending::Fault, now), Verdict::Open);
        let verdict = probation.record(3, Ending::Fault, now);
        assert_eq!(verdict, Verdict::Failed(Reason::Faults(3)));
    }

    #[test]
    fn one_poisonous_key_does_not_take_a_version_down() {
        let (mut probation, now) = probation();
        for _ in 0..20 {
            assert_eq!(probation.record(1, Ending::Fault, now), Verdict::Open);
            assert_eq!(probation.record(2, Ending::Fine, now), Verdict::Open);
        }
    }

    #[test]
    fn a_version_whose_calls_mostly_fail_is_taken_back() {
        let (mut probation, now) = probation();
        for call in 1..CALLS_MIN {
            assert_eq!(probation.record(1, Ending::Bad, now), Verdict::Open, "{call}");
        }
        let verdict = probation.record(1, Ending::Bad, now);
        assert_eq!(verdict, Verdict::Failed(Reason::MostCalls { bad: 8, calls: 8 }));
    }

    #[test]
    fn it_is_passed_after_its_time_and_enough_calls() {
        let (mut probation, now) = probation();
        for _ in 0..CALLS_TO_PASS {
            assert_eq!(probation.record(1, Ending::Fine, now), Verdict::Open);
        }
        assert_eq!(probation.verdict(now + LENGTH), Verdict::Passed);
    }

    #[test]
    fn a_quiet_version_stays_on_probation_for_longer_but_not_for_ever() {
        let (mut probation, now) = probation();
        probation.record(1, Ending::Fine, now);
        assert_eq!(probation.next_look(now), LENGTH);
        assert_eq!(probation.verdict(now + LENGTH), Verdict::Open);
        let rest = probation.next_look(now + LENGTH);
        assert_eq!(probation.verdict(now + LENGTH + rest), Verdict::Passed);
    }
}
