//! The command line, through the binary that users run: results on standard output,
//! remedies on standard error, and exit codes that service managers can act on.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::harness::{
    command::{self, Ran},
    node::{cachecluster, component},
};

/// Runs `arguments` in `folder`, with `env` around it.
fn run_with(folder: &Path, env: &[(&str, &str)], arguments: &[&str]) -> Ran {
    command::run(|command| {
        command.args(arguments).current_dir(folder).envs(env.iter().copied());
    })
}

fn run(folder: &Path, arguments: &[&str]) -> Ran {
    run_with(folder, &[], arguments)
}

/// A folder with `config` in a file of the default name.
fn folder(config: impl AsRef<[u8]>) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("cachecluster.toml"), config).expect("to write the config");
    folder
}

/// A config with the dict plugin from `source`.
fn with_plugin(source: &Path) -> String {
    format!(
        "[plugins.dict]\nsource = {:?}\nconfig = {{ server = \"127.0.0.1:2628\" }}\n\
         [groups.define]\nplugin = \"dict\"\n",
        source.display().to_string()
    )
}

#[test]
fn a_bare_invocation_shows_the_verbs() {
    let here = tempfile::tempdir().expect("a temporary folder");
    let bare = run(here.path(), &[]);
    assert_eq!((bare.code, bare.out.as_str()), (2, ""));
    for verb in ["serve", "reload", "check", "config", "demo"] {
        assert!(bare.err.contains(verb), "{}", bare.err);
    }
    let help = run(here.path(), &["--help"]);
    assert_eq!((help.code, help.err.as_str()), (0, ""));
    assert!(help.out.contains("78 bad configuration"), "{}", help.out);
    assert_eq!(run(here.path(), &["--version"]).code, 0);
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let here = tempfile::tempdir().expect("a temporary folder");
    for arguments in [
        &["--nope"][..],
        &["serv"],
        &["serve", "more"],
        &["config"],
        &["config", "nope"],
        &["check", "--config"],
        &["demo", "--port", "many"],
        &["demo", "--delay", "1h"],
    ] {
        let ran = run(here.path(), arguments);
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.err);
        assert!(!ran.err.is_empty());
    }
}

