//! Whether this node has heard what the others have.
//!
//! It may not have when it has just started, when it stood still, when it was alone and finds
//! others, and when others took it for dead. It then says so before it does anything else,
//! and asks several members at once instead of one at leisure. What was asked before that
//! moment does not count, though the answer may come after it. Nor does for a while what
//! somebody says who is not current itself: after a partition, all of one side could tell one
//! another that nothing happened. It does for a node that has just started and holds nothing,
//! and for one that has asked all members there are.
//!
//! Invariants:
//! - what a comparison brings is told before this node says that it is current;
//! - nobody waits for members that cannot be reached: a node that hears of nobody serves
//!   alone after two seconds, and whatever happens, after ten.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use super::{Machine, Output, Phase, notices::TOLD, timers::Timer};

/// Being driven this late is having been away.
const AWAY: Duration = Duration::from_secs(1);
/// How long a node that starts waits to be told where others may be.
const GRACE: Duration = Duration::from_millis(250);
/// How long whoever hears of nobody waits for somebody, and whoever hears only of members that
/// are not current, for one that is.
const ALONE: Duration = Duration::from_secs(2);
/// How long anybody waits for a comparison to succeed.
const LONGEST: Duration = Duration::from_secs(10);
/// Between two rounds of questions.
const ROUND: Duration = Duration::from_millis(500);
/// Members that are asked at once.
const ASKED: usize = 3;

/// Whether this node is current, and how long it is alone.
#[derive(Debug)]
pub(super) struct Currency {
    /// What is done about it while it is not.
    asking: Option<Asking>,
    /// Whether the timer is set.
    is_set: bool,
    /// Since when it is alone, if it is.
    alone_since: Option<Duration>,
}

/// How a node becomes current.
#[derive(Debug)]
struct Asking {
    /// What was asked before does not count.
    since: Duration,
    /// Whether this node has not been current yet.
    is_new: bool,
    /// Whether a member was heard since then.
    has_heard: bool,
    /// Some members with whom notes have been compared since then.
    compared_with: BTreeSet<SocketAddr>,
    /// Whether notes have been compared, or there is nothing more to wait for.
    is_done: bool,
}

impl Asking {
    fn since(since: Duration) -> Self {
        let compared_with = BTreeSet::new();
        Self { since, is_new: false, has_heard: false, compared_with, is_done: false }
    }
}

impl Currency {
    pub(super) fn new(now: Duration) -> Self {
        let asking = Asking { is_new: true, ..Asking::since(now) };
        Self { asking: Some(asking), is_set: false, alone_since: Some(now) }
    }

    pub(super) fn is_current(&self) -> bool {
        self.asking.is_none()
    }

    /// A member was heard.
    pub(super) fn heard_somebody(&mut self) {
        if let Some(asking) = &mut self.asking {
            asking.has_heard = true;
        }
    }

    /// This node has nobody left.
    pub(super) fn alone_since(&mut self, now: Duration) {
        self.alone_since = Some(now);
    }
}

impl Machine {
    /// A node that starts is not current.
    pub(super) fn begin_currency(&mut self) {
        self.out.push(Output::Current(false));
        self.currency.is_set = true;
        self.timers.set(self.now + GRACE, Timer::Currency);
    }

    /// This node stood still for that long.
    pub(super) fn was_held_up(&mut self, lag: Duration) {
        if lag < AWAY || self.phase != Phase::Member {
            return;
        }
        if lag >= TOLD {
            self.handler.notices().miss();
        }
        // If it was not current before, what it has asked is of before.
        if let Some(asking) = &mut self.currency.asking {
            *asking = Asking { is_new: asking.is_new, ..Asking::since(self.now) };
        }
        self.doubt_currency();
    }

    /// This node was alone and is not any more.
    pub(super) fn is_found(&mut self) {
        let was_alone_since = self.currency.alone_since.take();
        if was_alone_since.is_some_and(|it| self.now.saturating_sub(it) >= TOLD) {
            self.handler.notices().miss();
        }
        self.doubt_currency();
    }

    /// There may be notices that this node has not heard and others have.
    pub(super) fn doubt_currency(&mut self) {
        if self.phase != Phase::Member {
            return;
        }
        if self.currency.asking.is_none() {
            self.counters.doubts += 1;
            self.out.push(Output::Current(false));
            self.currency.asking = Some(Asking::since(self.now));
        }
        // Not from here: foca may be at work.
        if !std::mem::replace(&mut self.currency.is_set, true) {
            self.timers.set(self.now, Timer::Currency);
        }
    }

    /// Notes were compared with a member, which is current or not; this was asked at `since`.
    pub(super) fn compared(&mut self, with: SocketAddr, since: Duration, is_current: bool) {
        let (now, members) = (self.now, self.foca.num_members());
        let Some(asking) = self.currency.asking.as_mut().filter(|it| since >= it.since) else {
            return;
        };
        // With more members than are asked, those who are current will answer too.
        if asking.compared_with.len() < ASKED {
            asking.compared_with.insert(with);
        }
        let are_all = asking.compared_with.len() >= members;
        let has_waited = now >= asking.since + ALONE;
        asking.is_done |= is_current || asking.is_new || are_all || has_waited;
    }

    /// Says that this node is current, if it has become so. What it was told comes first.
    pub(super) fn settle_currency(&mut self) {
        if self.currency.asking.take_if(|asking| asking.is_done).is_some() {
            self.out.push(Output::Current(true));
        }
    }

    /// The timer: asks again, or waits no longer.
    pub(super) fn currency_round(&mut self) {
        self.currency.is_set = false;
        let has_nowhere_to_ask = self.has_nowhere_to_ask();
        let Some(asking) = &mut self.currency.asking else { return };
        let waited = self.now.saturating_sub(asking.since);
        let limit = if asking.has_heard {
            LONGEST
        } else if has_nowhere_to_ask {
            GRACE
        } else {
            ALONE
        };
        if waited >= limit || self.phase != Phase::Member {
            asking.is_done = true;
            return;
        }
        self.currency.is_set = true;
        let pause = ROUND.min(limit.saturating_sub(waited));
        self.timers.set(self.now + pause, Timer::Currency);
        for to in self.pick_members(ASKED) {
            self.ask_for_notices(to);
        }
    }
}
