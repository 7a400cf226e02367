//! Checks a tree of values against the schema of [`Document`](super::document::Document). PURE.
//!
//! The schema is the one that schemars derives, without references, so only the forms that it writes
//! are understood here.

use serde_json::{Map, Value};

use crate::kernel::{ByteSize, Span};

/// Something that is wrong at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The keys that lead to it.
    pub(super) path: Vec<String>,
    /// Whether the key itself is at fault, not its value.
    pub(super) at_key: bool,
    /// What is wrong.
    pub(super) message: String,
    /// What to do about it.
    pub(super) hint: Option<String>,
}

/// Everything that is wrong with `value`. What `targets` lacks is not told: it lies on top of
/// `settings`, and is checked once it does.
pub(super) fn check(schema: &Value, value: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    walk(schema, value, &mut Vec::new(), &mut findings);
    findings
}

/// The schema of the value at `path`, when there may be one.
pub(super) fn schema_at<'a>(schema: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(schema, |schema, key| {
        let schema = without_null(schema);
        let named = schema.get("properties").and_then(|properties| properties.get(key));
        named.or_else(|| schema.get("additionalProperties").filter(|more| more.is_object()))
    })
}

/// The names that a table of this schema has.
pub(super) fn known_keys(schema: &Value) -> Vec<&str> {
    let properties = without_null(schema).get("properties").and_then(Value::as_object);
    properties.into_iter().flat_map(Map::keys).map(String::as_str).collect()
}

/// The candidate that is most like `word`, when one is like it at all.
pub(super) fn closest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let scored = candidates.into_iter().map(|candidate| {
        let distance = strsim::damerau_levenshtein(word, candidate);
        (distance, candidate)
    });
    let (distance, candidate) = scored.min()?;
    let is_near = distance <= (word.chars().count() / 3).max(1);
    let is_part = word.len() > 3 && (candidate.contains(word) || word.contains(candidate));
    (is_near || is_part).then_some(candidate)
}

/// Of `anyOf: [T, null]`, the `T`.
fn without_null(schema: &Value) -> &Value {
    let alternatives = schema.get("anyOf").and_then(Value::as_array);
    let real =
        alternatives.into_iter().flatten().find(|one| one.get("type") != Some(&"null".into()));
    real.unwrap_or(schema)
}

