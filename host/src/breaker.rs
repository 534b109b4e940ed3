//! A circuit breaker: whether to go on asking somebody who keeps failing.
//!
//! While it is *closed*, every call may go, and how each ends is counted over a sliding
//! window. Too many faults *open* it: nobody is asked any more, so that whoever fails is
//! left alone and callers learn at once what they would have learnt late. When the pause
//! is over it is *half open*: one call goes to find out, and the others still wait. Is
//! that one well, the breaker closes; does it fail too, the next pause is twice as long.
//!
//! Two things open it: faults in a row, which is what somebody who is down looks like
//! however busy he was before, and a share of many calls, which is what somebody in
//! trouble looks like. One fault now and then among calls that are well does neither,
//! however many there are in sum.
//!
//! It has no clock and no lock: whoever owns it says what time it is. Its memory does
//! not grow with the calls: the window is a ring of buckets, which slides by a tenth.
//!
//! Invariants:
//! - while it is open no call goes, and while it is half open one at a time;
//! - a call that never reports back holds up the next one for [`Policy::probe`] at most;
//! - a call that began before the breaker last changed says nothing about after it.

use std::time::Duration;

use tokio::time::Instant;

/// Parts of the window. It slides by one of them at a time, so that what it covers
/// varies by a tenth.
const BUCKETS: usize = 10;

/// Share by which a pause is shortened at random, so that those who gave up on somebody
/// together do not all come back together.
const JITTER: f64 = 0.25;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Time over which calls are counted.
    pub window: Duration,
    /// Faults in a row, all within the window, that open it. 0: never for these.
    pub faults: u32,
    /// Share of the window's calls above which faults open it. 1.0: never for their
    /// share.
    pub ratio: f64,
    /// Calls in the window from which on their share means something.
    pub calls_min: u32,
    /// The first pause. Each further one is twice as long.
    pub open: Duration,
    /// Upper bound of the doubling.
    pub open_max: Duration,
    /// Time closed after which the next pause is a first one again.
    pub healthy: Duration,
    /// Time for the one call of a breaker that is half open: longer than a call may
    /// take, since it is taken for lost after that and another one goes.
    pub probe: Duration,
}

/// Whether a call may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may. Its end is to be reported with this pass.
    Go(Pass),
    /// Not now; it is worth another try after this time.
    Wait(Duration),
}

/// The leave for one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    era: u64,
    is_probe: bool,
}

impl Pass {
    /// Whether this is the one call of a breaker that is half open.
    pub fn is_probe(&self) -> bool {
        self.is_probe
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Well.
    Well,
    /// In a way that speaks against whoever was asked.
    Fault,
    /// In a way that says nothing about whoever was asked, or not at all.
    Nothing,
}

/// What a report made of the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It opened for this long. `again`: the call of a half-open one failed.
    Opened {
        /// The pause.
        pause: Duration,
        /// Whether it had not closed since the last time.
        again: bool,
    },
    /// It closed, this long after it had opened.
    Closed {
        /// Time since it was last closed.
        after: Duration,
    },
}

/// What a breaker does at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Every call may go.
    Closed,
    /// None may, for so long.
    Open(Duration),
    /// One may, or is under way.
    HalfOpen,
}

/// A circuit breaker; see the [module](self).
#[derive(Debug)]
pub struct Breaker {
    policy: Policy,
    window: Window,
    stage: Stage,
    /// Counts the changes. A pass of an earlier era is void.
    era: u64,
    /// The last pause before jitter, and when the breaker closed after it.
    last_pause: Option<Duration>,
    closed_at: Instant,
    /// When the breaker opened that has not closed since.
    opened_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Closed,
    /// Half open once this has passed.
    Open {
        until: Instant,
    },
    /// A call is under way, and taken for lost after this.
    Probing {
        until: Instant,
    },
}

impl Breaker {
    /// A closed breaker.
    pub fn new(policy: Policy, now: Instant) -> Self {
        Self {
            window: Window::new(policy.window, now),
            policy,
            stage: Stage::Closed,
            era: 0,
            last_pause: None,
            closed_at: now,
            opened_at: None,
        }
    }

    /// Asks for leave for a call at `now`. Where it is given, the call's end must be
    /// reported: to be safe, when what holds the pass is dropped.
    pub fn admit(&mut self, now: Instant) -> Verdict {
        if let Some(wait) = self.wait(now) {
            return Verdict::Wait(wait);
        }
        if let Stage::Closed = self.stage {
            return Verdict::Go(Pass { era: self.era, is_probe: false });
        }
        self.era += 1;
        self.stage = Stage::Probing { until: now + self.policy.probe };
        Verdict::Go(Pass { era: self.era, is_probe: true })
    }

