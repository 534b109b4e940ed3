//! Single values: whether a text or a number may stand where it stands.

use std::{net::SocketAddr, time::Duration};

use toml::Value;

use super::{
    ByteSize,
    report::{listed, nearest, quoted},
    secrets,
    shape::{Bounds, Shape},
    units::{UnitError, parse_duration},
};

/// What is wrong with a value, and what would be right.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) title: String,
    pub(super) help: Option<String>,
}

impl Problem {
    fn new(title: String, help: impl Into<String>) -> Self {
        Self { title, help: Some(help.into()) }
    }
}

/// Checks a text that stands where `shape` says.
pub(super) fn text(shape: &Shape, text: &str) -> Result<Value, Problem> {
    let value = || Value::String(text.to_owned());
    match shape {
        Shape::Text => Ok(value()),
        Shape::Choice(words) => {
            let mut words = words.iter().map(|(word, _)| word.as_str());
            if words.clone().any(|word| word == text) {
                return Ok(value());
            }
            let known = listed(words.clone());
            let help = match nearest(text, words.by_ref()) {
                Some(word) => format!("did you mean `{word}`?"),
                None => format!("known are {known}"),
            };
            Err(Problem::new(format!("{} is not one of {known}", quoted(text)), help))
        }
        Shape::Address => address(text).map(|()| value()),
        Shape::Secret => match secrets::read(text) {
            Ok(_) => Ok(value()),
            Err(refusal) => Err(Problem::new(refusal.title, refusal.help)),
        },
        Shape::Size(bounds) => {
            let size: ByteSize = text.parse().map_err(|error| unit_problem(text, &error))?;
            within(bounds, &size, text, ByteSize::to_string).map(|()| value())
        }
        Shape::Duration(bounds) => {
            let time = parse_duration(text).map_err(|error| unit_problem(text, &error))?;
            within(bounds, &time, text, |time: &Duration| {
                humantime::format_duration(*time).to_string()
            })
            .map(|()| value())
        }
        Shape::Switch => {
            let help = match text {
                "true" | "false" => format!("write it without quotes: `{text}`"),
                _ => "write `true` or `false`".to_owned(),
            };
            Err(Problem::new(format!("{} is not {}", quoted(text), shape.noun()), help))
        }
        Shape::Integer(_) | Shape::Number(_) => {
            let help = match text.parse::<f64>() {
                Ok(_) => Some(format!("write it without quotes: `{text}`")),
                Err(_) => None,
            };
            Err(Problem { title: format!("{} is not {}", quoted(text), shape.noun()), help })
        }
        Shape::List(_) => Err(Problem::new(
            format!("{} is not {}", quoted(text), shape.noun()),
            format!("write it in brackets: `[{}]`", Value::String(text.to_owned())),
        )),
        // Not quoted: it may be a secret that stands in the place of a table of them.
        Shape::Table(_) | Shape::Map(_) => Err(mistyped(shape, "a string", "")),
    }
}

/// Checks a boolean that stands where `shape` says.
pub(super) fn boolean(shape: &Shape, is_true: bool) -> Result<Value, Problem> {
    match shape {
        Shape::Switch => Ok(Value::Boolean(is_true)),
        _ => Err(mistyped(shape, "a boolean", &is_true.to_string())),
    }
}

/// Checks an integer that stands where `shape` says.
pub(super) fn integer(shape: &Shape, number: i64) -> Result<Value, Problem> {
    match shape {
        Shape::Integer(bounds) => within(bounds, &number, &number.to_string(), i64::to_string)
            .map(|()| Value::Integer(number)),
        Shape::Number(_) => {
            // Any integer near the bounds of a share is exact as a float.
            #[expect(clippy::cast_precision_loss, reason = "only the bounds are compared")]
            let float = number as f64;
            self::float(shape, float)
        }
        _ => Err(mistyped(shape, "an integer", &number.to_string())),
    }
}

/// Checks a number with a point that stands where `shape` says.
pub(super) fn float(shape: &Shape, number: f64) -> Result<Value, Problem> {
    match shape {
        Shape::Number(bounds) => {
            within(bounds, &number, &format!("{number:?}"), |number| format!("{number:?}"))
                .map(|()| Value::Float(number))
        }
        _ => Err(mistyped(shape, "a number with a point", &number.to_string())),
    }
}

