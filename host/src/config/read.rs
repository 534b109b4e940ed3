//! Reading settings: file, then environment, then what it all means together.
//!
//! A file that is not TOML ends the reading after all of its syntax errors. Otherwise
//! everything that is wrong is reported at once: what a phase refuses is left out, and
//! later phases say nothing about what depends on it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::de::DeserializeOwned;
use toml::{Value, de::DeTable};

use super::{
    Config,
    draft::{Draft, Path as Keys},
    environment,
    ini::{self, Old},
    report::{Phase, Place, Report, Reports, Source, quoted},
    rules, secrets,
    shape::{Field, Shape},
    walk::{self, dotted, header},
};

/// A file of settings beyond this is not one.
const FILE_MAX: u64 = 1 << 20;

/// Settings that were read and checked, and where they came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// The file, as it was named.
    pub path: PathBuf,
    /// What relative paths in the file start from: the file's own folder.
    pub base_dir: PathBuf,
    /// What is allowed and yet may not be what was meant.
    pub warnings: Vec<Report>,
    origins: BTreeMap<Keys, Place>,
}

impl Loaded {
    /// Where the setting at `keys` was set; none for a default.
    pub fn origin(&self, keys: &[&str]) -> Option<String> {
        let keys: Keys = keys.iter().map(|&key| key.to_owned()).collect();
        self.origins.get(&keys).map(Place::describe)
    }
}

