//! Where a secret is read, as it is written in the settings: `env:API_TOKEN`,
//! `file:/run/secrets/token`.
//!
//! The settings hold references, never values. Whoever writes a value in the place of
//! a reference is told so without it being repeated: reports end up in logs.

use std::{borrow::Cow, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::grants::Refusal;

/// Where a secret is read when its plugin is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// A variable in the node's environment.
    Env(String),
    /// A file, whose relative path begins at the config file.
    File(PathBuf),
}

/// Reads a reference. Nothing that is said about it repeats it.
pub(crate) fn read(text: &str) -> Result<SecretSource, Refusal> {
    let refuse =
        |title: &str, help: &str| Err(Refusal { title: title.to_owned(), help: help.to_owned() });
    match text.split_once(':') {
        Some(("env", name)) if name.is_empty() || name.contains(['=', '\0']) => {
            refuse("this names no variable of the environment", "write it as `env:API_TOKEN`")
        }
        Some(("env", name)) => Ok(SecretSource::Env(name.to_owned())),
        Some(("file", path)) if path.is_empty() || path.contains('\0') => {
            refuse("this names no file", "write it as `file:/run/secrets/token`")
        }
        Some(("file", path)) => Ok(SecretSource::File(path.into())),
        _ => refuse(
            "this does not say where the secret is read",
            "write `env:VARIABLE` or `file:PATH`; the secret itself does not belong here",
        ),
    }
}

/// The schema of a secret's source as text.
pub struct SecretText;

impl JsonSchema for SecretText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "SecretText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "secret-source",
            "pattern": "^(env|file):.+",
        })
    }
}

/// The settings' `text` as reports may show it: without what stands, by mistake, where
/// a reference to a secret belongs.
pub(super) fn masked<'a>(text: &'a str, file: &DeTable<'_>) -> Cow<'a, str> {
    let mut shown = Cow::Borrowed(text);
    let plugins = file.get("plugins").and_then(|plugins| plugins.get_ref().as_table());
    let plugins = plugins.into_iter().flat_map(DeTable::values);
    // A manifest speaks of one plugin, in its outermost table.
    let tables = plugins.filter_map(|plugin| plugin.get_ref().as_table()).chain([file]);
    for (key, value) in tables.flatten() {
        // A misspelt table, which is reported as such, may hold secrets too.
        if !key.get_ref().starts_with("secret") {
            continue;
        }
        match value.get_ref().as_table() {
            Some(secrets) => secrets.values().for_each(|secret| mask(&mut shown, secret)),
            None => mask(&mut shown, value),
        }
    }
    let discovery = file.get("discovery").and_then(|it| it.get_ref().as_table());
    let table = |name: &str| discovery.and_then(|it| it.get(name)?.get_ref().as_table());
    for key in ["secret", "uri"] {
        if let Some(secret) = table("doozer").and_then(|doozer| doozer.get(key)) {
            mask(&mut shown, secret);
        }
    }
    let endpoints = table("etcd").and_then(|etcd| etcd.get("endpoints")?.get_ref().as_array());
    let has_user =
        |url: &&Spanned<DeValue<'_>>| url.get_ref().as_str().is_some_and(|url| url.contains('@'));
    for url in endpoints.into_iter().flat_map(|it| it.iter()).filter(has_user) {
        mask(&mut shown, url);
    }
    shown
}

/// Writes asterisks over `value` unless it is a reference. The text keeps its lines and
/// its length, so that spans still fit.
fn mask(text: &mut Cow<'_, str>, value: &Spanned<DeValue<'_>>) {
    let is_reference = value.get_ref().as_str().is_some_and(|value| read(value).is_ok());
    if is_reference {
        return;
    }
    let cover = |value: &str| -> String {
        value.bytes().map(|byte| if byte == b'\n' { '\n' } else { '*' }).collect()
    };
    if let Some(covered) = text.get(value.span()).map(cover) {
        text.to_mut().replace_range(value.span(), &covered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_a_variable_or_a_file() {
        assert_eq!(read("env:API_TOKEN"), Ok(SecretSource::Env("API_TOKEN".to_owned())));
        assert_eq!(read("file:a:b"), Ok(SecretSource::File("a:b".into())));
        for text in ["", "env:", "file:", "env:A=B", "file:a\0b", "hunter2", "ENV:A", "env A"] {
            let Refusal { title, help } = read(text).expect_err(text);
            assert!(!title.contains("hunter2") && !help.contains("hunter2"), "{title}: {help}");
        }
    }

    #[test]
    fn a_value_in_the_place_of_a_reference_is_not_shown() {
        let text = "[plugins.a.secrets]\nx = 'hunter2'\ny = 'env:Y'\nz = '''\nhun\nter'''\n\
                    [plugins.b]\nsecret = { w = 7 }\nsource = 'b'\n\
                    [plugins]\nc.secrets = 'hünter'\n[secrets]\nv = 'hush'\n";
        let file = DeTable::parse(text).expect("TOML");
        let shown = masked(text, file.get_ref());
        assert_eq!(shown.len(), text.len());
        for hidden in ["hunter2", "hun", "ter'", "7", "nter", "hush"] {
            assert!(!shown.contains(hidden), "{hidden} in {shown}");
        }
        for kept in ["'env:Y'", "source = 'b'"] {
            assert!(shown.contains(kept), "{kept} not in {shown}");
        }
    }
}
