//! The parts of frames: numbers, times, texts and heads, as bytes.

use std::{sync::Arc, time::Duration};

use bytes::{Buf as _, Bytes};
use http::HeaderValue;

use super::frame::{Broken, Failure, Terms, Why};
use crate::value::Head;

/// Labels of a value, of either kind.
pub(super) const LABELS_MAX: usize = 1_024;

pub(super) fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    out.extend_from_slice(&u16::try_from(bytes.len()).ok()?.to_le_bytes());
    out.extend_from_slice(bytes);
    Some(())
}

pub(super) fn put_millis(out: &mut Vec<u8>, time: Duration) {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    // A time that is left is not none.
    let millis = if time.is_zero() { 0 } else { millis.max(1) };
    out.extend_from_slice(&millis.to_le_bytes());
}

pub(super) fn put_head(out: &mut Vec<u8>, head: Option<&Head>) -> Option<()> {
    let Some(head) = head else {
        out.push(0);
        return Some(());
    };
    let text = |text: &Option<Box<str>>| text.as_deref().unwrap_or_default().as_bytes().to_vec();
    let has = |is: bool, flag: u8| if is { flag } else { 0 };
    out.push(1 | has(head.content_type.is_some(), 2) | has(head.validator.is_some(), 4));
    put(out, head.content_type.as_ref().map_or(&[], HeaderValue::as_bytes))?;
    put(out, &text(&head.validator))?;
    put_count(out, head.tags.len())?;
    for tag in &head.tags {
        put(out, tag.as_bytes())?;
    }
    put_count(out, head.metadata.len())?;
    for (name, value) in &head.metadata {
        put(out, name.as_bytes())?;
        put(out, value.as_bytes())?;
    }
    Some(())
}

pub(super) fn put_count(out: &mut Vec<u8>, count: usize) -> Option<()> {
    let count = u16::try_from(count).ok().filter(|&count| usize::from(count) <= LABELS_MAX)?;
    out.extend_from_slice(&count.to_le_bytes());
    Some(())
}

pub(super) fn take(body: &mut Bytes, length: usize) -> Result<Bytes, Broken> {
    if body.len() < length { Err(Broken("it ends early")) } else { Ok(body.split_to(length)) }
}

pub(super) fn take_u16(body: &mut Bytes) -> Result<usize, Broken> {
    take(body, 2).map(|mut two| usize::from(two.get_u16_le()))
}

pub(super) fn take_u64(body: &mut Bytes) -> Result<u64, Broken> {
    take(body, 8).map(|mut eight| eight.get_u64_le())
}

pub(super) fn take_millis(body: &mut Bytes) -> Result<Duration, Broken> {
    take_u64(body).map(Duration::from_millis)
}

pub(super) fn take_bytes(body: &mut Bytes) -> Result<Bytes, Broken> {
    let length = take_u16(body)?;
    take(body, length)
}

pub(super) fn take_text(body: &mut Bytes) -> Result<Box<str>, Broken> {
    let bytes = take_bytes(body)?;
    std::str::from_utf8(&bytes).map(Box::from).map_err(|_| Broken("a text is none"))
}

pub(super) fn take_head(body: &mut Bytes) -> Result<Option<Head>, Broken> {
    let flags = take(body, 1)?[0];
    if flags == 0 {
        return Ok(None);
    }
    let content_type = take_bytes(body)?;
    let validator = take_text(body)?;
    let mut tags = Vec::new();
    for _ in 0..take_count(body)? {
        tags.push(take_text(body)?);
    }
    let mut metadata = Vec::new();
    for _ in 0..take_count(body)? {
        metadata.push((take_text(body)?, take_text(body)?));
    }
    let content_type =
        HeaderValue::from_maybe_shared(content_type).map_err(|_| Broken("a media type is none"))?;
    Ok(Some(Head {
        content_type: (flags & 2 != 0).then_some(content_type),
        validator: (flags & 4 != 0).then_some(validator),
        tags,
        metadata,
    }))
}

pub(super) fn take_count(body: &mut Bytes) -> Result<usize, Broken> {
    let count = take_u16(body)?;
    if count > LABELS_MAX { Err(Broken("too many labels")) } else { Ok(count) }
}

pub(super) fn put_terms(out: &mut Vec<u8>, terms: &Terms) -> Option<()> {
    let Terms { ttl, grace, age, length, is_given, head } = terms;
    put_millis(out, ttl.unwrap_or_default());
    put_millis(out, *grace);
    put_millis(out, *age);
    out.extend_from_slice(&length.to_le_bytes());
    out.push((*is_given).into());
    put_head(out, head.as_deref())
}

pub(super) fn take_terms(body: &mut Bytes) -> Result<Terms, Broken> {
    Ok(Terms {
        ttl: Some(take_millis(body)?).filter(|ttl| !ttl.is_zero()),
        grace: take_millis(body)?,
        age: take_millis(body)?,
        length: take_u64(body)?,
        is_given: take(body, 1)?[0] != 0,
        head: take_head(body)?.map(Arc::new),
    })
}

pub(super) fn why(number: u8) -> Result<Why, Broken> {
    match number {
        0 => Ok(Why::NoRoom),
        1 => Ok(Why::OtherCode),
        _ => Err(Broken("an unknown reason")),
    }
}

pub(super) fn failure(number: u8) -> Result<Failure, Broken> {
    use Failure::{Denied, Internal, InvalidKey, TimedOut, Unavailable};
    [InvalidKey, Denied, Unavailable, TimedOut, Internal]
        .into_iter()
        .find(|failure| *failure as u8 == number)
        .ok_or(Broken("an unknown failure"))
}
