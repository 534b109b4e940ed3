//! The commented default file and the reference page, both written from the shape.

use std::fmt::Write as _;

use toml::Value;

use super::{
    shape::{Field, Shape},
    walk::dotted,
};

/// Columns of a comment in the default file.
const WIDTH: usize = 88;

/// What the default file says before its first table.
const PREAMBLE: &str = "\
#:schema ./cachecluster.schema.json

# Settings of a cachecluster node. Every setting is here, commented out, with its
# default: remove the `#` before the ones to change. `cachecluster check` tells what is
# wrong with this file; `cachecluster config show` tells what is in force, and why.
#
# Sizes are written as `512B`, `64KiB`, `1MiB`, `2GiB`; durations as `250ms`, `10s`,
# `1h 30m`. Any setting can also come from the environment, which wins over this file:
# `CACHECLUSTER_HTTP__LISTEN=0.0.0.0:8080` is `listen` of `[http]`.
";

/// What the reference page says before its first table.
const INTRODUCTION: &str = "\
# Configuration

<!-- Generated from host/src/config; `UPDATE=1 cargo test` writes it anew. -->

A node reads `cachecluster.toml` from the folder it is started in, or the file that
`--config FILE` or `CACHECLUSTER_CONFIG` names. `cachecluster config default` prints a
file with every setting; `cachecluster check` reports everything that is wrong with a
file at once; `cachecluster config show` prints what is in force and where it was set;
`cachecluster config schema` prints the JSON Schema for editors. A file whose name ends in
`.ini` is read as one of gce-cache-cluster: see [migrating.md](migrating.md).

- Sizes are a number and a unit: `512B`, `64KiB`, `1MiB`, `2GiB`, or `kB`, `MB`, `GB`.
- Durations are numbers and units: `250ms`, `10s`, `1h 30m`; 30 days at most.
- Relative paths start from the file's own folder.
- An unknown key is an error. So is a value out of its range: nothing is clamped.

## The environment

A variable wins over the file. After `CACHECLUSTER_`, two underscores stand between a
table and its key, and case does not matter:

| variable | setting |
|---|---|
| `CACHECLUSTER_HTTP__LISTEN=0.0.0.0:80` | `listen` of `[http]` |
| `CACHECLUSTER_GROUPS__DEFINE__CACHE__TTL=5m` | `ttl` of `[groups.define.cache]` |
| `CACHECLUSTER_PLUGINS__DICT__NETWORK__TCP=a:2628,b:2628` | `tcp` of `[plugins.dict.network]`: a list is written with commas |
| `CACHECLUSTER_LOG=debug` | `filter` of `[log]` |
| `CACHECLUSTER_CONFIG=/etc/cachecluster.toml` | the file itself, as `--config` |

In the name of a plugin or a group, every character but letters and digits is written as
one underscore: `MY_PLUGIN` is `my-plugin` if the file has it, else a new `my_plugin`.
An unknown variable with the prefix is an error, except those that container platforms
set for a service named `cachecluster`.

## Reloading

`cachecluster reload`, SIGHUP and `POST /reload` on the admin address have a running node
read its file again. All of it applies or none: if the file has a mistake, or a plugin that
is new or changed does not load, the node goes on with its old settings and says why. Each
section below says what a reload applies; what waits for a restart is named in the answer
and in the log. The environment stays as it was when the node started, and still wins over
the file. Every plugin that stays looks at its component's file as well; a bad one is
refused by itself, and its old version goes on serving.
";

/// A file with every setting, each commented out with its documentation and default.
pub fn template() -> String {
    let mut out = PREAMBLE.to_owned();
    table(Shape::root(), &[], &[], false, &mut |section| {
        out.push('\n');
        comment(&mut out, "", section.docs);
        let hidden = if section.is_example { "# " } else { "" };
        _ = writeln!(out, "{hidden}[{}]", dotted(section.path));
        for field in section.fields {
            out.push('\n');
            comment(&mut out, "", &field.docs);
            let mut facts: Vec<String> = words(&field.shape);
            facts.extend(field.shape.range().map(|range| format!("Range: {range}.")));
            comment(&mut out, "", &facts);
            _ = writeln!(out, "# {} = {}", field.name, default_or_example(field));
        }
        match section.entry {
            Some(Shape::Secret) => out.push_str("# secret = \"env:VARIABLE\"\n"),
            Some(_) => out.push_str("# key = \"value\"\n"),
            None => {}
        }
    });
    out
}

