//! From a guest's answer to the cache's: checked, because a guest is not trusted.
//!
//! What breaks a bound is the plugin's fault and fails its fill; it is not cut to fit,
//! since half an answer served as a whole one is worse than none.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use http::HeaderValue;

use super::bindings::types;
use crate::{
    group::{FillError, Outcome},
    value::{Freshness, Head, Value},
};

/// Tags of one value: more are a list, which belongs into the value.
const TAGS_MAX: usize = 32;
/// Bytes of one tag.
const TAG_BYTES_MAX: usize = 128;
/// Pairs of metadata of one value.
const METADATA_MAX: usize = 32;
/// Bytes of all metadata of one value.
const METADATA_BYTES_MAX: usize = 8 << 10;
/// Bytes of a validator; it is kept with the value and sent back as one header.
const VALIDATOR_MAX: usize = 1 << 10;
/// Bytes of a media type with its parameters.
const CONTENT_TYPE_MAX: usize = 256;

/// Turns the answers of one plugin into values.
pub(super) struct Answers {
    value_max: u64,
    /// The head of the last value that had a media type and nothing else. Most values
    /// of a plugin have the same, and share it.
    plain: ArcSwapOption<Head>,
}

impl Answers {
    /// Values have up to `value_max` bytes, their labels included.
    pub(super) fn new(value_max: u64) -> Self {
        Self { value_max, plain: ArcSwapOption::empty() }
    }

    /// The guest's `outcome`, or how it breaks the bounds. `conditional`: the guest was
    /// given a validator, so that it may say that nothing changed.
    pub(super) fn outcome(
        &self,
        outcome: types::Outcome,
        conditional: bool,
    ) -> Result<Outcome, String> {
        match outcome {
            types::Outcome::Found(entry) => self.found(&entry),
            types::Outcome::NotFound(freshness) => Ok(Outcome::NotFound(fresh(&freshness))),
            types::Outcome::NotModified(freshness) if conditional => {
                Ok(Outcome::NotModified(fresh(&freshness)))
            }
            types::Outcome::NotModified(_) => Err("it answered `not-modified` to a call without \
                 a validator, so that there is nothing to keep"
                .to_owned()),
        }
    }

    fn found(&self, entry: &types::Entry) -> Result<Outcome, String> {
        let size = check(entry)?.saturating_add(entry.value.len() as u64);
        if size > self.value_max {
            return Err(format!(
                "its answer has {size} bytes, more than limits.value allows ({})",
                self.value_max
            ));
        }
        let freshness = fresh(&entry.freshness);
        let value = match self.head(entry)? {
            Some(head) => Value::with_head(&entry.value, head),
            None => Value::new(&entry.value),
        };
        Ok(Outcome::Found(value, freshness))
    }

    fn head(&self, entry: &types::Entry) -> Result<Option<Arc<Head>>, String> {
        let boxed = |text: &String| text.as_str().into();
        let head = Head {
            content_type: entry.content_type.as_deref().map(content_type).transpose()?,
            validator: entry.validator.as_ref().map(boxed),
            tags: entry.tags.iter().map(boxed).collect(),
            metadata: entry.metadata.iter().map(|(n, v)| (boxed(n), boxed(v))).collect(),
        };
        if head == Head::default() {
            return Ok(None);
        }
        if !head.is_plain() {
            return Ok(Some(Arc::new(head)));
        }
        if let Some(shared) = self.plain.load().as_ref()
            && **shared == head
        {
            return Ok(Some(Arc::clone(shared)));
        }
        let head = Arc::new(head);
        self.plain.store(Some(Arc::clone(&head)));
        Ok(Some(head))
    }
}

/// The bytes of everything beside the value.
fn check(entry: &types::Entry) -> Result<u64, String> {
    if entry.tags.len() > TAGS_MAX {
        return Err(format!("its answer has {} tags; {TAGS_MAX} are the most", entry.tags.len()));
    }
    if let Some(tag) = entry.tags.iter().find(|tag| tag.len() > TAG_BYTES_MAX) {
        return Err(format!("a tag has {} bytes; {TAG_BYTES_MAX} are the most", tag.len()));
    }
    if entry.metadata.len() > METADATA_MAX {
        return Err(format!(
            "its answer has {} pairs of metadata; {METADATA_MAX} are the most",
            entry.metadata.len()
        ));
    }
    let metadata: usize = entry.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if metadata > METADATA_BYTES_MAX {
        return Err(format!(
            "its answer has {metadata} bytes of metadata; {METADATA_BYTES_MAX} are the most"
        ));
    }
    let validator = entry.validator.as_ref().map_or(0, String::len);
    if validator > VALIDATOR_MAX {
        return Err(format!("its validator has {validator} bytes; {VALIDATOR_MAX} are the most"));
    }
    let content_type = entry.content_type.as_ref().map_or(0, String::len);
    if content_type > CONTENT_TYPE_MAX {
        return Err(format!(
            "its content-type has {content_type} bytes; {CONTENT_TYPE_MAX} are the most"
        ));
    }
    let tags: usize = entry.tags.iter().map(String::len).sum();
    Ok((tags + metadata + validator + content_type) as u64)
}

