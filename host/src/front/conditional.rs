//! Entity tags: what a value is called, and whether the client already has it.
//!
//! The tag is the digest of the body, so that it is the same on every node and
//! survives a refill that brought the same bytes. It is strong: equal tags mean equal
//! bytes.

use ::http::{HeaderMap, HeaderValue, header::IF_NONE_MATCH};
use bytes::Bytes;

/// Sixteen hexadecimal digits between quotes.
const TAG_LENGTH: usize = 18;

/// The tag of a body with this digest.
pub(crate) fn etag(digest: u64) -> Option<HeaderValue> {
    // Only digits and quotes: this is always a legal value.
    HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&tag(digest))).ok()
}

/// The text of [`etag`].
pub(crate) fn tag(digest: u64) -> [u8; TAG_LENGTH] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut tag = [b'"'; TAG_LENGTH];
    for (digits, byte) in tag[1..=16].chunks_exact_mut(2).zip(digest.to_be_bytes()) {
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 0xf)];
    }
    tag
}

/// Whether the client says, in `If-None-Match`, that it has the body of this digest.
///
/// The comparison is the weak one that RFC 9110 §13.1.2 asks for. What is not a list of
/// tags matches nothing: the client then gets the value, which is never wrong.
pub(crate) fn has(headers: &HeaderMap, digest: u64) -> bool {
    let mut values = headers.get_all(IF_NONE_MATCH).iter().peekable();
    if values.peek().is_none() {
        return false;
    }
    let tag = tag(digest);
    values.any(|value| names(value.as_bytes(), &tag))
}

/// Whether `list` is `*` or holds `wanted`, quotes included.
fn names(list: &[u8], wanted: &[u8]) -> bool {
    let mut rest = list.trim_ascii();
    if rest == b"*" {
        return true;
    }
    loop {
        while let Some((b',' | b' ' | b'\t', after)) = rest.split_first() {
            rest = after;
        }
        rest = rest.strip_prefix(b"W/").unwrap_or(rest);
        // A tag may hold a comma, so the end is its closing quote.
        let Some(inner) = rest.strip_prefix(b"\"") else { return false };
        let Some(end) = inner.iter().position(|&byte| byte == b'"') else { return false };
        if rest[..end + 2] == *wanted {
            return true;
        }
        rest = &inner[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (IF_NONE_MATCH, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_tag_is_the_digest_in_quotes() {
        let value = etag(0x0123_4567_89ab_cdef).expect("digits are a legal value");
        assert_eq!(value, r#""0123456789abcdef""#);
        assert_eq!(etag(0).expect("digits are a legal value"), r#""0000000000000000""#);
    }

    #[test]
    fn lists_weak_tags_and_the_star_match() {
        let digest = 0xa;
        for values in [
            &[r#""000000000000000a""#][..],
            &[r#"W/"000000000000000a""#],
            &[r#""x", "000000000000000a""#],
            &[r#""comma,inside" ,, W/"y","000000000000000a""#],
            &[r#""x""#, r#""000000000000000a""#],
            &["*"],
            &[" * "],
        ] {
            assert!(has(&asked(values), digest), "{values:?}");
        }
    }

    #[test]
    fn other_tags_and_nonsense_match_nothing() {
        for values in [
            &[][..],
            &[""],
            &[r#""000000000000000b""#],
            &["000000000000000a"],
            &[r#""000000000000000a"#],
            &[r#"w/"000000000000000a""#],
            &[r#""x" * "#],
        ] {
            assert!(!has(&asked(values), 0xa), "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn no_list_panics(list in any::<Vec<u8>>()) {
            let _ = names(&list, &tag(7));
        }
    }
}