fn walk(schema: &Value, value: &Value, path: &mut Vec<String>, findings: &mut Vec<Finding>) {
    // Nothing but the built-in layer can say null, and it means "not set".
    if value.is_null() {
        return;
    }
    let schema = without_null(schema);
    if let Some(message) = wrong_form(schema, value) {
        findings.push(Finding { path: path.clone(), at_key: false, message, hint: None });
        return;
    }
    match value {
        Value::Object(fields) => {
            if path.first().is_none_or(|first| first != "targets") {
                missing(schema, fields, path, findings);
            }
            for (key, value) in fields {
                path.push(key.clone());
                match schema_at(schema, std::slice::from_ref(key)) {
                    Some(inner) => walk(inner, value, path, findings),
                    None => findings.push(unknown(schema, path)),
                }
                path.pop();
            }
        }
        Value::Array(items) => {
            let Some(inner) = schema.get("items") else { return };
            for (index, item) in items.iter().enumerate() {
                path.push(index.to_string());
                walk(inner, item, path, findings);
                path.pop();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn missing(
    schema: &Value,
    fields: &Map<String, Value>,
    path: &[String],
    findings: &mut Vec<Finding>,
) {
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    for name in required.filter_map(Value::as_str).filter(|name| !fields.contains_key(*name)) {
        findings.push(Finding {
            path: path.to_vec(),
            at_key: true,
            message: format!("`{}` lacks the key `{name}`", dotted(path)),
            hint: None,
        });
    }
}

fn unknown(schema: &Value, path: &[String]) -> Finding {
    let known = known_keys(schema);
    let (name, table) = match path.split_last() {
        Some((name, [])) => (name.as_str(), "a configuration".to_owned()),
        Some((name, table)) => (name.as_str(), format!("`{}`", dotted(table))),
        None => ("", String::new()),
    };
    let hint = match closest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known keys: {}", known.join(", ")),
    };
    Finding {
        path: path.to_vec(),
        at_key: true,
        message: format!("{table} has no key `{name}`"),
        hint: Some(hint),
    }
}

/// What is wrong with the form of one value; its children are looked at by the caller.
fn wrong_form(schema: &Value, value: &Value) -> Option<String> {
    if let Some(words) = words(schema) {
        let is_known = value.as_str().is_some_and(|text| words.contains(&text));
        return (!is_known).then(|| format!("{value} is not one of {}", words.join(", ")));
    }
    let wanted = schema.get("type")?;
    let matches = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => false,
    };
    let format = schema.get("format").and_then(Value::as_str);
    let kinds: Vec<&str> = match wanted {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    if !kinds.iter().any(|kind| matches(kind)) {
        let kind = kinds.first().copied().unwrap_or("value");
        return Some(format!("{} is not {}", value_for_people(value), description(kind, format)));
    }
    match (format, value.as_str()) {
        (Some("duration"), Some(text)) => Span::parse(text).err().map(|error| error.to_string()),
        (Some("size"), Some(text)) => ByteSize::parse(text).err().map(|error| error.to_string()),
        _ => out_of_range(schema, value),
    }
}

fn out_of_range(schema: &Value, value: &Value) -> Option<String> {
    let number = value.as_f64()?;
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    let too_small = bound("minimum").filter(|least| number < *least);
    let too_large = bound("maximum").filter(|most| number > *most);
    too_small
        .map(|least| format!("{value} is less than {least}"))
        .or_else(|| too_large.map(|most| format!("{value} is more than {most}")))
}

fn words(schema: &Value) -> Option<Vec<&str>> {
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return Some(words.iter().filter_map(Value::as_str).collect());
    }
    let alternatives = schema.get("oneOf")?.as_array()?;
    alternatives.iter().map(|one| one.get("const").and_then(Value::as_str)).collect()
}

fn value_for_people(value: &Value) -> String {
    match value {
        Value::Object(_) => "a table".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

fn description(kind: &str, format: Option<&str>) -> &'static str {
    match (kind, format) {
        (_, Some("duration")) => "a duration; write a text such as \"90s\" or \"15m\"",
        (_, Some("size")) => "a size; write a text such as \"10GiB\"",
        ("object", _) => "a table",
        ("array", _) => "a list",
        ("boolean", _) => "`true` or `false`",
        ("integer", _) => "a whole number",
        ("number", _) => "a number",
        _ => "a text",
    }
}

/// The keys joined by dots, quoted where they have to be.
pub(super) fn dotted(path: &[String]) -> String {
    let bare = |key: &str| {
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
    };
    let parts = path.iter().map(|key| if bare(key) { key.clone() } else { format!("{key:?}") });
    parts.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::document::{Document, schema};

    fn messages(value: &Value) -> Vec<String> {
        let found = check(schema(), value);
        found.into_iter().map(|f| format!("{}: {}", dotted(&f.path), f.message)).collect()
    }

    #[test]
    fn the_defaults_are_valid() {
        let defaults = serde_json::to_value(Document::default()).unwrap();
        assert_eq!(messages(&defaults), Vec::<String>::new());
    }

    #[test]
    fn each_form_is_checked() {
        let value = json!({
            "state": 1,
            "actor_from_env": "yes",
            "settings": {
                "limits": { "lock_timeout": 3, "max_barren_resumes": -1, "statement_timeout": "soon" },
                "approvals": { "ask_from": "hihg" },
                "windows": [{ "from": "22:00" }],
                "caps": { "sessions_ended": { "per_run": "many" } },
                "cold_data": { "tables": { "public.t": { "after": "5" } } },
            },
            "targets": { "demo/production": { "limit": {} } },
        });
        let expected = [
            "actor_from_env: \"yes\" is not `true` or `false`",
            "settings.approvals.ask_from: \"hihg\" is not one of low, medium, high",
            "settings.caps.sessions_ended.per_run: \"many\" is not a whole number",
            "settings.cold_data.tables.\"public.t\".after: `5` is not a duration; write the unit, for \
             example `5s`",
            "settings.limits.lock_timeout: 3 is not a duration; write a text such as \"90s\" or \"15m\"",
            "settings.limits.max_barren_resumes: -1 is less than 0",
            "settings.limits.statement_timeout: `soon` is not a duration; write a number and a unit, \
             for example `90s`, `15m` or `2d`",
            "settings.windows.0: `settings.windows.0` lacks the key `to`",
            "state: 1 is not a text",
            "targets.\"demo/production\".limit: `targets.\"demo/production\"` has no key `limit`",
        ];
        assert_eq!(messages(&value), expected);
    }

    #[test]
    fn hints_name_the_nearest_key() {
        let found = check(schema(), &json!({ "conections": {}, "settings": { "zzz": 1 } }));
        assert_eq!(found[0].hint.as_deref(), Some("did you mean `connections`?"));
        assert!(found[1].hint.as_deref().unwrap().starts_with("known keys: allow_commands"));
    }
}
