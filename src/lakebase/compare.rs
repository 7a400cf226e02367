//! Whether a resource is as it should be. PURE.
//!
//! The service writes the same value in more than one way: numbers also as text, durations with and
//! without a fraction, times with more or fewer digits. Those are the same here.

use serde_json::Value;

use super::resource::duration;
use crate::kernel::Timestamp;

/// Where `actual` lacks what `expected` says: `status.is_protected is false, not true`. Objects are
/// compared as subsets, lists element by element; an expected `null` is a field that is absent.
pub fn differences(expected: &Value, actual: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", expected, actual, &mut found);
    found
}

fn compare(place: &str, expected: &Value, actual: &Value, found: &mut Vec<String>) {
    match (expected, actual) {
        (Value::Object(fields), Value::Object(_)) => {
            for (name, wanted) in fields {
                let place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
                compare(&place, wanted, actual.get(name).unwrap_or(&Value::Null), found);
            }
        }
        (Value::Array(wanted), Value::Array(items)) if wanted.len() == items.len() => {
            for (index, (wanted, item)) in wanted.iter().zip(items).enumerate() {
                compare(&format!("{place}[{index}]"), wanted, item, found);
            }
        }
        _ if is_same(expected, actual) => {}
        _ => {
            let place = if place.is_empty() { "the resource" } else { place };
            found.push(format!("{place} is {actual}, not {expected}"));
        }
    }
}

fn is_same(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        // An empty text means an absent field.
        (Value::Null, Value::String(text)) | (Value::String(text), Value::Null) => text.is_empty(),
        // Absent and false, absent and empty list are one in the wire format.
        (Value::Bool(false), Value::Null) => true,
        (Value::Array(items), Value::Null) => items.is_empty(),
        (Value::Object(fields), Value::Null) => fields.is_empty(),
        (Value::String(wanted), Value::String(text)) => {
            wanted == text || is_same_time(wanted, text) || is_same_duration(wanted, text)
        }
        (Value::Number(_) | Value::String(_), Value::Number(_) | Value::String(_)) => {
            matches!((number(expected), number(actual)), (Some(a), Some(b)) if close(a, b))
        }
        _ => expected == actual,
    }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= f64::EPSILON * a.abs().max(b.abs())
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn is_same_time(a: &str, b: &str) -> bool {
    matches!((Timestamp::parse(a), Timestamp::parse(b)), (Some(a), Some(b)) if a == b)
}

fn is_same_duration(a: &str, b: &str) -> bool {
    matches!((duration(a), duration(b)), (Some(a), Some(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_subset_is_enough() {
        let actual = json!({"uid": "br-1", "status": {"default": true, "tags": [{"key": "a"}]}});
        assert!(differences(&json!({"status": {"default": true}}), &actual).is_empty());
        assert!(differences(&json!({"status": {"tags": [{}]}, "x": null}), &actual).is_empty());
        let found = differences(&json!({"uid": "br-2", "status": {"tags": []}}), &actual);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[1], r#"uid is "br-1", not "br-2""#);
    }

    #[test]
    fn the_same_value_in_other_words() {
        let same = |a: Value, b: Value| differences(&json!({"a": a}), &json!({"a": b})).is_empty();
        assert!(same(json!(17), json!("17")));
        assert!(same(json!(0.5), json!("0.5")) && same(json!(1), json!(1.0)));
        assert!(same(json!("300s"), json!("300.000s")));
        assert!(same(json!("2026-11-22T19:07:55Z"), json!("2026-11-22T19:07:55.000Z")));
        assert!(same(json!(false), Value::Null) && same(json!(""), Value::Null));
        assert!(!same(json!(true), Value::Null) && !same(json!("a"), json!("b")));
        assert!(!same(Value::Null, json!(true)) && !same(json!("300s"), json!("301s")));
    }
}
