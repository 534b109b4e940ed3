//! The envelope: what is on the wire, and what of it is believed.
//!
//! ```text
//! version 1 · key 1 · boot 8 · counter 6 · sealed payload · tag 16
//! ```
//!
//! A packet is sealed with ChaCha20-Poly1305 under a key of its sender's own, derived
//! (HKDF-SHA-256) from the cluster's key and the random number that the sender drew when
//! it started, its *boot*. The nonce is the counter, so it never repeats and needs neither
//! randomness nor a clock. Bound into the seal, though not sent, are the channel, the
//! cluster's name and the protocol's version: what was sealed for a datagram opens as
//! nothing else, and two clusters never merge even if they share a key.
//!
//! Invariants:
//! - nothing is kept of a sender, and nothing told about a packet but a count, before its
//!   tag has been verified;
//! - a packet is opened once: its counter must be new;
//! - opening takes no more memory than the packet has.

use std::fmt;

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Prk, Salt},
};

use super::replay::{Senders, Window};
use crate::cluster::keys::{Key, Keys};

/// The longest datagram: no link of IPv6 splits it, whatever is tunnelled.
pub const DATAGRAM_MAX: usize = 1_232;
/// What the envelope adds.
pub const OVERHEAD: usize = HEAD + TAG;
/// What is left of a datagram for what is in it.
pub const PAYLOAD_MAX: usize = DATAGRAM_MAX - OVERHEAD;

const VERSION: u8 = 1;
/// Version of what is inside, bound into the seal.
const PROTOCOL: u8 = 2;
const HEAD: usize = 1 + 1 + 8 + COUNTER;
/// Packets that a node seals before it is restarted: a million a second for eight years.
const COUNTER: usize = 6;
const TAG: usize = 16;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// A datagram, with a packet of foca's.
    Datagram,
    /// What is asked over TCP.
    Request,
    /// What is answered over TCP.
    Reply,
}

/// Why a packet was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Rejection {
    /// It is too short or too long to be one.
    #[error("no packet of ours by its length")]
    Length,
    /// It is of another version.
    #[error("another version of the wire")]
    Version,
    /// It names a key that we do not have.
    #[error("sealed with a key that is not ours")]
    Key,
    /// It was not sealed with our key for this cluster and channel, or changed on its way.
    #[error("seal broken, or of another cluster")]
    Seal,
    /// It has been here before, or is too old to tell.
    #[error("seen before")]
    Replay,
    /// It is one of our own.
    #[error("our own")]
    Own,
    /// It was opened, and makes no sense.
    #[error("malformed")]
    Malformed,
}

/// What was in a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Which start of its sender it comes from.
    pub boot: u64,
    /// The payload.
    pub payload: Vec<u8>,
}

/// Seals and opens for one node in one cluster.
pub struct Envelope {
    cluster: Vec<u8>,
    boot: u64,
    counter: u64,
    keys: Keys,
    known: Vec<Known>,
    sealing: Sealing,
    senders: Senders<Sender>,
}

/// One of the cluster's keys, ready to derive from.
struct Known {
    fingerprint: u32,
    prk: Prk,
}

struct Sealing {
    id: u8,
    key: LessSafeKey,
}

struct Sender {
    key: LessSafeKey,
    window: Window,
}

impl Envelope {
    /// For a node of `cluster` that drew `boot` when it started. The same `boot` must never
    /// be used twice with the same keys.
    pub fn new(cluster: &str, keys: Keys, boot: u64) -> Self {
        let known: Vec<_> = keys.iter().map(Known::new).collect();
        let sealing = Sealing::new(keys.primary(), boot);
        let senders = Senders::new(senders_max(0));
        Self {
            cluster: cluster.as_bytes().to_vec(),
            boot,
            counter: 0,
            keys,
            known,
            sealing,
            senders,
        }
    }

    /// The keys in use.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Takes other keys into use. What was seen under those that stay is not forgotten.
    pub fn set_keys(&mut self, keys: Keys) {
        self.known = keys.iter().map(Known::new).collect();
        self.sealing = Sealing::new(keys.primary(), self.boot);
        self.keys = keys;
    }

    /// Bounds what is kept of senders by four for each of `members`.
    pub fn set_members(&mut self, members: usize) {
        self.senders.resize(senders_max(members));
    }

    /// Senders of which something is kept.
    pub fn senders(&self) -> usize {
        self.senders.len()
    }

