//! Settings from the environment: `CACHECLUSTER_HTTP__LISTEN=0.0.0.0:80`.
//!
//! After the prefix, two underscores stand between a table and its key. Names are
//! compared without case. A plugin's or a group's name has every character but letters
//! and digits written as one underscore; it names the one in the file that is written
//! so, else it makes a new one in lower case. A list is written with commas, or as TOML
//! in brackets.
//!
//! `CACHECLUSTER_CONFIG` is the command line's, `CACHECLUSTER_LOG` is short for
//! `CACHECLUSTER_LOG__FILTER`. What container platforms put into the environment of
//! their own accord for a service of this name (`CACHECLUSTER_SERVICE_HOST`,
//! `CACHECLUSTER_PORT_8080_TCP`, …) is left alone. Any other variable with the prefix is
//! an error: a setting that is silently ignored is worse than one that is refused.

use toml::{Value, de::DeValue};

use super::{
    draft::{Draft, Path, Site},
    leaf::{self, Problem},
    report::{Place, Report, Source, nearest, quoted},
    secrets,
    shape::Shape,
    walk::dotted,
};

/// How the name of every variable that is ours begins.
pub(super) const PREFIX: &str = "CACHECLUSTER_";

/// Puts what the environment says over what the file said.
pub(super) fn apply(draft: &mut Draft, env: impl Iterator<Item = (String, String)>) {
    let mut ours: Vec<(String, String)> = env
        .filter(|(name, value)| {
            name.strip_prefix(PREFIX)
                .is_some_and(|rest| rest != "CONFIG" && !is_foreign(rest, value))
        })
        .collect();
    // An order of its own, so that the same environment gives the same reports.
    ours.sort();
    for (name, value) in ours {
        variable(draft, &name, &value);
    }
}

/// Whether a container platform set this variable, to tell where a service named
/// `cachecluster` is.
fn is_foreign(rest: &str, value: &str) -> bool {
    let has_port = |text: &str| {
        text.split("PORT_").skip(1).any(|after| after.starts_with(|c: char| c.is_ascii_digit()))
    };
    !rest.contains("__")
        && (rest.ends_with("SERVICE_HOST")
            || rest.contains("SERVICE_PORT")
            || has_port(rest)
            || (rest.ends_with("PORT") && value.contains("://")))
}

fn variable(draft: &mut Draft, name: &str, value: &str) {
    let rest = &name[PREFIX.len()..];
    let segments: Vec<&str> =
        if rest == "LOG" { vec!["log", "filter"] } else { rest.split("__").collect() };
    let setting = resolve(draft, &segments);
    // What is not meant to be read by people is not shown to them, and neither is the
    // value of a variable that may have been meant for a secret.
    let is_shown = match &setting {
        Ok((_, Shape::Secret)) => secrets::read(value).is_ok(),
        Ok(_) => true,
        Err(_) => false,
    };
    let shown = if is_shown { value } else { "…" };
    let source = Source::variable(name, shown);
    let site = Site {
        key: Place::new(&source, 0..name.len()),
        value: Place::new(&source, name.len() + 1..name.len() + 1 + shown.len()),
    };
    match setting {
        Ok((path, shape)) => match read(shape, value) {
            Ok(value) => draft.put(&path, value, &site),
            Err(problem) => {
                let report = Report::error(problem.title).at(Some(site.value), dotted(&path));
                draft.refuse(&path, problem.help.into_iter().fold(report, Report::help));
            }
        },
        Err(Unresolved::Ambiguous(segment, names)) => {
            let report = Report::error(format!(
                "{} could be {}",
                quoted(segment),
                super::report::listed(names.iter().map(String::as_str))
            ))
            .at(Some(site.key), "")
            .help("set it in the file, or give the two names that differ in more than punctuation");
            draft.reports.push(report);
        }
        Err(Unresolved::Table(path)) => {
            let report =
                Report::error(format!("{} is a table, not a setting", quoted(&dotted(&path))))
                    .at(Some(site.key), "")
                    .help(format!("name one of its settings: `{name}__KEY`"));
            draft.reports.push(report);
        }
        Err(Unresolved::Unknown) => {
            let report = Report::error(format!("unknown variable {}", quoted(name)))
                .at(Some(site.key), "no such setting");
            let report = match suggestion(draft, name) {
                Some(near) => report.help(format!("did you mean `{near}`?")),
                None => report.help(
                    "two underscores stand between a table and its key, as in \
                     `CACHECLUSTER_HTTP__LISTEN`",
                ),
            };
            draft.reports.push(report);
        }
    }
}

/// Why a variable names no setting.
enum Unresolved<'a> {
    Unknown,
    /// It stops before a key.
    Table(Path),
    /// Several names are written like this segment.
    Ambiguous(&'a str, Vec<String>),
}

