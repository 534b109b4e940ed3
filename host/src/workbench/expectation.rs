//! The table `[[test]]` of a manifest: a get, and what has to come of it.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::manifest::Manifest;
use crate::config::{Document, units};

/// One get, and what has to come of it. What is left out may be anything.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// What it shows, as a sentence.
    pub name: String,
    /// The key that is got.
    pub key: String,
    /// How the get ends.
    pub expect: Expect,
    /// The validator that the call is told, as when a value is refreshed that has it.
    #[serde(default)]
    pub context_validator: Option<String>,
    /// The value, where it is found.
    #[serde(default)]
    pub body: Option<String>,
    /// The value where it is no text, in base64. Not together with `body`.
    #[serde(default)]
    pub body_base64: Option<String>,
    /// How long the answer is fresh.
    #[serde(default, deserialize_with = "time")]
    #[schemars(with = "units::DurationText")]
    pub ttl: Option<Duration>,
    /// How long the answer may be served after that.
    #[serde(default, deserialize_with = "time")]
    #[schemars(with = "units::DurationText")]
    pub stale: Option<Duration>,
    /// The value's media type.
    #[serde(default)]
    pub content_type: Option<String>,
    /// The value's validator.
    #[serde(default)]
    pub validator: Option<String>,
    /// The value's tags, in their order.
    #[serde(default)]
    pub tags: Option<Vec<String>>,
    /// A part of what an error says.
    #[serde(default)]
    pub message_contains: Option<String>,
    /// How long an unavailable origin asks to be left alone.
    #[serde(default, deserialize_with = "time")]
    #[schemars(with = "units::DurationText")]
    pub retry_after: Option<Duration>,
    /// How often the origin was asked that the workbench plays.
    #[serde(default)]
    pub origin_requests: Option<u32>,
}

/// How a get ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Expect {
    /// There is a value.
    Found,
    /// The origin says that there is no such key.
    NotFound,
    /// The value of `context_validator` still holds.
    NotModified,
    /// The key can be none of the plugin's.
    InvalidKey,
    /// The origin, or a grant, refused.
    Denied,
    /// The origin is slow, down or overloaded.
    Unavailable,
    /// The deadline passed first.
    TimedOut,
    /// The plugin failed by its own fault.
    Internal,
}

impl Expect {
    /// Its name as it stands in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::NotFound => "not-found",
            Self::NotModified => "not-modified",
            Self::InvalidKey => "invalid-key",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::TimedOut => "timed-out",
            Self::Internal => "internal",
        }
    }

    const fn is_answer(self) -> bool {
        matches!(self, Self::Found | Self::NotFound | Self::NotModified)
    }
}

impl Test {
    /// The value that is expected, if one is.
    pub fn value(&self) -> Option<Vec<u8>> {
        let text = self.body.as_ref().map(|body| body.clone().into_bytes());
        text.or_else(|| base64(self.body_base64.as_deref()?))
    }
}

/// The bytes of `text`; white space in it is nothing.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let text: String = text.split_whitespace().collect();
    STANDARD.decode(text).ok()
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    units::duration::deserialize(deserializer).map(Some)
}

/// Reports what test `index` expects that can never be.
pub(super) fn check(document: &mut Document<Manifest>, index: &str, test: &Test) {
    let expect = test.expect;
    let mut never = |key: &'static str, is_set: bool, fits: bool, with: &str| {
        if is_set && !fits {
            document.refuse(
                &["test", index, key],
                format!("`{key}` never comes with `{}`", expect.name()),
                format!("leave it out, or expect {with}"),
            );
        }
    };
    let (found, answer) = (expect == Expect::Found, expect.is_answer());
    let values = "`found`";
    never("body", test.body.is_some(), found, values);
    never("body_base64", test.body_base64.is_some(), found, values);
    never("content_type", test.content_type.is_some(), found, values);
    never("validator", test.validator.is_some(), found, values);
    never("tags", test.tags.is_some(), found, values);
    let answers = "`found`, `not-found` or `not-modified`";
    never("ttl", test.ttl.is_some(), answer, answers);
    never("stale", test.stale.is_some(), answer, answers);
    never("message_contains", test.message_contains.is_some(), !answer, "an error");
    let is_unavailable = expect == Expect::Unavailable;
    never("retry_after", test.retry_after.is_some(), is_unavailable, "`unavailable`");
    if expect == Expect::NotModified && test.context_validator.is_none() {
        document.refuse(
            &["test", index, "expect"],
            "only a call with a validator may be answered `not-modified`",
            "add the validator: `context_validator = \"…\"`",
        );
    }
    match &test.body_base64 {
        Some(_) if test.body.is_some() => document.refuse(
            &["test", index, "body_base64"],
            "a value that is given twice",
            "keep one of `body` and `body_base64`",
        ),
        Some(code) if base64(code).is_none() => document.refuse(
            &["test", index, "body_base64"],
            "this is not base64",
            "write what `base64 -w0 FILE` prints",
        ),
        _ => {}
    }
}
