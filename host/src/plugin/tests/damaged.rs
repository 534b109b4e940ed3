//! Components that are damaged, or were made to be: each is refused in words that can
//! stand in a log, or works.

use std::{path::Path, sync::Arc, time::Duration};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tokio::{runtime::Runtime, time::Instant};

use super::{
    guest::{Bench, ECHO, FINE, fill, guest, settings},
    modules::{GETTER, PLUGIN, module},
};
use crate::plugin::{
    component::{Source, digest},
    generation::Generation,
    imports::CallContext,
    instance::Instance,
    loader::{Code, Recipe},
};

fn run<T: Strategy>(cases: u32, strategy: &T, test: impl Fn(T::Value)) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(strategy, |value| {
        test(value);
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

/// What becomes of a file with these bytes, once nobody writes to it any more: a clear
/// refusal, or a generation.
async fn judge(bench: &Bench, bytes: Vec<u8>) -> Option<Generation> {
    let settings = settings(|p| p.limits.cpu = Duration::from_millis(50));
    let recipe = Recipe { settings: Arc::new(settings), base_dir: Path::new("/").into() };
    let code = Code::Source(Source { digest: digest(&bytes), bytes: bytes.into() });
    let loader = &bench.host.loader;
    match loader.generation(&loader.identity("p"), &recipe, code, None).await {
        Ok(generation) => Some(generation),
        Err(problem) => {
            is_clear(&problem.to_string());
            None
        }
    }
}

/// That `text` can stand in a log, and does not speak of a defect of ours.
fn is_clear(text: &str) {
    assert!(!text.is_empty() && text.len() < 4_096, "{} bytes", text.len());
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(!text.contains("defect"), "{text}");
}

#[test]
fn a_component_with_a_few_flipped_bits_is_refused_or_works() {
    let runtime = Runtime::new().expect("a runtime");
    let (bench, whole) = (Bench::new(), guest(ECHO).with_lifecycle(FINE, FINE).bytes());
    let flips = vec((0..whole.len(), 0..8_u32), 1..4);
    run(300, &flips, |flips| {
        let mut bytes = whole.clone();
        for (at, bit) in flips {
            bytes[at] ^= 1 << bit;
        }
        runtime.block_on(async {
            let Some(generation) = judge(&bench, bytes).await else { return };
            let deadline = Instant::now() + Duration::from_secs(10);
            let Ok(mut instance) = Instance::create(&generation, deadline).await else { return };
            // It may answer something else now, or fail: it must come to an end.
            let context = CallContext::of_one(&fill("k"), deadline);
            if let Err(fault) = instance.get("k", context, deadline).await {
                is_clear(&fault.to_string());
            }
        });
    });
}

#[test]
fn a_component_that_is_cut_or_patched_together_is_refused_or_works() {
    let runtime = Runtime::new().expect("a runtime");
    let (bench, whole) = (Bench::new(), guest(ECHO).bytes());
    let length = whole.len();
    let patches = (0..length, 0..length, 0..64_usize, any::<bool>());
    run(200, &patches, |(from, to, count, is_cut)| {
        let mut bytes = whole.clone();
        if is_cut {
            bytes.truncate(from);
        } else {
            let end = (from + count).min(length);
            let piece = bytes[from..end].to_vec();
            bytes.splice(to..to, piece);
        }
        runtime.block_on(judge(&bench, bytes));
    });
}

#[test]
fn a_module_with_a_few_flipped_bits_is_refused_or_loaded() {
    let runtime = Runtime::new().expect("a runtime");
    let (bench, whole) = (Bench::new(), module(GETTER, PLUGIN));
    // Half of them in what it says about its interfaces, which nobody validates.
    let metadata = whole.windows(14).position(|name| name == b"component-type").expect("metadata");
    let at = prop_oneof![0..whole.len(), metadata..whole.len()];
    run(200, &vec((at, 0..8_u32), 1..4), |flips| {
        let mut bytes = whole.clone();
        for (at, bit) in flips {
            bytes[at] ^= 1 << bit;
        }
        runtime.block_on(judge(&bench, bytes));
    });
}

#[tokio::test]
async fn metadata_that_passes_its_validator_and_makes_no_sense_is_refused() {
    let bench = Bench::new();
    let mut bytes = module(GETTER, PLUGIN);
    // Among the types of the world: found by flipping each bit of the module.
    bytes[674] ^= 1 << 2;
    let error = bench.load_bytes(&bytes, |_| ()).await.map(drop).expect_err("refused");
    let text = error.to_string();
    assert!(text.contains("what it says of its interfaces is damaged"), "{text}");
    is_clear(&text);
}

#[test]
fn whatever_follows_the_first_bytes_of_a_file_it_is_refused() {
    let runtime = Runtime::new().expect("a runtime");
    let bench = Bench::new();
    let starts: [&[u8]; 7] = [
        b"",
        b"\0asm",
        b"\0asm\x0d\0\x01\0",
        b"\0asm\x01\0\0\0",
        b"\x7fELF\x02\x01\x01",
        b"\x1f\x8b",
        b"(component",
    ];
    let files = (0..starts.len(), vec(any::<u8>(), 1..200));
    run(400, &files, |(start, rest)| {
        let bytes = [starts[start], rest.as_slice()].concat();
        assert!(runtime.block_on(judge(&bench, bytes)).is_none());
    });
}

#[tokio::test]
async fn a_name_that_would_forge_a_line_of_the_log_is_written_out() {
    let bench = Bench::new();
    // As the assembler reads them: an escape sequence, a new line, a mark that turns the
    // direction of what follows.
    for path in [r"\1b[31m\0aERROR forged", r"\e2\80\aetxt.exe", &"x".repeat(50_000)] {
        let import = format!("(import \"url=<https://evil.example/{path}>\" (func))");
        let bytes = guest(ECHO).with_component(&import).bytes();
        let error = bench.load_bytes(&bytes, |_| ()).await.map(drop).expect_err("refused");
        let text = error.to_string();
        assert!(text.contains("url=<https://evil.example/"), "{text}");
        assert!(text.len() < 4_096 && !text.contains(['\n', '\u{1b}', '\u{202e}']), "{text:?}");
        // The same from a module that is to become a component.
        let import = format!("(module (import \"{path}\" \"{path}\" (func))");
        let bytes = module(&GETTER.replacen("(module", &import, 1), PLUGIN);
        let error = bench.load_bytes(&bytes, |_| ()).await.map(drop).expect_err("refused");
        let text = error.to_string();
        assert!(text.len() < 4_096 && !text.contains(['\n', '\u{1b}', '\u{202e}']), "{text:?}");
    }
}

/// Names of interfaces and what lies near them.
fn names() -> impl Strategy<Value = String> {
    let word = || "[a-z][a-z0-9]{0,5}(-[a-z][a-z0-9]{0,3}){0,2}";
    let version = "[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}(-[a-z]{1,3}\\.[0-9])?(\\+[a-z]{1,3})?";
    prop_oneof![
        (word(), word(), word(), version).prop_map(
            |(namespace, package, interface, version)| format!(
                "{namespace}:{package}/{interface}@{version}"
            )
        ),
        (word(), version)
            .prop_map(|(interface, version)| format!("cachecluster:plugin/{interface}@{version}")),
        (word(), word()).prop_map(|(package, interface)| format!("wasi:{package}/{interface}")),
        word(),
        "[!-~ ]{0,30}",
    ]
}

#[test]
fn an_interface_of_any_name_is_refused_by_name_or_offered() {
    let runtime = Runtime::new().expect("a runtime");
    let bench = Bench::new();
    run(200, &(names(), any::<bool>()), |(name, is_import)| {
        let guest = if is_import {
            guest(ECHO).with_component(&format!("(import {name:?} (instance))"))
        } else {
            guest(ECHO).with_exports(&format!("(instance $i) (export {name:?} (instance $i))"))
        };
        // Most of what is not a name is refused by the assembler already.
        let Ok(bytes) = wat::parse_str(guest.text()) else { return };
        runtime.block_on(judge(&bench, bytes));
    });
}
