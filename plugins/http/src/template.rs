//! From a key to a URL.

use std::fmt::Write as _;

/// How a key is written into a URL.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Encoding {
    /// `{key}`: all of it within one path segment.
    Segment,
    /// `{key:path}`: its slashes are the URL's.
    Path,
}

/// A URL with at least one place for the key, somewhere behind the host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Template {
    /// What comes before the first place: at least the scheme, the host and
    /// the slash behind it.
    beginning: String,
    /// Each place, and what comes after it.
    places: Vec<(Encoding, String)>,
}

impl Template {
    /// Reads a template. The error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (beginning, mut rest) = match text.find('{') {
            Some(place) => text.split_at(place),
            None => return Err("there is no `{key}` in it".into()),
        };
        check_beginning(beginning)?;
        let mut places = Vec::new();
        while let Some(place) = rest.strip_prefix('{') {
            let (name, after) = place.split_once('}').ok_or("a `{` is not closed")?;
            let encoding = match name {
                "key" => Encoding::Segment,
                "key:path" => Encoding::Path,
                _ => return Err(format!("`{{{name}}}` is neither `{{key}}` nor `{{key:path}}`")),
            };
            let (literal, after) = after.split_at(after.find('{').unwrap_or(after.len()));
            places.push((encoding, literal.to_owned()));
            rest = after;
        }
        let literals = places.iter().map(|(_, literal)| literal.as_str());
        for literal in std::iter::once(beginning).chain(literals) {
            check_literal(literal)?;
        }
        Ok(Self { beginning: beginning.to_owned(), places })
    }

    /// The URL of `key`. The error says why the key can have none.
    pub(crate) fn expand(&self, key: &str) -> Result<String, String> {
        let mut url = self.beginning.clone();
        for (encoding, literal) in &self.places {
            encode(key, *encoding, &mut url);
            url.push_str(literal);
        }
        let path = url.split('?').next().unwrap_or_default();
        // The first three are the scheme, nothing, and the host.
        if path.split('/').skip(3).any(|segment| segment == "." || segment == "..") {
            return Err("the key makes a path segment `.` or `..`".into());
        }
        Ok(url)
    }
}

/// A key must not choose the host: that would undo the operator's grant.
fn check_beginning(beginning: &str) -> Result<(), String> {
    let rest = beginning
        .strip_prefix("http://")
        .or_else(|| beginning.strip_prefix("https://"))
        .ok_or("expected `http://` or `https://`")?;
    match rest.split_once('/') {
        None => Err("the key belongs behind the host and a `/`".into()),
        Some((host, _)) if host.is_empty() || host.contains(['@', '?']) => {
            Err("expected a host, with or without a port, after `://`".into())
        }
        Some(_) => Ok(()),
    }
}

fn check_literal(literal: &str) -> Result<(), String> {
    let is_odd = |c: char| !c.is_ascii_graphic() || "}\"<>\\^`|".contains(c);
    if literal.contains('#') {
        Err("a fragment is never sent".into())
    } else if let Some(odd) = literal.chars().find(|&c| is_odd(c)) {
        Err(format!("{odd:?} must be percent-encoded"))
    } else {
        Ok(())
    }
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn encode(key: &str, encoding: Encoding, url: &mut String) {
    for &byte in key.as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                url.push(char::from(byte));
            }
            b'/' if encoding == Encoding::Path => url.push('/'),
            // Writing to a string does not fail.
            _ => _ = write!(url, "%{byte:02X}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(template: &str, key: &str) -> Result<String, String> {
        Template::parse(template).unwrap().expand(key)
    }

    #[test]
    fn distinct_keys_have_distinct_urls() {
        for (key, segment, path) in [
            ("", "", ""),
            ("a", "a", "a"),
            ("a//b", "a%2F%2Fb", "a//b"),
            ("/lead", "%2Flead", "/lead"),
            ("a b", "a%20b", "a%20b"),
            ("a+b", "a%2Bb", "a%2Bb"),
            ("%2F", "%252F", "%252F"),
            ("a?b=c#d&e", "a%3Fb%3Dc%23d%26e", "a%3Fb%3Dc%23d%26e"),
            ("é", "%C3%A9", "%C3%A9"),
            ("\r\n\0", "%0D%0A%00", "%0D%0A%00"),
            ("...", "...", "..."),
        ] {
            assert_eq!(expand("http://o/i/{key}", key), Ok(format!("http://o/i/{segment}")));
            assert_eq!(expand("http://o/i/{key:path}", key), Ok(format!("http://o/i/{path}")));
        }
    }

    #[test]
    fn a_key_never_leaves_its_folder() {
        for key in [".", ".."] {
            assert!(expand("https://o/{key}", key).is_err(), "{key}");
            assert!(expand("https://o/{key}/x", key).is_err(), "{key}");
            assert_eq!(expand("https://o/v{key}", key), Ok(format!("https://o/v{key}")));
            assert_eq!(expand("https://o/?q={key}", key), Ok(format!("https://o/?q={key}")));
        }
        for key in ["../x", "a/../b", "a/.", "./a", "a/.."] {
            assert!(expand("https://o/{key:path}", key).is_err(), "{key}");
            assert!(expand("https://o/{key}", key).is_ok(), "{key}");
        }
    }

    #[test]
    fn a_key_may_stand_in_several_places() {
        assert_eq!(
            expand("https://o:8443/a/{key}/b?c={key}&d=1", "x/y"),
            Ok("https://o:8443/a/x%2Fy/b?c=x%2Fy&d=1".into())
        );
    }

    #[test]
    fn a_template_that_makes_no_sense_is_refused() {
        for template in [
            "",
            "{key}",
            "https://o/",
            "https://{key}",
            "https://{key}/a",
            "https://o{key}",
            "https://o:{key}/",
            "https:///{key}",
            "https://u:p@o/{key}",
            "https://o?a/{key}",
            "ftp://o/{key}",
            "https://o/{ket}",
            "https://o/{key",
            "https://o/{key}}",
            "https://o/{key}#a",
            "https://o/a b/{key}",
            "https://o/é/{key}",
            "https://o/{key}\r\n",
        ] {
            assert!(Template::parse(template).is_err(), "{template:?}");
        }
    }
}
