//! What sources that ask over HTTP have in common.

use std::{error::Error, iter};

use reqwest::Response;

/// Why a body is not there as a whole.
#[derive(Debug)]
pub(super) enum Unread {
    /// It broke off.
    Broken(reqwest::Error),
    /// It is larger than what is taken.
    TooLarge,
}

/// The body of `response`, which may have `size_max` bytes.
pub(super) async fn body(response: &mut Response, size_max: usize) -> Result<Vec<u8>, Unread> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Unread::Broken)? {
        if body.len() + chunk.len() > size_max {
            return Err(Unread::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What `error` comes from, the nearest cause first.
pub(super) fn causes(error: &dyn Error) -> impl Iterator<Item = String> {
    iter::successors(error.source(), |&cause| cause.source()).map(ToString::to_string)
}
