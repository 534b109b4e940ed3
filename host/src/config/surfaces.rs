//! Settings of whatever listens: for clients, for operators, for peers, and for the cluster.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ByteSize, Config, units};

/// The front for clients: `GET`, `HEAD` and `DELETE` of `/{group}/{key}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address and port to listen on. There is no authentication on this surface: an
    /// address beyond loopback belongs behind a firewall. Port 0 takes a free one.
    #[schemars(with = "units::AddressText")]
    pub listen: SocketAddr,
    /// Serving threads, each with its own listener. 0: one for each core.
    #[schemars(range(min = 0, max = 1_024))]
    pub threads: usize,
    /// Connections open at once; one more waits in the kernel's queue until another
    /// ends.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_max: usize,
    /// Size of a request's headers together; a larger request is answered 431.
    #[schemars(extend("x-minimum" = "8KiB", "x-maximum" = "1MiB"))]
    pub headers_max: ByteSize,
    /// Length of a request's path; a longer one is answered 414.
    #[schemars(extend("x-minimum" = "64B", "x-maximum" = "63KiB"))]
    pub url_max: ByteSize,
    /// Time for a client to send a request's headers. Shorter frees slots from slow
    /// clients sooner.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1h"))]
    pub header_timeout: Duration,
    /// Time a connection may stay open without a request.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1day"))]
    pub idle_timeout: Duration,
    /// Time for which a request waits for a value before it is answered 504. The
    /// fill goes on and serves the next request.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1day"))]
    pub request_timeout: Duration,
    /// Time for requests under way to end after SIGTERM or SIGINT. Less than the
    /// service manager's own kill timeout.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-maximum" = "1day"))]
    pub drain_timeout: Duration,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: loopback(8080),
            threads: 0,
            connections_max: 10_000,
            headers_max: ByteSize::kib(16),
            url_max: ByteSize::kib(8),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            request_timeout: Duration::from_secs(15),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

/// Health, metrics, status and purges, for operators.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address and port to listen on. Whoever reaches it can purge and reload: keep
    /// it on loopback or a private network. Port 0 takes a free one.
    #[schemars(with = "units::AddressText")]
    pub listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: loopback(9081) }
    }
}

/// The cluster that this node is a member of: nodes that find one another, share the keys
/// among them and notice when one is gone. There is one as soon as `seeds`,
/// `seeds_file`, `key_file` or `insecure` is set, or members are looked for in another way;
/// until others are found, the node serves alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// Name of the cluster. Nodes of another name do not hear one another, even with the
    /// same key.
    pub name: String,
    /// Addresses at which other members may be found: `["10.0.0.5", "cache.internal:9999"]`.
    /// The port is `port` where none is written; names are looked up again and again. A few
    /// members are enough, since they know the others, and every node may have the same
    /// list, itself included.
    pub seeds: Vec<String>,
    /// File with such addresses, one in a line, relative to the config file; what follows a
    /// `#` is a comment. It is read again when it changes, and need not be there at first.
    pub seeds_file: PathBuf,
    /// File with the cluster's key, relative to the config file; `cachecluster keygen` makes
    /// one. Members prove with it that they belong here, and seal what they say. More keys
    /// in further lines are understood too, so that a key can be replaced: see
    /// `docs/clustering.md`. Only its owner may be able to read it.
    pub key_file: PathBuf,
    /// Whether to do without a key: whoever reaches the ports can then join, purge and read
    /// everything. Only for networks where everybody is trusted. Off, a cluster without a
    /// key stays on loopback.
    pub insecure: bool,
    /// Port for gossip, by UDP and TCP. 0 takes a free one, which other nodes cannot know.
    #[schemars(range(min = 0, max = 65_535))]
    pub port: u16,
    /// Address to bind for gossip. Empty: every interface; loopback where there is neither
    /// a key nor `insecure`.
    pub bind: String,
    /// Address at which other members reach this node, `10.0.0.7`, with a port if that is
    /// not `port`. Empty: the one that is bound; if that is every interface, the one that
    /// this machine reaches the network from.
    pub advertise: String,
    /// Share of the keys, of 100: a node with 50 gets half as many as one with 100.
    #[schemars(range(min = 1, max = 100))]
    pub weight: u32,
    /// Where the node runs, in words of the operator's own; shown by `cachecluster members`.
    pub zone: String,
    /// File in which the node writes down who it is, so that it owns the same keys after a
    /// restart. Empty: a file in the folder that `[wasm] data_dir` names or means; without
    /// such a folder, the node is a new one at each start.
    pub identity: PathBuf,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            name: "cachecluster".to_owned(),
            seeds: Vec::new(),
            seeds_file: PathBuf::new(),
            key_file: PathBuf::new(),
            insecure: false,
            port: 9999,
            bind: String::new(),
            advertise: String::new(),
            weight: 100,
            zone: String::new(),
            identity: PathBuf::new(),
        }
    }
}