impl Config {
    /// Reads the file at `path` and the variables of `env` over it, and checks all of it.
    pub fn load(
        path: &Path,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Loaded, Reports> {
        let text = read_file(path).map_err(|report| Reports::new(Phase::Parse, vec![report]))?;
        let base_dir = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let name = path.to_string_lossy();
        let loaded = if ini::is_one(path) {
            Self::from_ini(&text, &name, env)?
        } else {
            Self::from_str(&text, &name, env)?
        };
        Ok(Loaded { path: path.to_owned(), base_dir, ..loaded })
    }

    /// Reads `text` as [`Config::load`] reads a file; `name` stands for its path.
    pub fn from_str(
        text: &str,
        name: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Loaded, Reports> {
        // An editor's byte order mark is no part of the settings.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut draft = parse(text, name, Shape::root())?;
        environment::apply(&mut draft, env);
        loaded(draft, name)
    }

    /// Reads `text`, a `cachecluster.ini` of gce-cache-cluster, as [`Config::load`] reads such
    /// a file; `name` stands for its path.
    ///
    /// # Errors
    /// What that program would have misunderstood or dropped without a word, and whatever
    /// is wrong with the settings.
    pub fn from_ini(
        text: &str,
        name: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Loaded, Reports> {
        let old = Old::read(text.strip_prefix('\u{feff}').unwrap_or(text), name)?;
        let mut draft = old.draft()?;
        environment::apply(&mut draft, env);
        ini::settle(&mut draft);
        loaded(draft, name)
    }

    /// Writes the file at `path`, a `cachecluster.ini` of gce-cache-cluster, anew as TOML,
    /// with what is doubtful about it.
    ///
    /// # Errors
    /// As [`Config::load`]; the environment has no part in it.
    pub fn import(path: &Path) -> Result<(String, Vec<Report>), Reports> {
        let text = read_file(path).map_err(|report| Reports::new(Phase::Parse, vec![report]))?;
        let (text, name) = (text.strip_prefix('\u{feff}').unwrap_or(&text), path.to_string_lossy());
        let loaded = Self::from_ini(text, &name, std::iter::empty())?;
        Ok((Old::read(text, &name)?.toml().to_owned(), loaded.warnings))
    }
}

/// What was read, after all that belongs together was checked.
fn loaded(mut draft: Draft, name: &str) -> Result<Loaded, Reports> {
    let config: Config = deserialize(&mut draft, name, Shape::root())?;
    rules::check(&mut draft, &config);
    let origins = draft.sites.iter().map(|(path, site)| (path.clone(), site.key.clone())).collect();
    let warnings = finish(draft)?;
    Ok(Loaded { config, path: name.into(), base_dir: ".".into(), warnings, origins })
}

/// Reads `text`, whose whole is of `shape`, without the environment and without rules.
pub(super) fn document<T: DeserializeOwned>(
    text: &str,
    name: &str,
    shape: &Shape,
) -> Result<(T, Draft), Reports> {
    let mut draft = parse(text.strip_prefix('\u{feff}').unwrap_or(text), name, shape)?;
    let content = deserialize(&mut draft, name, shape)?;
    Ok((content, draft))
}

/// What fits `shape` of a file.
pub(super) fn parse(text: &str, name: &str, shape: &Shape) -> Result<Draft, Reports> {
    let source = Source::file(name, text);
    let (file, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let reports = errors.iter().map(|error| syntax(error, &source, text)).collect();
        return Err(Reports::new(Phase::Parse, reports));
    }
    let source = Source::file(name, &secrets::masked(text, file.get_ref()));
    let mut draft = Draft::default();
    walk::file(&mut draft, &source, file.get_ref(), shape);
    Ok(draft)
}

/// What was accepted, as its type.
fn deserialize<T: DeserializeOwned>(
    draft: &mut Draft,
    name: &str,
    shape: &Shape,
) -> Result<T, Reports> {
    require(draft, shape);
    match T::deserialize(Value::Table(draft.table.clone())) {
        Ok(content) => Ok(content),
        // The walk has seen every value; what is left here is a type that the walk
        // does not know yet, and the report at least names it.
        Err(error) => {
            draft.reports.push(Report::error(error.message().to_owned()).note(name));
            Err(finish(std::mem::take(draft)).expect_err("one was just added"))
        }
    }
}

/// Warnings alone, or everything.
pub(super) fn finish(draft: Draft) -> Result<Vec<Report>, Reports> {
    let reports = Reports::new(Phase::Meaning, draft.reports);
    if reports.errors() > 0 { Err(reports) } else { Ok(reports.into_warnings()) }
}

fn read_file(path: &Path) -> Result<String, Report> {
    let shown = quoted(&path.to_string_lossy());
    let failed = |error: &std::io::Error| {
        let reason = match error.kind() {
            ErrorKind::NotFound => "there is no such file".to_owned(),
            ErrorKind::IsADirectory => "it is a folder".to_owned(),
            ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
            _ => error.to_string(),
        };
        let report = Report::error(format!("cannot read {shown}: {reason}"));
        if error.kind() == ErrorKind::NotFound {
            let old = path.with_extension("ini");
            let report = if ini::is_one(path) {
                report
            } else if old.is_file() {
                report.help(format!(
                    "there is a {}: `--config {}` reads it, `cachecluster config import {} > {}` \
                     translates it",
                    quoted(&old.to_string_lossy()),
                    old.display(),
                    old.display(),
                    path.display()
                ))
            } else {
                report
                    .help(format!("write one: `cachecluster config default > {}`", path.display()))
            };
            report
                .help("name another with `--config FILE` or `CACHECLUSTER_CONFIG`")
                .help("or try it without one: `cachecluster demo`")
        } else {
            report
        }
    };
    let file = File::open(path).map_err(|error| failed(&error))?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(Report::error(format!("{shown} is larger than 1MiB"))
            .help("this is probably not the file that was meant"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.split(|byte| *byte == b'\n').count() - 1;
        Report::error(format!("{shown} is not UTF-8: line {line} has other bytes"))
            .help("save it as UTF-8 text")
    })
}

/// A report of what the TOML parser says.
fn syntax(error: &toml::de::Error, source: &Arc<Source>, text: &str) -> Report {
    let message = error.message();
    let span = error.span().unwrap_or(text.len()..text.len());
    let report = Report::error(message.to_owned()).at(Some(Place::new(source, span.clone())), "");
    // What people leave out most is the quotes, and the parser then speaks of numbers.
    let line_start =
        text.get(..span.start).map_or(0, |before| before.rfind('\n').map_or(0, |at| at + 1));
    let line = text.get(line_start..).unwrap_or_default().lines().next().unwrap_or_default();
    if let Some((key, value)) = line.split_once('=')
        && span.start > line_start + key.len()
    {
        let value = value.split('#').next().unwrap_or_default().trim();
        if value.is_empty() {
            return Report::error("a value is missing")
                .at(Some(Place::new(source, span)), "")
                .help("write a value after the `=`, or remove the key");
        }
        if !value.starts_with(['"', '\'', '[', '{']) {
            let whole = value.as_ptr().addr() - text.as_ptr().addr();
            return Report::error("a text, a size, a duration or an address without quotes")
                .at(Some(Place::new(source, whole..whole + value.len())), "")
                .help(format!("write {}", quoted(&Value::String(value.to_owned()).to_string())));
        }
    }
    if message.starts_with("unclosed table") {
        return report.help("a table's header is `[NAME]`, alone on its line");
    }
    if message.starts_with("extra") || message.starts_with("key with no value") {
        return report.help("a setting is `key = value`, alone on its line");
    }
    if message.starts_with("duplicate key") {
        return report.help("keep one of the two");
    }
    report
}

/// Reports required keys that are not there.
fn require(draft: &mut Draft, shape: &Shape) {
    let mut missing = Vec::new();
    let table = Value::Table(draft.table.clone());
    missing_keys(&table, shape, &mut Keys::new(), &mut missing);
    for (path, field) in missing {
        let (name, table) = path.split_last().expect("a key was missing");
        // A stand-in, so that the rest of the settings can still be read and checked.
        let stand_in = || match &field.shape {
            Shape::Choice(words) => {
                Value::String(words.first().map(|(word, _)| word.clone()).unwrap_or_default())
            }
            Shape::List(_) => Value::Array(Vec::new()),
            Shape::Table(_) | Shape::Map(_) => Value::Table(toml::Table::new()),
            _ => Value::String("x".to_owned()),
        };
        let report = draft.is_sound(&path).then(|| {
            Report::error(format!("{} has no {}", quoted(&header(table)), quoted(name)))
                .at(draft.nearest_key(table), "")
                .note(field.docs.join(" "))
                .help(match name.as_str() {
                    "source" => "add the component's file: `source = \"NAME.wasm\"`".to_owned(),
                    "plugin" => match draft.table.get("plugins").and_then(Value::as_table) {
                        Some(plugins) if !plugins.is_empty() => {
                            let first = plugins.keys().next().map_or("", String::as_str);
                            format!("name one of `[plugins]`: `plugin = \"{first}\"`")
                        }
                        _ => "add a plugin, and name it here: `plugin = \"NAME\"`".to_owned(),
                    },
                    _ => format!("add {}", quoted(&dotted(std::slice::from_ref(name)))),
                })
        });
        if let Some(report) = report {
            draft.refuse(&path, report);
        }
        insert(&mut draft.table, &path, stand_in());
    }
}

fn missing_keys<'s>(
    value: &Value,
    shape: &'s Shape,
    path: &mut Keys,
    missing: &mut Vec<(Keys, &'s Field)>,
) {
    let mut below = |name: &str, value: &Value, shape: &'s Shape, path: &mut Keys| {
        path.push(name.to_owned());
        missing_keys(value, shape, path, missing);
        path.pop();
    };
    match (value, shape) {
        (Value::Table(table), Shape::Table(fields)) => {
            for field in fields {
                if let Some(value) = table.get(&field.name) {
                    below(&field.name, value, &field.shape, path);
                }
            }
            let absent =
                fields.iter().filter(|field| field.is_required && !table.contains_key(&field.name));
            missing.extend(
                absent.map(|field| (path.iter().chain([&field.name]).cloned().collect(), field)),
            );
        }
        (Value::Table(table), Shape::Map(entry)) => {
            table.iter().for_each(|(name, value)| below(name, value, entry, path));
        }
        (Value::Array(items), Shape::List(item)) => {
            for (index, value) in items.iter().enumerate() {
                below(&index.to_string(), value, item, path);
            }
        }
        _ => {}
    }
}

/// Puts `value` at `path`, whose way leads through tables and lists that are there.
fn insert(table: &mut toml::Table, path: &[String], value: Value) {
    let Some((last, way)) = path.split_last() else { return };
    let mut root = Value::Table(std::mem::take(table));
    let parent = way.iter().try_fold(&mut root, |value, key| match value {
        Value::Array(items) => items.get_mut(key.parse::<usize>().ok()?),
        value => value.get_mut(key),
    });
    if let Some(Value::Table(parent)) = parent {
        parent.insert(last.clone(), value);
    }
    if let Value::Table(root) = root {
        *table = root;
    }
}
