//! Who may speak: the handshake of a link, and the records that follow.
//!
//! It is Noise (revision 34) by the crate `snow`: `NNpsk0` with the cluster's key for the
//! pre-shared one, X25519, AES-256-GCM and SHA-256. Each end knows after one message
//! that the other has the key, and neither learns more of it; a link that is recorded today
//! cannot be read with a key that is lost tomorrow.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use sha2::{Digest as _, Sha256};
use snow::{Builder, HandshakeState, StatelessTransportState};
use thiserror::Error;

const PATTERN: &str = "Noise_NNpsk0_25519_AESGCM_SHA256";

/// What a link begins with: a name that no HTTP request begins with, and the version.
pub const PREFACE: [u8; 8] = *b"CCLINK\x00\x01";

/// What a tag of the cipher takes of a record.
const TAG: usize = 16;

/// Bytes that one record carries at most.
pub const RECORD_MAX: usize = 65_535 - TAG;

/// The handshake failed, or a record was forged, cut or repeated: the link is over.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the other end does not have the cluster's key, or the link was tampered with")]
pub struct Closed;

/// What the nodes of a cluster have in common: a secret for each of its keys, of which there
/// are several while one is replaced. All clones are one: see [`Secret::renew`].
#[derive(Clone)]
pub struct Secret(Arc<ArcSwap<Vec<[u8; 32]>>>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// The secret of the cluster `name` with this key. Without a key, whoever knows the
    /// name may speak.
    pub fn new(name: &str, key: &[u8]) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(vec![derived(name, key)])))
    }

    /// From now on the keys are these: links are dialled with the first, or with the next
    /// where that is not known yet, and answered with any. Links that are there stay.
    pub fn renew<'a>(&self, name: &str, keys: impl IntoIterator<Item = &'a [u8]>) {
        self.0.store(Arc::new(keys.into_iter().map(|key| derived(name, key)).collect()));
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.0.load().len()
    }
}

fn derived(name: &str, key: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"cachecluster link 1\0");
    // The name has an end, so that no name and key are another name and key.
    hash.update(name.as_bytes());
    hash.update([0]);
    hash.update(key);
    hash.finalize().into()
}

/// One end of a handshake: a message each way, the first by whoever dialled.
pub struct Handshake(HandshakeState);

impl Handshake {
    /// Bytes of either message.
    pub const MESSAGE: usize = 48;

    /// The end that dials, with the key of this number.
    ///
    /// # Errors
    /// There is no such key, or the system has no randomness.
    pub fn dialled(secret: &Secret, number: usize) -> Result<Self, Closed> {
        let keys = secret.0.load();
        let key = keys.get(number).ok_or(Closed)?;
        builder(key)?.build_initiator().map(Self).map_err(|_| Closed)
    }

    /// The end that was dialled, once it has the message of the other: with the key that
    /// the other has.
    ///
    /// # Errors
    /// The other end has none of the keys.
    pub fn accepted(secret: &Secret, theirs: &[u8; Self::MESSAGE]) -> Result<Self, Closed> {
        let keys = secret.0.load();
        let accept = |key: &[u8; 32]| {
            let mut handshake = builder(key)?.build_responder().map(Self).map_err(|_| Closed)?;
            handshake.read(theirs)?;
            Ok(handshake)
        };
        keys.iter().map(accept).find(Result::is_ok).unwrap_or(Err(Closed))
    }

    /// The message of this end.
    ///
    /// # Errors
    /// It is not its turn.
    pub fn write(&mut self) -> Result<[u8; Self::MESSAGE], Closed> {
        let mut message = [0; Self::MESSAGE];
        let length = self.0.write_message(&[], &mut message).map_err(|_| Closed)?;
        if length == message.len() { Ok(message) } else { Err(Closed) }
    }

    /// Takes the message of the other end.
    ///
    /// # Errors
    /// The other end does not have the key.
    pub fn read(&mut self, message: &[u8; Self::MESSAGE]) -> Result<(), Closed> {
        self.0.read_message(message, &mut []).map(drop).map_err(|_| Closed)
    }

    /// The records of the link, once each end has had its turn.
    ///
    /// # Errors
    /// Not yet.
    pub fn finish(self) -> Result<Records, Closed> {
        self.0.into_stateless_transport_mode().map(Records).map_err(|_| Closed)
    }
}

fn builder(key: &[u8; 32]) -> Result<Builder<'_>, Closed> {
    let pattern = PATTERN.parse().map_err(|_| Closed)?;
    Builder::new(pattern).psk(0, key).map_err(|_| Closed)
}

/// Seals and opens the records of a link. Each direction counts its own, from zero: one
/// that is cut out, repeated or moved does not open.
pub struct Records(StatelessTransportState);

