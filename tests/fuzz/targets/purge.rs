//! Purges, as they come with gossip and with questions.

use bytes::Bytes;

use crate::wire::{Purge, Scope};

/// Runs one input; whether there was a purge in it.
///
/// # Panics
/// A purge is not written as it was read, or more is read than was there.
pub fn run(data: &[u8]) -> bool {
    let mut bytes = Bytes::copy_from_slice(data);
    let mut count = 0;
    loop {
        let before = bytes.clone();
        let Ok(purge) = Purge::read(&mut bytes) else { break };
        count += 1;
        let taken = &before[..before.len() - bytes.len()];
        let about = match &purge.scope {
            Scope::Key(key) => key.len(),
            Scope::Tag(tag) => tag.len(),
            Scope::All => 0,
        };
        assert!(purge.group.len() + about < taken.len());
        let mut written = Vec::new();
        assert!(purge.write(&mut written));
        assert_eq!(written, taken, "{purge:?}");
    }
    count > 0
}
