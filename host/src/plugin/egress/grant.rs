//! Grants as they are written in the settings.

use std::net::IpAddr;

use reqwest::Url;

/// One entry of `network.http`: `https://api.example.com`, `https://*.example.com` or
/// `http://10.0.0.5:8000`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HttpGrant {
    is_https: bool,
    host: HostPattern,
    port: u16,
}

#[derive(Debug, PartialEq, Eq)]
enum HostPattern {
    Exactly(String),
    /// A suffix that begins with a dot: any name below, not the name itself.
    Below(String),
}

impl HttpGrant {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let problem = |what: &str| {
            format!("`{text}` in network.http {what}; write it like `https://api.example.com`")
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| problem("has no scheme"))?;
        let is_https = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(problem("is neither http nor https")),
        };
        let (is_suffix, rest) = match rest.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        if rest.contains(['*', '@']) {
            return Err(problem("has `*` or `@` where only a host can stand"));
        }
        let url = Url::parse(&format!("{scheme}://{rest}"))
            .map_err(|error| problem(&format!("is not an origin ({error})")))?;
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(problem("has more than a host and a port: paths cannot be granted"));
        }
        let host = url.host_str().map(plain_host).unwrap_or_default();
        if host.is_empty() {
            return Err(problem("has no host"));
        }
        if is_suffix && host.parse::<IpAddr>().is_ok() {
            return Err(problem("has a wildcard before an address"));
        }
        let port = url.port_or_known_default().unwrap_or(if is_https { 443 } else { 80 });
        let host = if is_suffix {
            HostPattern::Below(format!(".{host}"))
        } else {
            HostPattern::Exactly(host)
        };
        Ok(Self { is_https, host, port })
    }

    /// Whether this grants a request to `url`.
    pub(super) fn covers(&self, url: &Url) -> bool {
        let Some(host) = url.host_str().map(plain_host) else { return false };
        let host_matches = match &self.host {
            HostPattern::Exactly(granted) => host == *granted,
            HostPattern::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        };
        let scheme = if self.is_https { "https" } else { "http" };
        host_matches && url.scheme() == scheme && url.port_or_known_default() == Some(self.port)
    }
}

/// One entry of `network.tcp`: `dict.org:2628`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TcpGrant {
    host: String,
    ip: Option<IpAddr>,
    port: u16,
}

impl TcpGrant {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let problem = || {
            format!(
                "`{text}` in network.tcp is not a host and a port; write it like `dict.org:2628`"
            )
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(problem)?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(problem)?;
        if host.contains(['*', '@', '/']) {
            return Err(problem());
        }
        let host = normal_host(host).ok_or_else(problem)?;
        let ip = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        Ok(Self { host, ip, port })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn is_literal(&self, ip: IpAddr, port: u16) -> bool {
        self.ip == Some(ip) && self.port == port
    }

    pub(super) fn is_host(&self, host: &str) -> bool {
        self.host == host
    }
}

/// `host` in the one form in which hosts are compared: lower case, without a final
/// dot, names in ASCII, addresses in their usual notation, IPv6 without brackets.
pub(super) fn normal_host(host: &str) -> Option<String> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Some(ip.to_string());
    }
    if host.contains(['/', '@', '?', '#', '\\']) {
        return None;
    }
    let url = Url::parse(&format!("http://{host}/")).ok()?;
    if url.port().is_some() {
        return None;
    }
    url.host_str().map(plain_host).filter(|host| !host.is_empty())
}

/// A URL's host without brackets or a final dot.
pub(super) fn plain_host(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_owned()
}

/// Names of metadata services, which are refused whatever they resolve to.
pub(super) fn is_metadata_name(host: &str) -> bool {
    matches!(host, "metadata" | "metadata.google.internal" | "metadata.goog" | "instance-data")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(grant: &str, url: &str) -> bool {
        HttpGrant::parse(grant).expect(grant).covers(&Url::parse(url).expect(url))
    }

    #[test]
    fn an_origin_covers_its_own_scheme_host_and_port() {
        assert!(covers("https://api.example.com", "https://API.example.com./v1?q=1"));
        assert!(covers("https://api.example.com", "https://api.example.com:443/"));
        assert!(covers("http://10.0.0.5:8000/", "http://10.0.0.5:8000/x"));
        assert!(covers("http://[::1]:80", "http://[::1]/"));
        assert!(covers("https://bücher.example", "https://xn--bcher-kva.example/"));
        for url in [
            "http://api.example.com/",
            "https://api.example.com:8443/",
            "https://example.com/",
            "https://x.api.example.com/",
            "https://api.example.com.evil.example/",
        ] {
            assert!(!covers("https://api.example.com", url), "{url}");
        }
    }

    #[test]
    fn a_wildcard_covers_what_is_below_it() {
        assert!(covers("https://*.example.com", "https://a.b.example.com/"));
        assert!(!covers("https://*.example.com", "https://example.com/"));
        assert!(!covers("https://*.example.com", "https://evilexample.com/"));
    }

    #[test]
    fn disguised_addresses_are_compared_as_addresses() {
        for url in ["http://0x7f.1/", "http://2130706433/", "http://0177.0.0.1/"] {
            assert!(covers("http://127.0.0.1", url), "{url}");
            assert!(!covers("http://example.com", url), "{url}");
        }
    }

    #[test]
    fn what_is_not_an_origin_is_refused() {
        for text in [
            "api.example.com",
            "ftp://example.com",
            "https://",
            "https://*",
            "https://a.*.example.com",
            "https://user@example.com",
            "https://example.com/path",
            "https://example.com?q",
            "https://*.1.2.3.4",
        ] {
            assert!(HttpGrant::parse(text).is_err(), "{text}");
        }
        for text in ["dict.org", "dict.org:0", "dict.org:x", "*.org:1", ":1", "a/b:1", "[::1:2"] {
            assert!(TcpGrant::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tcp_grants_know_names_from_addresses() {
        let name = TcpGrant::parse("Dict.ORG.:2628").expect("a name");
        assert!(name.is_host("dict.org") && name.port() == 2628);
        let address = TcpGrant::parse("[::1]:7").expect("an address");
        assert!(address.is_literal("::1".parse().expect("an address"), 7));
    }
}
