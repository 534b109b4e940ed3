//! Settings written as TOML, with the places that they come from.

use std::{fmt::Write as _, ops::Range};

/// Settings as TOML.
#[derive(Debug, Default)]
pub(super) struct Translation {
    pub(super) text: String,
    /// Spans of the text and where each comes from, in the order of the text.
    marks: Vec<(Range<usize>, Range<usize>)>,
}

impl Translation {
    /// Where `span` of the text comes from; what comes from nowhere is of the file as a
    /// whole, which is its beginning.
    pub(super) fn origin(&self, span: &Range<usize>) -> Range<usize> {
        let next = self.marks.partition_point(|(written, _)| written.start <= span.start);
        // A list comes before its items, and is looked for only as a whole.
        let mut marks = self.marks[..next].iter().rev();
        let mark = marks.find(|(written, _)| span.end <= written.end);
        mark.map_or(0..0, |(_, origin)| origin.clone())
    }

    /// Adds a line that is no setting.
    pub(super) fn comment(&mut self, line: &str) {
        _ = writeln!(self.text, "# {line}");
    }

    /// Begins the table `name`, a path as TOML writes it.
    pub(super) fn table(&mut self, name: &str, origin: Range<usize>) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let start = self.text.len();
        _ = write!(self.text, "[{name}]");
        self.mark(start, origin);
        self.text.push('\n');
    }

    /// Adds `key = value` to the table, where `value` is TOML.
    pub(super) fn setting(&mut self, key: (&str, Range<usize>), value: (&str, Range<usize>)) {
        self.key(key);
        self.value(value);
        self.text.push('\n');
    }

    /// Adds a list of texts, which as a whole is from `origin`.
    pub(super) fn list<'a>(
        &mut self,
        key: (&str, Range<usize>),
        origin: Range<usize>,
        items: impl Iterator<Item = (&'a str, Range<usize>)>,
    ) {
        self.key(key);
        let (start, whole) = (self.text.len(), self.marks.len());
        self.mark(start, origin);
        self.text.push('[');
        for (index, (item, origin)) in items.enumerate() {
            if index > 0 {
                self.text.push_str(", ");
            }
            self.value((&string(item), origin));
        }
        self.text.push(']');
        self.marks[whole].0.end = self.text.len();
        self.text.push('\n');
    }

    fn key(&mut self, (key, origin): (&str, Range<usize>)) {
        let is_bare = !key.is_empty()
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let start = self.text.len();
        if is_bare {
            self.text.push_str(key);
        } else {
            self.text.push_str(&string(key));
        }
        self.mark(start, origin);
        self.text.push_str(" = ");
    }

    fn value(&mut self, (value, origin): (&str, Range<usize>)) {
        let start = self.text.len();
        self.text.push_str(value);
        self.mark(start, origin);
    }

    fn mark(&mut self, start: usize, origin: Range<usize>) {
        self.marks.push((start..self.text.len(), origin));
    }
}

/// A text as a string of TOML in one line, which may be a key as well.
pub(super) fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if character.is_control() => _ = write!(out, "\\u{:04X}", u32::from(character)),
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}
