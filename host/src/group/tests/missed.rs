//! Gets that go on where memory alone had no answer.

use super::*;
use crate::group::{BoxFuture, Herald, Purged};
use tokio::sync::watch;

/// Knows of every purge once it is told so.
struct News(watch::Sender<bool>);

impl Herald for News {
    fn purging(&self, _group: &str, _what: Purged<'_>) {}

    fn is_current(&self, _now: Instant) -> bool {
        *self.0.borrow()
    }

    fn current(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { _ = self.0.subscribe().wait_for(|is_current| *is_current).await })
    }
}

#[tokio::test(start_paused = true)]
async fn a_get_that_memory_had_refused_takes_what_was_kept_since() {
    let origin = Origin::new([Ok(Outcome::found("v"))]);
    let group = group(origin.clone(), settings());
    let now = Instant::now();
    assert!(group.recall_at(b"k", now).is_none());
    body(&group, b"k").await;
    let hit = group.get_missed(b"k", now, &Context::within(SECOND)).await.expect("a value");
    assert_eq!(hit.provenance.served, Served::Hit);
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_get_that_memory_had_refused_for_want_of_news_waits_for_them_first() {
    let origin = Origin::new([Ok(Outcome::found("v"))]);
    let group = group(origin.clone(), settings());
    body(&group, b"k").await;
    let news = Arc::new(News(watch::channel(false).0));
    group.heed(Arc::clone(&news) as _);
    let now = Instant::now();
    assert!(group.recall_at(b"k", now).is_none());
    let asking = Arc::clone(&group);
    let get =
        tokio::spawn(
            async move { asking.get_missed(b"k", now, &Context::within(5 * SECOND)).await },
        );
    settle().await;
    assert!(!get.is_finished());
    // What it then finds is of that moment: this has died meanwhile.
    advance(4 * SECOND).await;
    group.forget(Purged::Key(b"k"));
    news.0.send_replace(true);
    let hit = get.await.expect("no panic").expect("a value");
    assert_eq!(hit.provenance.served, Served::Filled { stored: true });
    assert_eq!(origin.calls(), 2);
}