/// How nodes that share the keys are served and asked, and peers that are known by hand, such
/// as a fleet of Go groupcache nodes. Each key has one owner among them, which every node
/// works out by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Peers {
    /// Address and port to serve peers on, where there are any. The protocol of the family
    /// has no authentication: an address beyond loopback belongs on a private network.
    /// Port 0 takes a free one. Unset: port 9080 of the address that `[cluster]` binds, or
    /// of loopback where there is no cluster.
    #[schemars(with = "Option<units::AddressText>")]
    pub listen: Option<SocketAddr>,
    /// What the other peers call this node, byte for byte as it stands in their lists:
    /// `http://10.0.0.7:9080`. Must be set where `groupcache` names peers.
    pub url: String,
    /// The other peers, by the base URLs that stand in the lists of all of them:
    /// `["http://10.0.0.5:9080"]`. Together with its own `url`, every node must have the same
    /// ones.
    pub groupcache: Vec<String>,
    /// Which program the others run: it decides the ring and how errors are told.
    pub family: Family,
    /// Time for a peer to begin its answer, its getter's included. A peer that takes longer
    /// is passed over, and after three times in a row left alone until it answers a probe.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1h"))]
    pub answer_timeout: Duration,
    /// Time to connect to another node of the cluster, in which both show that they have the
    /// key. Nodes are near one another: longer is for clusters that span regions.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1m"))]
    pub connect_timeout: Duration,
    /// Time for another node of the cluster to say that it is at a question, which it does at
    /// once whatever it is asked. One that does not is passed over, as with `answer_timeout`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1m"))]
    pub sign_timeout: Duration,
    /// Time for a look into the memory of the node that owned a key until a moment ago, before
    /// the key's new owner asks the origin. A fill waits for it.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1m"))]
    pub peek_timeout: Duration,
    /// Size of the largest value that is taken from a peer.
    #[schemars(extend("x-minimum" = "1KiB", "x-maximum" = "4GiB"))]
    pub reply_max: ByteSize,
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            listen: None,
            url: String::new(),
            groupcache: Vec::new(),
            family: Family::default(),
            answer_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_millis(300),
            sign_timeout: Duration::from_millis(500),
            peek_timeout: Duration::from_millis(20),
            reply_max: ByteSize::mib(16),
        }
    }
}

impl Peers {
    /// Whether any are named.
    pub fn are_any(&self) -> bool {
        !self.groupcache.is_empty()
    }
}

/// A program of the groupcache family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// golang/groupcache, and nodes of this program among them.
    #[default]
    Groupcache,
    /// mailgun/groupcache v2.
    Mailgun,
    /// groupcache/groupcache-go v3, whose peers are written with `http://` here too.
    GroupcacheGo,
}

impl Config {
    /// Whether other nodes may share the keys.
    pub fn has_peers(&self) -> bool {
        self.peers.are_any() || self.is_member()
    }

    /// Where peers are served.
    pub fn peers_listen(&self) -> SocketAddr {
        self.peers.listen.unwrap_or_else(|| {
            if self.is_member() {
                SocketAddr::new(self.cluster.bind_address(), PEERS_PORT)
            } else {
                loopback(PEERS_PORT)
            }
        })
    }
}

/// Port for peers unless it is set.
const PEERS_PORT: u16 = 9080;

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
