//! Which members have gone without taking their entry along. Nothing in doozer ends by itself:
//! whoever finds that nobody answers at an entry's address several times in a row takes it out.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    time::Duration,
};

use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};

/// Between two rounds of probes.
const EVERY: Duration = Duration::from_secs(10);

/// Between two rounds while somebody does not answer.
const EVERY_IN_DOUBT: Duration = Duration::from_secs(3);

/// Addresses that are probed in one round.
const AT_ONCE_MAX: usize = 16;

/// Time for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Failures in a row after which an entry is taken out.
const FAILURES_MAX: u32 = 3;

/// Times that an entry which comes back doubles that: it may be us who do not reach it.
const DOUBLINGS_MAX: u32 = 6;

/// What is known of those who did not answer.
#[derive(Debug)]
pub(super) struct Probes {
    doubts: HashMap<SocketAddr, Doubt>,
    /// When the next round is.
    due: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Doubt {
    failures: u32,
    /// How often the entry was taken out.
    times_out: u32,
}

impl Doubt {
    fn is_certain(self) -> bool {
        self.failures >= FAILURES_MAX << self.times_out.min(DOUBLINGS_MAX)
    }
}

impl Probes {
    /// Nobody is in doubt, and the first round is at once.
    pub(super) fn new() -> Self {
        Self { doubts: HashMap::new(), due: Instant::now() }
    }

    /// When the next round is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Probes some of `places` if it is time; says who is certainly gone.
    pub(super) async fn round(&mut self, places: &BTreeSet<SocketAddr>) -> BTreeSet<SocketAddr> {
        self.doubts.retain(|place, doubt| {
            if !places.contains(place) {
                doubt.failures = 0;
            }
            doubt.failures > 0 || doubt.times_out > 0
        });
        if Instant::now() >= self.due {
            let probed = self.choice(places);
            self.probe(probed).await;
            let in_doubt = self.doubts.values().any(|doubt| doubt.failures > 0);
            self.due = Instant::now() + if in_doubt { EVERY_IN_DOUBT } else { EVERY };
        }
        let doubts = self.doubts.iter().filter(|(_, doubt)| doubt.is_certain());
        doubts.map(|(place, _)| *place).collect()
    }

    /// These were taken out.
    pub(super) fn taken_out(&mut self, places: &BTreeSet<SocketAddr>) {
        for place in places {
            if let Some(doubt) = self.doubts.get_mut(place) {
                *doubt = Doubt { failures: 0, times_out: doubt.times_out + 1 };
            }
        }
        // Whoever never comes back is not remembered for ever.
        while self.doubts.len() > super::super::FOUND_MAX {
            let Some(any) = self.doubts.keys().next().copied() else { break };
            self.doubts.remove(&any);
        }
    }

    /// Whom to probe: whoever is in doubt first, then by chance.
    fn choice(&self, places: &BTreeSet<SocketAddr>) -> Vec<SocketAddr> {
        let mut places: Vec<_> = places.iter().copied().collect();
        fastrand::shuffle(&mut places);
        let failures = |place: &SocketAddr| self.doubts.get(place).map_or(0, |it| it.failures);
        places.sort_by_key(|place| std::cmp::Reverse(failures(place)));
        places.truncate(AT_ONCE_MAX);
        places
    }

    async fn probe(&mut self, places: Vec<SocketAddr>) {
        let mut probes = JoinSet::new();
        for place in places {
            probes.spawn(async move {
                let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(place)).await;
                (place, connected.is_ok_and(|connected| connected.is_ok()))
            });
        }
        while let Some(probed) = probes.join_next().await {
            let Ok((place, is_there)) = probed else { continue };
            let doubt = self.doubts.entry(place).or_default();
            doubt.failures = if is_there { 0 } else { doubt.failures.saturating_add(1) };
            if is_there && doubt.times_out == 0 {
                self.doubts.remove(&place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn who_does_not_answer_several_times_in_a_row_is_gone() {
        let there = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let places = [&there, &gone].map(|it| it.local_addr().expect("an address"));
        let gone_place = places[1];
        let places = BTreeSet::from(places);
        drop(gone);
        let mut probes = Probes::new();
        for number in 1..=FAILURES_MAX {
            assert!(probes.due() <= Instant::now());
            let found = probes.round(&places).await;
            assert_eq!(!found.is_empty(), number == FAILURES_MAX, "{found:?}");
            assert!(probes.due() > Instant::now(), "not at once again");
            assert!(probes.due() <= Instant::now() + EVERY_IN_DOUBT);
            probes.due = Instant::now();
        }
        // It comes back, and is given more time.
        probes.taken_out(&BTreeSet::from([gone_place]));
        assert!(probes.round(&places).await.is_empty());
        for _ in 0..FAILURES_MAX {
            probes.due = Instant::now();
            assert!(probes.round(&places).await.is_empty());
        }
        // Once it answers, everything before that is forgotten but how often it was out.
        let _back = TcpListener::bind(gone_place).await.expect("its port");
        probes.due = Instant::now();
        assert!(probes.round(&places).await.is_empty());
        assert_eq!(probes.doubts[&gone_place].failures, 0);
        assert!(probes.due() > Instant::now() + EVERY_IN_DOUBT);
    }
}
