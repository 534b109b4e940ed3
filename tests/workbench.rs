//! The workbench, through the binary: what the author of a plugin does before a node has
//! it. The plugin is the first-party `http`, whose origin the workbench plays.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    command::{self, Ran},
    node::component,
};

fn run(arguments: &[&str]) -> Ran {
    command::run(|command| {
        command.arg("plugin").args(arguments);
    })
}

const MANIFEST: &str = r#"
[plugin]
name = "items"
component = "items.wasm"

[config]
url = "http://{origin}/items/{key}"
ttl = "60s"
negative_ttl = "10s"

[network]
http = ["http://{origin}"]
allow_private = ["127.0.0.0/8"]

[[origin]]
path = "/items/a"
headers = { content-type = "text/plain", etag = '"v1"' }
body = "an item\n"

[[origin]]
path = "/items/locked"
status = 403

[[test]]
name = "an item that exists"
key = "a"
expect = "found"
body = "an item\n"
ttl = "60s"
content_type = "text/plain"
validator = '"v1"'
origin_requests = 1

[[test]]
name = "an item that does not exist"
key = "b"
expect = "not-found"
ttl = "10s"

[[test]]
name = "an item for others"
key = "locked"
expect = "denied"
message_contains = "403"
"#;

/// A project of the http plugin with `more` in its manifest.
fn project(more: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(component("http"), folder.path().join("items.wasm")).expect("to copy");
    fs::write(folder.path().join("plugin.toml"), format!("{MANIFEST}{more}")).expect("to write");
    folder
}

fn name(folder: &TempDir) -> &str {
    folder.path().to_str().expect("UTF-8")
}

#[test]
fn a_project_is_checked_step_by_step() {
    let project = project("");
    let checked = run(&["check", name(&project)]);
    assert_eq!((checked.code, checked.err.as_str()), (0, ""), "{}", checked.out);
    for step in ["manifest", "file", "contract", "imports", "compile", "instance", "lifecycle"] {
        assert!(checked.out.contains(&format!("✓ {step}")), "no {step} in {}", checked.out);
    }
    // The file alone has neither settings nor grants.
    let file = component("http");
    let checked = run(&["check", file.to_str().expect("UTF-8"), "-o", "json"]);
    assert_eq!(checked.code, 1, "{}", checked.err);
    let findings: Value = serde_json::from_str(&checked.out).expect("JSON");
    let of = |step: &str| {
        let findings = findings.as_array().expect("a list");
        findings.iter().find(|finding| finding["step"] == step).expect(step).clone()
    };
    assert_eq!(of("imports")["verdict"], "doubtful");
    assert_eq!(of("lifecycle")["verdict"], "bad");
    assert!(of("lifecycle")["text"].as_str().expect("text").contains("`url`"), "{}", checked.out);
}

#[test]
fn the_tests_of_a_manifest_run_against_the_origin_it_plays() {
    let good = project("");
    let tested = run(&["test", name(&good)]);
    assert_eq!((tested.code, tested.err.as_str()), (0, ""), "{}", tested.out);
    assert!(tested.out.contains("3 passed, 0 failed"), "{}", tested.out);

    let wrong = project(
        "[[test]]\nname = \"a wish\"\nkey = \"a\"\nexpect = \"found\"\nbody = \"an itch\\n\"\n\
         ttl = \"61s\"\norigin_requests = 2\n",
    );
    let tested = run(&["test", name(&wrong)]);
    assert_eq!(tested.code, 1, "{}", tested.err);
    for said in [
        "✓ an item that exists",
        "✗ a wish",
        "ttl: 1m where 1m 1s is expected",
        "\"an item\\n\" where \"an itch\\n\" is expected",
        "asked 1 times where 2 is expected",
        "3 passed, 1 failed",
    ] {
        assert!(tested.out.contains(said), "no {said} in {}", tested.out);
    }
    let only = run(&["test", name(&wrong), "--only", "exist", "-o", "json"]);
    assert_eq!(only.code, 0, "{}", only.out);
    let reports: Value = serde_json::from_str(&only.out).expect("JSON");
    assert_eq!(reports.as_array().expect("a list").len(), 2);
}

#[test]
fn a_call_prints_the_value_and_what_it_took() {
    let project = project("");
    let called = run(&["call", name(&project), "a"]);
    assert_eq!((called.code, called.out.as_str()), (0, "an item\n"), "{}", called.err);
    for said in ["found, 8 bytes", "ttl 1m", "of CPU", "of memory"] {
        assert!(called.err.contains(said), "no {said} in {}", called.err);
    }
    let absent = run(&["call", name(&project), "b", "--fresh"]);
    assert_eq!((absent.code, absent.out.as_str()), (0, ""), "{}", absent.err);
    assert!(absent.err.contains("not-found, ttl 10s"), "{}", absent.err);
    let denied = run(&["call", name(&project), "locked"]);
    assert_eq!((denied.code, denied.out.as_str()), (1, ""), "{}", denied.err);
    let refresh = run(&["call", name(&project), "a", "--set", "ttl=5s"]);
    assert!(refresh.err.contains("ttl 5s"), "{}", refresh.err);
}

