//! Members that `ZooKeeper` knows.
//!
//! Each node has an ephemeral node below one path, named by its gossip address: it goes when the
//! node takes it away, or with the node's session, some seconds after the node has said nothing
//! more. The list of all of them is watched, and read again whenever it has changed. A session
//! that has ended is followed by a new one, and by a new entry.

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};
use zookeeper_client::{Acls, Client, CreateMode, Error, OneshotWatcher};

use super::{FOUND_MAX, Failed, Found, Own, Source, breaks::Breaks, credentials};
use crate::config::{self, registries::server};

/// `ZooKeeper`'s port.
const PORT: u16 = 2_181;

/// Time for one answer, or for a session to begin.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Members come and go several at a time.
const SETTLE: Duration = Duration::from_millis(50);

/// Members by `ZooKeeper`.
pub struct ZooKeeper {
    servers: Vec<String>,
    session_timeout: Duration,
    auth_file: Option<PathBuf>,
    path: String,
    own: Own,
    session: Option<Session>,
    breaks: Breaks,
}

/// One session, which may be over.
struct Session {
    client: Client,
    acls: Acls<'static>,
    /// Tells when the list has changed, or the session is over.
    watch: Option<OneshotWatcher>,
    /// Whether the entry that stands there is this session's.
    is_registered: bool,
}

/// Why something came to nothing.
enum Fault {
    Late,
    Said(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Said(error)
    }
}

impl Fault {
    fn told(&self) -> String {
        match self {
            Self::Late => "no answer in time".to_owned(),
            Self::Said(error @ (Error::NoAuth | Error::AuthFailed | Error::InvalidAcl)) => {
                format!("{error} ([discovery.zookeeper] auth_file)")
            }
            Self::Said(error) => error.to_string(),
        }
    }
}

async fn bounded<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Fault> {
    Ok(timeout(CALL_TIMEOUT, call).await.map_err(|_elapsed| Fault::Late)??)
}

impl ZooKeeper {
    /// The members of the cluster `name` that `settings` lead to. `own` is to be one of them.
    pub fn new(settings: &config::ZooKeeper, base_dir: &Path, name: &str, own: Own) -> Self {
        let written = |text: &String| {
            let (host, port) = server(text, PORT).ok()?;
            Some(if host.contains(':') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            })
        };
        let mut servers: Vec<_> = settings.servers.iter().filter_map(written).collect();
        // Nodes of one list do not all begin with the same server.
        fastrand::shuffle(&mut servers);
        let has_auth = !settings.auth_file.as_os_str().is_empty();
        Self {
            servers,
            session_timeout: settings.session_timeout,
            auth_file: has_auth.then(|| base_dir.join(&settings.auth_file)),
            path: settings.path_of(name),
            own,
            session: None,
            breaks: Breaks::default(),
        }
    }

    /// The session: the one that is there, or a new one.
    async fn session(&mut self) -> Result<&mut Session, String> {
        if self.session.as_ref().is_some_and(|it| it.client.state().is_terminated()) {
            info!("The session with ZooKeeper is over; beginning another one.");
            self.session = None;
        }
        if self.session.is_none() {
            let mut connector = Client::connector().with_session_timeout(self.session_timeout);
            let mut acls = Acls::anyone_all();
            if let Some(file) = &self.auth_file {
                let auth = credentials::secret_file(file.clone()).await;
                let auth =
                    auth.map_err(|why| format!("{why} ([discovery.zookeeper] auth_file)"))?;
                connector = connector.with_auth("digest", auth.as_bytes());
                acls = Acls::creator_all();
            }
            let servers = self.servers.join(",");
            let client = bounded(connector.connect(&servers)).await;
            let client = client.map_err(|fault| format!("{servers}: {}", fault.told()))?;
            self.session = Some(Session { client, acls, watch: None, is_registered: false });
        }
        self.session.as_mut().ok_or_else(|| "no session".to_owned())
    }
}

impl Session {
    /// The names of the members' nodes, and from now on a watch of them.
    async fn list(&mut self, path: &str) -> Result<Vec<String>, Fault> {
        self.watch = None;
        let listed = match bounded(self.client.list_and_watch_children(path)).await {
            Err(Fault::Said(Error::NoNode)) => {
                let directory = CreateMode::Persistent.with_acls(self.acls);
                bounded(self.client.mkdir(path, &directory)).await?;
                bounded(self.client.list_and_watch_children(path)).await
            }
            listed => listed,
        };
        let (names, watch) = listed?;
        self.watch = Some(watch);
        Ok(names)
    }

