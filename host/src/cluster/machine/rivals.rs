//! Somebody else who says that it is at this node's address.
//!
//! Two processes with one address declare one another down for ever: each renewal of one
//! is the death of the other. It comes from a copied configuration or an address that was
//! given out twice, and cannot heal by itself; so one of them has to go, and it should be
//! the one that came later.
//!
//! A node that was restarted, under its name or another one, has no rival: its former life
//! is outdone once and does not fight back.

use std::{collections::VecDeque, time::Duration};

use foca::Identity as _;

use super::{Event, Id, Machine, Output, Phase, Subject, identity::NodeId, timers::Timer};

const WINDOW: Duration = Duration::from_mins(1);
/// Lost fights within the window after which the later of the two goes.
const LOSSES_MAX: usize = 3;
/// The same for the earlier, in case that they do not agree on who that is.
const LOSSES_MAX_EARLIER: usize = 10;
/// When to look whether a fight is won.
const LOOK: Duration = Duration::from_secs(5);

/// How often this node was outdone at its own address, and by whom.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    last: Option<Id>,
    losses: VecDeque<Duration>,
}

impl Machine {
    /// Somebody spoke as, or of, `id`. If that is somebody at this node's address who would
    /// win against it, this node takes a generation above.
    pub(super) fn sight(&mut self, id: &Id) {
        let own = self.id();
        if id.addr != own.addr || !id.win_addr_conflict(&own) || self.phase != Phase::Member {
            return;
        }
        if self.rivals.last.replace(*id).is_some() {
            self.rivals.losses.push_back(self.now);
        }
        let above = Id::new(own.addr, id.generation.saturating_add(1), own.node);
        if above.win_addr_conflict(id) {
            self.counters.renewals += 1;
            self.out.push(Output::Generation(above.generation));
            self.event(Event::Renewed(above));
            self.doubt_currency();
            self.swim(|foca, effects| foca.change_identity(above, effects));
        }
        self.timers.set(self.now + LOOK, Timer::Look);
    }

    /// Goes if another node insists on having this one's address (F9).
    pub(super) fn give_way(&mut self) {
        if let Some(rival) = self.verdict() {
            self.event(Event::AddressTaken(rival));
            self.go_without_a_word();
        }
    }

    /// For whom this node has to go, if it has to.
    fn verdict(&mut self) -> Option<NodeId> {
        let losses = &mut self.rivals.losses;
        while losses.front().is_some_and(|loss| *loss + WINDOW < self.now) {
            losses.pop_front();
        }
        let rival = self.rivals.last.filter(|_| !losses.is_empty())?;
        let records = self.records.lock();
        let record = records.get(&Subject::from(&rival)).map(|entry| &entry.record);
        let is_later = record.is_some_and(|it| it.epoch < self.own.epoch);
        let max = if is_later { LOSSES_MAX } else { LOSSES_MAX_EARLIER };
        (losses.len() >= max && self.phase == Phase::Member).then_some(rival.node)
    }
}
