//! How a new version of a plugin goes live under load, and how a bad one does not.
//!
//! A plugin serves with one [`Generation`] at a time. Something hints that there may be
//! another (`lookout` hears of the file, an operator asks, the settings change); the
//! file is read when nobody writes it any more (`settle`), and if its digest is another
//! one, it is compiled, linked and tried beside the one that serves. Only then the two
//! change places, in one step: calls under way end on the one they began with, which
//! lets go of its instances as they come back.
//!
//! The new generation is on `probation` at first. If it does worse than chance, the old
//! one is put back, which takes no time since its code is still compiled, and the
//! digest goes into `quarantine`. One that passes is put on the `shelf`, from where a
//! node that starts during a bad rollout takes it.
//!
//! Invariants:
//! - whatever fails on the way leaves what serves alone;
//! - what serves changes under one lock, so that a roll-back and a swap cannot cross;
//! - a call never waits for a reload.

mod first;
mod lookout;
mod probation;
mod quarantine;
mod rollback;
mod rollout;
mod settle;
mod shelf;
mod stage;
mod watch;

pub(super) use first::check;
pub(super) use lookout::Lookout;
pub(super) use probation::Ending;
pub(super) use rollout::Rollout;
pub(super) use shelf::Shelf;
pub(crate) use shelf::state_directory;

pub use rollout::{Prepared, Reloaded, SwapHook, Swapped, Trigger};
pub use stage::{ReloadOutcome, ReloadReport, ReloadStatus};

#[cfg(doc)]
use super::generation::Generation;
