//! What is wrong with the settings, where it stands and what would be right.
//!
//! A [`Report`] has a sentence, the [`Place`]s it speaks of (a span of the file, or of
//! an environment variable) and its remedies. [`Reports`] holds all of them: a reader
//! of settings never stops at the first.
//!
//! Invariants:
//! - rendering never fails and never panics, whatever the text and the spans;
//! - colour is the caller's choice: `Display` is always plain.

use std::{fmt, ops::Range, sync::Arc};

use annotate_snippets::{AnnotationKind, Element, Group, Level, Renderer, Snippet};
use thiserror::Error;

/// Reports that are rendered; more than these would scroll the first away.
const RENDERED_MAX: usize = 50;

/// Names that a sentence lists, and names among which the nearest is searched: nobody
/// reads more, and each of many mistakes would pay for all of them.
const LISTED_MAX: usize = 24;
const COMPARED_MAX: usize = 200;

/// Characters of a user's own text that are quoted in a sentence.
const QUOTED_MAX: usize = 60;

/// A text that settings came from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    name: String,
    text: String,
    has_lines: bool,
    /// Where each line ends.
    newlines: Vec<usize>,
}

impl Source {
    /// A file, under the name by which the user knows it.
    pub(super) fn file(name: &str, text: &str) -> Arc<Self> {
        let newlines = text.match_indices('\n').map(|(offset, _)| offset).collect();
        Arc::new(Self { name: name.to_owned(), text: text.to_owned(), has_lines: true, newlines })
    }

    /// One environment variable, shown as `NAME=value`.
    pub(super) fn variable(name: &str, value: &str) -> Arc<Self> {
        Arc::new(Self {
            name: "environment".to_owned(),
            text: format!("{name}={value}"),
            has_lines: false,
            newlines: Vec::new(),
        })
    }
}

/// A span of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    source: Arc<Source>,
    span: Range<usize>,
}

impl Place {
    pub(super) fn new(source: &Arc<Source>, span: Range<usize>) -> Self {
        Self { source: Arc::clone(source), span }
    }

    /// The bytes of its source.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Whether it is in a file, and not in the environment.
    pub(super) fn is_in_lines(&self) -> bool {
        self.source.has_lines
    }

    /// Where the place is, in a few words: `file.toml:3`, or the variable's name.
    pub fn describe(&self) -> String {
        if self.source.has_lines {
            format!("{}:{}", self.source.name, self.line())
        } else {
            self.source.text.split('=').next().unwrap_or_default().to_owned()
        }
    }

    /// The line of the file, from 1.
    fn line(&self) -> usize {
        1 + self.source.newlines.partition_point(|newline| *newline < self.span.start)
    }

    /// The span, moved to what the renderer accepts: inside the text, at characters'
    /// borders.
    fn bounded(&self) -> Range<usize> {
        let start = self.source.text.floor_char_boundary(self.span.start);
        let end = self.source.text.ceil_char_boundary(self.span.end).max(start);
        start..end
    }

    /// A file's places come in the file's order, the environment's after them.
    fn order(&self) -> (bool, &str, usize) {
        (
            !self.source.has_lines,
            if self.source.has_lines { "" } else { &self.source.text },
            self.span.start,
        )
    }
}

/// How much a report matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The settings cannot be used.
    Error,
    /// The settings can be used; they may not be what was meant.
    Warning,
}

/// One finding about the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    severity: Severity,
    title: String,
    places: Vec<(Place, String)>,
    notes: Vec<String>,
    help: Vec<String>,
}

impl Report {
    pub(super) fn error(title: impl Into<String>) -> Self {
        Self::new(Severity::Error, title.into())
    }

    pub(super) fn warning(title: impl Into<String>) -> Self {
        Self::new(Severity::Warning, title.into())
    }

    fn new(severity: Severity, title: String) -> Self {
        Self { severity, title, places: Vec::new(), notes: Vec::new(), help: Vec::new() }
    }

    /// Adds a place; the first one added is the one that is marked with carets.
    pub(super) fn at(mut self, place: Option<Place>, label: impl Into<String>) -> Self {
        self.places.extend(place.map(|place| (place, label.into())));
        self
    }

    /// Puts each of its places elsewhere.
    pub(super) fn relocate(&mut self, place: impl Fn(&Place) -> Place) {
        self.places.iter_mut().for_each(|(old, _)| *old = place(old));
    }

