//! What settings there are, made from the types of [`Config`].
//!
//! The types' JSON Schema says names, documentation, bounds and defaults; a sample
//! value says the order of declaration, which the schema does not keep. The reader, the
//! default file and the documentation all walk the [`Shape`] that results.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value};
use toml::de::DeTable;

use super::{
    ByteSize, Config, Discovery, Doozer, Gce, Group, Peers, Plugin, units::parse_duration,
};

/// What may stand in one place of the settings.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// A table with known keys.
    Table(Vec<Field>),
    /// A table whose keys are the user's names.
    Map(Box<Shape>),
    List(Box<Shape>),
    Text,
    /// `true` or `false`.
    Switch,
    /// One of these words, each with what it means.
    Choice(Vec<(String, String)>),
    Address,
    /// Where a secret is read.
    Secret,
    Size(Bounds<ByteSize>),
    Duration(Bounds<Duration>),
    Integer(Bounds<i64>),
    Number(Bounds<f64>),
}

/// One known key of a table.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    /// One paragraph a string, each in one line.
    pub(super) docs: Vec<String>,
    pub(super) is_required: bool,
    pub(super) default: Option<toml::Value>,
    pub(super) shape: Shape,
}

/// The least and the most a value may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds<T> {
    pub(super) min: T,
    pub(super) max: T,
}

impl<T: PartialOrd> Bounds<T> {
    pub(super) fn contain(&self, value: &T) -> bool {
        *value >= self.min && *value <= self.max
    }
}

/// The longest time any setting may hold: far from what clocks overflow at.
pub(super) const DURATION_MAX: Duration = Duration::from_hours(24 * 30);

/// The largest size any setting may hold: no machine has more.
pub(super) const SIZE_MAX: ByteSize = ByteSize::mib(1 << 24);

impl Shape {
    /// The shape of the whole file.
    pub(super) fn root() -> &'static Shape {
        static ROOT: LazyLock<Shape> = LazyLock::new(|| {
            let sample = toml::to_string(&sample()).expect("settings can be written as TOML");
            let order = DeTable::parse(&sample).expect("written TOML can be read");
            Shape::new(&schema(), Some(order.get_ref()))
        });
        &ROOT
    }

    /// The shape of a file that is not the node's settings. Its fields are in the order
    /// of their names.
    pub(super) fn of<T: JsonSchema>() -> Self {
        Self::new(&schema_of::<T>(), None)
    }

    /// Reads a schema as [`schema`] writes it; `order` is a table of the sample.
    fn new(schema: &Value, order: Option<&DeTable<'_>>) -> Self {
        let kind = schema["type"].as_str().unwrap_or_default();
        let format = schema["format"].as_str().unwrap_or_default();
        match (kind, format) {
            ("object", _) => match schema["additionalProperties"].as_object() {
                Some(entry) => {
                    let first = order.and_then(|table| table.values().next());
                    let order = first.and_then(|value| value.get_ref().as_table());
                    Self::Map(Box::new(Self::new(&Value::Object(entry.clone()), order)))
                }
                None => Self::Table(fields(schema, order)),
            },
            ("array", _) => Self::List(Box::new(Self::new(&schema["items"], None))),
            ("boolean", _) => Self::Switch,
            ("integer", _) => Self::Integer(Bounds {
                min: schema["minimum"].as_i64().unwrap_or(0),
                max: schema["maximum"].as_i64().unwrap_or(i64::from(u32::MAX)),
            }),
            ("number", _) => Self::Number(Bounds {
                min: schema["minimum"].as_f64().unwrap_or(f64::MIN),
                max: schema["maximum"].as_f64().unwrap_or(f64::MAX),
            }),
            (_, "socket-address") => Self::Address,
            (_, "secret-source") => Self::Secret,
            (_, "byte-size") => {
                Self::Size(bounds(schema, ByteSize::bytes(0), SIZE_MAX, |text| text.parse().ok()))
            }
            (_, "duration-text") => {
                Self::Duration(bounds(schema, Duration::ZERO, DURATION_MAX, |text| {
                    parse_duration(text).ok()
                }))
            }
            _ => match schema["enum"].as_array() {
                Some(words) => Self::Choice(choices(words, &schema["x-meanings"])),
                None => Self::Text,
            },
        }
    }

    /// What belongs here, for a sentence: "must be …".
    pub(super) fn noun(&self) -> &'static str {
        match self {
            Self::Table(_) | Self::Map(_) => "a table",
            Self::List(_) => "a list of strings",
            Self::Text | Self::Choice(_) => "a string",
            Self::Switch => "`true` or `false`",
            Self::Address => "an address and a port in quotes",
            Self::Secret => "the place of a secret",
            Self::Size(_) => "a size in quotes",
            Self::Duration(_) => "a duration in quotes",
            Self::Integer(_) => "an integer",
            Self::Number(_) => "a number",
        }
    }

    /// What may stand here, in words for the documentation; none if anything may.
    pub(super) fn range(&self) -> Option<String> {
        match self {
            Self::Size(bounds) if bounds.max == SIZE_MAX => {
                (bounds.min > ByteSize::bytes(1)).then(|| format!("at least {}", bounds.min))
            }
            Self::Size(bounds) => Some(format!("{} to {}", bounds.min, bounds.max)),
            Self::Duration(bounds) => {
                let text = |duration| humantime::format_duration(duration).to_string();
                match (bounds.min.is_zero(), bounds.max == DURATION_MAX) {
                    (true, true) => None,
                    (false, true) => Some(format!("at least {}", text(bounds.min))),
                    _ => Some(format!("{} to {}", text(bounds.min), text(bounds.max))),
                }
            }
            Self::Integer(bounds) => Some(format!("{} to {}", bounds.min, bounds.max)),
            Self::Number(bounds) => Some(format!("{:?} to {:?}", bounds.min, bounds.max)),
            _ => None,
        }
    }
}

