//! From the target of a request to a group and a key.
//!
//! A key is everything that stands behind `/{group}/`, percent-decoded once. Nothing
//! is normalised: `a//b`, `../x`, `/lead` (as `/g//lead`), `a+b` and the empty key are
//! themselves. A `?` that is not written `%3F` begins a query, which no key has, so it
//! is refused rather than cut off: a caller that forgot to encode it would otherwise
//! get the value of another key.

use std::borrow::Cow;

use ::http::Uri;
use thiserror::Error;

use crate::wire::{self, BadPercent};

/// A group and a key, as a request names them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    /// Name of the group; perhaps of none that exists.
    pub(crate) group: Cow<'a, str>,
    /// The key's exact bytes.
    pub(crate) key: Cow<'a, [u8]>,
}

/// Why a target names no key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum TargetError {
    /// There is no second slash, so there is no key, not even an empty one.
    #[error("the path has the form /{{group}}/{{key}}; the empty key is /{{group}}/")]
    NoKey,
    /// A query follows the path.
    #[error("a key has no query: write a question mark in a key as %3F")]
    Query,
    /// A fragment follows the path.
    #[error("a key has no fragment: write a number sign in a key as %23")]
    Fragment,
    /// It is not percent-encoded.
    #[error(transparent)]
    Percent(#[from] BadPercent),
}

/// The group and key that `uri` names.
pub(crate) fn parse(uri: &Uri) -> Result<Target<'_>, TargetError> {
    if uri.query().is_some() {
        return Err(TargetError::Query);
    }
    parse_path(uri.path())
}

/// The group and key that `path` names, which holds neither query nor fragment.
pub(crate) fn parse_path(path: &str) -> Result<Target<'_>, TargetError> {
    let (group, key) =
        path.strip_prefix('/').and_then(|path| path.split_once('/')).ok_or(TargetError::NoKey)?;
    Ok(Target { group: name(group)?, key: decode(key)? })
}

/// The name of a group as a part of a path gives it.
///
/// One that is not UTF-8 keeps a replacement character, which no name has, so that it
/// is reported as the name of no group.
pub(crate) fn name(text: &str) -> Result<Cow<'_, str>, TargetError> {
    Ok(match decode(text)? {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        Cow::Owned(bytes) => Cow::Owned(match String::from_utf8(bytes) {
            Ok(name) => name,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        }),
    })
}

/// The bytes that `text` stands for, percent-decoded once.
pub(crate) fn decode(text: &str) -> Result<Cow<'_, [u8]>, TargetError> {
    Ok(wire::decode(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    fn key(target: &str) -> Result<Vec<u8>, TargetError> {
        let uri: Uri = target.parse().expect("a target that hyper lets through");
        parse(&uri).map(|target| {
            assert_eq!(target.group, "g");
            target.key.into_owned()
        })
    }

    /// Every byte percent-encoded, so that any key can be asked for.
    fn encoded(key: &[u8]) -> String {
        key.iter().fold(String::from("/g/"), |mut text, byte| {
            write!(text, "%{byte:02x}").expect("a string takes everything");
            text
        })
    }

    #[test]
    fn odd_keys_come_back_exact() {
        for (target, expected) in [
            ("/g/a//b", "a//b"),
            ("/g/../x", "../x"),
            ("/g/./x/..", "./x/.."),
            ("/g//lead", "/lead"),
            ("/g/a%20b", "a b"),
            ("/g/a+b", "a+b"),
            ("/g/%2F", "/"),
            ("/g/%252F", "%2F"),
            ("/g/%3F", "?"),
            ("/g/%23", "#"),
            ("/g/", ""),
            ("/g/tail/", "tail/"),
            ("/g/%C3%A9", "é"),
            ("http://cache.example:8080/g/k", "k"),
        ] {
            assert_eq!(key(target), Ok(expected.as_bytes().to_vec()), "{target}");
        }
        assert_eq!(key("/g/%ff%00"), Ok(vec![0xff, 0]));
    }

    #[test]
    fn what_is_no_key_is_refused_with_the_reason() {
        for (target, expected) in [
            ("/", TargetError::NoKey),
            ("/g", TargetError::NoKey),
            ("*", TargetError::NoKey),
            ("http://cache.example", TargetError::NoKey),
            ("/g/k?", TargetError::Query),
            ("/g/k?a=b", TargetError::Query),
            ("/g/%", TargetError::Percent(BadPercent)),
            ("/g/%4", TargetError::Percent(BadPercent)),
            ("/g/%zz", TargetError::Percent(BadPercent)),
            ("/g/%+1", TargetError::Percent(BadPercent)),
        ] {
            assert_eq!(key(target), Err(expected), "{target}");
        }
    }

    #[test]
    fn a_group_that_is_not_text_is_the_name_of_none() {
        let uri = Uri::from_static("/%ff/k");
        assert_eq!(parse(&uri).map(|target| target.group), Ok("\u{fffd}".into()));
        let uri = Uri::from_static("/%67/k");
        assert_eq!(parse(&uri).map(|target| target.group), Ok("g".into()));
    }

    proptest! {
        #[test]
        fn every_key_can_be_asked_for_and_comes_back_exact(bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(key(&encoded(&bytes)), Ok(bytes));
        }

        #[test]
        fn no_two_keys_share_a_plain_spelling(one in "[!-~]{0,12}", other in "[!-~]{0,12}") {
            let read = |text: &str| decode(text).map(Cow::into_owned);
            if !one.contains('%') && !other.contains('%') {
                prop_assert_eq!(read(&one) == read(&other), one == other);
            }
        }

        #[test]
        fn no_target_panics(target in "[ -~]{0,40}") {
            if let Ok(uri) = target.parse::<Uri>() {
                let _ = parse(&uri);
            }
        }
    }
}
