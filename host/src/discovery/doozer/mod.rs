//! Members that doozer knows, in the one file of the article that began this: a list with
//! spaces between its entries, which every node reads, changes and writes back.
//!
//! It is written only if nobody else has written it since it was read, and read again if
//! somebody has. It is watched from the store's revision before it was read; where doozer has
//! forgotten what came after that, it is read again. Entries of nodes that have gone without a
//! word are taken out by whoever notices.
//!
//! - `wire`: frames and messages.
//! - `connection`: questions and their answers.
//! - `list`: the file.
//! - `probes`: who is gone.

mod connection;
mod list;
mod probes;
mod wire;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{sleep, sleep_until};
use tracing::{debug, info, warn};
use url::form_urlencoded;

use self::{
    connection::{Answer, Connection, Fault},
    list::List,
    probes::Probes,
    wire::{Request, Verb, error},
};
use super::{Failed, Found, Own, Source, breaks::Breaks, credentials};
use crate::config::{self, registries::server};

/// doozer's port.
const PORT: u16 = 8_046;

/// Servers that a URI may name.
const SERVERS_MAX: usize = 32;

/// Tries to write the file before somebody else does.
const WRITES_MAX: u32 = 12;

/// Before the second one, at most; up to twice as long with each further one.
const WRITE_AGAIN: Duration = Duration::from_millis(10);

/// Members come and go several at a time.
const SETTLE: Duration = Duration::from_millis(50);

/// Members by doozer.
pub struct Doozer {
    settings: config::Doozer,
    base_dir: PathBuf,
    file: String,
    own: Own,
    /// Which of the servers is asked.
    at: usize,
    connection: Option<Connection>,
    /// The answer to whether the file has changed.
    wait: Option<Answer>,
    probes: Probes,
    breaks: Breaks,
}

/// What happens to this node's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stay {
    Here,
    Goes,
}

impl Doozer {
    /// The members of the cluster `name` that `settings` lead to. `own` is to be one of them.
    pub fn new(settings: &config::Doozer, base_dir: &Path, name: &str, own: Own) -> Self {
        Self {
            settings: settings.clone(),
            base_dir: base_dir.to_owned(),
            file: settings.file_of(name),
            own,
            at: fastrand::usize(..SERVERS_MAX),
            connection: None,
            wait: None,
            probes: Probes::new(),
            breaks: Breaks::default(),
        }
    }

    /// The servers, and the secret that they ask for.
    async fn servers(&self) -> Result<(Vec<(String, u16)>, Option<String>), String> {
        let referenced = |reference: String| async move {
            credentials::referenced(&reference, &self.base_dir).await
        };
        let (names, mut secret) = match &self.settings.uri {
            Some(uri) => {
                let told = |why| format!("{why} ([discovery.doozer] uri)");
                read_uri(&referenced(uri.clone()).await.map_err(told)?)?
            }
            None => (self.settings.servers.clone(), None),
        };
        if let Some(reference) = &self.settings.secret {
            let told = |why| format!("{why} ([discovery.doozer] secret)");
            secret = Some(referenced(reference.clone()).await.map_err(told)?);
        }
        let servers: Result<Vec<_>, _> = names.iter().map(|name| server(name, PORT)).collect();
        Ok((servers.map_err(|error| format!("an address of a server: {error}"))?, secret))
    }

    /// A connection: the one that is there, or one to the next server that takes it.
    async fn connection(&mut self) -> Result<&mut Connection, Fault> {
        if self.connection.is_none() {
            self.wait = None;
            let (servers, secret) = self.servers().await.map_err(Fault::Gone)?;
            let mut last = Fault::Gone("no server is named".to_owned());
            for _ in 0..servers.len() {
                // Moved on first: a look may be cut off while it waits here.
                self.at = (self.at + 1) % servers.len();
                let (host, port) = &servers[self.at];
                match Connection::new((host, *port), secret.as_deref()).await {
                    Ok(connection) => {
                        self.connection = Some(connection);
                        break;
                    }
                    Err(fault) => last = fault,
                }
            }
            if self.connection.is_none() {
                return Err(last);
            }
        }
        self.connection.as_mut().ok_or_else(|| Fault::Gone("no connection".to_owned()))
    }

    /// Asks; a connection that fails is not used again.
    async fn call(&mut self, request: &Request<'_>) -> Result<wire::Response, Fault> {
        let answered = self.connection().await?.call(request).await;
        if matches!(answered, Err(Fault::Gone(_) | Fault::Said(error::READONLY, _))) {
            self.connection = None;
            self.wait = None;
        }
        answered
    }

    /// The file at this moment, and its revision, which is zero if there is none.
    async fn read(&mut self) -> Result<(List, i64, Vec<u8>), Fault> {
        let file = self.file.clone();
        let answer = self.call(&Request::of(Verb::Get).path(&file)).await?;
        Ok((List::read(&answer.value), answer.rev, answer.value))
    }

