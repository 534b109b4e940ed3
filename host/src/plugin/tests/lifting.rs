//! Answers that no compiler would have made: whatever bytes a guest leaves behind, its
//! call has an answer within the bounds or fails in words, and the next call is served.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use proptest::{
    collection::vec,
    option,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tokio::runtime::Runtime;

use super::guest::{Bench, ECHO, body, fill, guest, internal};
use crate::{
    config::{ByteSize, Caching},
    group::{BoxFuture, Context, Fill, FillError, Getter, Group, Groups, Outcome},
    plugin::{Plugin, answer::Answers, bindings::types},
};

/// Where the answer lies.
const RET: u32 = 1_024;
/// Bytes of an answer and what it points to.
const IMAGE_MAX: usize = 1_024;

/// Finds the image of that name for each key.
#[derive(Default)]
struct Images(Mutex<HashMap<Vec<u8>, Vec<u8>>>);

impl Getter for Images {
    fn load(&self, fill: Fill) -> BoxFuture<'_, Result<Outcome, FillError>> {
        let image = self.0.lock().expect("the images").get(&*fill.key).cloned();
        let outcome = image.map_or_else(Outcome::not_found, Outcome::found);
        Box::pin(std::future::ready(Ok(outcome)))
    }
}

/// A plugin that answers with whatever bytes it is told to.
struct Forger {
    /// Answers so far. Each has a key of its own: one that fails too often is left alone.
    answers: AtomicU32,
    plugin: Arc<Plugin>,
    images: Arc<Images>,
    switch: Arc<Group>,
    _groups: Arc<Groups>,
    _bench: Bench,
}

impl Forger {
    async fn new() -> Self {
        let groups = Arc::new(Groups::default());
        let bench = Bench::with_groups(Arc::downgrade(&groups));
        let images = Arc::<Images>::default();
        let getter: Arc<dyn Getter> = images.clone();
        let (fills, metrics) = (bench.host.fills().clone(), bench.metrics.group("switch"));
        let switch = Group::new("switch", Caching::default(), getter, fills, metrics);
        groups.replace([Arc::clone(&switch)]);
        let forging = guest(&format!(
            "(if (i32.eqz (call $peek (local.get $key) (local.get $len))) (then (return {ECHO})))
             (memory.copy (global.get $RET) (i32.load (i32.const 2312)) (i32.load (i32.const 2316)))
             (global.get $RET)"
        ))
        .with_switch();
        let plugin = bench
            .load_with(&forging, |p| {
                p.cache.read = vec!["switch".to_owned()];
                p.limits.value = ByteSize::kib(64);
                p.limits.calls = 1_000_000;
                // Such a plugin would be left alone before long.
                p.failure.faults = 0;
                p.failure.ratio = 1.0;
            })
            .await;
        Self { answers: AtomicU32::new(0), plugin, images, switch, _groups: groups, _bench: bench }
    }

    /// What becomes of the answer `image`.
    async fn answer(&self, image: &[u8]) -> Result<Outcome, FillError> {
        let key = self.answers.fetch_add(1, Relaxed).to_string().into_bytes();
        self.images.0.lock().expect("the images").insert(key.clone(), image.to_vec());
        let context = Context::within(Duration::from_secs(10));
        self.switch.get(&key, &context).await.expect("an image");
        self.plugin.load(fill(key)).await
    }

