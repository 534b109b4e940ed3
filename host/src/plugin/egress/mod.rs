//! What a plugin may reach beyond its sandbox: nothing, but what its grants name.
//!
//! A grant is a name and a port; what is dialled is an address. Between them stands
//! the name service, which a stranger may control, so every address is checked after
//! it was looked up and before it is dialled, and the one that was checked is the one
//! that is dialled.
//!
//! - `target`, `address`, `denials`: what is asked for, whether it is granted, and who is
//!   told when it is not.
//! - `resolver`, `dial`, `tls`: from a name to a connection.
//! - `handler`, `http`, `pool`, `body`: requests over them, through `wasi:http`.
//! - `sockets`, `lookup`, `tcp`: raw connections, through `wasi:sockets`.
//! - `rate`: how often.
//!
//! Invariants:
//! - no address is dialled that did not come from a granted name, not long ago, or from a
//!   granted literal;
//! - special addresses (loopback, private, …) need a grant of their own, and the
//!   link-local range with the metadata service cannot be granted;
//! - connections are never shared between plugins or generations: one in a pool has
//!   passed the checks of its own plugin only;
//! - connections, lookups, bytes, time and rate of a plugin are bounded together, over
//!   all of its instances.

mod address;
mod body;
mod denials;
mod dial;
mod handler;
mod http;
mod lookup;
mod pool;
mod rate;
mod resolver;
mod sockets;
mod target;
mod tcp;
mod tls;

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lru::LruCache;
use tokio::{sync::Semaphore, time::Instant};
use wasmtime::component::Linker;

pub(super) use address::AddressFilter;
pub(super) use denials::{CallNotes, Denials};
pub(super) use http::HttpHooks;
#[cfg(test)]
pub(super) use resolver::script;
pub(super) use sockets::{Gate, OpenSockets};

use self::{
    body::Bounds,
    dial::{DialError, Dialer},
    pool::Pool,
    rate::Rate,
    resolver::Resolver,
};
use super::{secrets::Secrets, store::State};
use crate::{
    config::{
        self,
        grants::{self, Host, HttpGrant, Refusal, TcpGrant},
    },
    metrics::PluginMetrics,
};

/// Puts what looks at grants in the place of wasmtime's sockets and requests.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    sockets::add_to_linker(linker)?;
    handler::add_to_linker(linker)
}

/// How long an address is taken for that of the name it was looked up for. By then
/// somebody else may have it.
const ADDRESS_AGE_MAX: Duration = Duration::from_mins(5);

/// Addresses remembered as those of granted names; the least used is forgotten, and
/// is found again by looking its name up.
const ADDRESSES_MAX: NonZeroUsize = NonZeroUsize::new(1_024).expect("not zero");

/// The grants of one generation of a plugin and what they have led to.
pub(super) struct Egress {
    http_grants: Vec<HttpGrant>,
    tcp_grants: Vec<TcpGrant>,
    denials: Arc<Denials>,
    dialer: Dialer,
    /// Addresses and ports that granted names resolved to, and when.
    dialable: Mutex<LruCache<(IpAddr, u16), Instant>>,
    pool: Arc<Pool>,
    /// One for each connection that may be in use, over HTTP or raw.
    places: Arc<Semaphore>,
    rate: Option<Rate>,
    /// How long a connection may wait for its turn: as long as a call lasts.
    patience: Duration,
    request_max: u64,
    response_max: u64,
    rate_min: u64,
}

