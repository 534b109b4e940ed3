//! Builds plugins from the template in `tests/fixtures`, and loads them.

use std::{
    path::PathBuf,
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

/// A `get` that finds the key itself.
pub(super) const ECHO: &str = "(call $found (local.get $key) (local.get $len))";

/// A function of `lifecycle` that has nothing to say against.
pub(super) const FINE: &str = "(i32.store (i32.const 256) (i32.const 0)) (i32.const 256)";

const TEMPLATE: &str = include_str!("../../../../tests/fixtures/getter.wat");

/// A plugin in the making. Its `core` must define
/// `(func $get (param i32 i32) (result i32))`.
#[derive(Clone)]
pub(super) struct Guest {
    core: String,
    pages: u32,
    realloc: String,
    done: String,
    imports: String,
    core_imports: String,
    lowered: String,
    exports: String,
}

/// A plugin whose `get` is the body `get`, which sees the key as `$key` and `$len`.
pub(super) fn guest(get: &str) -> Guest {
    Guest::of_core(&format!("(func $get (param $key i32) (param $len i32) (result i32) {get})"))
}

/// A plugin that finds the key itself, and misbehaves when that is not empty. There are
/// locals `$i` and `$handle` to misbehave with.
pub(super) fn echo_unless_key(misbehaviour: &str) -> Guest {
    let locals = "(local $i i32) (local $handle i32)";
    guest(&format!("{locals} (if (local.get $len) (then {misbehaviour})) {ECHO}"))
}

impl Guest {
    /// A plugin with these definitions in its core module.
    pub(super) fn of_core(core: &str) -> Self {
        Self {
            core: core.to_owned(),
            pages: 2,
            realloc: String::new(),
            done: String::new(),
            imports: String::new(),
            core_imports: String::new(),
            lowered: String::new(),
            exports: String::new(),
        }
    }

    /// More definitions in the core module.
    pub(super) fn with_core(mut self, core: &str) -> Self {
        self.core.push_str(core);
        self
    }

    /// Memory to begin with, in pages of 64 KiB.
    pub(super) fn pages(mut self, pages: u32) -> Self {
        self.pages = pages;
        self
    }

    /// What `realloc` does first; it sees the wanted length as `(local.get 3)`.
    pub(super) fn with_realloc(mut self, body: &str) -> Self {
        self.realloc.push_str(body);
        self
    }

    /// What `get` does when its answer has been taken: its post-return function.
    pub(super) fn with_done(mut self, body: &str) -> Self {
        self.done.push_str(body);
        self
    }

    /// Definitions at the level of the component, before the core module.
    pub(super) fn with_component(mut self, definitions: &str) -> Self {
        self.imports.push_str(definitions);
        self
    }

    /// Hands the component's core function `$name`, of this type, to the core module.
    pub(super) fn with_host(mut self, name: &str, ty: &str) -> Self {
        self.core_imports.extend([
            "(import \"host\" \"",
            name,
            "\" (func $",
            name,
            " ",
            ty,
            "))\n",
        ]);
        self.lowered.extend(["(export \"", name, "\" (func $", name, "))\n"]);
        self
    }

    /// Definitions and exports at the end of the component.
    pub(super) fn with_exports(mut self, exports: &str) -> Self {
        self.exports.push_str(exports);
        self
    }

    /// Exports `lifecycle` with these bodies, each of which leaves a pointer to a
    /// `result<_, string>`: a byte, then a pointer and a length.
    pub(super) fn with_lifecycle(self, init: &str, check: &str) -> Self {
        self.with_core(&format!(
            "(func (export \"init\") (result i32) {init})
             (func (export \"check\") (result i32) {check})"
        ))
        .with_exports(
            "(func $init (result (result (error string)))
               (canon lift (core func $main \"init\") (memory (core memory $memory))))
             (func $check (result (result (error string)))
               (canon lift (core func $main \"check\") (memory (core memory $memory))))
             (instance $lifecycle (export \"init\" (func $init)) (export \"check\" (func $check)))
             (export \"cachecluster:plugin/lifecycle@0.1.0\" (instance $lifecycle))",
        )
    }

    /// Exports `batch-getter`; `body` sees `$keys`, `$count` and leaves a pointer to a
    /// `result<list<…>, error>`: a byte, then at 8 a pointer and a length.
    pub(super) fn with_batch(self, body: &str) -> Self {
        self.with_core(&format!(
            "(func $many (param $keys i32) (param $count i32) (result i32) {body})
             (func (export \"get-many\") (param i32 i32 i32) (result i32)
               (call $drop-context (local.get 2))
               (call $many (local.get 0) (local.get 1)))"
        ))
        .with_exports(
            "(func $get-many (param \"keys\" (list string)) (param \"ctx\" (borrow $context))
               (result (result (list (result $outcome (error $error))) (error $error)))
               (canon lift (core func $main \"get-many\") (memory (core memory $memory)) (realloc (core func $realloc))
                 (post-return (core func $main \"done\"))))
             (instance $batch-getter (export \"get-many\" (func $get-many)))
             (export \"cachecluster:plugin/batch-getter@0.1.0\" (instance $batch-getter))",
        )
    }

    /// The component in text format.
    pub(super) fn text(&self) -> String {
        TEMPLATE
            .replace("{{pages}}", &self.pages.to_string())
            .replace(";; {{realloc}}", &self.realloc)
            .replace(";; {{done}}", &self.done)
            .replace("{{imports}}", &self.imports)
            .replace("{{core-imports}}", &self.core_imports)
            .replace("{{core}}", &self.core)
            .replace("{{lowered}}", &self.lowered)
            .replace("{{exports}}", &self.exports)
    }

    /// The component.
    pub(super) fn bytes(&self) -> Vec<u8> {
        wat::parse_str(self.text()).unwrap_or_else(|error| panic!("{error}"))
    }
}

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
        let directory = tempfile::tempdir().expect("a directory");
        let settings = Wasm {
            threads: 2,
            instances_max: 16,
            cache_dir: directory.path().join("cache"),
            ..Wasm::default()
        };
        let metrics = Metrics::new();
        let host = PluginHost::start(&settings, groups, metrics.clone()).expect("a host");
        Self { host, metrics, directory }
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

fn plugin_settings(source: PathBuf) -> config::Plugin {
    config::Plugin {
        source,
        digest: None,
        limits: Limits {
            memory: config::ByteSize::mib(4),
            value: config::ByteSize::kib(64),
            timeout: Duration::from_secs(5),
            instances: 4,
            ..Limits::default()
        },
        network: config::Network::default(),
        cache: config::CacheGrant::default(),
        config: std::collections::BTreeMap::new(),
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
