//! The plugin's own settings: the `[plugins.<name>.config]` table of the node.
//!
//! Settings are text and stay the same for the life of a plugin version: a
//! change of them loads the plugin anew. Read them in
//! [`Lifecycle::init`](crate::Lifecycle::init) to have a mistake refused when
//! the plugin is loaded, with the message of [`Invalid`] in the node's log.

use crate::{Error, host};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The setting named `key`, if it was made.
pub fn get(key: &str) -> Option<String> {
    host::config_get(key)
}

/// Every setting, as pairs of name and value.
pub fn get_all() -> Vec<(String, String)> {
    host::config_get_all()
}

/// The setting named `key`, which must have been made.
pub fn required(key: &str) -> Result<String, Invalid> {
    get(key).ok_or_else(|| Invalid::new(key, "is required"))
}

/// The setting named `key`, read as a `T`; `None` when it was not made.
///
/// ```
/// # use cachecluster_plugin::{config, testing::Host};
/// # let _host = Host::new().config("depth", "3");
/// assert_eq!(config::parse::<u8>("depth")?, Some(3));
/// assert_eq!(config::parse::<u8>("width")?, None);
/// # Ok::<(), config::Invalid>(())
/// ```
pub fn parse<T>(key: &str) -> Result<Option<T>, Invalid>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    parse_with(key, |text| text.parse::<T>().map_err(|error| error.to_string()))
}

/// The setting named `key`, read as a length of time such as `250ms`, `24h`
/// or `1h 30m`; `None` when it was not made.
///
/// Units are `ns`, `us`, `ms`, `s`, `m`, `h`, `d` and `w`; a lone `0` needs none.
pub fn duration(key: &str) -> Result<Option<Duration>, Invalid> {
    parse_with(key, parse_duration)
}

/// The setting named `key`, read as a number of bytes such as `65536`, `64 KiB`
/// or `2MB`; `None` when it was not made.
///
/// Units are `B`, `KiB`, `MiB`, `GiB` (1024 and its powers) and `KB`, `MB`, `GB`
/// (1000 and its powers); without one, it is bytes.
pub fn bytes(key: &str) -> Result<Option<usize>, Invalid> {
    parse_with(key, parse_bytes)
}

/// Refuses every setting whose name is not in `known`: a misspelt setting
/// would otherwise be no setting at all. A known name that ends in a dot
/// stands for all names that begin with it.
pub fn only(known: &[&str]) -> Result<(), Invalid> {
    let is_known = |name: &str| {
        known
            .iter()
            .any(|known| name == *known || (known.ends_with('.') && name.starts_with(known)))
    };
    match get_all().into_iter().find(|(name, _)| !is_known(name)) {
        None => Ok(()),
        Some((name, _)) => {
            Err(Invalid::new(name, format!("is not one of this plugin's: {}", known.join(", "))))
        }
    }
}

/// The setting named `key`, read by `read`, whose error says what is wrong
/// with the text; `None` when it was not made.
pub fn parse_with<T>(
    key: &str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, Invalid> {
    get(key)
        .map(|text| {
            read(&text).map_err(|why| Invalid::new(key, format!("has the value {text:?}: {why}")))
        })
        .transpose()
}

/// A setting that is missing or makes no sense. Its text names the setting.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Invalid {
    key: String,
    what: String,
}

impl Invalid {
    /// The setting `key` is wrong: `what` continues a sentence that begins
    /// with its name, as in "is required".
    pub fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self { key: key.into(), what: what.into() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the setting `{}` {}", self.key, self.what)
    }
}

impl std::error::Error for Invalid {}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Internal(invalid.to_string())
    }
}

/// For `?` in [`Lifecycle`](crate::Lifecycle), whose errors are text.
impl From<Invalid> for String {
    fn from(invalid: Invalid) -> Self {
        invalid.to_string()
    }
}

/// Reads one or more whole numbers, each with its unit.
fn parse_duration(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str = "expected a length of time such as \"250ms\", \"24h\" or \"1h 30m\"";
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(EXPECTED.into());
    }
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = split_at_first(rest, |c| !c.is_ascii_digit());
        let (unit, after) = split_at_first(after.trim_start(), |c| !c.is_alphabetic());
        let nanoseconds: u64 = match unit {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60 * 1_000_000_000,
            "h" => 3_600 * 1_000_000_000,
            "d" => 86_400 * 1_000_000_000,
            "w" => 7 * 86_400 * 1_000_000_000,
            _ => return Err(EXPECTED.into()),
        };
        if number.is_empty() {
            return Err(EXPECTED.into());
        }
        total = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(nanoseconds))
            .and_then(|part| total.checked_add(part))
            .ok_or("this is longer than 584 years")?;
        rest = after.trim_start();
    }
    Ok(Duration::from_nanos(total))
}

/// Reads a whole number with an optional unit.
fn parse_bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = split_at_first(text.trim(), |c| !c.is_ascii_digit());
    let unit: usize = match unit.trim_start() {
        "" | "B" => 1,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("expected a number of bytes such as \"65536\" or \"64 KiB\"".into()),
    };
    let number = number
        .parse::<usize>()
        .map_err(|_| "expected a number of bytes such as \"65536\" or \"64 KiB\"")?;
    number.checked_mul(unit).ok_or_else(|| "this is more than fits any memory".into())
}

/// Splits `text` before its first character for which `stop` holds.
fn split_at_first(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Host;

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, millis) in [
            ("0", 0),
            ("250ms", 250),
            ("24h", 86_400_000),
            (" 1h 30m ", 5_400_000),
            ("1m30s", 90_000),
            ("2 d", 172_800_000),
            ("1w", 604_800_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in
            ["", " ", "5", "s", "5x", "-1s", "1.5s", "1s,2s", "99999999999999999999s", "600000d"]
        {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn bytes_are_read_with_or_without_a_unit() {
        for (text, bytes) in [("0", 0), ("65536", 65536), ("64 KiB", 65536), ("2MB", 2_000_000)] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text:?}");
        }
        for text in
            ["", "KiB", "1.5MB", "-1", "1 K", "99999999999999999999", "18446744073709551615GiB"]
        {
            assert!(parse_bytes(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_misspelt_setting_is_refused() {
        let _host = Host::new().config("header.accept", "text/plain").config("tll", "1s");
        assert_eq!(only(&["header.", "tll"]), Ok(()));
        assert_eq!(
            only(&["header.", "ttl"]).unwrap_err().to_string(),
            "the setting `tll` is not one of this plugin's: header., ttl"
        );
    }

    #[test]
    fn an_error_names_the_setting() {
        let _host = Host::new().config("ttl", "soon");
        let message = duration("ttl").unwrap_err().to_string();
        assert!(message.starts_with("the setting `ttl` has the value \"soon\""), "{message}");
        assert_eq!(required("url").unwrap_err().to_string(), "the setting `url` is required");
    }
}