impl Egress {
    /// What `settings` grant to `plugin`; in words what of it is not understood. Reads
    /// certificates: not for a serving thread.
    pub(super) fn new(
        plugin: &Arc<str>,
        settings: &config::Plugin,
        base_dir: &Path,
        secrets: Arc<Secrets>,
        metrics: &PluginMetrics,
    ) -> Result<Self, String> {
        let network = &settings.network;
        let http_grants = read("http", &network.http, grants::http)?;
        let tcp_grants = read("tcp", &network.tcp, grants::tcp)?;
        let allowed = read("allow_private", &network.allow_private, grants::range)?;
        // Trusting takes a hundred certificates and more; most plugins do without.
        let has_tls =
            !network.ca_files.is_empty() || http_grants.iter().any(|grant| grant.is_https);
        let tls = has_tls.then(|| tls::client(&network.ca_files, base_dir)).transpose()?;
        let denials = Arc::new(Denials::new(Arc::clone(plugin), network, secrets, metrics));
        let places = usize::try_from(network.connections_max).unwrap_or(usize::MAX);
        Ok(Self {
            http_grants,
            tcp_grants,
            dialer: Dialer {
                resolver: Resolver::new(),
                filter: AddressFilter::new(allowed),
                denials: Arc::clone(&denials),
                tls: tls.map(Arc::new),
            },
            denials,
            dialable: Mutex::new(LruCache::new(ADDRESSES_MAX)),
            pool: Arc::new(Pool::new(places)),
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            rate: Rate::new(network.requests_per_second, network.requests_burst),
            patience: settings.limits.timeout,
            request_max: network.request_max.get(),
            response_max: network.response_max.get(),
            rate_min: network.response_rate_min.get(),
        })
    }

    /// Where refused attempts are told.
    pub(super) fn denials(&self) -> &Denials {
        &self.denials
    }

    /// When one more request or connection may begin; `None` if that is after `latest`.
    fn turn(&self, latest: Instant) -> Option<Instant> {
        match &self.rate {
            Some(rate) => rate.reserve(latest),
            None => Some(Instant::now()),
        }
    }

    /// What a response that ends by `deadline` keeps within.
    fn bounds(&self, deadline: Instant, between_bytes: Option<Duration>) -> Bounds {
        Bounds { left: self.response_max, deadline, between_bytes, rate_min: self.rate_min }
    }

    /// Whether a raw TCP connection to `address` may be made; else what to tell.
    pub(super) fn may_connect(&self, address: SocketAddr) -> Result<(), String> {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        let host = Host::Ip(ip);
        let is_literal =
            self.tcp_grants.iter().any(|grant| grant.host == host && grant.port == port);
        if !is_literal && !self.is_remembered(ip, port) {
            return Err(self.denials.tcp(&SocketAddr::new(ip, port).to_string()));
        }
        let checked = self.dialer.filter.check(ip);
        checked.map_err(|refusal| self.denials.address(&ip.to_string(), &refusal))
    }

    fn is_remembered(&self, ip: IpAddr, port: u16) -> bool {
        let mut dialable = self.dialable.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(looked_up) = dialable.get(&(ip, port)) else { return false };
        if looked_up.elapsed() < ADDRESS_AGE_MAX {
            return true;
        }
        dialable.pop(&(ip, port));
        false
    }

    /// Whether raw TCP to `name` is granted, on whatever port; else what to tell.
    fn may_look_up(&self, name: &str) -> Result<(), String> {
        if target::is_metadata_name(name) {
            return Err(self.denials.never(name));
        }
        if self.ports(name).next().is_none() {
            return Err(self.denials.tcp(&format!("{name}:PORT")));
        }
        Ok(())
    }

    /// Looks the granted `name` up, and remembers its addresses as dialable.
    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, DialError> {
        let addresses = self.dialer.addresses(&Host::Name(name.to_owned())).await?;
        let now = Instant::now();
        let mut dialable = self.dialable.lock().unwrap_or_else(PoisonError::into_inner);
        for port in self.ports(name) {
            for ip in &addresses {
                dialable.put((*ip, port), now);
            }
        }
        Ok(addresses)
    }

    /// The ports of `name` that are granted for raw TCP.
    fn ports(&self, name: &str) -> impl Iterator<Item = u16> {
        let is_named = move |grant: &&TcpGrant| matches!(&grant.host, Host::Name(it) if it == name);
        self.tcp_grants.iter().filter(is_named).map(|grant| grant.port)
    }

    /// HTTP connections that wait for another request.
    #[cfg(test)]
    pub(super) fn idle_connections(&self) -> usize {
        self.pool.len()
    }

    /// What `network` grants to a plugin of a test.
    #[cfg(test)]
    pub(super) fn of(network: &config::Network) -> Self {
        let metrics = crate::metrics::Metrics::new().plugin("p");
        let settings = config::Plugin { network: network.clone(), ..config::Plugin::new("p.wasm") };
        Self::new(&"p".into(), &settings, Path::new("."), Arc::default(), &metrics)
            .unwrap_or_else(|problem| panic!("{problem}"))
    }
}

