//! doozer's wire, as a running doozerd speaks it: a length of four bytes, then a message of
//! protocol buffers. Of its verbs and fields those that we need.

use thiserror::Error;

/// Bytes of a frame, its length not counted.
pub(super) const FRAME_MAX: usize = 1 << 20;

/// doozer's errors, as it numbers them.
pub(super) mod error {
    /// This server changes nothing.
    pub(in super::super) const READONLY: i64 = 3;
    /// What came before is forgotten.
    pub(in super::super) const TOO_LATE: i64 = 4;
    /// Somebody else was quicker.
    pub(in super::super) const REV_MISMATCH: i64 = 5;
    /// Not among the verbs that this server knows, and others.
    pub(in super::super) const OTHER: i64 = 127;
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get = 1,
    Set = 2,
    Rev = 5,
    Wait = 6,
    Access = 99,
}

/// A question. What is `None` is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    pub(super) verb: Verb,
    pub(super) path: Option<&'a str>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) rev: Option<i64>,
}

impl<'a> Request<'a> {
    pub(super) fn of(verb: Verb) -> Self {
        Self { verb, path: None, value: None, rev: None }
    }

    pub(super) fn path(mut self, path: &'a str) -> Self {
        self.path = Some(path);
        self
    }

    pub(super) fn value(mut self, value: &'a [u8]) -> Self {
        self.value = Some(value);
        self
    }

    pub(super) fn rev(mut self, rev: i64) -> Self {
        self.rev = Some(rev);
        self
    }

    /// The question as a frame, under `tag`.
    pub(super) fn frame(&self, tag: i32) -> Vec<u8> {
        let mut message = Vec::new();
        number(&mut message, 1, i64::from(tag));
        number(&mut message, 2, self.verb as i64);
        if let Some(path) = self.path {
            bytes(&mut message, 4, path.as_bytes());
        }
        if let Some(value) = self.value {
            bytes(&mut message, 5, value);
        }
        if let Some(rev) = self.rev {
            number(&mut message, 9, rev);
        }
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let mut frame = length.to_be_bytes().to_vec();
        frame.append(&mut message);
        frame
    }
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) tag: i64,
    pub(super) rev: i64,
    pub(super) value: Vec<u8>,
    /// Zero if it is none.
    pub(super) error: i64,
    pub(super) detail: String,
}

/// A message that is none.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("it sent what is no answer of doozer")]
pub(super) struct BadMessage;

impl Response {
    /// Reads a message, its length not included. Fields that we do not know are left out.
    pub(super) fn read(message: &[u8]) -> Result<Self, BadMessage> {
        let (mut rest, mut response) = (message, Self::default());
        while !rest.is_empty() {
            let key = varint(&mut rest)?;
            let (field, value) = (key >> 3, field(key & 7, &mut rest)?);
            match (field, value) {
                (1, Field::Number(tag)) => response.tag = tag,
                (3, Field::Number(rev)) => response.rev = rev,
                (6, Field::Bytes(value)) => response.value = value.to_vec(),
                (100, Field::Number(error)) => response.error = error,
                (101, Field::Bytes(text)) => {
                    let text = String::from_utf8_lossy(text);
                    response.detail = text.chars().take(200).collect();
                }
                (1 | 3 | 6 | 100 | 101, _) => return Err(BadMessage),
                _ => {}
            }
        }
        Ok(response)
    }
}

enum Field<'a> {
    Number(i64),
    Bytes(&'a [u8]),
    Other,
}

fn field<'a>(kind: u64, rest: &mut &'a [u8]) -> Result<Field<'a>, BadMessage> {
    Ok(match kind {
        0 => Field::Number(varint(rest)?.cast_signed()),
        1 => taken(rest, 8).map(|_| Field::Other)?,
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_| BadMessage)?;
            Field::Bytes(taken(rest, length)?)
        }
        5 => taken(rest, 4).map(|_| Field::Other)?,
        _ => return Err(BadMessage),
    })
}

fn taken<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], BadMessage> {
    let (taken, left) = rest.split_at_checked(count).ok_or(BadMessage)?;
    *rest = left;
    Ok(taken)
}

/// Seven bits a byte, the lowest first, the eighth saying that there are more.
fn varint(rest: &mut &[u8]) -> Result<u64, BadMessage> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = taken(rest, 1)?[0];
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(BadMessage);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(BadMessage)
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

fn number(out: &mut Vec<u8>, field: u64, value: i64) {
    write_varint(out, field << 3);
    write_varint(out, value.cast_unsigned());
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    write_varint(out, field << 3 | 2);
    write_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let byte = |text: &str| u8::from_str_radix(text, 16).expect("hexadecimal");
        text.split_whitespace().map(byte).collect()
    }

    // What went over the wire to and from a doozerd.
    #[test]
    fn frames_are_those_of_a_running_doozerd() {
        let get = Request::of(Verb::Get).path("/peers").frame(1);
        assert_eq!(get, hex("00 00 00 0c 08 01 10 01 22 06 2f 70 65 65 72 73"));
        let absent = Response::read(&hex("08 01 18 00 32 00")).expect("an answer");
        assert_eq!(absent, Response { tag: 1, ..Response::default() });
        let refused = Response::read(&hex("08 02 a0 06 05")).expect("an answer");
        let expected = Response { tag: 2, error: error::REV_MISMATCH, ..Response::default() };
        assert_eq!(refused, expected);
    }

    #[test]
    fn a_question_holds_what_it_was_given() {
        let set = Request::of(Verb::Set).path("/a").value(b"b c").rev(-1).frame(300);
        let expected = "00 00 00 19 08 ac 02 10 02 22 02 2f 61 2a 03 62 20 63 \
                        48 ff ff ff ff ff ff ff ff ff 01";
        assert_eq!(set, hex(expected));
        let access = Request::of(Verb::Access).value(b"").frame(1);
        assert_eq!(access, hex("00 00 00 06 08 01 10 63 2a 00"));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for bad in ["08", "08 80", "32 05 61", "0a 01 61", "0b", "08 ff ff ff ff ff ff ff ff ff 02"]
        {
            assert_eq!(Response::read(&hex(bad)), Err(BadMessage), "{bad}");
        }
        // Fields of later versions are none of our business.
        let more = "08 01 10 04 2a 02 2f 61 40 07 f9 01 00 00 00 00 00 00 00 00 18 09";
        let response = Response::read(&hex(more)).expect("an answer");
        assert_eq!(response, Response { tag: 1, rev: 9, ..Response::default() });
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            Response::read(&bytes).ok();
        }

        #[test]
        fn numbers_come_back_as_they_were(value in any::<u64>()) {
            let mut bytes = Vec::new();
            write_varint(&mut bytes, value);
            prop_assert_eq!(varint(&mut &bytes[..]), Ok(value));
        }
    }
}
