//! What foca wants done, gathered during one call, and the dice that it draws from.

use std::{convert::Infallible, time::Duration};

use foca::{Notification, OwnedNotification, Runtime, Timer};
use rand_core::TryRng;

use super::{Id, codec};

/// Everything that one call into foca asks for.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) packets: Vec<(Id, Vec<u8>)>,
    pub(super) timers: Vec<(Timer<Id>, Duration)>,
    pub(super) notes: Vec<OwnedNotification<Id>>,
    /// Our incarnation as the last packet told it; foca keeps it to itself.
    pub(super) incarnation: u16,
}

impl Runtime<Id> for Effects {
    fn notify(&mut self, note: Notification<'_, Id>) {
        self.notes.push(note.to_owned());
    }

    fn send_to(&mut self, to: Id, packet: &[u8]) {
        if let Some(incarnation) = codec::incarnation_of_sender(packet) {
            self.incarnation = incarnation;
        }
        self.packets.push((to, packet.to_vec()));
    }

    fn submit_after(&mut self, timer: Timer<Id>, after: Duration) {
        self.timers.push((timer, after));
    }
}

/// Randomness from a seed: the same seed, the same cluster.
#[derive(Debug)]
pub(super) struct Dice(pub(super) fastrand::Rng);

impl TryRng for Dice {
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
