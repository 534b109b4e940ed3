//! Nodes die.

use std::time::Duration;

use super::{Five, Window, alone, item, load, tell};
use crate::harness::load::{Done, Load};

/// Keys that clients ask for.
const KEYS: usize = 1_000;

/// Requests a second.
const RATE: u32 = 150;

/// Requests of a window in which something goes on.
const SOME: usize = 2 * RATE as usize;

/// No body was wrong, and every request was answered with its value but for those that were
/// under way at the node `dead` when it was killed, as the window began.
fn only_who_was_there_noticed(window: &Window, dead: usize) {
    assert_eq!(window.wrong(), 0);
    let was_there = |done: &&Done| done.node == dead && done.began < Duration::from_secs(1);
    let errors = window.errors();
    assert!(errors.iter().all(was_there), "{errors:?}");
    assert!(errors.len() * 50 <= window.done.len(), "{errors:?}");
}

fn nobody_noticed(window: &Window) {
    assert_eq!(window.errors().len(), 0, "{:?}", window.errors());
}

/// Opens a new window, and gives it some requests.
async fn some(load: &Load) {
    load.window().await;
    load.answered(SOME).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_die_cost_nobody_an_answer() {
    let _alone = alone().await;
    let mut five = Five::start(70).await;
    five.warm(KEYS, item).await;
    let load = load(&five, RATE, KEYS, item);
    load.answered(SOME).await;
    let control = load.window().await;
    tell("control", &control, 0);
    nobody_noticed(&control);

    // One of five.
    let before = five.books.total();
    assert!(before <= KEYS + KEYS / 10, "{before} fills of {KEYS} keys in peace");
    five.nodes[4].kill();
    load.answered(SOME).await;
    five.agree(&[0, 1, 2, 3]).await;
    let after = load.window().await;
    let fills = five.books.total() - before;
    tell("one of five killed", &after, fills);
    only_who_was_there_noticed(&after, 4);
    let lost = KEYS / 5;
    assert!(fills <= 2 * lost, "{fills} fills for the {lost} of {KEYS} keys that were lost");
    some(&load).await;
    nobody_noticed(&load.window().await);

    // It comes back, and takes over what it owned.
    five.nodes[4].start_again().await;
    five.agree(&[0, 1, 2, 3, 4]).await;
    let back = load.window().await;
    tell("and back", &back, five.books.total() - before - fills);
    nobody_noticed(&back);

    // Two at once.
    let before = five.books.total();
    five.nodes[4].kill();
    five.nodes[3].kill();
    load.answered(SOME).await;
    five.agree(&[0, 1, 2]).await;
    let after = load.window().await;
    let fills = five.books.total() - before;
    tell("two of five killed", &after, fills);
    assert_eq!(after.wrong(), 0);
    let others = after.errors().into_iter().filter(|done| done.node < 3).count();
    assert_eq!(others, 0, "{:?}", after.errors());
    assert!(fills <= 2 * 2 * KEYS / 5, "{fills}");

    // All but one.
    five.nodes[2].kill();
    five.nodes[1].kill();
    load.answered(SOME).await;
    five.agree(&[0]).await;
    let after = load.window().await;
    tell("all but one killed", &after, five.books.total() - before - fills);
    assert_eq!(after.wrong(), 0);
    let others = after.errors().into_iter().filter(|done| done.node == 0).count();
    assert_eq!(others, 0, "{:?}", after.errors());
    some(&load).await;
    nobody_noticed(&load.window().await);
}
