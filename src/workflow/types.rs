//! What is known of a value before a run: JSON Schema, read as far as it is certain.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// How often one type is followed inside itself; deeper down it is "anything".
const MOST_REPEATS: usize = 2;

/// What a path leads to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    /// Nobody can tell.
    Unknown,
    /// A value of this type.
    Type(Value),
    /// There is no such field: how many parts of the path are right, and the fields there are.
    Missing { depth: usize, known: Vec<String> },
}

/// Anything.
pub(super) fn anything() -> Value {
    Value::Bool(true)
}

/// An object with these fields and no others.
pub(super) fn object<'n>(fields: impl IntoIterator<Item = (&'n str, Value)>) -> Value {
    let properties: Map<String, Value> =
        fields.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    json!({ "type": "object", "properties": properties })
}

/// A list of values of one type.
pub(super) fn list_of(items: &Value) -> Value {
    json!({ "type": "array", "items": items })
}

/// A tool's schema with all references resolved, so that parts of it stand alone.
pub(super) fn inlined(schema: &schemars::Schema) -> Value {
    let root = schema.as_value().clone();
    inline(&root, &root, &mut Vec::new())
}

fn inline<'n>(node: &'n Value, root: &'n Value, within: &mut Vec<&'n str>) -> Value {
    let Value::Object(fields) = node else {
        return match node {
            Value::Array(items) => items.iter().map(|item| inline(item, root, within)).collect(),
            other => other.clone(),
        };
    };
    if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
        let found = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        let repeats = within.iter().filter(|other| **other == reference).count();
        let Some(found) = found.filter(|_| repeats < MOST_REPEATS) else { return anything() };
        within.push(reference);
        let inlined = inline(found, root, within);
        within.pop();
        return inlined;
    }
    let kept = fields.iter().filter(|(key, _)| *key != "$defs");
    Value::Object(kept.map(|(key, value)| (key.clone(), inline(value, root, within))).collect())
}

/// Follows a path into a type.
pub(super) fn follow(schema: &Value, path: &[String]) -> Found {
    let Some((name, rest)) = path.split_first() else {
        return if schema.is_boolean() { Found::Unknown } else { Found::Type(schema.clone()) };
    };
    let Value::Object(fields) = schema else { return Found::Unknown };
    if let Some(field) = fields.get("properties").and_then(|all| all.get(name)) {
        return deeper(follow(field, rest));
    }
    if let Some(variants) = variants(fields) {
        return if fields.contains_key("properties") {
            Found::Unknown
        } else {
            follow_any(&variants, path)
        };
    }
    if fields.contains_key("allOf") {
        return Found::Unknown;
    }
    match fields.get("type").and_then(Value::as_str) {
        Some("array") => follow_list(fields, name, rest),
        Some("object") => follow_object(fields, rest),
        _ => Found::Unknown,
    }
}

fn deeper(found: Found) -> Found {
    match found {
        Found::Missing { depth, known } => Found::Missing { depth: depth + 1, known },
        other => other,
    }
}

fn follow_list(fields: &Map<String, Value>, name: &str, rest: &[String]) -> Found {
    if name.parse::<usize>().is_ok() {
        return deeper(follow(fields.get("items").unwrap_or(&anything()), rest));
    }
    // Lists have properties of the expression language, such as `len`.
    Found::Unknown
}

fn follow_object(fields: &Map<String, Value>, rest: &[String]) -> Found {
    match fields.get("additionalProperties") {
        None | Some(Value::Bool(false)) => {}
        Some(other) => return deeper(follow(other, rest)),
    }
    match fields.get("properties").and_then(Value::as_object) {
        Some(known) if !fields.contains_key("patternProperties") => {
            Found::Missing { depth: 0, known: known.keys().cloned().collect() }
        }
        _ => Found::Unknown,
    }
}

fn follow_any(variants: &[Value], path: &[String]) -> Found {
    let mut types = Vec::new();
    let mut missing: Option<(usize, BTreeSet<String>)> = None;
    for variant in variants {
        match follow(variant, path) {
            Found::Unknown => return Found::Unknown,
            Found::Type(found) => types.push(found),
            Found::Missing { depth, known } => {
                let all = missing.get_or_insert_with(|| (depth, BTreeSet::new()));
                all.0 = all.0.max(depth);
                all.1.extend(known);
            }
        }
    }
    match (types.len(), missing) {
        (0, Some((depth, known))) => Found::Missing { depth, known: known.into_iter().collect() },
        (0, None) => Found::Unknown,
        (1, _) => Found::Type(types.swap_remove(0)),
        _ => Found::Type(json!({ "anyOf": types })),
    }
}

