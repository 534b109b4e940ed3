//! The family's protobuf messages, field by field (proto2, `groupcachepb`).
//!
//! They are a few fields each, and the value among them can be large: writing one puts a
//! head before it and a tail behind it rather than copying it into a message, and reading
//! one points into what was received.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Deserialize;
use thiserror::Error;

/// Field numbers and wire types, as they stand before a field.
const VALUE: u8 = 1 << 3 | LENGTH;
const EXPIRE: u8 = 3 << 3 | VARINT;

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED32: u8 = 5;

/// Keys that one request may remove.
const KEYS_MAX: usize = 10_000;

/// Bytes that are not the message they should be.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a message of the groupcache protocol: {0}")]
pub struct Malformed(&'static str);

/// The answer to a get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GetResponse {
    /// The value; empty where the field is absent, as golang/groupcache writes an empty
    /// one.
    pub value: Bytes,
    /// When it expires, in nanoseconds since 1970; zero or absent for never.
    pub expire: Option<i64>,
}

impl GetResponse {
    /// The bytes before and behind a value of `length` bytes. golang/groupcache does not
    /// know `expire` and skips it.
    pub fn around(length: usize, expire: Option<i64>) -> (Head, Head) {
        let (mut head, mut tail) = (Head::default(), Head::default());
        head.push(VALUE);
        head.push_varint(length as u64);
        if let Some(expire) = expire {
            tail.push(EXPIRE);
            // Two's complement, as protobuf has it for negative ones.
            tail.push_varint(expire.cast_unsigned());
        }
        (head, tail)
    }

    /// Reads a message. `bytes` of no length are an empty value.
    ///
    /// # Errors
    /// It is not one.
    pub fn read(bytes: &Bytes) -> Result<Self, Malformed> {
        let mut response = Self::default();
        for field in Fields(bytes) {
            match field? {
                (1, Field::Bytes(value)) => response.value = bytes.slice_ref(value),
                (3, Field::Number(expire)) => response.expire = Some(expire.cast_signed()),
                // A known field of another type is no answer to rely on; `minute_qps` and
                // whatever is to come are none of ours.
                (1 | 3, _) => return Err(Malformed("a field has another type")),
                _ => {}
            }
        }
        Ok(response)
    }
}

/// A value that is put into a peer's memory (v2, v3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetRequest {
    /// Name of the group.
    pub group: Bytes,
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// When it expires, as in [`GetResponse::expire`].
    pub expire: Option<i64>,
}

impl SetRequest {
    /// The bytes of the message.
    pub fn write(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(self.value.len() + self.key.len() + 64);
        for (tag, bytes) in [(0x0a, &self.group), (0x12, &self.key), (0x1a, &self.value)] {
            // What is empty goes without saying.
            if !bytes.is_empty() {
                let mut head = Head::default();
                head.push(tag);
                head.push_varint(bytes.len() as u64);
                message.extend_from_slice(head.as_ref());
                message.extend_from_slice(bytes);
            }
        }
        if let Some(expire) = self.expire.filter(|&expire| expire != 0) {
            let mut head = Head::default();
            head.push(0x20);
            head.push_varint(expire.cast_unsigned());
            message.extend_from_slice(head.as_ref());
        }
        message
    }

    /// Reads a message.
    ///
    /// # Errors
    /// It is not one.
    pub fn read(bytes: &Bytes) -> Result<Self, Malformed> {
        let mut request = Self::default();
        for field in Fields(bytes) {
            match field? {
                (1, Field::Bytes(group)) => request.group = bytes.slice_ref(group),
                (2, Field::Bytes(key)) => request.key = bytes.slice_ref(key),
                (3, Field::Bytes(value)) => request.value = bytes.slice_ref(value),
                (4, Field::Number(expire)) => request.expire = Some(expire.cast_signed()),
                (1..=4, _) => return Err(Malformed("a field has another type")),
                _ => {}
            }
        }
        Ok(request)
    }
}

/// Keys that a peer is to forget: JSON, unlike all else (v3).
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct RemoveKeys {
    /// Name of the group.
    pub group: String,
    /// The keys. JSON has none that are not text.
    pub keys: Vec<String>,
}

impl RemoveKeys {
    /// Reads a message.
    ///
    /// # Errors
    /// It is not one, or names more keys than a request may.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let request: Self =
            serde_json::from_slice(bytes).map_err(|_| Malformed("not a list of keys in JSON"))?;
        if request.keys.len() > KEYS_MAX {
            return Err(Malformed("more than 10000 keys in one request"));
        }
        Ok(request)
    }
}

/// Time from `now` to the moment `expire` of a message; nothing for one that does not
/// expire, zero for one that has.
pub fn remaining(expire: Option<i64>, now: SystemTime) -> Option<Duration> {
    let expire = expire.filter(|&expire| expire != 0)?;
    let moment = u64::try_from(expire).map_or(Duration::ZERO, Duration::from_nanos);
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Some(moment.saturating_sub(now))
}

/// The moment in `remaining` from `now`, as a message says it.
pub fn expire(remaining: Duration, now: SystemTime) -> i64 {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.saturating_add(remaining).as_nanos()).unwrap_or(i64::MAX)
}

/// A few bytes of a message, without an allocation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head {
    bytes: [u8; 11],
    length: u8,
}

impl Head {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(usize::from(self.length)) {
            *place = byte;
            self.length += 1;
        }
    }

    fn push_varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.push(number.to_le_bytes()[0]);
    }
}

impl AsRef<[u8]> for Head {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// The fields of a message that are still to be read.
struct Fields<'a>(&'a [u8]);

