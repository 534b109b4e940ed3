//! Sizes and times as people write them: `64MiB`, `250ms`.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

/// A number of bytes, written with a unit: `512B`, `64KiB`, `1MiB`, `2GiB`, or the
/// decimal `kB`, `MB`, `GB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// Units from the largest to the smallest, for reading and for writing.
const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// Why a text is not a size or a time. Reads as the end of "failed to …".
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UnitError {
    /// Not a number followed by a unit of bytes.
    #[error("`{0}` is not a size: write a number and a unit, such as `64MiB`, `512KiB` or `100B`")]
    NotASize(String),
    /// More bytes than 64 bits count.
    #[error("`{0}` is too large")]
    TooLarge(String),
    /// Not a number followed by a unit of time.
    #[error("`{0}` is not a duration: write a number and a unit, such as `250ms`, `10s` or `1h`")]
    NotADuration(String),
}

impl ByteSize {
    /// So many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many times 1,024 bytes.
    pub const fn kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// So many times 1,048,576 bytes.
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of bytes as a length in memory; the largest one where it does not fit.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let not_a_size = || UnitError::NotASize(text.to_owned());
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let number: u64 = match number.parse() {
            Ok(number) => number,
            Err(_) if number.is_empty() => return Err(not_a_size()),
            Err(_) => return Err(UnitError::TooLarge(text.to_owned())),
        };
        let unit = unit.trim_start();
        let (_, factor) = UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .ok_or_else(not_a_size)?;
        number.checked_mul(*factor).map(Self).ok_or_else(|| UnitError::TooLarge(text.to_owned()))
    }
}

impl fmt::Display for ByteSize {
    /// Writes the largest unit that needs no fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, factor) = UNITS
            .iter()
            .find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor))
            .unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "byte-size",
            "pattern": "^[0-9]+ ?([kKmMgG][iI]?)?[bB]$",
        })
    }
}

/// Stands for a [`Duration`] in the JSON Schema.
pub struct DurationText;

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "duration-text",
            "pattern": "^([0-9]+ ?[a-z]+ ?)+$",
        })
    }
}

/// Stands for a socket address in the JSON Schema.
pub struct AddressText;

impl JsonSchema for AddressText {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "socket-address",
            "pattern": "^.+:[0-9]+$",
        })
    }
}

/// Reads a time such as `250ms` or `1h 30m`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    humantime::parse_duration(text).map_err(|_| UnitError::NotADuration(text.to_owned()))
}

/// Reads and writes a [`Duration`] field with its unit.
pub mod duration {
    use super::{Cow, Deserialize, Deserializer, Duration, Serializer, parse_duration};
    use serde::de::Error as _;

    /// Writes a time with its unit.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }

    /// Reads a time with its unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        parse_duration(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_they_are_read() {
        for text in ["0B", "1B", "512B", "3KiB", "64MiB", "2GiB", "5kB", "7MB"] {
            let size: ByteSize = text.parse().expect(text);
            assert_eq!(size.to_string(), text);
        }
        assert_eq!("64 mib".parse(), Ok(ByteSize::mib(64)));
    }

    #[test]
    fn a_size_without_a_unit_or_a_number_is_refused() {
        for text in ["", "64", "MiB", "1.5MiB", "-1B", "1TiBs", "64MiB extra"] {
            assert!(matches!(text.parse::<ByteSize>(), Err(UnitError::NotASize(_))), "{text}");
        }
        assert!(matches!("99999999999GiB".parse::<ByteSize>(), Err(UnitError::TooLarge(_))));
    }

    #[test]
    fn times_take_compound_units() {
        assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(parse_duration("10").is_err());
        assert!(parse_duration("fast").is_err());
    }
}
