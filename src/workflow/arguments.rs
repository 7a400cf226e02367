//! Checking literal values against JSON Schema, with hints for people.

use serde_json::{Value, json};

use super::diagnostic::{Reporter, shorten};
use super::source::Place;
use super::tree::{Content, Node, Scalar, Style};
use super::types;
use crate::kernel::{ByteSize, Span};

const CODE: &str = "workflow::argument";

/// Checks a literal.
pub(super) fn check_scalar(
    scalar: &Scalar,
    place: Place,
    key: &str,
    schema: &Value,
    reporter: &mut Reporter,
) {
    let value = scalar.to_json();
    if value.is_null() {
        if !takes_null(schema) {
            let message = format!("`{key}` is empty, {} is expected", types::describe(schema));
            reporter.hinted(CODE, place, message, "give a value, or leave the key out");
        }
        return;
    }
    if let Some(choices) = choices(schema) {
        if !choices.contains(&value) {
            let words: Vec<String> = choices.iter().map(plain).collect();
            let shown = shorten(&scalar.text);
            let message = format!("`{shown}` is no value of `{key}`");
            let words = words.iter().map(String::as_str);
            reporter.unknown(CODE, place, (&message, &shown), words);
        }
        return;
    }
    if !fits(&value, schema) {
        return mistyped(&value, scalar, place, (key, schema), reporter);
    }
    check_format(scalar, place, schema, reporter);
    check_range(&value, place, key, schema, reporter);
}

fn mistyped(
    value: &Value,
    scalar: &Scalar,
    place: Place,
    (key, schema): (&str, &Value),
    reporter: &mut Reporter,
) {
    let wanted = types::describe(schema);
    let shown = shorten(&scalar.text);
    let given = types::describe(&json!({ "enum": [value] }));
    let message = format!("`{key}` takes {wanted}, `{shown}` is {given}");
    let help = match types::format(schema) {
        Some("duration") if value.is_number() => format!("write the unit, for example `{shown}s`"),
        Some("size") if value.is_number() => format!("write the unit, for example `{shown}MiB`"),
        _ if !value.is_string() && wanted.contains("text") => {
            format!("put it in quotes: `\"{shown}\"`")
        }
        _ if value.is_string() && scalar.style == Style::Quoted => {
            "leave the quotes out".to_owned()
        }
        _ => format!("write {wanted} here"),
    };
    reporter.hinted(CODE, place, message, help);
}

fn check_format(scalar: &Scalar, place: Place, schema: &Value, reporter: &mut Reporter) {
    let error = match types::format(schema) {
        Some("duration") => Span::parse(&scalar.text).err(),
        Some("size") => ByteSize::parse(&scalar.text).err(),
        _ => None,
    };
    // Where plain text is allowed too, nothing is certain.
    if let Some(error) = error.filter(|_| !takes_any_text(schema)) {
        let text = error.to_string();
        let (message, help) = text.split_once("; ").unwrap_or((&text, "write a unit"));
        reporter.hinted(CODE, place, message, help);
    }
}

fn takes_any_text(schema: &Value) -> bool {
    let Some(variants) = schema.get("anyOf").and_then(Value::as_array) else { return false };
    let is_text = |schema: &Value| {
        schema.get("type") == Some(&json!("string")) && schema.get("format").is_none()
    };
    variants.iter().any(is_text)
}

fn check_range(value: &Value, place: Place, key: &str, schema: &Value, reporter: &mut Reporter) {
    let Some(number) = value.as_f64() else { return };
    for (name, word) in [("minimum", "at least"), ("maximum", "at most")] {
        let Some(bound) = schema.get(name).and_then(Value::as_f64) else { continue };
        if (name == "minimum" && number < bound) || (name == "maximum" && number > bound) {
            let message = format!("`{key}` is out of range");
            reporter.hinted(CODE, place, message, format!("write {word} {bound}"));
        }
    }
}

/// Checks that a list or a map may stand here at all.
pub(super) fn check_kind(node: &Node, key: &str, schema: &Value, reporter: &mut Reporter) -> bool {
    let given = match node.content {
        Content::List(_) => json!({ "type": "array" }),
        _ => json!({ "type": "object" }),
    };
    if types::may_be(&given, schema) {
        return true;
    }
    let message = format!("`{key}` takes {}, this is {}", types::describe(schema), node.kind());
    reporter.error(CODE, node.place, message);
    false
}

