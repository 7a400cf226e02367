//! Checks of single values, each as the service writes it afterwards. PURE.

use serde_json::{Map, Value, json};

use crate::kernel::Timestamp;
use crate::lakebase::resource::duration as parse_duration;

/// Text of 1 to 256 characters.
pub(super) fn text(value: &Value) -> Result<Value, String> {
    let text = value.as_str().ok_or("must be a string")?;
    if (1..=256).contains(&text.chars().count()) {
        Ok(json!(text))
    } else {
        Err("must have 1 to 256 characters".to_owned())
    }
}

/// Text of any length.
pub(super) fn any_text(value: &Value) -> Result<Value, String> {
    if value.is_string() { Ok(value.clone()) } else { Err("must be a string".to_owned()) }
}

pub(super) fn truth(value: &Value) -> Result<Value, String> {
    value.as_bool().map(Value::Bool).ok_or_else(|| "must be true or false".to_owned())
}

/// `true`: the field stands for a choice, and its opposite is another field.
pub(super) fn yes(value: &Value) -> Result<Value, String> {
    if value == &Value::Bool(true) { Ok(json!(true)) } else { Err("can only be true".to_owned()) }
}

/// A number, or its text.
pub(super) fn number(value: &Value) -> Result<Value, String> {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok());
    let number = number.filter(|it: &f64| it.is_finite());
    number.map(|it| json!(it)).ok_or_else(|| "must be a number".to_owned())
}

pub(super) fn integer(value: &Value) -> Result<Value, String> {
    let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
    number.map(|it: i64| json!(it)).ok_or_else(|| "must be an integer".to_owned())
}

/// Compute units: at least half of one, at most 112.
pub(super) fn compute_units(value: &Value) -> Result<Value, String> {
    let value = number(value)?;
    let fits = value.as_f64().is_some_and(|it| (0.5..=112.0).contains(&it));
    if fits { Ok(value) } else { Err("must be from 0.5 to 112".to_owned()) }
}

/// A duration: seconds with an `s`.
pub(super) fn duration(value: &Value) -> Result<Value, String> {
    within(value, 1, u64::MAX / 2)
}

/// How long an endpoint waits before it sleeps: a minute to seven days.
pub(super) fn suspend_timeout(value: &Value) -> Result<Value, String> {
    within(value, 60, 604_800)
}

/// How far back branches can begin: two to 35 days.
pub(super) fn history_retention(value: &Value) -> Result<Value, String> {
    within(value, 172_800, 3_024_000)
}

/// How long a branch lives: at most 30 days.
pub(super) fn time_to_live(value: &Value) -> Result<Value, String> {
    within(value, 1, super::limits::LONGEST_TTL.as_secs())
}

/// How long a credential lives: five minutes to an hour.
pub(super) fn credential_ttl(value: &Value) -> Result<Value, String> {
    within(value, 300, 3_600)
}

fn within(value: &Value, least: u64, most: u64) -> Result<Value, String> {
    let form = "must be a duration in seconds, such as \"300s\"";
    let found = value.as_str().and_then(parse_duration).ok_or(form)?;
    let (whole, rest) = (found.as_secs(), found.subsec_millis());
    if whole < least || whole > most || whole == most && rest > 0 {
        return Err(format!("must be from {least}s to {most}s"));
    }
    Ok(json!(if rest == 0 { format!("{whole}s") } else { format!("{whole}.{rest:03}s") }))
}

/// A time, as RFC 3339 writes it.
pub(super) fn time(value: &Value) -> Result<Value, String> {
    let time = value.as_str().and_then(Timestamp::parse);
    time.map(|it| json!(it)).ok_or_else(|| "must be an RFC 3339 time".to_owned())
}