    /// In which words the answer `image` is refused; the plugin serves on.
    async fn refusal(&self, image: &[u8]) -> String {
        match self.answer(image).await {
            Err(FillError::Internal(text)) => {
                assert_eq!(body(&self.plugin, "k").await, Ok(b"k".to_vec()));
                text
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The answer `found` with these words of 32 bits at these offsets.
fn image(words: &[(usize, u32)]) -> Vec<u8> {
    let mut image = vec![0; IMAGE_MAX];
    for (at, word) in words {
        image[*at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    image
}

const HUGE: u32 = u32::MAX;
/// Within memory, where the image ends.
const INSIDE: u32 = RET + 512;
const MEMORY_END: u32 = 2 * 65_536;

#[tokio::test]
async fn pointers_and_lengths_that_are_none_are_refused() {
    let forger = Forger::new().await;
    // The lists and strings of an entry: value, validator, content type, tags, metadata.
    for (list, tag) in [(16, None), (60, Some(56)), (72, Some(68)), (80, None), (88, None)] {
        for (pointer, length) in [
            (HUGE, 1),
            (HUGE, HUGE),
            (0, HUGE),
            (INSIDE, HUGE),
            (INSIDE, MEMORY_END),
            (MEMORY_END, 1),
            (MEMORY_END - 1, 2),
            // As many elements as would overflow in bytes.
            (INSIDE, 0x2000_0001),
            (INSIDE, 0x1000_0001),
        ] {
            let mut words = vec![(list, pointer), (list + 4, length)];
            words.extend(tag.map(|tag| (tag, 1)));
            let text = forger.refusal(&image(&words)).await;
            assert!(text.starts_with("the plugin failed"), "{list} {pointer} {length}: {text}");
        }
    }
    // Lists of strings must lie on a multiple of four, and each string within memory.
    for list in [80, 88] {
        for pointer in [INSIDE + 1, INSIDE + 2] {
            let text = forger.refusal(&image(&[(list, pointer), (list + 4, 1)])).await;
            assert!(text.contains("align"), "{text}");
        }
        let inner = image(&[(list, INSIDE), (list + 4, 1), (512, HUGE), (516, 1)]);
        assert!(forger.refusal(&inner).await.starts_with("the plugin failed"));
    }
}

#[tokio::test]
async fn cases_that_do_not_exist_are_refused() {
    let forger = Forger::new().await;
    for (what, words) in [
        ("result", &[(0, 2)][..]),
        ("outcome", &[(8, 3)]),
        ("ttl", &[(24, 2)]),
        ("stale", &[(40, 2)]),
        ("validator", &[(56, 2)]),
        ("content-type", &[(68, 0xff)]),
        ("ttl of not-found", &[(8, 1), (16, 2)]),
        ("stale of not-modified", &[(8, 2), (32, 2)]),
        ("error", &[(0, 1), (8, 5)]),
        ("retry-after", &[(0, 1), (8, 2), (24, 2)]),
    ] {
        let text = forger.refusal(&image(words)).await;
        assert!(text.contains("discriminant"), "{what}: {text}");
    }
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_refused_wherever_it_stands() {
    let forger = Forger::new().await;
    let bad = (512, 0xffff_fffe);
    for (what, words) in [
        ("validator", vec![bad, (56, 1), (60, INSIDE), (64, 4)]),
        ("content-type", vec![bad, (68, 1), (72, INSIDE), (76, 4)]),
        ("tag", vec![bad, (80, INSIDE + 8), (84, 1), (520, INSIDE), (524, 4)]),
        ("metadata", vec![bad, (88, INSIDE + 8), (92, 1), (528, INSIDE), (532, 4)]),
        ("invalid-key", vec![bad, (0, 1), (16, INSIDE), (20, 4)]),
        ("unavailable", vec![bad, (0, 1), (8, 2), (16, INSIDE), (20, 4)]),
    ] {
        let text = forger.refusal(&image(&words)).await;
        assert!(text.to_lowercase().contains("utf"), "{what}: {text}");
    }
}

#[tokio::test]
async fn a_value_may_be_any_length_that_a_list_can_have() {
    let bench = Bench::new();
    // 128 MiB of zeros that are there; and the same without the memory for it.
    let found = "(call $found (i32.const 65536) (i32.const 0x8000000))";
    let large = guest(found).pages(2_050);
    let plugin = bench.load_with(&large, |p| p.limits.memory = ByteSize::mib(200)).await;
    let text = internal(&plugin, "k").await;
    assert!(text.contains("limits.value"), "{text}");
    let plugin = bench.load(&guest(found)).await;
    let text = internal(&plugin, "k").await;
    assert!(text.starts_with("the plugin failed"), "{text}");
}

#[tokio::test]
async fn labels_beyond_their_bounds_fail_the_call() {
    let forger = Forger::new().await;
    for (words, said) in [
        (vec![(80, INSIDE), (84, 33)], "33 tags"),
        (vec![(80, INSIDE), (84, 1), (512, 0), (516, 129)], "129 bytes"),
        (vec![(88, INSIDE), (92, 31), (512, 0), (516, 8_193)], "8193 bytes of metadata"),
        (vec![(56, 1), (60, 0), (64, 1_025)], "1025 bytes"),
        (vec![(68, 1), (72, 0), (76, 257)], "257 bytes"),
        (vec![(68, 1), (72, 0), (76, 0)], "content-type"),
        (vec![(8, 2)], "not-modified"),
    ] {
        let text = forger.refusal(&image(&words)).await;
        assert!(text.contains(said), "{said}: {text}");
    }
}

/// Text that would turn red, begin a new line and run backwards.
const FORGED: &str = "(data (i32.const 3000) \"a\\1b[31m\\0d\\0aERROR forged\\e2\\80\\ae\")";

#[tokio::test]
async fn an_error_cannot_forge_a_line_of_the_log() {
    let bench = Bench::new();
    let failing = "(call $fail (local.get $len) (i32.const 3000) (i32.const 23))";
    let batching = guest(failing)
        .with_core(FORGED)
        .with_batch("(call $fail (local.get $count) (i32.const 3000) (i32.const 23))");
    let plugin = bench.load(&batching).await;
    let is_told = |error: FillError| {
        is_one_line(&error.to_string());
        assert!(error.to_string().contains("\\u{1b}[31m\\r\\nERROR forged\\u{202e}"), "{error}");
    };
    for key in ["", "1", "22", "4444"] {
        is_told(body(&plugin, key).await.expect_err("an error"));
    }
    for result in plugin.load_many(vec![fill("22"), fill("22")]).await {
        is_told(result.expect_err("an error"));
    }
    is_one_line(&plugin.status().last_error.expect("an error").message);
}

#[tokio::test]
async fn a_key_may_be_empty_or_a_megabyte_long() {
    let bench = Bench::new();
    let plugin = bench.load_with(&guest(ECHO), |p| p.limits.value = ByteSize::mib(2)).await;
    for length in [0, 1, 1 << 20] {
        let key = "k".repeat(length);
        assert_eq!(body(&plugin, &key).await, Ok(key.into_bytes()));
    }
    // One that does not fit into the guest's memory costs its call.
    let text = internal(&plugin, &"k".repeat(5 << 20)).await;
    assert!(text.contains("limits.memory"), "{text}");
    assert_eq!(body(&plugin, "k").await, Ok(b"k".to_vec()));
}

#[tokio::test]
async fn a_realloc_that_lies_costs_one_call() {
    let bench = Bench::new();
    for (what, lie) in [
        ("out of memory", "(return (i32.const -8))"),
        ("over the end", "(return (i32.const 131071))"),
        (
            "out of line",
            "(if (i32.gt_u (local.get 2) (i32.const 1)) (then (return (i32.const 3))))",
        ),
    ] {
        let lying =
            guest("(call $poll (local.get $key) (i32.const 1) (i32.const 256)) unreachable")
                .with_clock()
                .with_realloc(&format!("(if (i32.gt_u (local.get 3) (i32.const 3)) (then {lie}))"));
        let plugin = bench.load(&lying).await;
        let text = internal(&plugin, "long").await;
        assert!(text.starts_with("the plugin failed"), "{what}: {text}");
        assert_eq!(plugin.status().faults, 1);
    }
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

/// A word of an answer: often one that means something.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0..4_u32,
        2 => (RET..RET + 1_024).prop_map(|at| at & !3),
        1 => RET..RET + 1_024,
        1 => MEMORY_END - 64..MEMORY_END + 64,
        1 => any::<u32>(),
    ]
}

#[test]
fn whatever_bytes_an_answer_has_it_is_within_the_bounds_or_refused() {
    let runtime = Runtime::new().expect("a runtime");
    let forger = runtime.block_on(Forger::new());
    let images = vec(word(), IMAGE_MAX / 4)
        .prop_map(|words| words.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<_>>());
    let result = runner(600).run(&images, |image| {
        runtime.block_on(async {
            match forger.answer(&image).await {
                Ok(Outcome::Found(value, _)) => is_bounded(&value, 65_536),
                Ok(Outcome::NotModified(_)) => panic!("there was no validator"),
                Ok(Outcome::NotFound(_)) => {}
                Err(error) => is_one_line(&error.to_string()),
            }
            assert_eq!(body(&forger.plugin, "k").await, Ok(b"k".to_vec()));
        });
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(forger.plugin.status().instances.busy, 0);
}

/// That all bounds of the contract hold for `value`.
fn is_bounded(value: &crate::value::Value, value_max: usize) {
    let Some(head) = value.head() else { return assert!(value.body().len() <= value_max) };
    let tags: usize = head.tags.iter().map(|tag| tag.len()).sum();
    let metadata: usize = head.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    let validator = head.validator.as_ref().map_or(0, |validator| validator.len());
    let content_type = head.content_type.as_ref().map_or(0, http::HeaderValue::len);
    assert!(value.body().len() + tags + metadata + validator + content_type <= value_max);
    assert!(head.tags.len() <= 32 && head.tags.iter().all(|tag| tag.len() <= 128));
    assert!(head.metadata.len() <= 32 && metadata <= 8_192);
    assert!(validator <= 1_024 && content_type <= 256);
    let printable = |byte: &u8| matches!(byte, b' '..=b'~');
    let content_type = head.content_type.as_ref().map(http::HeaderValue::as_bytes);
    assert!(content_type.is_none_or(|text| !text.is_empty() && text.iter().all(printable)));
}

/// That `text` can stand in a log: short, and without a character that moves the cursor.
fn is_one_line(text: &str) {
    assert!(text.len() < 4_096, "{} bytes", text.len());
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

fn texts(max: usize) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => ".{0,12}",
        1 => vec(any::<char>(), 0..40).prop_map(String::from_iter),
        1 => (0..=max).prop_map(|length| "x".repeat(length)),
    ]
}

fn freshness() -> impl Strategy<Value = types::Freshness> {
    (any::<Option<u64>>(), any::<Option<u64>>())
        .prop_map(|(ttl, stale)| types::Freshness { ttl, stale })
}

fn entries() -> impl Strategy<Value = types::Entry> {
    (
        vec(any::<u8>(), 0..200),
        freshness(),
        option::of(texts(1_100)),
        option::of(texts(300)),
        vec(texts(140), 0..36),
        vec((texts(40), texts(600)), 0..36),
    )
        .prop_map(|(value, freshness, validator, content_type, tags, metadata)| types::Entry {
            value,
            freshness,
            validator,
            content_type,
            tags,
            metadata,
        })
}

fn outcomes() -> impl Strategy<Value = types::Outcome> {
    prop_oneof![
        8 => entries().prop_map(types::Outcome::Found),
        1 => freshness().prop_map(types::Outcome::NotFound),
        1 => freshness().prop_map(types::Outcome::NotModified),
    ]
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn an_outcome_is_taken_whole_or_refused(outcome in outcomes(), conditional: bool) {
        let answers = Answers::new(1_000);
        let given = outcome.clone();
        match (answers.outcome(outcome, conditional), given) {
            (Ok(Outcome::Found(value, freshness)), types::Outcome::Found(entry)) => {
                is_bounded(&value, 1_000);
                prop_assert_eq!(value.body(), &entry.value);
                let nanos = |time: Option<Duration>| time.map(|time| time.as_nanos());
                prop_assert_eq!(nanos(freshness.ttl), entry.freshness.ttl.map(u128::from));
                prop_assert_eq!(nanos(freshness.grace), entry.freshness.stale.map(u128::from));
                let tags = value.head().map_or(0, |head| head.tags.len());
                prop_assert_eq!(tags, entry.tags.len());
            }
            (Ok(Outcome::NotFound(_)), types::Outcome::NotFound(_)) => {}
            (Ok(Outcome::NotModified(_)), types::Outcome::NotModified(_)) => {
                prop_assert!(conditional);
            }
            (Err(text), types::Outcome::Found(_) | types::Outcome::NotModified(_)) => {
                is_one_line(&text);
            }
            (answered, given) => prop_assert!(false, "{:?} for {:?}", answered, given),
        }
    }
}
