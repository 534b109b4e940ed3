//! Which generation of a plugin serves, and how the next one comes to.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Mutex as TurnMutex, OwnedMutexGuard},
    task::AbortHandle,
};
use tracing::{error, info};

use super::{
    first::{Refused, first, last_good},
    lookout::Bell,
    settle,
    shelf::Place,
    stage::{Fallback, ReloadOutcome, ReloadStatus, Stage},
    watch,
};
use crate::{
    config,
    plugin::{
        component::Source,
        error::Problem,
        generation::Generation,
        loader::{Code, Identity, Loader, Recipe},
    },
};

/// Time beyond its deadlines after which a replaced generation's calls are killed:
/// they have ended by then unless something is wrong with us.
const KILL_AFTER: Duration = Duration::from_secs(1);

/// Who wants a plugin to look at its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The file seems to have changed.
    Watch,
    /// Somebody asked: what is in quarantine may try again.
    Operator,
}

/// What came of a reload that was not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// A new version serves.
    Swapped {
        /// Its digest.
        digest: String,
        /// Its number.
        generation: u64,
    },
    /// The file has what serves already.
    Unchanged {
        /// Its digest.
        digest: String,
    },
}

/// Another version of the plugin has gone live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swapped {
    /// Whether the values of the old one have lost their meaning: `cache_epoch` changed.
    pub epoch_changed: bool,
}

/// Called when another version has gone live, on whatever thread saw to that.
pub type SwapHook = Box<dyn Fn(Swapped) + Send + Sync>;

/// The generations of one plugin.
pub(in crate::plugin) struct Rollout {
    pub(super) loader: Arc<Loader>,
    pub(super) identity: Identity,
    /// What new calls begin with.
    pub(super) current: ArcSwap<Generation>,
    /// Held by whoever reloads, so that one does at a time.
    wanted: Arc<TurnMutex<Wanted>>,
    /// Held while generations change places, and never for long.
    stage: Mutex<Stage>,
    /// The generation on probation, or zero: what a call looks at.
    pub(super) novice: AtomicU64,
    pub(super) bell: Bell,
    hook: OnceLock<SwapHook>,
    watch: OnceLock<AbortHandle>,
}

/// What should serve.
#[derive(Debug)]
pub(super) struct Wanted {
    recipe: Recipe,
    /// The digest of the file that was refused last: told once, and not tried again
    /// before it changes.
    refused: Option<String>,
}

/// New settings of a plugin with a generation that was tried under them. Until it is
/// installed or dropped, the plugin does not reload.
pub struct Prepared {
    turn: OwnedMutexGuard<Wanted>,
    recipe: Recipe,
    generation: Generation,
    /// The code, if it is another one.
    source: Option<Source>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("digest", &self.generation.digest).finish_non_exhaustive()
    }
}

impl Rollout {
    /// Loads the plugin that `recipe` describes, or its last good version when that
    /// cannot be, and keeps watch over its file from there on.
    pub(in crate::plugin) async fn start(
        loader: Arc<Loader>,
        identity: Identity,
        recipe: Recipe,
    ) -> Result<Arc<Self>, Problem> {
        let path = recipe.path();
        // Before the file is read: what changes after that is seen.
        let seen = settle::stamp(&path);
        let mut stage = Stage::new(loader.shelf.place(&identity.name, &path));
        let generation = match first(&loader, &identity, &recipe, &stage).await {
            Ok((generation, source)) => {
                let length = recipe.settings.probation;
                if stage.place.is_good(&generation.digest) {
                    // As it was before.
                } else if stage.place.good().is_some() && !length.is_zero() {
                    stage.begin(generation.number, length, Fallback::Shelf, source);
                } else {
                    stage.place.keep(&path, &source.digest, &source.bytes);
                }
                generation
            }
            Err(Refused(digest, problem)) => {
                let generation = last_good(&loader, &identity, &recipe, &stage).await;
                let Some(generation) = generation else { return Err(problem) };
                identity.metrics.refused.inc();
                error!(
                    plugin = &*identity.name,
                    source = %path.display(),
                    reason = %problem,
                    serving = generation.digest,
                    "The plugin's file is bad; its last good version serves. Put a good version in \
                     its place."
                );
                stage.report(ReloadOutcome::LastGood, digest, Some(problem.to_string()));
                generation
            }
        };
        let rollout = Arc::new(Self::of(loader, identity, recipe, generation, stage));
        let task = rollout.loader.fills.spawn(watch::keep(Arc::downgrade(&rollout), path, seen));
        // Set here alone.
        rollout.watch.set(task.abort_handle()).ok();
        Ok(rollout)
    }

    /// A plugin that serves with `generation` and nothing else: nobody watches its file.
    pub(in crate::plugin) fn fixed(
        loader: Arc<Loader>,
        identity: Identity,
        recipe: Recipe,
        generation: Generation,
    ) -> Arc<Self> {
        let stage = Stage::new(Place::nowhere());
        Arc::new(Self::of(loader, identity, recipe, generation, stage))
    }

