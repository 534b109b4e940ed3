//! What a call came to, in the words of a manifest.

use std::{fmt::Write as _, time::Duration};

use super::expectation::Expect;
use crate::{
    group::{FillError, Outcome},
    plugin::Ended,
    value::{Freshness, Value},
};

/// Bytes of a value that are shown.
const SHOWN_MAX: usize = 60;

/// How `ended` is called in a manifest; none for a call that the host never began.
pub fn kind(ended: &Ended) -> Option<Expect> {
    match ended {
        Ended::Answered(Outcome::Found(..)) => Some(Expect::Found),
        Ended::Answered(Outcome::NotFound(_)) => Some(Expect::NotFound),
        Ended::Answered(Outcome::NotModified(_)) => Some(Expect::NotModified),
        Ended::Failed(error) | Ended::Faulted(error) | Ended::Refused(error) => match error {
            FillError::InvalidKey(_) => Some(Expect::InvalidKey),
            FillError::Denied(_) => Some(Expect::Denied),
            FillError::Unavailable { .. } => Some(Expect::Unavailable),
            FillError::TimedOut(_) => Some(Expect::TimedOut),
            FillError::Internal(_) => Some(Expect::Internal),
            FillError::Overloaded(_) | FillError::NotAsked { .. } => None,
        },
    }
}

/// The word for how `ended`: that of a manifest, or `refused` for a call that the host
/// never began.
pub fn word(ended: &Ended) -> &'static str {
    kind(ended).map_or("refused", Expect::name)
}

/// The value, where one was found.
pub fn value(ended: &Ended) -> Option<&Value> {
    match ended {
        Ended::Answered(Outcome::Found(value, _)) => Some(value),
        _ => None,
    }
}

/// How long the answer holds, where there is one.
pub fn freshness(ended: &Ended) -> Option<Freshness> {
    match ended {
        Ended::Answered(
            Outcome::Found(_, freshness)
            | Outcome::NotFound(freshness)
            | Outcome::NotModified(freshness),
        ) => Some(*freshness),
        _ => None,
    }
}

/// The error, where there is one.
pub fn error(ended: &Ended) -> Option<&FillError> {
    match ended {
        Ended::Answered(_) => None,
        Ended::Failed(error) | Ended::Faulted(error) | Ended::Refused(error) => Some(error),
    }
}

/// What the error says, without what kind it is.
pub fn message(error: &FillError) -> &str {
    match error {
        FillError::InvalidKey(text)
        | FillError::Denied(text)
        | FillError::Unavailable { message: text, .. }
        | FillError::NotAsked { message: text, .. }
        | FillError::Overloaded(text)
        | FillError::TimedOut(text)
        | FillError::Internal(text) => text,
    }
}

/// Everything about how `ended` in one line.
pub fn line(ended: &Ended) -> String {
    let mut line = word(ended).to_owned();
    if let Some(value) = value(ended) {
        _ = write!(line, ", {} bytes", value.body().len());
        if let Some(head) = value.head() {
            if let Some(text) = head.content_type.as_ref().and_then(|it| it.to_str().ok()) {
                _ = write!(line, ", content-type {text}");
            }
            if let Some(validator) = &head.validator {
                _ = write!(line, ", validator {}", quoted(validator));
            }
            if !head.tags.is_empty() {
                _ = write!(line, ", tags {}", head.tags.join(" "));
            }
            for (name, value) in &head.metadata {
                _ = write!(line, ", {name} {}", quoted(value));
            }
        }
    }
    if let Some(freshness) = freshness(ended) {
        let mut time = |name: &str, time: Option<Duration>| {
            if let Some(time) = time {
                _ = write!(line, ", {name} {}", humantime::format_duration(time));
            }
        };
        time("ttl", freshness.ttl);
        time("stale", freshness.grace);
    }
    if matches!(ended, Ended::Faulted(_)) {
        line.push_str(" by a fault");
    }
    if let Some(error) = error(ended) {
        _ = write!(line, ": {}", message(error));
        if let Some(wait) = error.retry_after() {
            _ = write!(line, " (retry after {})", humantime::format_duration(wait));
        }
    }
    line
}

/// `text` in quotes, as it is written in a manifest.
pub fn quoted(text: &str) -> String {
    let is_plain = text.len() <= SHOWN_MAX && !text.contains(|c: char| c == '\'' || c.is_control());
    if text.contains('"') && is_plain {
        return format!("'{text}'");
    }
    shown(text.as_bytes(), 0)
}

/// The bytes around `at`, as text where they are, in quotes.
pub fn shown(bytes: &[u8], at: usize) -> String {
    let start = at.saturating_sub(SHOWN_MAX / 2);
    let end = bytes.len().min(start + SHOWN_MAX);
    let mut shown = String::from(if start > 0 { "…\"" } else { "\"" });
    for piece in bytes[start..end].utf8_chunks() {
        for c in piece.valid().chars() {
            match c {
                '"' | '\\' => shown.extend(['\\', c]),
                c if c.is_control() => shown.extend(c.escape_default()),
                c => shown.push(c),
            }
        }
        for byte in piece.invalid() {
            _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown.push_str(if end < bytes.len() { "\"…" } else { "\"" });
    shown
}

/// How two values differ, in one line; none if they do not.
pub fn difference(expected: &[u8], found: &[u8]) -> Option<String> {
    if expected == found {
        return None;
    }
    let at = expected.iter().zip(found).take_while(|(one, other)| one == other).count();
    let (expected_length, found_length) = (expected.len(), found.len());
    Some(format!(
        "{} where {} is expected: they differ from byte {at} on, and have {found_length} and \
         {expected_length} bytes",
        shown(found, at),
        shown(expected, at),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_shown_with_what_is_around_it() {
        assert_eq!(difference(b"same", b"same"), None);
        let said = difference(b"an item\n", b"an itch\n").expect("a difference");
        assert!(said.contains("byte 5") && said.contains("\"an itch\\n\""), "{said}");
        let long = |end: &str| format!("{}{end}", "x".repeat(1_000));
        let said = difference(long("a").as_bytes(), long("bc").as_bytes()).expect("a difference");
        assert!(said.contains("byte 1000") && said.contains("1002 and 1001"), "{said}");
        assert!(said.len() < 300, "{said}");
    }

    #[test]
    fn values_are_shown_without_harm() {
        assert_eq!(shown(b"a\"\x1b\xff", 0), "\"a\\\"\\u{1b}\\xff\"");
        assert_eq!(shown(b"", 0), "\"\"");
        assert_eq!(shown(b"ab", 10), "\"ab\"");
    }

    #[test]
    fn a_line_tells_all_of_an_answer() {
        let found = Outcome::Found(Value::new(b"x"), Freshness::ttl(Duration::from_mins(1)));
        assert_eq!(line(&Ended::Answered(found)), "found, 1 bytes, ttl 1m");
        let error = FillError::Unavailable {
            message: "503".to_owned(),
            retry_after: Some(Duration::from_secs(7)),
        };
        let said = line(&Ended::Failed(error));
        assert_eq!(said, "unavailable: 503 (retry after 7s)");
        let fault = Ended::Faulted(FillError::Internal("it trapped".to_owned()));
        assert_eq!(line(&fault), "internal by a fault: it trapped");
    }
}
