//! Tools and their arguments. PURE.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::style::{Style, Tone};
use super::table::table;
use crate::tools::AnyTool;

/// A list of tools.
pub fn list(style: Style, tools: &[AnyTool]) -> String {
    let rows = tools.iter().map(|tool| {
        let meta = tool.meta();
        vec![
            meta.name.to_owned(),
            meta.family.as_str().to_owned(),
            kind(tool).to_owned(),
            meta.risk.to_string(),
            meta.summary.to_owned(),
        ]
    });
    table(style, &["tool", "family", "kind", "risk", "what it does"], rows.collect(), "no tools")
}

const fn kind(tool: &AnyTool) -> &'static str {
    if tool.is_write() { "write" } else { "read" }
}

/// A tool with its arguments and its output.
pub fn one(style: Style, tool: &AnyTool) -> String {
    let meta = tool.meta();
    let mut text = String::new();
    let _ = writeln!(text, "{}  {}", style.paint(Tone::Strong, meta.name), meta.summary);
    let _ = writeln!(
        text,
        "{} tool of the family {}, {} risk, revision {}",
        kind(tool),
        meta.family.as_str(),
        meta.risk,
        meta.revision
    );
    let _ = writeln!(text, "\n{}", style.paint(Tone::Strong, "arguments"));
    text.push_str(&fields(style, tool.erased().params_schema().as_value(), "none"));
    if !meta.secrets.is_empty() {
        let _ = writeln!(text, "  may hold secrets: {}", meta.secrets.join(", "));
    }
    let _ = writeln!(text, "\n{}", style.paint(Tone::Strong, "output"));
    text.push_str(&fields(style, tool.erased().output_schema().as_value(), "none"));
    if !meta.sql.is_empty() {
        let names: Vec<&str> = meta.sql.iter().map(|file| file.name).collect();
        let _ = writeln!(text, "\n{} {}", style.paint(Tone::Strong, "sql"), names.join(", "));
    }
    text
}

/// A tool as JSON, with its schemas.
pub fn to_json(tool: &AnyTool) -> Value {
    let meta = tool.meta();
    json!({
        "name": meta.name,
        "family": meta.family.as_str(),
        "kind": kind(tool),
        "risk": meta.risk,
        "revision": meta.revision,
        "summary": meta.summary,
        "secrets": meta.secrets,
        "sql": meta.sql.iter().map(|file| file.name).collect::<Vec<_>>(),
        "arguments": tool.erased().params_schema().as_value(),
        "output": tool.erased().output_schema().as_value(),
    })
}

fn fields(style: Style, schema: &Value, nothing: &str) -> String {
    let properties = schema.get("properties").and_then(Value::as_object);
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let rows: Vec<Vec<String>> = properties
        .into_iter()
        .flatten()
        .map(|(name, field)| {
            let default = field.get("default").filter(|default| !default.is_null());
            let note = match default {
                Some(default) => format!("default {default}"),
                None if required.contains(&name.as_str()) => "required".to_owned(),
                None => String::new(),
            };
            let about = field.get("description").and_then(Value::as_str).unwrap_or_default();
            let about = about.split_whitespace().collect::<Vec<_>>().join(" ");
            vec![format!("  {name}"), kind_of(field, schema), note, about]
        })
        .collect();
    if rows.is_empty() {
        return format!("  {nothing}\n");
    }
    table(style, &["  name", "type", "", "meaning"], rows, nothing)
}

/// The type of a field, in a word.
fn kind_of(field: &Value, root: &Value) -> String {
    if let Some(format) = field.get("format").and_then(Value::as_str)
        && matches!(format, "duration" | "size" | "date-time")
    {
        return format.to_owned();
    }
    if let Some(name) =
        field.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix("#/$defs/"))
    {
        let target = root.get("$defs").and_then(|defs| defs.get(name));
        return target.map_or_else(|| name.to_owned(), |target| kind_of(target, root));
    }
    for key in ["enum", "oneOf", "anyOf"] {
        if let Some(alternatives) = field.get(key).and_then(Value::as_array) {
            let words = alternatives.iter().map(|one| match one.get("const").unwrap_or(one) {
                Value::String(text) => text.clone(),
                other => kind_of(other, root),
            });
            let words: Vec<String> = words.filter(|word| word != "null").collect();
            return words.join(" | ");
        }
    }
    match field.get("type") {
        Some(Value::String(kind)) if kind == "array" => {
            let items = field.get("items").map_or_else(|| "any".to_owned(), |it| kind_of(it, root));
            format!("list of {items}")
        }
        Some(Value::String(kind)) => kind.clone(),
        Some(Value::Array(kinds)) => {
            let kinds = kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null");
            kinds.collect::<Vec<_>>().join(" | ")
        }
        _ => "any".to_owned(),
    }
}
