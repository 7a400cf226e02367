//! Durations and sizes as people write them: always with a unit.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time such as `90s`, `15m` or `2d`. A bare number is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span(pub Duration);

/// An amount of bytes such as `512kB` or `10GiB`. A bare number is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ByteSize(pub u64);

/// A text that is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}; {hint}")]
pub struct QuantityError {
    text: String,
    kind: &'static str,
    hint: String,
}

impl Span {
    /// Reads `250ms`, `90s`, `15m`, `1h 30m`, `2d`.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let error = |hint: String| QuantityError { text: text.to_owned(), kind: "duration", hint };
        if let Ok(number) = text.trim().parse::<f64>() {
            return Err(error(format!("write the unit, for example `{number}s`")));
        }
        humantime::parse_duration(text.trim()).map(Self).map_err(|_| {
            error("write a number and a unit, for example `90s`, `15m` or `2d`".into())
        })
    }

    /// The length in whole milliseconds.
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    /// A span of that many seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }
}

impl ByteSize {
    /// Reads `8192B`, `512kB`, `10MiB`, `2GB`.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let error = |hint: String| QuantityError { text: text.to_owned(), kind: "size", hint };
        if let Ok(number) = text.trim().parse::<f64>() {
            return Err(error(format!("write the unit, for example `{number}MiB`")));
        }
        text.trim()
            .parse::<bytesize::ByteSize>()
            .map(|size| Self(size.as_u64()))
            .map_err(|_| error("write a number and a unit, for example `512kB` or `10GiB`".into()))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bytesize::ByteSize::b(self.0).fmt(f)
    }
}

macro_rules! text_form {
    ($type:ty, $name:literal, $pattern:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "format": $name, "pattern": $pattern })
            }
        }
    };
}

text_form!(Span, "duration", r"^\s*(\d+\s*[A-Za-z]+\s*)+$");
text_form!(ByteSize, "size", r"^\s*\d+(\.\d+)?\s*[A-Za-z]+\s*$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(Span::parse("90s").unwrap().0, Duration::from_secs(90));
        assert_eq!(Span::parse("1h 30m").unwrap(), Span::from_secs(5400));
        assert!(Span::parse("90").unwrap_err().to_string().contains("`90s`"));
        assert!(Span::parse("soon").is_err());
        assert_eq!(Span::from_secs(5400).to_string(), "1h 30m");
    }

    #[test]
    fn sizes_need_a_unit() {
        assert_eq!(ByteSize::parse("10GiB").unwrap(), ByteSize(10 << 30));
        assert!(ByteSize::parse("10").is_err());
        assert!(ByteSize::parse("ten").is_err());
    }

    #[test]
    fn text_form_round_trips() {
        for text in ["250ms", "2days", "1h 1s"] {
            let span = Span::parse(text).unwrap();
            let json = serde_json::to_value(span).unwrap();
            assert_eq!(serde_json::from_value::<Span>(json).unwrap(), span);
        }
        let size = ByteSize(10 << 30);
        let json = serde_json::to_value(size).unwrap();
        assert_eq!(serde_json::from_value::<ByteSize>(json).unwrap(), size);
    }
}
