//! What peers of the family ask: paths, values that are put, keys that are removed.
//!
//! The first byte of an input says which it is.

use bytes::Bytes;

use crate::wire::{PeerPath, RemoveKeys, SetRequest};

/// Runs one input; whether it was read.
///
/// # Panics
/// More is read than was there, or a path does not come back as it was written.
pub fn run(data: &[u8]) -> bool {
    let Some((kind, body)) = data.split_first() else { return false };
    match kind % 4 {
        0 => path(body, false),
        1 => path(body, true),
        2 => {
            let bytes = Bytes::copy_from_slice(body);
            let Ok(SetRequest { group, key, value, .. }) = SetRequest::read(&bytes) else {
                return false;
            };
            assert!([&group, &key, &value].iter().all(|part| part.len() <= body.len()));
            true
        }
        _ => {
            let Ok(RemoveKeys { group, keys }) = RemoveKeys::read(body) else { return false };
            let length = group.len() + keys.iter().map(String::len).sum::<usize>();
            assert!(length <= body.len() && keys.len() <= body.len());
            true
        }
    }
}

fn path(body: &[u8], plus_is_space: bool) -> bool {
    let Ok(text) = std::str::from_utf8(body) else { return false };
    let Ok(PeerPath { group, key }) = PeerPath::parse(text, plus_is_space) else { return false };
    assert!(group.len() + key.len() < text.len());
    // A group of ours has a name that is text.
    if let Ok(name) = std::str::from_utf8(&group) {
        let written = PeerPath::write(name, &key);
        for plus_is_space in [false, true] {
            let again = PeerPath::parse(&written, plus_is_space).expect("a path of ours");
            assert_eq!((&again.group, &again.key), (&group, &key), "{written}");
        }
    }
    true
}
