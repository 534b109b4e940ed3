//! `Cache-Status` (RFC 9211) and `Age`: what the cache did for an answer.
//!
//! Both say a whole number of seconds, and a node answers most of its hits with few
//! different ones. The finished texts are therefore kept by number, in a small table
//! of each thread: a hit takes a copy, which is one increment, and formats nothing.

use std::{cell::RefCell, fmt::Write as _, time::Duration};

use ::http::HeaderValue;

use crate::value::{Provenance, Served};

/// Texts kept by a table: four minutes of ages, or of remaining freshness, without
/// a collision. 48 bytes each, for each serving thread.
const SLOTS: usize = 256;

thread_local! {
    static AGES: RefCell<Numbered> = RefCell::new(Numbered::new(""));
    static HITS: RefCell<Numbered> = RefCell::new(Numbered::new("cachecluster; hit; ttl="));
}

/// The age of an answer in whole seconds.
pub(crate) fn age(provenance: &Provenance) -> HeaderValue {
    AGES.with_borrow_mut(|ages| ages.text(provenance.age))
}

/// What the cache did for an answer that it has.
pub(crate) fn answered(provenance: &Provenance) -> HeaderValue {
    match provenance.served {
        Served::Hit => HITS.with_borrow_mut(|hits| hits.text(provenance.ttl)),
        Served::Stale => HeaderValue::from_static("cachecluster; hit; ttl=0; detail=stale"),
        Served::Filled { stored: true } => {
            HeaderValue::from_static("cachecluster; fwd=miss; stored")
        }
        Served::Filled { stored: false } => HeaderValue::from_static("cachecluster; fwd=miss"),
        Served::Collapsed { stored: true } => {
            HeaderValue::from_static("cachecluster; fwd=miss; collapsed; stored")
        }
        Served::Collapsed { stored: false } => {
            HeaderValue::from_static("cachecluster; fwd=miss; collapsed")
        }
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

/// Texts that end in a number, by that number.
struct Numbered {
    prefix: &'static str,
    slots: Vec<Option<(u64, HeaderValue)>>,
}

impl Numbered {
    fn new(prefix: &'static str) -> Self {
        Self { prefix, slots: vec![None; SLOTS] }
    }

    fn text(&mut self, number: Duration) -> HeaderValue {
        let number = number.as_secs();
        let slot = &mut self.slots[(number % SLOTS as u64) as usize];
        if let Some((kept, text)) = slot
            && *kept == number
        {
            return text.clone();
        }
        let mut text = String::with_capacity(self.prefix.len() + 20);
        // Writing to a string does not fail.
        let _ = write!(text, "{}{number}", self.prefix);
        let text = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("cachecluster"));
        *slot = Some((number, text.clone()));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provenance(served: Served, age: u64, ttl: u64) -> Provenance {
        Provenance { served, age: Duration::from_secs(age), ttl: Duration::from_secs(ttl) }
    }

    #[test]
    fn each_way_of_an_answer_reads_as_the_standard_says() {
        for (served, expected) in [
            (Served::Hit, "cachecluster; hit; ttl=376"),
            (Served::Stale, "cachecluster; hit; ttl=0; detail=stale"),
            (Served::Filled { stored: true }, "cachecluster; fwd=miss; stored"),
            (Served::Filled { stored: false }, "cachecluster; fwd=miss"),
            (Served::Collapsed { stored: true }, "cachecluster; fwd=miss; collapsed; stored"),
            (Served::Collapsed { stored: false }, "cachecluster; fwd=miss; collapsed"),
        ] {
            assert_eq!(answered(&provenance(served, 0, 376)), expected);
        }
        assert_eq!(failed(true), "cachecluster; hit; detail=failure");
        assert_eq!(failed(false), "cachecluster; fwd=miss");
    }

    #[test]
    fn numbers_that_share_a_slot_keep_their_own_text() {
        for number in [0, 256, 0, 512, u64::MAX, 256] {
            let provenance = provenance(Served::Hit, number, number);
            assert_eq!(age(&provenance), number.to_string());
            assert_eq!(answered(&provenance), format!("cachecluster; hit; ttl={number}"));
        }
    }
}
