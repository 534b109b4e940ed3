//! How the things a plugin may reach are written.
//!
//! Each check takes one text and says what is wrong with it and what would be right;
//! the plugin host reads the same texts into what it enforces.

use std::net::IpAddr;

use super::report::quoted;

/// What is wrong with a grant: a sentence and a remedy.
pub(super) type Refusal = (String, String);

/// Checks an origin for HTTP: `https://api.example.com`, `https://*.example.com:8443`.
pub(super) fn http(text: &str) -> Result<(), Refusal> {
    let refuse = |title: &str, help: String| Err((format!("{} {title}", quoted(text)), help));
    let Some((scheme, authority)) = text.split_once("://") else {
        return refuse("is not an origin", format!("write it as `https://{text}`"));
    };
    if scheme != "http" && scheme != "https" {
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
    if port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
        let name = host.strip_prefix("*.").unwrap_or(host);
        if is_host(name) && !(name != host && is_address(name)) {
            return Ok(());
        }
        if host == "*" {
            return refuse(
                "grants the whole network",
                "name the hosts, as `https://*.example.com`".to_owned(),
            );
        }
        return refuse(
            "does not name a host",
            "write it as `https://api.example.com` or `https://*.example.com`".to_owned(),
        );
    }
    refuse("has no port from 1 to 65535", format!("write it as `{scheme}://{host}:8443`"))
}

/// Checks a host and port for TCP: `dict.org:2628`, `[2001:db8::1]:2628`.
pub(super) fn tcp(text: &str) -> Result<(), Refusal> {
    let refuse = |title: &str, help: String| Err((format!("{} {title}", quoted(text)), help));
    if let Some((_, rest)) = text.split_once("://") {
        return refuse("has a scheme: TCP has none", format!("write it as `{rest}`"));
    }
    let (host, port) = split_port(text);
    match port {
        None => refuse("has no port", format!("write it as `{host}:2628`")),
        Some(port) if !port.parse::<u16>().is_ok_and(|port| port > 0) => {
            refuse("has no port from 1 to 65535", format!("write it as `{host}:2628`"))
        }
        Some(_) if is_host(host) => Ok(()),
        Some(port) => {
            refuse("does not name a host", format!("write it as `dict.example.org:{port}`"))
        }
    }
}

/// Checks a range of addresses: `10.1.0.0/16`, `fd00::/8`.
pub(super) fn range(text: &str) -> Result<(), Refusal> {
    let refuse = |title: &str, help: String| Err((format!("{} {title}", quoted(text)), help));
    let Some((address, length)) = text.split_once('/') else {
        return match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => refuse(
                "is an address, not a range",
                format!("for this one alone write `{text}/32`"),
            ),
            Ok(IpAddr::V6(_)) => refuse(
                "is an address, not a range",
                format!("for this one alone write `{text}/128`"),
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
    let Some(length) = length.parse::<u32>().ok().filter(|length| is_plain && *length <= bits)
    else {
        return refuse("has no length", format!("after the `/` write 0 to {bits}"));
    };
    let first = masked(address, length);
    if first == address {
        return Ok(());
    }
    refuse(
        "begins inside its range",
        format!("the range is `{first}/{length}`, the address alone `{address}/{bits}`"),
    )
}

/// The first address of the range of `length` bits around `address`.
fn masked(address: IpAddr, length: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::from(
            (v4.to_bits() & u32::MAX.checked_shl(32 - length).unwrap_or(0)).to_be_bytes(),
        ),
        IpAddr::V6(v6) => IpAddr::from(
            (v6.to_bits() & u128::MAX.checked_shl(128 - length).unwrap_or(0)).to_be_bytes(),
        ),
    }
}

/// Splits `host:port`; an IPv6 address stands in brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    let after = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    match authority[after..].rfind(':') {
        Some(colon) => (&authority[..after + colon], Some(&authority[after + colon + 1..])),
        None => (authority, None),
    }
}

fn is_host(host: &str) -> bool {
    is_address(host) || is_name(host)
}

fn is_address(host: &str) -> bool {
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    host.parse::<std::net::Ipv4Addr>().is_ok()
        || bracketed.is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok())
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
    // A last label of digits alone would be a misspelt address, such as `10.0.0`.
    let ends_in_digits =
        host.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    host.len() <= 253 && host.split('.').all(is_label) && !ends_in_digits
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
        ] {
            assert_eq!(http(good), Ok(()), "{good}");
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
        ] {
            assert!(http(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tcp_needs_a_host_and_a_port() {
        for good in ["dict.org:2628", "127.0.0.1:1", "[::1]:65535", "localhost:80"] {
            assert_eq!(tcp(good), Ok(()), "{good}");
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
            assert_eq!(range(good), Ok(()), "{good}");
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
        assert!(range("10.1.2.3/16").is_err_and(|(_, help)| help.contains("`10.1.0.0/16`")));
    }
}