/// The JSON Schema of the settings: draft-07, within what draft-04 knows too, for
/// editors. It has no references, and its objects' keys are sorted.
pub fn schema() -> Value {
    schema_of::<Config>()
}

fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = Value::from(settings.into_generator().into_root_schema_for::<T>());
    tidy(&mut schema);
    schema
}

/// The JSON Schema as the text of a file.
pub fn schema_text() -> String {
    format!("{:#}\n", schema())
}

/// Brings what the derive writes to the subset that draft-04 shares.
fn tidy(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = paragraphs(text).join("\n\n");
    }
    // An unset option is an absent key: TOML has no null.
    if let Some(Value::Array(types)) = object.get("type")
        && let Some(set) = types.iter().find(|it| *it != "null")
    {
        let set = set.clone();
        object.insert("type".to_owned(), set);
    }
    if object.get("default").is_some_and(|default| default.is_null() || default.is_object()) {
        object.remove("default");
    }
    let is_rust_name = |format: &Value| {
        format.as_str().is_some_and(|format| format.starts_with("uint") || format == "double")
    };
    if object.get("format").is_some_and(is_rust_name) {
        object.remove("format");
    }
    if let Some(Value::Array(words)) = object.remove("oneOf") {
        let pick = |key: &str| words.iter().map(|word| word[key].clone()).collect::<Vec<_>>();
        object.insert("type".to_owned(), "string".into());
        object.insert("enum".to_owned(), pick("const").into());
        object.insert("x-meanings".to_owned(), pick("description").into());
    }
    for key in ["items", "additionalProperties"] {
        if let Some(schema) = object.get_mut(key) {
            tidy(schema);
        }
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(tidy);
    }
}

/// Settings in which every key is present.
fn sample() -> Config {
    let plugin = Plugin { digest: Some(String::new()), ..Plugin::new("x") };
    let group = Group::new("x");
    Config {
        plugins: BTreeMap::from([("x".to_owned(), plugin)]),
        groups: BTreeMap::from([("x".to_owned(), group)]),
        peers: Peers { listen: Some(([0; 4], 0).into()), ..Peers::default() },
        discovery: Discovery {
            gce: Gce { enabled: Some(true), ..Gce::default() },
            doozer: Doozer {
                secret: Some(String::new()),
                uri: Some(String::new()),
                ..Doozer::default()
            },
            ..Discovery::default()
        },
        ..Config::default()
    }
}

fn fields(schema: &Value, order: Option<&DeTable<'_>>) -> Vec<Field> {
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
    let mut fields: Vec<(usize, Field)> = properties
        .iter()
        .map(|(name, schema)| {
            let entry = order.and_then(|table| table.get_key_value(name.as_str()));
            let rank = entry.map_or(usize::MAX, |(key, _)| key.span().start);
            let order = entry.and_then(|(_, value)| value.get_ref().as_table());
            let field = Field {
                name: name.clone(),
                docs: paragraphs(schema["description"].as_str().unwrap_or_default()),
                is_required: required.iter().any(|required| required == name),
                default: schema
                    .get("default")
                    .and_then(|default| toml::Value::try_from(default).ok()),
                shape: Shape::new(schema, order),
            };
            (rank, field)
        })
        .collect();
    fields.sort_by_key(|(rank, _)| *rank);
    fields.into_iter().map(|(_, field)| field).collect()
}

fn choices(words: &[Value], meanings: &Value) -> Vec<(String, String)> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let meaning = |index: usize| text(meanings.get(index));
    words.iter().enumerate().map(|(index, word)| (text(Some(word)), meaning(index))).collect()
}

fn bounds<T: Copy>(schema: &Value, min: T, max: T, read: impl Fn(&str) -> Option<T>) -> Bounds<T> {
    let read = |key: &str| schema[key].as_str().and_then(&read);
    Bounds { min: read("x-minimum").unwrap_or(min), max: read("x-maximum").unwrap_or(max) }
}

/// A doc comment's paragraphs, each in one line.
fn paragraphs(docs: &str) -> Vec<String> {
    docs.split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|paragraph| !paragraph.is_empty())
        .collect()
}