    /// Reads the file, and writes it back if something about it is not as it should be.
    async fn settle(&mut self, stay: Stay, gone: &BTreeSet<SocketAddr>) -> Result<List, Fault> {
        let file = self.file.clone();
        for number in 0..WRITES_MAX {
            let (mut list, rev, value) = self.read().await?;
            let own = self.own.place;
            let is_there = list.places.contains(&own);
            list.places.retain(|place| !gone.contains(place));
            match stay {
                Stay::Here => _ = list.places.insert(own),
                Stay::Goes => _ = list.places.remove(&own),
            }
            let written = list.written();
            let is_right = written.as_bytes() == value.as_slice();
            if is_right || !list.is_whole() || (stay == Stay::Goes && !is_there) {
                return Ok(list);
            }
            let set = Request::of(Verb::Set).path(&file).value(written.as_bytes()).rev(rev);
            match self.call(&set).await {
                Ok(_) => {
                    if !is_there && stay == Stay::Here {
                        info!(file, "Registered with doozer.");
                    }
                    if !gone.is_empty() {
                        info!(?gone, "Took out of doozer who does not answer.");
                    }
                    return Ok(list);
                }
                Err(Fault::Said(error::REV_MISMATCH, _)) => {
                    let longest = WRITE_AGAIN * (1 << number.min(5));
                    sleep(longest.mul_f64(fastrand::f64())).await;
                }
                Err(fault) => return Err(fault),
            }
        }
        Err(Fault::Gone(format!("others wrote {file} first, {WRITES_MAX} times in a row")))
    }

    /// Has doozer say when the file changes after what is read from now on.
    async fn watch(&mut self) -> Result<(), Fault> {
        if self.wait.is_some() && self.connection.is_some() {
            return Ok(());
        }
        // The store's revision, which rises by itself: the file's own may be forgotten by now.
        let rev = self.call(&Request::of(Verb::Rev)).await?.rev;
        let file = self.file.clone();
        let wait = Request::of(Verb::Wait).path(&file).rev(rev + 1);
        self.wait = Some(self.connection().await?.ask(&wait).await?);
        self.breaks.begin();
        Ok(())
    }

    async fn look_now(&mut self) -> Result<Found, Fault> {
        self.watch().await?;
        let (list, ..) = self.read().await?;
        let others = list.places.iter().copied().filter(|place| *place != self.own.place);
        let mut gone = self.probes.round(&others.collect()).await;
        gone.retain(|place| list.places.contains(place));
        let (list, trouble) = match self.settle(Stay::Here, &gone).await {
            Ok(settled) => {
                self.probes.taken_out(&gone);
                (settled, None)
            }
            // Whoever may not write may still find the others.
            Err(Fault::Said(code, detail)) => {
                let why = Fault::Said(code, detail).told();
                (list, Some(format!("cannot register: {why}")))
            }
            Err(fault) => return Err(fault),
        };
        let trouble: Vec<_> = trouble.into_iter().chain(list.trouble()).collect();
        let trouble = (!trouble.is_empty()).then(|| trouble.join("; "));
        Ok(Found { places: list.places.into_iter().collect(), trouble })
    }
}

/// The servers that a `doozer:?ca=…` names, and its secret. Nothing that is said about it
/// repeats it.
fn read_uri(uri: &str) -> Result<(Vec<String>, Option<String>), String> {
    let told = || "write the URI as doozer:?ca=10.0.0.5:8046&sk=SECRET".to_owned();
    let query = uri.trim().strip_prefix("doozer:?").ok_or_else(told)?;
    let (mut servers, mut secret) = (Vec::new(), None);
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match key.as_ref() {
            "ca" => servers.push(value.into_owned()),
            "sk" => secret = Some(value.into_owned()),
            // The name of doozer's own cluster, by which its programs find more servers.
            _ => {}
        }
    }
    servers.truncate(SERVERS_MAX);
    if servers.is_empty() { Err(told()) } else { Ok((servers, secret)) }
}

#[async_trait]
impl Source for Doozer {
    fn kind(&self) -> &'static str {
        "doozer"
    }

    async fn look(&mut self) -> Result<Found, Failed> {
        self.look_now().await.map_err(|fault| {
            if matches!(fault, Fault::Gone(_)) {
                self.connection = None;
                self.wait = None;
            }
            Failed(fault.told())
        })
    }

    async fn changed(&mut self) {
        let Some(wait) = &mut self.wait else { return std::future::pending().await };
        let answered = tokio::select! {
            answered = wait.get() => answered,
            () = sleep_until(self.probes.due()) => return,
        };
        self.wait = None;
        match answered {
            Ok(_) => sleep(SETTLE).await,
            Err(Fault::Said(error::TOO_LATE, _)) => {
                debug!("doozer has forgotten what came after the file was read; reading it again.");
            }
            Err(fault) => {
                info!(reason = fault.told(), "The watch of doozer is over; reading it again.");
                self.connection = None;
                self.breaks.pause().await;
            }
        }
    }

    async fn withdraw(&mut self) {
        self.wait = None;
        match self.settle(Stay::Goes, &BTreeSet::new()).await {
            Ok(_) => info!("Taken out of doozer."),
            Err(fault) => {
                let reason = fault.told();
                warn!(reason, "This node's entry in doozer stays until another node takes it out.");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_servers_and_a_secret_and_is_not_repeated() {
        let read = read_uri("doozer:?ca=10.0.0.5:8046&ca=b&cn=prod&sk=a%20b\n").expect("good");
        let servers = ["10.0.0.5:8046", "b"].map(str::to_owned);
        assert_eq!(read, (servers.into(), Some("a b".to_owned())));
        for bad in ["", "doozer:", "http://a?sk=hunter2", "doozer:?sk=hunter2"] {
            let why = read_uri(bad).expect_err(bad);
            assert!(!why.contains("hunter2"), "{why}");
        }
    }
}
