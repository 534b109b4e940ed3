//! When a failed call is made once more for the same fill.
//!
//! A call is repeated when its origin was not available and may be in a moment; and, if
//! the settings say so, once after a trap, in a fresh instance. Anything else would end
//! the same way. A retry keeps within its fill's time, waits longer each time and at
//! least as long as the origin asked, and holds neither an instance nor a place in the
//! queue while it waits.
//!
//! What cannot be tried again in time is given up at once: whoever waits is told now.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{fault::Fault, getter::Plugin, tally::Failure};
use crate::{
    config,
    group::{Fill, FillError, Outcome},
};

/// Share by which a pause is shortened at random.
const JITTER: f64 = 0.5;

/// Time that must be left for the call itself: with less it would only be cut off, and
/// its error would hide the one that is known.
const CALL_MIN: Duration = Duration::from_millis(20);

/// The retries that a fill has left.
#[derive(Debug)]
pub(super) struct Retries {
    left: u32,
    after_traps: u32,
    pause: Duration,
    pause_max: Duration,
}

/// Another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Again {
    /// How long it waits.
    pub(super) after: Duration,
    /// Whether it runs in an instance of its own.
    pub(super) fresh: bool,
}

impl Retries {
    pub(super) fn new(settings: &config::Failure) -> Self {
        Self {
            left: settings.retries,
            after_traps: settings.trap_retries,
            pause: settings.backoff,
            pause_max: settings.backoff_max,
        }
    }

    /// Whether to try again after `failure`, with `left` of the fill's time.
    fn after(&mut self, failure: &Failure, left: Duration) -> Option<Again> {
        match failure {
            Failure::Answered(FillError::Unavailable { retry_after, .. }) => {
                let after = self.after_unavailable(retry_after.unwrap_or_default(), left)?;
                Some(Again { after, fresh: false })
            }
            Failure::Faulted(Fault::Broken(_)) if self.after_traps > 0 && left > CALL_MIN => {
                self.after_traps -= 1;
                Some(Again { after: Duration::ZERO, fresh: true })
            }
            _ => None,
        }
    }

    /// How long to wait for an origin that asked to be left alone for `asked`.
    pub(super) fn after_unavailable(
        &mut self,
        asked: Duration,
        left: Duration,
    ) -> Option<Duration> {
        let after = self.pause.mul_f64(1.0 - JITTER * fastrand::f64()).max(asked);
        if self.left == 0 || after.saturating_add(CALL_MIN) > left {
            return None;
        }
        self.left -= 1;
        self.pause = self.pause.saturating_mul(2).min(self.pause_max);
        Some(after)
    }
}

impl Plugin {
    /// Goes on with a fill whose first call failed.
    pub(super) async fn try_again(
        &self,
        mut fill: Fill,
        mut failure: Failure,
    ) -> Result<Outcome, FillError> {
        let mut retries = self.retries();
        while let Some(again) = retries.after(&failure, left(fill.deadline)) {
            if !self.pause(again.after).await {
                break;
            }
            fill.attempt += 1;
            match self.call(&fill, again.fresh).await {
                Ok(outcome) => return Ok(outcome),
                // What went wrong tells more than that it does so too often.
                Err(Failure::NotAsked(_)) => break,
                Err(next) => failure = next,
            }
        }
        Err(failure.into_fill_error())
    }

    /// Repeats a trip that brought nothing because the origin was not available. A trip
    /// that brought something is over: its failed keys are tried again by themselves.
    pub(super) async fn load_many_here(
        &self,
        mut fills: Vec<Fill>,
    ) -> Vec<Result<Outcome, FillError>> {
        let mut results = self.travel(&fills).await;
        let mut retries = self.retries();
        while let Some(asked) = nothing_but_unavailable(&results) {
            let earliest = fills.iter().map(|fill| fill.deadline).min();
            let left = earliest.map_or(Duration::ZERO, left);
            let Some(after) = retries.after_unavailable(asked, left) else { break };
            if !self.pause(after).await {
                break;
            }
            for fill in &mut fills {
                fill.attempt += 1;
            }
            let again = self.travel(&fills).await;
            if again.iter().all(|it| matches!(it, Err(FillError::NotAsked { .. }))) {
                break;
            }
            results = again;
        }
        results
    }

    fn retries(&self) -> Retries {
        Retries::new(&self.generation().recipe.settings.failure)
    }

