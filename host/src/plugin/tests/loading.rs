//! What is refused before it serves, and in which words.

use std::time::Duration;

use super::guest::{Bench, ECHO, FINE, Guest, guest};
use crate::plugin::Problem;

fn echo() -> Guest {
    guest(ECHO)
}

/// Why these bytes are not loaded.
async fn refusal(bench: &Bench, bytes: &[u8]) -> String {
    let error = bench.load_bytes(bytes, |_| ()).await.map(|_| ()).expect_err("refused");
    error.to_string()
}

/// That `text` names the plugin and says all of `parts`.
fn says(text: &str, parts: &[&str]) {
    assert!(text.starts_with("plugin `p`: "), "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[tokio::test]
async fn what_is_not_a_component_is_refused_by_what_it_is() {
    let bench = Bench::new();
    says(&refusal(&bench, b"").await, &["empty"]);
    says(&refusal(&bench, b"(component)").await, &["a text file", ".wasm"]);
    says(&refusal(&bench, &[0x13; 99]).await, &["some other file"]);
    let module = wat::parse_str("(module)").expect("a module");
    says(
        &refusal(&bench, &module).await,
        &["core WebAssembly module", "wasm-tools component embed"],
    );
    let artefact =
        bench.host.loader.engine.precompile_component(&echo().bytes()).expect("compiled");
    says(&refusal(&bench, &artefact).await, &["precompiled", "sandbox"]);
    let program = bench.load_bytes(&[], |p| p.source = "/bin/sh".into()).await.map(|_| ());
    says(&program.expect_err("no component").to_string(), &["a native program"]);
}

#[tokio::test]
async fn a_truncated_component_is_refused_wherever_it_ends() {
    let bench = Bench::new();
    let whole = echo().bytes();
    for end in [9, 100, whole.len() / 2, whole.len() - 1] {
        says(&refusal(&bench, &whole[..end]).await, &["invalid or truncated"]);
    }
}

#[tokio::test]
async fn a_file_that_is_too_large_is_not_read() {
    let bench = Bench::new();
    let text = bench
        .load_bytes(&[], |p| p.source = "/dev/zero".into())
        .await
        .map(|_| ())
        .expect_err("not a file");
    says(&text.to_string(), &["regular file"]);
    let large = bench.file().with_file_name("large.wasm");
    let file = std::fs::File::create(&large).expect("a file");
    file.set_len(100 << 20).expect("of a hundred mebibytes");
    let error = bench.load_bytes(&[], |p| p.source = large).await.map(|_| ());
    let error = error.expect_err("too large");
    assert!(matches!(error.problem, Problem::TooLarge { bytes: 0x640_0000, .. }), "{error}");
    let error = bench.load_bytes(&[], |p| p.source = "absent.wasm".into()).await.map(|_| ());
    let error = error.expect_err("not there");
    assert!(matches!(error.problem, Problem::NotFound(_)));
    says(&error.to_string(), &["absent.wasm", "source"]);
}

#[tokio::test]
async fn a_pinned_digest_must_match() {
    let bench = Bench::new();
    let bytes = echo().bytes();
    let plugin = bench.load_bytes(&bytes, |_| ()).await.expect("unpinned");
    let digest = plugin.digest();
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{digest}");
    let pin = digest.to_uppercase().replace("SHA256", "sha256");
    bench.load_bytes(&bytes, |p| p.digest = Some(pin)).await.expect("pinned");
    let other = format!("sha256:{}", "0".repeat(64));
    let error = bench.load_bytes(&bytes, |p| p.digest = Some(other.clone())).await.map(|_| ());
    says(&error.expect_err("another").to_string(), &[&digest, &other]);
}

#[tokio::test]
async fn a_missing_import_is_named() {
    let bench = Bench::new();
    for (interface, why) in [
        ("acme:database/query@1.0.0", "does not offer"),
        ("wasi:http/handler@0.3.0", "WASI 0.2"),
        ("cachecluster:plugin/cache@0.2.0", "track 0.1"),
    ] {
        let import = format!("(import \"{interface}\" (instance (export \"f\" (func))))");
        let text = bench.refusal(&echo().with_component(&import)).await;
        says(&text, &[interface, why]);
    }
}

#[tokio::test]
async fn an_import_with_other_functions_or_types_is_named() {
    let bench = Bench::new();
    for import in [
        "(import \"cachecluster:plugin/config@0.1.0\" (instance (export \"set\" (func))))",
        "(import \"cachecluster:plugin/config@0.1.0\" (instance
           (export \"get\" (func (param \"key\" u32)))))",
    ] {
        let text = bench.refusal(&echo().with_component(import)).await;
        says(&text, &["cachecluster:plugin/config@0.1.0", "does not match"]);
    }
}

#[tokio::test]
async fn a_component_of_a_newer_patch_of_the_track_is_taken() {
    let bench = Bench::new();
    let newer = echo().text().replace("@0.1.0", "@0.1.9");
    let bytes = wat::parse_str(newer).expect("a component");
    bench.load_bytes(&bytes, |_| ()).await.expect("loaded");
    // And of a newer patch of WASI than this node has ever heard of.
    for version in ["@0.2.0", "@0.2.1", "@0.2.99"] {
        let newer = echo().with_clock().text().replace("@0.2.0", version);
        let bytes = wat::parse_str(newer).expect("a component");
        bench.load_bytes(&bytes, |_| ()).await.expect(version);
    }
}

#[tokio::test]
async fn a_component_that_needs_concurrent_calls_is_refused() {
    let bench = Bench::new();
    // A function that returns before it has answered.
    let lifted = "(core module $async
           (func (export \"f\") (result i32) (i32.const 0))
           (func (export \"on\") (param i32 i32 i32) (result i32) (i32.const 0)))
         (core instance $async (instantiate $async))
         (func $f (canon lift (core func $async \"f\") async
           (callback (core func $async \"on\"))))";
    let text = bench.refusal(&echo().with_component(lifted)).await;
    says(&text, &["asynchronous", "canonical option `async`", "wasm32-wasip2"]);
    // An answer that is a stream.
    let stream = "(type $bytes (stream u8)) (core func $new (canon stream.new $bytes))";
    let text = bench.refusal(&echo().with_component(stream)).await;
    says(&text, &["asynchronous", "`stream`", "wasm32-wasip2"]);
}

#[tokio::test]
async fn a_component_of_another_track_is_refused() {
    let bench = Bench::new();
    let other = echo().text().replace("@0.1.0", "@0.2.0");
    let bytes = wat::parse_str(other).expect("a component");
    says(&refusal(&bench, &bytes).await, &["@0.2.0", "track 0.1", "rebuild"]);
}

#[tokio::test]
async fn a_component_without_a_getter_is_refused() {
    let bench = Bench::new();
    let bytes = wat::parse_str("(component)").expect("a component");
    says(&refusal(&bench, &bytes).await, &["does not export", "cachecluster:plugin/getter@0.1.0"]);
}

#[tokio::test]
async fn a_getter_without_get_or_with_another_get_is_refused() {
    let bench = Bench::new();
    let parts = ["cachecluster:plugin/getter@0.1.0", "does not match the contract"];
    let empty = echo().text().replace("(export \"get\" (func $get))", "");
    let bytes = wat::parse_str(empty).expect("a component");
    says(&refusal(&bench, &bytes).await, &parts);

    let other = echo().text().replace(
        "(instance $getter (export \"get\" (func $get)))",
        "(func $other (canon lift (core func $libc \"reset\")))
         (instance $getter (export \"get\" (func $other)))",
    );
    let bytes = wat::parse_str(other).expect("a component");
    says(&refusal(&bench, &bytes).await, &parts);
}

#[tokio::test]
async fn an_optional_export_must_be_whole() {
    let bench = Bench::new();
    for interface in ["batch-getter", "lifecycle"] {
        let name = format!("cachecluster:plugin/{interface}@0.1.0");
        let empty = format!("(instance $optional) (export \"{name}\" (instance $optional))");
        let text = bench.refusal(&echo().with_exports(&empty)).await;
        says(&text, &[&name, "does not match the contract"]);
    }
    // A slip of the pen in a function's type must not make the export vanish.
    let text = bench
        .refusal(&echo().with_exports(
            "(func $init (canon lift (core func $libc \"reset\")))
             (instance $lifecycle (export \"init\" (func $init)) (export \"check\" (func $init)))
             (export \"cachecluster:plugin/lifecycle@0.1.0\" (instance $lifecycle))",
        ))
        .await;
    says(&text, &["lifecycle", "does not match the contract"]);
}

const BAD: &str = "(i32.store8 (i32.const 256) (i32.const 1))
    (i32.store (i32.const 260) (i32.const 2048)) (i32.store (i32.const 264) (i32.const 4))
    (i32.const 256)";

#[tokio::test]
async fn a_plugin_that_cannot_work_says_why() {
    let bench = Bench::new();
    let text = bench.refusal(&echo().with_lifecycle(BAD, FINE)).await;
    says(&text, &["lifecycle.init", "text"]);
    let text = bench.refusal(&echo().with_lifecycle(FINE, BAD)).await;
    says(&text, &["lifecycle.check", "text"]);
    let text = bench.refusal(&echo().with_lifecycle("unreachable", FINE)).await;
    says(&text, &["lifecycle.init", "panicked"]);
    let text = bench.refusal(&echo().with_core("(func $f unreachable) (start $f)")).await;
    says(&text, &["panicked"]);
    bench.load(&echo().with_lifecycle(FINE, FINE)).await;
}

#[tokio::test]
async fn a_start_function_or_an_init_that_hangs_is_stopped() {
    let bench = Bench::new();
    let spin = "(func $spin (loop (br 0)))";
    let endless = [
        echo().with_core(&format!("{spin} (start $spin)")),
        echo().with_lifecycle("(loop (br 0)) unreachable", FINE),
    ];
    for guest in endless {
        let error = bench
            .load_bytes(&guest.bytes(), |p| p.limits.cpu = Duration::from_millis(50))
            .await
            .map(|_| ())
            .expect_err("stopped");
        says(&error.to_string(), &["limits.cpu"]);
    }
}

#[tokio::test]
async fn a_plugin_that_starts_with_more_memory_than_its_limit_is_refused() {
    let bench = Bench::new();
    let text = bench.refusal(&echo().pages(100)).await;
    says(&text, &["limits.memory", "4MiB"]);
    // More than any plugin may have: the pool has no such slot.
    let text = bench.refusal(&echo().pages(5_000)).await;
    says(&text, &["more than an instance may have"]);
}

#[tokio::test]
async fn a_grant_that_is_not_understood_is_refused() {
    let bench = Bench::new();
    let bytes = echo().bytes();
    let tcp = bench.load_bytes(&bytes, |p| p.network.tcp = vec!["dict.org".into()]).await;
    says(&tcp.map(|_| ()).expect_err("refused").to_string(), &["network.tcp", "dict.org:2628"]);
    let http = bench.load_bytes(&bytes, |p| p.network.http = vec!["https://a/b".into()]).await;
    says(&http.map(|_| ()).expect_err("refused").to_string(), &["network.http", "path"]);
}
