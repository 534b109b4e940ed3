//! Hits, from the path of a request straight to the bytes of its reply.
//!
//! What [`super::handler`] and hyper say through header maps is written here as text,
//! in the order of the wire. Both say the same; a test holds them to it.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::http::Response;
use http_body::Body as _;

use super::{
    super::{
        body::{Chunk, ReplyBody},
        cache_status::{self, decimal},
        conditional,
    },
    wire::Unsent,
};
use crate::{
    value::{Hit, Value},
    wire::Head,
};

thread_local! {
    static DATE: RefCell<Date> = const { RefCell::new(Date { second: 0, text: String::new() }) };
}

/// The date as replies give it, which changes once a second.
struct Date {
    second: u64,
    text: String,
}

/// Brings the date of this thread's replies up to now.
pub(super) fn keep_time() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    DATE.with_borrow_mut(|date| {
        if date.second != now || date.text.is_empty() {
            let time = UNIX_EPOCH + Duration::from_secs(now);
            *date = Date { second: now, text: httpdate::fmt_http_date(time) };
        }
    });
}

/// Writes the reply to a `GET` that memory answers with a value.
pub(super) fn write_hit(unsent: &mut Unsent, hit: Hit, content_type: &[u8]) {
    let Hit { value, provenance } = hit;
    let text = &mut unsent.bytes;
    text.extend_from_slice(b"HTTP/1.1 200 OK\r\nage: ");
    decimal(text, provenance.age.as_secs());
    text.extend_from_slice(b"\r\ncache-status: ");
    cache_status::write(text, &provenance);
    text.extend_from_slice(b"\r\netag: ");
    text.extend_from_slice(&conditional::tag(value.digest()));
    text.extend_from_slice(b"\r\ncontent-type: ");
    text.extend_from_slice(content_type);
    text.extend_from_slice(b"\r\nx-content-type-options: nosniff\r\ncontent-length: ");
    decimal(text, value.body().len() as u64);
    finish(text);
    append_value(unsent, value);
}

/// Writes the reply to a peer's `GET` that memory answers: a message with a value in it.
pub(super) fn write_message(unsent: &mut Unsent, before: Head, value: Value, after: Head) {
    let text = &mut unsent.bytes;
    text.extend_from_slice(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: ",
    );
    decimal(text, (before.as_ref().len() + value.body().len() + after.as_ref().len()) as u64);
    finish(text);
    text.extend_from_slice(before.as_ref());
    if value.body().len() < super::wire::DIRECT_MIN {
        text.extend_from_slice(value.body());
        text.extend_from_slice(after.as_ref());
    } else {
        unsent.tail = Some(Chunk::Framed { value, after, at: 0 });
    }
}

/// Writes a reply that was made for hyper.
pub(super) fn write_response(unsent: &mut Unsent, response: Response<ReplyBody>) {
    let (head, body) = response.into_parts();
    let text = &mut unsent.bytes;
    text.extend_from_slice(b"HTTP/1.1 ");
    text.extend_from_slice(head.status.as_str().as_bytes());
    text.push(b' ');
    text.extend_from_slice(head.status.canonical_reason().unwrap_or("").as_bytes());
    for (name, value) in &head.headers {
        text.extend_from_slice(b"\r\n");
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
    }
    text.extend_from_slice(b"\r\ncontent-length: ");
    decimal(text, body.size_hint().exact().unwrap_or(0));
    finish(text);
    match body.into_chunk() {
        Some(Chunk::Text(body)) => text.extend_from_slice(&body),
        Some(Chunk::Value { value, .. }) => append_value(unsent, value),
        Some(framed @ Chunk::Framed { .. }) => unsent.tail = Some(framed),
        None => {}
    }
}

/// The last header, and the end of the head.
fn finish(text: &mut Vec<u8>) {
    text.extend_from_slice(b"\r\ndate: ");
    DATE.with_borrow(|date| text.extend_from_slice(date.text.as_bytes()));
    text.extend_from_slice(b"\r\n\r\n");
}

fn append_value(unsent: &mut Unsent, value: Value) {
    if value.body().len() < super::wire::DIRECT_MIN {
        unsent.bytes.extend_from_slice(value.body());
    } else {
        unsent.tail = Some(Chunk::Value { value, at: 0 });
    }
}