    /// Waits for the next try; false when there is no use in one.
    async fn pause(&self, after: Duration) -> bool {
        if self.health().wait().is_some_and(|wait| wait >= after) {
            return false;
        }
        sleep(after).await;
        self.health().retried();
        true
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// How long an origin that had nothing for anybody asked to be left alone; `None` if
/// somebody got an answer, or an error of another kind.
fn nothing_but_unavailable(results: &[Result<Outcome, FillError>]) -> Option<Duration> {
    let asked = |result: &Result<Outcome, FillError>| match result {
        Err(FillError::Unavailable { retry_after, .. }) => Some(retry_after.unwrap_or_default()),
        _ => None,
    };
    results.iter().map(asked).collect::<Option<Vec<_>>>()?.into_iter().max()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn retries(retries: u32, trap_retries: u32) -> Retries {
        Retries::new(&config::Failure {
            retries,
            trap_retries,
            backoff: 50 * MS,
            backoff_max: 150 * MS,
            ..config::Failure::default()
        })
    }

    fn unavailable(retry_after: Option<Duration>) -> Failure {
        let message = "down".to_owned();
        Failure::Answered(FillError::Unavailable { message, retry_after })
    }

    #[test]
    fn pauses_double_up_to_their_bound_and_end() {
        let mut retries = retries(4, 0);
        for whole in [50, 100, 150, 150] {
            let again = retries.after(&unavailable(None), 1_000 * MS).expect("another try");
            let whole = whole * MS;
            assert!((whole / 2..=whole).contains(&again.after) && !again.fresh, "{again:?}");
        }
        assert_eq!(retries.after(&unavailable(None), 1_000 * MS), None);
    }

    #[test]
    fn an_origin_is_left_alone_for_as_long_as_it_asks_or_altogether() {
        let mut retries = retries(9, 0);
        let asked = unavailable(Some(500 * MS));
        let again = Some(Again { after: 500 * MS, fresh: false });
        assert_eq!(retries.after(&asked, 1_000 * MS), again);
        assert_eq!(retries.after(&asked, 500 * MS), None, "longer than what is left");
        assert_eq!(retries.after(&unavailable(Some(Duration::MAX)), 1_000 * MS), None);
        assert_eq!(retries.after(&unavailable(None), 30 * MS), None, "no time for a call");
    }

    #[test]
    fn nothing_else_is_tried_again() {
        let mut retries = retries(9, 0);
        let text = || "why".to_owned();
        for failure in [
            Failure::Answered(FillError::Internal(text())),
            Failure::Answered(FillError::Denied(text())),
            Failure::Answered(FillError::InvalidKey(text())),
            Failure::Answered(FillError::TimedOut(text())),
            Failure::Faulted(Fault::Broken(text())),
            Failure::Faulted(Fault::Cpu(MS)),
            Failure::Faulted(Fault::Deadline(MS)),
            Failure::Faulted(Fault::NoSlot),
        ] {
            assert_eq!(retries.after(&failure, 1_000 * MS), None, "{failure:?}");
        }
    }

    #[test]
    fn a_trap_is_tried_once_more_and_afresh_where_that_is_wanted() {
        let mut retries = retries(0, 1);
        let trap = Failure::Faulted(Fault::Broken("trap".to_owned()));
        let again = Some(Again { after: Duration::ZERO, fresh: true });
        assert_eq!(retries.after(&trap, 1_000 * MS), again);
        assert_eq!(retries.after(&trap, 1_000 * MS), None);
        assert_eq!(retries.after(&unavailable(None), 1_000 * MS), None);
    }

    #[test]
    fn a_trip_is_repeated_only_when_it_brought_nothing() {
        let down =
            |after| Err(FillError::Unavailable { message: "down".to_owned(), retry_after: after });
        assert_eq!(nothing_but_unavailable(&[down(None), down(None)]), Some(Duration::ZERO));
        assert_eq!(nothing_but_unavailable(&[down(Some(MS)), down(None)]), Some(MS));
        assert_eq!(nothing_but_unavailable(&[down(None), Ok(Outcome::not_found())]), None);
        let denied = Err(FillError::Denied("no".to_owned()));
        assert_eq!(nothing_but_unavailable(&[down(None), denied]), None);
        assert_eq!(nothing_but_unavailable(&[]), None);
    }
}
