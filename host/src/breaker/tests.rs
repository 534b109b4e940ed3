use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

const POLICY: Policy = Policy {
    window: Duration::from_secs(10),
    faults: 5,
    ratio: 0.5,
    calls_min: 20,
    open: SECOND,
    open_max: Duration::from_secs(8),
    healthy: Duration::from_mins(1),
    probe: Duration::from_secs(3),
};

/// A breaker, and a clock that the test moves by hand.
struct Rig {
    breaker: Breaker,
    now: Instant,
}

impl Rig {
    fn new(policy: Policy) -> Self {
        let now = Instant::now();
        Self { breaker: Breaker::new(policy, now), now }
    }

    fn pass(&mut self) -> Pass {
        match self.breaker.admit(self.now) {
            Verdict::Go(pass) => pass,
            Verdict::Wait(wait) => panic!("it makes a call wait for {wait:?}"),
        }
    }

    fn wait(&mut self) -> Duration {
        match self.breaker.admit(self.now) {
            Verdict::Go(_) => panic!("it lets a call go"),
            Verdict::Wait(wait) => wait,
        }
    }

    fn call(&mut self, report: Report) -> Option<Change> {
        let pass = self.pass();
        self.breaker.report(pass, report, self.now)
    }

    /// The pause after faults that open it.
    fn trip(&mut self) -> Duration {
        for _ in 0..POLICY.faults {
            if let Some(change) = self.call(Report::Fault) {
                return pause(change);
            }
        }
        panic!("it stays closed")
    }

    /// Opens it, and lets the pause pass.
    fn sit_out(&mut self) {
        let pause = self.trip();
        self.now += pause;
    }
}

fn pause(change: Change) -> Duration {
    match change {
        Change::Opened { pause, .. } => pause,
        Change::Closed { .. } => panic!("it closed"),
    }
}

/// Whether `pause` is `whole`, give or take the jitter.
fn is_about(pause: Duration, whole: Duration) -> bool {
    (whole.mul_f64(1.0 - JITTER)..=whole).contains(&pause)
}

#[test]
fn faults_in_a_row_open_it_and_nobody_goes_until_the_pause_is_over() {
    let mut rig = Rig::new(POLICY);
    for _ in 0..4 {
        assert_eq!(rig.call(Report::Fault), None);
    }
    let change = rig.call(Report::Fault).expect("a change");
    assert!(matches!(change, Change::Opened { again: false, .. }));
    let pause = pause(change);
    assert!(is_about(pause, SECOND));
    assert_eq!(rig.wait(), pause);
    assert_eq!(rig.breaker.state(rig.now), State::Open(pause));
    let over = rig.now + pause;
    rig.now = over - MS;
    assert_eq!(rig.wait(), MS);
    rig.now = over;
    assert_eq!(rig.breaker.state(rig.now), State::HalfOpen);
    assert!(rig.pass().is_probe());
}

#[test]
fn a_call_that_is_well_breaks_the_row() {
    let mut rig = Rig::new(POLICY);
    for _ in 0..2 {
        for _ in 0..4 {
            assert_eq!(rig.call(Report::Fault), None);
        }
        rig.call(Report::Well);
    }
    assert!(is_about(rig.trip(), SECOND));
}

#[test]
fn faults_that_are_far_apart_do_not_open_it() {
    let mut rig = Rig::new(POLICY);
    for _ in 0..100 {
        assert_eq!(rig.call(Report::Fault), None);
        rig.now += 3 * SECOND;
    }
}

#[test]
fn a_fault_now_and_then_among_many_calls_does_not_open_it() {
    let mut rig = Rig::new(POLICY);
    for call in 0..100_000 {
        let report = if call % 3 == 0 { Report::Fault } else { Report::Well };
        assert_eq!(rig.call(report), None);
        rig.now += MS;
    }
}

#[test]
fn more_than_its_share_of_faults_opens_it_once_there_are_enough_calls() {
    let mut rig = Rig::new(POLICY);
    // Two of three fail, and never five in a row.
    for call in 1.. {
        let report = if call % 3 == 0 { Report::Well } else { Report::Fault };
        if rig.call(report).is_some() {
            assert_eq!(call, 20, "from the twentieth call on");
            break;
        }
        rig.now += MS;
    }
}

