//! foca as it comes: its defaults for a LAN, and nothing beside it.

use std::{convert::Infallible, num::NonZeroU32, time::Duration};

use super::cluster::machine::{Codec, Command, Counters, Event, Id, Input, Output, Setup, Sizes};
use foca::{Config, Foca, NoCustomBroadcast, Notification, Runtime, Timer};

use super::world::Process;

/// What sealing would add, so that bytes are compared like with like.
const SEAL: usize = 29;

/// A node of nothing but foca.
pub(crate) struct Bare {
    foca: Foca<Id, Codec, Dice, NoCustomBroadcast>,
    asked: Asked,
    timers: Vec<(Duration, u64, Timer<Id>)>,
    count: u64,
    dice: fastrand::Rng,
}

impl Bare {
    pub(crate) fn new(setup: &Setup, nodes: usize) -> Self {
        let nodes = u32::try_from(nodes).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        let dice = Dice(fastrand::Rng::with_seed(setup.seed));
        Self {
            foca: Foca::new(setup.id, Config::new_lan(nodes), dice, Codec),
            asked: Asked::default(),
            timers: Vec::new(),
            count: 0,
            dice: fastrand::Rng::with_seed(setup.boot),
        }
    }

    /// Tells it of other members, as if it had been running for hours.
    pub(crate) fn know(&mut self, others: &[Id], now: Duration) {
        let members = others.iter().map(|id| foca::Member::alive(*id));
        let _ = self.foca.apply_many(members, false, &mut self.asked);
        self.set_timers(now);
    }

    fn set_timers(&mut self, now: Duration) {
        for (timer, after) in self.asked.timers.drain(..) {
            self.count += 1;
            self.timers.push((now + after, self.count, timer));
        }
    }
}

impl Process for Bare {
    fn handle(&mut self, input: Input<'_>, now: Duration) -> Vec<Output> {
        let Self { foca, asked, .. } = self;
        match input {
            Input::Datagram { bytes, .. } => {
                let _ = foca.handle_data(&bytes[..bytes.len() - SEAL], &mut *asked);
            }
            Input::Tick => {
                self.timers.sort_unstable_by_key(|timer| (timer.0, timer.1));
                let due = self.timers.partition_point(|(at, ..)| *at <= now);
                for (_, _, timer) in self.timers.drain(..due) {
                    let _ = foca.handle_timer(timer, &mut *asked);
                }
            }
            Input::Command(Command::Candidates(candidates)) => {
                for addr in self.dice.choose_multiple(candidates, 3) {
                    if addr != foca.identity().addr {
                        let _ = foca.announce(Id::whoever(addr), &mut *asked);
                    }
                }
            }
            Input::Command(Command::Leave) => {
                let _ = foca.leave_cluster(&mut *asked);
                asked.outputs.push(Output::Left);
            }
            _ => {}
        }
        self.set_timers(now);
        std::mem::take(&mut self.asked.outputs)
    }

    fn next_wake(&self) -> Option<Duration> {
        self.timers.iter().map(|(at, ..)| *at).min()
    }

    fn members(&self) -> Vec<Id> {
        self.foca.iter_members().map(|member| *member.id()).collect()
    }

    fn sizes(&self) -> Option<Sizes> {
        None
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn health(&self) -> u32 {
        0
    }
}

#[derive(Default)]
struct Asked {
    outputs: Vec<Output>,
    timers: Vec<(Timer<Id>, Duration)>,
}

impl Runtime<Id> for Asked {
    fn notify(&mut self, notification: Notification<'_, Id>) {
        self.outputs.push(Output::Event(match notification {
            Notification::MemberUp(id) => Event::Up(*id),
            Notification::MemberDown(id) => Event::Down { id: *id, has_left: false },
            Notification::Rejoin(id) => Event::Renewed(*id),
            _ => return,
        }));
    }

    fn send_to(&mut self, to: Id, packet: &[u8]) {
        let mut bytes = packet.to_vec();
        bytes.resize(packet.len() + SEAL, 0);
        self.outputs.push(Output::Datagram { to: to.addr, bytes });
    }

    fn submit_after(&mut self, timer: Timer<Id>, after: Duration) {
        self.timers.push((timer, after));
    }
}

struct Dice(fastrand::Rng);

impl rand_core::TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.u32(..))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.u64(..))
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(to);
        Ok(())
    }
}
