//! The demo's dictionary: databases of words, read from a text of our own.

use std::collections::BTreeMap;

/// The text of every database, in the form that [`Dictionary::read`] takes.
const TEXT: &str = include_str!("dictionary.txt");

/// Databases in the order in which `!` tries them.
#[derive(Debug)]
pub(super) struct Dictionary {
    pub(super) databases: Vec<Database>,
}

/// Words under one name.
#[derive(Debug, Default)]
pub(super) struct Database {
    pub(super) name: String,
    pub(super) description: String,
    /// Definitions by word. Words are in lower case and are looked up so.
    pub(super) words: BTreeMap<String, Vec<String>>,
}

impl Dictionary {
    /// The demo's own.
    pub(super) fn bundled() -> Self {
        Self::read(TEXT)
    }

    /// Reads databases (`= name description`), words (at the margin) and the indented
    /// lines that define them. Lines that begin with `#` are comments.
    pub(super) fn read(text: &str) -> Self {
        let mut databases: Vec<Database> = Vec::new();
        let mut word = None;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some(head) = line.strip_prefix("= ") {
                let (name, description) = head.split_once(' ').unwrap_or((head, head));
                databases.push(Database {
                    name: name.to_owned(),
                    description: description.to_owned(),
                    words: BTreeMap::new(),
                });
                word = None;
                continue;
            }
            let Some(database) = databases.last_mut() else { continue };
            match (line.strip_prefix("    "), &word) {
                (Some(text), Some(word)) => {
                    let definitions = database.words.entry(String::clone(word)).or_default();
                    if let Some(definition) = definitions.last_mut() {
                        if !definition.is_empty() {
                            definition.push('\n');
                        }
                        definition.push_str(text);
                    }
                }
                _ if !line.is_empty() => {
                    database.words.entry(line.to_lowercase()).or_default().push(String::new());
                    word = Some(line.to_lowercase());
                }
                _ => {}
            }
        }
        Self { databases }
    }

    /// The databases that `name` stands for; none when there is no such database.
    pub(super) fn named(&self, name: &str) -> Option<&[Database]> {
        if name == "!" || name == "*" {
            return Some(&self.databases);
        }
        let index = self.databases.iter().position(|database| database.name == name)?;
        Some(&self.databases[index..=index])
    }
}

impl Database {
    /// The definitions of `word`, whatever its case.
    pub(super) fn define(&self, word: &str) -> &[String] {
        self.words.get(&word.to_lowercase()).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_dictionary_has_its_words() {
        let dictionary = Dictionary::bundled();
        assert_eq!(dictionary.databases.len(), 2);
        let count: usize = dictionary.databases.iter().map(|database| database.words.len()).sum();
        assert!((40..=60).contains(&count), "{count}");
        for database in &dictionary.databases {
            for (word, definitions) in &database.words {
                assert!(definitions.iter().all(|text| !text.is_empty()), "{word}");
            }
        }
        let [systems, everyday] = dictionary.databases.as_slice() else { panic!("two") };
        assert_eq!(systems.define("CACHE").len(), 2);
        assert!(systems.define("dot")[0].contains("\n.\n"));
        assert_eq!(everyday.define("piston").len(), 1);
        assert!(dictionary.named("nothing").is_none());
    }
}
