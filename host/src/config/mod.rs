//! Checked settings: everything that can be set about a node.
//!
//! The types below are the single source of truth: the reader, the JSON Schema, the
//! commented default file and the documentation are all made from them. What
//! [`Config::load`] returns has passed every check that needs neither the network nor a
//! plugin; what it refuses, it refuses with all of its [`Reports`] at once.
//!
//! How it is read: `walk` takes the file's values that fit the `shape` made from the
//! types, `environment` puts `CACHECLUSTER_*` over them, `rules` checks what they mean
//! together, and every finding is a `report` with its place and its remedy. A file of this
//! program's ancestor is written anew as TOML first (`ini`).

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod cluster;
mod document;
mod draft;
mod effective;
mod environment;
pub(crate) mod grants;
mod ini;
mod leaf;
pub mod matching;
pub mod peers;
mod read;
pub mod registries;
mod report;
mod rules;
pub(crate) mod secrets;
mod shape;
mod surfaces;
mod template;
#[cfg(test)]
mod tests;
pub mod units;
mod walk;

pub use document::Document;
pub use effective::effective;
pub use matching::{Discovery, Gce, Match};
pub use read::Loaded;
pub use registries::{Doozer, Etcd, ZooKeeper};
pub use report::{Phase, Place, Report, Reports, Severity};
pub use secrets::SecretText;
pub use shape::{schema, schema_text};
pub use surfaces::{Admin, Cluster, Family, Http, Peers};
pub use template::{documentation, template};
pub use units::ByteSize;

/// Settings of one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The front for clients. A reload leaves it as it is: changes wait for a restart.
    pub http: Http,
    /// Health, metrics, status, purges and reloads, for operators. A reload leaves it as
    /// it is: changes wait for a restart.
    pub admin: Admin,
    /// The cluster that this node is a member of. A reload reads the key file again and
    /// applies `seeds`; other changes wait for a restart.
    pub cluster: Cluster,
    /// Which instances of Compute Engine are members of the cluster: those that run, and to which
    /// all of this and of `[meta]` applies. As soon as anything stands here or there, they are
    /// looked for. A reload leaves it as it is: changes wait for a restart.
    #[serde(rename = "match")]
    pub matching: Match,
    /// Metadata of instances, all of which a member has, each with this value, in which case
    /// matters. Projects' metadata does not count. A reload leaves it as it is: changes wait for
    /// a restart.
    pub meta: BTreeMap<String, String>,
    /// Ways of finding members beside `[cluster] seeds`.
    pub discovery: Discovery,
    /// How nodes that share the keys are served and asked. A reload leaves it as it is:
    /// changes wait for a restart.
    pub peers: Peers,
    /// What the node writes about itself. A reload applies `filter`; `format` waits for a
    /// restart.
    pub log: Log,
    /// The host of all plugins. A reload leaves it as it is once there is a plugin:
    /// changes wait for a restart.
    pub wasm: Wasm,
    /// Getter plugins by name. A reload loads those that are new and lets go of those that
    /// are gone; changed settings of one are tried beside what serves before they apply.
    pub plugins: BTreeMap<String, Plugin>,
    /// Groups by name: keyspaces, each with its own getter and memory. A reload adds and
    /// removes groups; one that another plugin is to fill begins empty.
    pub groups: BTreeMap<String, Group>,
}

/// What the node writes about itself, on standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Which records are written, as in `info` or `warn,cachecluster::plugin=debug`.
    pub filter: String,
    /// How records are written: for people or for machines.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text }
    }
}

/// How log records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text a record.
    Text,
    /// One JSON object a line.
    Json,
}

/// The host of all plugins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Wasm {
    /// Threads that run guests. 0: one for each core. Calls that go on computing take
    /// turns on all of them but one, so that other fills find a thread; a hit waits for
    /// none of them.
    #[schemars(range(min = 0, max = 1_024))]
    pub threads: usize,
    /// Live instances of all plugins together. At least the sum of the plugins'
    /// `instances`.
    #[schemars(range(min = 1, max = 100_000))]
    pub instances_max: u32,
    /// Ceiling of any one linear memory. No plugin's `memory` may be above it.
    #[schemars(extend("x-minimum" = "64KiB", "x-maximum" = "4GiB"))]
    pub memory_max: ByteSize,
    /// Where compiled components are kept between starts; it must belong to this
    /// user alone. Empty: `$CACHE_DIRECTORY`, else `$XDG_CACHE_HOME/cachecluster`,
    /// else `~/.cache/cachecluster`; compiled anew at each start when none is usable.
    pub cache_dir: PathBuf,
    /// Where the last good version of each plugin is kept, for a restart while a
    /// plugin's file is bad; it must belong to this user alone. Empty:
    /// `$STATE_DIRECTORY`, else `$XDG_STATE_HOME/cachecluster`, else
    /// `~/.local/state/cachecluster`; nothing is kept when none is usable.
    pub data_dir: PathBuf,
}

