use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_hours(1);

fn store(budget: u64) -> (Store, Instant) {
    let store = Store::new(budget, 1_024);
    let now = store.started;
    (store, now)
}

fn put(store: &Store, key: &[u8], body: &[u8], now: Instant) -> Inserted {
    store.insert(key, Some(Value::new(body)), Lifetime::new(HOUR, Duration::ZERO), now)
}

fn body(store: &Store, key: &[u8], now: Instant) -> Option<Vec<u8>> {
    let (entry, _) = store.get(key, store.moment(now))?;
    entry.value.map(|value| value.body().to_vec())
}

#[test]
fn odd_keys_are_distinct() {
    let (store, now) = store(1 << 20);
    let keys: [&[u8]; 8] = [b"", b"a", b"a//b", b"a/b", b"../x", b"/lead", b"a b", b"\xff\x00\xfe"];
    for key in keys {
        put(&store, key, key, now);
    }
    for key in keys {
        assert_eq!(body(&store, key, now).as_deref(), Some(key));
    }
}

#[test]
fn an_answer_is_fresh_then_stale_then_gone() {
    let (store, now) = store(1 << 20);
    let lifetime = Lifetime::new(Duration::from_secs(10), Duration::from_secs(5));
    store.insert(b"k", Some(Value::new(b"v")), lifetime, now);
    let at = |seconds| {
        let then = store.moment(now + Duration::from_secs(seconds));
        store.get(b"k", then).map(|(_, age)| age)
    };

    let fresh = at(4).expect("fresh");
    assert_eq!((fresh.state, fresh.age().as_secs(), fresh.ttl().as_secs()), (State::Fresh, 4, 6));
    let stale = at(10).expect("stale");
    assert_eq!((stale.state, stale.ttl()), (State::Stale, Duration::ZERO));
    assert!(at(15).is_none());
    assert_eq!(store.usage(), Usage::default(), "a dead answer frees its bytes when looked at");
}

#[test]
fn the_least_recently_used_answer_makes_room() {
    let one = charge(b"a", &entry(&[0; 100]));
    let store = Store::new(3 * one, 100);
    let now = store.started;
    for key in [b"a", b"b", b"c"] {
        assert_eq!(put(&store, key, &[0; 100], now), Inserted::Kept { evicted: 0 });
    }
    assert!(body(&store, b"a", now).is_some());
    assert_eq!(put(&store, b"d", &[0; 100], now), Inserted::Kept { evicted: 1 });
    assert!(body(&store, b"b", now).is_none(), "b was used longest ago");
    assert!(body(&store, b"a", now).is_some());
}

#[test]
fn an_answer_over_the_whole_budget_is_refused_and_takes_the_old_one_along() {
    let (store, now) = store(1_000);
    assert_eq!(put(&store, b"k", b"old", now), Inserted::Kept { evicted: 0 });
    assert_eq!(put(&store, b"k", &[0; 2_000], now), Inserted::TooLarge);
    assert!(body(&store, b"k", now).is_none());
    assert_eq!(store.usage(), Usage::default());
}

#[test]
fn a_small_store_is_not_split_below_what_its_values_need() {
    assert_eq!(Store::new(1 << 20, 1 << 20).shards.len(), 1);
    assert_eq!(Store::new(1 << 30, 1 << 20).shards.len(), SHARDS_MAX);
    assert_eq!(Store::new(u64::MAX, 0).shards.len(), SHARDS_MAX);
}

#[test]
fn a_remembered_not_found_is_an_answer() {
    let (store, now) = store(1 << 20);
    store.insert(b"k", None, Lifetime::new(HOUR, Duration::ZERO), now);
    assert!(store.get(b"k", store.moment(now)).is_some_and(|(entry, _)| entry.value.is_none()));
}

#[test]
fn clearing_forgets_everything() {
    let (store, now) = store(1 << 20);
    for key in 0..100_u32 {
        put(&store, &key.to_le_bytes(), b"v", now);
    }
    store.clear();
    assert_eq!(store.usage(), Usage::default());
}

fn entry(body: &[u8]) -> Entry {
    Entry { value: Some(Value::new(body)), stored: 0, fresh: 0, grace: 0 }
}

proptest! {
    /// Whatever is put, replaced and removed: the bytes are those of what is there.
    #[test]
    fn the_bytes_are_exact_and_within_the_budget(
        steps in prop::collection::vec((0..40_u8, 0..2_000_usize, any::<bool>()), 1..200),
    ) {
        let store = Store::new(16_384, 64);
        let now = store.started;
        for (key, size, insert) in steps {
            if insert {
                put(&store, &[key], &vec![key; size], now);
            } else {
                store.remove(&[key]);
            }
            prop_assert!(store.usage().bytes <= store.budget());
        }
        let held: Vec<_> =
            (0..40_u8).filter_map(|key| Some((key, store.peek(&[key], now)?.0))).collect();
        let bytes: u64 = held.iter().map(|(key, entry)| charge(&[*key], entry)).sum();
        prop_assert_eq!(store.usage(), Usage { items: held.len() as u64, bytes });
    }
}
