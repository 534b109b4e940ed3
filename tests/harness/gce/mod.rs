//! Compute Engine in the test's hands: a metadata server for each instance, on the instance's own
//! address, and the API's lists of instances.
//!
//! It answers as the service does where that is known to differ from what one would expect: empty
//! pages that go on, lists without `items`, filters that are refused, numbers beyond 2^53,
//! instances that are stopped and keep their address.

mod api;
mod metadata;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::Instant,
};

use super::origin::{self, Asked};

/// The project of all instances, unless a test says otherwise, and its number.
pub(crate) const PROJECT: (&str, u64) = ("my-project", 123_456_789_012);

/// The zones that there are.
pub(crate) const ZONES: [&str; 4] =
    ["europe-west1-b", "us-central1-a", "us-central1-b", "us-central1-f"];

/// An instance.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) project: &'static str,
    pub(crate) zone: &'static str,
    pub(crate) status: &'static str,
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) tags: Vec<&'static str>,
    pub(crate) metadata: Vec<(&'static str, Option<&'static str>)>,
    pub(crate) labels: Vec<(&'static str, &'static str)>,
    /// Access scopes; none: no account is attached.
    pub(crate) scopes: Vec<&'static str>,
    pub(crate) is_preempted: bool,
    /// `None`: graceful shutdown is not in use.
    pub(crate) stop_state: Option<&'static str>,
}

/// A network interface.
#[derive(Clone, Debug)]
pub(crate) struct Interface {
    pub(crate) ip: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<&'static str>,
    /// The network's name.
    pub(crate) network: &'static str,
}