impl Default for Wasm {
    fn default() -> Self {
        Self {
            threads: 0,
            instances_max: 256,
            memory_max: ByteSize::mib(256),
            cache_dir: PathBuf::new(),
            data_dir: PathBuf::new(),
        }
    }
}

/// One getter plugin: a WebAssembly component and what it is granted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// The component's file, relative to the config file. Must be set.
    pub source: PathBuf,
    /// Expected digest, as `sha256:` and 64 hexadecimal digits. A component that does
    /// not match is refused. Unset: any component is taken.
    #[serde(default)]
    pub digest: Option<String>,
    /// Whether a new version goes live when the file changes. Off, it does when the
    /// plugin is told to reload. A version that cannot be loaded, or that fails its
    /// probes, leaves the old one serving.
    #[serde(default = "yes")]
    pub watch: bool,
    /// How long a new version must do well before it is trusted. While it is on
    /// probation, faults of its own bring the old version back, and its digest is
    /// not loaded again. Longer sees rarer faults; zero trusts at once.
    #[serde(default = "probation", with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-maximum" = "1day"))]
    pub probation: Duration,
    /// Names the meaning of the plugin's values. When a reload of the settings changes
    /// it, the groups that the plugin fills are purged; otherwise values survive.
    #[serde(default)]
    pub cache_epoch: String,
    /// What a version must answer before it goes live.
    #[serde(default)]
    pub probe: Probe,
    /// What one call and one instance may use.
    #[serde(default)]
    pub limits: Limits,
    /// What becomes of calls that fail, and of a plugin that keeps failing.
    #[serde(default)]
    pub failure: Failure,
    /// What the plugin may reach. Nothing unless named.
    #[serde(default)]
    pub network: Network,
    /// What the plugin may read of the node's own groups.
    #[serde(default)]
    pub cache: CacheGrant,
    /// The plugin's own settings, passed as they stand. Values are strings: a number is
    /// written in quotes.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// Settings of the plugin that are secret: a name, and where its value is read when
    /// the plugin is loaded, `env:VARIABLE` or `file:PATH` (relative to the config file;
    /// one newline at its end is left out). The plugin gets them beside its `config`,
    /// under these names and no others. They are never logged: where a value of six bytes
    /// or more stands in a text of the plugin, it is replaced by its name.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, secrets::SecretText>")]
    pub secrets: BTreeMap<String, String>,
}

impl Plugin {
    /// A plugin from `source` with the default limits and no grants.
    pub fn new(source: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            digest: None,
            watch: yes(),
            probation: probation(),
            cache_epoch: String::new(),
            probe: Probe::default(),
            limits: Limits::default(),
            failure: Failure::default(),
            network: Network::default(),
            cache: CacheGrant::default(),
            config: BTreeMap::new(),
            secrets: BTreeMap::new(),
        }
    }
}

/// What a version of a plugin must answer before it goes live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Probe {
    /// Keys it is asked for. A value or a not-found will do, an error refuses the
    /// version: name keys whose origin can be relied on.
    pub keys: Vec<String>,
    /// The group that it is told the keys belong to.
    pub group: String,
}

fn yes() -> bool {
    true
}

fn probation() -> Duration {
    Duration::from_mins(1)
}

/// What one call and one instance of a plugin may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory of one instance: all its linear memories and tables together.
    #[schemars(extend("x-minimum" = "64KiB", "x-maximum" = "4GiB"))]
    pub memory: ByteSize,
    /// Size of one answer, body and labels together.
    #[schemars(extend("x-minimum" = "1B", "x-maximum" = "1GiB"))]
    pub value: ByteSize,
    /// Wall clock for one call, the wait for its origin included. Longer than the
    /// origin's own timeout, so that the plugin can say what went wrong.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1day"))]
    pub timeout: Duration,
    /// CPU time for one call. A getter waits; one that computes this long is stuck.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1h"))]
    pub cpu: Duration,
    /// Live instances, and so calls at once. An instance serves one call at a time:
    /// a slow origin wants more of them.
    #[schemars(range(min = 1, max = 10_000))]
    pub instances: u32,
    /// Calls that may wait for an instance; one more is refused as overloaded.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub queue: u32,
    /// Calls after which an instance is replaced, give or take a quarter so that they
    /// do not all go at once. 1 gives every call a fresh instance.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub calls: u32,
    /// Host resources (connections, streams, requests) one instance may hold. An instance
    /// that still holds more than half of them after a call is replaced.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub handles: u32,
    /// Time after which an unused instance is dropped; one is kept warm.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms"))]
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: ByteSize::mib(64),
            value: ByteSize::mib(1),
            timeout: Duration::from_secs(10),
            cpu: Duration::from_secs(1),
            instances: 16,
            queue: 1_024,
            calls: 128,
            handles: 1_024,
            idle: Duration::from_secs(30),
        }
    }
}

