//! The replies to plain requests, straight to the bytes of the wire.
//!
//! What [`super::handler`] and hyper say through header maps is written here as text,
//! in the order of the wire. Both say the same; a test holds them to it.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::http::{HeaderValue, Response};
use http_body::Body as _;
use tokio::time::Instant;

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

/// How long a look at the clock on the wall serves; time goes on from it by the other one.
const WALL_EVERY: Duration = Duration::from_millis(100);

thread_local! {
    static DATE: RefCell<Date> = const { RefCell::new(Date { second: 0, text: String::new() }) };
    /// The last look at the clock on the wall, and when it was.
    static SEEN: Cell<Option<(Instant, SystemTime)>> = const { Cell::new(None) };
    /// The time of this thread's turn.
    static WALL: Cell<SystemTime> = const { Cell::new(UNIX_EPOCH) };
}

/// The date as replies give it, which changes once a second.
struct Date {
    second: u64,
    text: String,
}

/// Brings the date of this thread's replies up to `now`. One look at one clock is enough for
/// a turn: each costs as much as a hundredth of an answer.
pub(super) fn keep_time(now: Instant) {
    let still = SEEN.get().filter(|(at, _)| now.saturating_duration_since(*at) < WALL_EVERY);
    let (at, seen) = still.unwrap_or_else(|| (now, SystemTime::now()));
    SEEN.set(Some((at, seen)));
    let wall = seen + now.saturating_duration_since(at);
    WALL.set(wall);
    let second = wall.duration_since(UNIX_EPOCH).map_or(0, |wall| wall.as_secs());
    DATE.with_borrow_mut(|date| {
        if date.second != second || date.text.is_empty() {
            let time = UNIX_EPOCH + Duration::from_secs(second);
            *date = Date { second, text: httpdate::fmt_http_date(time) };
        }
    });
}

/// The time that was kept last on this thread.
pub(super) fn wall() -> SystemTime {
    WALL.get()
}

/// Length of a media type that is passed on. Real ones are below a hundred.
const CONTENT_TYPE_MAX: usize = 1_024;

/// The media type of a value. One that is out of proportion is not passed on: the head
/// of a reply has to fit the buffer of its connection.
pub(super) fn content_type(value: &Value) -> &HeaderValue {
    static BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
    value.content_type().filter(|media| media.len() <= CONTENT_TYPE_MAX).unwrap_or(&BYTES)
}

/// A reply that is to be written.
pub(super) enum Made {
    /// A value, to a client.
    Value(Hit),
    /// A value, to a peer: with what stands before and after it in its message.
    Message(Head, Value, Head),
    /// One that was made for hyper.
    Response(Response<ReplyBody>),
}

/// Writes a reply.
pub(super) fn write(unsent: &mut Unsent, made: Made) {
    match made {
        Made::Value(hit) => write_hit(unsent, hit),
        Made::Message(before, value, after) => write_message(unsent, before, value, after),
        Made::Response(response) => write_response(unsent, response),
    }
}

fn write_hit(unsent: &mut Unsent, hit: Hit) {
    let Hit { value, provenance } = hit;
    let text = &mut unsent.bytes;
    text.extend_from_slice(b"HTTP/1.1 200 OK\r\nage: ");
    decimal(text, provenance.age.as_secs());
    text.extend_from_slice(b"\r\ncache-status: ");
    cache_status::write(text, &provenance);
    text.extend_from_slice(b"\r\netag: ");
    text.extend_from_slice(&conditional::tag(value.digest()));
    text.extend_from_slice(b"\r\ncontent-type: ");
    text.extend_from_slice(content_type(&value).as_bytes());
    text.extend_from_slice(b"\r\nx-content-type-options: nosniff\r\ncontent-length: ");
    decimal(text, value.body().len() as u64);
    finish(unsent);
    append_value(unsent, value);
}

fn write_message(unsent: &mut Unsent, before: Head, value: Value, after: Head) {
    let text = &mut unsent.bytes;
    text.extend_from_slice(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: ",
    );
    decimal(text, (before.as_ref().len() + value.body().len() + after.as_ref().len()) as u64);
    finish(unsent);
    let text = &mut unsent.bytes;
    text.extend_from_slice(before.as_ref());
    if value.body().len() < super::wire::DIRECT_MIN {
        text.extend_from_slice(value.body());
        text.extend_from_slice(after.as_ref());
    } else {
        unsent.tail = Some(Chunk::Framed { value, after, at: 0 });
    }
}

fn write_response(unsent: &mut Unsent, response: Response<ReplyBody>) {
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
    finish(unsent);
    match body.into_chunk() {
        Some(Chunk::Text(body)) => unsent.bytes.extend_from_slice(&body),
        Some(Chunk::Value { value, .. }) => append_value(unsent, value),
        Some(framed @ Chunk::Framed { .. }) => unsent.tail = Some(framed),
        None => {}
    }
}

/// The last headers, and the end of the head.
fn finish(unsent: &mut Unsent) {
    let text = &mut unsent.bytes;
    if unsent.is_last {
        text.extend_from_slice(b"\r\nconnection: close");
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_goes_on_between_two_looks_at_the_clock_on_the_wall() {
        let now = Instant::now();
        keep_time(now);
        let begin = wall();
        let soon = WALL_EVERY / 2;
        keep_time(now + soon);
        assert_eq!(wall(), begin + soon);
    }

    #[test]
    fn the_clock_on_the_wall_is_looked_at_again_and_again() {
        let now = Instant::now();
        keep_time(now);
        let before = SystemTime::now();
        keep_time(now + Duration::from_hours(1));
        let gone = wall().duration_since(before).expect("it was looked at just now");
        assert!(gone < Duration::from_mins(1), "{gone:?}");
    }
}
