//! How the addresses of a cluster are written down.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use thiserror::Error;

use super::Cluster;

/// A text that is no address of a member.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BadAddress {
    /// Neither an IP address nor one with a port.
    #[error("write an IP address, as 10.0.0.7, or one with a port, as 10.0.0.7:9999")]
    Address,
    /// An address that means every interface.
    #[error("others cannot reach every interface; write the address that they can reach")]
    Unspecified,
    /// Neither a name nor an address.
    #[error("write a name or an IP address, with a port or without: cache.internal, 10.0.0.5:9999")]
    Seed,
    /// Not a number of a port.
    #[error("a port is a number from 1 to 65535")]
    Port,
}

/// Where a member may be found: a name or an address, and its port if it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The name or the address, without brackets.
    pub host: String,
    /// The port.
    pub port: Option<u16>,
}

impl Cluster {
    /// Whether what stands here alone makes this node a member of one; see
    /// [`Config::is_member`](super::Config::is_member).
    pub fn is_on(&self) -> bool {
        self.has_key() || self.insecure || self.has_seeds()
    }

    /// Whether it says where other members may be found.
    pub fn has_seeds(&self) -> bool {
        !self.seeds.is_empty() || !self.seeds_file.as_os_str().is_empty()
    }

    /// Whether it has a key.
    pub fn has_key(&self) -> bool {
        !self.key_file.as_os_str().is_empty()
    }

    /// The address to bind: without a word, every interface, or loopback where nobody has
    /// to prove who they are.
    pub fn bind_address(&self) -> IpAddr {
        let unset = if self.has_key() || self.insecure {
            Ipv4Addr::UNSPECIFIED
        } else {
            Ipv4Addr::LOCALHOST
        };
        self.bind.parse().unwrap_or(unset.into())
    }

    /// The address that others are told, if it is set, and its port, if that is.
    ///
    /// # Errors
    /// It is none.
    pub fn advertised(&self) -> Result<Option<(IpAddr, Option<u16>)>, BadAddress> {
        if self.advertise.is_empty() {
            return Ok(None);
        }
        let address = match self.advertise.parse::<SocketAddr>() {
            Ok(address) => (address.ip(), Some(address.port())),
            Err(_) => (self.advertise.parse().map_err(|_| BadAddress::Address)?, None),
        };
        if address.0.is_unspecified() { Err(BadAddress::Unspecified) } else { Ok(Some(address)) }
    }
}

/// Reads an entry of `seeds`.
///
/// # Errors
/// It is none.
pub fn seed(text: &str) -> Result<Seed, BadAddress> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(BadAddress::Seed)?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| BadAddress::Seed)?;
        let port = if rest.is_empty() {
            None
        } else {
            rest.strip_prefix(':').map(Some).ok_or(BadAddress::Seed)?
        };
        (host, port)
    } else if text.parse::<std::net::Ipv6Addr>().is_ok() {
        (text, None)
    } else {
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(BadAddress::Seed),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let is_address = host.parse::<IpAddr>().is_ok();
    let is_name = !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if !is_address && !is_name {
        return Err(BadAddress::Seed);
    }
    let port = port.map(|port| port.parse().ok().filter(|&port| port != 0).ok_or(BadAddress::Port));
    Ok(Seed { host: host.to_owned(), port: port.transpose()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_name_or_an_address_with_or_without_a_port() {
        let read = |text: &str| seed(text).map(|seed| (seed.host, seed.port));
        for (text, host, port) in [
            ("10.0.0.5", "10.0.0.5", None),
            ("10.0.0.5:9999", "10.0.0.5", Some(9999)),
            ("cache.internal", "cache.internal", None),
            ("cache_1:80", "cache_1", Some(80)),
            ("fd00::5", "fd00::5", None),
            ("[fd00::5]", "fd00::5", None),
            ("[fd00::5]:9999", "fd00::5", Some(9999)),
        ] {
            assert_eq!(read(text), Ok((host.to_owned(), port)), "{text}");
        }
        for (bad, why) in [
            ("", BadAddress::Seed),
            (":9999", BadAddress::Seed),
            ("http://10.0.0.5:9999", BadAddress::Seed),
            ("[10.0.0.5]:1", BadAddress::Seed),
            ("[fd00::5", BadAddress::Seed),
            ("[fd00::5]9999", BadAddress::Seed),
            ("a b", BadAddress::Seed),
            ("cache:0", BadAddress::Port),
            ("cache:port", BadAddress::Port),
            ("cache:70000", BadAddress::Port),
        ] {
            assert_eq!(read(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn a_cluster_without_a_key_stays_on_loopback() {
        let with = |change: fn(&mut Cluster)| {
            let mut cluster = Cluster { seeds: vec!["a".to_owned()], ..Cluster::default() };
            change(&mut cluster);
            cluster.bind_address().to_string()
        };
        assert_eq!(with(|_| ()), "127.0.0.1");
        assert_eq!(with(|it| it.insecure = true), "0.0.0.0");
        assert_eq!(with(|it| it.key_file = "key".into()), "0.0.0.0");
        assert_eq!(with(|it| it.bind = "10.0.0.7".to_owned()), "10.0.0.7");
        assert!(!Cluster::default().is_on());
    }

    #[test]
    fn what_is_advertised_can_be_reached() {
        let advertised =
            |text: &str| Cluster { advertise: text.to_owned(), ..Cluster::default() }.advertised();
        assert_eq!(advertised(""), Ok(None));
        let ip = IpAddr::from([10, 0, 0, 7]);
        assert_eq!(advertised("10.0.0.7"), Ok(Some((ip, None))));
        assert_eq!(advertised("10.0.0.7:9"), Ok(Some((ip, Some(9)))));
        assert_eq!(advertised("0.0.0.0"), Err(BadAddress::Unspecified));
        assert_eq!(advertised("cache"), Err(BadAddress::Address));
    }
}