/// What the API does with every question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    /// Answers it.
    Well,
    /// Says that the quota is used up.
    OverQuota,
    /// Refuses with 403 for this reason.
    Forbids(&'static str),
    /// Answers with this status and the service's JSON.
    Fails(u16),
    /// Answers 502 in HTML, as the front end does.
    Html,
    /// Takes the question and never answers.
    Hangs,
    /// Breaks off in the middle of a page.
    Truncates,
    /// Says of this zone that it cannot be reached.
    Misses(&'static str),
    /// Accepts nobody.
    Away,
}

/// An emulated Compute Engine. Ends with this.
pub(crate) struct Emulator {
    world: Arc<World>,
    /// Where the API is.
    pub(crate) api: SocketAddr,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

struct World {
    state: Mutex<State>,
    /// Counts changes.
    changes: watch::Sender<u64>,
}

struct State {
    machines: Vec<Machine>,
    api: Api,
    /// What the API was asked.
    asked: Vec<String>,
    /// Tokens, whose they are and until when they hold.
    tokens: BTreeMap<String, (u64, Instant)>,
    tokens_asked: usize,
    token_life: Duration,
    /// Instances of a page at most; every other page is empty where this is small.
    page: usize,
    metadata_hangs: bool,
}

/// What is answered.
enum Reply {
    Bytes(Vec<u8>),
    /// Nothing, and the connection ends.
    Cut,
    /// Nothing, until something changes.
    Hang,
}

impl Machine {
    /// An instance that runs in `us-central1-b`, at this address, and has the tag `cache`.
    pub(crate) fn new(number: u8, ip: Ipv4Addr) -> Self {
        Self {
            // Beyond what a float holds: the last digits tell them apart.
            id: 18_446_744_073_709_551_000 + u64::from(number),
            name: format!("cache-{number}"),
            project: PROJECT.0,
            zone: "us-central1-b",
            status: "RUNNING",
            interfaces: vec![Interface { ip: Some(ip), ipv6: None, network: "default" }],
            tags: vec!["cache"],
            metadata: vec![("service", Some("items")), ("flag", None)],
            labels: Vec::new(),
            scopes: vec!["https://www.googleapis.com/auth/compute.readonly"],
            is_preempted: false,
            stop_state: None,
        }
    }
}

impl Emulator {
    /// Serves the API on a free port of this address. There are no instances yet.
    pub(crate) async fn start(address: Ipv4Addr) -> Self {
        let state = State {
            machines: Vec::new(),
            api: Api::Well,
            asked: Vec::new(),
            tokens: BTreeMap::new(),
            tokens_asked: 0,
            token_life: Duration::from_secs(3_599),
            page: 500,
            metadata_hangs: false,
        };
        let world = Arc::new(World { state: Mutex::new(state), changes: watch::channel(0).0 });
        let listener = TcpListener::bind((address, 0)).await.expect("a free port");
        let api = listener.local_addr().expect("an address");
        let serving = serve(listener, Arc::clone(&world), |world, asked| {
            Box::pin(async move { api::answer(&world, &asked) })
        });
        Self { world, api, tasks: Mutex::new(vec![tokio::spawn(serving)]) }
    }

    /// Adds an instance, and serves its metadata on a free port of its first address: the value
    /// of `GCE_METADATA_HOST` for whoever runs on it.
    pub(crate) async fn boot(&self, machine: Machine) -> String {
        let address = machine.interfaces.iter().find_map(|it| it.ip).unwrap_or(Ipv4Addr::LOCALHOST);
        let listener = TcpListener::bind((address, 0)).await.expect("a free port");
        let host = listener.local_addr().expect("an address").to_string();
        let id = machine.id;
        self.world.change(|state| state.machines.push(machine));
        let serving = serve(listener, Arc::clone(&self.world), move |world, asked| {
            Box::pin(async move { metadata::answer(&world, id, &asked).await })
        });
        self.tasks.lock().expect("tasks").push(tokio::spawn(serving));
        host
    }

    /// Adds an instance that nothing runs on.
    pub(crate) fn add(&self, machine: Machine) {
        self.world.change(|state| state.machines.push(machine));
    }

    /// Changes the instance of this name.
    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Machine)) {
        self.world.change(|state| {
            let machine = state.machines.iter_mut().find(|it| it.name == name);
            change(machine.expect("an instance of this name"));
        });
    }

    /// Removes the instance of this name.
    pub(crate) fn remove(&self, name: &str) {
        self.world.change(|state| state.machines.retain(|it| it.name != name));
    }

    /// Has the API do this from now on.
    pub(crate) fn set_api(&self, api: Api) {
        self.world.change(|state| state.api = api);
    }

    /// Has pages hold so many instances, with an empty one after each.
    pub(crate) fn set_page(&self, page: usize) {
        self.world.change(|state| state.page = page);
    }

    /// Has tokens hold for so long from now on.
    pub(crate) fn set_token_life(&self, life: Duration) {
        self.world.change(|state| state.token_life = life);
    }

    /// Takes back every token that was given out.
    pub(crate) fn revoke(&self) {
        self.world.change(|state| state.tokens.clear());
    }

    /// Has every metadata server take questions and answer none, or answer again.
    pub(crate) fn set_metadata_hangs(&self, hangs: bool) {
        self.world.change(|state| state.metadata_hangs = hangs);
    }

    /// What the API was asked so far, tokens left out.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.world.lock().asked.clone()
    }

    /// How often a token was asked for.
    pub(crate) fn tokens_asked(&self) -> usize {
        self.world.lock().tokens_asked
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        for task in self.tasks.lock().expect("tasks").drain(..) {
            task.abort();
        }
    }
}

impl World {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the state")
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changes.send_modify(|count| *count += 1);
    }
}

type Answering = std::pin::Pin<Box<dyn Future<Output = Reply> + Send>>;

/// Answers one question a connection, until aborted.
async fn serve(
    listener: TcpListener,
    world: Arc<World>,
    answer: impl Fn(Arc<World>, Asked) -> Answering + Clone + Send + Sync + 'static,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (world, answer) = (Arc::clone(&world), answer.clone());
        tokio::spawn(async move {
            let mut stream: BufReader<TcpStream> = BufReader::new(stream);
            let Some(asked) = origin::read(&mut stream).await else { return };
            let mut changes = world.changes.subscribe();
            match answer(world, asked).await {
                Reply::Bytes(bytes) => _ = stream.write_all(&bytes).await,
                Reply::Cut => {}
                Reply::Hang => _ = changes.changed().await,
            }
        });
    }
}

/// An answer with this status line, headers and body.
fn reply(status: &str, headers: &str, body: &[u8]) -> Reply {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n"
    );
    Reply::Bytes([head.as_bytes(), body].concat())
}

/// The path of a target, and what follows the `?`, decoded.
fn split(target: &str) -> (String, BTreeMap<String, String>) {
    let url = url::Url::parse(&format!("http://x{target}")).expect("a target");
    (url.path().to_owned(), url.query_pairs().into_owned().collect())
}