    /// Adds a fact that explains.
    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Adds a remedy.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// How much it matters.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// The sentence alone.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The report as text for people, with colour if wanted.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(self.title.as_str()));
        let mut rest: Vec<(bool, &(Place, String))> =
            self.places.iter().enumerate().map(|(index, place)| (index == 0, place)).collect();
        while let Some((_, (first, _))) = rest.first() {
            let source = Arc::clone(&first.source);
            let (here, elsewhere): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|(_, (place, _))| place.source == source);
            group = group.element(snippet(&here));
            rest = elsewhere;
        }
        let notes = self.notes.iter().map(|note| Level::NOTE.message(note.as_str()));
        let help = self.help.iter().map(|help| Level::HELP.message(help.as_str()));
        let group = group.elements(notes.chain(help).map(Element::from));
        renderer.render(&[group])
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// The lines that `marks`, all of one source, speak of. Only those lines are handed to
/// the renderer, whose work grows with the text it gets.
fn snippet<'a>(
    marks: &[(bool, &'a (Place, String))],
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let source: &'a Source = &marks[0].1.0.source;
    let spans = || marks.iter().map(|(_, (place, _))| place.bounded());
    let first = spans().map(|span| span.start).min().unwrap_or(0);
    let last = spans().map(|span| span.end).max().unwrap_or(0);
    let start = source.text[..first].rfind('\n').map_or(0, |newline| newline + 1);
    let end = source.text[last..].find('\n').map_or(source.text.len(), |newline| last + newline);
    let line = 1 + source.text[..start].matches('\n').count();
    Snippet::source(&source.text[start..end])
        .path(source.name.as_str())
        .line_start(line)
        .line_numbering(source.has_lines)
        .annotations(marks.iter().map(|(is_primary, (place, label))| {
            let kind = if *is_primary { AnnotationKind::Primary } else { AnnotationKind::Context };
            let span = place.bounded();
            let annotation = kind.span(span.start - start..span.end - start);
            if label.is_empty() { annotation } else { annotation.label(label.as_str()) }
        }))
}

/// How far the reading of settings came before it found something wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The file could not be read, or is not TOML.
    Parse,
    /// It is TOML, and does not make sense as settings.
    Meaning,
}

/// Everything that makes settings unusable, in the order of the file, with the warnings
/// that stand among them.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}", self.render(false))]
pub struct Reports {
    phase: Phase,
    reports: Vec<Report>,
}

impl Reports {
    /// Puts `reports` in the order of their places.
    pub(super) fn new(phase: Phase, mut reports: Vec<Report>) -> Self {
        sort(&mut reports);
        Self { phase, reports }
    }

    /// How far the reading came.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// How many of the reports are errors.
    pub fn errors(&self) -> usize {
        self.iter().filter(|report| report.severity() == Severity::Error).count()
    }

    /// What is left when there is no error.
    pub(super) fn into_warnings(self) -> Vec<Report> {
        self.reports
    }

    /// Each report.
    pub fn iter(&self) -> impl Iterator<Item = &Report> {
        self.reports.iter()
    }

    /// All reports as text for people, with colour if wanted.
    pub fn render(&self, color: bool) -> String {
        let mut texts: Vec<String> =
            self.reports.iter().take(RENDERED_MAX).map(|report| report.render(color)).collect();
        if self.reports.len() > RENDERED_MAX {
            texts.push(format!("error: {} more of these", self.reports.len() - RENDERED_MAX));
        }
        texts.join("\n\n")
    }
}

/// Puts reports in the order of their places; those without one come first.
fn sort(reports: &mut [Report]) {
    reports.sort_by(|one, other| {
        let order = |report: &Report| {
            report.places.first().map(|(place, _)| {
                let (is_variable, text, start) = place.order();
                (is_variable, text.to_owned(), start)
            })
        };
        order(one).cmp(&order(other))
    });
}

/// A user's own text for use in a sentence: quoted, in one line, not endless.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("`");
    for character in text.chars().take(QUOTED_MAX) {
        if character.is_control() {
            quoted.extend(character.escape_default());
        } else {
            quoted.push(character);
        }
    }
    if text.chars().nth(QUOTED_MAX).is_some() {
        quoted.push('…');
    }
    quoted.push('`');
    quoted
}

/// The one of `known` that `text` was probably meant to be.
pub(super) fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody mistypes a whole paragraph, and the distance costs length times length.
    if text.len() > 4 * QUOTED_MAX {
        return None;
    }
    let folded = text.to_lowercase();
    known
        .into_iter()
        .take(COMPARED_MAX)
        .map(|known| (strsim::damerau_levenshtein(&folded, &known.to_lowercase()), known))
        .filter(|(distance, known)| *distance <= known.chars().count().max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// A list for a sentence: `a`, `b` and `c`.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut rest = names.into_iter();
    let mut names: Vec<String> = rest.by_ref().take(LISTED_MAX).map(quoted).collect();
    let more = rest.count();
    if more > 0 {
        names.push(format!("{more} more"));
    }
    match names.as_slice() {
        [] => "none".to_owned(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