/// What becomes of calls that fail, and of a plugin that keeps failing.
///
/// A fault is a trap, a call out of time, CPU or memory, an answer that breaks the
/// contract, or one of the errors `unavailable`, `timed-out` and `internal`. Too many of
/// them open the plugin's breaker: for a while nobody asks it, and what is in memory is
/// served for its grace. Then one call finds out whether it answers again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Failure {
    /// Fills in a row, within `window`, whose calls end in a fault and that open the
    /// breaker: this is what an origin that is down looks like. A plugin with several
    /// origins wants more of them. 0: never for these.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub faults: u32,
    /// Share of faults among the calls within `window` above which the breaker opens:
    /// this is what an origin in trouble looks like. 1.0: never for their share.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub ratio: f64,
    /// Calls within `window` from which on their share of faults means something.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub calls_min: u32,
    /// Time over which calls are counted.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "100ms", "x-maximum" = "1h"))]
    pub window: Duration,
    /// How long the breaker stays open at first; doubles each time the plugin is found
    /// to be no better. Clients are told to come back after it.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1day"))]
    pub open: Duration,
    /// Upper bound of the doubling, and so the time after which the end of a long outage
    /// is noticed.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1day"))]
    pub open_max: Duration,
    /// How often a call that ends in `unavailable` is tried again for the same fill, as
    /// far as its time allows. 0: never.
    #[schemars(range(min = 0, max = 10))]
    pub retries: u32,
    /// How often a call that ends in a trap is tried again, in a fresh instance. A
    /// program that fails once on a key does so again as a rule.
    #[schemars(range(min = 0, max = 1))]
    pub trap_retries: u32,
    /// Pause before the first retry; doubles with each further one. The origin may ask
    /// for a longer one.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1h"))]
    pub backoff: Duration,
    /// Upper bound of the doubling.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1h"))]
    pub backoff_max: Duration,
    /// Calls for one key in a row that each cost an instance (a trap, a call out of CPU or
    /// memory) after which the key is left alone. 0: never.
    #[schemars(range(min = 0, max = 1_000))]
    pub poison_faults: u32,
    /// How long such a key is left alone at first; doubles with each further such call.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1day"))]
    pub poison: Duration,
    /// Upper bound of the doubling.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1day"))]
    pub poison_max: Duration,
    /// How often a plugin that exports `lifecycle` is asked to check itself while it
    /// serves; an error is a fault. Zero: never.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-maximum" = "1day"))]
    pub check: Duration,
}

impl Default for Failure {
    fn default() -> Self {
        Self {
            faults: 5,
            ratio: 0.5,
            calls_min: 20,
            window: Duration::from_secs(10),
            open: Duration::from_secs(1),
            open_max: Duration::from_secs(30),
            retries: 2,
            trap_retries: 0,
            backoff: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            poison_faults: 3,
            poison: Duration::from_secs(30),
            poison_max: Duration::from_mins(10),
            check: Duration::from_secs(30),
        }
    }
}

