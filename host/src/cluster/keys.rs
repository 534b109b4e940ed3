//! The cluster's keys: who has one is a member, and nobody else is heard.
//!
//! A key file has one key of 32 random bytes a line, in base64. The first seals what this
//! node sends, all of them open what it gets, so that a key is replaced without a moment in
//! which members do not understand one another: put the new key first everywhere and leave
//! the old one below it; take the old one out once everybody has the new one.
//!
//! Invariants:
//! - a key is in no text that we write, but for the file made by whoever asked for one;
//! - a file that others can read is refused.

use std::{fmt, fs, io, os::unix::fs::PermissionsExt as _, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};

/// Bytes in a key.
const KEY_LEN: usize = 32;
/// Keys in a ring. Members name theirs to one another, and a rotation needs two.
pub const KEYS_MAX: usize = 4;
/// No file of a few lines is longer.
const FILE_MAX: u64 = 64 * 1024;

/// One key.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; KEY_LEN]);

impl Key {
    /// A new one, from the system's source of randomness.
    pub fn generate() -> io::Result<Self> {
        let mut bytes = [0; KEY_LEN];
        let filled = SystemRandom::new().fill(&mut bytes);
        filled.map_err(|_| io::Error::other("the system has no randomness to give"))?;
        Ok(Self(bytes))
    }

    /// The line that a key file has for it.
    pub fn to_line(&self) -> String {
        BASE64_STANDARD.encode(self.0)
    }

    /// What tells keys apart in logs and among members; it does not give the key away.
    pub fn fingerprint(&self) -> u32 {
        let digest = Sha256::new().chain_update(b"cachecluster key\0").chain_update(self.0);
        let digest: [u8; 32] = digest.finalize().into();
        u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
    }

    /// Another secret that whoever has the key has too, and that does not give it away: one
    /// for each `purpose`.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let prefix = Sha256::new().chain_update(b"cachecluster derived key\0");
        prefix.chain_update(purpose).chain_update([0]).chain_update(self.0).finalize().into()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn from_line(line: &str) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(line).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Key({:08x})", self.fingerprint())
    }
}

/// The keys that a node knows, the one that seals first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// A ring of `primary`, which seals, and `others`, which only open.
    ///
    /// # Errors
    /// There are more than [`KEYS_MAX`].
    pub fn new(primary: Key, others: impl IntoIterator<Item = Key>) -> Result<Self, KeyError> {
        let mut keys = vec![primary];
        for key in others {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        if keys.len() > KEYS_MAX { Err(KeyError::TooMany) } else { Ok(Self(keys)) }
    }

    /// The keys of a cluster that has none: anybody who knows its name has them too. For
    /// loopback, and for networks where everybody is trusted.
    pub fn insecure(cluster: &str) -> Self {
        let digest = Sha256::new().chain_update(b"cachecluster without a key\0");
        Self(vec![Key(digest.chain_update(cluster).finalize().into())])
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// It cannot be read, others can read it, or it holds something else than keys.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        let metadata = fs::metadata(path)?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(KeyError::Readable);
        }
        if metadata.len() > FILE_MAX {
            return Err(KeyError::TooLong);
        }
        Self::from_text(&fs::read_to_string(path)?)
    }

    /// Reads the text of a key file: a key a line; empty lines and those that begin with
    /// `#` are passed over.
    ///
    /// # Errors
    /// A line is something else, or there is no key, or too many.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            keys.push(Key::from_line(line).ok_or(KeyError::Line(number + 1))?);
        }
        let mut keys = keys.into_iter();
        Self::new(keys.next().ok_or(KeyError::Empty)?, keys)
    }

    /// The key that seals.
    pub fn primary(&self) -> &Key {
        &self.0[0]
    }

    /// All of them, the one that seals first.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    /// The same keys with another one of them to seal; unchanged if it is none of them.
    #[must_use]
    pub(super) fn sealed_by(mut self, key: &Key) -> Self {
        if let Some(at) = self.0.iter().position(|it| it == key) {
            self.0[..=at].rotate_right(1);
        }
        self
    }
}

/// Why there are no keys. No variant holds what stood in the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// Its mode lets others in.
    #[error("others can read it; make it its owner's alone: chmod 600")]
    Readable,
    /// It is no key file.
    #[error("is longer than {FILE_MAX} bytes, which no key file is")]
    TooLong,
    /// A line is no key.
    #[error("line {0} is not 32 bytes in base64; `cachecluster keygen` makes a key")]
    Line(usize),
    /// There is no key.
    #[error("has no key; `cachecluster keygen` makes one")]
    Empty,
    /// There are too many keys.
    #[error("has more than {KEYS_MAX} keys; take out those that no member seals with any more")]
    TooMany,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_comes_back_from_its_line() {
        let (new, old) = (Key::generate().unwrap(), Key::generate().unwrap());
        let text = format!("# since May\n{}\n\n  {}  \n", new.to_line(), old.to_line());
        let keys = Keys::from_text(&text).unwrap();
        assert_eq!(keys.primary(), &new);
        assert_eq!(keys.iter().collect::<Vec<_>>(), [&new, &old]);
    }

    #[test]
    fn what_is_no_key_file_is_refused_without_a_word_of_its_text() {
        assert!(matches!(Keys::from_text("# nothing\n"), Err(KeyError::Empty)));
        let error = Keys::from_text("\nc2VjcmV0\n").unwrap_err();
        assert!(matches!(error, KeyError::Line(2)));
        assert!(!format!("{error} {error:?}").contains("c2VjcmV0"));
        let many: String =
            (0..=KEYS_MAX).map(|_| Key::generate().unwrap().to_line() + "\n").collect();
        assert!(matches!(Keys::from_text(&many), Err(KeyError::TooMany)));
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster.key");
        fs::write(&path, Key::generate().unwrap().to_line()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Keys::from_file(&path), Err(KeyError::Readable)));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Keys::from_file(&path).is_ok());
    }

    #[test]
    fn a_key_is_not_in_its_debug_text() {
        let key = Key([7; KEY_LEN]);
        assert!(!format!("{key:?}").contains(&key.to_line()));
        assert!(!format!("{key:?}").contains("7, 7"));
    }
}