/// What a field holds.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// A number of a kind that none of ours has.
    Fixed,
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Malformed("it ends in a number"))?;
            self.0 = rest;
            // The tenth byte has room for one bit; others are cut off, as protobuf does.
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed("a number has no end"))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).ok().filter(|&length| length <= self.0.len());
        let (taken, rest) = self.0.split_at(length.ok_or(Malformed("it ends in a field"))?);
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u64, Field<'a>), Malformed> {
        let tag = self.varint()?;
        let field = match tag.to_le_bytes()[0] & 0x7 {
            VARINT => Field::Number(self.varint()?),
            FIXED64 => self.take(8).map(|_| Field::Fixed)?,
            LENGTH => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            FIXED32 => self.take(4).map(|_| Field::Fixed)?,
            _ => return Err(Malformed("a field has an unknown type")),
        };
        Ok((tag >> 3, field))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(value: &[u8], expire: Option<i64>) -> Bytes {
        let (head, tail) = GetResponse::around(value.len(), expire);
        [head.as_ref(), value, tail.as_ref()].concat().into()
    }

    #[test]
    fn an_answer_has_the_bytes_that_go_sends() {
        let value = b"a value of thirty-one bytes ...";
        let golang = written(value, None);
        assert_eq!(&golang[..2], [0x0a, 0x1f]);
        assert_eq!(golang.len(), 2 + 31);
        assert_eq!(&written(value, Some(0))[33..], [0x18, 0x00]);
        assert_eq!(*written(b"", None), [0x0a, 0x00]);
    }

    #[test]
    fn what_has_no_fields_is_an_empty_value() {
        for bytes in [Bytes::new(), Bytes::from_static(&[0x0a, 0x00])] {
            assert_eq!(GetResponse::read(&bytes), Ok(GetResponse::default()));
        }
    }

    #[test]
    fn a_value_that_is_put_has_the_bytes_that_go_sends() {
        let request = SetRequest {
            group: Bytes::from_static(b"g"),
            key: Bytes::from_static(b"a//b"),
            value: Bytes::from_static(b"v"),
            expire: Some(300),
        };
        let message = b"\x0a\x01g\x12\x04a//b\x1a\x01v\x20\xac\x02";
        assert_eq!(request.write(), message);
        assert_eq!(SetRequest::read(&request.write().into()), Ok(request));
        assert_eq!(SetRequest::default().write(), b"");
    }

    #[test]
    fn fields_of_others_are_skipped() {
        // `minute_qps`, and fields of every type with numbers that nobody has.
        let text = [
            &[0x11, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f][..],
            &[0x0a, 1, b'v'],
            &[0x3d, 1, 2, 3, 4],
            &[0xba, 0x06, 2, 9, 9],
            &[0xc0, 0x3e, 0x96, 0x01],
        ]
        .concat();
        let read = GetResponse::read(&text.into()).expect("a message");
        assert_eq!((&*read.value, read.expire), (&b"v"[..], None));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in [
            &[0x0a][..],
            &[0x0a, 5, b'x'],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x18],
            &[0x18, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80],
            &[0x08, 1],
            &[0x1a, 1, 1],
            &[0x0b],
            b"<html>",
        ] {
            assert!(GetResponse::read(&Bytes::from_static(bytes)).is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn a_moment_to_expire_at_is_a_time_that_is_left() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let in_a_minute = expire(Duration::from_mins(1), now);
        assert_eq!(remaining(Some(in_a_minute), now), Some(Duration::from_mins(1)));
        assert_eq!(remaining(Some(1), now), Some(Duration::ZERO));
        assert_eq!(remaining(Some(-1), now), Some(Duration::ZERO));
        assert_eq!((remaining(Some(0), now), remaining(None, now)), (None, None));
        assert_eq!(expire(Duration::MAX, now), i64::MAX);
    }

    #[test]
    fn keys_to_remove_come_in_json_and_not_without_bound() {
        let read = RemoveKeys::read(br#"{"group":"g","keys":["a","b c"]}"#).expect("a request");
        assert_eq!((&*read.group, read.keys), ("g", vec!["a".to_owned(), "b c".to_owned()]));
        let many = format!(r#"{{"group":"g","keys":[{}"k"]}}"#, r#""k","#.repeat(KEYS_MAX));
        for bad in ["", "[]", r#"{"group":"g"}"#, &many] {
            assert!(RemoveKeys::read(bad.as_bytes()).is_err());
        }
    }

    proptest! {
        #[test]
        fn every_value_comes_back_exact(
            value in any::<Vec<u8>>(),
            expire in any::<Option<i64>>(),
        ) {
            let read = GetResponse::read(&written(&value, expire)).expect("a message of ours");
            prop_assert_eq!((&*read.value, read.expire), (&*value, expire));
        }

        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>()) {
            let bytes = Bytes::from(bytes);
            let _ = (GetResponse::read(&bytes), SetRequest::read(&bytes), RemoveKeys::read(&bytes));
        }

        #[test]
        fn a_damaged_message_is_refused_or_read_within_its_bytes(
            value in prop::collection::vec(any::<u8>(), 0..64),
            at in any::<prop::sample::Index>(),
            to in any::<u8>(),
        ) {
            let mut bytes = written(&value, Some(7)).to_vec();
            let at = at.index(bytes.len());
            bytes[at] = to;
            if let Ok(read) = GetResponse::read(&Bytes::from(bytes)) {
                prop_assert!(read.value.len() <= value.len() + 2);
            }
        }
    }
}
