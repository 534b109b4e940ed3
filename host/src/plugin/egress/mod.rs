//! What a plugin may reach beyond its sandbox: nothing, but what its grants name.
//!
//! A grant is a name and a port; what is dialled is an address. Between them stands
//! the name service, which a stranger may control, so every address is checked after
//! it was looked up and before it is dialled, and the one that was checked is the one
//! that is dialled.
//!
//! Invariants:
//! - no address is dialled that did not come from a granted name or a granted literal;
//! - special addresses (loopback, private, …) need a grant of their own, and the
//!   link-local range with the metadata service cannot be granted;
//! - connections are never shared between plugins: a pooled one has passed the checks
//!   of its own plugin only.

mod address;
mod body;
mod denials;
mod grant;
mod http;
mod lookup;

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use lru::LruCache;
use tokio::sync::Semaphore;

pub(super) use address::AddressFilter;
pub(super) use denials::Denials;
pub(super) use http::HttpHooks;
pub(super) use lookup::{OpenLookups, add_name_lookup};

use self::grant::{HttpGrant, TcpGrant};
use crate::config::Network;

/// Bytes of one HTTP response body where the settings do not say: larger than any
/// value most groups keep, small enough for every instance to receive one at once.
const RESPONSE_MAX_DEFAULT: u64 = 16 << 20;

/// HTTP exchanges of one plugin at a time: more than its instances usually have calls,
/// fewer than would exhaust the node's descriptors.
const HTTP_IN_FLIGHT_MAX: usize = 256;

/// Addresses remembered as those of granted names; the least used is forgotten, and
/// is found again by looking its name up.
const ADDRESSES_MAX: NonZeroUsize = NonZeroUsize::new(1_024).expect("not zero");

/// The grants of one plugin and what they have led to.
pub(super) struct Egress {
    http_grants: Vec<HttpGrant>,
    tcp_grants: Vec<TcpGrant>,
    filter: Arc<AddressFilter>,
    denials: Arc<Denials>,
    /// Addresses and ports that granted names resolved to.
    dialable: Mutex<LruCache<(IpAddr, u16), ()>>,
    /// `None` where no HTTP is granted: a client costs some memory.
    client: Option<reqwest::Client>,
    in_flight: Arc<Semaphore>,
    response_max: u64,
}

impl Egress {
    /// What `network` grants to `plugin`; in words what of it is not understood.
    pub(super) fn new(plugin: &Arc<str>, network: &Network) -> Result<Self, String> {
        let http_grants: Vec<_> =
            network.http.iter().map(|text| HttpGrant::parse(text)).collect::<Result<_, _>>()?;
        let tcp_grants =
            network.tcp.iter().map(|text| TcpGrant::parse(text)).collect::<Result<_, _>>()?;
        let filter = Arc::new(AddressFilter::new(&network.allow_private)?);
        let denials = Arc::new(Denials::new(Arc::clone(plugin)));
        let client = if http_grants.is_empty() {
            None
        } else {
            Some(http::client(Arc::clone(&filter), Arc::clone(&denials))?)
        };
        Ok(Self {
            http_grants,
            tcp_grants,
            filter,
            denials,
            dialable: Mutex::new(LruCache::new(ADDRESSES_MAX)),
            client,
            in_flight: Arc::new(Semaphore::new(HTTP_IN_FLIGHT_MAX)),
            response_max: match network.response_max.get() {
                0 => RESPONSE_MAX_DEFAULT,
                bytes => bytes,
            },
        })
    }

    /// Where refused attempts are told.
    pub(super) fn denials(&self) -> &Denials {
        &self.denials
    }

    /// Whether a raw TCP connection to `address` may be made.
    pub(super) fn may_connect(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        if !self.is_granted(ip, address.port()) {
            self.denials.tcp(&SocketAddr::new(ip, address.port()).to_string());
            return false;
        }
        match self.filter.check(ip) {
            Ok(()) => true,
            Err(refusal) => {
                self.denials.address(&address.to_string(), &refusal);
                false
            }
        }
    }

    fn is_granted(&self, ip: IpAddr, port: u16) -> bool {
        if self.tcp_grants.iter().any(|grant| grant.is_literal(ip, port)) {
            return true;
        }
        let mut dialable = self.dialable.lock().unwrap_or_else(PoisonError::into_inner);
        dialable.get(&(ip, port)).is_some()
    }

    /// Whether `host` stands in a grant for raw TCP, with whatever port.
    fn may_look_up(&self, host: &str) -> bool {
        self.tcp_grants.iter().any(|grant| grant.is_host(host))
    }

    /// Remembers that the granted name `host` has the address `ip`, if that may be
    /// dialled at all.
    fn remember(&self, host: &str, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        if let Err(refusal) = self.filter.check(ip) {
            self.denials.address(&format!("{host} at {ip}"), &refusal);
            return false;
        }
        let mut dialable = self.dialable.lock().unwrap_or_else(PoisonError::into_inner);
        for grant in self.tcp_grants.iter().filter(|grant| grant.is_host(host)) {
            dialable.put((ip, grant.port()), ());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(tcp: &[&str], allow_private: &[&str]) -> Egress {
        let text = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let network =
            Network { tcp: text(tcp), allow_private: text(allow_private), ..Network::default() };
        Egress::new(&"p".into(), &network).expect("grants")
    }

    #[test]
    fn an_address_is_dialled_only_when_it_came_from_a_granted_name() {
        let egress = egress(&["dict.example:2628"], &[]);
        let ip = IpAddr::from([93, 184, 216, 34]);
        assert!(!egress.may_connect((ip, 2628).into()), "nobody looked the name up");
        assert!(egress.may_look_up("dict.example") && !egress.may_look_up("other.example"));
        assert!(egress.remember("dict.example", ip));
        assert!(egress.may_connect((ip, 2628).into()));
        assert!(!egress.may_connect((ip, 22).into()), "another port");
        assert!(!egress.may_connect(([93, 184, 216, 35], 2628).into()), "another address");
    }

    #[test]
    fn a_granted_name_does_not_open_the_private_network() {
        let closed = egress(&["dict.example:2628"], &[]);
        let opened = egress(&["dict.example:2628"], &["10.0.0.0/8", "169.254.0.0/16"]);
        let private = IpAddr::from([10, 1, 2, 3]);
        assert!(!closed.remember("dict.example", private));
        assert!(!closed.may_connect((private, 2628).into()));
        assert!(opened.remember("dict.example", private));
        assert!(opened.may_connect((private, 2628).into()));
        let metadata = IpAddr::from([169, 254, 169, 254]);
        assert!(!opened.remember("dict.example", metadata), "never, even when listed");
    }

    #[test]
    fn a_literal_needs_both_its_grant_and_its_range() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 2628));
        assert!(!egress(&["127.0.0.1:2628"], &[]).may_connect(loopback));
        assert!(!egress(&[], &["127.0.0.0/8"]).may_connect(loopback));
        let granted = egress(&["127.0.0.1:2628"], &["127.0.0.0/8"]);
        assert!(granted.may_connect(loopback));
        assert!(!granted.may_connect(([127, 0, 0, 1], 22).into()));
    }
}