impl Records {
    /// Seals `bytes` in as many records as they need, which are then at the front of `out`:
    /// room that is used again and again, and that only grows. `count` is the number of
    /// records this end has sent, and is advanced.
    ///
    /// # Errors
    /// More were sent than a link may.
    pub fn seal<'a>(
        &self,
        bytes: &[u8],
        count: &mut u64,
        out: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], Closed> {
        let records = bytes.len().div_ceil(RECORD_MAX);
        let needed = bytes.len() + records * (2 + TAG);
        if out.len() < needed {
            out.resize(needed, 0);
        }
        let mut at = 0;
        for part in bytes.chunks(RECORD_MAX) {
            let length = part.len() + TAG;
            let (begin, end) = (at + 2, at + 2 + length);
            let head = u16::try_from(length).map_err(|_| Closed)?.to_le_bytes();
            out[at..begin].copy_from_slice(&head);
            self.0.write_message(*count, part, &mut out[begin..end]).map_err(|_| Closed)?;
            *count = count.checked_add(1).ok_or(Closed)?;
            at = end;
        }
        Ok(&out[..at])
    }

    /// Opens the record at the front of `received` onto `out`; says how many bytes of
    /// `received` it took, or zero if it has not all arrived. `count` is the number of
    /// records this end has opened, and is advanced.
    ///
    /// # Errors
    /// It is not the record that the other end sent.
    pub fn open(
        &self,
        received: &[u8],
        count: &mut u64,
        out: &mut BytesMut,
    ) -> Result<usize, Closed> {
        let Some((&length, rest)) = received.split_first_chunk() else { return Ok(0) };
        let length = usize::from(u16::from_le_bytes(length));
        let Some(sealed) = rest.get(..length) else { return Ok(0) };
        let begin = out.len();
        let plain = length.checked_sub(TAG).ok_or(Closed)?;
        // With room for the tag it is opened in place; else the cipher makes a copy first.
        out.resize(begin + length, 0);
        self.0.read_message(*count, sealed, &mut out[begin..]).map_err(|_| Closed)?;
        out.truncate(begin + plain);
        *count = count.checked_add(1).ok_or(Closed)?;
        Ok(2 + length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaken(one: &Secret, other: &Secret) -> Result<(Records, Records), Closed> {
        let mut dialled = Handshake::dialled(one, 0)?;
        let mut accepted = Handshake::accepted(other, &dialled.write()?)?;
        dialled.read(&accepted.write()?)?;
        Ok((dialled.finish()?, accepted.finish()?))
    }

    #[test]
    fn two_ends_with_the_key_understand_one_another() {
        let secret = Secret::new("words", b"key");
        let (one, other) = shaken(&secret, &secret).expect("shaken");
        let long = vec![7; 3 * RECORD_MAX + 5];
        let (mut sent, mut opened) = (0, 0);
        let (mut wire, mut room) = (Vec::new(), Vec::new());
        // The short one last, into the room that the long one needed.
        for bytes in [&long[..], b"hello"] {
            wire.extend_from_slice(one.seal(bytes, &mut sent, &mut room).expect("sealed"));
        }
        let (mut at, mut plain) = (0, BytesMut::new());
        while at < wire.len() {
            at += other.open(&wire[at..], &mut opened, &mut plain).expect("opened");
        }
        assert_eq!((sent, opened), (5, 5));
        assert_eq!(plain, *[&long, &b"hello"[..]].concat());
        assert!(!wire.windows(5).any(|window| window == b"hello"));
        // Back, with a count of its own.
        let (mut back, mut counted) = (Vec::new(), 0);
        let back = other.seal(b"x", &mut counted, &mut back).expect("sealed");
        let mut plain = BytesMut::new();
        assert_eq!(one.open(back, &mut 0, &mut plain), Ok(back.len()));
        assert_eq!(plain, b"x"[..]);
    }

    #[test]
    fn another_key_or_another_cluster_is_refused_at_the_first_message() {
        let secret = Secret::new("words", b"key");
        for other in [Secret::new("words", b"other"), Secret::new("staging", b"key")] {
            assert_eq!(shaken(&other, &secret).err(), Some(Closed));
        }
    }

    #[test]
    fn while_a_key_is_replaced_either_one_opens_a_link() {
        let (old, new) = (&b"old"[..], &b"new"[..]);
        let (renewed, behind) = (Secret::new("words", old), Secret::new("words", old));
        renewed.clone().renew("words", [new, old]);
        assert_eq!(renewed.keys(), 2);
        assert!(shaken(&behind, &renewed).is_ok(), "it takes the old key");
        assert!(shaken(&renewed, &behind).is_err(), "the other does not know the new one");
        let mut dialled = Handshake::dialled(&renewed, 1).expect("the old key");
        assert!(Handshake::accepted(&behind, &dialled.write().expect("a message")).is_ok());
        assert!(Handshake::dialled(&renewed, 2).is_err());
        renewed.renew("words", [new]);
        assert!(shaken(&behind, &renewed).is_err(), "the old key is no more");
    }

    #[test]
    fn records_that_are_damaged_repeated_or_moved_do_not_open() {
        let secret = Secret::new("words", b"key");
        let (one, other) = shaken(&secret, &secret).expect("shaken");
        let mut wire = Vec::new();
        let wire = one.seal(b"first", &mut 0, &mut wire).expect("sealed");
        for at in 2..wire.len() {
            let mut damaged = wire.to_vec();
            damaged[at] ^= 1;
            assert_eq!(other.open(&damaged, &mut 0, &mut BytesMut::new()), Err(Closed));
        }
        assert_eq!(other.open(wire, &mut 1, &mut BytesMut::new()), Err(Closed), "repeated");
        assert_eq!(other.open(&wire[..wire.len() - 1], &mut 0, &mut BytesMut::new()), Ok(0));
        assert_eq!(other.open(&[3, 0, 1, 2, 3], &mut 0, &mut BytesMut::new()), Err(Closed));
    }
}
