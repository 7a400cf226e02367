//! Tools and their arguments. PURE.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::style::{Style, Tone};
use super::table::table;
use crate::kernel::Risk;
use crate::tools::AnyTool;

/// A tool as it is shown: one that is built in, or a workflow that is offered as one.
#[derive(Clone, Debug, Serialize)]
pub struct ToolView {
    /// Its name.
    pub name: String,
    /// The family that it belongs to.
    pub family: &'static str,
    /// `read`, `write` or `workflow`.
    pub kind: &'static str,
    /// Its risk.
    pub risk: Risk,
    /// The revision of its code; a workflow has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u16>,
    /// What it does, in a sentence.
    pub summary: String,
    /// The arguments that may hold secrets.
    pub secrets: Vec<&'static str>,
    /// The queries that it uses.
    pub sql: Vec<&'static str>,
    /// JSON Schema of its arguments.
    pub arguments: Value,
    /// JSON Schema of its output.
    pub output: Value,
}

impl From<AnyTool> for ToolView {
    fn from(tool: AnyTool) -> Self {
        let meta = tool.meta();
        Self {
            name: meta.name.to_owned(),
            family: meta.family.as_str(),
            kind: if tool.is_write() { "write" } else { "read" },
            risk: meta.risk,
            revision: Some(meta.revision),
            summary: meta.summary.to_owned(),
            secrets: meta.secrets.to_vec(),
            sql: meta.sql.iter().map(|file| file.name).collect(),
            arguments: tool.erased().params_schema().to_value(),
            output: tool.erased().output_schema().to_value(),
        }
    }
}

/// A list of tools.
pub fn list(style: Style, tools: &[ToolView]) -> String {
    let rows = tools.iter().map(|tool| {
        vec![
            tool.name.clone(),
            tool.family.to_owned(),
            tool.kind.to_owned(),
            tool.risk.to_string(),
            tool.summary.clone(),
        ]
    });
    table(style, &["tool", "family", "kind", "risk", "what it does"], rows.collect(), "no tools")
}

/// A tool with its arguments and its output.
pub fn one(style: Style, tool: &ToolView) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}  {}", style.paint(Tone::Strong, &tool.name), tool.summary);
    let (family, risk) = (tool.family, tool.risk);
    let _ = match tool.revision {
        Some(revision) => writeln!(
            text,
            "{} tool of the family {family}, {risk} risk, revision {revision}",
            tool.kind
        ),
        None => writeln!(text, "workflow, offered as a tool of the family {family}, {risk} risk"),
    };
    let _ = writeln!(text, "\n{}", style.paint(Tone::Strong, "arguments"));
    text.push_str(&fields(style, &tool.arguments, "none"));
    if !tool.secrets.is_empty() {
        let _ = writeln!(text, "  may hold secrets: {}", tool.secrets.join(", "));
    }
    let _ = writeln!(text, "\n{}", style.paint(Tone::Strong, "output"));
    text.push_str(&fields(style, &tool.output, "none"));
    if !tool.sql.is_empty() {
        let _ = writeln!(text, "\n{} {}", style.paint(Tone::Strong, "sql"), tool.sql.join(", "));
    }
    text
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
