use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{sync::Semaphore, task::JoinSet, time::advance};

use super::*;
use crate::{
    config::ByteSize,
    metrics::Metrics,
    value::{Freshness, Head},
};

mod away;
mod left_alone;
mod missed;
mod nested;

const SECOND: Duration = Duration::from_secs(1);

/// An origin in the test's hands: it answers what it was told, in order, and then goes
/// on with the last answer; each load takes a permit, so that the test decides when.
struct Origin {
    answers: Mutex<VecDeque<Result<Outcome, FillError>>>,
    gate: Semaphore,
    calls: AtomicUsize,
    batches: Mutex<Vec<usize>>,
    last: Mutex<Option<Fill>>,
    batch_max: usize,
}

impl Origin {
    fn new(answers: impl IntoIterator<Item = Result<Outcome, FillError>>) -> Arc<Self> {
        Self::gated(answers, Semaphore::MAX_PERMITS)
    }

    fn gated(
        answers: impl IntoIterator<Item = Result<Outcome, FillError>>,
        permits: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.into_iter().collect()),
            gate: Semaphore::new(permits),
            calls: AtomicUsize::new(0),
            batches: Mutex::default(),
            last: Mutex::default(),
            batch_max: 1,
        })
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn last(&self) -> Fill {
        self.last.lock().unwrap().clone().expect("a load")
    }

    fn answer(&self) -> Result<Outcome, FillError> {
        let mut answers = self.answers.lock().unwrap();
        if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() }
    }
}

impl Getter for Origin {
    fn load(&self, fill: Fill) -> BoxFuture<'_, Result<Outcome, FillError>> {
        Box::pin(async move {
            self.calls.fetch_add(1, Ordering::SeqCst);
            *self.last.lock().unwrap() = Some(fill);
            self.gate.acquire().await.unwrap().forget();
            self.answer()
        })
    }

    fn batch_max(&self) -> usize {
        self.batch_max
    }

    fn load_many(&self, fills: Vec<Fill>) -> BoxFuture<'_, Vec<Result<Outcome, FillError>>> {
        self.batches.lock().unwrap().push(fills.len());
        Box::pin(async move { fills.iter().map(|fill| Ok(Outcome::found(&fill.key))).collect() })
    }
}

fn settings() -> Caching {
    Caching {
        memory: ByteSize::mib(1),
        value_max: ByteSize::kib(16),
        ttl: 60 * SECOND,
        ttl_jitter: 0.0,
        grace: 30 * SECOND,
        negative_ttl: 10 * SECOND,
        backoff: 4 * SECOND,
        fill_timeout: 10 * SECOND,
        ..Caching::default()
    }
}

fn group(origin: Arc<dyn Getter>, settings: Caching) -> Arc<Group> {
    let metrics = Metrics::new().group("g");
    Group::new("g", settings, origin, Handle::current(), metrics)
}

async fn get(group: &Arc<Group>, key: &[u8]) -> Result<Hit, GetError> {
    group.get(key, &Context::within(5 * SECOND)).await
}

async fn body(group: &Arc<Group>, key: &[u8]) -> Vec<u8> {
    get(group, key).await.expect("a value").value.body().to_vec()
}

/// Lets every task that can run do so.
async fn settle() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}

fn validated(body: &str, validator: &str, ttl: Duration) -> Outcome {
    let head = Head { validator: Some(validator.into()), ..Head::default() };
    Outcome::described(body, head, Freshness::ttl(ttl))
}

fn unavailable() -> Result<Outcome, FillError> {
    Err(FillError::Unavailable { message: "down".into(), retry_after: None })
}