fn content_type(text: &str) -> Result<HeaderValue, String> {
    // Visible ASCII only: other bytes are legal in a header but not in a media type.
    let is_legal = !text.is_empty() && text.bytes().all(|b| matches!(b, b' '..=b'~'));
    match HeaderValue::from_str(text) {
        Ok(value) if is_legal => Ok(value),
        // Not repeated: a guest could put a secret there.
        _ => Err("its content-type is not a media type in printable ASCII".to_owned()),
    }
}

fn fresh(freshness: &types::Freshness) -> Freshness {
    Freshness {
        ttl: freshness.ttl.map(Duration::from_nanos),
        grace: freshness.stale.map(Duration::from_nanos),
    }
}

/// The guest's own error, its words made fit for logs, as the cache knows it.
pub(super) fn error(error: types::Error) -> FillError {
    match error {
        types::Error::InvalidKey(text) => FillError::InvalidKey(text),
        types::Error::Denied(text) => FillError::Denied(text),
        types::Error::Unavailable(unavailable) => FillError::Unavailable {
            message: unavailable.message,
            retry_after: unavailable.retry_after.map(Duration::from_nanos),
        },
        types::Error::TimedOut => {
            FillError::TimedOut("the plugin gave up waiting for its origin".to_owned())
        }
        types::Error::Internal(text) => FillError::Internal(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: &[u8]) -> types::Entry {
        types::Entry {
            value: value.to_vec(),
            freshness: types::Freshness { ttl: None, stale: None },
            validator: None,
            content_type: None,
            tags: Vec::new(),
            metadata: Vec::new(),
        }
    }

    fn value(answers: &Answers, entry: types::Entry) -> Value {
        match answers.outcome(types::Outcome::Found(entry), false) {
            Ok(Outcome::Found(value, _)) => value,
            other => panic!("{other:?}"),
        }
    }

    fn refused(entry: types::Entry) -> String {
        let answers = Answers::new(1 << 20);
        answers.outcome(types::Outcome::Found(entry), false).expect_err("refused")
    }

    #[test]
    fn values_with_the_same_media_type_share_one_head() {
        let answers = Answers::new(1_000);
        let typed = |text: &str| types::Entry { content_type: Some(text.into()), ..entry(b"x") };
        let (one, two) =
            (value(&answers, typed("text/plain")), value(&answers, typed("text/plain")));
        let same = |a: &Value, b: &Value| {
            std::ptr::eq(a.head().expect("a head"), b.head().expect("a head"))
        };
        assert!(same(&one, &two));
        assert!(!same(&one, &value(&answers, typed("text/html"))));
        assert!(value(&answers, entry(b"x")).head().is_none());
    }

    #[test]
    fn body_and_labels_count_against_the_limit_together() {
        let answers = Answers::new(10);
        value(&answers, entry(&[0; 10]));
        let tagged = types::Entry { tags: vec!["t".into()], ..entry(&[0; 10]) };
        let refused = answers.outcome(types::Outcome::Found(tagged), false).expect_err("refused");
        assert!(refused.contains("11 bytes") && refused.contains("limits.value"), "{refused}");
    }

    #[test]
    fn labels_are_bounded() {
        let many = |n: usize, bytes: usize| vec!["x".repeat(bytes); n];
        assert!(refused(types::Entry { tags: many(33, 1), ..entry(b"") }).contains("33 tags"));
        assert!(refused(types::Entry { tags: many(1, 129), ..entry(b"") }).contains("129 bytes"));
        let pairs = |n: usize, bytes: usize| vec![("n".to_owned(), "v".repeat(bytes)); n];
        assert!(
            refused(types::Entry { metadata: pairs(33, 1), ..entry(b"") }).contains("33 pairs")
        );
        assert!(
            refused(types::Entry { metadata: pairs(2, 5_000), ..entry(b"") }).contains("10002")
        );
        let validator = Some("v".repeat(1_025));
        assert!(refused(types::Entry { validator, ..entry(b"") }).contains("validator"));
    }

    #[test]
    fn a_media_type_must_be_a_legal_header() {
        for text in ["", "a\r\nSet-Cookie: x", "text/plain\0", "téxt", &"x".repeat(257)] {
            let content_type = Some(text.to_owned());
            assert!(refused(types::Entry { content_type, ..entry(b"") }).contains("content-type"));
        }
    }

    #[test]
    fn any_length_of_time_is_understood() {
        let answers = Answers::new(10);
        let freshness = types::Freshness { ttl: Some(u64::MAX), stale: Some(0) };
        match answers.outcome(types::Outcome::NotFound(freshness), false) {
            Ok(Outcome::NotFound(freshness)) => {
                assert_eq!(freshness.ttl, Some(Duration::from_nanos(u64::MAX)));
                assert_eq!(freshness.grace, Some(Duration::ZERO));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn not_modified_needs_something_to_keep() {
        let answers = Answers::new(10);
        let same = || types::Outcome::NotModified(types::Freshness { ttl: None, stale: None });
        assert!(answers.outcome(same(), true).is_ok());
        assert!(answers.outcome(same(), false).is_err());
    }
}
