//! From an origin's answer to an outcome. The crate's documentation has the
//! tables.

use crate::freshness::{freshness, retry_after};
use crate::settings::Defaults;
use cachecluster_plugin::http::Response;
use cachecluster_plugin::{Entry, Error, Outcome};

/// The longest validator the contract allows.
const VALIDATOR_BYTES_MAX: usize = 1024;

/// The longest media type the contract allows.
const CONTENT_TYPE_BYTES_MAX: usize = 256;

/// The header that asks whether `validator` still holds. An entity tag begins
/// with a quote, or with the mark of a weak one; anything else was a date.
pub(crate) fn condition(validator: &str) -> &'static str {
    if is_entity_tag(validator) { "if-none-match" } else { "if-modified-since" }
}

/// What `response` says about the key. `was_conditional` tells whether it
/// answers a request with a [`condition`].
pub(crate) fn read(
    response: Response,
    was_conditional: bool,
    defaults: &Defaults,
) -> Result<Outcome, Error> {
    let status = response.status();
    let said = || format!("the origin answered with status {status}");
    match status {
        200 | 203 | 204 => found(response, defaults).map(Outcome::Found),
        304 if was_conditional => Ok(Outcome::NotModified(freshness(&response, defaults.found))),
        404 | 410 => Ok(Outcome::NotFound(freshness(&response, defaults.not_found))),
        400 | 414 | 422 => Err(Error::invalid_key(said())),
        401 | 403 | 407 | 451 => Err(Error::denied(said())),
        408 | 425 | 429 | 500..=599 => {
            let error = Error::unavailable(said());
            Err(match retry_after(&response) {
                Some(wait) => error.retry_after(wait),
                None => error,
            })
        }
        300..=399 => Err(Error::internal(match response.header("location") {
            Some(location) => format!("{}, redirecting to {:?}", said(), shortened(location)),
            None => said(),
        })),
        _ => Err(Error::internal(said())),
    }
}

fn found(response: Response, defaults: &Defaults) -> Result<Entry, Error> {
    let encoding = response.header("content-encoding").unwrap_or("identity");
    if !encoding.trim().eq_ignore_ascii_case("identity") {
        let encoding = shortened(encoding);
        return Err(Error::internal(format!(
            "the origin encoded the body as {encoding:?}, which it was not asked for"
        )));
    }
    let mut entry = Entry::default().freshness(freshness(&response, defaults.found));
    if let Some(validator) = validator(&response) {
        entry = entry.validator(validator);
    }
    if let Some(content_type) = content_type(&response) {
        entry = entry.content_type(content_type);
    }
    entry.value = response.into_body();
    Ok(entry)
}

/// The media type, unless it is none that the node would take: a value without
/// one is better than no value.
fn content_type(response: &Response) -> Option<&str> {
    let content_type = response.header("content-type")?.trim();
    let is_printable = content_type.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    (1..=CONTENT_TYPE_BYTES_MAX)
        .contains(&content_type.len())
        .then_some(content_type)
        .filter(|_| is_printable)
}

/// The entity tag, or else the date of the last change.
fn validator(response: &Response) -> Option<String> {
    let tag = response.header("etag").map(str::trim).filter(|tag| is_entity_tag(tag));
    let date = || {
        let date = response.header("last-modified").map(str::trim);
        date.filter(|date| httpdate::parse_http_date(date).is_ok())
    };
    tag.or_else(date).filter(|validator| validator.len() <= VALIDATOR_BYTES_MAX).map(str::to_owned)
}

fn is_entity_tag(text: &str) -> bool {
    text.strip_prefix("W/").unwrap_or(text).starts_with('"')
}

/// As much of an origin's text as belongs into a message.
fn shortened(text: &str) -> &str {
    text.char_indices().nth(200).map_or(text, |(end, _)| &text[..end])
}