/// The alternatives of a type, "nothing" left out.
fn variants(fields: &Map<String, Value>) -> Option<Vec<Value>> {
    let all = fields.get("anyOf").or_else(|| fields.get("oneOf"))?.as_array()?;
    let is_null = |schema: &&Value| schema.get("type") == Some(&json!("null"));
    Some(all.iter().filter(|schema| !is_null(schema)).cloned().collect())
}

/// The kinds of values that a type has, "nothing" left out; `None`: nobody can tell.
pub(super) fn kinds(schema: &Value) -> Option<BTreeSet<&'static str>> {
    let fields = schema.as_object()?;
    if let Some(value) = fields.get("const") {
        return Some(BTreeSet::from([kind_of(value)?]));
    }
    if let Some(values) = fields.get("enum").and_then(Value::as_array) {
        return Some(values.iter().filter_map(kind_of).collect());
    }
    if let Some(variants) = variants(fields) {
        let all: Option<Vec<_>> = variants.iter().map(kinds).collect();
        return Some(all?.into_iter().flatten().collect());
    }
    let names: Vec<&str> = match fields.get("type")? {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let known = ["string", "integer", "number", "boolean", "object", "array"];
    Some(known.into_iter().filter(|kind| names.contains(kind)).collect())
}

fn kind_of(value: &Value) -> Option<&'static str> {
    match value {
        Value::Null => None,
        Value::Bool(_) => Some("boolean"),
        Value::Number(number) if number.is_f64() => Some("number"),
        Value::Number(_) => Some("integer"),
        Value::String(_) => Some("string"),
        Value::Array(_) => Some("array"),
        Value::Object(_) => Some("object"),
    }
}

/// Whether a value of the first type can be one of the second.
pub(super) fn may_be(given: &Value, wanted: &Value) -> bool {
    let (Some(given), Some(wanted)) = (kinds(given), kinds(wanted)) else { return true };
    let is_number = |kind: &str| matches!(kind, "integer" | "number");
    let fits = |kind: &str| {
        wanted.iter().any(|other| *other == kind || (is_number(kind) && is_number(other)))
    };
    given.is_empty() || wanted.is_empty() || given.iter().any(|kind| fits(kind))
}

/// The format that a text must have: `duration` or `size`.
pub(super) fn format(schema: &Value) -> Option<&str> {
    let fields = schema.as_object()?;
    if let Some(variants) = fields.get("anyOf").and_then(Value::as_array) {
        return variants.iter().find_map(format);
    }
    fields.get("format").and_then(Value::as_str)
}

/// A type in words: `text or a list`.
pub(super) fn describe(schema: &Value) -> String {
    match format(schema) {
        Some("duration") => return "a duration".to_owned(),
        Some("size") => return "a size".to_owned(),
        _ => {}
    }
    let words = kinds(schema).unwrap_or_default().into_iter().map(|kind| match kind {
        "string" => "text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "`true` or `false`",
        "object" => "a map",
        _ => "a list",
    });
    words.collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::Serialize;

    use super::*;
    use crate::kernel::Span;

    #[derive(Serialize, JsonSchema)]
    struct Output {
        count: u32,
        since: Option<Span>,
        tables: Vec<Table>,
        worst: Option<Table>,
        by_name: std::collections::BTreeMap<String, Table>,
        raw: Value,
    }

    #[derive(Serialize, JsonSchema)]
    struct Table {
        name: String,
        parts: Vec<Self>,
    }

    fn at(path: &str) -> Found {
        let schema = inlined(&schemars::schema_for!(Output));
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        follow(&schema, &path)
    }

    fn words(path: &str) -> String {
        match at(path) {
            Found::Type(schema) => describe(&schema),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn paths_are_followed_as_far_as_it_is_certain() {
        assert_eq!(words("count"), "a whole number");
        assert_eq!(words("since"), "a duration");
        assert_eq!(words("tables.0.name"), "text");
        assert_eq!(words("tables.0.parts.3.parts"), "a list");
        assert_eq!(words("worst.name"), "text");
        assert_eq!(words("by_name.x.name"), "text");
        assert_eq!(at("raw.anything.at.all"), Found::Unknown);
        assert_eq!(at("tables.len"), Found::Unknown);
        let Found::Missing { depth, known } = at("worst.nam") else { panic!("found") };
        assert_eq!((depth, known), (1, vec!["name".to_owned(), "parts".to_owned()]));
        assert!(matches!(at("counts"), Found::Missing { depth: 0, .. }));
    }

    #[test]
    fn only_clear_differences_are_told() {
        let text = json!({ "type": "string" });
        let number = json!({ "type": ["integer", "null"] });
        assert!(!may_be(&text, &number));
        assert!(!may_be(&number, &text));
        assert!(may_be(&number, &json!({ "type": "number" })));
        assert!(may_be(&text, &anything()));
        assert!(may_be(&text, &json!({ "anyOf": [number, text] })));
        assert!(may_be(&text, &json!({ "enum": ["a", "b"] })));
    }
}
