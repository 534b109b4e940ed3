//! The fronts for clients, `GET`, `HEAD` and `DELETE` of `/{group}/{key…}`, and for peers.
//!
//! Each serving thread has a runtime and a listener of its own, so that a hit is
//! answered on the core that received it (`thread`). A connection (`connection`)
//! speaks HTTP/1.1 through hyper, over a `wire` that answers plain hits before hyper
//! reads them (`head`, `quick`) and gathers replies. What is said to a request is up to
//! the surface (`answers`): `handler` for clients, `peers` for other nodes.
//!
//! Invariants:
//! - a hit is answered in the poll that read it: no other task, thread or timer;
//! - however many requests a read brought, their replies leave in one write, and none
//!   waits for the request behind it;
//! - a connection holds a slot of `connections_max`, and none is held by one that is
//!   idle, slow or gone for longer than the settings allow;
//! - when drained, no request that was begun goes unanswered while there is time.
//!
//! There is no authentication here, and no HTTP/2 or TLS: a proxy in front has those.

mod answers;
mod connection;
mod handler;
mod head;
mod inbox;
mod links;
mod peers;
mod quick;
mod thread;
mod wire;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::{Semaphore, watch};

pub use handler::Handler;
pub use peers::Manners;

use super::{BindError, listen};
use crate::{
    config,
    group::{Groups, Tidings},
    metrics::{FrontMetrics, Metrics},
    wire::link::Secret,
};
use answers::Answers;
use links::Links;
use peers::PeerHandler;

/// A front, bound to its address and not yet serving.
#[derive(Debug)]
pub struct HttpFront {
    settings: config::Http,
    address: SocketAddr,
    listeners: Vec<TcpListener>,
}

/// What nodes of this program are told apart by, and tell one another.
#[derive(Clone)]
pub struct Linked {
    /// What all of them have in common.
    pub secret: Secret,
    /// What hears the news that come with their questions.
    pub tidings: Option<Arc<dyn Tidings>>,
}

/// The serving threads of a front. Dropped without [`Serving::drain`], they stop at
/// once.
#[derive(Debug)]
pub struct Serving {
    address: SocketAddr,
    stop: watch::Sender<Stop>,
    threads: Vec<JoinHandle<usize>>,
}

/// How far a front has been told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Serve.
    No,
    /// Begin nothing new, and finish what is under way.
    Drain,
    /// Leave everything.
    Now,
}

impl HttpFront {
    /// Takes the address of `settings`, with a listener for each thread.
    pub fn bind(settings: &config::Http) -> Result<Self, BindError> {
        Self::bind_as(settings, "[http] listen")
    }

    /// Takes the address `listen` for peers. All else is as for clients, but for a longer
    /// path: there, keys are encoded once more.
    pub fn bind_peers(listen: SocketAddr, http: &config::Http) -> Result<Self, BindError> {
        let settings = config::Http { listen, ..http.clone() };
        Self::bind_as(&settings, "[peers] listen")
    }

    fn bind_as(settings: &config::Http, setting: &'static str) -> Result<Self, BindError> {
        let threads = match settings.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let listeners = listen::bind(settings.listen, setting, threads)?;
        let address = listeners[0].local_addr().map_err(|source| BindError {
            address: settings.listen,
            setting,
            source,
        })?;
        Ok(Self { settings: settings.clone(), address, listeners })
    }

    /// The address that was taken; its port is a real one where the settings say 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Starts the serving threads for clients. Fails when the system has no room for
    /// another thread or event queue; none is left running then.
    pub fn serve(self, groups: &Arc<Groups>, metrics: &Metrics) -> io::Result<Serving> {
        let metrics = metrics.front("http");
        let handler = Handler::new(Arc::clone(groups), metrics.clone(), &self.settings);
        self.start("http", &(Arc::new(handler) as Arc<dyn Answers>), None, &metrics)
    }

    /// Starts the serving threads for peers: those of the groupcache family, and nodes of
    /// this program that have the secret of `linked`, if there is one.
    pub fn serve_peers(
        self,
        groups: &Arc<Groups>,
        metrics: &Metrics,
        manners: Manners,
        linked: Option<Linked>,
    ) -> io::Result<Serving> {
        let metrics = metrics.front("peers");
        let links = linked.map(|Linked { secret, tidings }| Links {
            secret,
            tidings,
            groups: Arc::clone(groups),
        });
        let groups = Arc::clone(groups);
        let handler = PeerHandler::new(groups, metrics.clone(), manners, &self.settings);
        self.start("peers", &(Arc::new(handler) as Arc<dyn Answers>), links.as_ref(), &metrics)
    }

    fn start(
        self,
        surface: &'static str,
        answers: &Arc<dyn Answers>,
        links: Option<&Links>,
        metrics: &FrontMetrics,
    ) -> io::Result<Serving> {
        let slots =
            Arc::new(Semaphore::new(self.settings.connections_max.min(Semaphore::MAX_PERMITS)));
        let (stop, told) = watch::channel(Stop::No);
        let count = self.listeners.len();
        let (started, starts) = mpsc::sync_channel(count);
        let mut serving = Serving { address: self.address, stop, threads: Vec::new() };
        for (index, listener) in self.listeners.into_iter().enumerate() {
            let thread = thread::Thread {
                listener,
                settings: self.settings.clone(),
                answers: Arc::clone(answers),
                links: links.cloned(),
                metrics: metrics.clone(),
                slots: Arc::clone(&slots),
                told: told.clone(),
            };
            let started = started.clone();
            let builder = std::thread::Builder::new().name(format!("{surface}-{index}"));
            serving.threads.push(builder.spawn(move || thread.run(&started))?);
        }
        drop(started);
        // A thread that fails drops its sender, and the rest stop with `serving`.
        for _ in 0..count {
            starts.recv().unwrap_or_else(|_| Err(io::Error::other("a thread ended early")))?;
        }
        Ok(serving)
    }
}

impl Serving {
    /// The address that is served.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, closes idle connections, lets requests under way end within
    /// `drain_timeout`, and ends the threads. Returns how many connections were still
    /// busy then and had to be cut.
    pub async fn drain(mut self) -> usize {
        self.stop.send_replace(Stop::Drain);
        // The threads drop their ends of the channel as the last thing they do.
        self.stop.closed().await;
        self.join()
    }

    fn join(&mut self) -> usize {
        // A panic of a thread was reported by the panic hook.
        self.threads.drain(..).map(|thread| thread.join().unwrap_or(0)).sum()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.send_replace(Stop::Now);
        self.join();
    }
}

/// The settings of a connection, in the form its code uses.
#[derive(Clone, Copy, Debug)]
struct Times {
    header: Duration,
    idle: Duration,
    request: Duration,
}

impl From<&config::Http> for Times {
    fn from(settings: &config::Http) -> Self {
        Self {
            header: settings.header_timeout,
            idle: settings.idle_timeout,
            request: settings.request_timeout,
        }
    }
}

#[cfg(test)]
mod tests;