/// The reference page, in Markdown.
pub fn documentation() -> String {
    let mut out = INTRODUCTION.to_owned();
    table(Shape::root(), &[], &[], false, &mut |section| {
        _ = write!(out, "\n## `[{}]`\n", dotted(section.path));
        for paragraph in section.docs {
            _ = write!(out, "\n{paragraph}\n");
        }
        for field in section.fields {
            _ = write!(out, "\n### `{}`\n\n", field.name);
            out.push_str(&kind(&field.shape));
            if let Some(range) = field.shape.range() {
                _ = write!(out, ", {range}");
            }
            match &field.default {
                Some(default) => _ = write!(out, " · default `{default}`"),
                None if field.is_required => out.push_str(" · must be set"),
                None => out.push_str(" · unset by default"),
            }
            out.push('\n');
            for paragraph in field.docs.iter().chain(&words(&field.shape)) {
                _ = write!(out, "\n{paragraph}\n");
            }
        }
    });
    out
}

/// One table with the keys that are no tables themselves.
struct Section<'a> {
    path: &'a [String],
    docs: &'a [String],
    fields: &'a [&'a Field],
    /// Whether its name is the user's to choose.
    is_example: bool,
    /// What stands under each of its keys, where these are the user's to choose.
    entry: Option<&'a Shape>,
}

/// Visits `shape` and every table in it, outermost first.
fn table(
    shape: &Shape,
    path: &[String],
    docs: &[String],
    is_example: bool,
    visit: &mut impl FnMut(&Section<'_>),
) {
    let extended = |key: &str| path.iter().cloned().chain([key.to_owned()]).collect::<Vec<_>>();
    match shape {
        Shape::Table(all) => {
            let (tables, fields): (Vec<&Field>, Vec<&Field>) = all
                .iter()
                .partition(|field| matches!(field.shape, Shape::Table(_) | Shape::Map(_)));
            if !fields.is_empty() {
                visit(&Section { path, docs, fields: &fields, is_example, entry: None });
            }
            for field in tables {
                table(&field.shape, &extended(&field.name), &field.docs, is_example, visit);
            }
        }
        Shape::Map(entry) if matches!(**entry, Shape::Table(_)) => {
            table(entry, &extended("NAME"), docs, true, visit);
        }
        Shape::Map(entry) => {
            visit(&Section { path, docs, fields: &[], is_example, entry: Some(entry) });
        }
        _ => {}
    }
}

/// What each word of a choice means.
fn words(shape: &Shape) -> Vec<String> {
    match shape {
        Shape::Choice(words) => {
            words.iter().map(|(word, meaning)| format!("`{word}`: {meaning}")).collect()
        }
        _ => Vec::new(),
    }
}

/// The kind of a value, in words for the documentation.
fn kind(shape: &Shape) -> String {
    match shape {
        Shape::Text => "string",
        Shape::Switch => "`true` or `false`",
        Shape::Choice(words) => {
            let words: Vec<String> =
                words.iter().map(|(word, _)| format!("`\"{word}\"`")).collect();
            return words.join(" or ");
        }
        Shape::Address => "address and port",
        Shape::Secret => "place of a secret",
        Shape::Size(_) => "size",
        Shape::Duration(_) => "duration",
        Shape::Integer(_) => "integer",
        Shape::Number(_) => "number",
        Shape::List(_) => "list of strings",
        Shape::Table(_) | Shape::Map(_) => "table",
    }
    .to_owned()
}

/// The default as TOML; where there is none, something of the right form.
fn default_or_example(field: &Field) -> Value {
    field.default.clone().unwrap_or_else(|| {
        if matches!(field.shape, Shape::Switch) {
            return Value::Boolean(true);
        }
        Value::String(match field.name.as_str() {
            "source" => "NAME.wasm".to_owned(),
            "digest" => format!("sha256:{}", "0".repeat(64)),
            _ if matches!(field.shape, Shape::Secret) => "env:VARIABLE".to_owned(),
            _ if matches!(field.shape, Shape::Address) => "127.0.0.1:9080".to_owned(),
            _ => "NAME".to_owned(),
        })
    })
}

/// Writes paragraphs as comments of at most [`WIDTH`] columns.
fn comment(out: &mut String, indent: &str, paragraphs: &[String]) {
    for paragraph in paragraphs {
        let mut line = format!("{indent}#");
        for word in paragraph.split(' ') {
            if line.chars().count() + 1 + word.chars().count() > WIDTH {
                out.push_str(&line);
                out.push('\n');
                line = format!("{indent}#");
            }
            line.push(' ');
            line.push_str(word);
        }
        out.push_str(&line);
        out.push('\n');
    }
}
