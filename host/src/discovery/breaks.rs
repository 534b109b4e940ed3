//! How soon something that breaks is begun again: at once by and large, and ever later while it
//! breaks all the time. It broke for every node, so that chance spreads them.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Before the second beginning, at least.
const SOONEST: Duration = Duration::from_millis(500);

/// Before any, at most.
const LATEST: Duration = Duration::from_secs(30);

/// What has held so long did not break at its beginning.
const LONG: Duration = Duration::from_mins(1);

/// How often something broke in a row.
#[derive(Debug, Default)]
pub(super) struct Breaks {
    count: u32,
    began: Option<Instant>,
}

impl Breaks {
    /// It begins.
    pub(super) fn begin(&mut self) {
        self.began = Some(Instant::now());
    }

    /// It broke: waits until it may begin again.
    pub(super) async fn pause(&mut self) {
        sleep(self.next().mul_f64(1.0 + fastrand::f64())).await;
    }

    fn next(&mut self) -> Duration {
        if self.began.take().is_some_and(|began| began.elapsed() >= LONG) {
            self.count = 0;
        }
        let pause = SOONEST * (1 << self.count.min(16));
        self.count = self.count.saturating_add(1);
        pause.min(LATEST / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_breaks_at_once_again_waits_longer_each_time() {
        let mut breaks = Breaks::default();
        for millis in [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000] {
            breaks.begin();
            assert_eq!(breaks.next(), Duration::from_millis(millis));
        }
        breaks.begin();
        sleep(LONG).await;
        assert_eq!(breaks.next(), SOONEST);
        let began = Instant::now();
        breaks.pause().await;
        assert!(began.elapsed() <= LATEST);
    }
}
