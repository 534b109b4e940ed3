//! Which version of a plugin is on probation, which ones are in quarantine, and what
//! came of the last reload.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use tokio::time::Instant;

use super::{
    probation::{Ending, Probation, Verdict},
    quarantine::Quarantine,
    shelf::Place,
};
use crate::plugin::{component::Source, generation::Generation, status::seconds};

/// What came of a look at a plugin's file or settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReloadOutcome {
    /// A new version went live.
    Swapped,
    /// The new version was bad; the old one serves.
    Refused,
    /// The new version failed in its probation; the old one serves again.
    RolledBack,
    /// The new version failed in its probation and serves all the same: there was no other
    /// to put in its place.
    Stuck,
    /// The file was bad when the node started; the last good version serves.
    LastGood,
}

/// The last reload of a plugin that came to anything.
#[derive(Clone, Debug, Serialize)]
pub struct ReloadReport {
    /// What came of it.
    pub outcome: ReloadOutcome,
    /// The digest of the version that was to go live, if its file could be read.
    pub digest: Option<String>,
    /// Why it did not.
    pub message: Option<String>,
    /// When, in seconds since 1970.
    pub at: u64,
}

/// How the versions of a plugin stand.
#[derive(Clone, Debug, Serialize)]
pub struct ReloadStatus {
    /// Whether the version that serves can still be taken back.
    pub on_probation: bool,
    /// Digests of versions that were taken back and are not loaded again.
    pub quarantined: Vec<String>,
    /// The last reload that came to anything.
    pub last: Option<ReloadReport>,
}

/// What is put back when the version on probation fails.
#[derive(Clone)]
pub(super) enum Fallback {
    /// It served until the other one came.
    Generation(Arc<Generation>),
    /// It is on the shelf: the node has started with the new one.
    Shelf,
}

/// The version on probation.
pub(super) struct Novice {
    number: u64,
    probation: Probation,
    pub(super) fallback: Fallback,
    /// To be kept when it passes.
    pub(super) source: Source,
}

/// How the versions of one plugin stand.
pub(super) struct Stage {
    pub(super) place: Place,
    pub(super) quarantine: Quarantine,
    novice: Option<Novice>,
    pub(super) last: Option<ReloadReport>,
    hasher: RandomState,
}

impl Stage {
    pub(super) fn new(place: Place) -> Self {
        Self {
            quarantine: place.quarantine(),
            place,
            novice: None,
            last: None,
            hasher: RandomState::new(),
        }
    }

    /// Puts the generation `number` on probation, and forgets about any other.
    pub(super) fn begin(
        &mut self,
        number: u64,
        length: Duration,
        fallback: Fallback,
        source: Source,
    ) {
        let probation = Probation::new(length, Instant::now());
        self.novice = Some(Novice { number, probation, fallback, source });
    }

    /// What would be put back, where the probation goes on for another generation of
    /// the same code, or ends.
    pub(super) fn novice(&mut self) -> &mut Option<Novice> {
        &mut self.novice
    }

    /// The generation on probation, or zero.
    pub(super) fn novice_number(&self) -> u64 {
        self.novice.as_ref().map_or(0, |novice| novice.number)
    }

    /// Counts a call of the generation `number`.
    pub(super) fn record(&mut self, number: u64, key: &[u8], ending: Ending) -> Verdict {
        let key = self.hasher.hash_one(key);
        match self.novice.as_mut().filter(|novice| novice.number == number) {
            Some(novice) => novice.probation.record(key, ending, Instant::now()),
            None => Verdict::Open,
        }
    }

    /// What has become of the version on probation by time alone, and when to look
    /// again; nothing if there is none.
    pub(super) fn look(&self) -> Option<(u64, Verdict, Duration)> {
        let novice = self.novice.as_ref()?;
        let now = Instant::now();
        let next = novice.probation.next_look(now);
        Some((novice.number, novice.probation.verdict(now), next))
    }

    /// Ends the probation of the generation `number`, if it is on probation.
    pub(super) fn end(&mut self, number: u64) -> Option<Novice> {
        self.novice.take_if(|novice| novice.number == number)
    }

    pub(super) fn report(
        &mut self,
        outcome: ReloadOutcome,
        digest: Option<String>,
        message: Option<String>,
    ) {
        let at = seconds(SystemTime::now());
        self.last = Some(ReloadReport { outcome, digest, message, at });
    }

    pub(super) fn status(&self) -> ReloadStatus {
        ReloadStatus {
            on_probation: self.novice.is_some(),
            quarantined: self.quarantine.digests().to_vec(),
            last: self.last.clone(),
        }
    }
}

impl Novice {
    /// Goes on under another number: the same code with other settings.
    pub(super) fn renumber(&mut self, number: u64) {
        self.number = number;
    }
}
