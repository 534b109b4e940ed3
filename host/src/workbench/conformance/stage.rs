//! What a case has to work with: a compiled component, and ways to load and call it.

use std::{io, sync::Arc, time::Duration};

use crate::{
    config,
    plugin::{Compiled, Ended, LoadError, Plugin, PluginHost},
    workbench::{
        Mode, Workbench, answer, expectation::Expect, fill, origin::Origin, project::Project,
    },
};

/// Why a case has not passed.
#[derive(Debug)]
pub(super) enum Miss {
    Failed(String),
    Skipped(String),
}

impl From<LoadError> for Miss {
    fn from(error: LoadError) -> Self {
        Self::Failed(format!("it does not load: {}", error.problem))
    }
}

impl From<io::Error> for Miss {
    fn from(error: io::Error) -> Self {
        Self::Failed(format!("cannot play the origin: {error}"))
    }
}

/// A failure with `reason`.
pub(super) fn failed<T>(reason: impl Into<String>) -> Result<T, Miss> {
    Err(Miss::Failed(reason.into()))
}

/// A case that cannot be tried, for `reason`.
pub(super) fn skipped<T>(reason: impl Into<String>) -> Result<T, Miss> {
    Err(Miss::Skipped(reason.into()))
}

/// One case's own.
pub(super) struct Stage {
    host: Arc<PluginHost>,
    project: Project,
    compiled: Compiled,
    settings: config::Plugin,
    mode: Mode,
}

impl Stage {
    pub(super) fn new(
        workbench: &Workbench,
        project: &Project,
        compiled: Compiled,
        settings: &config::Plugin,
    ) -> Self {
        Self {
            host: Arc::clone(&workbench.host),
            project: project.clone(),
            compiled,
            settings: settings.clone(),
            mode: Mode::Warm,
        }
    }

    pub(super) fn in_mode(&self, mode: Mode) -> Self {
        Self {
            host: Arc::clone(&self.host),
            project: self.project.clone(),
            compiled: self.compiled.clone(),
            settings: self.settings.clone(),
            mode,
        }
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// The settings that were given, before an origin is played.
    pub(super) fn settings(&self) -> &config::Plugin {
        &self.settings
    }

    /// The keys of the manifest's tests.
    pub(super) fn keys(&self) -> Vec<String> {
        let tests = self.project.manifest.iter().flat_map(|manifest| &manifest.test);
        tests.map(|test| test.key.clone()).collect()
    }

    /// Plays the manifest's origin, if the settings speak of it, and gives them with its
    /// address.
    pub(super) async fn play(&self) -> Result<(Option<Origin>, config::Plugin), Miss> {
        Ok(self.project.play(&self.settings).await?)
    }

    /// Plays the manifest's origin, where the settings speak of it, and loads the plugin
    /// with it in this mode.
    pub(super) async fn load(&self) -> Result<(Arc<Plugin>, Option<Origin>), Miss> {
        let (origin, settings) = self.play().await?;
        Ok((self.load_as(self.mode, &settings).await?, origin))
    }

    /// Loads the plugin with `settings` as they are, in `mode`.
    pub(super) async fn load_as(
        &self,
        mode: Mode,
        settings: &config::Plugin,
    ) -> Result<Arc<Plugin>, LoadError> {
        let settings = mode.settings(settings);
        let (name, folder) = (self.project.name(), &self.project.folder);
        self.host.load_compiled(&name, &self.compiled, &settings, folder).await
    }
}

/// Gets `key` in whatever time the plugin's limits leave.
pub(super) async fn get(plugin: &Plugin, key: &str) -> Ended {
    get_with(plugin, key, None).await
}

/// Gets `key` to refresh the value with `validator`.
pub(super) async fn get_with(plugin: &Plugin, key: &str, validator: Option<&str>) -> Ended {
    let time = plugin.status().limits.timeout;
    plugin.measure(fill(key, validator, time)).await.ended
}

/// Gets `key` within `time`.
pub(super) async fn get_within(plugin: &Plugin, key: &str, time: Duration) -> Ended {
    plugin.measure(fill(key, None, time)).await.ended
}

/// `ended`, unless it is a fault.
pub(super) fn no_fault(key: &str, ended: Ended) -> Result<Ended, Miss> {
    if matches!(ended, Ended::Faulted(_) | Ended::Refused(_)) {
        return failed(format!("the get of {} is {}", key_text(key), answer::line(&ended)));
    }
    Ok(ended)
}

/// Gets `key`; a fault is a failure.
pub(super) async fn get_soundly(plugin: &Plugin, key: &str) -> Result<Ended, Miss> {
    no_fault(key, get(plugin, key).await)
}

/// Holds `ended` to be of a kind, and no fault.
pub(super) fn expect(key: &str, ended: &Ended, kind: Expect) -> Result<(), Miss> {
    let is_fault = matches!(ended, Ended::Faulted(_) | Ended::Refused(_));
    if answer::kind(ended) == Some(kind) && !is_fault {
        return Ok(());
    }
    failed(format!(
        "the get of {} is {} where {} is expected",
        key_text(key),
        answer::line(ended),
        kind.name()
    ))
}

/// A key in a sentence.
pub(super) fn key_text(key: &str) -> String {
    answer::quoted(key)
}