/// Settings of PostgreSQL: names and texts.
pub(super) fn settings(value: &Value) -> Result<Value, String> {
    let map = value.as_object().ok_or("must be a map of strings")?;
    let mut written = Map::new();
    for (name, value) in map {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(on) => on.to_string(),
            _ => return Err(format!("must be a map of strings, and `{name}` is none")),
        };
        written.insert(name.clone(), json!(text));
    }
    Ok(Value::Object(written))
}

/// Labels: `[{key, value}]`, each key once.
pub(super) fn tags(value: &Value) -> Result<Value, String> {
    let list = value.as_array().ok_or("must be a list")?;
    let mut keys = std::collections::BTreeSet::new();
    let mut written = Vec::new();
    for tag in list {
        let key = tag["key"].as_str().filter(|key| !key.is_empty());
        let key = key.ok_or("holds a tag without a key")?;
        if !keys.insert(key) {
            return Err(format!("holds the key `{key}` twice"));
        }
        written.push(json!({ "key": key, "value": tag["value"].as_str().unwrap_or_default() }));
    }
    Ok(Value::Array(written))
}

/// Texts.
pub(super) fn texts(value: &Value) -> Result<Value, String> {
    let list = value.as_array().ok_or("must be a list of strings")?;
    if list.iter().all(Value::is_string) {
        Ok(value.clone())
    } else {
        Err("must be a list of strings".to_owned())
    }
}

/// Anything that is an object.
pub(super) fn object(value: &Value) -> Result<Value, String> {
    if value.is_object() { Ok(value.clone()) } else { Err("must be an object".to_owned()) }
}

/// Anything that is a list.
pub(super) fn list(value: &Value) -> Result<Value, String> {
    if value.is_array() { Ok(value.clone()) } else { Err("must be a list".to_owned()) }
}

/// The name of a role or database of PostgreSQL.
pub(super) fn postgres_name(value: &Value) -> Result<Value, String> {
    let text = value.as_str().ok_or("must be a string")?;
    if !(1..=63).contains(&text.len()) || text.contains('\0') {
        return Err("must have 1 to 63 bytes".to_owned());
    }
    Ok(json!(text))
}

/// A position of the WAL.
pub(super) fn lsn(value: &Value) -> Result<Value, String> {
    let form = "must be a position of the WAL, such as \"0/1A2B3C8\"";
    let text = value.as_str().ok_or(form)?;
    let (high, low) = text.split_once('/').ok_or(form)?;
    let is_hex = |part: &str| {
        (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    if is_hex(high) && is_hex(low) { Ok(json!(text)) } else { Err(form.to_owned()) }
}

/// One of some words.
pub(super) fn word(value: &Value, words: &[&str]) -> Result<Value, String> {
    let text = value.as_str().unwrap_or_default();
    if words.contains(&text) {
        Ok(json!(text))
    } else {
        Err(format!("must be one of {}", words.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_in_one_way() {
        assert_eq!(duration(&json!("300.50s")).unwrap(), "300.500s");
        assert_eq!(duration(&json!("300.0s")).unwrap(), "300s");
        assert_eq!(number(&json!("0.5")).unwrap(), 0.5);
        assert_eq!(integer(&json!("17")).unwrap(), 17);
        assert_eq!(time(&json!("2026-11-22T20:07:55+01:00")).unwrap(), "2026-11-22T19:07:55.000Z");
        assert_eq!(settings(&json!({"jit": false})).unwrap(), json!({"jit": "false"}));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let refused = |check: super::super::fields::Check, value: Value| {
            assert!(check(&value).is_err(), "{value}");
        };
        refused(suspend_timeout, json!("59s"));
        refused(suspend_timeout, json!("604801s"));
        refused(suspend_timeout, json!("604800.5s"));
        refused(suspend_timeout, json!(300));
        refused(history_retention, json!("86400s"));
        refused(compute_units, json!(0.25));
        refused(time_to_live, json!("2592001s"));
        refused(yes, json!(false));
        refused(tags, json!([{"key": "a"}, {"key": "a"}]));
        refused(lsn, json!("0/XYZ"));
        refused(text, json!(""));
    }
}