    /// Has this session's entry stand at `path`, with `name` in it.
    async fn register(&mut self, path: &str, name: &str) -> Result<(), Fault> {
        let entry = CreateMode::Ephemeral.with_acls(self.acls);
        match bounded(self.client.create(path, name.as_bytes(), &entry)).await {
            Err(Fault::Said(Error::NodeExists)) => {}
            created => {
                created?;
                self.is_registered = true;
                info!(path, "Registered with ZooKeeper.");
                return Ok(());
            }
        }
        // That of a session before, which would take it along when it ends; or this one's, of
        // whose making we have not heard.
        let stat = bounded(self.client.check_stat(path)).await?;
        let owner = stat.map(|stat| format!("{:#x}", stat.ephemeral_owner));
        if owner == Some(self.client.session_id().to_string()) {
            self.is_registered = true;
            return Ok(());
        }
        match bounded(self.client.delete(path, None)).await {
            Ok(()) | Err(Fault::Said(Error::NoNode)) => {}
            Err(fault) => return Err(fault),
        }
        bounded(self.client.create(path, name.as_bytes(), &entry)).await?;
        self.is_registered = true;
        info!(path, "Registered with ZooKeeper, in the place of an earlier session.");
        Ok(())
    }
}

fn found(names: &[String], path: &str, trouble: Option<String>) -> Found {
    let (mut places, mut strange) = (Vec::new(), Vec::new());
    for name in names.iter().take(FOUND_MAX) {
        match name.parse::<SocketAddr>() {
            Ok(place) => places.push(place),
            Err(_) => strange.push(name),
        }
    }
    let told = strange.iter().min().map(|first| {
        let first: String = first.chars().take(60).collect();
        format!("{} nodes below {path} are no addresses: {first:?}", strange.len())
    });
    let many = (names.len() > FOUND_MAX)
        .then(|| format!("below {path} are more than {FOUND_MAX} nodes; others are left out"));
    let trouble: Vec<_> = trouble.into_iter().chain(told).chain(many).collect();
    Found { places, trouble: (!trouble.is_empty()).then(|| trouble.join("; ")) }
}

#[async_trait]
impl Source for ZooKeeper {
    fn kind(&self) -> &'static str {
        "zookeeper"
    }

    async fn look(&mut self) -> Result<Found, Failed> {
        let (path, own) = (self.path.clone(), self.own.clone());
        let session = self.session().await.map_err(Failed)?;
        let mut names = session.list(&path).await.map_err(|fault| Failed(fault.told()))?;
        let mut trouble = None;
        let place = own.place.to_string();
        if !session.is_registered || !names.contains(&place) {
            // Whoever may not write may still find the others.
            match session.register(&format!("{path}/{place}"), &own.name).await {
                Ok(()) if names.contains(&place) => {}
                Ok(()) => names.push(place),
                Err(fault) => trouble = Some(format!("cannot register: {}", fault.told())),
            }
        }
        self.breaks.begin();
        Ok(found(&names, &path, trouble))
    }

    async fn changed(&mut self) {
        let Some(session) = &mut self.session else { return std::future::pending().await };
        let mut state = session.client.state_watcher();
        let Some(watch) = session.watch.take() else { return std::future::pending().await };
        // A watch that is dropped while it waits is gone; the next look makes another one.
        let is_over = tokio::select! {
            event = watch.changed() => {
                debug!(?event, "ZooKeeper tells of a change.");
                session.client.state().is_terminated()
            }
            () = async { while !state.changed().await.is_terminated() {} } => true,
        };
        if is_over {
            self.breaks.pause().await;
        } else {
            sleep(SETTLE).await;
        }
    }

    async fn withdraw(&mut self) {
        let Some(session) = self.session.take() else { return };
        // It would go with the session; this says when it is gone.
        let path = format!("{}/{}", self.path, self.own.place);
        match bounded(session.client.delete(&path, None)).await {
            Ok(()) | Err(Fault::Said(Error::NoNode)) => info!("Taken out of ZooKeeper."),
            Err(fault) => {
                let reason = fault.told();
                warn!(reason, "This node's entry in ZooKeeper stays until its session ends.");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_told() {
        let names = ["10.0.0.1:1", "[fd00::1]:2", "lock"].map(str::to_owned);
        let found = found(&names, "/a", Some("x".to_owned()));
        assert_eq!(found.places.len(), 2);
        let told = found.trouble.expect("told");
        assert_eq!(told, "x; 1 nodes below /a are no addresses: \"lock\"");
    }
}
