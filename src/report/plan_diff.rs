//! What differs between two plans. PURE.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::style::{Style, Tone};
use crate::plan::Plan;

/// One difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Where: `params.max_idle`, `steps.heal.action.with.max_idle`.
    pub path: String,
    /// What stood there; null when nothing did.
    pub before: Value,
    /// What stands there now; null when nothing does.
    pub after: Value,
}

/// Everything that differs between the bodies of two plans. Steps are told apart by their ids, texts
/// by their digests.
pub fn differences(before: &Plan, after: &Plan) -> Vec<Difference> {
    let flat = |plan: &Plan| {
        let body = serde_json::to_value(&plan.body).unwrap_or_default();
        let mut leaves = BTreeMap::new();
        flatten(&body, String::new(), &mut leaves);
        leaves
    };
    let (before, after) = (flat(before), flat(after));
    let mut paths: Vec<&String> = before.keys().chain(after.keys()).collect();
    paths.sort();
    paths.dedup();
    let value =
        |side: &BTreeMap<String, Value>, path: &str| side.get(path).cloned().unwrap_or(Value::Null);
    paths
        .into_iter()
        .filter(|path| before.get(*path) != after.get(*path))
        .map(|path| Difference {
            path: path.clone(),
            before: value(&before, path),
            after: value(&after, path),
        })
        .collect()
}

fn flatten(value: &Value, path: String, leaves: &mut BTreeMap<String, Value>) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            // A pinned text is told by its digest alone.
            let is_pinned = fields.contains_key("sha256") && fields.contains_key("text");
            for (key, value) in fields.iter().filter(|(key, _)| !is_pinned || *key == "sha256") {
                flatten(value, join(key), leaves);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, item) in items.iter().enumerate() {
                let name = ["id", "step", "name"].iter().find_map(|key| item.get(key)?.as_str());
                let name = name.map_or_else(|| index.to_string(), str::to_owned);
                flatten(item, join(&name), leaves);
            }
        }
        leaf => {
            leaves.insert(path, leaf.clone());
        }
    }
}

/// The differences as text.
pub fn text(style: Style, before: &Plan, after: &Plan) -> String {
    let found = differences(before, after);
    let mut text = String::new();
    let _ = writeln!(text, "plan {} -> plan {}", before.id.short(), after.id.short());
    if found.is_empty() {
        let _ = writeln!(text, "the two are equal");
    }
    for one in found {
        let (tone, line) = match (&one.before, &one.after) {
            (Value::Null, after) => (Tone::Good, format!("+ {}: {after}", one.path)),
            (before, Value::Null) => (Tone::Bad, format!("- {}: {before}", one.path)),
            (before, after) => (Tone::Warn, format!("~ {}: {before} -> {after}", one.path)),
        };
        let _ = writeln!(text, "{}", style.paint(tone, &style.fit(&line, 0)));
    }
    text
}
