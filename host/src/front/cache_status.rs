//! `Cache-Status` (RFC 9211) and `Age`: what the cache did for an answer.

use ::http::HeaderValue;

use crate::value::{Provenance, Served};

/// The age of an answer in whole seconds.
pub(crate) fn age(provenance: &Provenance) -> HeaderValue {
    HeaderValue::from(provenance.age.as_secs())
}

/// What the cache did for an answer that it has.
pub(crate) fn answered(provenance: &Provenance) -> HeaderValue {
    let mut text = Vec::with_capacity(48);
    write(&mut text, provenance);
    // Letters, digits and punctuation: this is always a legal value.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("cachecluster"))
}

/// Writes what [`answered`] says.
pub(crate) fn write(text: &mut Vec<u8>, provenance: &Provenance) {
    text.extend_from_slice(match provenance.served {
        Served::Hit => b"cachecluster; hit; ttl=",
        // How long ago the TTL ended is not known here; that it did is.
        Served::Stale => b"cachecluster; hit; ttl=0; detail=stale",
        Served::Filled { stored: true } => b"cachecluster; fwd=miss; stored",
        Served::Filled { stored: false } => b"cachecluster; fwd=miss",
        Served::Collapsed { stored: true } => b"cachecluster; fwd=miss; collapsed; stored",
        Served::Collapsed { stored: false } => b"cachecluster; fwd=miss; collapsed",
        Served::Peer { stored: true } => b"cachecluster; fwd=miss; stored; detail=peer",
        Served::Peer { stored: false } => b"cachecluster; fwd=miss; detail=peer",
    });
    if provenance.served == Served::Hit {
        decimal(text, provenance.ttl.as_secs());
    }
}

/// What the cache did for a request that it has no answer to.
///
/// A failure that memory still holds was not forwarded to the origin, which is what
/// `hit` means.
pub(crate) fn failed(remembered: bool) -> HeaderValue {
    HeaderValue::from_static(if remembered {
        "cachecluster; hit; detail=failure"
    } else {
        "cachecluster; fwd=miss"
    })
}

/// Writes `number` in decimal digits.
pub(crate) fn decimal(text: &mut Vec<u8>, mut number: u64) {
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        // A digit: below ten.
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend_from_slice(&digits[first..]);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_way_of_an_answer_reads_as_the_standard_says() {
        for (served, expected) in [
            (Served::Hit, "cachecluster; hit; ttl=376"),
            (Served::Stale, "cachecluster; hit; ttl=0; detail=stale"),
            (Served::Filled { stored: true }, "cachecluster; fwd=miss; stored"),
            (Served::Filled { stored: false }, "cachecluster; fwd=miss"),
            (Served::Collapsed { stored: true }, "cachecluster; fwd=miss; collapsed; stored"),
            (Served::Collapsed { stored: false }, "cachecluster; fwd=miss; collapsed"),
            (Served::Peer { stored: true }, "cachecluster; fwd=miss; stored; detail=peer"),
            (Served::Peer { stored: false }, "cachecluster; fwd=miss; detail=peer"),
        ] {
            let ttl = Duration::from_secs(376);
            assert_eq!(answered(&Provenance { served, age: Duration::ZERO, ttl }), expected);
        }
        assert_eq!(failed(true), "cachecluster; hit; detail=failure");
        assert_eq!(failed(false), "cachecluster; fwd=miss");
    }

    #[test]
    fn numbers_are_written_as_people_write_them() {
        for number in [0, 7, 10, 99, 100, 86_400, u64::MAX] {
            let mut text = Vec::new();
            decimal(&mut text, number);
            assert_eq!(text, number.to_string().into_bytes());
        }
    }
}