    fn of(
        loader: Arc<Loader>,
        identity: Identity,
        recipe: Recipe,
        generation: Generation,
        stage: Stage,
    ) -> Self {
        let novice = AtomicU64::new(stage.novice_number());
        Self {
            current: ArcSwap::from_pointee(generation),
            wanted: Arc::new(TurnMutex::new(Wanted { recipe, refused: None })),
            stage: Mutex::new(stage),
            novice,
            bell: Bell::default(),
            hook: OnceLock::new(),
            watch: OnceLock::new(),
            loader,
            identity,
        }
    }

    /// What new calls begin with.
    pub(in crate::plugin) fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// Has `hook` called whenever another version goes live. Only the first hook counts.
    pub(in crate::plugin) fn on_swap(&self, hook: SwapHook) {
        self.hook.set(hook).ok();
    }

    pub(in crate::plugin) fn status(&self) -> ReloadStatus {
        self.stage().status()
    }

    /// What should serve. Waits for a reload that is under way.
    pub(super) async fn recipe(&self) -> Recipe {
        self.wanted.lock().await.recipe.clone()
    }

    /// Looks at the file, and puts what it holds to work if that is new and good.
    pub(in crate::plugin) async fn reload(
        self: &Arc<Self>,
        trigger: Trigger,
    ) -> Result<Reloaded, Problem> {
        let mut wanted = self.wanted.lock().await;
        match self.attempt(&mut wanted, trigger).await {
            Ok(reloaded) => Ok(reloaded),
            Err(Refused(digest, problem)) => {
                self.identity.metrics.refused.inc();
                error!(
                    plugin = &*self.identity.name,
                    source = %wanted.recipe.path().display(),
                    digest,
                    reason = %problem,
                    "A new version of the plugin was refused; the old one goes on serving."
                );
                let mut stage = self.stage();
                stage.report(ReloadOutcome::Refused, digest.clone(), Some(problem.to_string()));
                wanted.refused = digest;
                Err(problem)
            }
        }
    }

    async fn attempt(
        self: &Arc<Self>,
        wanted: &mut Wanted,
        trigger: Trigger,
    ) -> Result<Reloaded, Refused> {
        let recipe = wanted.recipe.clone();
        let source = settle::read(&self.loader.fills, recipe.path()).await?;
        let running = self.current();
        let digest = source.digest.clone();
        let is_known = trigger == Trigger::Watch && wanted.refused.as_ref() == Some(&digest);
        if is_known {
            return Ok(Reloaded::Unchanged { digest: running.digest.clone() });
        }
        if digest == running.digest {
            wanted.refused = None;
            return self.renew(&recipe, &running, trigger).await;
        }
        self.pass_quarantine(&digest, trigger)?;
        let code = Code::Source(source.clone());
        let reloaded = self.put_to_work(&recipe, (code, digest), Some(source), &running).await?;
        wanted.refused = None;
        Ok(reloaded)
    }

    /// Tries `code`, which has this digest, and lets it take the place of `running`.
    /// `source` is the code where that is new.
    async fn put_to_work(
        self: &Arc<Self>,
        recipe: &Recipe,
        (code, digest): (Code, String),
        source: Option<Source>,
        running: &Generation,
    ) -> Result<Reloaded, Refused> {
        let (loader, identity) = (&self.loader, &self.identity);
        match loader.generation(identity, recipe, code, Some(running)).await {
            Ok(generation) => {
                let generation = self.swap(generation, source);
                Ok(Reloaded::Swapped { digest, generation })
            }
            Err(problem) => Err(Refused(Some(digest), problem)),
        }
    }

    /// The file has what serves already; what the settings name beside it may be new.
    async fn renew(
        self: &Arc<Self>,
        recipe: &Recipe,
        running: &Generation,
        trigger: Trigger,
    ) -> Result<Reloaded, Refused> {
        let digest = running.digest.clone();
        let settings = &recipe.settings;
        let is_alone = settings.secrets.is_empty() && settings.network.ca_files.is_empty();
        if trigger == Trigger::Watch || is_alone {
            return Ok(Reloaded::Unchanged { digest });
        }
        let code = Code::Compiled(running.component.clone(), digest.clone());
        self.put_to_work(recipe, (code, digest), None, running).await
    }

    fn pass_quarantine(self: &Arc<Self>, digest: &str, trigger: Trigger) -> Result<(), Refused> {
        let mut stage = self.stage();
        if !stage.quarantine.contains(digest) {
            return Ok(());
        }
        if trigger == Trigger::Watch {
            let problem = Problem::Quarantined { digest: digest.to_owned() };
            return Err(Refused(Some(digest.to_owned()), problem));
        }
        stage.quarantine.lift(digest);
        self.keep_quarantine(&stage);
        Ok(())
    }

