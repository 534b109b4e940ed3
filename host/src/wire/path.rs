//! From the path of a peer's request to a group and a key, and back.
//!
//! The path is split at the first slash after the group as it stands, and each part is
//! decoded once. Nothing is normalised: the keys `a//b`, `../x`, `/lead` and the empty one
//! are themselves, which Go's own peers behind a path-cleaning mux do not manage.

use std::borrow::Cow;

use thiserror::Error;

use super::percent::{self, BadPercent};

/// Where peers of the family serve.
pub const BASE_PATH: &str = "/_groupcache/";

/// A group and a key, as a peer names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerPath<'a> {
    /// The group's name: bytes that need not be text.
    pub group: Cow<'a, [u8]>,
    /// The key's exact bytes.
    pub key: Cow<'a, [u8]>,
}

/// A path that names no key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NoKey {
    /// It begins with something else than the base path.
    #[error("peers are served below /_groupcache/")]
    Elsewhere,
    /// No slash follows the group.
    #[error("the path has the form /_groupcache/{{group}}/{{key}}")]
    NoSlash,
    /// It is not percent-encoded.
    #[error(transparent)]
    Percent(#[from] BadPercent),
}

impl<'a> PeerPath<'a> {
    /// What `path` names. Clients of golang/groupcache write a space as `+` and a plus as
    /// `%2B`, and their own servers take the `+` for itself; with `plus_is_space` it is
    /// read as it was meant. Other clients write a bare `+` for itself.
    ///
    /// # Errors
    /// It names no key.
    pub fn parse(path: &'a str, plus_is_space: bool) -> Result<Self, NoKey> {
        let rest = path.strip_prefix(BASE_PATH).ok_or(NoKey::Elsewhere)?;
        let (group, key) = rest.split_once('/').ok_or(NoKey::NoSlash)?;
        let part = |text: &'a str| -> Result<Cow<'a, [u8]>, BadPercent> {
            if plus_is_space && text.contains('+') {
                let text = text.replace('+', "%20");
                return percent::decode(text.as_bytes()).map(|it| Cow::Owned(it.into_owned()));
            }
            percent::decode(text.as_bytes())
        };
        Ok(Self { group: part(group)?, key: part(key)? })
    }

    /// The path that names `key` in `group`, as every peer of the family reads it.
    pub fn write(group: &str, key: &[u8]) -> String {
        // Most keys need no encoding; those that do grow.
        let mut path = String::with_capacity(BASE_PATH.len() + group.len() + 1 + key.len() + 16);
        path.push_str(BASE_PATH);
        percent::encode(group.as_bytes(), &mut path);
        path.push('/');
        percent::encode(key, &mut path);
        path
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(path: &str, plus_is_space: bool) -> Result<Vec<u8>, NoKey> {
        PeerPath::parse(path, plus_is_space).map(|path| {
            assert_eq!(*path.group, *b"g");
            path.key.into_owned()
        })
    }

    #[test]
    fn odd_keys_come_back_exact() {
        for (path, expected) in [
            ("/_groupcache/g/a//b", "a//b"),
            ("/_groupcache/g/../x", "../x"),
            ("/_groupcache/g//lead", "/lead"),
            ("/_groupcache/g/%2Flead", "/lead"),
            ("/_groupcache/g/%252F", "%2F"),
            ("/_groupcache/g/a%20b", "a b"),
            ("/_groupcache/g/", ""),
            ("/_groupcache/g/_remove-keys/", "_remove-keys/"),
        ] {
            for plus_is_space in [false, true] {
                assert_eq!(key(path, plus_is_space), Ok(expected.into()), "{path}");
            }
        }
    }

    #[test]
    fn a_plus_is_read_as_the_clients_of_the_fleet_mean_it() {
        let (bare, encoded) = ("/_groupcache/g/a+b", "/_groupcache/g/a%2Bb");
        assert_eq!(key(bare, false), Ok(b"a+b".to_vec()));
        assert_eq!(key(bare, true), Ok(b"a b".to_vec()));
        for plus_is_space in [false, true] {
            assert_eq!(key(encoded, plus_is_space), Ok(b"a+b".to_vec()));
        }
    }

    #[test]
    fn what_names_no_key_says_why() {
        for (path, why) in [
            ("/", NoKey::Elsewhere),
            ("/_groupcache", NoKey::Elsewhere),
            ("/_groupcache/", NoKey::NoSlash),
            ("/_groupcache/g", NoKey::NoSlash),
            ("/_groupcache/g/%", NoKey::Percent(BadPercent)),
            ("/_groupcache/%zz/k", NoKey::Percent(BadPercent)),
        ] {
            assert_eq!(PeerPath::parse(path, false), Err(why), "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(group in "[^/]{0,8}", key in any::<Vec<u8>>()) {
            let path = PeerPath::write(&group, &key);
            prop_assert!(path.bytes().all(|byte| byte.is_ascii_graphic()), "{}", path);
            for plus_is_space in [false, true] {
                let read = PeerPath::parse(&path, plus_is_space).expect("a path of ours");
                prop_assert_eq!((&*read.group, &*read.key), (group.as_bytes(), &*key));
            }
        }

        #[test]
        fn no_path_panics(path in "/_groupcache/[ -~]{0,40}", plus in any::<bool>()) {
            let _ = PeerPath::parse(&path, plus);
        }
    }
}
