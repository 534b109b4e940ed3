//! Going: because the node is to stop, or because somebody else has its address.

use std::time::Duration;

use super::{Command, Machine, Output, Phase, State, timers::Timer};

/// How many times the word of a leave is sent, beside by whoever hears it, and how often.
const ROUNDS: u8 = 5;
const ROUND: Duration = Duration::from_millis(100);

impl Machine {
    /// Tells everybody that this node is going, so that they stop sending new keys.
    pub(super) fn leave(&mut self) {
        if self.phase != Phase::Member {
            return;
        }
        self.command(Command::SetState(State::Draining));
        self.phase = Phase::Farewell;
        let wait = if self.foca.num_members() == 0 { Duration::ZERO } else { self.tuning.farewell };
        self.timers.set(self.now + wait, Timer::Leave);
    }

    pub(super) fn leave_step(&mut self) {
        match self.phase {
            Phase::Member => return,
            Phase::Farewell => self.go(),
            Phase::Gone(0) => {
                self.timers.clear();
                self.out.push(Output::Left);
                return;
            }
            Phase::Gone(left) => {
                self.phase = Phase::Gone(left - 1);
                self.swim(|foca, effects| foca.gossip(effects));
            }
        }
        self.timers.set(self.now + ROUND, Timer::Leave);
    }

    /// Declares this node itself down. From here on nothing is listened to: foca would
    /// take any word of it for a reason to come back.
    fn go(&mut self) {
        let rounds = if self.foca.num_members() == 0 { 0 } else { ROUNDS };
        self.swim(|foca, effects| foca.leave_cluster(effects));
        self.phase = Phase::Gone(rounds);
        self.publisher.touch();
    }

    /// Stops being a member at once, as if this node had never been: what it says is said
    /// at somebody else's address.
    pub(super) fn go_without_a_word(&mut self) {
        self.phase = Phase::Gone(0);
        self.timers.set(self.now, Timer::Leave);
        self.publisher.touch();
    }
}
