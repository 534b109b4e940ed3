//! The host, for unit tests: native builds only.
//!
//! A [`Host`] holds what the node would: settings, cached values, answers to
//! HTTP requests; and it keeps what the getter wrote: logs, metrics. It
//! belongs to the thread that made it, so that tests run side by side.
//!
//! ```
//! use cachecluster_plugin::{Context, Entry, Error, Getter, Outcome, config, testing};
//!
//! struct Greet;
//!
//! impl Getter for Greet {
//!     fn get(key: &str, _ctx: &Context) -> Result<Outcome, Error> {
//!         let greeting = config::required("greeting")?;
//!         Ok(Entry::new(format!("{greeting}, {key}!")).into())
//!     }
//! }
//!
//! let _host = testing::Host::new().config("greeting", "Hello");
//! let answer = Greet::get("world", &testing::context().build());
//! assert_eq!(answer, Ok(Entry::new("Hello, world!").into()));
//! ```
//!
//! [`net`](crate::net) is not doubled: natively it connects for real, so a
//! test listens on port 0 of the loopback address.

mod call;
pub(crate) mod host;
pub(crate) mod http;

pub(crate) use call::Call;
pub use call::{ContextBuilder, context};

use crate::Error;
use crate::cache;
use crate::http::{Request, Response, Url};
use crate::log::Level;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;

/// A record the getter logged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// How much it matters.
    pub level: Level,
    /// The text.
    pub message: String,
    /// The fields, in the order given.
    pub fields: Vec<(String, String)>,
}

/// A request the getter sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sent {
    /// The URL.
    pub url: String,
    /// The headers, in the order given.
    pub headers: Vec<(String, String)>,
}

impl Sent {
    /// The first header named `name`, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

type Labels = Vec<(String, String)>;
type CacheAnswer = Result<Option<Vec<u8>>, cache::Error>;

#[derive(Debug, Default)]
struct State {
    /// Counts the hosts of this thread: only the last may empty the state.
    generation: u64,
    config: BTreeMap<String, String>,
    cached: BTreeMap<(String, String), CacheAnswer>,
    http: BTreeMap<String, VecDeque<Result<Response, Error>>>,
    sent: Vec<Sent>,
    records: Vec<Record>,
    counters: BTreeMap<(String, Labels), u64>,
    histograms: BTreeMap<(String, Labels), Vec<f64>>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Reads or changes the state of this thread's host.
fn with<T>(act: impl FnOnce(&mut State) -> T) -> T {
    STATE.with_borrow_mut(act)
}

/// This thread's host. A new one starts empty, and takes the place of any
/// other on the thread; dropping the newest empties the thread again.
#[derive(Debug)]
#[must_use = "the host is gone as soon as this is dropped"]
pub struct Host {
    generation: u64,
    /// The state is the thread's: keep the value on it.
    not_send: PhantomData<*const ()>,
}

impl Host {
    /// A host without settings, values or answers.
    #[expect(
        clippy::new_without_default,
        reason = "a default that changes its thread would surprise"
    )]
    pub fn new() -> Self {
        let generation = with(|state| {
            let generation = state.generation + 1;
            *state = State { generation, ..State::default() };
            generation
        });
        Self { generation, not_send: PhantomData }
    }

    /// Makes the setting `key`.
    pub fn config(self, key: &str, value: impl Into<String>) -> Self {
        with(|state| state.config.insert(key.to_owned(), value.into()));
        self
    }

    /// Puts a value into another group, for [`cache::peek`] and [`cache::get`].
    pub fn cached(self, group: &str, key: &str, value: impl Into<Vec<u8>>) -> Self {
        self.cache_answer(group, key, Ok(Some(value.into())))
    }

    /// Decides what [`cache::peek`] and [`cache::get`] answer for a key.
    /// Undecided keys answer [`cache::Error::NoSuchGroup`], or `None` once the
    /// group has any key.
    pub fn cache_answer(
        self,
        group: &str,
        key: &str,
        answer: Result<Option<Vec<u8>>, cache::Error>,
    ) -> Self {
        with(|state| state.cached.insert((group.to_owned(), key.to_owned()), answer));
        self
    }

