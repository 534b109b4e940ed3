//! What becomes of the version on probation: it passes, or the old one is put back.

use std::{
    sync::{Arc, MutexGuard, atomic::Ordering::Relaxed},
    time::Duration,
};

use tracing::{error, info};

use super::{
    probation::{Ending, Reason, Verdict},
    rollout::Rollout,
    stage::{Fallback, ReloadOutcome, Stage},
};
use crate::plugin::{generation::Generation, loader::Code};

impl Rollout {
    /// Whether calls of the generation `number` are to be recorded.
    pub(in crate::plugin) fn is_novice(&self, number: u64) -> bool {
        self.novice.load(Relaxed) == number
    }

    /// Takes note of how a call of the generation `number` ended.
    pub(in crate::plugin) fn record(self: &Arc<Self>, number: u64, key: &[u8], ending: Ending) {
        let verdict = self.stage().record(number, key, ending);
        self.judge(number, verdict);
    }

    /// Looks whether a probation has ended by time; says when to look again.
    pub(super) fn tick(self: &Arc<Self>) -> Option<Duration> {
        let (number, verdict, next) = self.stage().look()?;
        self.judge(number, verdict);
        Some(next)
    }

    fn judge(self: &Arc<Self>, number: u64, verdict: Verdict) {
        match verdict {
            Verdict::Open => {}
            Verdict::Passed => self.pass(number),
            Verdict::Failed(reason) => self.roll_back(number, reason),
        }
    }

    fn pass(&self, number: u64) {
        let mut stage = self.stage();
        let Some(novice) = stage.end(number) else { return };
        self.mark_novice(&stage);
        self.keep(&stage, self.current().source(), novice.source);
        drop(stage);
        let plugin = &*self.identity.name;
        info!(
            plugin,
            generation = number,
            "The new version of the plugin has passed its probation."
        );
    }

    fn roll_back(self: &Arc<Self>, number: u64, reason: Reason) {
        let mut stage = self.stage();
        let bad = self.current();
        // Somebody else has seen to it, or another version has gone live meanwhile.
        if bad.number != number {
            return;
        }
        let Some(novice) = stage.end(number) else { return };
        self.mark_novice(&stage);
        stage.quarantine.insert(bad.digest.clone());
        self.keep_quarantine(&stage);
        match novice.fallback {
            Fallback::Generation(old) => match self.loader.revive(&self.identity, &old, &bad) {
                Ok(revived) => self.put_back(stage, &bad, revived, reason),
                Err(problem) => self.stuck(stage, &bad, reason, &problem.to_string()),
            },
            Fallback::Shelf => {
                drop(stage);
                let rollout = Arc::clone(self);
                self.loader.fills.spawn(async move { rollout.back_to_shelf(&bad, reason).await });
            }
        }
    }

    async fn back_to_shelf(self: Arc<Self>, bad: &Arc<Generation>, reason: Reason) {
        let place = self.stage().place.clone();
        let old = match place.good() {
            Some(source) => {
                let code = Code::Source(source);
                let loaded = self.loader.generation(&self.identity, &bad.recipe, code, Some(bad));
                loaded.await.map_err(|problem| problem.to_string())
            }
            None => Err("the last good version is not on disk any more".to_owned()),
        };
        let stage = self.stage();
        if self.current().number != bad.number {
            return;
        }
        match old {
            Ok(old) => self.put_back(stage, bad, old, reason),
            Err(problem) => self.stuck(stage, bad, reason, &problem),
        }
    }

    fn put_back(
        &self,
        mut stage: MutexGuard<'_, Stage>,
        bad: &Arc<Generation>,
        old: Generation,
        reason: Reason,
    ) {
        stage.report(
            ReloadOutcome::RolledBack,
            Some(bad.digest.clone()),
            Some(format!("{reason} while it was on probation")),
        );
        error!(
            plugin = &*self.identity.name,
            digest = bad.digest,
            serving = old.digest,
            %reason,
            "The new version of the plugin was taken back and the old one serves again. The new \
             one's digest is in quarantine: publish another, or reload the plugin to try it again."
        );
        let old = Arc::new(old);
        self.current.store(Arc::clone(&old));
        self.identity.metrics.rolled_back.inc();
        self.retire(bad);
        drop(stage);
        self.tell(bad, &old);
    }

    fn stuck(
        &self,
        mut stage: MutexGuard<'_, Stage>,
        bad: &Generation,
        reason: Reason,
        problem: &str,
    ) {
        stage.report(
            ReloadOutcome::Stuck,
            Some(bad.digest.clone()),
            Some(format!("{reason} while it was on probation, and it still serves: {problem}")),
        );
        drop(stage);
        error!(
            plugin = &*self.identity.name,
            digest = bad.digest,
            %reason,
            problem,
            "A bad version of the plugin could not be taken back and goes on serving: publish \
             another one."
        );
    }
}