/// Checks the keys of a map: none unknown, none missing.
pub(super) fn check_keys(node: &Node, what: &str, schema: &Value, reporter: &mut Reporter) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let Content::Map(entries) = &node.content else { return };
    if schema.get("additionalProperties") == Some(&Value::Bool(false)) {
        for entry in entries.iter().filter(|entry| !properties.contains_key(&entry.key)) {
            let known = properties.keys().map(String::as_str);
            let what = format!("unknown argument `{}` of `{what}`", shorten(&entry.key));
            reporter.unknown("workflow::unknown_argument", entry.place, (&what, &entry.key), known);
        }
    }
    let required = schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        if node.get(name).is_none() {
            missing(name, what, properties.get(name), node.place, reporter);
        }
    }
}

/// Reports an argument that must be given and is not.
pub(super) fn missing(
    name: &str,
    what: &str,
    schema: Option<&Value>,
    place: Place,
    reporter: &mut Reporter,
) {
    let about = schema.and_then(|schema| schema.get("description")).and_then(Value::as_str);
    let help = match about.and_then(|text| text.lines().next()) {
        Some(about) => format!("add `{name}: …` ({})", about.trim_end_matches('.')),
        None => format!("add `{name}: …`"),
    };
    let message = format!("`{what}` needs the argument `{name}`");
    reporter.hinted("workflow::missing_argument", place, message, help);
}

/// The type of the items of a list.
pub(super) fn item_schema(schema: &Value) -> Value {
    narrowed(schema, "array")
        .and_then(|schema| schema.get("items"))
        .cloned()
        .unwrap_or_else(types::anything)
}

/// The type of a field of a map.
pub(super) fn field_schema(schema: &Value, name: &str) -> Value {
    let Some(schema) = narrowed(schema, "object") else { return types::anything() };
    let field = schema.get("properties").and_then(|all| all.get(name));
    let other = || schema.get("additionalProperties").filter(|other| other.is_object());
    field.or_else(other).cloned().unwrap_or_else(types::anything)
}

/// The only alternative of a type that is of a kind; none when there are several.
fn narrowed<'s>(schema: &'s Value, kind: &str) -> Option<&'s Value> {
    let Some(variants) = schema.get("anyOf").or_else(|| schema.get("oneOf")) else {
        return Some(schema);
    };
    let is_kind = |schema: &&Value| types::kinds(schema).is_none_or(|kinds| kinds.contains(kind));
    let mut fitting = variants.as_array()?.iter().filter(is_kind);
    fitting.next().filter(|_| fitting.next().is_none())
}

fn fits(value: &Value, schema: &Value) -> bool {
    let Some(kinds) = types::kinds(schema) else { return true };
    kinds.is_empty()
        || match value {
            Value::Bool(_) => kinds.contains("boolean"),
            Value::Number(number) if number.is_f64() => kinds.contains("number"),
            Value::Number(_) => kinds.contains("integer") || kinds.contains("number"),
            Value::String(_) => kinds.contains("string"),
            Value::Null | Value::Array(_) | Value::Object(_) => true,
        }
}

fn takes_null(schema: &Value) -> bool {
    let Some(fields) = schema.as_object() else { return true };
    let is_null = |schema: &Value| schema.get("type") == Some(&json!("null"));
    match fields.get("type") {
        Some(Value::String(name)) => name == "null",
        Some(Value::Array(names)) => names.contains(&json!("null")),
        _ => match fields.get("anyOf").or_else(|| fields.get("oneOf")) {
            Some(Value::Array(variants)) => variants.iter().any(is_null),
            _ => fields.get("enum").is_none_or(|values| {
                values.as_array().is_some_and(|values| values.contains(&Value::Null))
            }),
        },
    }
}

/// All values of an enumeration, when the type is nothing else.
fn choices(schema: &Value) -> Option<Vec<Value>> {
    let fields = schema.as_object()?;
    if let Some(value) = fields.get("const") {
        return Some(vec![value.clone()]);
    }
    if let Some(values) = fields.get("enum").and_then(Value::as_array) {
        return Some(values.clone());
    }
    let variants = fields.get("anyOf").or_else(|| fields.get("oneOf"))?.as_array()?;
    let is_null = |schema: &&Value| schema.get("type") == Some(&json!("null"));
    let all: Option<Vec<_>> =
        variants.iter().filter(|schema| !is_null(schema)).map(choices).collect();
    Some(all?.into_iter().flatten().collect())
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
