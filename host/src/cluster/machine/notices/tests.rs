use super::*;

fn origin(node: u64) -> Origin {
    Origin { node: NodeId(node), epoch: 1 }
}

/// The table of a node that has been running for an hour.
fn table(own: u64) -> Notices {
    let mut table = Notices::new(origin(own), &Tuning::default(), Duration::ZERO);
    table.set_now(Duration::from_hours(1));
    table
}

fn notice(by: u64, seq: u64) -> Notice {
    Notice { id: origin(by).named(seq), body: Bytes::from(vec![1; 100]) }
}

/// Has `to` ask `from` for what it lacks; how much it got, and whether it missed some.
fn trade(from: &Notices, to: &mut Notices) -> (usize, bool) {
    let parcel = from.lacked_by(&to.versions(), usize::MAX);
    let news = to.merge(&from.versions(), parcel).len();
    let has_missed = to.take_news().contains(&News::Missed);
    (news, has_missed)
}

#[test]
fn digests_are_equal_if_and_only_if_the_same_was_heard() {
    let (mut a, mut b) = (table(1), table(2));
    assert_eq!(a.digest(), b.digest());
    for seq in [3, 1, 2] {
        assert!(a.hear(notice(9, seq), 0));
        assert_ne!(a.digest(), b.digest());
    }
    for seq in [1, 2, 3] {
        assert!(b.hear(notice(9, seq), 5_000));
        assert!(!b.hear(notice(9, seq), 5_000));
    }
    assert_eq!(a.digest(), b.digest());
    let own = a.issue(Bytes::new());
    assert_ne!(a.digest(), b.digest());
    assert!(b.hear(own, 0));
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn what_neither_can_hand_over_is_missed_once() {
    let (mut a, mut b) = (table(1), table(2));
    for seq in 1..=20 {
        a.hear(notice(9, seq), 0);
    }
    a.set_now(Duration::from_mins(75));
    b.set_now(Duration::from_mins(75));
    a.sweep();
    assert_eq!(a.kept(), 0);
    a.hear(notice(9, 21), 0);
    assert_eq!(trade(&a, &mut b), (1, true));
    assert_eq!(trade(&a, &mut b), (0, false));
    assert_eq!(a.digest(), b.digest());
    assert!(!b.hear(notice(9, 7), 0), "what was missed is not told later");
}

#[test]
fn whoever_began_later_has_missed_nothing() {
    let mut a = table(1);
    a.hear(notice(9, 1), 0);
    let hour = Duration::from_hours(1);
    a.set_now(hour + hour / 2);
    a.sweep();
    let mut b = Notices::new(origin(2), &Tuning::default(), Duration::ZERO);
    b.set_now(Duration::from_mins(20));
    assert_eq!(trade(&a, &mut b), (0, false));
    assert_eq!(a.digest(), b.digest());
    // Had it been there already, it would have.
    let mut c = Notices::new(origin(3), &Tuning::default(), Duration::ZERO);
    c.set_now(Duration::from_mins(40));
    assert_eq!(trade(&a, &mut c), (0, true));
}

#[test]
fn a_silent_publisher_is_forgotten_by_all_and_missed_by_nobody() {
    let (mut a, mut b) = (table(1), table(2));
    a.hear(notice(9, 1), 0);
    b.hear(notice(9, 1), 0);
    // One is told that late that the other has stopped telling, and its clock is behind.
    for (a_hours, b_hours) in [(24, 23), (25, 24), (26, 25), (27, 26)] {
        a.set_now(Duration::from_hours(a_hours));
        b.set_now(Duration::from_hours(b_hours) + Duration::from_mins(30));
        a.sweep();
        b.sweep();
        assert_eq!(trade(&b, &mut a), (0, false));
        assert_eq!(trade(&a, &mut b), (0, false));
    }
    assert_eq!((a.origins(), b.origins()), (0, 0));
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn more_publishers_than_are_remembered_make_nobody_miss_anything_again_and_again() {
    let (mut a, mut b) = (table(1), table(2));
    for node in 0..ORIGINS_MAX as u64 + 200 {
        let at = Duration::from_hours(1) + Duration::from_millis(node);
        a.set_now(at);
        b.set_now(at);
        a.hear(notice(node + 10, 1), 0);
        // The other hears some of them later.
        let late = if node.is_multiple_of(2) { node } else { node / 2 };
        b.hear(notice(late + 10, 1), 0);
    }
    assert_eq!(a.origins(), ORIGINS_MAX);
    for _ in 0..3 {
        trade(&a, &mut b);
        trade(&b, &mut a);
    }
    assert!(a.origins() <= ORIGINS_MAX && b.origins() <= ORIGINS_MAX);
    assert_eq!(trade(&a, &mut b), (0, false));
    assert_eq!(trade(&b, &mut a), (0, false));
}

#[test]
fn gaps_are_bounded_and_what_does_not_fit_comes_later() {
    let (mut a, mut b) = (table(1), table(2));
    for seq in 1..=3_000 {
        a.hear(notice(9, seq), 0);
    }
    let heard = (1..=3_000).filter(|seq| seq % 2 == 1 && b.hear(notice(9, *seq), 0)).count();
    assert_eq!((heard, b.gaps()), (RANGES_MAX + 1, RANGES_MAX));
    b.take_news();
    assert_eq!(trade(&a, &mut b), (3_000 - heard, false));
    assert_eq!((b.gaps(), a.digest()), (0, b.digest()));
    // What nobody can hand over may leave gaps as well; they are closed then, and missed.
    let mut c = table(3);
    for seq in 0..2_000 {
        c.hear(notice(20 + seq % 4, 2 * seq + 2), 0);
    }
    assert!(c.gaps() <= RANGES_MAX);
    let mut ragged = c.versions();
    for version in &mut ragged {
        let all: Vec<_> = version.seqs.ranges().iter().map(|it| it.0 + 10_000).collect();
        for seq in all {
            version.seqs.add(seq, seq);
        }
    }
    c.take_news();
    c.merge(&ragged, Parcel { is_all: true, notices: Vec::new() });
    assert_eq!(c.take_news(), [News::Missed]);
    assert!(c.gaps() <= RANGES_MAX, "{}", c.gaps());
}

#[test]
fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
    let tuning = Tuning { keep_notices: 10, keep_bytes: 5 * 260, ..Tuning::default() };
    let mut table = Notices::new(origin(1), &tuning, Duration::ZERO);
    for seq in 1..=50_u64 {
        table.set_now(Duration::from_secs(seq));
        table.hear(notice(9, seq), 0);
        assert!(table.kept() <= 5 && table.bytes() <= tuning.keep_bytes);
    }
    let parcel = table.lacked_by(&[], usize::MAX);
    let seqs: Vec<_> = parcel.notices.iter().map(|it| it.notice.id.seq).collect();
    assert_eq!((seqs, parcel.is_all), (vec![46, 47, 48, 49, 50], true));
    let some = table.lacked_by(&[], 300);
    assert_eq!((some.notices.len(), some.is_all), (2, false));
}
