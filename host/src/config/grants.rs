//! How the things a plugin may reach are written, and what they mean.
//!
//! Each function reads one text: what it grants, or what is wrong with it and what
//! would be right. The rules of the settings and the plugin host both read grants here,
//! so that what is enforced is what was checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use super::report::quoted;

/// What is wrong with a grant: a sentence and a remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) title: String,
    pub(crate) help: String,
}

/// An origin for HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpGrant {
    pub(crate) is_https: bool,
    pub(crate) host: Pattern,
    pub(crate) port: u16,
}

/// A host and a port for raw TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TcpGrant {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

/// Which hosts a grant is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    Exactly(Host),
    /// A suffix that begins with a dot: any name below it, not the name itself.
    Below(String),
}

/// A host in the one form in which hosts are compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    /// In lower-case ASCII, without a final dot.
    Name(String),
    /// An IPv4 address that was written as an IPv6 one is an IPv4 address.
    Ip(IpAddr),
}

impl Pattern {
    /// Whether this grants `host`.
    pub(crate) fn covers(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exactly(granted), host) => granted == host,
            (Self::Below(suffix), Host::Name(name)) => {
                name.len() > suffix.len() && name.ends_with(suffix)
            }
            (Self::Below(_), Host::Ip(_)) => false,
        }
    }
}

impl Host {
    /// Reads a name, or an address in its usual form: IPv6 in brackets.
    fn read(text: &str) -> Option<Self> {
        let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        if let Some(ip) = bracketed {
            return ip.parse::<Ipv6Addr>().ok().map(|ip| Self::ip(ip.into()));
        }
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Some(Self::ip(ip.into()));
        }
        is_name(text).then(|| Self::Name(text.to_ascii_lowercase()))
    }

    /// The host at `ip`.
    pub(crate) fn ip(ip: IpAddr) -> Self {
        Self::Ip(ip.to_canonical())
    }
}

/// Reads an origin for HTTP: `https://api.example.com`, `https://*.example.com:8443`.
pub(crate) fn http(text: &str) -> Result<HttpGrant, Refusal> {
    let refuse = |title: &str, help: String| Err(refusal(text, title, help));
    let Some((scheme, authority)) = text.split_once("://") else {
        return refuse("is not an origin", format!("write it as `https://{text}`"));
    };
    let is_https = scheme == "https";
    if !is_https && scheme != "http" {
        return refuse(
            "is neither `http` nor `https`",
            format!("write it as `https://{authority}`, or grant its host and port under `tcp`"),
        );
    }
    if let Some(end) = authority.find(['/', '?', '#']) {
        return refuse(
            "has a path: a grant is for a whole origin",
            format!("write it as `{scheme}://{}`", &authority[..end]),
        );
    }
    if let Some((_, host)) = authority.rsplit_once('@') {
        return refuse(
            "has a user name: credentials belong to the plugin's own settings",
            format!("write it as `{scheme}://{host}`"),
        );
    }
    let (host, port) = split_port(authority);
    let Some(port) = port.map_or(Some(if is_https { 443 } else { 80 }), read_port) else {
        return refuse(
            "has no port from 1 to 65535",
            format!("write it as `{scheme}://{host}:8443`"),
        );
    };
    let pattern = match host.strip_prefix("*.") {
        Some(suffix) => {
            is_name(suffix).then(|| Pattern::Below(format!(".{}", suffix.to_ascii_lowercase())))
        }
        None => Host::read(host).map(Pattern::Exactly),
    };
    match pattern {
        Some(host) => Ok(HttpGrant { is_https, host, port }),
        None if host == "*" => refuse(
            "grants the whole network",
            "name the hosts, as `https://*.example.com`".to_owned(),
        ),
        None => refuse(
            "does not name a host",
            "write it as `https://api.example.com` or `https://*.example.com`".to_owned(),
        ),
    }
}

/// Reads a host and port for TCP: `dict.org:2628`, `[2001:db8::1]:2628`.
pub(crate) fn tcp(text: &str) -> Result<TcpGrant, Refusal> {
    let refuse = |title: &str, help: String| Err(refusal(text, title, help));
    if let Some((_, rest)) = text.split_once("://") {
        return refuse("has a scheme: TCP has none", format!("write it as `{rest}`"));
    }
    let (host, port) = split_port(text);
    let Some(port) = port else {
        return refuse("has no port", format!("write it as `{host}:2628`"));
    };
    match (Host::read(host), read_port(port)) {
        (Some(host), Some(port)) => Ok(TcpGrant { host, port }),
        (_, None) => refuse("has no port from 1 to 65535", format!("write it as `{host}:2628`")),
        (None, _) => {
            refuse("does not name a host", format!("write it as `dict.example.org:{port}`"))
        }
    }
}

