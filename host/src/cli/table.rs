//! Columns for people.

use std::fmt;

use super::operator::plain;

/// Rows of texts, printed in columns as wide as they need to be.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|&it| it.to_owned()).collect()] }
    }

    /// Adds a row; an empty text is shown as a dash.
    pub(super) fn row(&mut self, row: impl IntoIterator<Item = String>) {
        let shown = |text: String| if text.is_empty() { "-".to_owned() } else { plain(&text) };
        self.rows.push(row.into_iter().map(shown).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |at: usize| {
            let texts = self.rows.iter().filter_map(|row| row.get(at));
            texts.map(|text| text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..count).map(width).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(text, width)| format!("{text:<width$}"));
            writeln!(to, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_text() {
        let mut table = Table::new(&["A", "LONG"]);
        table.row(["wide".to_owned(), String::new()]);
        table.row(["\x1b[2J".to_owned(), "x".to_owned()]);
        assert_eq!(table.to_string(), "A          LONG\nwide       -\n\\u{1b}[2J  x\n");
    }
}
