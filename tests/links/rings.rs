//! Rings that differ from node to node, and change while questions are under way.

use super::*;

/// Nodes of the fleet.
const NODES: usize = 4;

/// Gets at once.
const CROWD: usize = 200;

/// Some of `nodes`, `me` among them, as a ring that nobody else may have.
fn some_members(nodes: &[Node], me: &Node, random: &mut fastrand::Rng) -> Vec<Member> {
    let all: Vec<_> = nodes.iter().collect();
    let mut seen = members(&all, me);
    seen.retain(|member| member.is_self || random.bool());
    seen
}

/// Whoever is asked by a peer answers itself, so that no two nodes can wait for one another,
/// and a get puts one question at the most: there is no second hop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rings_that_differ_cost_fills_and_nobody_waits_for_ever() {
    let nodes = Arc::new(fleet(NODES));
    let mut random = fastrand::Rng::with_seed(31);
    let mut gets = 0;
    for round in 0..5 {
        let mut callers = JoinSet::new();
        for caller in 0..CROWD {
            // In the middle of it, too, somebody sees another ring.
            if caller % 100 == 0 {
                for me in nodes.iter() {
                    me.fleet.set_members(&some_members(&nodes, me, &mut random));
                }
            }
            let kind = ["once", "key", "none"][caller % 3];
            let key = format!("{kind}:{}:{}", round, random.u32(..6)).into_bytes();
            let (nodes, at) = (Arc::clone(&nodes), random.usize(..NODES));
            callers.spawn(async move {
                let got = nodes[at].group.get(&key, &patience()).await;
                match (kind, got) {
                    ("none", Err(GetError::NotFound(_))) => {}
                    ("once", Ok(hit)) => assert_eq!(hit.value.body(), b"once"),
                    ("key", Ok(hit)) => assert_eq!(hit.value.body(), &key),
                    (_, got) => panic!("{kind}: {got:?}"),
                }
            });
            gets += 1;
        }
        callers.join_all().await;
    }
    let questions: f64 = nodes.iter().map(|node| questions(&node.metrics.encode())).sum();
    assert!(questions > 100.0, "{questions}: the rings do not differ");
    assert!(questions <= f64::from(gets), "{questions} questions for {gets} gets");
}

/// How many questions a node has put, by what it exports.
fn questions(text: &str) -> f64 {
    let lines =
        text.lines().filter_map(|line| line.strip_prefix("cachecluster_peer_questions_total{"));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}
