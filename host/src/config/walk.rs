//! The file against the shape: unknown keys, wrong types, values out of range.
//!
//! The walk goes only as deep as the shape, whatever the file nests.

use std::sync::Arc;

use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue},
};

use super::{
    draft::{Draft, Path, Site},
    leaf::{self, Problem},
    report::{Place, Report, Source, listed, nearest, quoted},
    shape::{Field, Shape},
};

/// Unknown names for which the right one is searched. A file with more of them is not a
/// file of settings, and searching would take longer than anybody waits.
pub(super) const SUGGESTIONS_MAX: usize = 1_000;

/// Takes what fits of `file` into `draft`, and reports the rest. `root` is the shape of
/// the whole file.
pub(super) fn file(draft: &mut Draft, source: &Arc<Source>, file: &DeTable<'_>, root: &Shape) {
    let Shape::Table(fields) = root else { return };
    draft.table = Walk { draft, source, root }.table(file, fields, &mut Path::new());
}

struct Walk<'a> {
    draft: &'a mut Draft,
    source: &'a Arc<Source>,
    root: &'a Shape,
}

impl Walk<'_> {
    fn table(&mut self, table: &DeTable<'_>, fields: &[Field], path: &mut Path) -> Table {
        let mut accepted = Table::new();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            path.push(name.to_owned());
            if let Some(field) = fields.iter().find(|field| field.name == name) {
                let value = self.entry(key.span(), value, &field.shape, path);
                accepted.extend(value.map(|value| (name.to_owned(), value)));
            } else {
                let report = self.unknown(key, fields, path);
                self.draft.reports.push(report);
            }
            path.pop();
        }
        accepted
    }

    fn map(&mut self, table: &DeTable<'_>, shape: &Shape, path: &mut Path) -> Table {
        let mut accepted = Table::new();
        for (key, value) in table {
            path.push(key.get_ref().to_string());
            let value = self.entry(key.span(), value, shape, path);
            accepted.extend(value.map(|value| (key.get_ref().to_string(), value)));
            path.pop();
        }
        accepted
    }

    /// One key with its value: remembered where it stands, taken if it fits.
    fn entry(
        &mut self,
        key: std::ops::Range<usize>,
        value: &Spanned<DeValue<'_>>,
        shape: &Shape,
        path: &mut Path,
    ) -> Option<Value> {
        let site = Site {
            key: Place::new(self.source, key),
            value: Place::new(self.source, value.span()),
        };
        self.draft.sites.insert(path.clone(), site);
        self.value(value, shape, path)
    }

    fn value(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        shape: &Shape,
        path: &mut Path,
    ) -> Option<Value> {
        let accepted = match (value.get_ref(), shape) {
            (DeValue::Table(table), Shape::Table(fields)) => {
                return Some(Value::Table(self.table(table, fields, path)));
            }
            (DeValue::Table(table), Shape::Map(entry)) => {
                return Some(Value::Table(self.map(table, entry, path)));
            }
            (DeValue::Array(items), Shape::List(item)) => {
                let mut accepted = Vec::new();
                for (index, value) in items.iter().enumerate() {
                    path.push(index.to_string());
                    accepted.extend(self.entry(value.span(), value, item, path));
                    path.pop();
                }
                return Some(Value::Array(accepted));
            }
            (DeValue::Array(_), Shape::Map(_)) => Err(Problem {
                title: "a list where a table belongs".to_owned(),
                help: Some(format!("name each one: `[{}.NAME]`", path.join("."))),
            }),
            (value, shape) => scalar(value, shape),
        };
        match accepted {
            Ok(value) => Some(value),
            Err(problem) => {
                let mut report = Report::error(problem.title)
                    .at(Some(Place::new(self.source, value.span())), dotted(path));
                report = problem.help.into_iter().fold(report, Report::help);
                self.draft.refuse(path, report);
                None
            }
        }
    }

    fn unknown(
        &self,
        key: &Spanned<toml::de::DeString<'_>>,
        fields: &[Field],
        path: &Path,
    ) -> Report {
        let name = key.get_ref().as_ref();
        let table = &path[..path.len() - 1];
        let place = Place::new(self.source, key.span());
        let title = match table {
            [] => format!("unknown key {}", quoted(name)),
            table => format!("unknown key {} in {}", quoted(name), quoted(&header(table))),
        };
        let report = Report::error(title).at(Some(place), "");
        if self.draft.reports.len() > SUGGESTIONS_MAX {
            return report;
        }
        let names = || fields.iter().map(|field| field.name.as_str());
        if let Some(near) = nearest(name, names()) {
            return report.help(format!("did you mean `{near}`?"));
        }
        let report = match elsewhere(self.root, name, table) {
            Some(home) => report.help(format!("`{name}` belongs in {}", quoted(&header(&home)))),
            None => report,
        };
        report.help(format!("known here are {}", listed(names())))
    }
}