#[test]
fn a_bench_counts_every_get_in_both_modes() {
    let project = project("");
    let arguments =
        ["bench", name(&project), "-k", "a", "-k", "b", "--time", "200ms", "--concurrency", "4"];
    let measured = run(&[&arguments[..], &["-o", "json"]].concat());
    assert_eq!((measured.code, measured.err.as_str()), (0, ""), "{}", measured.out);
    let report: Value = serde_json::from_str(&measured.out).expect("JSON");
    for mode in ["warm", "fresh"] {
        let outcome = &report[mode];
        let calls = outcome["calls"].as_u64().expect("a number");
        let answers = outcome["answers"].as_object().expect("answers");
        let counted: u64 = answers.values().filter_map(Value::as_u64).sum();
        assert!(calls > 0 && counted == calls, "{outcome}");
        assert_eq!(outcome["faults"], 0, "{outcome}");
    }
    // A fresh get makes an instance, but for the first, which takes that of the trial.
    let fresh = &report["fresh"];
    assert_eq!(fresh["instances"], fresh["calls"], "{fresh}");
    assert!(report["start_memory_bytes"].as_u64().expect("bytes") > 0);
    let text = run(&arguments);
    assert!(text.out.contains("p99.9") && text.out.contains("gets a second"), "{}", text.out);
}

#[test]
fn the_conformance_suite_comes_with_the_binary() {
    let project = project("");
    let held = run(&["conformance", name(&project)]);
    assert_eq!((held.code, held.err.as_str()), (0, ""), "{}", held.out);
    assert!(held.out.contains("11 passed, 0 failed, 1 skipped"), "{}", held.out);
    assert!(held.out.contains("it does not export batch-getter"), "{}", held.out);

    // Its `url` is a template, which that of an http-getter is not.
    let arguments = ["conformance", name(&project), "--profile", "http-getter"];
    let other = run(&[&arguments[..], &["--case", "found", "-o", "json"]].concat());
    assert_eq!(other.code, 1, "{}", other.err);
    let report: Value = serde_json::from_str(&other.out).expect("JSON");
    assert_eq!(report["passed"], false);
    assert_eq!(report["cases"][0]["warm"]["verdict"], "failed");
    let unknown = run(&["conformance", name(&project), "--case", "fund"]);
    assert!(unknown.code == 2 && unknown.err.contains("known are loads"), "{}", unknown.err);
}

#[test]
fn a_component_says_what_it_is() {
    let file = component("dict");
    let file = file.to_str().expect("UTF-8");
    let inspected = run(&["inspect", file]);
    assert_eq!((inspected.code, inspected.err.as_str()), (0, ""));
    for said in [
        "a component",
        "// sha256:",
        "a getter of track 0.1",
        "package root:component;",
        "export cachecluster:plugin/getter@0.1.0;",
        "package cachecluster:plugin@0.1.0 {",
    ] {
        assert!(inspected.out.contains(said), "no {said} in {}", inspected.out);
    }
    let inspected = run(&["inspect", file, "--summary", "-o", "json"]);
    let summary: Value = serde_json::from_str(&inspected.out).expect("JSON");
    assert_eq!(
        (&summary["kind"], &summary["getter"]["is"]),
        (&"component".into(), &"known".into())
    );
    assert!(summary["wit"].is_null());
}

#[test]
fn a_core_module_is_inspected_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = wat::parse_str("(module $m (import \"a\" \"b\" (func)) (export \"c\" (func 0)))");
    let file = folder.path().join("m.wasm");
    fs::write(&file, module.expect("a module")).expect("to write");
    let inspected = run(&["inspect", file.to_str().expect("UTF-8")]);
    assert_eq!(inspected.code, 0, "{}", inspected.err);
    for said in ["a core module", "imports: a#b", "exports: c", "no getter"] {
        assert!(inspected.out.contains(said), "no {said} in {}", inspected.out);
    }
    fs::write(&file, b"\0asm\x0d\0\x01\0\x01\xff").expect("to write");
    let cut = run(&["inspect", file.to_str().expect("UTF-8")]);
    assert!(cut.code == 1 && cut.err.contains("invalid or truncated"), "{}", cut.err);
}

#[test]
fn what_cannot_be_worked_on_is_refused_with_the_remedy() {
    let empty = tempfile::tempdir().expect("a folder");
    let file = component("http");
    let file = file.to_str().expect("UTF-8");
    let project = project("[[test]]\nname = \"x\"\nkey = \"a\"\nexpct = \"found\"\n");
    for (arguments, code, said) in [
        (&["check", "no-such-folder"][..], 2, "name a component's file or a folder"),
        (&["check", name(&empty)], 2, "has no plugin.toml"),
        (&["test", file], 2, "has no tests"),
        (&["bench", file], 2, "--key"),
        (&["call", file], 2, "KEY"),
        (&["check", name(&project)], 78, "did you mean `expect`?"),
        (&["inspect", file, "--output", "xml"], 2, "json"),
    ] {
        let ran = run(arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(said), "{arguments:?}: no {said} in {}", ran.err);
    }
    fs::write(empty.path().join("x.wasm"), "(component)").expect("to write");
    let text = empty.path().join("x.wasm");
    let checked = run(&["check", text.to_str().expect("UTF-8")]);
    assert_eq!(checked.code, 1, "{}", checked.err);
    assert!(
        checked.out.contains("✗ file") && checked.out.contains("a text file"),
        "{}",
        checked.out
    );
}
