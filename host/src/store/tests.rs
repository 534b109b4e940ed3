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
    assert_eq!(shard_count(1 << 20, 1 << 20), 1);
    assert_eq!(shard_count(1 << 30, 1 << 20), SHARDS_MAX);
    assert_eq!(shard_count(u64::MAX, 0), SHARDS_MAX);
    assert_eq!(shard_count(1, u64::MAX), 1);
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

/// Small, with one shard; middling, with four; large, with all of them.
const SIZES: [(u64, u64); 3] = [(1 << 20, 1 << 18), (4 << 20, 1 << 17), (16 << 20, 1 << 16)];

#[test]
fn a_resize_keeps_what_fits() {
    for (budget, value_max) in SIZES {
        for (other_budget, other_value_max) in SIZES {
            let store = Store::new(budget, value_max);
            let now = store.started;
            for key in 0..100_u32 {
                put(&store, &key.to_le_bytes(), &key.to_le_bytes(), now);
            }
            let before = store.usage();
            assert_eq!(store.resize(other_budget, other_value_max), 0);
            assert_eq!((store.usage(), store.budget()), (before, other_budget));
            for key in 0..100_u32 {
                let key = key.to_le_bytes();
                assert_eq!(body(&store, &key, now).as_deref(), Some(&key[..]));
            }
        }
    }
}

#[test]
fn a_smaller_budget_drops_the_least_recently_used_at_once() {
    let one = charge(&0_u32.to_le_bytes(), &entry(&[0; 100]));
    let store = Store::new(1_000 * one, 1_000 * one);
    let now = store.started;
    for key in 0..1_000_u32 {
        put(&store, &key.to_le_bytes(), &[0; 100], now);
    }
    assert_eq!(store.resize(600 * one, 1_000 * one), 400);
    assert_eq!(store.usage(), Usage { items: 600, bytes: 600 * one });
    assert!(body(&store, &399_u32.to_le_bytes(), now).is_none());
    assert!(body(&store, &400_u32.to_le_bytes(), now).is_some());
    // So much smaller that all is moved; and then it is a store like any other.
    assert_eq!(store.resize(10 * one, 1_000 * one), 590);
    assert_eq!(put(&store, b"next", &[0; 100], now), Inserted::Kept { evicted: 1 });
    assert_eq!(store.usage().items, 10);
}

#[test]
fn a_store_that_was_resized_fills_as_one_that_began_so() {
    for (budget, value_max) in SIZES {
        for (other_budget, other_value_max) in SIZES {
            let resized = Store::new(other_budget, other_value_max);
            resized.resize(budget, value_max);
            let fresh = Store::new(budget, value_max);
            let parts = |store: &Store| -> Vec<u64> {
                store
                    .plan
                    .load()
                    .serving()
                    .indices()
                    .map(|i| lock(&store.row[i]).budget())
                    .collect()
            };
            assert_eq!(parts(&resized), parts(&fresh));
            let now = resized.started;
            for key in 0..4_000_u32 {
                put(&resized, &key.to_le_bytes(), &[7; 6_000], now);
            }
            let usage = resized.usage();
            assert!(usage.bytes <= budget && usage.bytes > budget * 9 / 10, "{usage:?}");
        }
    }
}

#[test]
fn resizes_under_way_lose_nothing_and_undo_no_removal() {
    const ROUNDS: u32 = 20_000;
    let (store, now) = store(SIZES[0].0);
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3_u32)
            .map(|worker| {
                let store = &store;
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        // Each worker has keys of its own, and knows what must be there.
                        let key = [worker, round % 100].map(u32::to_le_bytes).concat();
                        let kept = put(store, &key, &round.to_le_bytes(), now);
                        assert_eq!(kept, Inserted::Kept { evicted: 0 });
                        let found = body(store, &key, now);
                        assert_eq!(found.as_deref(), Some(&round.to_le_bytes()[..]));
                        if round % 3 == 0 {
                            assert!(store.remove(&key));
                            assert_eq!(body(store, &key, now), None);
                        }
                    }
                })
            })
            .collect();
        let resizer = scope.spawn(|| {
            let mut resizes = 0;
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                let (budget, value_max) = SIZES[resizes % SIZES.len()];
                assert_eq!(store.resize(budget, value_max), 0);
                resizes += 1;
            }
            resizes
        });
        let ended: Vec<_> = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
        assert!(resizer.join().expect("the resizer") > 10);
    });
    let held = store.usage();
    store.clear();
    assert!(held.items > 0);
    assert_eq!(store.usage(), Usage::default());
    let budgets: u64 = store.row.iter().map(|shard| lock(shard).budget()).sum();
    assert_eq!(budgets, store.budget());
}

#[test]
fn a_clear_beats_a_resize_under_way() {
    let store = Store::new(SIZES[0].0, SIZES[0].1);
    let now = store.started;
    std::thread::scope(|scope| {
        let resizer = scope.spawn(|| {
            for resizes in 0..2_000 {
                let (budget, value_max) = SIZES[resizes % SIZES.len()];
                store.resize(budget, value_max);
            }
        });
        while !resizer.is_finished() {
            for key in 0..100_u32 {
                put(&store, &key.to_le_bytes(), b"v", now);
            }
            store.clear();
            for key in 0..100_u32 {
                assert_eq!(body(&store, &key.to_le_bytes(), now), None);
            }
        }
        resizer.join().expect("the resizer");
    });
}

#[test]
fn not_founds_of_a_span_can_be_voided() {
    let (store, now) = store(1 << 20);
    let second = Duration::from_secs(1);
    let lifetime = Lifetime::new(HOUR, HOUR);
    for (key, at) in [(b"a", 1), (b"b", 5), (b"c", 9)] {
        store.insert(key, None, lifetime, now + at * second);
    }
    store.insert(b"v", Some(Value::new(b"v")), lifetime, now + 5 * second);
    store.void_not_founds(now + 3 * second, now + 7 * second);
    let moment = store.moment(now + 10 * second);
    let there = [b"a", b"b", b"c", b"v"].map(|key| store.get(key, moment).is_some());
    assert_eq!(there, [true, false, true, true]);
    assert_eq!(store.usage().items, 3, "it is gone for good");
    // What is learnt after that counts again.
    store.insert(b"b", None, lifetime, now + 8 * second);
    assert!(store.get(b"b", moment).is_some());
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

#[test]
fn the_hottest_are_what_was_used_last() {
    // One shard, so that the order is that of all, with room for everything.
    let room = 400 * charge(b"key00", &entry(&[0; 8]));
    let store = Store::new(room, room);
    let now = store.started;
    for number in 0..40 {
        put(&store, format!("key{number:02}").as_bytes(), &[0; 8], now);
    }
    let short = Lifetime::new(Duration::from_secs(1), Duration::ZERO);
    store.insert(b"dead", Some(Value::new(b"x")), short, now);
    let later = now + Duration::from_secs(2);
    for number in [3, 5, 7] {
        body(&store, format!("key{number:02}").as_bytes(), later);
    }
    let all = store.hottest(1_000, later);
    assert_eq!(all.len(), 40, "what is dead is not among them");
    let hottest = store.hottest(20, later);
    assert!(hottest.len() <= 20, "{}", hottest.len());
    for ((hot, _, _), key) in hottest.iter().zip([&b"key07"[..], b"key05", b"key03"]) {
        assert_eq!(**hot, *key, "{hottest:?}");
    }
}
