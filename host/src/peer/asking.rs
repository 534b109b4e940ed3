//! One question after the other, until somebody answers.
//!
//! An owner that shows no sign of life in the time in which it nearly always does is not
//! yet given up, but its stand-in's memory is looked into meanwhile (a *hedge*). That costs
//! no fill: an owner that is at it says so at once, and a stand-in that is only looked at
//! fills nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::{
    Fleet,
    client::Reply,
    health::{Peer, Prober},
    signs::Signs,
};
use crate::{
    breaker::{Pass, Report},
    group::{Asked, Held, Question},
    wire::link::NEWS_MAX,
};

/// How many nodes are asked for a key one after the other: its owner and one stand-in, so
/// that the keys of a dead node are filled once and not on every node.
const ASKED_MAX: usize = 2;

/// The least time that an owner has for its first sign of life before a hedge.
const HEDGE_AFTER_MIN: Duration = Duration::from_millis(2);

/// Hedges may be this share of the questions, as one in so many.
const HEDGE_ONE_IN: u32 = 10;

/// Hedges that may come at once.
const HEDGES_MAX: u32 = 100;

/// Leave for hedges, earned by questions.
#[derive(Debug, Default)]
pub(super) struct Hedges(AtomicU32);

impl Hedges {
    fn earn(&self) {
        let more = |earned| (earned < HEDGES_MAX * HEDGE_ONE_IN).then_some(earned + 1);
        let _full = self.0.fetch_update(Relaxed, Relaxed, more);
    }

    fn spend(&self) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |earned| earned.checked_sub(HEDGE_ONE_IN)).is_ok()
    }
}

impl Fleet {
    pub(super) async fn ask_in_turn(&self, question: Question) -> Asked {
        let circle = Arc::clone(&self.members.load().now);
        let order = circle.ring.owners(&question.key, ASKED_MAX);
        let (mut nothing, mut now) = (Asked::Unanswered, question.asked);
        for (turn, owner) in order.iter().enumerate() {
            // Its own turn: nobody before it in the key's order could be asked.
            let Some(Some(peer)) = circle.peers.get(*owner) else { return nothing };
            // One that may be down is asked if there is nobody else.
            let is_last = turn + 1 == order.len();
            if peer.is_suspect() && !is_last {
                continue;
            }
            let Some(pass) = peer.admit(now) else { continue };
            let stand_in = order.get(turn + 1).and_then(|next| circle.peers.get(*next)?.as_ref());
            match self.ask_one(peer, (pass, now), &question, stand_in).await {
                Some(Asked::OtherCode) => nothing = Asked::OtherCode,
                Some(asked) => return asked,
                None => {}
            }
            now = Instant::now();
        }
        nothing
    }

    /// What the other end must hear; `None` if there is too much of it.
    pub(super) fn news(&self, question: &Question) -> Option<Bytes> {
        let Some(tidings) = &self.tidings else { return Some(Bytes::new()) };
        let news = tidings.for_question(&question.group, &question.key);
        news.filter(|news| news.len() <= NEWS_MAX)
    }

    async fn ask_one(
        &self,
        peer: &Arc<Peer>,
        (pass, now): (Pass, Instant),
        question: &Question,
        stand_in: Option<&Arc<Peer>>,
    ) -> Option<Asked> {
        let news = self.news(question);
        // Somebody who cannot be told of a purge may not have heard of it.
        let is_told = news.as_ref().is_some_and(|news| peer.way.is_some() || news.is_empty());
        let asking = Asking {
            peer: Arc::clone(peer),
            pass,
            question: question.clone(),
            news: news.clone().unwrap_or_default(),
            first_byte: match peer.way {
                Some(_) => self.answer_timeout.min(self.times.sign),
                None => self.answer_timeout,
            },
            signs: Signs::since(now),
        };
        self.hedges.earn();
        let hedge = peer.latency.slow().zip(stand_in).zip(news);
        let asked = match hedge {
            Some(((slow, stand_in), news)) => {
                self.ask_hedged(asking, slow.max(HEDGE_AFTER_MIN), stand_in, news).await
            }
            None => asking.ask(&self.prober).await,
        };
        match asked {
            Some(Asked::Found(value, _)) if !is_told => {
                Some(Asked::Found(value, Some(Duration::ZERO)))
            }
            asked => asked,
        }
    }

    /// Asks, and looks into the memory of `stand_in` if there is no sign of life within
    /// `after`.
    async fn ask_hedged(
        &self,
        asking: Asking,
        after: Duration,
        stand_in: &Arc<Peer>,
        news: Bytes,
    ) -> Option<Asked> {
        let question = asking.question.clone();
        let asking = Arc::new(asking);
        let (prober, all) = (self.prober.clone(), Arc::clone(&asking));
        // May go on when the caller has its answer, to find out how its owner fares.
        let mut asked = Box::pin(async move { all.ask(&prober).await });
        let hedged = timeout(after, &mut asked).await;
        if let Ok(asked) = hedged {
            return asked;
        }
        // An owner that works on the answer has said so.
        if asking.signs.first().is_some() || !self.hedges.spend() {
            return asked.await;
        }
        let deadline = question.deadline.min(Instant::now() + self.times.sign);
        let peeking = self.peek(stand_in, &question, news, deadline);
        let held = tokio::select! {
            biased;
            asked = &mut asked => return asked,
            held = peeking => held,
        };
        let Some(held) = held else {
            self.metrics.hedges_lost.inc();
            return asked.await;
        };
        self.metrics.hedges_won.inc();
        tokio::spawn(asked);
        Some(Asked::Found(held.value, Some(held.ttl)))
    }

    /// Looks into the memory of `peer`, if it is well as far as is known.
    pub(super) async fn peek(
        &self,
        peer: &Arc<Peer>,
        question: &Question,
        news: Bytes,
        deadline: Instant,
    ) -> Option<Held> {
        let way = peer.way.as_ref()?;
        let pass = peer.admit_peek()?;
        let held = way.peek(question, news, deadline).await;
        let report = if held.is_ok() { Report::Well } else { Report::Fault };
        peer.was_peeked(pass, report);
        held.ok().flatten()
    }
}

/// A question to one peer.
struct Asking {
    peer: Arc<Peer>,
    pass: Pass,
    question: Question,
    news: Bytes,
    /// Time for the first sign of its answer.
    first_byte: Duration,
    signs: Signs,
}

impl Asking {
    /// Puts it, and notes how the peer fares. `None` if it did not answer.
    async fn ask(&self, prober: &Prober) -> Option<Asked> {
        let Self { peer, question, .. } = self;
        let now = self.signs.began();
        let half = question.deadline.saturating_duration_since(now) / 2;
        let times = (now + half.min(self.first_byte), question.deadline);
        let path = (&*question.group, &*question.key);
        let reply = match &peer.way {
            Some(way) => way.get(question, self.news.clone(), times, &self.signs).await,
            None => prober.client.get(peer, path, times).await,
        };
        if let Some(first) = self.signs.first() {
            peer.latency.note(first);
        }
        match reply {
            Reply::Said(asked) => {
                peer.was_well(self.pass);
                Some(asked)
            }
            Reply::Nothing(reason) => {
                peer.was_at_fault(self.pass, &reason, prober);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_questions_may_be_hedged() {
        let hedges = Hedges::default();
        assert!(!hedges.spend());
        (0..25).for_each(|_| hedges.earn());
        assert!(hedges.spend() && hedges.spend() && !hedges.spend());
        (0..1_000_000).for_each(|_| hedges.earn());
        assert_eq!((0..1_000).filter(|_| hedges.spend()).count(), HEDGES_MAX as usize);
    }
}