#[test]
fn what_is_older_than_the_window_is_forgotten() {
    let mut rig = Rig::new(POLICY);
    for _ in 0..10 {
        rig.call(Report::Fault);
        rig.call(Report::Well);
    }
    assert_eq!(rig.breaker.counted(rig.now), (20, 10));
    rig.now += POLICY.window.mul_f64(0.8);
    assert_eq!(rig.breaker.counted(rig.now), (20, 10));
    rig.now += POLICY.window.mul_f64(0.3);
    assert_eq!(rig.breaker.counted(rig.now), (0, 0));
    rig.now += 1_000 * POLICY.window;
    rig.call(Report::Well);
    assert_eq!(rig.breaker.counted(rig.now), (1, 0));
}

#[test]
fn either_rule_can_be_switched_off() {
    let mut rig = Rig::new(Policy { faults: 0, ratio: 1.0, ..POLICY });
    for _ in 0..1_000 {
        assert_eq!(rig.call(Report::Fault), None);
    }
}

#[test]
fn half_open_lets_exactly_one_call_through() {
    let mut rig = Rig::new(POLICY);
    rig.sit_out();
    let probe = rig.pass();
    for _ in 0..10 {
        assert!(rig.wait() <= POLICY.open);
    }
    let closed = rig.breaker.report(probe, Report::Well, rig.now + SECOND);
    assert!(matches!(closed, Some(Change::Closed { after }) if after > SECOND));
    for _ in 0..10 {
        assert!(!rig.pass().is_probe());
    }
}

#[test]
fn a_call_that_never_reports_back_does_not_wedge_it() {
    let mut rig = Rig::new(POLICY);
    rig.sit_out();
    let lost = rig.pass();
    let over = rig.now + POLICY.probe;
    rig.now = over - MS;
    assert_eq!(rig.wait(), MS);
    rig.now = over;
    let second = rig.pass();
    assert!(second.is_probe());
    // The first one comes back after all: it is the second that is listened to.
    assert_eq!(rig.breaker.report(lost, Report::Well, rig.now), None);
    assert!(rig.breaker.report(second, Report::Well, rig.now).is_some());
}

#[test]
fn a_call_that_says_nothing_makes_room_for_the_next_one() {
    let mut rig = Rig::new(POLICY);
    rig.sit_out();
    for _ in 0..3 {
        assert_eq!(rig.call(Report::Nothing), None);
        assert_eq!(rig.breaker.state(rig.now), State::HalfOpen);
    }
    assert!(matches!(rig.call(Report::Well), Some(Change::Closed { .. })));
    for _ in 0..100 {
        assert_eq!(rig.call(Report::Nothing), None);
    }
    assert_eq!(rig.breaker.counted(rig.now), (0, 0));
}

#[test]
fn each_pause_is_twice_the_last_up_to_its_bound() {
    let mut rig = Rig::new(POLICY);
    let mut pause = rig.trip();
    for seconds in [2, 4, 8, 8, 8] {
        rig.now += pause;
        let change = rig.call(Report::Fault).expect("a change");
        assert!(matches!(change, Change::Opened { again: true, .. }));
        pause = self::pause(change);
        assert!(is_about(pause, seconds * SECOND), "{pause:?}");
    }
}

#[test]
fn doubling_goes_on_over_a_short_recovery_and_restarts_after_a_healthy_while() {
    let mut rig = Rig::new(POLICY);
    rig.sit_out();
    rig.call(Report::Well);
    rig.now += POLICY.healthy;
    rig.now -= SECOND;
    let second = rig.trip();
    assert!(is_about(second, 2 * SECOND));
    rig.now += second;
    rig.call(Report::Well);
    rig.now += POLICY.healthy;
    assert!(is_about(rig.trip(), SECOND));
}

#[test]
fn calls_from_before_a_change_say_nothing_after_it() {
    let mut rig = Rig::new(POLICY);
    let early: Vec<_> = (0..10).map(|_| rig.pass()).collect();
    rig.sit_out();
    let probe = rig.pass();
    for pass in &early {
        assert_eq!(rig.breaker.report(*pass, Report::Well, rig.now), None);
    }
    rig.breaker.report(probe, Report::Well, rig.now);
    for pass in early {
        assert_eq!(rig.breaker.report(pass, Report::Fault, rig.now), None);
    }
    assert_eq!(rig.breaker.counted(rig.now), (0, 0));
}