    /// Seals `payload`.
    pub fn seal(&mut self, channel: Channel, payload: &[u8]) -> Vec<u8> {
        self.counter += 1;
        let mut packet = Vec::with_capacity(payload.len() + OVERHEAD);
        packet.push(VERSION);
        packet.push(self.sealing.id);
        packet.extend_from_slice(&self.boot.to_be_bytes());
        packet.extend_from_slice(&self.counter.to_be_bytes()[8 - COUNTER..]);
        let bound = Aad::from(self.bound(channel, &packet));
        packet.extend_from_slice(payload);
        let (_, sealed) = packet.split_at_mut(HEAD);
        let key = &self.sealing.key;
        match key.seal_in_place_separate_tag(nonce(self.counter), bound, sealed) {
            Ok(tag) => packet.extend_from_slice(tag.as_ref()),
            // Only for payloads of hundreds of gigabytes. Nothing must leave unsealed.
            Err(_) => packet.clear(),
        }
        packet
    }

    /// Opens `packet`.
    ///
    /// # Errors
    /// It is not to be believed; nothing has changed then.
    pub fn open(&mut self, channel: Channel, packet: &[u8]) -> Result<Opened, Rejection> {
        if packet.len() < OVERHEAD || channel == Channel::Datagram && packet.len() > DATAGRAM_MAX {
            return Err(Rejection::Length);
        }
        let (head, sealed) = packet.split_at(HEAD);
        if head[0] != VERSION {
            return Err(Rejection::Version);
        }
        let (id, boot, counter) = (head[1], number(&head[2..10]), number(&head[10..]));
        if boot == self.boot {
            return Err(Rejection::Own);
        }
        let bound = self.bound(channel, head);
        let mut rejection = Rejection::Key;
        for known in self.known.iter().filter(|known| known.id() == id) {
            let kept = self.senders.get(known.fingerprint, boot);
            if kept.as_ref().is_some_and(|sender| !sender.window.is_new(counter)) {
                return Err(Rejection::Replay);
            }
            let mut payload = sealed.to_vec();
            let derived;
            let key = if let Some(sender) = &kept {
                &sender.key
            } else {
                derived = known.derive(boot);
                &derived
            };
            let opened = key.open_in_place(nonce(counter), Aad::from(&bound), &mut payload);
            let Ok(opened) = opened.map(|opened| opened.len()) else {
                rejection = Rejection::Seal;
                continue;
            };
            payload.truncate(opened);
            if let Some(sender) = kept {
                sender.window.note(counter);
            } else {
                let mut window = Window::default();
                window.note(counter);
                let sender = Sender { key: known.derive(boot), window };
                self.senders.insert(known.fingerprint, boot, sender);
            }
            return Ok(Opened { boot, payload });
        }
        Err(rejection)
    }

    /// What is bound into the seal beside the payload.
    fn bound(&self, channel: Channel, head: &[u8]) -> Vec<u8> {
        let mut bound = Vec::with_capacity(head.len() + 2 + self.cluster.len());
        bound.extend_from_slice(head);
        bound.push(PROTOCOL);
        bound.push(channel as u8);
        bound.extend_from_slice(&self.cluster);
        bound
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Envelope").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Known {
    fn new(key: &Key) -> Self {
        let salt = Salt::new(HKDF_SHA256, b"cachecluster membership 1");
        Self { fingerprint: key.fingerprint(), prk: salt.extract(key.bytes()) }
    }

    /// The key of whoever drew `boot`.
    fn derive(&self, boot: u64) -> LessSafeKey {
        let boot = boot.to_be_bytes();
        let key = match self.prk.expand(&[&boot], &CHACHA20_POLY1305) {
            Ok(okm) => UnboundKey::from(okm),
            Err(_) => unreachable!("32 bytes are fewer than HKDF can give"),
        };
        LessSafeKey::new(key)
    }

    fn id(&self) -> u8 {
        self.fingerprint.to_be_bytes()[0]
    }
}

impl Sealing {
    fn new(key: &Key, boot: u64) -> Self {
        let known = Known::new(key);
        Self { id: known.id(), key: known.derive(boot) }
    }
}

/// Senders of which something is kept in a cluster of so many: a few starts of each.
fn senders_max(members: usize) -> usize {
    4 * members.max(16)
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 8..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests;
