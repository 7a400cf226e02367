//! What differs between two plans, for people.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::document::Plan;

/// One difference: a path, and what stands there in the one plan and in the other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Where: keys joined by dots, steps by their ids (`steps[heal].action.with.max_idle`).
    pub path: String,
    /// What stood there; `None`: nothing.
    pub before: Option<Value>,
    /// What stands there now; `None`: nothing.
    pub after: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => {
                write!(f, "~ {}: {} -> {}", self.path, show(before), show(after))
            }
            (Some(before), None) => write!(f, "- {}: {}", self.path, show(before)),
            (None, Some(after)) => write!(f, "+ {}: {}", self.path, show(after)),
            (None, None) => write!(f, "  {}", self.path),
        }
    }
}

/// The differences between two plans, in the order of the document. Equal plans have none.
pub fn diff(before: &Plan, after: &Plan) -> Vec<Difference> {
    // A plan is plain data: it always has a JSON form.
    let json = |plan: &Plan| serde_json::to_value(&plan.body).unwrap_or_default();
    let mut found = Vec::new();
    compare("", Some(&json(before)), Some(&json(after)), &mut found);
    found
}

fn compare(path: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Difference>) {
    match (before, after) {
        (None, None) => {}
        (Some(before), Some(after)) if before == after => {}
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            compare_maps(path, before, after, found);
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) => {
            compare_lists(path, before, after, found);
        }
        (before, after) => found.push(Difference {
            path: path.to_owned(),
            before: before.cloned(),
            after: after.cloned(),
        }),
    }
}

fn compare_maps(
    path: &str,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    found: &mut Vec<Difference>,
) {
    let added = after.keys().filter(|key| !before.contains_key(*key));
    for key in before.keys().chain(added) {
        let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        // `null` and a key that is left out mean the same.
        let value = |map: &'_ Map<String, Value>| map.get(key).filter(|v| !v.is_null()).cloned();
        compare(&inner, value(before).as_ref(), value(after).as_ref(), found);
    }
}

/// Lists of things with ids are compared by id, others by position.
fn compare_lists(path: &str, before: &[Value], after: &[Value], found: &mut Vec<Difference>) {
    let (Some(old), Some(new)) = (ids(before), ids(after)) else {
        for at in 0..before.len().max(after.len()) {
            compare(&format!("{path}[{at}]"), before.get(at), after.get(at), found);
        }
        return;
    };
    let added = new.iter().filter(|id| !old.contains(id));
    for id in old.iter().chain(added) {
        let of = |ids: &[&str], all: &[Value]| {
            ids.iter().position(|other| other == id).and_then(|at| all.get(at).cloned())
        };
        let (before, after) = (of(&old, before), of(&new, after));
        compare(&format!("{path}[{id}]"), before.as_ref(), after.as_ref(), found);
    }
    let kept = |ids: &[&str], others: &[&str]| -> Vec<Value> {
        ids.iter().filter(|id| others.contains(id)).map(|id| Value::from(*id)).collect()
    };
    let (old_order, new_order) = (kept(&old, &new), kept(&new, &old));
    if old_order != new_order {
        found.push(Difference {
            path: format!("{path} (order)"),
            before: Some(Value::Array(old_order)),
            after: Some(Value::Array(new_order)),
        });
    }
}

/// The ids of the items, when each has one of its own.
fn ids(items: &[Value]) -> Option<Vec<&str>> {
    let key = |item: &'_ Value| ["id", "step"].into_iter().find(|key| item.get(key).is_some());
    let found: Option<Vec<&str>> =
        items.iter().map(|item| item.get(key(item)?).and_then(Value::as_str)).collect();
    let mut unique = found.clone()?;
    unique.sort_unstable();
    unique.dedup();
    found.filter(|found| found.len() == unique.len())
}

/// A value in one line; long texts are cut.
fn show(value: &Value) -> String {
    const LONGEST: usize = 120;
    let text = value.to_string();
    if text.chars().count() <= LONGEST {
        return text;
    }
    let head: String = text.chars().take(LONGEST).collect();
    format!("{head}… ({} characters)", text.chars().count())
}