/// A value that is neither a table nor a list where one belongs.
fn scalar(value: &DeValue<'_>, shape: &Shape) -> Result<Value, Problem> {
    match value {
        DeValue::String(text) => leaf::text(shape, text),
        // Beyond 64 bits, only what is wrong with it can be said.
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => leaf::integer(shape, number),
            Err(_) => Err(leaf::mistyped(shape, "an integer beyond 64 bits", "")),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(float) => leaf::float(shape, float),
            Err(_) => Err(leaf::mistyped(shape, "a number with a point", number.as_str())),
        },
        DeValue::Boolean(is_true) => leaf::boolean(shape, *is_true),
        DeValue::Datetime(time) => Err(leaf::mistyped(shape, "a date or time", &time.to_string())),
        DeValue::Array(_) => Err(leaf::mistyped(shape, "a list", "")),
        DeValue::Table(_) => Err(leaf::mistyped(shape, "a table", "")),
    }
}

/// A table that knows `name`: below `table` if there is one, else anywhere.
fn elsewhere(root: &Shape, name: &str, table: &[String]) -> Option<Path> {
    let mut here = Some(root);
    for key in table {
        here = here.and_then(|shape| match shape {
            Shape::Table(fields) => {
                fields.iter().find(|field| field.name == *key).map(|field| &field.shape)
            }
            Shape::Map(entry) | Shape::List(entry) => Some(entry.as_ref()),
            _ => None,
        });
    }
    here.and_then(|shape| below(name, shape, table.to_vec()))
        .or_else(|| below(name, root, Path::new()))
}

fn below(name: &str, shape: &Shape, path: Path) -> Option<Path> {
    let extended = |key: &str| path.iter().cloned().chain([key.to_owned()]).collect();
    match shape {
        Shape::Table(fields) if fields.iter().any(|field| field.name == name) => Some(path),
        Shape::Table(fields) => {
            fields.iter().find_map(|field| below(name, &field.shape, extended(&field.name)))
        }
        Shape::Map(entry) => below(name, entry, extended("NAME")),
        _ => None,
    }
}

/// How a table's header is written: `[groups.define]`, or `[[test]]` for one of a list,
/// whose path ends in its number there.
pub(super) fn header(table: &[String]) -> String {
    match table {
        [list @ .., number] if !list.is_empty() && number.parse::<usize>().is_ok() => {
            format!("[[{}]]", dotted(list))
        }
        table => format!("[{}]", dotted(table)),
    }
}

/// How a path is written, with quotes where TOML wants them.
pub(super) fn dotted<S: AsRef<str>>(path: &[S]) -> String {
    let key = |key: &S| {
        let key = key.as_ref();
        let is_bare = !key.is_empty()
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if is_bare { key.to_owned() } else { toml::Value::String(key.to_owned()).to_string() }
    };
    path.iter().map(key).collect::<Vec<_>>().join(".")
}
