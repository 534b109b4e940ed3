//! What peers of the family answer.

use std::time::SystemTime;

use bytes::Bytes;

use crate::wire::{GetResponse, expire, remaining};

/// Runs one input; whether it was read.
///
/// # Panics
/// More is read than was there, or it does not come back as it was written.
pub fn run(data: &[u8]) -> bool {
    let bytes = Bytes::copy_from_slice(data);
    let Ok(response) = GetResponse::read(&bytes) else { return false };
    assert!(response.value.len() <= data.len());
    let (head, tail) = GetResponse::around(response.value.len(), response.expire);
    let written = [head.as_ref(), &response.value, tail.as_ref()].concat();
    assert_eq!(GetResponse::read(&written.into()), Ok(response.clone()));
    // Whatever moment a peer names, and whatever the time is here.
    let later = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    for now in [SystemTime::UNIX_EPOCH, later] {
        if let Some(left) = remaining(response.expire, now) {
            let _ = expire(left, now);
        }
    }
    !data.is_empty()
}