/// Reads each of `texts`, which stand under `setting`.
fn read<T>(
    setting: &str,
    texts: &[String],
    read: impl Fn(&str) -> Result<T, Refusal>,
) -> Result<Vec<T>, String> {
    let problem = |Refusal { title, help }| format!("network.{setting}: {title}; {help}");
    texts.iter().map(|text| read(text).map_err(problem)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Network;

    fn egress(tcp: &[&str], allow_private: &[&str]) -> Egress {
        let text = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let (tcp, allow_private) = (text(tcp), text(allow_private));
        Egress::of(&Network { tcp, allow_private, ..Network::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_dialled_only_when_it_came_from_a_granted_name() {
        script::resolve("dict.egress.test", &[&["93.184.216.34"]]);
        let egress = egress(&["dict.egress.test:2628"], &[]);
        let dict = SocketAddr::from(([93, 184, 216, 34], 2628));
        assert!(egress.may_connect(dict).is_err(), "nobody looked the name up");
        assert!(egress.may_look_up("dict.egress.test").is_ok());
        assert!(egress.may_look_up("other.egress.test").is_err());
        egress.look_up("dict.egress.test").await.expect("an address");
        assert_eq!(egress.may_connect(dict), Ok(()));
        assert!(egress.may_connect(([93, 184, 216, 34], 22).into()).is_err(), "another port");
        assert!(egress.may_connect(([93, 184, 216, 35], 2628).into()).is_err(), "another address");
        tokio::time::advance(ADDRESS_AGE_MAX).await;
        assert!(egress.may_connect(dict).is_err(), "too long ago");
    }

    #[tokio::test]
    async fn addresses_are_forgotten_when_there_are_too_many() {
        let names: Vec<_> = (0..80).map(|n| format!("n{n}.many.test:1")).collect();
        let egress = egress(&names.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        for n in 0..80_u8 {
            let ips: Vec<_> = (0..16).map(|i| format!("1.2.{n}.{i}")).collect();
            let name = format!("n{n}.many.test");
            script::resolve(&name, &[&ips.iter().map(String::as_str).collect::<Vec<_>>()]);
            egress.look_up(&name).await.expect("addresses");
        }
        assert!(egress.may_connect(([1, 2, 0, 0], 1).into()).is_err(), "the first is forgotten");
        assert_eq!(egress.may_connect(([1, 2, 79, 15], 1).into()), Ok(()));
    }

    #[tokio::test]
    async fn a_granted_name_does_not_open_the_private_network() {
        let closed = egress(&["inside.egress.test:2628"], &[]);
        let opened = egress(&["inside.egress.test:2628"], &["10.0.0.0/8"]);
        script::resolve("inside.egress.test", &[&["10.1.2.3"]]);
        let private = SocketAddr::from(([10, 1, 2, 3], 2628));
        let refused = closed.look_up("inside.egress.test").await;
        assert!(matches!(refused, Err(DialError::Prohibited(_))), "{refused:?}");
        assert!(closed.may_connect(private).is_err());
        opened.look_up("inside.egress.test").await.expect("an address");
        assert_eq!(opened.may_connect(private), Ok(()));
    }

    #[test]
    fn a_literal_needs_both_its_grant_and_its_range() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 2628));
        let said = |egress: Egress| egress.may_connect(loopback).expect_err("refused");
        let (no_range, no_grant) =
            (said(egress(&["127.0.0.1:2628"], &[])), said(egress(&[], &["127.0.0.0/8"])));
        assert!(no_range.contains(r#"allow_private = ["127.0.0.0/8"]"#), "{no_range}");
        assert!(!no_range.contains("tcp ="), "{no_range}");
        assert!(no_grant.contains(r#"tcp = ["127.0.0.1:2628"]"#), "{no_grant}");
        assert!(!no_grant.contains("allow_private"), "{no_grant}");
        let granted = egress(&["127.0.0.1:2628"], &["127.0.0.0/8"]);
        assert_eq!(granted.may_connect(loopback), Ok(()));
        assert!(granted.may_connect(([127, 0, 0, 1], 22).into()).is_err());
    }
}
