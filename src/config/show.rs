//! Every value with its origin. PURE.

use serde::Serialize;
use serde_json::Value;

use super::check::dotted;
use super::layer::{Layer, Origin};

/// A value and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    /// The keys that lead to it, joined by dots.
    pub key: String,
    /// The value; null when it is not set.
    pub value: Value,
    /// Where it comes from.
    pub origin: Origin,
}

/// Every value of the layers, by key. Lists are shown whole, tables by their values.
pub(super) fn shown(layers: &Layer) -> Vec<Shown> {
    let mut all = Vec::new();
    for (key, value) in &layers.value {
        collect(layers, value, &mut vec![key.clone()], &mut all);
    }
    all
}

fn collect(layers: &Layer, value: &Value, path: &mut Vec<String>, all: &mut Vec<Shown>) {
    if let Value::Object(fields) = value {
        for (key, value) in fields {
            path.push(key.clone());
            collect(layers, value, path, all);
            path.pop();
        }
    } else {
        let origin = layers.origin(path);
        all.push(Shown { key: dotted(path), value: value.clone(), origin });
    }
}