/// A value of a kind that never fits; `found` is its kind, `written` its text.
pub(super) fn mistyped(shape: &Shape, found: &str, written: &str) -> Problem {
    let is_count = written.bytes().all(|byte| byte.is_ascii_digit()) && !written.is_empty();
    let help = match shape {
        Shape::Size(_) if is_count => Some(format!("write it with a unit: `\"{written}B\"`")),
        Shape::Duration(_) if is_count => Some(format!("write it with a unit: `\"{written}s\"`")),
        Shape::Text | Shape::Choice(_) if !written.is_empty() => {
            Some(format!("write it in quotes: `\"{written}\"`"))
        }
        Shape::Size(_) => Some("write a number and a unit, such as `\"64MiB\"`".to_owned()),
        Shape::Duration(_) => Some("write a number and a unit, such as `\"10s\"`".to_owned()),
        Shape::Integer(bounds) => {
            Some(format!("write a whole number from {} to {}", bounds.min, bounds.max))
        }
        Shape::Number(bounds) => {
            Some(format!("write a number from {:?} to {:?}", bounds.min, bounds.max))
        }
        Shape::List(_) => Some("write strings in brackets: `[\"one\", \"two\"]`".to_owned()),
        Shape::Table(_) | Shape::Map(_) => Some("write it as a table: `[NAME]`".to_owned()),
        Shape::Address => Some("write it as `\"127.0.0.1:8080\"`".to_owned()),
        Shape::Switch => Some("write `true` or `false`".to_owned()),
        Shape::Secret => Some("write `\"env:VARIABLE\"` or `\"file:PATH\"`".to_owned()),
        Shape::Text | Shape::Choice(_) => Some("write one string in quotes".to_owned()),
    };
    Problem { title: format!("{found} where {} belongs", shape.noun()), help }
}

fn within<T: PartialOrd>(
    bounds: &Bounds<T>,
    value: &T,
    written: &str,
    show: impl Fn(&T) -> String,
) -> Result<(), Problem> {
    if bounds.contain(value) {
        return Ok(());
    }
    // Written so that NaN, which is in no order, is out of range too.
    let (relation, bound) = if *value > bounds.max {
        ("above the maximum", &bounds.max)
    } else {
        ("below the minimum", &bounds.min)
    };
    Err(Problem::new(
        format!("{} is {relation} of {}", quoted(written), show(bound)),
        format!("choose from {} to {}", show(&bounds.min), show(&bounds.max)),
    ))
}

fn unit_problem(text: &str, error: &UnitError) -> Problem {
    let is_count = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty();
    match error {
        UnitError::NotASize(_) => Problem::new(
            format!("{} is not a size", quoted(text)),
            if is_count {
                format!("add the unit: `{text}MiB`, `{text}KiB` or `{text}B`")
            } else {
                "write a number and a unit, such as `64MiB`, `512KiB` or `100B`".to_owned()
            },
        ),
        UnitError::NotADuration(_) => Problem::new(
            format!("{} is not a duration", quoted(text)),
            if is_count {
                format!("add the unit: `{text}s`, `{text}ms` or `{text}m`")
            } else {
                "write a number and a unit, such as `250ms`, `10s` or `1h 30m`".to_owned()
            },
        ),
        UnitError::TooLarge(_) => {
            Problem { title: format!("{} is too large", quoted(text)), help: None }
        }
    }
}

/// Checks an address to listen on.
fn address(text: &str) -> Result<(), Problem> {
    if text.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    let port = |text: &str| text.parse::<u16>().ok();
    let help = match text.rsplit_once(':') {
        Some((host, digits)) if port(digits).is_some() => match host {
            "" | "*" => format!("for every interface write `0.0.0.0:{digits}`"),
            "localhost" => format!("write `127.0.0.1:{digits}`"),
            _ => "write an IP address, such as `127.0.0.1:8080` or `[::1]:8080`".to_owned(),
        },
        None if port(text).is_some() => format!("add the address: `127.0.0.1:{text}`"),
        None if text.parse::<std::net::IpAddr>().is_ok() => {
            format!("add the port: `{}`", SocketAddr::new(text.parse().expect("just read"), 8080))
        }
        _ => "write an IP address and a port, such as `127.0.0.1:8080` or `[::1]:8080`".to_owned(),
    };
    Err(Problem::new(format!("{} is not an address and a port", quoted(text)), help))
}
