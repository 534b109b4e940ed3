//! From a name to its addresses, by the system's resolver.
//!
//! The system resolver takes a thread for as long as it likes and cannot be stopped, so
//! a plugin has few lookups under way at once; whoever gives up waiting for one frees
//! its place only when the thread is done.

use std::{
    io,
    net::{IpAddr, ToSocketAddrs as _},
    sync::Arc,
};

use tokio::sync::Semaphore;

/// Lookups of one plugin at once.
const LOOKUPS_MAX: usize = 8;

/// Addresses of one name that are looked at.
const ADDRESSES_MAX: usize = 16;

/// Looks names up for one plugin.
pub(super) struct Resolver {
    places: Arc<Semaphore>,
}

impl Resolver {
    pub(super) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    /// The addresses of `name`, in the system's order of preference. Waits for a place
    /// first; the caller bounds the time of both.
    pub(super) async fn look_up(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        #[cfg(test)]
        if let Some(answer) = script::answer(name) {
            return Ok(answer);
        }
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        let name = name.to_owned();
        let looking = tokio::task::spawn_blocking(move || {
            // Held to the end even when nobody waits any longer.
            let _place = place;
            let found = (name.as_str(), 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).take(ADDRESSES_MAX).collect())
        });
        looking.await.map_err(io::Error::other)?
    }
}

/// Names whose answers a test decides, one after the other: a name service in a
/// stranger's hands. The system's own cannot be told what to answer by one process for
/// itself. Each test uses names of its own.
#[cfg(test)]
pub(in crate::plugin) mod script {
    use std::{
        collections::{HashMap, VecDeque},
        net::IpAddr,
        sync::{LazyLock, Mutex, PoisonError},
    };

    type Answers = HashMap<String, VecDeque<Vec<IpAddr>>>;

    static ANSWERS: LazyLock<Mutex<Answers>> = LazyLock::new(Mutex::default);

    /// Lets `name` have each of `answers` in turn, the last one for good.
    pub(in crate::plugin) fn resolve(name: &str, answers: &[&[&str]]) {
        let parse = |ips: &&[&str]| ips.iter().map(|ip| ip.parse().expect(ip)).collect();
        let answers = answers.iter().map(parse).collect();
        let mut known = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(name.to_owned(), answers);
    }

    /// How many answers of `name` have not been given yet; the last one is always left.
    pub(in crate::plugin) fn left(name: &str) -> usize {
        let known = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).map_or(0, VecDeque::len)
    }

    pub(super) fn answer(name: &str) -> Option<Vec<IpAddr>> {
        let mut known = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = known.get_mut(name)?;
        if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
    }
}
