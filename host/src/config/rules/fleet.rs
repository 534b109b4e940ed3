//! What `[peers]` and `[cluster]` mean, beside one another and the other surfaces.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::{Part, relation, wrong};
use crate::config::{
    Cluster, Config,
    cluster::seed,
    draft::Draft,
    peers::authority,
    report::{Severity, quoted},
};

/// Seeds of a cluster: a few are enough.
const SEEDS_MAX: usize = 256;

/// Bytes of a cluster's name.
const CLUSTER_NAME_MAX: usize = 64;

/// Bytes of a zone's name, as members tell it.
const ZONE_MAX: usize = 32;

/// The surfaces beside that for peers, each with the setting of its address.
fn listeners(config: &Config) -> [(&'static [&'static str], SocketAddr); 2] {
    [(&["http", "listen"], config.http.listen), (&["admin", "listen"], config.admin.listen)]
}

pub(super) fn peers(draft: &mut Draft, config: &Config) {
    let peers = &config.peers;
    if !peers.are_any() && !peers.url.is_empty() {
        let path = ["peers", "url"];
        let title = "there are no peers that could call this node so".to_owned();
        wrong(draft, &path, title, "name them in `groupcache`, or remove `url`".to_owned());
    }
    if !config.has_peers() {
        return;
    }
    let ours = config.peers_listen();
    for (path, listen) in listeners(config) {
        if ours == listen && listen.port() != 0 {
            relation(
                draft,
                Severity::Error,
                "peers cannot share a port with anybody else".to_owned(),
                &[Part::new(&["peers", "listen"], ours), Part::new(path, listen)],
                "give one of them another port",
            );
        }
    }
    if !peers.are_any() {
        return;
    }
    if peers.url.is_empty() {
        let title = "peers are named, and not what they call this node".to_owned();
        let help = "set `url` to this node's own entry in their lists, as http://10.0.0.7:9080";
        wrong(draft, &["peers", "url"], title, help.to_owned());
    } else if let Err(error) = authority(&peers.url) {
        let title = format!("{} is no base URL of a peer", quoted(&peers.url));
        wrong(draft, &["peers", "url"], title, error.to_string());
    }
    let mut seen = BTreeSet::from([peers.url.as_str()]);
    for peer in &peers.groupcache {
        let path = ["peers", "groupcache"];
        if let Err(error) = authority(peer) {
            let title = format!("{} is no base URL of a peer", quoted(peer));
            return wrong(draft, &path, title, error.to_string());
        }
        if !seen.insert(peer) {
            let title = format!("{} stands in the list twice", quoted(peer));
            let help = "list each of the others once; this node is `url`".to_owned();
            return wrong(draft, &path, title, help);
        }
    }
}

pub(super) fn cluster(draft: &mut Draft, config: &Config) {
    let cluster = &config.cluster;
    if cluster.name.is_empty() || cluster.name.len() > CLUSTER_NAME_MAX {
        let title = "a cluster needs a name that is not too long".to_owned();
        let help = format!("write 1 to {CLUSTER_NAME_MAX} bytes, the same on every node");
        wrong(draft, &["cluster", "name"], title, help);
    }
    if cluster.zone.len() > ZONE_MAX {
        let title = format!("the zone takes {} bytes", cluster.zone.len());
        wrong(draft, &["cluster", "zone"], title, format!("write {ZONE_MAX} at most"));
    }
    if !cluster.bind.is_empty() && cluster.bind.parse::<IpAddr>().is_err() {
        let title = format!("{} is no IP address to bind", quoted(&cluster.bind));
        let help = "write one without a port, as 10.0.0.7; the port is `port`".to_owned();
        wrong(draft, &["cluster", "bind"], title, help);
    }
    if let Err(error) = cluster.advertised() {
        let title = format!("{} cannot be advertised", quoted(&cluster.advertise));
        wrong(draft, &["cluster", "advertise"], title, error.to_string());
    }
    if cluster.seeds.len() > SEEDS_MAX {
        let title = format!("{} seeds are too many", cluster.seeds.len());
        let help = format!("name {SEEDS_MAX} at most: members know one another");
        wrong(draft, &["cluster", "seeds"], title, help);
    }
    if let Some((text, error)) =
        cluster.seeds.iter().find_map(|text| Some((text, seed(text).err()?)))
    {
        let title = format!("{} is no place of a member", quoted(text));
        wrong(draft, &["cluster", "seeds"], title, error.to_string());
    }
    if config.is_member() {
        cluster_keys(draft, cluster);
        cluster_ports(draft, config);
    }
}

fn cluster_keys(draft: &mut Draft, cluster: &Cluster) {
    if cluster.has_key() && cluster.insecure {
        relation(
            draft,
            Severity::Error,
            "a cluster that has a key is not insecure".to_owned(),
            &[
                Part::new(&["cluster", "insecure"], cluster.insecure),
                Part::new(&["cluster", "key_file"], cluster.key_file.display()),
            ],
            "remove one of them",
        );
    }
    let bind = cluster.bind_address();
    if !cluster.has_key() && !cluster.insecure && !bind.is_loopback() {
        let title = "a cluster without a key stays on loopback".to_owned();
        let help = "make a key with `cachecluster keygen FILE`, give it to every node and name it in \
                    `key_file`; or set `insecure = true` where everybody on the network is trusted";
        wrong(draft, &["cluster", "bind"], title, help.to_owned());
    }
}

fn cluster_ports(draft: &mut Draft, config: &Config) {
    let cluster = &config.cluster;
    let (bind, ours) = (cluster.bind_address(), config.peers_listen());
    let all = listeners(config).into_iter().chain([(&["peers", "listen"][..], ours)]);
    for (path, listen) in all {
        let meets = listen.ip() == bind || listen.ip().is_unspecified() || bind.is_unspecified();
        if listen.port() == cluster.port && cluster.port != 0 && meets {
            relation(
                draft,
                Severity::Error,
                "gossip needs a port of its own".to_owned(),
                &[Part::new(&["cluster", "port"], cluster.port), Part::new(path, listen)],
                "give one of them another port",
            );
        }
    }
    if ours.ip().is_loopback() && !bind.is_loopback() {
        relation(
            draft,
            Severity::Error,
            "other members cannot reach this node on loopback".to_owned(),
            &[Part::new(&["peers", "listen"], ours), Part::new(&["cluster", "bind"], bind)],
            "remove `[peers] listen`, and peers are served where gossip is",
        );
    }
}
