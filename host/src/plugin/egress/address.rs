//! Which addresses may be dialled at all.
//!
//! An IPv6 address can carry an IPv4 one inside (mapped, compatible, 6to4, NAT64);
//! such an address is judged by what it carries, since that is where it leads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Ranges that no grant opens, with the reason.
const NEVER: [(&str, &str); 11] = [
    ("169.254.0.0/16", "link-local, where metadata services are"),
    ("fe80::/10", "link-local"),
    ("fd00:ec2::/32", "a service of the cloud's own"),
    ("fd20:ce::254/128", "a metadata service"),
    ("168.63.129.16/32", "a metadata service"),
    ("100.100.100.200/32", "a metadata service"),
    ("192.0.0.192/32", "a metadata service"),
    ("0.0.0.0/32", "unspecified"),
    ("::/128", "unspecified"),
    ("224.0.0.0/4", "multicast"),
    ("ff00::/8", "multicast"),
];

/// Ranges that `allow_private` opens.
const SPECIAL: [(&str, &str); 22] = [
    ("127.0.0.0/8", "loopback"),
    ("::1/128", "loopback"),
    ("10.0.0.0/8", "private"),
    ("172.16.0.0/12", "private"),
    ("192.168.0.0/16", "private"),
    ("fc00::/7", "private"),
    ("fec0::/10", "private"),
    ("100.64.0.0/10", "shared by a carrier's customers"),
    ("0.0.0.0/8", "this network"),
    ("192.0.0.0/24", "reserved for protocols"),
    ("192.0.2.0/24", "for documentation"),
    ("192.88.99.0/24", "reserved"),
    ("198.18.0.0/15", "for benchmarks"),
    ("198.51.100.0/24", "for documentation"),
    ("203.0.113.0/24", "for documentation"),
    ("240.0.0.0/4", "reserved"),
    ("64:ff9b:1::/48", "translated locally"),
    ("100::/64", "discarded"),
    ("2001::/23", "reserved for protocols"),
    ("2001:db8::/32", "for documentation"),
    ("3fff::/20", "for documentation"),
    ("5f00::/16", "reserved"),
];

/// Why an address is not dialled.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::plugin) struct Refusal {
    /// What is special about the address.
    pub(super) reason: &'static str,
    /// The range that would open it; `None` when nothing does.
    pub(super) range: Option<&'static str>,
}

/// The special ranges one plugin may reach.
#[derive(Debug)]
pub(in crate::plugin) struct AddressFilter {
    allowed: Vec<IpNet>,
    special: Vec<(IpNet, &'static str, &'static str)>,
    never: Vec<(IpNet, &'static str)>,
}

impl AddressFilter {
    /// A filter that lets the special ranges `allowed` through.
    pub(in crate::plugin) fn new(allowed: Vec<IpNet>) -> Self {
        let special = SPECIAL.iter();
        let never = NEVER.iter();
        Self {
            allowed,
            special: special
                .filter_map(|(text, why)| Some((text.parse().ok()?, *text, *why)))
                .collect(),
            never: never.filter_map(|(text, why)| Some((text.parse().ok()?, *why))).collect(),
        }
    }

    /// Whether `ip` may be dialled.
    pub(super) fn check(&self, ip: IpAddr) -> Result<(), Refusal> {
        let never = |ip: IpAddr| self.never.iter().find(|(range, _)| range.contains(&ip));
        let ip = carried(ip);
        if let Some((_, reason)) = never(ip).or_else(|| translated(ip).and_then(never)) {
            return Err(Refusal { reason, range: None });
        }
        if self.allowed.iter().any(|range| range.contains(&ip)) {
            return Ok(());
        }
        match self.special.iter().find(|(range, ..)| range.contains(&ip)) {
            Some((_, text, reason)) => Err(Refusal { reason, range: Some(text) }),
            None => Ok(()),
        }
    }
}

/// The address that one in the range for local translators may lead to. Which of them
/// it does lead to is the network's affair.
fn translated(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V6(ip) => match ip.segments() {
            [0x64, 0xff9b, 1, .., high, low] => Some(v4(high, low)),
            _ => None,
        },
        IpAddr::V4(_) => None,
    }
}

fn v4(high: u16, low: u16) -> IpAddr {
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

/// The address that `ip` leads to.
fn carried(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(ip) = ip else { return ip };
    match ip.segments() {
        // Mapped, translated (RFC 2765), NAT64 and 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => v4(high, low),
        [0, 0, 0, 0, 0, 0, high, low]
            if ip != Ipv6Addr::UNSPECIFIED && ip != Ipv6Addr::LOCALHOST =>
        {
            v4(high, low)
        }
        _ => IpAddr::V6(ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ip: &str, allowed: &[&str]) -> Result<(), Refusal> {
        let allowed = allowed.iter().map(|range| range.parse().expect(range)).collect();
        AddressFilter::new(allowed).check(ip.parse().expect("an address"))
    }

    #[test]
    fn every_range_in_the_tables_is_understood() {
        let filter = AddressFilter::new(Vec::new());
        assert_eq!((filter.special.len(), filter.never.len()), (SPECIAL.len(), NEVER.len()));
    }

    #[test]
    fn the_public_internet_is_reachable() {
        for ip in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "172.32.0.1", "100.128.0.1"] {
            assert_eq!(check(ip, &[]), Ok(()), "{ip}");
        }
    }

    #[test]
    fn special_addresses_are_refused_in_every_disguise() {
        for ip in [
            "127.0.0.1",
            "127.255.255.254",
            "0.1.2.3",
            "10.0.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "198.18.0.1",
            "255.255.255.255",
            "::1",
            "fd12::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "2002:7f00:1::",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "::ffff:0:127.0.0.1",
            "2001:0:1::1",
        ] {
            let refusal = check(ip, &[]).expect_err(ip);
            assert!(refusal.range.is_some(), "{ip}");
        }
    }

    #[test]
    fn a_listed_range_is_opened_and_no_other() {
        assert_eq!(check("10.1.2.3", &["10.1.0.0/16"]), Ok(()));
        assert!(check("10.2.2.3", &["10.1.0.0/16"]).is_err());
        assert_eq!(check("::ffff:10.1.2.3", &["10.1.0.0/16"]), Ok(()));
        assert_eq!(check("127.0.0.1", &["127.0.0.1/32"]), Ok(()));
    }

    #[test]
    fn metadata_services_cannot_be_granted() {
        let everything = ["0.0.0.0/0", "::/0"];
        for ip in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "2002:a9fe:a9fe::",
            "64:ff9b::169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "64:ff9b:1::a9fe:a9fe",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
        ] {
            let refusal = check(ip, &everything).expect_err(ip);
            assert_eq!(refusal.range, None, "{ip}");
        }
    }
}