#[tokio::test(start_paused = true)]
async fn the_first_get_asks_the_origin_and_the_second_memory() {
    let origin = Origin::new([Ok(Outcome::found("v"))]);
    let group = group(origin.clone(), settings());
    let first = get(&group, b"k").await.unwrap();
    assert_eq!(first.provenance.served, Served::Filled { stored: true });
    advance(7 * SECOND).await;
    let second = get(&group, b"k").await.unwrap();
    let expected = Provenance { served: Served::Hit, age: 7 * SECOND, ttl: 53 * SECOND };
    assert_eq!(second.provenance, expected);
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_of_a_cold_key_cost_one_load() {
    let origin = Origin::gated([Ok(Outcome::found("v"))], 0);
    let group = group(origin.clone(), settings());
    let mut callers = JoinSet::new();
    for _ in 0..1_000 {
        let group = Arc::clone(&group);
        callers.spawn(async move { body(&group, b"k").await });
    }
    settle().await;
    origin.gate.add_permits(1_000);
    for body in callers.join_all().await {
        assert_eq!(body, b"v");
    }
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_first_caller_that_hangs_up_disturbs_nobody() {
    let origin = Origin::gated([Ok(Outcome::found("v"))], 0);
    let group = group(origin.clone(), settings());
    let first = tokio::spawn({
        let group = Arc::clone(&group);
        async move { get(&group, b"k").await }
    });
    settle().await;
    let second = tokio::spawn({
        let group = Arc::clone(&group);
        async move { body(&group, b"k").await }
    });
    settle().await;
    first.abort();
    settle().await;
    origin.gate.add_permits(1);
    assert_eq!(second.await.unwrap(), b"v");
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_leaves_at_its_own_deadline_and_the_fill_goes_on() {
    let origin = Origin::gated([Ok(Outcome::found("v"))], 0);
    let group = group(origin.clone(), settings());
    let hurried = group.get(b"k", &Context::within(SECOND)).await;
    assert!(matches!(hurried, Err(GetError::Deadline)));
    origin.gate.add_permits(1);
    settle().await;
    assert_eq!(get(&group, b"k").await.unwrap().provenance.served, Served::Hit);
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fill_that_stalls_ends_at_its_deadline_and_frees_the_key() {
    let origin = Origin::gated([Ok(Outcome::found("v"))], 0);
    let group = group(origin.clone(), settings());
    let stalled = group.get(b"k", &Context::within(60 * SECOND)).await;
    let Err(GetError::Fill { error: FillError::TimedOut(_), .. }) = stalled else {
        panic!("{stalled:?}");
    };
    assert_eq!(group.usage().flights, 0);
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_costs_one_load_for_each_backoff_window() {
    let origin = Origin::new([unavailable()]);
    let group = group(origin.clone(), settings());
    for _ in 0..1_000 {
        let failed = get(&group, b"k").await;
        let Err(GetError::Fill { error: FillError::Unavailable { .. }, retry_after }) = failed
        else {
            panic!("{failed:?}");
        };
        assert!(retry_after <= 4 * SECOND && retry_after > 2 * SECOND);
    }
    assert_eq!(origin.calls(), 1);
    advance(4 * SECOND).await;
    assert!(get(&group, b"k").await.is_err());
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_does_not_exist_is_remembered_for_its_own_time() {
    let origin = Origin::new([Ok(Outcome::not_found())]);
    let group = group(origin.clone(), settings());
    let first = get(&group, b"k").await.unwrap_err();
    assert!(matches!(first, GetError::NotFound(it) if it.ttl == 10 * SECOND));
    advance(9 * SECOND).await;
    let second = get(&group, b"k").await.unwrap_err();
    assert!(matches!(second, GetError::NotFound(it) if it.served == Served::Hit));
    assert_eq!(origin.calls(), 1);
    advance(SECOND).await;
    get(&group, b"k").await.unwrap_err();
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_is_served_while_one_refresh_runs() {
    let origin = Origin::new([Ok(Outcome::found("old")), Ok(Outcome::found("new"))]);
    let group = group(origin.clone(), settings());
    assert_eq!(body(&group, b"k").await, b"old");
    advance(61 * SECOND).await;
    for _ in 0..10 {
        let stale = group.recall(b"k").expect("within its grace").unwrap();
        assert_eq!(stale.value.body(), b"old");
        assert_eq!(stale.provenance.served, Served::Stale);
    }
    settle().await;
    assert_eq!(origin.calls(), 2);
    assert_eq!(origin.last().reason, Reason::Refresh);
    assert_eq!(body(&group, b"k").await, b"new");
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_outlives_a_failing_origin_until_its_grace_ends() {
    let origin = Origin::new([Ok(Outcome::found("v")), unavailable()]);
    let group = group(origin.clone(), settings());
    body(&group, b"k").await;
    advance(61 * SECOND).await;
    for _ in 0..100 {
        assert_eq!(body(&group, b"k").await, b"v");
        settle().await;
    }
    assert_eq!(origin.calls(), 2, "the failing refresh is left alone for its window");
    advance(30 * SECOND).await;
    assert!(matches!(get(&group, b"k").await, Err(GetError::Fill { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_hands_the_validator_back_and_keeps_what_has_not_changed() {
    let unmodified = Ok(Outcome::NotModified(Freshness::ttl(90 * SECOND)));
    let origin = Origin::new([Ok(validated("v", "w1", 60 * SECOND)), unmodified]);
    let group = group(origin.clone(), settings());
    body(&group, b"k").await;
    advance(61 * SECOND).await;
    body(&group, b"k").await;
    settle().await;
    assert_eq!(origin.last().validator.as_deref(), Some("w1"));
    let kept = get(&group, b"k").await.unwrap();
    assert_eq!(kept.value.body(), b"v");
    assert_eq!(kept.provenance.ttl, 90 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn not_modified_without_a_validator_is_the_getters_fault() {
    let origin = Origin::new([Ok(Outcome::NotModified(Freshness::default()))]);
    let group = group(origin.clone(), settings());
    let failed = get(&group, b"k").await;
    assert!(matches!(failed, Err(GetError::Fill { error: FillError::Internal(_), .. })));
}

#[tokio::test(start_paused = true)]
async fn a_purge_beats_a_fill_in_flight() {
    let origin = Origin::gated([Ok(Outcome::found("old")), Ok(Outcome::found("new"))], 0);
    let group = group(origin.clone(), settings());
    let before = tokio::spawn({
        let group = Arc::clone(&group);
        async move { body(&group, b"k").await }
    });
    settle().await;
    group.purge(b"k");
    origin.gate.add_permits(1);
    assert_eq!(before.await.unwrap(), b"old", "it asked before the purge");
    assert!(group.peek(b"k").is_none(), "and yet nothing of it is kept");
    origin.gate.add_permits(1);
    assert_eq!(body(&group, b"k").await, b"new");
}

#[tokio::test(start_paused = true)]
async fn a_purge_of_the_group_beats_every_fill_in_flight() {
    let origin = Origin::gated([Ok(Outcome::found("v"))], 0);
    let group = group(origin.clone(), settings());
    let mut callers = JoinSet::new();
    for key in 0..10_u8 {
        let group = Arc::clone(&group);
        callers.spawn(async move { body(&group, &[key]).await });
    }
    settle().await;
    group.purge_all();
    origin.gate.add_permits(10);
    callers.join_all().await;
    assert_eq!(group.usage().items, 0);
}

#[tokio::test(start_paused = true)]
async fn a_purge_of_a_label_beats_every_fill_in_flight_and_leaves_other_values() {
    let tagged = |body: &'static str, tag: &str| {
        let head = Head { tags: vec![tag.into()], ..Head::default() };
        Ok(Outcome::described(body, head, Freshness::default()))
    };
    let origin = Origin::gated([tagged("a", "a"), tagged("b", "b"), tagged("late", "a")], 2);
    let group = group(origin.clone(), settings());
    assert_eq!(body(&group, b"a").await, b"a");
    assert_eq!(body(&group, b"b").await, b"b");
    let before = tokio::spawn({
        let group = Arc::clone(&group);
        async move { body(&group, b"late").await }
    });
    settle().await;
    assert_eq!(group.purge_tag("a"), 1);
    origin.gate.add_permits(1);
    assert_eq!(before.await.unwrap(), b"late", "it asked before the purge");
    assert!(group.peek(b"late").is_none() && group.peek(b"a").is_none());
    assert!(group.peek(b"b").is_some());
    assert_eq!(group.purge_tag("a"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_purge_forgets_failures_too() {
    let origin = Origin::new([unavailable(), Ok(Outcome::found("v"))]);
    let group = group(origin.clone(), settings());
    get(&group, b"k").await.unwrap_err();
    group.purge(b"k");
    assert_eq!(body(&group, b"k").await, b"v");
}

#[tokio::test(start_paused = true)]
async fn a_ttl_of_zero_is_handed_out_and_not_kept() {
    let now = Freshness::ttl(Duration::ZERO);
    let origin = Origin::new([Ok(Outcome::described("v", Head::default(), now))]);
    let group = group(origin.clone(), settings());
    let hit = get(&group, b"k").await.unwrap();
    assert_eq!(hit.provenance.served, Served::Filled { stored: false });
    assert_eq!(group.usage().items, 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_getter_says_is_kept_within_the_groups_bounds() {
    let eternal = Freshness { ttl: Some(Duration::MAX), grace: Some(Duration::MAX) };
    let blink = Freshness::ttl(Duration::from_nanos(1));
    let origin = Origin::new([
        Ok(Outcome::described("v", Head::default(), eternal)),
        Ok(Outcome::described("v", Head::default(), blink)),
    ]);
    let bounds = Caching { ttl_min: SECOND, ttl_max: 100 * SECOND, ..settings() };
    let group = group(origin.clone(), bounds);
    assert_eq!(get(&group, b"a").await.unwrap().provenance.ttl, 100 * SECOND);
    assert_eq!(get(&group, b"b").await.unwrap().provenance.ttl, SECOND);
}

#[tokio::test(start_paused = true)]
async fn jitter_only_ever_shortens_a_ttl() {
    let origin = Origin::new([Ok(Outcome::found("v"))]);
    let group = group(origin.clone(), Caching { ttl_jitter: 0.5, ..settings() });
    let mut ttls = Vec::new();
    for key in 0..50_u8 {
        ttls.push(get(&group, &[key]).await.unwrap().provenance.ttl);
    }
    assert!(ttls.iter().all(|ttl| (30 * SECOND..=60 * SECOND).contains(ttl)));
    assert!(ttls.iter().any(|ttl| *ttl != ttls[0]));
}

#[tokio::test(start_paused = true)]
async fn a_value_over_the_groups_limit_is_passed_on_and_not_kept() {
    let origin = Origin::new([Ok(Outcome::found(vec![7; 17 << 10]))]);
    let group = group(origin.clone(), settings());
    assert_eq!(body(&group, b"k").await.len(), 17 << 10);
    assert_eq!(group.usage().items, 0);
}

struct Panics;

impl Getter for Panics {
    fn load(&self, fill: Fill) -> BoxFuture<'_, Result<Outcome, FillError>> {
        assert!(fill.key.is_empty(), "this key is too much for me");
        Box::pin(async { panic!("not even this") })
    }
}

#[tokio::test(start_paused = true)]
async fn a_getter_that_panics_costs_one_fill_an_error() {
    let group = group(Arc::new(Panics), settings());
    for (key, text) in [(&b"k"[..], "too much for me"), (b"", "not even this")] {
        let failed = get(&group, key).await.unwrap_err().to_string();
        assert!(failed.contains(text), "{failed}");
    }
    assert_eq!(group.usage().flights, 0);
}

#[tokio::test(start_paused = true)]
async fn a_getter_that_asks_for_its_own_key_gets_an_error_not_a_deadlock() {
    let origin = Origin::new([Ok(Outcome::found("v"))]);
    let group = group(origin.clone(), settings());
    get(&group, b"k").await.unwrap();
    let mut cx = Context::within(SECOND);
    cx.chain = origin.last().chain;
    group.purge_all();
    assert!(matches!(group.get(b"k", &cx).await, Err(GetError::Cycle)));
    group.get(b"other", &cx).await.unwrap();
    while cx.chain.depth() < Chain::DEPTH_MAX {
        cx.chain = cx.chain.with("h".into(), b"x".as_slice().into());
    }
    assert!(matches!(group.get(b"third", &cx).await, Err(GetError::Cycle)));
}

#[tokio::test(start_paused = true)]
async fn one_fill_too_many_is_refused() {
    let origin = Origin::gated([Ok(Outcome::found("v"))], 0);
    let group = group(origin.clone(), Caching { fills_max: 1, ..settings() });
    let first = tokio::spawn({
        let group = Arc::clone(&group);
        async move { body(&group, b"a").await }
    });
    settle().await;
    assert!(matches!(get(&group, b"b").await, Err(GetError::Overloaded)));
    origin.gate.add_permits(1);
    first.await.unwrap();
}

fn batching() -> Arc<Origin> {
    let mut origin = Origin::new([Ok(Outcome::found("alone"))]);
    Arc::get_mut(&mut origin).unwrap().batch_max = 4;
    origin
}

#[tokio::test(start_paused = true)]
async fn misses_within_the_window_share_a_trip() {
    let origin = batching();
    let group = group(origin.clone(), settings());
    let mut callers = JoinSet::new();
    for key in 0..6_u8 {
        let group = Arc::clone(&group);
        callers.spawn(async move { (key, body(&group, &[key]).await) });
    }
    for (key, body) in callers.join_all().await {
        assert_eq!(body, [key]);
    }
    assert_eq!(*origin.batches.lock().unwrap(), [4, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_miss_that_stays_alone_is_an_ordinary_load() {
    let origin = batching();
    let group = group(origin.clone(), settings());
    assert_eq!(body(&group, b"k").await, b"alone");
    assert!(origin.batches.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_a_window_nothing_is_gathered() {
    let origin = batching();
    let group = group(origin.clone(), Caching { batch_window: Duration::ZERO, ..settings() });
    let (a, b) = tokio::join!(body(&group, b"a"), body(&group, b"b"));
    assert_eq!((a, b), (b"alone".to_vec(), b"alone".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn new_settings_apply_from_the_next_fill_and_contents_stay() {
    let origin = Origin::new([Ok(Outcome::found("v"))]);
    let group = group(origin.clone(), settings());
    assert_eq!(get(&group, b"old").await.unwrap().provenance.ttl, 60 * SECOND);
    group.reconfigure(Caching { ttl: 5 * SECOND, grace: Duration::ZERO, ..settings() });
    let kept = get(&group, b"old").await.unwrap();
    assert_eq!((kept.provenance.served, kept.provenance.ttl), (Served::Hit, 60 * SECOND));
    assert_eq!(get(&group, b"new").await.unwrap().provenance.ttl, 5 * SECOND);
    advance(6 * SECOND).await;
    assert_eq!(get(&group, b"old").await.unwrap().provenance.served, Served::Hit);
    assert_eq!(
        get(&group, b"new").await.unwrap().provenance.served,
        Served::Filled { stored: true }
    );
    assert_eq!(group.settings().ttl, 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_smaller_budget_drops_at_once_and_a_larger_one_nothing() {
    let origin = Origin::new([Ok(Outcome::found(vec![7; 8 << 10]))]);
    let group = group(origin.clone(), Caching { memory: ByteSize::mib(4), ..settings() });
    for key in 0..100_u8 {
        get(&group, &[key]).await.unwrap();
    }
    assert_eq!(group.usage().items, 100);
    group.reconfigure(Caching { memory: ByteSize::mib(64), ..settings() });
    let usage = group.usage();
    assert_eq!((usage.items, usage.budget, usage.evictions), (100, 64 << 20, 0));
    group.reconfigure(Caching { memory: ByteSize::kib(256), ..settings() });
    let usage = group.usage();
    assert!(usage.bytes <= 256 << 10 && usage.items >= 28, "{usage:?}");
    assert_eq!(usage.evictions, 100 - usage.items);
    // Which ones are left is in the order of use within a shard, and by chance between
    // shards; what is filled from here on is kept as ever.
    get(&group, b"new").await.unwrap();
    assert_eq!(get(&group, b"new").await.unwrap().provenance.served, Served::Hit);
}

#[tokio::test(start_paused = true)]
async fn a_fill_under_way_ends_by_the_settings_it_began_with() {
    let origin = Origin::gated([Ok(Outcome::found("v"))], 0);
    let group = group(origin.clone(), Caching { fills_max: 2, ..settings() });
    let waiting = tokio::spawn({
        let group = Arc::clone(&group);
        async move { get(&group, b"k").await }
    });
    settle().await;
    let shorter = Caching { fill_timeout: SECOND, fills_max: 1, ttl: SECOND, ..settings() };
    group.reconfigure(shorter);
    assert!(matches!(get(&group, b"other").await, Err(GetError::Overloaded)));
    advance(3 * SECOND).await;
    origin.gate.add_permits(1);
    let hit = waiting.await.unwrap().expect("its timeout is the old one");
    assert_eq!(hit.provenance.ttl, 60 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn backoff_and_batches_follow_the_settings() {
    let mut origin = Origin::new([unavailable()]);
    Arc::get_mut(&mut origin).unwrap().batch_max = 4;
    let group = group(origin.clone(), Caching { batch_window: Duration::ZERO, ..settings() });
    get(&group, b"a").await.unwrap_err();
    assert!(origin.batches.lock().unwrap().is_empty());
    let gathering = Caching {
        batch_max: 2,
        backoff: 1_000 * SECOND,
        backoff_max: 1_000 * SECOND,
        ..settings()
    };
    group.reconfigure(gathering.clone());
    let pairs = tokio::join!(
        body(&group, b"b"),
        body(&group, b"c"),
        body(&group, b"d"),
        body(&group, b"e")
    );
    assert_eq!(pairs.3, b"e");
    assert_eq!(*origin.batches.lock().unwrap(), [2, 2]);
    group.reconfigure(Caching { batch_window: Duration::ZERO, ..gathering });
    let Err(GetError::Fill { retry_after, .. }) = get(&group, b"f").await else { panic!() };
    assert!(retry_after > 500 * SECOND, "{retry_after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_getter_is_asked_again_for_what_the_old_one_failed_at() {
    let found = || Ok(Outcome::found("v"));
    let missing = || Ok(Outcome::not_found());
    let origin = Origin::new([found(), missing(), missing(), unavailable(), found()]);
    let group = group(origin.clone(), settings());
    body(&group, b"found").await;
    get(&group, b"long missing").await.unwrap_err();
    advance(5 * SECOND).await;
    get(&group, b"missing").await.unwrap_err();
    get(&group, b"failing").await.unwrap_err();
    group.getter_changed(2 * SECOND);
    assert_eq!(body(&group, b"missing").await, b"v");
    assert_eq!(body(&group, b"failing").await, b"v");
    let calls = origin.calls();
    assert_eq!(get(&group, b"found").await.unwrap().provenance.served, Served::Hit);
    assert!(matches!(get(&group, b"long missing").await, Err(GetError::NotFound(_))));
    assert_eq!(origin.calls(), calls, "what was known for longer stays known");
}

#[tokio::test(start_paused = true)]
async fn what_the_old_getter_still_says_is_passed_on_and_not_remembered() {
    let found = || Ok(Outcome::found("v"));
    for old in [Ok(Outcome::not_found()), unavailable()] {
        let origin = Origin::gated([old, found()], 0);
        let group = group(origin.clone(), settings());
        let waiting = tokio::spawn({
            let group = Arc::clone(&group);
            async move { get(&group, b"k").await }
        });
        settle().await;
        group.getter_changed(SECOND);
        origin.gate.add_permits(2);
        waiting.await.unwrap().unwrap_err();
        assert_eq!(body(&group, b"k").await, b"v");
    }
    // A value is a value, whoever found it.
    let origin = Origin::gated([found()], 0);
    let group = group(origin.clone(), settings());
    let waiting = tokio::spawn({
        let group = Arc::clone(&group);
        async move { get(&group, b"k").await }
    });
    settle().await;
    group.getter_changed(SECOND);
    origin.gate.add_permits(1);
    waiting.await.unwrap().unwrap();
    assert_eq!(get(&group, b"k").await.unwrap().provenance.served, Served::Hit);
}

#[test]
fn a_long_error_is_cut_between_characters() {
    let error = FillError::Internal("ü".repeat(10_000)).bounded();
    let FillError::Internal(text) = error else { panic!() };
    assert!(text.len() < 1_100 && text.ends_with('…'));
}
