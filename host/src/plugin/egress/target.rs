//! What a guest asks for, in the form in which grants compare it.
//!
//! A host can be written in many ways: in any case, with a final dot, as an address in
//! octal or as one number, in other alphabets' digits. The URL parser knows all of
//! them, and whatever comes from a guest goes through it; what is compared with the
//! grants and what is dialled is its result, never the guest's own text.

use reqwest::Url;
use url::Host as UrlHost;

use crate::config::grants::{Host, HttpGrant};

/// The host of `url`, if it has one.
pub(super) fn host(url: &Url) -> Option<Host> {
    Some(match url.host()? {
        // A final dot says that the name is whole, which a granted one always is.
        UrlHost::Domain(name) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            (!name.is_empty()).then(|| Host::Name(name.to_owned()))?
        }
        UrlHost::Ipv4(ip) => Host::ip(ip.into()),
        UrlHost::Ipv6(ip) => Host::ip(ip.into()),
    })
}

/// The host that a guest looks up as `text`: a name, or an address in any form.
pub(super) fn named(text: &str) -> Option<Host> {
    // An address of IPv6 stands without its brackets here, and with them in a URL.
    if let Ok(ip) = text.parse() {
        return Some(Host::ip(ip));
    }
    if text.contains(['/', '@', '?', '#', '\\', ':', '[']) {
        return None;
    }
    host(&Url::parse(&format!("http://{text}/")).ok()?)
}

/// Whether `grant` is for requests to `url`.
pub(super) fn covers(grant: &HttpGrant, url: &Url) -> bool {
    let scheme = if grant.is_https { "https" } else { "http" };
    url.scheme() == scheme
        && url.port_or_known_default() == Some(grant.port)
        && host(url).is_some_and(|host| grant.host.covers(&host))
}

/// Names of metadata services, which are refused whatever they resolve to.
pub(super) fn is_metadata_name(name: &str) -> bool {
    matches!(
        name,
        "metadata"
            | "metadata.google.internal"
            | "metadata.goog"
            | "instance-data"
            | "instance-data.ec2.internal"
    ) || name.ends_with(".metadata.google.internal")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::grants;

    fn covers(grant: &str, url: &str) -> bool {
        super::covers(&grants::http(grant).expect(grant), &Url::parse(url).expect(url))
    }

    #[test]
    fn an_origin_covers_its_own_scheme_host_and_port() {
        assert!(covers("https://api.example.com", "https://API.example.com./v1?q=1"));
        assert!(covers("https://api.example.com", "https://api.example.com:443/"));
        assert!(covers("http://10.0.0.5:8000", "http://10.0.0.5:8000/x"));
        assert!(covers("http://[::1]:80", "http://[::1]/"));
        assert!(covers("https://xn--bcher-kva.example", "https://bücher.example/"));
        for url in [
            "http://api.example.com/",
            "http://api.example.com:443/",
            "https://api.example.com:8443/",
            "https://api.example.com:80/",
            "https://example.com/",
            "https://x.api.example.com/",
            "https://api.example.com.evil.example/",
            "https://api.example.com../",
            "https://api.example.com%2eevil.example/",
            "https://xn--api.example.com/",
        ] {
            let url = Url::parse(url);
            let grant = grants::http("https://api.example.com").expect("a grant");
            assert!(!url.as_ref().is_ok_and(|url| super::covers(&grant, url)), "{url:?}");
        }
    }

    #[test]
    fn an_address_is_compared_as_an_address_however_it_is_written() {
        for url in [
            "http://0x7f.1/",
            "http://2130706433/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://127.0.1/",
            "http://0x7f000001/",
            "http://017700000001/",
            "http://127.0.0.1./",
            "http://[::ffff:127.0.0.1]/",
            "http://[::FFFF:7f00:0001]/",
            "http://[0:0:0:0:0:ffff:127.0.0.1]/",
            "http://１２７.０.０.１/",
            "http://①②⑦.⓪.⓪.①/",
            "http://127。0。0。1/",
            "http://%31%32%37.0.0.1/",
        ] {
            assert!(covers("http://127.0.0.1", url), "{url}");
            assert!(!covers("http://example.com", url), "{url}");
            assert!(!covers("http://*.0.1.example", url), "{url}");
        }
    }

    #[test]
    fn a_looked_up_host_is_read_like_that_of_a_url() {
        let name = |text: &str| named(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(name("Dict.ORG."), Host::Name("dict.org".to_owned()));
        assert_eq!(name("0x7f.1"), name("127.0.0.1"));
        assert_eq!(name("::ffff:127.0.0.1"), name("2130706433"));
        for text in
            ["", ".", "a/b", "a@b", "u:p@a", "a:80", "a?b", "a#b", "a\\b", "[::1]", "::1%lo"]
        {
            assert_eq!(named(text), None, "{text}");
        }
    }
}
