//! Keys that other nodes own.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::value::Value;

/// Another node, in the test's hands: it owns every key that begins with `r`, and answers
/// what it was told, in order, and then goes on with the last answer.
struct Owner {
    answers: Mutex<VecDeque<Asked>>,
    gate: Semaphore,
    questions: AtomicUsize,
    is_gone: AtomicBool,
    /// What it holds of any key that was its own before, if it can be looked at.
    held: Mutex<Option<Vec<Held>>>,
}

impl Owner {
    fn new(answers: impl IntoIterator<Item = Asked>) -> Arc<Self> {
        Self::gated(answers, Semaphore::MAX_PERMITS)
    }

    fn gated(answers: impl IntoIterator<Item = Asked>, permits: usize) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.into_iter().collect()),
            gate: Semaphore::new(permits),
            questions: AtomicUsize::new(0),
            is_gone: AtomicBool::new(false),
            held: Mutex::default(),
        })
    }

    fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }
}

impl Peers for Owner {
    fn is_remote(&self, _group: &str, key: &[u8]) -> bool {
        key.starts_with(b"r") && !self.is_gone.load(Ordering::SeqCst)
    }

    fn ask(&self, _question: Question) -> BoxFuture<'_, Asked> {
        Box::pin(async move {
            self.questions.fetch_add(1, Ordering::SeqCst);
            self.gate.acquire().await.unwrap().forget();
            let mut answers = self.answers.lock().unwrap();
            if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() }
        })
    }

    fn peek_previous(&self, _question: Question) -> Option<BoxFuture<'_, Option<Held>>> {
        let held = self.held.lock().unwrap().clone()?;
        Some(Box::pin(async move {
            self.gate.acquire().await.unwrap().forget();
            held.into_iter().next()
        }))
    }
}

/// A group beside `owner`, which fills from `origin`.
fn beside(owner: &Arc<Owner>, origin: Arc<dyn Getter>) -> Arc<Group> {
    let (group, owner) = (group(origin, settings()), Arc::clone(owner));
    group.join_peers(owner, Metrics::new().peers("g"));
    group
}

fn found(body: &str, ttl: u64) -> Asked {
    Asked::Found(Value::new(body.as_bytes()), Some(Duration::from_secs(ttl)))
}

/// An origin that must not be asked.
fn none() -> Arc<Origin> {
    Origin::new([Ok(Outcome::found("from the wrong origin"))])
}

async fn from_peer(group: &Arc<Group>, key: &[u8]) -> Result<Hit, GetError> {
    group.get(key, &Context { is_from_peer: true, ..Context::within(5 * SECOND) }).await
}

#[tokio::test(start_paused = true)]
async fn a_key_of_another_node_is_asked_for_there_once_for_all_callers() {
    let (owner, origin) = (Owner::gated([found("theirs", 60)], 0), none());
    let group = beside(&owner, origin.clone());
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let group = Arc::clone(&group);
        callers.spawn(async move { get(&group, b"remote").await.unwrap().provenance.served });
    }
    settle().await;
    owner.gate.add_permits(1);
    let served = callers.join_all().await;
    assert_eq!((owner.questions(), origin.calls()), (1, 0));
    let firsts = served.iter().filter(|served| matches!(served, Served::Peer { .. })).count();
    assert_eq!(firsts, 1);
    // Its own keys it fills itself.
    assert_eq!(body(&group, b"own").await, b"from the wrong origin");
}

