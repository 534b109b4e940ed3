//! Keys that change hands, and spare the origin.

use super::{hints::telling, *};
use crate::harness::proxy::Proxy;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_takes_over_what_the_others_hold() {
    let nodes = [start(&Wish::default()), start(&Wish::default()), start(&Wish::default())];
    let [one, two, new] = &nodes;
    introduce(&[one, two]);
    let keys: Vec<_> = (0..200).map(|number| format!("numbered:{number}").into_bytes()).collect();
    let mut values = Vec::new();
    for key in &keys {
        values.push(one.get(key).await);
    }
    assert_eq!(fills(&nodes), 200);
    new.fleet.set_members(&members(&[new], new));
    introduce(&[one, two, new]);
    for (key, value) in keys.iter().zip(&values) {
        assert_eq!(new.get(key).await, *value);
        assert_eq!(two.get(key).await, *value);
    }
    assert_eq!(fills(&nodes), 200, "everything was in somebody's memory");
    let inherited =
        new.counter("cachecluster_peer_inheritances_total{group=\"g\",outcome=\"found\"}");
    assert!((30..110).contains(&inherited), "{inherited}");
    // What was taken over is new's own now, with the time that was left.
    let key = new.own_keys("numbered", 1).remove(0);
    let hit = new.group.get(&key, &patience()).await.expect("a value");
    assert_eq!(hit.provenance.served, Served::Hit);
    assert!(hit.provenance.ttl <= new.group.settings().ttl);
    // And it does not take itself for the one who filled it, as the others do what they filled.
    let is_given = |node: &Node, key: &[u8]| {
        let held = node.group.explain(key).held.filter(|held| !held.is_copy);
        held.expect("a value of its own").is_given
    };
    assert!(is_given(new, &key));
    assert!(!is_given(one, &one.own_keys("numbered", 1)[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_left_the_ring_is_still_looked_at_and_fills_nothing() {
    let nodes = fleet(3);
    let [one, two, gone] = &nodes[..] else { panic!("three") };
    let held = gone.own_keys("page", 40);
    let not_held = gone.own_keys("numbered", 10);
    for key in &held {
        one.get(key).await;
    }
    assert_eq!(fills(&nodes), 40);
    introduce(&[one, two]);
    for key in &held {
        for node in [one, two] {
            let hit = node.group.get(key, &patience()).await.expect("a value");
            let labels = hit.value.head().expect("a head");
            assert_eq!(labels.tags, [Box::from("news")]);
            assert!(hit.provenance.ttl <= Duration::from_mins(5), "{:?}", hit.provenance);
        }
    }
    assert_eq!(fills(&nodes), 40);
    for key in &not_held {
        one.get(key).await;
    }
    assert_eq!(fills(&nodes), 50, "what it does not hold is filled once");
    assert_eq!(gone.fills.load(SeqCst), 40, "and not by a node that has left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_purged_does_not_come_back_from_a_previous_owner() {
    let (nodes, books) = telling(3);
    introduce(&nodes.iter().collect::<Vec<_>>());
    let [one, two, gone] = &nodes[..] else { panic!("three") };
    let keys = gone.own_keys("numbered", 30);
    let mut old = Vec::new();
    for key in &keys {
        old.push(one.get(key).await);
    }
    introduce(&[one, two]);
    for (key, old) in keys.iter().zip(&old) {
        // Whoever owns it now knows of the purge; who owned it before does not.
        books[usize::from(one.is_remote(key))].purge(key);
        let new = one.get(key).await;
        assert_ne!(new, *old);
        assert_eq!(two.get(key).await, new);
    }
    assert_eq!(fills(&nodes), 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_takes_longer_than_a_look_is_there_for_later_ones() {
    let times = Times { peek: Duration::from_millis(5), ..Wish::default().times };
    let wish = Wish { times, links: 1, ..Wish::default() };
    let (one, gone) = (start(&wish), start(&wish));
    let proxy = Proxy::start(gone.address).await;
    proxy.pause(true);
    gone.fleet.set_members(&members(&[&gone], &gone));
    let mut both = members(&[&one, &gone], &one);
    both[1].address = proxy.addr();
    one.fleet.set_members(&both);
    let keys = gone.own_keys("numbered", 400);
    let keys: Vec<_> = keys.into_iter().filter(|key| one.is_remote(key)).collect();
    one.fleet.set_members(&both[..1]);
    let (first, later) = keys.split_at(4);
    for key in first {
        one.get(key).await;
    }
    assert_eq!(one.fills.load(SeqCst), 4, "nobody said a word in time");
    assert_eq!(proxy.connections(), 1, "one link is being made for all of them");
    proxy.pause(false);
    let inherited = "cachecluster_peer_inheritances_total{group=\"g\",outcome=\"found\"}";
    let mut later = later.iter();
    until("a look is answered", || {
        let key = later.next().expect("keys enough");
        let (one, gone) = (&one, &gone);
        async move {
            gone.get(key).await;
            one.get(key).await;
            one.counter(inherited) > 0
        }
    })
    .await;
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_previous_owner_that_says_nothing_costs_its_share_of_time_and_no_more() {
    let times = Times { peek: Duration::from_millis(5), ..Wish::default().times };
    let nodes = [start(&Wish { times, ..Wish::default() }), start(&Wish::default())];
    // Somebody accepts connections there and says nothing.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let mut three = members(&[&nodes[0], &nodes[1]], &nodes[0]);
    let silent = Member { name: "silent".to_owned(), address, weight: 1, is_self: false };
    let two = three.clone();
    three.push(silent);
    nodes[0].fleet.set_members(&three);
    nodes[0].fleet.set_members(&two);
    for key in nodes[0].own_keys("numbered", 40) {
        nodes[0].get(&key).await;
    }
    assert_eq!(nodes[0].fills.load(SeqCst), 40);
    // Not all of them have waited for it.
    let looks = "cachecluster_peer_inheritances_total{group=\"g\",outcome=\"not_held\"}";
    assert!(nodes[0].counter(looks) >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_goes_hands_its_keys_to_their_next_owners() {
    let nodes = fleet(3);
    let [one, two, going] = &nodes[..] else { panic!("three") };
    let mut keys = going.own_keys("numbered", 300);
    keys.extend(going.own_keys("page", 20));
    keys.extend(going.own_keys(&format!("size:{}", 3 << 20), 2));
    let mut values = Vec::new();
    for key in &keys {
        values.push(going.get(key).await);
    }
    introduce(&[one, two]);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let groups = going.groups.all();
    let handed = going.fleet.hand_over(&groups, deadline).await;
    assert_eq!((handed.kept, handed.refused), (keys.len(), 0));
    let kept = "cachecluster_peer_handovers_total{outcome=\"kept\"}";
    assert_eq!(going.counter(kept), keys.len() as u64);
    // Without a look at who owned them: they have arrived.
    for (key, value) in keys.iter().zip(&values) {
        let owner = if one.is_remote(key) { two } else { one };
        let hit = owner.group.peek(key).expect("in memory").expect("a value");
        assert_eq!(hit.value.body(), value);
        assert!(hit.provenance.ttl <= owner.group.settings().ttl);
        let is_page = key.starts_with(b"page");
        assert_eq!(hit.value.content_type().is_some(), is_page);
    }
    assert_eq!(fills(&nodes), keys.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_handed_over_is_refused_by_whoever_knows_better() {
    let (nodes, books) = telling(3);
    introduce(&nodes.iter().collect::<Vec<_>>());
    let [one, two, going] = &nodes[..] else { panic!("three") };
    let keys = going.own_keys("numbered", 40);
    for key in &keys {
        going.get(key).await;
    }
    // The next owners have heard of a purge of the first ten, and filled the next ten
    // themselves; the going one knows of a purge of ten more that they have yet to hear of.
    introduce(&[one, two]);
    one.fleet.set_members(&members(&[one], one));
    two.fleet.set_members(&members(&[two], two));
    for key in &keys[..10] {
        books[0].purge(key);
        books[1].purge(key);
    }
    let mut fresher = Vec::new();
    for key in &keys[10..20] {
        for node in [one, two] {
            let value = cachecluster::value::Value::new(b"fresher");
            node.group.put(key, value, None);
        }
        fresher.push(key);
    }
    introduce(&[one, two]);
    books[2].is_overfull.store(true, SeqCst);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let handed = going.fleet.hand_over(&going.groups.all(), deadline).await;
    assert_eq!((handed.kept, handed.refused), (0, 40), "what it may not say is not handed over");
    books[2].is_overfull.store(false, SeqCst);
    let handed = going.fleet.hand_over(&going.groups.all(), deadline).await;
    assert_eq!((handed.kept, handed.refused), (20, 20));
    for key in &keys[..10] {
        assert!(one.group.peek(key).is_none() && two.group.peek(key).is_none());
    }
    for key in fresher {
        assert_eq!(one.get(key).await, b"fresher");
    }
    // A node that is not in line for a key does not take it.
    let handed = going.fleet.hand_over(&going.groups.all(), deadline).await;
    assert_eq!(handed.kept, 0, "once is enough");
}
