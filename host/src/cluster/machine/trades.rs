//! Handing notices over: publishing them, and getting those that gossip has not brought.
//!
//! When notes are compared and the digests of what was heard differ, one side tells which
//! notices it has heard, the other hands over what that one lacks and tells the same of
//! itself, and gets what it lacks in return; in rounds if there is much. Whoever learns of a
//! notice that it has not heard asks for it so: first the one who said so, then others.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;

use super::{
    End, Machine, Output, Phase, Purpose, broadcasts,
    exchange::{Answer, Handed, PUSHED_MAX, Parcel, Question, Reply, Version},
    notices::News,
    timers::Timer,
};
use crate::cluster::{NOTICE_MAX, NoticeId, Refused};

/// What an answer hands over at once.
const HANDED_MAX: usize = 1024 * 1024;
/// Rounds of one trade: more than all that is kept takes.
const ROUNDS_MAX: u8 = 64;
/// How soon a notice that was called out is asked for, and the longest pause between two such
/// questions.
const CALLED: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_millis(800);
/// The same for one that another has overtaken on its way.
const OVERTAKEN: Duration = Duration::from_millis(500);
/// Questions in a row that bring nothing, after which nobody seems to have it.
const TRIES_MAX: u32 = 8;
/// As many notices are passed on by whoever learns them when notes are compared.
const FEW: usize = 8;
/// Those of this age: others have heard the older ones, or are away and will ask.
const YOUNG: u32 = 60_000;

/// Asking for what is lacking.
#[derive(Debug, Default)]
pub(super) struct Catching {
    /// Whether the timer is set.
    is_set: bool,
    /// Questions in a row that brought nothing.
    tries: u32,
    /// Whether this node has published what goes round by comparing notes alone: it begins.
    has_called: bool,
}

impl Machine {
    /// Publishes a notice.
    pub(super) fn issue(&mut self, body: Bytes) -> Result<NoticeId, Refused> {
        if body.len() > NOTICE_MAX {
            return Err(Refused::TooLong);
        }
        if matches!(self.phase, Phase::Gone(_)) {
            return Err(Refused::Gone);
        }
        self.counters.notices_published += 1;
        let notice = self.handler.notices().issue(body);
        if !self.pass_on(&broadcasts::encode_notice(&notice)) {
            self.handler.notices().call_out(notice.id);
            self.catching.has_called = true;
        }
        // For those whom gossip does not reach.
        self.sync_soon();
        Ok(notice.id)
    }

    /// Gives a notice to gossip, unless it is too long or there is too much under way.
    fn pass_on(&mut self, notice: &[u8]) -> bool {
        let has_room = self.handler.notices().backlog.has_room(notice.len());
        if has_room && self.foca.add_broadcast(notice).is_err() {
            self.counters.swim_errors += 1;
        }
        has_room
    }

    /// Tells the node what has come, and sees to what has not.
    pub(super) fn hear(&mut self) {
        let (news, unpassed) = {
            let mut notices = self.handler.notices();
            (notices.take_news(), notices.take_unpassed())
        };
        if !news.is_empty() {
            self.catching.tries = 0;
            self.sync_soon();
        }
        for news in news {
            match news {
                News::Notice(notice) => {
                    self.counters.notices_heard += 1;
                    self.out.push(Output::Notice(notice));
                }
                News::Missed => {
                    self.counters.notices_missed += 1;
                    self.out.push(Output::Missed);
                }
            }
        }
        for id in unpassed {
            if self.foca.add_broadcast(&broadcasts::encode_call(id)).is_err() {
                self.counters.swim_errors += 1;
            }
        }
        self.catch_up_soon();
    }

    fn catch_up_soon(&mut self) {
        let (is_lacking, is_called) = {
            let notices = self.handler.notices();
            (notices.is_lacking(), notices.has_caller())
        };
        let is_wanted = is_lacking || self.catching.has_called;
        if is_wanted && !std::mem::replace(&mut self.catching.is_set, true) {
            let is_called = is_called || self.catching.has_called;
            let first = if is_called { CALLED } else { OVERTAKEN };
            let pause = first.saturating_mul(1 << self.catching.tries.min(8));
            self.set_jittered(pause.min(PAUSE_MAX), Timer::CatchUp);
        }
    }

    /// The timer of that.
    pub(super) fn catch_up(&mut self) {
        self.catching.is_set = false;
        let has_called = std::mem::take(&mut self.catching.has_called);
        let (is_lacking, caller) = {
            let mut notices = self.handler.notices();
            (notices.is_lacking(), notices.take_caller())
        };
        if !is_lacking && !has_called {
            self.catching.tries = 0;
            return;
        }
        if self.catching.tries >= TRIES_MAX {
            self.catching.tries = 0;
            self.handler.notices().give_up();
            return;
        }
        self.catching.tries += u32::from(is_lacking);
        if let Some(to) = caller.filter(|_| is_lacking).or_else(|| self.pick_members(1).pop()) {
            self.ask_for_notices(to);
        }
    }

    /// Asks for the notices that we lack, and for nothing else: when a partition heals, every
    /// node wants to know at once whether it missed some, and notes of all members are long.
    pub(super) fn ask_for_notices(&mut self, to: SocketAddr) {
        let versions = self.handler.notices().versions();
        let question = Question::Trade { versions, parcel: Parcel::default() };
        if self.phase == Phase::Member && self.ask(to, question, Purpose::Trade { round: 0 }) {
            self.counters.trades += 1;
        }
    }

    /// Hands whoever has heard `theirs` what it lacks, and asks for what we lack.
    pub(super) fn trade(&mut self, to: SocketAddr, theirs: &[Version], round: u8) {
        let (versions, parcel) = {
            let notices = self.handler.notices();
            let versions = notices.versions();
            let room = PUSHED_MAX.saturating_sub(Version::len_of(&versions));
            let parcel = notices.lacked_by(theirs, room);
            (versions, parcel)
        };
        if self.ask(to, Question::Trade { versions, parcel }, Purpose::Trade { round }) {
            self.counters.trades += 1;
        }
    }

    pub(super) fn answer_trade(&mut self, theirs: &[Version], parcel: Parcel) -> Answer {
        self.unpack(theirs, parcel);
        let notices = self.handler.notices();
        let parcel = notices.lacked_by(theirs, HANDED_MAX);
        Answer::Trade { versions: notices.versions(), parcel }
    }

    /// A trade that was begun at `since` came to an end.
    pub(super) fn trade_ended(&mut self, to: SocketAddr, round: u8, since: Duration, end: End) {
        let End::Answered(Reply { answer: Answer::Trade { versions, parcel }, is_current, .. }) =
            end
        else {
            self.counters.syncs_failed += 1;
            return;
        };
        let is_all = parcel.is_all;
        self.unpack(&versions, parcel);
        if is_all {
            self.compared(to, since, is_current);
        }
        // Nothing goes into no room, so this is all only if there is nothing.
        let has_more = !self.handler.notices().lacked_by(&versions, 0).is_all;
        if (has_more || !is_all) && round < ROUNDS_MAX {
            self.trade(to, &versions, round + 1);
        }
    }

    /// Takes in what was handed over.
    fn unpack(&mut self, theirs: &[Version], parcel: Parcel) {
        let news = self.handler.notices().merge(theirs, parcel);
        if news.len() <= FEW {
            for Handed { notice, .. } in news.iter().filter(|it| it.age < YOUNG) {
                self.pass_on(&broadcasts::encode_notice(notice));
            }
        }
    }
}
