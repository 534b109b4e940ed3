//! A serving thread: one listener, one runtime, and the connections it accepted.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    rc::Rc,
    sync::{Arc, mpsc},
    task::{Poll, Waker},
    time::Duration,
};

use hyper::server::conn::http1;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, LocalOptions},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::spawn_local,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tracing::warn;

use super::{
    Stop, Times,
    answers::Answers,
    connection,
    links::{self, Links},
};
use crate::{config, metrics::FrontMetrics};

/// Wait after a failed accept, as when the process has no file descriptor left: time
/// for connections to end, instead of a busy loop.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Room beside path and headers in a request's head: the method, the version and, for
/// an absolute target, the scheme and the host.
const REQUEST_LINE_SLACK: usize = 1_024;

/// The least that hyper takes as a bound of its buffers.
const BUFFER_MIN: usize = 8 * 1_024;

/// What a thread needs to serve.
pub(super) struct Thread {
    pub(super) listener: std::net::TcpListener,
    pub(super) settings: config::Http,
    pub(super) answers: Arc<dyn Answers>,
    /// For nodes of this program, where they may come.
    pub(super) links: Option<Links>,
    pub(super) metrics: FrontMetrics,
    /// Connections that may be open, over all threads.
    pub(super) slots: Arc<Semaphore>,
    pub(super) told: watch::Receiver<Stop>,
}

/// How often a serving thread looks up though nothing has happened.
const TICK: Duration = Duration::from_millis(50);

/// Keeps a timer that is due sooner than any that a request sets. The runtime wakes itself up,
/// by a write to a descriptor, whenever a timer becomes the next one: without this, that
/// would be a few times in every question to another node.
async fn tick() {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
    }
}

impl Thread {
    /// Serves until told to stop. Returns how many connections had to be cut.
    pub(super) fn run(self, started: &mpsc::SyncSender<io::Result<()>>) -> usize {
        let runtime =
            match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = started.send(Err(error));
                    return 0;
                }
            };
        runtime.block_on(self.serve(started))
    }

    async fn serve(self, started: &mpsc::SyncSender<io::Result<()>>) -> usize {
        let Self { listener, settings, answers, links, metrics, slots, mut told } = self;
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                let _ = started.send(Err(error));
                return 0;
            }
        };
        // The receiver waits for as many of these as there are threads.
        let _ = started.send(Ok(()));

        let times = Times::from(&settings);
        let http1 = Rc::new(protocol(&settings));
        let open = Rc::new(Open::default());
        spawn_local(tick());
        loop {
            let (socket, slot) = tokio::select! {
                biased;
                _ = told.wait_for(|stop| *stop != Stop::No) => break,
                accepted = accept(&listener, &slots) => accepted,
            };
            let entry = Entry::new(&open, &metrics);
            let (answers, http1) = (Arc::clone(&answers), Rc::clone(&http1));
            let (links, stop) = (links.clone(), told.clone());
            spawn_local(async move {
                entry.enroll().await;
                let is_draining = || entry.open.is_draining.get();
                match links {
                    Some(links) if links::is_link(&socket, times.header).await => {
                        links.serve(socket, stop).await;
                    }
                    _ => connection::serve(socket, answers, &http1, times, is_draining).await,
                }
                drop((entry, slot));
            });
        }
        drop(listener);
        open.drain();
        tokio::select! {
            biased;
            _ = told.wait_for(|stop| *stop == Stop::Now) => {}
            _ = timeout(settings.drain_timeout, open.emptied()) => {}
        }
        // The runtime drops what is left with its tasks.
        open.count.get()
    }
}

/// How hyper reads a connection. It counts all that stands before the body, and
/// the surface its parts.
fn protocol(settings: &config::Http) -> http1::Builder {
    let head_max = settings
        .headers_max
        .as_usize()
        .saturating_add(settings.url_max.as_usize())
        .saturating_add(REQUEST_LINE_SLACK)
        .max(BUFFER_MIN);
    let mut http1 = http1::Builder::new();
    http1
        .max_buf_size(head_max)
        // A client may have no more to send and still want its reply.
        .half_close(true)
        // The connection's own clock does this without a timer for each request.
        .header_read_timeout(None);
    http1
}

/// The next connection, and a slot for it. Without a free slot it waits unread, and
/// those behind it in the kernel's queue.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let error = match listener.accept().await {
            // Only now: a thread that waits for clients must not hold a slot.
            Ok((socket, _client)) => match Arc::clone(slots).acquire_owned().await {
                Ok(slot) => return (socket, slot),
                Err(error) => io::Error::other(error),
            },
            Err(error) => error,
        };
        // A client that left before it was accepted is no trouble.
        if error.kind() != io::ErrorKind::ConnectionAborted {
            warn!(%error, "Cannot accept a connection; trying again shortly.");
            sleep(ACCEPT_BACKOFF).await;
        }
    }
}

/// The open connections of a thread, and how to reach them.
#[derive(Default)]
struct Open {
    is_draining: Cell<bool>,
    count: Cell<usize>,
    last_id: Cell<u64>,
    wakers: RefCell<BTreeMap<u64, Waker>>,
    ended: Notify,
}

impl Open {
    /// Tells every connection to end.
    fn drain(&self) {
        self.is_draining.set(true);
        for waker in self.wakers.borrow().values() {
            waker.wake_by_ref();
        }
    }

    /// Waits until no connection is open.
    async fn emptied(&self) {
        while self.count.get() > 0 {
            self.ended.notified().await;
        }
    }
}

/// One open connection's entry among them, until dropped.
struct Entry {
    open: Rc<Open>,
    id: u64,
    metrics: FrontMetrics,
}

impl Entry {
    fn new(open: &Rc<Open>, metrics: &FrontMetrics) -> Self {
        let id = open.last_id.get() + 1;
        open.last_id.set(id);
        open.count.set(open.count.get() + 1);
        metrics.connections.inc();
        Self { open: Rc::clone(open), id, metrics: metrics.clone() }
    }

    /// Notes how to wake the task this is called from.
    async fn enroll(&self) {
        std::future::poll_fn(|cx| {
            self.open.wakers.borrow_mut().insert(self.id, cx.waker().clone());
            Poll::Ready(())
        })
        .await;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.open.wakers.borrow_mut().remove(&self.id);
        self.open.count.set(self.open.count.get() - 1);
        self.metrics.connections.dec();
        self.open.ended.notify_one();
    }
}
