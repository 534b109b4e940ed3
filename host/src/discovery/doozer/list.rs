//! The file that all nodes share: entries with spaces between them.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::discovery::FOUND_MAX;

/// What stands in the file: members, and what is none and somebody else's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct List {
    pub(super) places: BTreeSet<SocketAddr>,
    pub(super) strange: BTreeSet<String>,
    are_more: bool,
}

impl List {
    /// Reads the file. An empty one has no entry, however often it is split.
    pub(super) fn read(value: &[u8]) -> Self {
        let text = String::from_utf8_lossy(value);
        let mut list = Self::default();
        for entry in text.split_ascii_whitespace() {
            if list.places.len() + list.strange.len() >= FOUND_MAX {
                list.are_more = true;
                break;
            }
            match entry.parse() {
                Ok(place) => _ = list.places.insert(place),
                Err(_) => _ = list.strange.insert(entry.to_owned()),
            }
        }
        list
    }

    /// The file with these entries: each once, in order.
    pub(super) fn written(&self) -> String {
        let places = self.places.iter().map(SocketAddr::to_string);
        let entries: Vec<_> = places.chain(self.strange.iter().cloned()).collect();
        entries.join(" ")
    }

    /// What is wrong with it, if anything is.
    pub(super) fn trouble(&self) -> Option<String> {
        if self.are_more {
            return Some(format!(
                "the file has more than {FOUND_MAX} entries; it is left as it is"
            ));
        }
        let first: String = self.strange.first()?.chars().take(60).collect();
        Some(format!("{} entries are no addresses with a port: {first:?}", self.strange.len()))
    }

    /// Whether it may be written: not if that would lose entries.
    pub(super) fn is_whole(&self) -> bool {
        !self.are_more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_counts_once_and_an_empty_one_is_none() {
        for empty in ["", " ", "  \n"] {
            assert_eq!(List::read(empty.as_bytes()), List::default(), "{empty:?}");
        }
        let list = List::read(b"10.0.0.9:1  10.0.0.10:1 http://a:1 10.0.0.9:1 [fd00::1]:2 ");
        assert_eq!(list.written(), "10.0.0.9:1 10.0.0.10:1 [fd00::1]:2 http://a:1");
        assert_eq!(List::read(list.written().as_bytes()), list);
        let told = list.trouble().expect("told");
        assert!(told.contains("1 entries are no addresses with a port: \"http://a:1\""), "{told}");
    }

    #[test]
    fn a_file_that_is_too_long_is_not_written() {
        let text = "10.0.0.1:1 ".repeat(3);
        assert!(List::read(text.as_bytes()).is_whole());
        let text: Vec<_> = (0..=FOUND_MAX).map(|number| format!("x{number}")).collect();
        let list = List::read(text.join(" ").as_bytes());
        assert!(!list.is_whole() && list.trouble().expect("told").contains("more than"));
    }
}