#[test]
fn a_fault_seen_without_a_call_counts_like_any_other() {
    let mut rig = Rig::new(POLICY);
    for _ in 0..4 {
        assert_eq!(rig.breaker.fault(rig.now), None);
    }
    let pause = pause(rig.breaker.fault(rig.now).expect("a change"));
    assert_eq!(rig.breaker.fault(rig.now), None, "it is open already");
    assert_eq!(rig.wait(), pause);
}

#[test]
fn it_begins_anew_for_a_successor_and_does_not_forget_the_last_pause() {
    let mut rig = Rig::new(POLICY);
    rig.trip();
    let early = rig.breaker.renew(POLICY, rig.now);
    assert!(matches!(early, Some(Change::Closed { .. })));
    assert_eq!(rig.breaker.counted(rig.now), (0, 0));
    assert!(is_about(rig.trip(), 2 * SECOND));

    let mut rig = Rig::new(POLICY);
    let before = rig.pass();
    assert_eq!(rig.breaker.renew(Policy { faults: 1, ..POLICY }, rig.now), None);
    assert_eq!(rig.breaker.report(before, Report::Fault, rig.now), None, "of the predecessor");
    assert!(rig.call(Report::Fault).is_some());
}

#[test]
fn time_that_seems_to_run_backwards_is_no_harm() {
    let mut rig = Rig::new(POLICY);
    rig.now += 100 * SECOND;
    rig.call(Report::Fault);
    rig.now -= 50 * SECOND;
    rig.call(Report::Fault);
    assert_eq!(rig.breaker.counted(rig.now), (2, 2));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Admit,
    Report(usize, Report),
    Pass(u64),
    Renew,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let report = prop_oneof![
        3 => Just(Report::Fault),
        2 => Just(Report::Well),
        1 => Just(Report::Nothing),
    ];
    let step = prop_oneof![
        8 => Just(Step::Admit),
        8 => (0_usize..8, report).prop_map(|(at, report)| Step::Report(at, report)),
        4 => (0_u64..4_000).prop_map(Step::Pass),
        1 => Just(Step::Renew),
    ];
    proptest::collection::vec(step, 0..400)
}

proptest! {
    #[test]
    fn whatever_happens_one_call_at_a_time_finds_out_and_it_is_never_wedged(steps in steps()) {
        let mut rig = Rig::new(POLICY);
        let mut out: Vec<Pass> = Vec::new();
        let mut probing: Option<(Pass, Instant)> = None;
        for step in steps {
            match step {
                Step::Admit => {
                    let state = rig.breaker.state(rig.now);
                    match rig.breaker.admit(rig.now) {
                        Verdict::Go(pass) => {
                            prop_assert!(!matches!(state, State::Open(_)));
                            prop_assert_eq!(pass.is_probe(), state == State::HalfOpen);
                            if pass.is_probe() {
                                let busy = probing.is_some_and(|(_, lost)| rig.now < lost);
                                prop_assert!(!busy, "two calls of a half-open breaker");
                                probing = Some((pass, rig.now + POLICY.probe));
                            }
                            out.push(pass);
                        }
                        Verdict::Wait(wait) => {
                            prop_assert!(!wait.is_zero() && wait <= POLICY.open_max);
                            prop_assert_eq!(rig.breaker.wait(rig.now), Some(wait));
                        }
                    }
                }
                Step::Report(at, report) if at < out.len() => {
                    let pass = out.swap_remove(at);
                    rig.breaker.report(pass, report, rig.now);
                    if probing.is_some_and(|(probe, _)| probe == pass) {
                        probing = None;
                    }
                }
                Step::Report(..) => {}
                Step::Pass(millis) => rig.now += Duration::from_millis(millis),
                Step::Renew => {
                    rig.breaker.renew(POLICY, rig.now);
                    probing = None;
                }
            }
        }
        // Whatever it is at now, time alone brings the next call through.
        rig.now += POLICY.open_max + POLICY.probe;
        prop_assert!(matches!(rig.breaker.admit(rig.now), Verdict::Go(_)));
    }
}
