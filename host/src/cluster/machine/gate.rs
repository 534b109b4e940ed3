//! Who of the members is to own keys: the gate to the ring.
//!
//! Whoever goes is out at once. Whoever comes must have served for a moment first, since
//! each change moves keys; a member that comes and goes again and again has to wait longer.
//!
//! Invariants:
//! - this node's own place depends on nothing but whether it serves;
//! - a member that went and came back in one life, as after a partition, does not wait again,
//!   unless it flaps;
//! - what is kept of those who are gone is forgotten after a while.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::identity::NodeId;

/// More departures than this in `FLAP_WINDOW` bar a member.
const FLAPS_MAX: usize = 3;
const FLAP_WINDOW: Duration = Duration::from_mins(1);
/// How long a member that flaps stays out.
const BAR: Duration = Duration::from_secs(30);

/// Remembers who came and went.
#[derive(Debug, Default)]
pub(super) struct Gate {
    nodes: BTreeMap<NodeId, Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// The start of the process that was let in.
    admitted: Option<u64>,
    is_in: bool,
    serves_since: Option<Duration>,
    barred_until: Option<Duration>,
    departures: VecDeque<Duration>,
    seen: Duration,
}

/// Somebody who would enter: a member that serves, with our parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comer {
    pub(super) node: NodeId,
    pub(super) epoch: u64,
}

/// Who is in, and when that may change by the time alone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Admitted {
    pub(super) nodes: Vec<NodeId>,
    pub(super) changes_at: Option<Duration>,
}

impl Gate {
    /// Judges `comers`, who are all there are at `now`. `is_new`: this node itself is new,
    /// and so they have been serving for long without it.
    pub(super) fn judge(
        &mut self,
        comers: impl IntoIterator<Item = Comer>,
        settle: Duration,
        is_new: bool,
        now: Duration,
    ) -> Admitted {
        let mut admitted = Admitted::default();
        let mut here: BTreeMap<NodeId, u64> = BTreeMap::new();
        for Comer { node, epoch } in comers {
            here.insert(node, epoch);
        }
        for (node, kept) in &mut self.nodes {
            if !here.contains_key(node) {
                kept.depart(now);
            }
        }
        for (node, epoch) in here {
            match self.nodes.entry(node).or_default().arrive(epoch, settle, is_new, now) {
                None => admitted.nodes.push(node),
                Some(at) => {
                    admitted.changes_at = Some(admitted.changes_at.map_or(at, |it| it.min(at)));
                }
            }
        }
        self.nodes.retain(|_, kept| now < kept.seen + FLAP_WINDOW + BAR);
        admitted
    }
}

impl Node {
    /// When it may enter; `None`: it is in.
    fn arrive(
        &mut self,
        epoch: u64,
        settle: Duration,
        is_new: bool,
        now: Duration,
    ) -> Option<Duration> {
        self.seen = now;
        if self.is_in && self.admitted != Some(epoch) {
            // It was restarted so fast that nobody saw it go.
            self.depart(now);
        }
        if self.is_in {
            return None;
        }
        let since = *self.serves_since.get_or_insert(now);
        let is_back = self.admitted == Some(epoch);
        let settled = if is_back || is_new { now } else { since + settle };
        let at = settled.max(self.barred_until.unwrap_or_default());
        if at > now {
            return Some(at);
        }
        self.is_in = true;
        self.admitted = Some(epoch);
        None
    }

    fn depart(&mut self, now: Duration) {
        self.serves_since = None;
        if !std::mem::take(&mut self.is_in) {
            return;
        }
        self.departures.push_back(now);
        while self.departures.front().is_some_and(|it| *it + FLAP_WINDOW < now) {
            self.departures.pop_front();
        }
        if self.departures.len() > FLAPS_MAX {
            self.departures.pop_front();
            self.barred_until = Some(now + BAR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [u64; 0] = [];
    const SETTLE: Duration = Duration::from_secs(2);

    struct Story {
        gate: Gate,
    }

    impl Story {
        fn new() -> Self {
            Self { gate: Gate::default() }
        }

        fn at(&mut self, seconds: f64, comers: &[(u64, u64)]) -> Vec<u64> {
            let comers = comers.iter().map(|&(node, epoch)| Comer { node: NodeId(node), epoch });
            let now = Duration::from_secs_f64(seconds);
            let admitted = self.gate.judge(comers, SETTLE, false, now);
            admitted.nodes.into_iter().map(|node| node.0).collect()
        }
    }

    #[test]
    fn a_comer_enters_once_it_has_served_for_a_moment_and_leaves_at_once() {
        let mut story = Story::new();
        assert_eq!(story.at(0.0, &[(1, 1)]), NONE);
        assert_eq!(story.at(1.9, &[(1, 1), (2, 1)]), NONE);
        assert_eq!(story.at(2.0, &[(1, 1), (2, 1)]), [1]);
        assert_eq!(story.at(4.0, &[(2, 1)]), [2]);
    }

    #[test]
    fn a_member_that_is_back_in_the_same_life_does_not_wait_but_a_restarted_one_does() {
        let mut story = Story::new();
        story.at(0.0, &[(1, 1)]);
        assert_eq!(story.at(2.0, &[(1, 1)]), [1]);
        assert_eq!(story.at(10.0, &[]), NONE);
        assert_eq!(story.at(11.0, &[(1, 1)]), [1]);
        assert_eq!(story.at(12.0, &[(1, 2)]), NONE);
        assert_eq!(story.at(14.0, &[(1, 2)]), [1]);
    }

    #[test]
    fn a_member_that_flaps_stays_out_for_half_a_minute() {
        let mut story = Story::new();
        story.at(0.0, &[(1, 1)]);
        for flap in 0..4 {
            let start = 2.0 + f64::from(flap) * 4.0;
            assert_eq!(story.at(start, &[(1, 1)]), [1], "flap {flap}");
            assert_eq!(story.at(start + 2.0, &[]), NONE);
        }
        // The fourth departure was at 16 s.
        assert_eq!(story.at(17.0, &[(1, 1)]), NONE);
        assert_eq!(story.at(45.9, &[(1, 1)]), NONE);
        assert_eq!(story.at(46.0, &[(1, 1)]), [1]);
    }

    #[test]
    fn those_who_are_gone_are_forgotten() {
        let mut story = Story::new();
        for node in 0..1_000 {
            #[expect(clippy::cast_precision_loss, reason = "small")]
            story.at(node as f64, &[(node, 1)]);
        }
        assert!(story.gate.nodes.len() < 100);
    }
}
