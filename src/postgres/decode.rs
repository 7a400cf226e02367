//! Rows as JSON.
//!
//! Reads have the server make JSON of their rows. What a changed row returns (`returning`), EXPLAIN and
//! SHOW must run as they stand, so their columns are decoded here by type.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgRow, PgValueFormat, PgValueRef};
use sqlx::types::chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use sqlx::types::{Json, Uuid};
use sqlx::{Column as _, Decode, Postgres, Row as _, TypeInfo as _, ValueRef as _};

use super::PgError;

/// The one JSON column of each row.
pub(super) fn json_rows<T: DeserializeOwned>(
    query: &str,
    rows: &[PgRow],
) -> Result<Vec<T>, PgError> {
    rows.iter()
        .map(|row| {
            row.try_get::<Json<T>, _>(0)
                .map(|Json(value)| value)
                .map_err(|error| PgError::of_statement(query, error, 0))
        })
        .collect()
}

/// Each row as an object of its columns.
pub(super) fn objects(query: &str, rows: &[PgRow]) -> Result<Vec<Value>, PgError> {
    rows.iter()
        .map(|row| {
            let fields = row.columns().iter().map(|column| {
                let raw = row.try_get_raw(column.ordinal());
                let value = raw.map_err(|error| error.to_string()).and_then(|raw| value(raw))?;
                Ok((column.name().to_owned(), value))
            });
            fields.collect::<Result<Map<_, _>, String>>().map(Value::Object)
        })
        .map(|row| row.map_err(|why| PgError::Decode { query: query.to_owned(), why }))
        .collect()
}

fn value(raw: PgValueRef<'_>) -> Result<Value, String> {
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let name = raw.type_info().name().to_owned();
    if raw.format() == PgValueFormat::Text {
        return raw.as_str().map(Value::from).map_err(|error| error.to_string());
    }
    match name.as_str() {
        "BOOL" => decoded::<bool>(raw),
        "INT2" => decoded::<i16>(raw),
        "INT4" => decoded::<i32>(raw),
        "INT8" => decoded::<i64>(raw),
        "OID" => take::<Oid>(raw).map(|Oid(number)| number.into()),
        "FLOAT4" => decoded::<f32>(raw),
        "FLOAT8" => decoded::<f64>(raw),
        "NUMERIC" => raw.as_bytes().map_err(|error| error.to_string()).and_then(numeric),
        "JSON" | "JSONB" => take::<Value>(raw),
        "UUID" => take::<Uuid>(raw).map(|id| id.to_string().into()),
        "TIMESTAMPTZ" => take::<DateTime<Utc>>(raw).map(|at| at.to_rfc3339().into()),
        "TIMESTAMP" => {
            take::<NaiveDateTime>(raw).map(|at| at.format("%FT%T%.f").to_string().into())
        }
        "DATE" => take::<NaiveDate>(raw).map(|day| day.to_string().into()),
        "TIME" => take::<NaiveTime>(raw).map(|time| time.to_string().into()),
        "TEXT[]" | "VARCHAR[]" | "NAME[]" => decoded::<Vec<Option<String>>>(raw),
        "INT2[]" => decoded::<Vec<Option<i16>>>(raw),
        "INT4[]" => decoded::<Vec<Option<i32>>>(raw),
        "INT8[]" => decoded::<Vec<Option<i64>>>(raw),
        "BOOL[]" => decoded::<Vec<Option<bool>>>(raw),
        "FLOAT8[]" => decoded::<Vec<Option<f64>>>(raw),
        "VOID" => Ok(Value::Null),
        "BYTEA" => {
            let bytes = raw.as_bytes().map_err(|error| error.to_string())?;
            Ok(format!("\\x{}", crate::kernel::digest::hex(bytes)).into())
        }
        // Texts, names, enums and all else whose binary form is its text.
        other => match raw.as_bytes().map(std::str::from_utf8) {
            Ok(Ok(text)) if !text.contains('\0') => Ok(text.into()),
            _ => Ok(format!("(a value of type {other})").into()),
        },
    }
}

fn take<'r, T: Decode<'r, Postgres>>(raw: PgValueRef<'r>) -> Result<T, String> {
    T::decode(raw).map_err(|error| error.to_string())
}

fn decoded<'r, T: Decode<'r, Postgres> + Into<Value>>(
    raw: PgValueRef<'r>,
) -> Result<Value, String> {
    take::<T>(raw).map(Into::into)
}

/// A `numeric`: a number when JSON can hold it exactly, otherwise its digits as text.
fn numeric(bytes: &[u8]) -> Result<Value, String> {
    let words: Vec<u16> =
        bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    let [count, weight, sign, scale, digits @ ..] = words.as_slice() else {
        return Err("a numeric of fewer than eight bytes".to_owned());
    };
    if digits.len() != usize::from(*count) {
        return Err("a numeric with missing digits".to_owned());
    }
    let special = match sign {
        0x0000 | 0x4000 => None,
        0xC000 => Some("NaN"),
        0xD000 => Some("Infinity"),
        _ => Some("-Infinity"),
    };
    if let Some(text) = special {
        return Ok(text.into());
    }
    let weight = i32::from(weight.cast_signed());
    let group = |index: i32| {
        usize::try_from(index).ok().and_then(|index| digits.get(index)).copied().unwrap_or(0)
    };
    let whole = padded((0..=weight).map(group));
    let whole = whole.trim_start_matches('0');
    let mut text = if *sign == 0x4000 { "-".to_owned() } else { String::new() };
    text.push_str(if whole.is_empty() { "0" } else { whole });
    let scale = usize::from(*scale);
    if scale > 0 {
        let groups = i32::try_from(scale.div_ceil(4)).unwrap_or(0);
        let fraction = padded((1..=groups).map(|step| group(weight + step)));
        text.push('.');
        text.push_str(fraction.get(..scale).unwrap_or(&fraction));
    }
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    if let Ok(number) = text.parse::<i64>() {
        return Ok(number.into());
    }
    // Fifteen digits survive a double.
    match text.parse::<f64>() {
        Ok(number) if digits <= 15 => Ok(number.into()),
        _ => Ok(text.into()),
    }
}

fn padded(groups: impl Iterator<Item = u16>) -> String {
    use std::fmt::Write as _;
    groups.fold(String::new(), |mut text, group| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{group:04}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(weight: i16, sign: u16, scale: u16, digits: &[u16]) -> Value {
        let count = u16::try_from(digits.len()).unwrap();
        let head = [count, weight.cast_unsigned(), sign, scale];
        let bytes: Vec<u8> =
            head.iter().chain(digits).flat_map(|word| word.to_be_bytes()).collect();
        numeric(&bytes).unwrap()
    }

    #[test]
    fn numerics() {
        assert_eq!(of(0, 0, 0, &[42]), 42);
        assert_eq!(of(1, 0x4000, 2, &[1, 2345, 6700]), -12345.67);
        assert_eq!(of(-1, 0, 4, &[5]), 0.0005);
        assert_eq!(of(0, 0, 0, &[]), 0);
        assert_eq!(of(1, 0, 0, &[12]), 120_000);
        assert_eq!(of(-2, 0, 8, &[12]), 0.000_000_12);
        assert_eq!(of(0, 0xC000, 0, &[]), "NaN");
        assert_eq!(of(5, 0, 0, &[1, 2, 3, 4, 5, 6]), "100020003000400050006");
        assert!(numeric(&[0, 1]).is_err());
        assert!(numeric(&[0, 1, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