    /// Tries a generation under `settings`. The code is what serves, unless the settings
    /// name another file or digest.
    pub(in crate::plugin) async fn prepare(
        &self,
        settings: &config::Plugin,
        base_dir: &Path,
    ) -> Result<Prepared, Problem> {
        let turn = Arc::clone(&self.wanted).lock_owned().await;
        let recipe = Recipe { settings: Arc::new(settings.clone()), base_dir: base_dir.into() };
        let running = self.current();
        let is_pinned_elsewhere =
            settings.digest.as_ref().is_some_and(|pin| !pin.eq_ignore_ascii_case(&running.digest));
        let is_same_code = recipe.path() == turn.recipe.path() && !is_pinned_elsewhere;
        let (code, source) = if is_same_code {
            (Code::Compiled(running.component.clone(), running.digest.clone()), None)
        } else {
            let source = settle::read(&self.loader.fills, recipe.path()).await?;
            (Code::Source(source.clone()), Some(source))
        };
        let (loader, identity) = (&self.loader, &self.identity);
        let generation = loader.generation(identity, &recipe, code, Some(&running)).await?;
        let source = source.filter(|source| source.digest != running.digest);
        Ok(Prepared { turn, recipe, generation, source })
    }

    /// Puts what was prepared to work.
    pub(in crate::plugin) fn install(self: &Arc<Self>, prepared: Prepared) -> u64 {
        let Prepared { mut turn, recipe, generation, source } = prepared;
        turn.recipe = recipe;
        turn.refused = None;
        let number = self.swap(generation, source);
        drop(turn);
        // The file may be another one, and there may be news in it already.
        self.bell.notify_one();
        number
    }

    /// Lets `generation` take the place of what serves. `source` is its code where that
    /// is new.
    fn swap(self: &Arc<Self>, generation: Generation, source: Option<Source>) -> u64 {
        let number = generation.number;
        let new = Arc::new(generation);
        let mut stage = self.stage();
        let old = self.current.swap(Arc::clone(&new));
        self.retire(&old);
        match source {
            Some(source) => self.begin_probation(&mut stage, &new, &old, source),
            // Other settings for the same code: it goes on proving itself.
            None => stage.novice().iter_mut().for_each(|novice| novice.renumber(number)),
        }
        stage.report(ReloadOutcome::Swapped, Some(new.digest.clone()), None);
        self.mark_novice(&stage);
        drop(stage);
        self.identity.metrics.swapped.inc();
        info!(
            plugin = &*self.identity.name,
            digest = new.digest,
            generation = number,
            "A new version of the plugin serves."
        );
        self.tell(&old, &new);
        number
    }

    fn begin_probation(
        &self,
        stage: &mut Stage,
        new: &Generation,
        old: &Arc<Generation>,
        source: Source,
    ) {
        // One that has not proved itself is nothing to go back to.
        let fallback = match stage.novice().take() {
            Some(novice) => novice.fallback,
            None => Fallback::Generation(Arc::clone(old)),
        };
        let length = new.recipe.settings.probation;
        if length.is_zero() {
            self.keep(stage, new.source(), source);
        } else {
            stage.begin(new.number, length, fallback, source);
        }
    }

    /// Takes `old` out of service: its calls may end.
    pub(super) fn retire(&self, old: &Arc<Generation>) {
        old.retire();
        let longest = old.environment.limits.timeout.saturating_add(KILL_AFTER);
        let old = Arc::downgrade(old);
        self.loader.fills.spawn(async move {
            tokio::time::sleep(longest).await;
            if let Some(old) = old.upgrade() {
                old.kill();
            }
        });
    }

    pub(super) fn tell(&self, old: &Generation, new: &Generation) {
        let epoch = |generation: &Generation| generation.recipe.settings.cache_epoch.clone();
        if let Some(hook) = self.hook.get() {
            hook(Swapped { epoch_changed: epoch(old) != epoch(new) });
        }
    }

    /// Puts `source` on the shelf, on a thread that may wait for the disk.
    pub(super) fn keep(&self, stage: &Stage, path: PathBuf, source: Source) {
        let place = stage.place.clone();
        self.loader.fills.spawn_blocking(move || {
            place.keep(&path, &source.digest, &source.bytes);
        });
    }

    /// Writes down what is in quarantine, on a thread that may wait for the disk. Of several
    /// that are under way, the last one to write has the newest.
    pub(super) fn keep_quarantine(self: &Arc<Self>, stage: &Stage) {
        let (place, rollout) = (stage.place.clone(), Arc::clone(self));
        self.loader.fills.spawn_blocking(move || {
            place.keep_quarantine(|| rollout.stage().quarantine.digests().to_vec());
        });
    }

    /// Stops watching and lets go of the idle instances.
    pub(in crate::plugin) fn retire_all(&self) {
        if let Some(watch) = self.watch.get() {
            watch.abort();
        }
        let current = self.current();
        self.retire(&current);
    }

    /// Shows calls which generation is on probation, after that has changed.
    pub(super) fn mark_novice(&self, stage: &Stage) {
        self.novice.store(stage.novice_number(), Relaxed);
    }

    pub(super) fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Rollout {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.get() {
            watch.abort();
        }
    }
}
