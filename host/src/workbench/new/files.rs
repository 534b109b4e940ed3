//! The files of a new project, as they stand in this repository: the examples, the
//! contract and the SDK. What a project begins with is what our own tests build.

/// A file of a project: where it goes, and what is in it.
pub(super) type File = (&'static str, &'static str);

/// A file of the example in the folder `$from`, at the same place in the project.
macro_rules! example {
    ($from:literal, $name:literal) => {
        ($name, include_str!(concat!("../../../../examples/plugins/", $from, "/", $name)))
    };
}

/// A file of the contract, in the project's folder `$to`.
macro_rules! contract {
    ($to:literal, $name:literal) => {
        (concat!($to, "/", $name), include_str!(concat!("../../../../wit/0.1/", $name)))
    };
}

/// A file of WASI.
macro_rules! wasi {
    ($name:literal) => {
        (
            concat!("wit/deps/", $name),
            include_str!(concat!("../../../../examples/plugins/wit/deps/", $name)),
        )
    };
}

/// A source file of the SDK.
macro_rules! sdk {
    ($name:literal) => {
        (concat!("sdk/src/", $name), include_str!(concat!("../../../../plugin-sdk/src/", $name)))
    };
}

/// What a plugin may import and export, for languages whose bindings are made from it.
pub(super) const INTERFACES: [File; 18] = [
    ("wit/world.wit", include_str!("../../../../examples/plugins/wit/world.wit")),
    contract!("wit/deps/cachecluster-plugin", "batch-getter.wit"),
    contract!("wit/deps/cachecluster-plugin", "cache.wit"),
    contract!("wit/deps/cachecluster-plugin", "config.wit"),
    contract!("wit/deps/cachecluster-plugin", "getter.wit"),
    contract!("wit/deps/cachecluster-plugin", "lifecycle.wit"),
    contract!("wit/deps/cachecluster-plugin", "logging.wit"),
    contract!("wit/deps/cachecluster-plugin", "metrics.wit"),
    contract!("wit/deps/cachecluster-plugin", "package.wit"),
    contract!("wit/deps/cachecluster-plugin", "types.wit"),
    contract!("wit/deps/cachecluster-plugin", "worlds.wit"),
    wasi!("wasi-cli.wit"),
    wasi!("wasi-clocks.wit"),
    wasi!("wasi-filesystem.wit"),
    wasi!("wasi-http.wit"),
    wasi!("wasi-io.wit"),
    wasi!("wasi-random.wit"),
    wasi!("wasi-sockets.wit"),
];

/// The SDK with the contract that its bindings are made from. It is on no registry, so that a
/// project brings its own.
pub(super) const SDK: [File; 32] = [
    ("sdk/Cargo.toml", include_str!("sdk.toml")),
    ("sdk/LICENSE", include_str!("../../../../LICENSE-MIT")),
    sdk!("answer.rs"),
    sdk!("bindings.rs"),
    sdk!("cache.rs"),
    sdk!("clock.rs"),
    sdk!("config.rs"),
    sdk!("context.rs"),
    sdk!("error.rs"),
    sdk!("getter.rs"),
    sdk!("http.rs"),
    sdk!("http/wasi.rs"),
    sdk!("lib.rs"),
    sdk!("log.rs"),
    sdk!("metrics.rs"),
    sdk!("net.rs"),
    sdk!("net/native.rs"),
    sdk!("net/wasi.rs"),
    sdk!("testing.rs"),
    sdk!("testing/call.rs"),
    sdk!("testing/host.rs"),
    sdk!("testing/http.rs"),
    contract!("wit/0.1", "batch-getter.wit"),
    contract!("wit/0.1", "cache.wit"),
    contract!("wit/0.1", "config.wit"),
    contract!("wit/0.1", "getter.wit"),
    contract!("wit/0.1", "lifecycle.wit"),
    contract!("wit/0.1", "logging.wit"),
    contract!("wit/0.1", "metrics.wit"),
    contract!("wit/0.1", "package.wit"),
    contract!("wit/0.1", "types.wit"),
    contract!("wit/0.1", "worlds.wit"),
];

/// A getter in Rust.
pub(super) const RUST: [File; 6] = [
    example!("rust", ".gitignore"),
    example!("rust", "README.md"),
    example!("rust", "cachecluster.toml"),
    example!("rust", "plugin.toml"),
    example!("rust", "src/lib.rs"),
    ("Cargo.toml", include_str!("rust.toml")),
];

/// A getter in C.
pub(super) const C: [File; 7] = [
    example!("c", ".gitignore"),
    example!("c", "README.md"),
    example!("c", "cachecluster.toml"),
    example!("c", "plugin.toml"),
    example!("c", "src/getter.c"),
    example!("c", "src/http.c"),
    example!("c", "src/http.h"),
];

/// A getter in JavaScript.
pub(super) const JS: [File; 6] = [
    example!("js", ".gitignore"),
    example!("js", "README.md"),
    example!("js", "cachecluster.toml"),
    example!("js", "plugin.toml"),
    example!("js", "getter.js"),
    example!("js", "package.json"),
];

/// A getter in Python.
pub(super) const PYTHON: [File; 5] = [
    example!("python", ".gitignore"),
    example!("python", "README.md"),
    example!("python", "cachecluster.toml"),
    example!("python", "plugin.toml"),
    example!("python", "app.py"),
];

/// A getter in Go.
pub(super) const GO: [File; 8] = [
    example!("go", ".gitignore"),
    example!("go", "README.md"),
    example!("go", "cachecluster.toml"),
    example!("go", "plugin.toml"),
    example!("go", "export_cachecluster_plugin_getter/getter.go"),
    example!("go", "go.mod"),
    example!("go", "main.go"),
    example!("go", "origin/origin.go"),
];
