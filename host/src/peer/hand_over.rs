//! What a node does for its keys before it goes: it hands the hottest to their next owners.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::Fleet;
use crate::group::{Group, Held, Question};

/// Values that are handed over at most, the hottest of all groups.
const VALUES_MAX: usize = 10_000;

/// Bytes of those values at most.
const BYTES_MAX: usize = 64 << 20;

/// Values under way at once.
const UNDER_WAY_MAX: usize = 32;

/// A value that is fresh for less than this is not worth the way.
const TTL_MIN: Duration = Duration::from_secs(1);

/// What came of a hand-over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandedOver {
    /// Values that their next owners keep.
    pub kept: usize,
    /// Values that they refused, or did not answer for in time.
    pub refused: usize,
}

impl Fleet {
    /// Hands the keys of `groups` that were used last to their next owners, up to 10,000 of
    /// them and 64 MiB, until `deadline`. To be called by a node that is about to go, once
    /// the others can know that it is. It goes on answering meanwhile.
    pub async fn hand_over(
        self: &Arc<Self>,
        groups: &[Arc<Group>],
        deadline: Instant,
    ) -> HandedOver {
        let mut came_of_it = HandedOver::default();
        let mut offers = JoinSet::new();
        let mut count = |is_kept: bool| {
            if is_kept {
                self.metrics.handed_over.inc();
                came_of_it.kept += 1;
            } else {
                self.metrics.not_handed_over.inc();
                came_of_it.refused += 1;
            }
        };
        let began = Instant::now();
        for (group, key, mut held) in hottest(groups) {
            while offers.len() >= UNDER_WAY_MAX
                && let Some(offered) = offers.join_next().await
            {
                count(offered.unwrap_or(false));
            }
            let now = Instant::now();
            if now >= deadline {
                break;
            }
            held.ttl = held.ttl.saturating_sub(now - began);
            held.age += now - began;
            let question = Question {
                group: group.name().into(),
                key: key.into(),
                asked: now,
                deadline,
                code: group.code(),
            };
            let fleet = Arc::clone(self);
            offers.spawn(async move { fleet.offer(question, held, deadline).await });
        }
        // Each ends by the deadline.
        while let Some(offered) = offers.join_next().await {
            count(offered.unwrap_or(false));
        }
        came_of_it
    }

    async fn offer(&self, question: Question, held: Held, deadline: Instant) -> bool {
        let circle = Arc::clone(&self.members.load().now);
        let Some(way) = circle.next(&question.key).and_then(|peer| peer.way.as_ref()) else {
            return false;
        };
        // What it must know before it keeps the value, or the value is not for it.
        let Some(news) = self.news(&question) else { return false };
        let offering = way.offer(&question, &held, news, deadline);
        timeout_at(deadline, offering).await.unwrap_or(false)
    }
}

/// The hottest values of all groups, in turn: the first of each, then the second.
fn hottest(groups: &[Arc<Group>]) -> Vec<(Arc<Group>, Box<[u8]>, Held)> {
    let mut by_rank = BTreeMap::<usize, Vec<_>>::new();
    for group in groups {
        for (rank, (key, held)) in group.hottest(VALUES_MAX).into_iter().enumerate() {
            if held.ttl >= TTL_MIN {
                by_rank.entry(rank).or_default().push((Arc::clone(group), key, held));
            }
        }
    }
    let mut left = BYTES_MAX;
    let fits = |(_, key, held): &(_, Box<[u8]>, Held)| {
        let size = key.len() + held.value.body().len();
        let fits = size <= left;
        left -= if fits { size } else { 0 };
        fits
    };
    by_rank.into_values().flatten().filter(fits).take(VALUES_MAX).collect()
}