/// Reads a range of addresses: `10.1.0.0/16`, `fd00::/8`.
pub(crate) fn range(text: &str) -> Result<IpNet, Refusal> {
    let refuse = |title: &str, help: String| Err(refusal(text, title, help));
    let Some((address, length)) = text.split_once('/') else {
        return match text.parse::<IpAddr>() {
            Ok(address) => refuse(
                "is an address, not a range",
                format!("for this one alone write `{}`", IpNet::from(address)),
            ),
            Err(_) => refuse(
                "is not a range of addresses",
                "write it as `10.1.0.0/16` or `fd00::/8`".to_owned(),
            ),
        };
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return refuse(
            "is not a range of addresses",
            "write it as `10.1.0.0/16` or `fd00::/8`".to_owned(),
        );
    };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let is_plain = length.bytes().all(|byte| byte.is_ascii_digit()) && length.len() <= 3;
    let range = length.parse::<u8>().ok().filter(|_| is_plain);
    let Some(range) = range.and_then(|length| IpNet::new(address, length).ok()) else {
        return refuse("has no length", format!("after the `/` write 0 to {bits}"));
    };
    if let Some(inner) = mapped(&range) {
        return refuse("is a range of IPv4 written as IPv6", format!("write it as `{inner}`"));
    }
    if range.network() == address {
        return Ok(range);
    }
    refuse(
        "begins inside its range",
        format!("the range is `{}`, the address alone `{address}/{bits}`", range.trunc()),
    )
}

/// The range of IPv4 that `range` maps into IPv6. Addresses are compared in their IPv4
/// form, so that the range as it is written would never match.
fn mapped(range: &IpNet) -> Option<Ipv4Net> {
    let IpNet::V6(range) = range else { return None };
    let length = range.prefix_len().checked_sub(96)?;
    Ipv4Net::new(range.network().to_ipv4_mapped()?, length).ok()
}

fn refusal(text: &str, title: &str, help: String) -> Refusal {
    Refusal { title: format!("{} {title}", quoted(text)), help }
}

/// Splits `host:port`; an IPv6 address stands in brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    let after = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    match authority[after..].rfind(':') {
        Some(colon) => (&authority[..after + colon], Some(&authority[after + colon + 1..])),
        None => (authority, None),
    }
}

fn read_port(text: &str) -> Option<u16> {
    // A sign would be read as part of the number.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_plain && *port > 0)
}

/// A name as DNS has it: labels of letters, digits and hyphens.
fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= 253 && host.split('.').all(is_label) && !ends_in_number(host)
}

/// Whether URLs take `host` for an address in one of its older forms: `10.0.0`, `0x7f.1`.
fn ends_in_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let digits = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    last.bytes().all(|byte| byte.is_ascii_digit())
        || digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_a_scheme_a_host_and_perhaps_a_port() {
        for good in [
            "https://api.example.com",
            "http://10.0.0.5:8000",
            "https://*.example.com",
            "http://localhost:1",
            "https://[2001:db8::1]:8443",
            "https://xn--bcher-kva.example",
            "https://api_1.0xa.example",
        ] {
            assert!(http(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "api.example.com",
            "ftp://x",
            "https://",
            "https://*",
            "https://a/",
            "https://a:0",
            "https://a:70000",
            "https://u@a",
            "https://a b",
            "https://*.10.0.0.1",
            "https://a..b",
            "https://10.0.0",
            "https://[::1",
            "https://::1",
            "https://-a",
            "https://a:",
            "https://a:+1",
            "https://0x7f.1",
            "https://127.0x1",
            "https://2130706433",
            "https://127.1",
            "https://a.0x",
            "https://0177.0.0.1",
            "https://bücher.example",
            "https://a.*.example",
            "https://*.1.2.3.4",
            "https://a.example.",
            "https://[fe80::1%eth0]",
            "https://%61",
        ] {
            assert!(http(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tcp_needs_a_host_and_a_port() {
        for good in ["dict.org:2628", "127.0.0.1:1", "[::1]:65535", "localhost:80"] {
            assert!(tcp(good).is_ok(), "{good}");
        }
        for bad in
            ["", "dict.org", ":2628", "dict.org:", "dict.org:0", "tcp://a:1", "::1:80", "*:80"]
        {
            assert!(tcp(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_range_begins_at_its_first_address() {
        for good in [
            "127.0.0.0/8",
            "10.1.0.0/16",
            "0.0.0.0/0",
            "10.0.0.1/32",
            "::/0",
            "fd00::/8",
            "::1/128",
        ] {
            assert!(range(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.1.0.0/8",
            "x/8",
            "fd00::1/8",
        ] {
            assert!(range(bad).is_err(), "{bad}");
        }
        let help = |text: &str| range(text).expect_err(text).help;
        assert!(help("10.1.2.3/16").contains("`10.1.0.0/16`"));
        assert!(help("::ffff:10.0.0.0/104").contains("`10.0.0.0/8`"));
    }

    #[test]
    fn a_wildcard_covers_what_is_below_it() {
        let grant = http("https://*.Example.com").expect("a grant");
        let covers = |name: &str| grant.host.covers(&Host::Name(name.to_owned()));
        assert!(covers("a.example.com") && covers("a.b.example.com"));
        assert!(!covers("example.com") && !covers("evilexample.com") && !covers(".example.com"));
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
        let host = |text: &str| tcp(text).expect(text).host;
        assert_eq!(host("[::ffff:127.0.0.1]:1"), host("127.0.0.1:1"));
        assert_eq!(host("[0:0::0001]:1"), host("[::1]:1"));
        assert_eq!(host("Dict.ORG:1"), Host::Name("dict.org".to_owned()));
    }
}
