//! Loads plugins as a node would, into a host with room for what a test needs.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    config::{self, Limits, Wasm},
    group::{Chain, Fill, FillError, Getter, Groups, Outcome, Reason},
    metrics::Metrics,
    plugin::{LoadError, Plugin, PluginHost},
};

#[path = "../../../../tests/fixtures/guest/mod.rs"]
mod builder;

pub(super) use builder::{ECHO, FINE, Guest, echo_unless_key, guest};

/// A host with room for what a test needs.
pub(super) struct Bench {
    pub(super) host: PluginHost,
    pub(super) metrics: Metrics,
    directory: tempfile::TempDir,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with_groups(Weak::new())
    }

    pub(super) fn with_groups(groups: Weak<Groups>) -> Self {
        Self::within(tempfile::tempdir().expect("a directory"), groups)
    }

    /// Another host over the same files, as after a restart.
    pub(super) fn restarted(self) -> Self {
        let Self { host, metrics, directory } = self;
        host.shutdown();
        drop(metrics);
        Self::within(directory, Weak::new())
    }

    /// A host that has compiled before, into `cache`.
    pub(super) fn over(cache: &Path) -> Self {
        Self::start(tempfile::tempdir().expect("a directory"), cache.to_owned(), Weak::new())
    }

    fn within(directory: tempfile::TempDir, groups: Weak<Groups>) -> Self {
        let cache = directory.path().join("cache");
        Self::start(directory, cache, groups)
    }

    fn start(directory: tempfile::TempDir, cache: PathBuf, groups: Weak<Groups>) -> Self {
        let settings = Wasm {
            threads: 2,
            instances_max: 16,
            cache_dir: cache,
            data_dir: directory.path().join("data"),
            ..Wasm::default()
        };
        let metrics = Metrics::new();
        let host = PluginHost::start(&settings, groups, metrics.clone()).expect("a host");
        Self { host, metrics, directory }
    }

    /// The file of plugin `p`.
    pub(super) fn file(&self) -> PathBuf {
        self.directory.path().join("plugin.wasm")
    }

    /// Puts `bytes` in the place of the file of plugin `p`, as a careful deployer does.
    pub(super) fn publish(&self, bytes: &[u8]) {
        let new = self.directory.path().join("plugin.wasm.new");
        std::fs::write(&new, bytes).expect("written");
        std::fs::rename(new, self.file()).expect("renamed");
    }

    /// Writes `bytes` as the file of plugin `p` and loads it.
    pub(super) async fn load_bytes(
        &self,
        bytes: &[u8],
        settings: impl FnOnce(&mut config::Plugin),
    ) -> Result<Arc<Plugin>, LoadError> {
        let file = "plugin.wasm";
        std::fs::write(self.directory.path().join(file), bytes).expect("written");
        let mut plugin = plugin_settings(file.into());
        settings(&mut plugin);
        self.host.load("p", &plugin, self.directory.path()).await
    }

    pub(super) async fn load_with(
        &self,
        guest: &Guest,
        settings: impl FnOnce(&mut config::Plugin),
    ) -> Arc<Plugin> {
        let loaded = self.load_bytes(&guest.bytes(), settings).await;
        loaded.unwrap_or_else(|error| panic!("{error}"))
    }

    pub(super) async fn load(&self, guest: &Guest) -> Arc<Plugin> {
        self.load_with(guest, |_| ()).await
    }

    /// Why `guest` is not loaded.
    pub(super) async fn refusal(&self, guest: &Guest) -> String {
        match self.load_bytes(&guest.bytes(), |_| ()).await {
            Ok(_) => panic!("it was loaded"),
            Err(error) => error.to_string(),
        }
    }
}

/// Other settings of plugin `p`, whose file nobody watches.
pub(super) fn settings(change: impl FnOnce(&mut config::Plugin)) -> config::Plugin {
    let mut settings = plugin_settings("plugin.wasm".into());
    settings.watch = false;
    change(&mut settings);
    settings
}

fn plugin_settings(source: PathBuf) -> config::Plugin {
    config::Plugin {
        limits: Limits {
            memory: config::ByteSize::mib(4),
            value: config::ByteSize::kib(64),
            timeout: Duration::from_secs(5),
            instances: 4,
            ..Limits::default()
        },
        ..config::Plugin::new(source)
    }
}

/// A fill of `key` as a client's miss would ask for it.
pub(super) fn fill(key: impl AsRef<[u8]>) -> Fill {
    Fill {
        group: "g".into(),
        key: key.as_ref().into(),
        deadline: Instant::now() + Duration::from_secs(20),
        attempt: 1,
        reason: Reason::Miss,
        validator: None,
        chain: Chain::default(),
    }
}

/// The body that `plugin` finds for `key`.
pub(super) async fn body(plugin: &Plugin, key: &str) -> Result<Vec<u8>, FillError> {
    match plugin.load(fill(key)).await? {
        Outcome::Found(value, _) => Ok(value.body().to_vec()),
        other => panic!("{other:?}"),
    }
}

/// The number that `plugin` finds for `key`.
pub(super) async fn number(plugin: &Plugin, key: &str) -> u64 {
    let body = body(plugin, key).await.unwrap_or_else(|error| panic!("{error}"));
    u64::from_le_bytes(body.try_into().expect("eight bytes"))
}

/// That `plugin` serves as if nothing had been, after so many `faults`.
pub(super) async fn serves_on(plugin: &Plugin, faults: u64) {
    assert_eq!(body(plugin, "").await, Ok(Vec::new()));
    let status = plugin.status();
    assert_eq!((status.faults, status.instances.busy), (faults, 0));
    assert!(status.last_error.is_some());
}

/// The words in which a get fails.
pub(super) async fn internal(plugin: &Plugin, key: &str) -> String {
    match plugin.load(fill(key)).await {
        Err(FillError::Internal(text)) => text,
        other => panic!("{other:?}"),
    }
}
