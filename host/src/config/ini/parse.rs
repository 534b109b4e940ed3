//! The ancestor's file, cut into settings.
//!
//! The rules are those of gopkg.in/ini.v1 as of August 2016, which the ancestor is pinned
//! to:
//! - a line is empty, a comment (`#` or `;` comes first), `[section]`, or a key and its value
//!   with `=` or `:` between them, whichever comes first; a key may stand in quotes;
//! - a section may come again, and goes on then;
//! - a value in backquotes or in triple quotes is taken as it stands, up to the last such
//!   quote of a line, over several lines if need be;
//! - any other value that ends in a backslash goes on in the next line, comments and all;
//! - any other value ends where `#` or `;` comes, wherever that is; then quotes around the
//!   whole are taken off, unless there are more of them inside.
//!
//! What those rules throw away is remembered as `lost`.

use std::{ops::Range, sync::Arc};

use crate::config::report::{Place, Report, Source};

/// Settings of a file; the ancestor knows nine, and a key of `[meta]` for each of a few
/// labels. A file with more is not one of its files.
const SETTINGS_MAX: usize = 4_096;

/// A piece of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// What it says, which is not always what stands there.
    pub(super) text: String,
    /// Where it stands.
    pub(super) span: Range<usize>,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its section's name; empty before the first section.
    pub(super) section: String,
    pub(super) key: Piece,
    pub(super) value: Piece,
    /// Whether the value goes on in further lines behind a backslash.
    pub(super) is_continued: bool,
}

/// A file of the ancestor.
#[derive(Debug, Default)]
pub(super) struct File {
    /// Every header.
    pub(super) sections: Vec<Piece>,
    /// Every setting, in the file's order.
    pub(super) entries: Vec<Entry>,
    /// Text behind a header or a closing quote that is no comment.
    pub(super) lost: Vec<Range<usize>>,
    /// Lines that are nothing at all.
    pub(super) faults: Vec<Report>,
}

/// Cuts `text`, which is that of `source`.
pub(super) fn file(text: &str, source: &Arc<Source>) -> File {
    let mut parser = Parser { text, source, at: 0, section: String::new(), file: File::default() };
    while let Some(line) = parser.next_line() {
        if parser.file.entries.len() + parser.file.sections.len() >= SETTINGS_MAX {
            let title = format!("more than {SETTINGS_MAX} sections and settings");
            parser.fault(line, &title, "this is probably not the file that was meant");
            break;
        }
        parser.line(line);
    }
    parser.file
}

struct Parser<'a> {
    text: &'a str,
    source: &'a Arc<Source>,
    /// Where the next line begins.
    at: usize,
    section: String,
    file: File,
}