/// The settings in force by `file`, without where each was set.
fn in_force(folder: &Path, file: &str) -> Vec<String> {
    let shown = run(folder, &["--config", file, "config", "show"]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    let setting =
        |line: &str| line.rsplit_once("  # ").map_or(line, |(it, _)| it).trim().to_owned();
    shown.out.lines().map(setting).collect()
}

#[test]
fn the_ancestors_file_is_read_and_imported() {
    let here = tempfile::tempdir().expect("a temporary folder");
    let sample = include_str!("../host/src/config/golden/ini/readme.ini");
    fs::write(here.path().join("cachecluster.ini"), sample).expect("to write the file");
    let checked = run(here.path(), &["--config", "cachecluster.ini", "check"]);
    assert_eq!(checked.code, 0, "{}", checked.err);
    assert!(checked.err.contains("cachecluster.ini:6:1"), "{}", checked.err);

    let imported = run(here.path(), &["config", "import", "cachecluster.ini"]);
    assert_eq!(imported.code, 0, "{}", imported.err);
    assert!(imported.err.contains("`cluster.heartbeat` is ignored"), "{}", imported.err);
    fs::write(here.path().join("cachecluster.toml"), &imported.out).expect("to write the file");
    let checked = run(here.path(), &["check"]);
    assert_eq!((checked.code, checked.err.as_str()), (0, ""), "{}", imported.out);
    let (old, new) = ("cachecluster.ini", "cachecluster.toml");
    assert_eq!(in_force(here.path(), old), in_force(here.path(), new));

    fs::write(here.path().join("bad.ini"), "[cache]\nport = 90x80\n").expect("to write");
    let bad = run(here.path(), &["config", "import", "bad.ini"]);
    assert_eq!((bad.code, bad.out.as_str()), (78, ""), "{}", bad.err);
    assert!(bad.err.contains("bad.ini:2:8") && bad.err.contains("takes it for 0"), "{}", bad.err);
    let gone = run(here.path(), &["config", "import", "gone.ini"]);
    assert_eq!(gone.code, 78, "{}", gone.err);
}

#[test]
fn a_missing_file_is_named_with_the_remedies() {
    let here = tempfile::tempdir().expect("a temporary folder");
    for verb in [&["serve"][..], &["check"], &["config", "show"]] {
        let ran = run(here.path(), verb);
        assert_eq!(ran.code, 78, "{}", ran.err);
        for said in ["`cachecluster.toml`", "cachecluster config default", "--config", "demo"] {
            assert!(ran.err.contains(said), "no {said} in: {}", ran.err);
        }
    }
    let named = run_with(here.path(), &[("CACHECLUSTER_CONFIG", "other.toml")], &["serve"]);
    assert!(named.code == 78 && named.err.contains("`other.toml`"), "{}", named.err);
    let flag = ["serve", "--config", "third.toml"];
    let flag = run_with(here.path(), &[("CACHECLUSTER_CONFIG", "other.toml")], &flag);
    assert!(flag.code == 78 && flag.err.contains("`third.toml`"), "{}", flag.err);
}

#[test]
fn every_mistake_is_shown_at_once_with_its_place_and_its_fix() {
    let here = folder(
        "[http]\nlisten = \"localhost\"\nthread = 1\n[groups.define]\nplugin = \"dict\"\n\
         [groups.define.cache]\nttl = \"5 parsecs\"\n",
    );
    for verb in ["serve", "check"] {
        let ran = run(here.path(), &[verb]);
        assert_eq!(ran.code, 78, "{}", ran.err);
        assert_eq!(ran.err.matches("error: ").count(), 4, "{}", ran.err);
        for said in ["cachecluster.toml:2:10", "cachecluster.toml:3:1", "cachecluster.toml:5:10"] {
            assert!(ran.err.contains(said), "no {said} in: {}", ran.err);
        }
        for said in ["^^^^", "did you mean `threads`?", "127.0.0.1:8080", "add [plugins.dict]"] {
            assert!(ran.err.contains(said), "no {said} in: {}", ran.err);
        }
    }
    assert!(run(here.path(), &["check"]).out.contains("✗ meaning  4 errors"));
}

#[test]
fn check_tells_phases_and_plugins() {
    let here = folder(with_plugin(&component("dict")));
    let good = run(here.path(), &["check"]);
    assert_eq!((good.code, good.err.as_str()), (0, ""), "{}", good.out);
    let lines = [
        "✓ parse    cachecluster.toml",
        "✓ meaning  1 plugin, 1 group",
        "✓ plugin   dict  sha256:",
    ];
    for line in lines {
        assert!(good.out.contains(line), "{}", good.out);
    }

    let here = folder(with_plugin(Path::new("none.wasm")));
    let bad = run(here.path(), &["check"]);
    assert_eq!(bad.code, 78, "{}", bad.out);
    assert!(bad.out.contains("✗ plugin   dict") && bad.out.contains("none.wasm"), "{}", bad.out);

    // A plugin beside its file, and the file named from elsewhere.
    fs::copy(component("dict"), here.path().join("none.wasm")).expect("to copy");
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let file = here.path().join("cachecluster.toml");
    let file = file.to_str().expect("UTF-8");
    let good = run(elsewhere.path(), &["check", "--config", file]);
    assert_eq!(good.code, 0, "{}{}", good.out, good.err);
}

#[test]
fn the_default_file_passes_the_check_and_the_schema_is_json() {
    let nowhere = tempfile::tempdir().expect("a temporary folder");
    let default = run(nowhere.path(), &["config", "default"]);
    assert_eq!(default.code, 0);
    let here = folder(&default.out);
    let check = run(here.path(), &["check"]);
    assert_eq!((check.code, check.err.as_str()), (0, ""));
    let schema = run(nowhere.path(), &["config", "schema"]);
    assert_eq!(schema.code, 0);
    let schema: serde_json::Value = serde_json::from_str(&schema.out).expect("JSON");
    assert!(schema["properties"]["groups"].is_object());
}

#[test]
fn the_configs_that_the_documentation_shows_are_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for page in ["README.md", "docs/plugins.md"] {
        let text = fs::read_to_string(root.join(page)).expect("the page");
        let shown = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let whole: Vec<_> = shown.filter(|config| config.contains("source = \"plugins/")).collect();
        assert!(!whole.is_empty(), "{page}");
        for config in whole {
            let here = folder(config);
            std::os::unix::fs::symlink(root.join("plugins"), here.path().join("plugins"))
                .expect("to link");
            let ran = run(here.path(), &["check"]);
            assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{page}: {}", ran.out);
        }
    }
}