/// What a plugin may reach. An empty list grants nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Origins for HTTP, as `https://api.example.com`, `http://10.0.0.5:8000` or
    /// `https://*.example.com`. Without a port: 443 for https, 80 for http.
    pub http: Vec<String>,
    /// Hosts and ports for raw TCP, as `dict.org:2628`.
    pub tcp: Vec<String>,
    /// Address ranges that are refused unless listed, as `127.0.0.0/8` or
    /// `10.1.0.0/16`: loopback, private and other special ranges. The link-local
    /// range with the metadata server is refused even when listed.
    pub allow_private: Vec<String>,
    /// Files of certificates (PEM) of the authorities that https may trust beside those
    /// that this machine trusts, relative to the config file.
    pub ca_files: Vec<PathBuf>,
    /// Connections in use at once, over HTTP and raw TCP together; as many HTTP
    /// connections again may be kept open for later requests. A request waits for its
    /// turn, a raw connection is refused.
    #[schemars(range(min = 1, max = 10_000))]
    pub connections_max: u32,
    /// HTTP requests and raw TCP connections begun in a second, in the long run. One more
    /// waits for its turn, or fails if its call would be over by then. 0: as many as come.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub requests_per_second: u32,
    /// How many of them may begin at once after a quiet time.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_burst: u32,
    /// Bytes one HTTP request body may have, and one call may send over raw TCP for each of
    /// its keys.
    #[schemars(extend("x-minimum" = "1B", "x-maximum" = "4GiB"))]
    pub request_max: ByteSize,
    /// Bytes one HTTP response body may have, and one call may receive over raw TCP for
    /// each of its keys.
    #[schemars(extend("x-minimum" = "1B", "x-maximum" = "4GiB"))]
    pub response_max: ByteSize,
    /// Bytes a second that an HTTP response body must bring on average, once it was
    /// waited for longer than ten seconds; a slower one is ended. `0B`: any.
    #[schemars(extend("x-maximum" = "1GiB"))]
    pub response_rate_min: ByteSize,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            http: Vec::new(),
            tcp: Vec::new(),
            allow_private: Vec::new(),
            ca_files: Vec::new(),
            connections_max: 64,
            requests_per_second: 0,
            requests_burst: 100,
            request_max: ByteSize::mib(1),
            response_max: ByteSize::mib(8),
            response_rate_min: ByteSize::bytes(128),
        }
    }
}

/// What a plugin may read of the node's own groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheGrant {
    /// Names of the groups the plugin may get from.
    pub read: Vec<String>,
}

/// A keyspace with its own getter and its own memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The plugin that fills this group's misses. Must be set.
    pub plugin: String,
    /// How the group caches. A reload keeps the contents: a smaller `memory` drops at once
    /// what it has no room for, and lifetimes apply to what is filled from then on.
    #[serde(default)]
    pub cache: Caching,
}

impl Group {
    /// A group that `plugin` fills, with the default caching.
    pub fn new(plugin: impl Into<String>) -> Self {
        Self { plugin: plugin.into(), cache: Caching::default() }
    }
}

/// How a group caches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Caching {
    /// Memory for keys, values and their bookkeeping.
    #[schemars(extend("x-minimum" = "64KiB"))]
    pub memory: ByteSize,
    /// Size of the largest value that is kept; a larger one is passed on, not stored.
    #[schemars(extend("x-minimum" = "1B"))]
    pub value_max: ByteSize,
    /// How long a value is fresh when its getter does not say.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms"))]
    pub ttl: Duration,
    /// Lower bound of what a getter may say, except that a TTL of zero is never kept.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub ttl_min: Duration,
    /// Upper bound of what a getter may say. At most 30 days.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms"))]
    pub ttl_max: Duration,
    /// Share of the TTL, 0.0 to 0.5, by which each value's own is shortened at random,
    /// so that values filled together do not expire together.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub ttl_jitter: f64,
    /// How long a stale value may be served, while it is refreshed or its origin
    /// fails, when its getter does not say.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub grace: Duration,
    /// Upper bound of the grace a getter may say. At most 30 days.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub grace_max: Duration,
    /// How long it is remembered that a key does not exist, when its getter does not
    /// say.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub negative_ttl: Duration,
    /// How long a failing key is left alone after its first failure; doubles with
    /// each further one.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms"))]
    pub backoff: Duration,
    /// Upper bound of the doubling.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms"))]
    pub backoff_max: Duration,
    /// Time for one fill. It goes on when the request that caused it has gone.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1day"))]
    pub fill_timeout: Duration,
    /// Fills under way at once; one more is refused as overloaded.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub fills_max: usize,
    /// How long a miss waits for others to share its trip, where the getter takes
    /// several keys at once. Zero: never.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-maximum" = "10s"))]
    pub batch_window: Duration,
    /// Keys in one trip at most.
    #[schemars(range(min = 1, max = 10_000))]
    pub batch_max: usize,
}

impl Default for Caching {
    fn default() -> Self {
        Self {
            memory: ByteSize::mib(64),
            value_max: ByteSize::mib(1),
            ttl: Duration::from_mins(10),
            ttl_min: Duration::ZERO,
            ttl_max: Duration::from_hours(24 * 30),
            ttl_jitter: 0.1,
            grace: Duration::from_mins(1),
            grace_max: Duration::from_hours(24),
            negative_ttl: Duration::from_secs(30),
            backoff: Duration::from_secs(1),
            backoff_max: Duration::from_secs(30),
            fill_timeout: Duration::from_secs(10),
            fills_max: 1_024,
            batch_window: Duration::from_millis(1),
            batch_max: 64,
        }
    }
}
