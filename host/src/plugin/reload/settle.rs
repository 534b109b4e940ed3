//! Reading a file that somebody may be in the middle of writing.
//!
//! A copy in progress looks like a truncated component. So a file is read again and
//! again until it stays the same for a moment, and one that ends in the middle of a
//! section is given longer. What stays broken is handed on all the same: the checks
//! that follow say best what is wrong with it.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};

use crate::plugin::{
    component::{self, Source},
    error::Problem,
    loader::abandoned,
};

/// Time in which a file must not change to be taken for finished.
const QUIET: Duration = Duration::from_millis(100);
/// The same for a file that is plainly not whole: a copy may stall for a while.
const QUIET_IF_PARTIAL: Duration = Duration::from_secs(2);
/// The longest wait for a file that keeps changing.
const PATIENCE: Duration = Duration::from_secs(30);

/// What tells that a file may have changed, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    /// Device, inode, size, and when it was last changed.
    File(u64, u64, u64, (i64, i64)),
    /// It is not there, or cannot be asked for.
    Absent,
}

/// The stamp of `path`, with symbolic links followed.
pub(super) fn stamp(path: &Path) -> Stamp {
    match fs::metadata(path) {
        // The change time cannot be set back, as the time of modification can.
        Ok(it) => Stamp::File(it.dev(), it.ino(), it.len(), (it.ctime(), it.ctime_nsec())),
        Err(_) => Stamp::Absent,
    }
}

/// Reads `path` once nobody seems to be writing it.
pub(super) async fn read(fills: &Handle, path: PathBuf) -> Result<Source, Problem> {
    let give_up = Instant::now() + PATIENCE;
    let mut last = None;
    let mut since = Instant::now();
    loop {
        let path = path.clone();
        let reading = fills.spawn_blocking(move || component::open(&path));
        let found = reading.await.map_err(|error| abandoned(&error))?;
        let seen = found.as_ref().map(|source| source.digest.clone()).map_err(ToString::to_string);
        let now = Instant::now();
        if last.as_ref() != Some(&seen) {
            last = Some(seen);
            since = now;
        }
        let is_whole = found.as_ref().is_ok_and(|source| is_whole(&source.bytes));
        let quiet = if is_whole { QUIET } else { QUIET_IF_PARTIAL };
        if now - since >= quiet || now >= give_up {
            return found;
        }
        // A large file is not read all the time.
        tokio::time::sleep(QUIET.max((now - since) / 4)).await;
    }
}

/// Whether `bytes` are a WebAssembly binary whose last section ends where they end.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let Some(mut rest) = bytes.strip_prefix(b"\0asm").and_then(|rest| rest.get(4..)) else {
        return false;
    };
    while let Some((_id, after)) = rest.split_first() {
        let Some((size, after)) = leb128(after) else { return false };
        let Some(after) = usize::try_from(size).ok().and_then(|size| after.get(size..)) else {
            return false;
        };
        rest = after;
    }
    true
}

/// An unsigned number of up to 32 bits, and what follows it.
fn leb128(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Write as _};

    use super::*;

    fn component() -> Vec<u8> {
        wat::parse_str("(component (core module (memory 1)) (core module))").expect("a component")
    }

    #[test]
    fn a_component_is_whole_and_its_beginning_is_not() {
        let bytes = component();
        assert!(is_whole(&bytes));
        // Cut where a section ends, nothing can be told; the header alone is one such.
        let cut = (9..bytes.len()).filter(|end| !is_whole(&bytes[..*end])).count();
        assert!(cut >= bytes.len() - 9 - 3, "{cut} of {}", bytes.len());
        assert!(!is_whole(b"") && !is_whole(b"\0asm\x0d") && !is_whole(b"#!/bin/sh"));
        assert!(!is_whole(b"\0asm\x0d\0\x01\0\x01\xff\xff\xff\xff\xff\xff"));
    }

    #[tokio::test]
    async fn a_file_is_read_when_its_writer_has_finished() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.wasm");
        let bytes = component();
        let (first, second) = bytes.split_at(bytes.len() / 2);
        fs::write(&path, first).expect("written");
        let reading = tokio::spawn({
            let path = path.clone();
            async move { read(&Handle::current(), path).await }
        });
        // Longer than a whole file has to be quiet for.
        tokio::time::sleep(3 * QUIET).await;
        assert!(!reading.is_finished(), "half of a file was taken");
        let mut file = OpenOptions::new().append(true).open(&path).expect("the file");
        file.write_all(second).expect("written");
        let source = reading.await.expect("no panic").expect("read");
        assert_eq!(source.bytes, bytes);
    }

    #[tokio::test]
    async fn what_stays_broken_is_handed_on_to_the_checks() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.wasm");
        let missing = read(&Handle::current(), path.clone()).await.map(|_| ());
        assert!(matches!(missing, Err(Problem::NotFound(_))));
        fs::write(&path, "not wasm").expect("written");
        let source = read(&Handle::current(), path).await.expect("read");
        assert_eq!(source.bytes, &b"not wasm"[..]);
    }
}
