//! Sources that the test moves, in time that it moves too.

use tokio::sync::mpsc;

use super::*;

/// Answers what the test says, look by look.
struct Told(mpsc::Receiver<Result<Found, Failed>>);

type Tell = mpsc::Sender<Result<Found, Failed>>;

#[async_trait]
impl Source for Told {
    fn kind(&self) -> &'static str {
        "told"
    }

    async fn look(&mut self) -> Result<Found, Failed> {
        match self.0.recv().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    async fn changed(&mut self) {
        std::future::pending::<()>().await;
    }
}

fn place(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn found(tell: &Tell, ports: &[u16]) {
    let places = ports.iter().copied().map(place).collect();
    tell.try_send(Ok(Found { places, trouble: None })).expect("told");
}

fn failed(tell: &Tell) {
    tell.try_send(Err(Failed("out of order".to_owned()))).expect("told");
}

fn start(count: usize) -> (Vec<Tell>, Discovery, watch::Receiver<Vec<SocketAddr>>) {
    let (tells, sources): (Vec<_>, Vec<_>) = (0..count)
        .map(|_| {
            let (tell, told) = mpsc::channel(16);
            (tell, Box::new(Told(told)) as Box<dyn Source>)
        })
        .unzip();
    let metrics = |_: &str| DiscoveryMetrics::default();
    let (discovery, proposed) = Discovery::start(sources, || 1, metrics, &Handle::current());
    (tells, discovery, proposed)
}

async fn next(proposed: &mut watch::Receiver<Vec<SocketAddr>>) -> Vec<u16> {
    proposed.changed().await.expect("discovery goes on");
    proposed.borrow_and_update().iter().map(SocketAddr::port).collect()
}

#[tokio::test(start_paused = true)]
async fn what_all_sources_have_found_is_proposed_together() {
    let (tells, discovery, mut proposed) = start(2);
    found(&tells[0], &[1, 2]);
    assert_eq!(next(&mut proposed).await, [1, 2]);
    found(&tells[1], &[2, 3]);
    assert_eq!(next(&mut proposed).await, [1, 2, 3]);
    // An answer, and not the lack of one.
    found(&tells[0], &[]);
    assert_eq!(next(&mut proposed).await, [2, 3]);
    assert_eq!(discovery.reports()[1].found.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_fails_changes_nothing_and_is_told_until_one_succeeds() {
    let (tells, discovery, mut proposed) = start(1);
    found(&tells[0], &[1]);
    assert_eq!(next(&mut proposed).await, [1]);
    for _ in 0..10 {
        failed(&tells[0]);
        assert_eq!(next(&mut proposed).await, [1]);
        let report = &discovery.reports()[0];
        assert_eq!(report.trouble.as_deref(), Some("out of order"));
        assert_eq!(report.found, BTreeSet::from([place(1)]));
    }
    found(&tells[0], &[2]);
    assert_eq!(next(&mut proposed).await, [2]);
    assert_eq!(discovery.reports()[0].trouble, None);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_never_ends_is_given_up() {
    let (tells, discovery, mut proposed) = start(1);
    let began = Instant::now();
    assert_eq!(next(&mut proposed).await, [0_u16; 0]);
    assert!(began.elapsed() >= LOOK_TIMEOUT);
    assert_eq!(discovery.reports()[0].trouble.as_deref(), Some("no answer in time"));
    found(&tells[0], &[1]);
    assert_eq!(next(&mut proposed).await, [1]);
}

/// Says what it is doing, and does it for as long as it is let.
struct Slow(mpsc::Sender<&'static str>, Duration);

#[async_trait]
impl Source for Slow {
    fn kind(&self) -> &'static str {
        "slow"
    }

    async fn look(&mut self) -> Result<Found, Failed> {
        self.0.try_send("look").expect("room");
        std::future::pending().await
    }

    async fn changed(&mut self) {}

    async fn withdraw(&mut self) {
        self.0.try_send("withdraw").expect("room");
        sleep(self.1).await;
        self.0.try_send("withdrawn").expect("room");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_takes_back_what_it_told_and_does_not_wait_for_it_long() {
    let (say, mut said) = mpsc::channel(16);
    let sources = [1, 60]
        .map(|secs| Box::new(Slow(say.clone(), Duration::from_secs(secs))) as Box<dyn Source>);
    let metrics = |_: &str| DiscoveryMetrics::default();
    let (discovery, _proposed) =
        Discovery::start(sources.into(), || 1, metrics, &Handle::current());
    for _ in 0..2 {
        assert_eq!(said.recv().await, Some("look"), "neither has ended");
    }
    let began = Instant::now();
    discovery.withdraw().await;
    assert_eq!(began.elapsed().as_secs(), WITHDRAW_TIMEOUT.as_secs());
    let heard: Vec<_> = std::iter::from_fn(|| said.try_recv().ok()).collect();
    assert_eq!(heard, ["withdraw", "withdraw", "withdrawn"]);
}

#[test]
fn looks_are_spread_out_by_failures_and_by_the_number_of_members() {
    let between = |failures, members, least: u64, most: u64| {
        for _ in 0..100 {
            let pause = pause(EVERY, failures, members);
            let (least, most) = (Duration::from_millis(least), Duration::from_millis(most));
            assert!(least <= pause && pause <= most, "{pause:?} after {failures}, of {members}");
        }
    };
    between(0, 1, 24_000, 30_000);
    between(0, 200, 160_000, 200_000);
    between(1, 1, 400, 500);
    between(4, 200, 3_200, 4_000);
    between(40, 1, 24_000, 30_000);
    between(u32::MAX, usize::MAX, 26_000_000, 32_768_000);
}

#[tokio::test]
async fn a_name_that_fails_for_a_moment_means_what_it_meant() {
    let mut known = names::Known::new(1);
    let list = ["localhost".to_owned(), "127.0.0.9:7".to_owned()];
    let found = known.look_up(&list).await;
    assert!(found.places.contains(&place(1)) && found.trouble.is_none(), "{found:?}");
    let with_unknown = [list[1].clone(), "no such name.invalid".to_owned()];
    let found = known.look_up(&with_unknown).await;
    assert_eq!(found.places, [SocketAddr::from(([127, 0, 0, 9], 7))]);
    assert!(found.trouble.is_some_and(|it| it.starts_with("no such name.invalid: ")));
}