#[test]
fn the_environment_wins_over_the_file_and_is_checked_like_it() {
    let here = folder("[http]\nlisten = \"127.0.0.1:1111\"\nthreads = 3\n");
    let set = [("CACHECLUSTER_HTTP__LISTEN", "127.0.0.1:2222")];
    let shown = run_with(here.path(), &set, &["config", "show"]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    let line = |name: &str| {
        shown.out.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned()
    };
    assert!(line("127.0.0.1:2222").ends_with("# CACHECLUSTER_HTTP__LISTEN"), "{}", shown.out);
    assert!(line("threads = 3").ends_with("# cachecluster.toml:3"), "{}", shown.out);
    assert!(line("idle_timeout").ends_with("# default"), "{}", shown.out);

    let unknown = run_with(here.path(), &[("CACHECLUSTER_HTTP__LISTN", "x")], &["check"]);
    assert_eq!(unknown.code, 78);
    assert!(unknown.err.contains("`CACHECLUSTER_HTTP__LISTN`"), "{}", unknown.err);
    assert!(unknown.err.contains("did you mean `CACHECLUSTER_HTTP__LISTEN`?"), "{}", unknown.err);
}

#[test]
fn what_is_no_file_of_settings_is_refused_with_the_reason() {
    let here = folder([0xff, 0, 0xfe, b'[', 0x80].repeat(10_000));
    let noise: Vec<u8> =
        (0..10_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(here.path().join("noise.toml"), noise).expect("to write");
    fs::write(here.path().join("huge.toml"), vec![b'#'; 3 << 20]).expect("to write");
    fs::write(here.path().join("nul.toml"), "\0\0\0").expect("to write");
    fs::copy(component("dict"), here.path().join("plugin.toml")).expect("to copy");
    for (file, said) in [
        ("cachecluster.toml", "not UTF-8"),
        ("noise.toml", "not UTF-8"),
        ("plugin.toml", "not UTF-8"),
        ("huge.toml", "larger than 1MiB"),
        (".", "is a folder"),
        ("/dev/zero", "larger than 1MiB"),
        ("nul.toml", "error: "),
    ] {
        let ran = run(here.path(), &["check", "--config", file]);
        assert_eq!(ran.code, 78, "{file}: {}", ran.err);
        assert!(ran.err.contains(said), "{file}: {}", ran.err);
    }
    // What is no file in place of a component; a named pipe would be waited for.
    let made = Command::new("mkfifo").arg(here.path().join("pipe")).status();
    assert!(made.expect("to run mkfifo").success());
    let pipe = here.path().join("pipe");
    for source in [Path::new("."), &pipe, Path::new("/dev/zero")] {
        let ran = run(folder(with_plugin(source)).path(), &["check"]);
        assert_eq!(ran.code, 78, "{}{}", ran.out, ran.err);
        assert!(
            ran.out.contains("✗ plugin   dict") && ran.out.contains("regular file"),
            "{}",
            ran.out
        );
    }
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let here = tempfile::tempdir().expect("a temporary folder");
    for arguments in [["config", "default"], ["config", "schema"]] {
        let mut child = cachecluster()
            .args(arguments)
            .current_dir(here.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("to run");
        let mut first = String::new();
        // The reader ends with this statement, as `head -1` does.
        BufReader::with_capacity(16, child.stdout.take().expect("a pipe"))
            .read_line(&mut first)
            .expect("a line");
        let mut said = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
        assert!(child.wait().expect("an end").success(), "{said}");
        assert_eq!(said, "");
    }
}
