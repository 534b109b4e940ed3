//! A getter that is left alone for a while, as one whose breaker is open.

use super::*;

/// A getter that may be told to refuse. It takes several keys at once: of those, the
/// ones that begin with `u` are not available.
#[derive(Default)]
struct Resting {
    refuses: Mutex<Option<FillError>>,
    loads: AtomicUsize,
    trips: AtomicUsize,
    retries: AtomicUsize,
}

impl Resting {
    fn rest(&self, retry_after: Duration) {
        let message = "it keeps failing".to_owned();
        *self.refuses.lock().unwrap() = Some(FillError::NotAsked { message, retry_after });
    }

    fn wake(&self) {
        *self.refuses.lock().unwrap() = None;
    }

    fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }
}

impl Getter for Resting {
    fn load(&self, fill: Fill) -> BoxFuture<'_, Result<Outcome, FillError>> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(Ok(Outcome::found(&fill.key))))
    }

    fn batch_max(&self) -> usize {
        8
    }

    fn load_many(&self, fills: Vec<Fill>) -> BoxFuture<'_, Vec<Result<Outcome, FillError>>> {
        self.trips.fetch_add(1, Ordering::SeqCst);
        let answer = |fill: &Fill| match fill.key.first() {
            Some(b'u') => unavailable(),
            _ => Ok(Outcome::found(&fill.key)),
        };
        Box::pin(std::future::ready(fills.iter().map(answer).collect()))
    }

    fn refusal(&self, _group: &str, _key: &[u8]) -> Option<FillError> {
        self.refuses.lock().unwrap().clone()
    }

    fn loads_alone(&self, fill: &Fill) -> bool {
        fill.key.starts_with(b"!")
    }

    fn retry(&self, _fill: Fill, _error: FillError) -> BoxFuture<'_, Result<Outcome, FillError>> {
        self.retries.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(Ok(Outcome::found("at last"))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_is_served_while_its_getter_is_left_alone_and_costs_it_nothing() {
    let getter = Arc::new(Resting::default());
    let group = group(getter.clone(), Caching { batch_window: Duration::ZERO, ..settings() });
    body(&group, b"k").await;
    getter.rest(20 * SECOND);
    advance(61 * SECOND).await;
    for _ in 0..1_000 {
        let stale = get(&group, b"k").await.unwrap();
        assert_eq!(stale.provenance.served, Served::Stale);
    }
    settle().await;
    assert_eq!((getter.loads(), group.usage().flights), (1, 0));
    // The moment it is asked again, so is it for this key.
    getter.wake();
    body(&group, b"k").await;
    settle().await;
    assert_eq!(getter.loads(), 2);
    assert_eq!(get(&group, b"k").await.unwrap().provenance.served, Served::Hit);
}

#[tokio::test(start_paused = true)]
async fn a_miss_fails_fast_while_its_getter_is_left_alone_and_is_filled_at_once_after() {
    let getter = Arc::new(Resting::default());
    let group = group(getter.clone(), settings());
    getter.rest(7 * SECOND);
    for _ in 0..100 {
        match get(&group, b"k").await {
            Err(GetError::Fill { error: FillError::NotAsked { retry_after, .. }, .. }) => {
                assert_eq!(retry_after, 7 * SECOND);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((getter.loads(), group.usage().flights), (0, 0));
    getter.wake();
    assert_eq!(body(&group, b"k").await, b"k", "no backoff was begun for it");
}

#[tokio::test(start_paused = true)]
async fn a_fill_that_is_refused_on_its_way_begins_no_backoff() {
    let refused = FillError::NotAsked { message: "not now".into(), retry_after: SECOND };
    let origin = Origin::new([Err(refused), Ok(Outcome::found("v"))]);
    let group = group(origin.clone(), settings());
    let failed = get(&group, b"k").await;
    assert!(matches!(failed, Err(GetError::Fill { error: FillError::NotAsked { .. }, .. })));
    assert_eq!(body(&group, b"k").await, b"v");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_failed_alone_in_its_trip_is_tried_again_without_the_others() {
    let getter = Arc::new(Resting::default());
    let group = group(getter.clone(), settings());
    let (a, u) = tokio::join!(body(&group, b"a"), body(&group, b"u"));
    assert_eq!((a, u), (b"a".to_vec(), b"at last".to_vec()));
    assert_eq!(getter.retries.load(Ordering::SeqCst), 1);
    // A trip that brings nothing at all is its getter's own to repeat.
    let (one, two) = tokio::join!(get(&group, b"u1"), get(&group, b"u2"));
    assert!(one.is_err() && two.is_err());
    assert_eq!(getter.retries.load(Ordering::SeqCst), 1);
    assert_eq!(getter.trips.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_key_under_suspicion_travels_alone() {
    let getter = Arc::new(Resting::default());
    let group = group(getter.clone(), settings());
    let answers = tokio::join!(body(&group, b"a"), body(&group, b"!bad"), body(&group, b"b"));
    assert_eq!(answers, (b"a".to_vec(), b"!bad".to_vec(), b"b".to_vec()));
    assert_eq!((getter.trips.load(Ordering::SeqCst), getter.loads()), (1, 1));
}