/// The setting that `segments` name.
fn resolve<'a>(
    draft: &Draft,
    segments: &[&'a str],
) -> Result<(Path, &'static Shape), Unresolved<'a>> {
    let mut shape = Shape::root();
    let mut path = Path::new();
    for &segment in segments {
        match shape {
            Shape::Table(fields) => {
                let field = fields
                    .iter()
                    .find(|field| field.name.eq_ignore_ascii_case(segment))
                    .ok_or(Unresolved::Unknown)?;
                path.push(field.name.clone());
                shape = &field.shape;
            }
            Shape::Map(entry) if !segment.is_empty() => {
                let mut names: Vec<String> = draft
                    .table_at(&path)
                    .into_iter()
                    .flat_map(toml::Table::keys)
                    .filter(|known| folded(known) == folded(segment))
                    .cloned()
                    .collect();
                if names.len() > 1 {
                    return Err(Unresolved::Ambiguous(segment, names));
                }
                path.push(names.pop().unwrap_or_else(|| segment.to_lowercase()));
                shape = entry;
            }
            _ => return Err(Unresolved::Unknown),
        }
    }
    match shape {
        Shape::Table(_) | Shape::Map(_) => Err(Unresolved::Table(path)),
        _ => Ok((path, shape)),
    }
}

/// A name as a variable writes it.
fn folded(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
        .collect()
}

/// The known variable that `name` was probably meant to be.
fn suggestion(draft: &Draft, name: &str) -> Option<String> {
    let mut known = Vec::new();
    variables(Shape::root(), draft.table_at(&[]), PREFIX.trim_end_matches('_'), "_", &mut known);
    // One underscore for two is the commonest slip of all.
    let merged = |name: &str| name.to_ascii_uppercase().replace("__", "_");
    let same = known.iter().find(|known| merged(known) == merged(name));
    same.map(String::as_str)
        .or_else(|| nearest(name, known.iter().map(String::as_str)))
        .map(str::to_owned)
}

/// The variables of every setting there is, and of every plugin and group in `table`.
fn variables(
    shape: &Shape,
    table: Option<&toml::Table>,
    prefix: &str,
    separator: &str,
    known: &mut Vec<String>,
) {
    let mut below = |name: &str, shape: &Shape| {
        let table = table.and_then(|table| table.get(name)?.as_table());
        let prefix = format!("{prefix}{separator}{}", folded(name));
        variables(shape, table, &prefix, "__", known);
    };
    match shape {
        Shape::Table(fields) => fields.iter().for_each(|field| below(&field.name, &field.shape)),
        Shape::Map(entry) => {
            table.into_iter().flat_map(toml::Table::keys).for_each(|name| below(name, entry));
        }
        _ => known.push(prefix.to_owned()),
    }
}

/// Reads a variable's value as the setting wants it.
fn read(shape: &Shape, value: &str) -> Result<Value, Problem> {
    match shape {
        Shape::Integer(_) => match value.trim().parse() {
            Ok(number) => leaf::integer(shape, number),
            Err(_) => Err(plain(shape, value)),
        },
        Shape::Number(_) => match value.trim().parse() {
            Ok(number) => leaf::float(shape, number),
            Err(_) => Err(plain(shape, value)),
        },
        Shape::Switch => match value.trim() {
            "true" => leaf::boolean(shape, true),
            "false" => leaf::boolean(shape, false),
            _ => Err(plain(shape, value)),
        },
        Shape::List(item) => items(value)?
            .iter()
            .map(|text| leaf::text(item, text))
            .collect::<Result<_, _>>()
            .map(Value::Array),
        _ => leaf::text(shape, value),
    }
}

fn plain(shape: &Shape, value: &str) -> Problem {
    Problem {
        title: format!("{} is not {}", quoted(value), shape.noun()),
        help: leaf::mistyped(shape, "", "").help,
    }
}

/// A list's texts: `a, b`, or TOML where a text has a comma of its own.
fn items(value: &str) -> Result<Vec<String>, Problem> {
    let value = value.trim();
    if !value.starts_with('[') {
        let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
        return Ok(items.map(str::to_owned).collect());
    }
    let problem = || Problem {
        title: format!("{} is not a list of strings", quoted(value)),
        help: Some("write it with commas, `a,b`, or as TOML: `[\"a\", \"b\"]`".to_owned()),
    };
    let list = DeValue::parse(value).map_err(|_| problem())?;
    let list = list.get_ref().as_array().ok_or_else(problem)?;
    list.iter().map(|item| item.get_ref().as_str().map(str::to_owned).ok_or_else(problem)).collect()
}