impl Parser<'_> {
    /// The next line, with the sign that ends it.
    fn next_line(&mut self) -> Option<Range<usize>> {
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return None;
        }
        let start = self.at;
        self.at += rest.find('\n').map_or(rest.len(), |newline| newline + 1);
        Some(start..self.at)
    }

    /// `span` without the white space around it; its beginning, if there is nothing else.
    fn trimmed(&self, span: Range<usize>) -> Range<usize> {
        let text = self.text[span.clone()].trim_start();
        if text.is_empty() {
            return span.start..span.start;
        }
        let start = span.end - text.len();
        start..start + self.text[start..span.end].trim_end().len()
    }

    fn piece(&self, span: Range<usize>) -> Piece {
        Piece { text: self.text[span.clone()].to_owned(), span }
    }

    fn fault(&mut self, span: Range<usize>, title: &str, help: &str) {
        let place = Place::new(self.source, self.trimmed(span));
        self.file.faults.push(Report::error(title).at(Some(place), "").help(help));
    }

    /// Remembers what of `span` is neither empty nor a comment.
    fn lose(&mut self, span: Range<usize>) {
        let span = self.trimmed(span);
        if !span.is_empty() && !self.text[span.clone()].starts_with(['#', ';']) {
            self.file.lost.push(span);
        }
    }

    fn line(&mut self, line: Range<usize>) {
        let start = self.trimmed(line.clone()).start;
        let text = self.text[start..line.end].trim_end();
        match text.chars().next() {
            None | Some('#' | ';') => {}
            Some('[') => self.header(start..line.end),
            Some(_) => self.entry(start..line.end),
        }
    }

    fn header(&mut self, line: Range<usize>) {
        // The last one, even where it stands in a comment.
        let Some(close) = self.text[line.clone()].rfind(']') else {
            return self.fault(line, "a section without its `]`", "write `[NAME]`");
        };
        let name = self.piece(line.start + 1..line.start + close);
        if name.text.is_empty() {
            return self.fault(line, "a section without a name", "write `[NAME]`");
        }
        self.lose(line.start + close + 1..line.end);
        self.section.clone_from(&name.text);
        self.file.sections.push(name);
    }

    fn entry(&mut self, line: Range<usize>) {
        let Some((key, value)) = self.key(line.clone()) else { return };
        if key.text.is_empty() {
            return self.fault(line, "a value without a key", "a setting is `key = value`");
        }
        let Some((value, is_continued)) = self.value(value) else { return };
        let section = self.section.clone();
        self.file.entries.push(Entry { section, key, value, is_continued });
    }

    /// The key of a line, and where its value begins and the line ends.
    fn key(&mut self, line: Range<usize>) -> Option<(Piece, Range<usize>)> {
        let text = &self.text[line.clone()];
        let quote = match text {
            _ if text.starts_with("\"\"\"") && text.len() > 6 => "\"\"\"",
            _ if text.starts_with('"') => "\"",
            _ if text.starts_with('`') => "`",
            _ => "",
        };
        let closing = text.get(quote.len()..).unwrap_or_default().find(quote);
        let Some(after) = closing.map(|length| quote.len() + length) else {
            let help = "a key that begins with a quote ends with the same one";
            self.fault(line, "a key whose quote is not closed", help);
            return None;
        };
        let Some(delimiter) = text[after..].find(['=', ':']).map(|at| after + at) else {
            let help = "a setting is `key = value`; a comment begins with `#` or `;`";
            self.fault(line, "neither `=` nor `:` in this line", help);
            return None;
        };
        let name = if quote.is_empty() { 0..delimiter } else { quote.len()..after };
        let name = self.trimmed(line.start + name.start..line.start + name.end);
        if !quote.is_empty() {
            self.lose(line.start + after + quote.len()..line.start + delimiter);
        }
        Some((self.piece(name), line.start + delimiter + 1..line.end))
    }

    /// A value that begins in `rest` of a line, and whether it was continued.
    fn value(&mut self, rest: Range<usize>) -> Option<(Piece, bool)> {
        let start = self.trimmed(rest.clone()).start;
        let text = &self.text[start..rest.end];
        if text.starts_with("\"\"\"") {
            return Some((self.verbatim(start..rest.end, "\"\"\"")?, false));
        }
        if text.starts_with('`') {
            return Some((self.verbatim(start..rest.end, "`")?, false));
        }
        let whole = self.trimmed(start..rest.end);
        if self.text[whole.clone()].ends_with('\\') {
            return Some((self.continued(whole), true));
        }
        let text = &self.text[whole.clone()];
        let comment = text.find(['#', ';']).unwrap_or(text.len());
        let value = self.trimmed(whole.start..whole.start + comment);
        let text = &self.text[value.clone()];
        let is_in = |quote: char| {
            text.len() > 2
                && text.starts_with(quote)
                && text[1..].find(quote) == Some(text.len() - 2)
        };
        let bare = if is_in('\'') || is_in('"') { value.start + 1..value.end - 1 } else { value };
        Some((self.piece(bare), false))
    }

    /// A value between `quote`s, of which `rest` begins with the first.
    fn verbatim(&mut self, rest: Range<usize>, quote: &str) -> Option<Piece> {
        let start = rest.start + quote.len();
        let mut line = start..rest.end;
        loop {
            if let Some(length) = self.text[line.clone()].rfind(quote) {
                let end = line.start + length;
                self.lose(end + quote.len()..line.end);
                return Some(self.piece(start..end));
            }
            let Some(next) = self.next_line() else {
                let help = "a value that begins with this quote ends with the same one";
                let opening = rest.start..start;
                self.fault(opening, "a value whose quote is not closed", help);
                return None;
            };
            line = next;
        }
    }

    /// A value whose first line, `first`, ends in a backslash.
    fn continued(&mut self, first: Range<usize>) -> Piece {
        let mut text = self.text[first.start..first.end - 1].to_owned();
        let mut end = first.end;
        while let Some(line) = self.next_line() {
            let line = self.trimmed(line);
            if line.is_empty() {
                break;
            }
            end = line.end;
            let next = &self.text[line];
            let Some(next) = next.strip_suffix('\\') else {
                text.push_str(next);
                break;
            };
            text.push_str(next);
        }
        Piece { text, span: first.start..end }
    }
}
