//! A network that loses, repeats, delays and spoils packets, between nodes at places of their
//! own: where there is root, in network namespaces with a router between them ([`spaces`]),
//! otherwise on loopback with proxies in front of each node ([`proxies`]).
//!
//! The test itself is in the network too, at [`Chaos::here`], and is spared: what goes wrong
//! goes wrong among the nodes.

mod proxies;
mod spaces;

use std::{
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::watch;

use super::node::Builder;
use proxies::Proxies;
use spaces::Spaces;

/// Set, it has nodes on loopback although there is root.
const WITHOUT_ROOT: &str = "FAULTS_WITHOUT_ROOT";

/// What becomes of packets from one node to another. Shares are from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) no_udp: bool,
    pub(crate) no_tcp: bool,
    pub(crate) lost: f64,
    pub(crate) twice: f64,
    /// With a byte of what they carry changed.
    pub(crate) spoilt: f64,
    /// By up to so much, each for itself, so that they overtake one another.
    pub(crate) late: Duration,
}

impl Weather {
    /// Nothing gets through.
    pub(crate) const NIGHT: Self = Self {
        no_udp: true,
        no_tcp: true,
        lost: 0.0,
        twice: 0.0,
        spoilt: 0.0,
        late: Duration::ZERO,
    };
}

/// What the weather is from one place to another.
type Rule = Arc<dyn Fn(u8, u8) -> Weather + Send + Sync>;

/// How many packets may be on their way.
const DELAYED_MAX: usize = 10_000;

/// How many datagrams are remembered.
const HEARD_MAX: usize = 2_000;

/// What decides about packets, and remembers some.
struct Sky {
    rule: watch::Sender<Rule>,
    random: Mutex<fastrand::Rng>,
    /// Datagrams that have gone by, and to which place, for those who would send them again.
    heard: Mutex<Vec<(u8, Vec<u8>)>>,
}

impl Sky {
    fn new() -> Arc<Self> {
        let clear: Rule = Arc::new(|_, _| Weather::default());
        let random = Mutex::new(fastrand::Rng::with_seed(8));
        Arc::new(Self { rule: watch::Sender::new(clear), random, heard: Mutex::default() })
    }

    fn weather(&self, from: u8, to: u8) -> Weather {
        let rule = Arc::clone(&self.rule.borrow());
        rule(from, to)
    }

    fn hear(&self, to: u8, datagram: &[u8]) {
        let mut heard = self.heard.lock().expect("datagrams");
        if heard.len() < HEARD_MAX {
            heard.push((to, datagram.to_vec()));
        }
    }

    /// What arrives of `packet`, and how late. It carries something from `carried` on.
    fn copies(&self, weather: &Weather, packet: &[u8], carried: usize) -> Vec<(Duration, Vec<u8>)> {
        let mut random = self.random.lock().expect("randomness");
        let mut by_chance = |share: f64| share > 0.0 && random.f64() < share;
        if by_chance(weather.lost) {
            return Vec::new();
        }
        let (copies, is_spoilt) =
            (1 + usize::from(by_chance(weather.twice)), by_chance(weather.spoilt));
        let mut packet = packet.to_vec();
        if is_spoilt && carried < packet.len() {
            let at = random.usize(carried..packet.len());
            packet[at] ^= random.u8(1..);
        }
        (0..copies).map(|_| (weather.late.mul_f64(random.f64()), packet.clone())).collect()
    }
}

/// Nodes' places in the network, and what is between them.
pub(crate) struct Chaos {
    sky: Arc<Sky>,
    ways: Ways,
}

enum Ways {
    Spaces(Spaces),
    Proxies(Proxies),
}

impl Chaos {
    /// A network of `count` places, on loopback with addresses of the net `net` if need be.
    pub(crate) fn start(count: u8, net: u8) -> io::Result<Self> {
        let sky = Sky::new();
        let spaces = match std::env::var_os(WITHOUT_ROOT) {
            Some(_) => Err(io::Error::other(WITHOUT_ROOT)),
            None => Spaces::start(count, Arc::clone(&sky)),
        };
        let ways = match spaces {
            Ok(spaces) => Ways::Spaces(spaces),
            Err(_) => Ways::Proxies(Proxies::start(count, net, &sky)?),
        };
        Ok(Self { sky, ways })
    }

    /// What it is made of.
    pub(crate) fn kind(&self) -> &'static str {
        match self.ways {
            Ways::Spaces(_) => "network namespaces",
            Ways::Proxies(_) => "proxies on loopback",
        }
    }

    /// The address that the node at the place `place`, from 1, binds.
    pub(crate) fn address(&self, place: u8) -> Ipv4Addr {
        match &self.ways {
            Ways::Spaces(spaces) => spaces.address(place),
            Ways::Proxies(proxies) => proxies.bound(place),
        }
    }

    /// Where the test is.
    pub(crate) fn here(&self) -> Ipv4Addr {
        match &self.ways {
            Ways::Spaces(spaces) => spaces.here(),
            Ways::Proxies(_) => Ipv4Addr::LOCALHOST,
        }
    }

    /// Puts a node at the place `place`.
    pub(crate) fn put(&self, place: u8, node: Builder) -> Builder {
        match &self.ways {
            Ways::Spaces(spaces) => node.wrap(spaces.at(place)),
            Ways::Proxies(proxies) => proxies.put(place, node),
        }
    }

    /// From now on, `rule` says what becomes of packets from one place to another.
    pub(crate) fn set(&self, rule: impl Fn(u8, u8) -> Weather + Send + Sync + 'static) {
        self.sky.rule.send_replace(Arc::new(rule));
    }

    /// From now on nothing goes wrong.
    pub(crate) fn clear(&self) {
        self.set(|_, _| Weather::default());
    }

    /// Sends all datagrams again that have been heard among nodes; says how many.
    pub(crate) fn replay(&self) -> usize {
        let heard = self.sky.heard.lock().expect("datagrams").clone();
        for (to, datagram) in &heard {
            match &self.ways {
                Ways::Spaces(spaces) => spaces.send(datagram),
                Ways::Proxies(proxies) => proxies.send(*to, datagram),
            }
        }
        heard.len()
    }
}
