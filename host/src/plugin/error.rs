//! Why the host or a plugin does not come up. Each text names the plugin, the
//! problem, and what would help.

use std::{io, path::PathBuf, time::Duration};

use thiserror::Error;

/// Why the plugin host does not start.
#[derive(Debug, Error)]
pub enum HostError {
    /// Wasmtime refuses its configuration or the machine.
    #[error("cannot set up the WebAssembly engine: {0}")]
    Engine(wasmtime::Error),
    /// The host's own functions do not fit together: a defect of this program.
    #[error("cannot offer the host's functions to plugins: {0}")]
    Linker(wasmtime::Error),
    /// No thread for the ticker.
    #[error("cannot start the thread that interrupts guests: {0}")]
    Ticker(io::Error),
    /// No threads that compile.
    #[error("cannot start the threads that compile plugins: {0}")]
    Compilers(rayon_core::ThreadPoolBuildError),
    /// No threads for guests.
    #[error("cannot start the threads that run guests: {0}")]
    Runtime(io::Error),
}

/// Why a plugin cannot be loaded. Nothing of it runs or stays in memory.
#[derive(Debug, Error)]
#[error("plugin `{plugin}`: {problem}")]
pub struct LoadError {
    /// Name of the plugin in the configuration.
    pub plugin: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a component or its settings.
#[derive(Debug, Error)]
pub enum Problem {
    /// Its file does not exist.
    #[error(
        "there is no file {}; check `source`, which is relative to the config file",
        .0.display()
    )]
    NotFound(PathBuf),
    /// Its file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Its file is larger than any component we would compile.
    #[error("the file has {bytes} bytes, and {max} are the most; strip its debug information")]
    TooLarge {
        /// Size of the file.
        bytes: u64,
        /// The most that is taken.
        max: u64,
    },
    /// The file has nothing in it.
    #[error("the file is empty")]
    Empty,
    /// The file is not WebAssembly at all.
    #[error("this is {what}, not a WebAssembly component; give the built `.wasm` file")]
    NotWasm {
        /// What it looks like.
        what: &'static str,
    },
    /// A module of WebAssembly that does not say which interfaces it has, so that no
    /// component can be made of it.
    #[error(
        "this is a core WebAssembly module that names no interfaces, not a component; build it \
         with `cachecluster plugin build`, or for `wasm32-wasip2`, or embed its interfaces with \
         `wasm-tools component embed wit module.wasm -o plugin.wasm`"
    )]
    CoreModule,
    /// A module of WebAssembly that names interfaces, but not those that it has.
    #[error("this is a core WebAssembly module from which no component can be made: {0}")]
    Componentize(String),
    /// Already compiled to machine code, which would run outside the sandbox.
    #[error(
        "this is a precompiled artefact, which is never accepted: it would run outside the \
         sandbox; give the portable `.wasm` component"
    )]
    Precompiled,
    /// A WebAssembly binary of a version we do not know.
    #[error("this WebAssembly binary has the unknown version {version:#x}")]
    UnknownVersion {
        /// Version and layer as they stand in the header.
        version: u32,
    },
    /// Another component than the settings name.
    #[error("its digest is {actual}, but the settings pin {expected}")]
    DigestMismatch {
        /// What the file has.
        actual: String,
        /// What the settings say.
        expected: String,
    },
    /// A component that does not validate: truncated, damaged, or with features this
    /// node does not run.
    #[error("the component is invalid or truncated: {0}")]
    Invalid(String),
    /// A component whose functions go on after they have returned, or whose values are
    /// streams and futures.
    #[error(
        "the component is asynchronous, and this node calls plugins synchronously ({0}); build it \
         for WASI 0.2 (`wasm32-wasip2`), without `async` functions, streams and futures"
    )]
    Async(String),
    /// Compiling takes too long.
    #[error(
        "compiling took longer than {} s; try again when the machine has less to do, or simplify \
         the component",
        .0.as_secs()
    )]
    CompileTimeout(Duration),
    /// Built against a version of the contract that this node does not speak.
    #[error(
        "it is built against `{interface}`, and this node speaks track {}; rebuild it with the \
         SDK of that track",
        super::bindings::TRACK
    )]
    WrongTrack {
        /// The interface as the component names it.
        interface: String,
    },
    /// It does not export what a getter must.
    #[error(
        "it does not export `{}`; a plugin must implement `get` of that interface",
        super::bindings::GETTER
    )]
    NoGetter,
    /// It needs something that no plugin is offered.
    #[error(
        "it imports `{interface}`, which this node does not offer; plugins may use WASI 0.2 and \
         the interfaces of `cachecluster:plugin@0.1`"
    )]
    Import {
        /// The interface as the component names it.
        interface: String,
    },
    /// It names an interface that we have but with functions or types that we do not.
    #[error("an import does not match what this node offers: {0}")]
    ImportType(String),
    /// It exports a known interface with functions or types that are not the contract's.
    #[error("its export `{interface}` does not match the contract: {message}")]
    Export {
        /// The interface.
        interface: &'static str,
        /// What differs.
        message: String,
    },
    /// More memories, tables or instances than the pool has for one component.
    #[error("it needs more than an instance may have: {0}")]
    Resources(String),
    /// The settings grant something that is not understood.
    #[error("{0}")]
    Grant(String),
    /// A secret that the settings name is not where they say.
    #[error("`secrets.{name}`: {reason}")]
    Secret {
        /// The plugin's name for it.
        name: String,
        /// What is wrong, and what would help.
        reason: String,
    },
    /// An instance cannot be made within the plugin's limits.
    #[error("a first instance failed: {0}")]
    Instantiate(String),
    /// The plugin says that it cannot work, or fails while it prepares.
    #[error("`lifecycle.{function}` failed: {message}")]
    Lifecycle {
        /// `init` or `check`.
        function: &'static str,
        /// What it says, or how it failed.
        message: String,
        /// Whether it failed rather than said so: it trapped, say.
        is_fault: bool,
    },
    /// The trial did not end in time.
    #[error("its trial at load (instantiate, init, check) took longer than {} s", .0.as_secs())]
    TrialTimeout(Duration),
    /// A key that it is to be tried with got no answer.
    #[error("its probe failed: get of key `{key}` (probe.keys): {message}")]
    Probe {
        /// The key, shortened.
        key: String,
        /// What it said, or how it failed.
        message: String,
    },
    /// This very code was taken back before.
    #[error(
        "this version ({digest}) failed while it served and was taken back; publish a new one, or \
         let it try again with `cachecluster reload --plugin`"
    )]
    Quarantined {
        /// The digest of its file.
        digest: String,
    },
    /// The host is shutting down.
    #[error("the plugin host is shutting down")]
    Shutdown,
}