    /// Answers requests for `url`. Several answers for one URL are given in
    /// turn, the last one for ever.
    pub fn http(self, url: &str, response: Response) -> Self {
        self.http_result(url, Ok(response))
    }

    /// As [`Host::http`], with an error: an origin that is away, or denied.
    pub fn http_result(self, url: &str, result: Result<Response, Error>) -> Self {
        with(|state| {
            state.http.entry(Url::canonical(url)).or_default().push_back(result);
        });
        self
    }

    /// The requests sent so far.
    pub fn sent(&self) -> Vec<Sent> {
        with(|state| state.sent.clone())
    }

    /// The records logged so far.
    pub fn records(&self) -> Vec<Record> {
        with(|state| state.records.clone())
    }

    /// The sum of the counter `name` with exactly these labels.
    pub fn counter(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        with(|state| state.counters.get(&series(name, labels)).copied().unwrap_or_default())
    }

    /// What was recorded in the histogram `name` with exactly these labels.
    pub fn histogram(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        with(|state| state.histograms.get(&series(name, labels)).cloned().unwrap_or_default())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // On a thread that is ending, the state may be gone already.
        let _ = STATE.try_with(|state| {
            let mut state = state.borrow_mut();
            if state.generation == self.generation {
                *state = State { generation: self.generation, ..State::default() };
            }
        });
    }
}

/// A series, whatever the order of its labels.
fn series(name: &str, labels: &[(&str, &str)]) -> (String, Labels) {
    let mut labels = owned(labels);
    labels.sort();
    (name.to_owned(), labels)
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::call::REMAINING;
    use super::*;
    use crate::Deadline;
    use crate::{config, log, metrics};

    #[test]
    fn a_new_host_forgets_what_came_before() {
        let host = Host::new().config("a", "1");
        log::info("The first.", &[("n", "1")]);
        metrics::counter_add("calls", 2, &[("b", "2"), ("a", "1")]);
        metrics::counter_add("calls", 3, &[("a", "1"), ("b", "2")]);
        metrics::histogram_record("seconds", 0.5, &[]);
        assert_eq!(host.records().len(), 1);
        assert_eq!(host.counter("calls", &[("a", "1"), ("b", "2")]), 5);
        assert_eq!(host.histogram("seconds", &[]), [0.5]);
        drop(host);
        assert_eq!(config::get("a"), None);
        let mut host = Host::new();
        assert!(host.records().is_empty());
        // The old host is dropped after the new one was made.
        host = Host::new().config("a", "2");
        assert_eq!(config::get("a").as_deref(), Some("2"));
        drop(host);
    }

    #[test]
    fn the_cache_answers_what_was_put_there() {
        let _host = Host::new().cached("words", "a", "1").cache_answer(
            "secret",
            "a",
            Err(cache::Error::Denied),
        );
        let ctx = context().build();
        assert_eq!(cache::get(&ctx, "words", "a"), Ok(Some(b"1".to_vec())));
        assert_eq!(cache::peek("words", "b"), Ok(None));
        assert_eq!(cache::peek("secret", "a"), Err(cache::Error::Denied));
        assert_eq!(cache::peek("nowhere", "a"), Err(cache::Error::NoSuchGroup));
    }

    #[test]
    fn answers_for_one_url_are_given_in_turn() {
        let url = "http://origin/a";
        let host = Host::new().http(url, Response::new(503)).http(url, Response::new(200));
        let ask = || Request::get(url).header("x-a", "1").send(Deadline::after(REMAINING));
        let statuses = [ask(), ask(), ask()].map(|answer| answer.unwrap().status());
        assert_eq!(statuses, [503, 200, 200]);
        assert_eq!(host.sent()[0].header("X-A"), Some("1"));
        assert!(Request::get("http://origin/b").send(Deadline::after(REMAINING)).is_err());
    }

    #[test]
    fn a_body_over_the_bound_is_an_error() {
        let url = "http://origin/a";
        let _host = Host::new().http(url, Response::new(200).with_body("four"));
        let ask = |bytes| Request::get(url).body_bytes_max(bytes).send(Deadline::after(REMAINING));
        assert_eq!(ask(4).unwrap().body(), b"four");
        assert!(matches!(ask(3), Err(Error::Internal(_))));
    }
}
