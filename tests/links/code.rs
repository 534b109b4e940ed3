//! Fleets whose nodes have two versions of a plugin, as in a rolling upgrade.

use super::*;

/// Nodes whose groups are filled by code of these digests.
fn of_codes(codes: &[u64]) -> Vec<Node> {
    let node = |code: &u64| start(&Wish { code: *code, ..Wish::default() });
    let nodes: Vec<_> = codes.iter().map(node).collect();
    introduce(&nodes.iter().collect::<Vec<_>>());
    nodes
}

const OTHER: &str = "cachecluster_peer_questions_total{group=\"g\",outcome=\"other_code\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_other_code_answer_nothing_and_the_asking_one_fills_itself() {
    let nodes = of_codes(&[1, 2]);
    let keys = nodes[1].own_keys("numbered", 20);
    for key in &keys {
        let theirs = nodes[1].get(key).await;
        assert_ne!(nodes[0].get(key).await, theirs);
    }
    assert_eq!(nodes[1].fills.load(SeqCst), 20);
    assert_eq!(nodes[0].counter(OTHER), 20);
    // Both go over to the same.
    let nodes = of_codes(&[2, 2, 0]);
    for key in &keys {
        let value = nodes[0].get(key).await;
        assert_eq!(nodes[1].get(key).await, value);
        assert_eq!(nodes[2].get(key).await, value, "a getter without a digest takes any");
    }
    assert_eq!((fills(&nodes), nodes[0].counter(OTHER)), (20, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stand_in_of_the_same_code_is_asked_in_the_place_of_an_owner_of_another() {
    let nodes = of_codes(&[1, 2, 1]);
    let keys = nodes[1].own_keys("numbered", 60);
    for key in &keys {
        let value = nodes[0].get(key).await;
        assert_eq!(nodes[2].get(key).await, value, "once for all nodes of one code");
    }
    assert_eq!(fills(&nodes), 60);
    assert_eq!(nodes[1].fills.load(SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_other_code_are_neither_looked_for_nor_handed_over() {
    let nodes = of_codes(&[1, 2]);
    let [one, two] = &nodes[..] else { panic!("two") };
    let keys = two.own_keys("numbered", 20);
    for key in &keys {
        two.get(key).await;
    }
    introduce(&[one]);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let handed = two.fleet.hand_over(&two.groups.all(), deadline).await;
    assert_eq!((handed.kept, handed.refused), (0, 20));
    for key in &keys {
        one.get(key).await;
    }
    assert_eq!(one.fills.load(SeqCst), 20);
}
