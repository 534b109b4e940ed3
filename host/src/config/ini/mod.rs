//! The settings of this program's ancestor, gce-cache-cluster: `cachecluster.ini`.
//!
//! The file is cut into settings as the ancestor did it (`parse`) and written anew as TOML
//! (`translate`, `writer`), which is then read, checked and put under the environment like
//! any other. Reports about it speak of the lines that the user wrote. What the ancestor
//! ignored, took for zero or threw away without a word is reported.
//!
//! Why not a crate: none cuts comments off anywhere in a line, keeps backquotes and triple
//! quotes over lines, joins lines at a backslash, and says where each value stands.

mod parse;
#[cfg(test)]
mod tests;
mod translate;
mod writer;

use std::{path::Path, sync::Arc};

use super::{
    draft::Draft,
    read,
    report::{Phase, Place, Reports, Source},
    shape::Shape,
};
use translate::Finding;
use writer::Translation;

/// A file of the ancestor that was written anew.
#[derive(Debug)]
pub(super) struct Old {
    source: Arc<Source>,
    translation: Translation,
    /// What is to be said about it, at its own lines.
    findings: Vec<Finding>,
}

/// Whether the file at `path` is one of the ancestor's, by its extension.
pub(super) fn is_one(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("ini"))
}

impl Old {
    /// Reads `text`; `name` stands for its path in reports.
    ///
    /// # Errors
    /// Lines that are none of an ini file.
    pub(super) fn read(text: &str, name: &str) -> Result<Self, Reports> {
        let source = Source::file(name, text);
        let file = parse::file(text, &source);
        if !file.faults.is_empty() {
            return Err(Reports::new(Phase::Parse, file.faults));
        }
        let (translation, findings) = translate::file(&file, &source, name);
        Ok(Self { source, translation, findings })
    }

    /// The same settings as TOML.
    pub(super) fn toml(&self) -> &str {
        &self.translation.text
    }

    /// What fits of it, as of a file in TOML, at the places of the file that was read.
    pub(super) fn draft(&self) -> Result<Draft, Reports> {
        let mut draft = read::parse(self.toml(), "the translation", Shape::root())?;
        draft.relocate(|place| Place::new(&self.source, self.translation.origin(&place.span())));
        for Finding { report, unsound } in self.findings.iter().cloned() {
            match unsound {
                Some(path) => draft.refuse(&path, report),
                None => draft.reports.push(report),
            }
        }
        Ok(draft)
    }
}

/// Takes back what is said for the ancestor's sake where the environment knows better: a
/// cluster that was given a key is not an open one.
pub(super) fn settle(draft: &mut Draft) {
    let path = ["cluster", "key_file"].map(str::to_owned);
    let has_key = draft
        .table_at(&path[..1])
        .and_then(|cluster| cluster.get("key_file")?.as_str())
        .is_some_and(|file| !file.is_empty());
    let open = ["cluster", "insecure"].map(str::to_owned);
    // A variable may say so as well, and then the two are refused as they are in TOML.
    let is_ours = draft.site(&open).is_some_and(|site| site.key.is_in_lines());
    if has_key && is_ours {
        draft.remove(&open);
        draft.reports.retain(|report| report.title() != translate::OPEN);
    }
}