    /// How long a call would have to wait: what [`Breaker::admit`] would say, without
    /// asking for leave. `None`: it may go.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let left = |until: Instant| {
            until.checked_duration_since(now).filter(|left: &Duration| !left.is_zero())
        };
        match self.stage {
            Stage::Closed => None,
            Stage::Open { until } => left(until),
            // The call under way ends sooner as a rule, and then all may go at once.
            Stage::Probing { until } => left(until).map(|left| left.min(self.policy.open)),
        }
    }

    /// Tells how the call with `pass` ended.
    pub fn report(&mut self, pass: Pass, report: Report, now: Instant) -> Option<Change> {
        if pass.era != self.era {
            return None;
        }
        match (self.stage, report) {
            (Stage::Closed, Report::Well) => self.window.well(now),
            (Stage::Closed, Report::Fault) => return self.fault(now),
            (Stage::Probing { .. }, Report::Well) => return Some(self.close(now)),
            (Stage::Probing { .. }, Report::Fault) => return Some(self.open(now)),
            // The next one may go at once.
            (Stage::Probing { .. }, Report::Nothing) => {
                self.era += 1;
                self.stage = Stage::Open { until: now };
            }
            (Stage::Closed, Report::Nothing) | (Stage::Open { .. }, _) => {}
        }
        None
    }

    /// Counts a fault that was noticed by other means than a call. It says nothing new
    /// about somebody who is not asked anyway.
    pub fn fault(&mut self, now: Instant) -> Option<Change> {
        if !matches!(self.stage, Stage::Closed) {
            return None;
        }
        self.window.fault(now);
        let Counts { calls, faults, in_a_row } = self.window.counts(now);
        let Policy { faults: faults_max, ratio, calls_min, .. } = self.policy;
        let is_down = faults_max > 0 && in_a_row >= faults_max;
        let is_in_trouble = calls >= calls_min && f64::from(faults) > ratio * f64::from(calls);
        (is_down || is_in_trouble).then(|| self.open(now))
    }

    /// Begins anew with `policy` and nothing counted, as for somebody who has taken the
    /// place of the one that was asked. How long the last pause was is not forgotten.
    pub fn renew(&mut self, policy: Policy, now: Instant) -> Option<Change> {
        self.policy = policy;
        let was_closed = matches!(self.stage, Stage::Closed);
        let change = self.close(now);
        (!was_closed).then_some(change)
    }

    /// What the breaker does at `now`.
    pub fn state(&self, now: Instant) -> State {
        match (self.stage, self.wait(now)) {
            (Stage::Closed, _) => State::Closed,
            (Stage::Open { .. }, Some(wait)) => State::Open(wait),
            (Stage::Open { .. } | Stage::Probing { .. }, _) => State::HalfOpen,
        }
    }

    /// Since when the breaker has been closed, or has not.
    pub fn since(&self) -> Instant {
        self.opened_at.unwrap_or(self.closed_at)
    }

    /// Calls and faults among them in the window at `now`.
    pub fn counted(&mut self, now: Instant) -> (u32, u32) {
        let counts = self.window.counts(now);
        (counts.calls, counts.faults)
    }

    fn open(&mut self, now: Instant) -> Change {
        let Policy { open, open_max, healthy, .. } = self.policy;
        let again = self.opened_at.is_some();
        let pause = match self.last_pause {
            Some(last) if again || now < self.closed_at + healthy => last.saturating_mul(2),
            _ => open,
        }
        .min(open_max);
        self.last_pause = Some(pause);
        let pause = pause.mul_f64(1.0 - JITTER * fastrand::f64());
        self.opened_at.get_or_insert(now);
        self.era += 1;
        self.stage = Stage::Open { until: now + pause };
        Change::Opened { pause, again }
    }

    fn close(&mut self, now: Instant) -> Change {
        let opened_at = self.opened_at.take().unwrap_or(now);
        self.era += 1;
        self.stage = Stage::Closed;
        self.closed_at = now;
        self.window = Window::new(self.policy.window, now);
        Change::Closed { after: now.saturating_duration_since(opened_at) }
    }
}

/// The calls of the last while, in buckets by when they ended.
#[derive(Debug)]
struct Window {
    buckets: [Counts; BUCKETS],
    /// Time of one bucket.
    span_ms: u64,
    began: Instant,
    /// Number of the newest bucket, counted from `began`.
    newest: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    calls: u32,
    faults: u32,
    /// Faults since the last call that was well.
    in_a_row: u32,
}

impl Window {
    fn new(length: Duration, now: Instant) -> Self {
        let span_ms = (millis(length) / BUCKETS as u64).max(1);
        Self { buckets: [Counts::default(); BUCKETS], span_ms, began: now, newest: 0 }
    }

    fn well(&mut self, now: Instant) {
        let bucket = self.slide(now);
        self.buckets[bucket].calls = self.buckets[bucket].calls.saturating_add(1);
        for bucket in &mut self.buckets {
            bucket.in_a_row = 0;
        }
    }

    fn fault(&mut self, now: Instant) {
        let bucket = self.slide(now);
        let bucket = &mut self.buckets[bucket];
        bucket.calls = bucket.calls.saturating_add(1);
        bucket.faults = bucket.faults.saturating_add(1);
        bucket.in_a_row = bucket.in_a_row.saturating_add(1);
    }

    fn counts(&mut self, now: Instant) -> Counts {
        self.slide(now);
        let add = |a: Counts, b: &Counts| Counts {
            calls: a.calls.saturating_add(b.calls),
            faults: a.faults.saturating_add(b.faults),
            in_a_row: a.in_a_row.saturating_add(b.in_a_row),
        };
        self.buckets.iter().fold(Counts::default(), add)
    }

    /// Forgets what is older than the window; the index of the bucket of `now`.
    fn slide(&mut self, now: Instant) -> usize {
        let number = millis(now.saturating_duration_since(self.began)) / self.span_ms;
        // Those who report look at their clocks before they take turns: a report may
        // come a moment late, and belongs to the newest bucket then.
        let passed = number.saturating_sub(self.newest).min(BUCKETS as u64);
        for step in 1..=passed {
            self.buckets[index(self.newest.saturating_add(step))] = Counts::default();
        }
        self.newest = self.newest.max(number);
        index(self.newest)
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number % BUCKETS as u64).unwrap_or_default()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
