//! Getters that get from other groups while they fill.

use std::sync::Weak;

use tokio::sync::Barrier;

use super::*;

/// Gets the same key from the group `next`, once as many fills as `meet` waits for are
/// under way, and says what came of it.
struct Reader {
    groups: Weak<Groups>,
    next: &'static str,
    meet: Arc<Barrier>,
}

impl Getter for Reader {
    fn load(&self, fill: Fill) -> BoxFuture<'_, Result<Outcome, FillError>> {
        Box::pin(async move {
            self.meet.wait().await;
            let group = self.groups.upgrade().and_then(|groups| groups.get(self.next));
            let cx = Context { chain: fill.chain.clone(), ..Context::until(fill.deadline) };
            let answer = group.expect("the next group").get(&fill.key, &cx).await;
            Ok(Outcome::found(match answer {
                Ok(hit) => hit.value.body().to_vec(),
                Err(GetError::Cycle) => b"cycle".to_vec(),
                Err(error) => error.to_string().into_bytes(),
            }))
        })
    }
}

/// Groups each of which gets from the next one, and the last from the first.
fn circle(names: &[&'static str]) -> Arc<Groups> {
    let groups = Arc::<Groups>::default();
    let meet = Arc::new(Barrier::new(names.len()));
    let made: Vec<_> = (0..names.len())
        .map(|at| {
            let getter = Arc::new(Reader {
                groups: Arc::downgrade(&groups),
                next: names[(at + 1) % names.len()],
                meet: Arc::clone(&meet),
            });
            let metrics = Metrics::new().group(names[at]);
            Group::new(names[at], settings(), getter, Handle::current(), metrics)
        })
        .collect();
    groups.replace(made);
    groups
}

#[tokio::test(start_paused = true)]
async fn fills_that_wait_for_one_another_end_at_once_and_not_at_their_deadlines() {
    for names in [&["a", "b"][..], &["a", "b", "c"], &["a", "b", "c", "d", "e"]] {
        let groups = circle(names);
        let began = Instant::now();
        let mut callers = JoinSet::new();
        for name in names {
            let group = groups.get(name).unwrap();
            callers.spawn(async move { body(&group, b"k").await });
        }
        for body in callers.join_all().await {
            assert_eq!(body, b"cycle", "one finds out, and the others hear of it");
        }
        assert_eq!(began.elapsed(), Duration::ZERO, "{names:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn fills_of_the_same_key_that_form_no_circle_wait_for_one_another() {
    // Both `a` and `b` get from `c`, which nobody else waits for.
    let groups = Arc::<Groups>::default();
    let meet = Arc::new(Barrier::new(2));
    let reader = |name: &str| {
        let (groups, meet) = (Arc::downgrade(&groups), Arc::clone(&meet));
        let getter = Arc::new(Reader { groups, next: "c", meet });
        Group::new(name, settings(), getter, Handle::current(), Metrics::new().group(name))
    };
    let origin = Origin::gated([Ok(Outcome::found("v"))], 0);
    let last =
        Group::new("c", settings(), origin.clone(), Handle::current(), Metrics::new().group("c"));
    groups.replace([reader("a"), reader("b"), last]);
    let (a, b) = (groups.get("a").unwrap(), groups.get("b").unwrap());
    let both = tokio::spawn(async move { tokio::join!(body(&a, b"k"), body(&b, b"k")) });
    settle().await;
    origin.gate.add_permits(1);
    assert_eq!(both.await.unwrap(), (b"v".to_vec(), b"v".to_vec()));
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_serves_several_keys_waits_for_none_of_them() {
    let origin = Origin::gated([Ok(Outcome::found("v"))], 0);
    let group = group(origin.clone(), settings());
    let callers = tokio::spawn({
        let group = Arc::clone(&group);
        async move { tokio::join!(body(&group, b"a"), body(&group, b"b")) }
    });
    settle().await;
    // What a trip for both would bring along, from the chain of the one it saw last.
    let last = origin.last();
    let other: &[u8] = if *last.key == *b"a" { b"b" } else { b"a" };
    let chain = last.chain.beside([&last.key, &Arc::from(other)]);
    let cx = Context { chain, ..Context::within(SECOND) };
    for key in [&b"a"[..], b"b"] {
        assert!(matches!(group.get(key, &cx).await, Err(GetError::Cycle)), "{key:?}");
    }
    origin.gate.add_permits(2);
    callers.await.unwrap();
}
