//! Purges as they travel among nodes of this program: by gossip, and with questions.
//!
//! ```text
//! purge:  node 8 · number 8 · kind 1 · group 1+n · key or label 2+n
//! purges: one after another, as many as there are
//! ```
//!
//! All numbers are little-endian.

use bytes::{Buf as _, Bytes};
use thiserror::Error;

/// A purge's name: who purged, as a number that no other node has drawn, and a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PurgeId {
    /// Drawn at each start of a node.
    pub node: u64,
    /// Counts its purges.
    pub number: u64,
}

/// A purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// Its name.
    pub id: PurgeId,
    /// The group that it is about.
    pub group: Box<str>,
    /// What of the group.
    pub scope: Scope,
}

/// What of a group is purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One key.
    Key(Box<[u8]>),
    /// Every value with this label.
    Tag(Box<str>),
    /// All of it.
    All,
}

/// Bytes that are no purge.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("these bytes are no purge")]
pub struct NoPurge;

impl Purge {
    /// Appends the purge to `out`; `false`, and nothing is, if a name or a key is too long.
    pub fn write(&self, out: &mut Vec<u8>) -> bool {
        let (kind, rest): (u8, &[u8]) = match &self.scope {
            Scope::Key(key) => (0, key),
            Scope::Tag(tag) => (1, tag.as_bytes()),
            Scope::All => (2, &[]),
        };
        let (Ok(group), Ok(length)) = (u8::try_from(self.group.len()), u16::try_from(rest.len()))
        else {
            return false;
        };
        out.extend_from_slice(&self.id.node.to_le_bytes());
        out.extend_from_slice(&self.id.number.to_le_bytes());
        out.extend_from_slice(&[kind, group]);
        out.extend_from_slice(self.group.as_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(rest);
        true
    }

    /// Takes a purge from the front of `from`.
    ///
    /// # Errors
    /// There is none.
    pub fn read(from: &mut Bytes) -> Result<Self, NoPurge> {
        let node = from.try_get_u64_le().map_err(|_| NoPurge)?;
        let number = from.try_get_u64_le().map_err(|_| NoPurge)?;
        let kind = from.try_get_u8().map_err(|_| NoPurge)?;
        let length = usize::from(from.try_get_u8().map_err(|_| NoPurge)?);
        let group = text(&take(from, length)?)?;
        let length = usize::from(from.try_get_u16_le().map_err(|_| NoPurge)?);
        let rest = take(from, length)?;
        let scope = match kind {
            0 => Scope::Key(rest.as_ref().into()),
            1 => Scope::Tag(text(&rest)?),
            2 if rest.is_empty() => Scope::All,
            _ => return Err(NoPurge),
        };
        Ok(Self { id: PurgeId { node, number }, group, scope })
    }
}

fn take(from: &mut Bytes, length: usize) -> Result<Bytes, NoPurge> {
    if from.len() < length { Err(NoPurge) } else { Ok(from.split_to(length)) }
}

fn text(bytes: &[u8]) -> Result<Box<str>, NoPurge> {
    std::str::from_utf8(bytes).map(Box::from).map_err(|_| NoPurge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope() -> impl Strategy<Value = Scope> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..600).prop_map(|key| Scope::Key(key.into())),
            ".{0,40}".prop_map(|tag| Scope::Tag(tag.into())),
            Just(Scope::All),
        ]
    }

    proptest! {
        #[test]
        fn purges_come_out_as_they_went_in(
            node: u64,
            number: u64,
            group in "[a-z_-]{0,64}",
            scopes in prop::collection::vec(scope(), 0..5),
        ) {
            let id = PurgeId { node, number };
            let purge = |scope| Purge { id, group: group.clone().into(), scope };
            let purges: Vec<_> = scopes.into_iter().map(purge).collect();
            let mut out = Vec::new();
            prop_assert!(purges.iter().all(|purge| purge.write(&mut out)));
            let mut bytes = Bytes::from(out);
            let mut read = Vec::new();
            while !bytes.is_empty() {
                read.push(Purge::read(&mut bytes).expect("a purge"));
            }
            prop_assert_eq!(read, purges);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = Bytes::from(bytes);
            while Purge::read(&mut bytes).is_ok() {}
        }
    }

    #[test]
    fn what_is_too_long_is_not_written() {
        let mut out = b"before".to_vec();
        let id = PurgeId { node: 1, number: 2 };
        let long = Purge { id, group: "g".repeat(256).into(), scope: Scope::All };
        assert!(!long.write(&mut out));
        let key = vec![0; 1 << 16].into();
        assert!(!Purge { id, group: "g".into(), scope: Scope::Key(key) }.write(&mut out));
        assert_eq!(out, b"before");
    }
}
