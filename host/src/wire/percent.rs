//! Percent-encoding of bytes, in both directions (RFC 3986, section 2.1).

use std::borrow::Cow;

use thiserror::Error;

/// A percent sign without two hexadecimal digits behind it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a percent sign is not followed by two hexadecimal digits: write it as %25")]
pub struct BadPercent;

/// The bytes that `text` stands for, percent-decoded once.
///
/// # Errors
/// A percent sign that encodes nothing.
pub fn decode(text: &[u8]) -> Result<Cow<'_, [u8]>, BadPercent> {
    if !text.contains(&b'%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter().copied();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => (hex(rest.next())? << 4) | hex(rest.next())?,
            byte => byte,
        });
    }
    Ok(Cow::Owned(bytes))
}

fn hex(digit: Option<u8>) -> Result<u8, BadPercent> {
    match digit {
        Some(digit @ b'0'..=b'9') => Ok(digit - b'0'),
        Some(digit @ b'a'..=b'f') => Ok(digit - b'a' + 10),
        Some(digit @ b'A'..=b'F') => Ok(digit - b'A' + 10),
        _ => Err(BadPercent),
    }
}

/// Appends `bytes` as a segment of a path: all but letters, digits and `-._~` is encoded.
///
/// Every Go peer decodes this to what it was, also those of golang/groupcache, which
/// themselves write a space as `+`.
pub(super) fn encode(bytes: &[u8], text: &mut String) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let digit = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble)]);
            text.extend(['%', digit(byte >> 4), digit(byte & 0xf)]);
        }
    }
}