#[tokio::test(start_paused = true)]
async fn the_owners_word_is_final() {
    let down = FillError::Unavailable { message: "down".into(), retry_after: None };
    let owner = Owner::new([Asked::NotFound, Asked::Failed(down)]);
    let origin = none();
    let group = beside(&owner, origin.clone());
    assert!(matches!(get(&group, b"r1").await, Err(GetError::NotFound(_))));
    assert!(matches!(get(&group, b"r2").await, Err(GetError::Fill { .. })));
    assert_eq!(origin.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_nobody_answers_ends_in_a_fill_here() {
    let owner = Owner::new([Asked::Unanswered]);
    let origin = Origin::new([Ok(Outcome::found("ours"))]);
    let group = beside(&owner, origin.clone());
    assert_eq!(body(&group, b"r").await, b"ours");
    assert_eq!(get(&group, b"r").await.unwrap().provenance.served, Served::Hit);
    assert_eq!((owner.questions(), origin.calls()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_of_a_peer_is_never_sent_on_and_never_waits_for_a_question() {
    // The rings of two nodes differ: each takes the other for the owner.
    let owner = Owner::gated([Asked::Unanswered], 0);
    let origin = Origin::new([Ok(Outcome::found("ours"))]);
    let group = beside(&owner, origin.clone());
    let asking = tokio::spawn({
        let group = Arc::clone(&group);
        async move { get(&group, b"r").await }
    });
    settle().await;
    assert_eq!(owner.questions(), 1);
    let answer = from_peer(&group, b"r").await.expect("answered from here, at once");
    assert_eq!(answer.value.body(), b"ours");
    owner.gate.add_permits(1);
    assert_eq!(asking.await.unwrap().unwrap().value.body(), b"ours");
    assert_eq!(origin.calls(), 1, "what the peer's request filled serves this node too");
}

#[tokio::test(start_paused = true)]
async fn only_what_is_asked_for_often_is_kept_and_no_longer_than_its_owner_keeps_it() {
    let owner = Owner::new([found("theirs", 10)]);
    let group = beside(&owner, none());
    for asked in 1..=2 {
        let served = get(&group, b"r").await.unwrap().provenance.served;
        assert_eq!((served, owner.questions()), (Served::Peer { stored: false }, asked));
    }
    let third = get(&group, b"r").await.unwrap().provenance;
    assert_eq!((third.served, third.ttl), (Served::Peer { stored: true }, 10 * SECOND));
    advance(9 * SECOND).await;
    let hot = get(&group, b"r").await.unwrap().provenance;
    assert_eq!((hot.served, hot.ttl, owner.questions()), (Served::Hit, SECOND, 3));
    advance(2 * SECOND).await;
    get(&group, b"r").await.unwrap();
    assert_eq!(owner.questions(), 4, "it has expired, without a grace");
}

#[tokio::test(start_paused = true)]
async fn a_purge_drops_hot_copies_and_what_is_on_its_way() {
    let owner = Owner::new([found("old", 60)]);
    let group = beside(&owner, none());
    for _ in 0..3 {
        get(&group, b"r").await.unwrap();
    }
    assert!(group.peek(b"r").is_some());
    assert!(group.purge(b"r"));
    assert!(group.peek(b"r").is_none());

    let slow = Owner::gated([found("old", 60)], 0);
    for purge_all in [false, true] {
        let group = beside(&slow, none());
        let asking: Vec<_> = (0..3)
            .map(|_| {
                let group = Arc::clone(&group);
                tokio::spawn(async move { get(&group, b"r").await })
            })
            .collect();
        settle().await;
        if purge_all {
            group.purge_all();
        } else {
            _ = group.purge(b"r");
        }
        slow.gate.add_permits(1);
        for asked in asking {
            assert_eq!(asked.await.unwrap().unwrap().value.body(), b"old", "they asked before");
        }
        assert!(group.peek(b"r").is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn hot_copies_keep_to_their_share_of_the_memory() {
    let owner = Owner::new([found(&"x".repeat(4_000), 60)]);
    let group = beside(&owner, Origin::new([Ok(Outcome::found("y".repeat(4_000)))]));
    for key in 0..400 {
        for _ in 0..3 {
            get(&group, format!("r{key}").as_bytes()).await.unwrap();
        }
        get(&group, format!("own{key}").as_bytes()).await.unwrap();
    }
    let usage = group.usage();
    assert!(usage.bytes <= usage.budget && usage.budget <= 1 << 20, "{usage:?}");
    let hot = (0..400).filter(|key| group.peek(format!("r{key}").as_bytes()).is_some()).count();
    // An eighth of a MiB, in values of four kilobytes.
    assert!((8..=32).contains(&hot), "{hot}");
}

#[tokio::test(start_paused = true)]
async fn a_stale_copy_from_when_this_node_owned_the_key_is_refreshed_at_its_owner() {
    let owner = Owner::new([found("theirs", 60)]);
    let origin = Origin::new([Ok(Outcome::found("ours"))]);
    let group = beside(&owner, origin.clone());
    owner.is_gone.store(true, Ordering::SeqCst);
    assert_eq!(body(&group, b"r").await, b"ours");
    owner.is_gone.store(false, Ordering::SeqCst);
    advance(70 * SECOND).await;
    assert_eq!(get(&group, b"r").await.unwrap().provenance.served, Served::Stale);
    settle().await;
    assert_eq!(body(&group, b"r").await, b"theirs");
    assert_eq!((owner.questions(), origin.calls()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn other_settings_find_their_shares_again() {
    let owner = Owner::new([found("theirs", 60)]);
    let group = beside(&owner, none());
    group.reconfigure(Caching { memory: ByteSize::mib(8), ..settings() });
    let budget = group.usage().budget;
    assert!((8 << 20) - budget < 1 << 10, "{budget}");
}

fn held(body: &str) -> Held {
    let value = Value::new(body.as_bytes());
    Held { value, ttl: 20 * SECOND, grace: 5 * SECOND, age: 40 * SECOND, is_given: false }
}

#[tokio::test(start_paused = true)]
async fn what_the_previous_owner_holds_lands_with_what_is_left_of_its_life() {
    let owner = Owner::new([Asked::Unanswered]);
    let origin = Origin::new([Ok(Outcome::found("ours"))]);
    let group = beside(&owner, origin.clone());
    *owner.held.lock().unwrap() = Some(vec![held("inherited")]);
    let first = get(&group, b"own").await.unwrap();
    assert_eq!(first.value.body(), b"inherited");
    assert_eq!(first.provenance.served, Served::Peer { stored: true });
    assert_eq!(first.provenance.ttl, 20 * SECOND);
    // It is looked for once, and refreshed at the origin.
    *owner.held.lock().unwrap() = Some(Vec::new());
    advance(21 * SECOND).await;
    assert_eq!(get(&group, b"own").await.unwrap().provenance.served, Served::Stale);
    settle().await;
    assert_eq!(body(&group, b"own").await, b"ours");
    assert_eq!(body(&group, b"another").await, b"ours", "it holds nothing of that");
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_purge_beats_what_the_previous_owner_is_about_to_give() {
    let owner = Owner::gated([Asked::Unanswered], 0);
    let origin = Origin::new([Ok(Outcome::found("ours"))]);
    let group = beside(&owner, origin.clone());
    *owner.held.lock().unwrap() = Some(vec![held("old")]);
    let asking = tokio::spawn({
        let group = Arc::clone(&group);
        async move { body(&group, b"own").await }
    });
    settle().await;
    group.purge(b"own");
    owner.gate.add_permits(1);
    assert_eq!(asking.await.unwrap(), b"old", "asked before the purge");
    assert!(group.peek(b"own").is_none());
    *owner.held.lock().unwrap() = None;
    assert_eq!(body(&group, b"own").await, b"ours");
}

#[tokio::test(start_paused = true)]
async fn what_is_handed_over_is_kept_by_who_owns_it_and_knows_no_better() {
    let owner = Owner::new([Asked::Unanswered]);
    let origin = Origin::gated([Ok(Outcome::found("ours"))], 1);
    let group = beside(&owner, origin.clone());
    let fine = |_age| false;
    assert!(!group.take_over(b"r", held("given"), fine), "another node's");
    assert!(group.take_over(b"own", held("given"), fine));
    assert_eq!(body(&group, b"own").await, b"given");
    assert!(!group.take_over(b"own", held("older"), fine), "there is an answer");
    // As old as its fill may be.
    assert!(!group.take_over(b"purged", held("given"), |age| age == 50 * SECOND));
    assert!(group.take_over(b"purged", held("given"), |age| age != 50 * SECOND));
    // A fill that is under way is younger than whatever was filled elsewhere.
    origin.gate.acquire().await.unwrap().forget();
    let asking = tokio::spawn({
        let group = Arc::clone(&group);
        async move { body(&group, b"busy").await }
    });
    settle().await;
    assert!(!group.take_over(b"busy", held("given"), fine));
    origin.gate.add_permits(1);
    assert_eq!(asking.await.unwrap(), b"ours");
    let large = Held { value: Value::new(&vec![0; 32 << 10]), ..held("") };
    assert!(!group.take_over(b"large", large, fine));
    assert!(!group.take_over(b"over", Held { ttl: Duration::ZERO, ..held("") }, fine));
    let hottest: Vec<_> = group.hottest(10).into_iter().map(|(key, _)| key).collect();
    assert!(hottest.contains(&b"own".to_vec().into()), "{hottest:?}");
    assert_eq!(hottest.len(), 3);
}
