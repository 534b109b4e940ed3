//! The task that keeps watch over one plugin: over its file, and over its probation.

use std::{
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    lookout::Watching,
    rollout::{Rollout, Trigger},
    settle::{self, Stamp},
};

/// Time for what belongs together to happen: a copy and a rename are one change.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// How often the file is looked at without a hint: some file systems give none.
const POLL: Duration = Duration::from_secs(5);
/// The soonest look at a probation that ends by time.
const TICK_MIN: Duration = Duration::from_millis(50);

/// Keeps watch until the plugin is gone. `seen` is what is known of `path`.
pub(super) async fn keep(rollout: Weak<Rollout>, path: PathBuf, seen: Stamp) {
    let Some(bell) = rollout.upgrade().map(|rollout| Arc::clone(&rollout.bell)) else { return };
    let mut watched = Watched { path, seen, watching: None };
    watched.look_out(&rollout);
    loop {
        // Half of the polls a little sooner, half a little later: nodes that start
        // together do not reload together.
        let poll = POLL.mul_f64(0.75 + fastrand::f64() / 2.0);
        let next = rollout.upgrade().and_then(|rollout| rollout.tick());
        let pause = next.map_or(poll, |next| next.max(TICK_MIN).min(poll));
        tokio::select! {
            () = bell.notified() => tokio::time::sleep(DEBOUNCE).await,
            () = tokio::time::sleep(pause) => {}
        }
        let Some(rollout) = rollout.upgrade() else { return };
        watched.look(&rollout).await;
    }
}

/// The file as the task knows it.
struct Watched {
    path: PathBuf,
    seen: Stamp,
    watching: Option<Watching>,
}

impl Watched {
    fn look_out(&mut self, rollout: &Weak<Rollout>) {
        let Some(rollout) = rollout.upgrade() else { return };
        let lookout = &rollout.loader.lookout;
        self.watching = Some(lookout.watch(&self.path, &rollout.bell));
    }

    /// Reloads the plugin if its file may have changed.
    async fn look(&mut self, rollout: &Arc<Rollout>) {
        let recipe = rollout.recipe().await;
        if !recipe.settings.watch {
            self.watching = None;
            return;
        }
        let path = recipe.path();
        let asked = path.clone();
        let asking = rollout.loader.fills.spawn_blocking(move || settle::stamp(&asked));
        // The host is stopping.
        let Ok(stamp) = asking.await else { return };
        if path == self.path && stamp == self.seen && self.watching.is_some() {
            return;
        }
        (self.path, self.seen) = (path, stamp);
        match &mut self.watching {
            Some(watching) => watching.follow(&self.path),
            None => self.look_out(&Arc::downgrade(rollout)),
        }
        // What comes of it is in the log, the status and the metrics.
        rollout.reload(Trigger::Watch).await.ok();
    }
}
