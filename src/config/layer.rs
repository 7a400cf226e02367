//! Layers: trees of values that remember where each value was written. PURE.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Origin {
    /// Nobody wrote it: the built-in default.
    Default,
    /// In a configuration file.
    File {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// In an environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// On the command line.
    Flag {
        /// The flag.
        flag: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line, .. } => write!(f, "{}:{line}", file.display()),
            Self::Environment { variable } => f.write_str(variable),
            Self::Flag { flag } => f.write_str(flag),
        }
    }
}

/// Where a key and its value stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Where the key stands.
    pub(super) key: Origin,
    /// Where the value stands.
    pub(super) value: Origin,
}

impl Place {
    /// Key and value came together.
    pub(super) fn both(origin: Origin) -> Self {
        Self { key: origin.clone(), value: origin }
    }
}

/// A tree of values with the place of each key.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    /// The values.
    pub(super) value: Map<String, Value>,
    /// Where each of them, tables included, was written.
    pub(super) places: BTreeMap<Vec<String>, Place>,
}

impl Layer {
    /// Sets one value.
    pub(super) fn set(&mut self, path: &[&str], value: Value, place: Place) {
        let Some((last, tables)) = path.split_last() else { return };
        let mut table = &mut self.value;
        for key in tables {
            let next = table.entry(*key).or_insert_with(|| Value::Object(Map::new()));
            if !next.is_object() {
                *next = Value::Object(Map::new());
            }
            let Value::Object(inner) = next else { return };
            table = inner;
        }
        table.insert((*last).to_owned(), value);
        self.places.insert(path.iter().map(|key| (*key).to_owned()).collect(), place);
    }

    /// Puts `over` on top: tables are merged, everything else is replaced.
    pub(super) fn put(&mut self, over: Self) {
        merge(&mut self.value, over.value);
        self.places.extend(over.places);
    }

    /// Where the key at `path` was written; what has no place of its own has that of its table, or of
    /// the first thing in it.
    pub(super) fn place(&self, path: &[String]) -> Place {
        let own = (1..=path.len()).rev().find_map(|end| self.places.get(&path[..end]));
        let inside = || {
            let mut after = self.places.range(path.to_vec()..);
            after.next().filter(|(key, _)| key.starts_with(path)).map(|(_, place)| place)
        };
        own.or_else(inside).cloned().unwrap_or(Place::both(Origin::Default))
    }

    /// Where the value at exactly `path` was written.
    pub(super) fn origin(&self, path: &[String]) -> Origin {
        self.places.get(path).map_or(Origin::Default, |place| place.value.clone())
    }
}

/// Merges tables; everything else is replaced.
pub(super) fn merge(base: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Object(below)), Value::Object(above)) => merge(below, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}
