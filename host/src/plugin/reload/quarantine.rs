//! Versions that failed in their probation, by digest: not loaded again before an
//! operator says so.

/// Digests remembered. A team that ships its seventeenth bad version does not want the
/// first one back.
const DIGESTS_MAX: usize = 16;

/// The digests of versions that were taken back, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::plugin) struct Quarantine(Vec<String>);

impl Quarantine {
    pub(super) fn from_digests(digests: Vec<String>) -> Self {
        let mut quarantine = Self::default();
        for digest in digests {
            quarantine.insert(digest);
        }
        quarantine
    }

    pub(in crate::plugin) fn contains(&self, digest: &str) -> bool {
        self.0.iter().any(|held| held == digest)
    }

    pub(super) fn insert(&mut self, digest: String) {
        self.lift(&digest);
        if self.0.len() == DIGESTS_MAX {
            self.0.remove(0);
        }
        self.0.push(digest);
    }

    /// Lets `digest` be loaded again; says whether it was held.
    pub(super) fn lift(&mut self, digest: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|held| held != digest);
        self.0.len() < before
    }

    pub(in crate::plugin) fn digests(&self) -> &[String] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_digest_makes_room_for_the_newest() {
        let mut quarantine = Quarantine::default();
        for digest in 0..=DIGESTS_MAX {
            quarantine.insert(digest.to_string());
        }
        assert!(!quarantine.contains("0") && quarantine.contains("1"));
        assert_eq!(quarantine.digests().len(), DIGESTS_MAX);
    }

    #[test]
    fn a_digest_is_held_once_and_let_go_once() {
        let mut quarantine = Quarantine::from_digests(vec!["a".into(), "b".into(), "a".into()]);
        assert_eq!(quarantine.digests(), ["b", "a"]);
        assert!(quarantine.lift("a") && !quarantine.lift("a"));
        assert!(!quarantine.contains("a"));
    }
}
