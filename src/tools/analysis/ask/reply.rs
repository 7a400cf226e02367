//! From what was looked at to what is told: rows, one sentence each, and what would fix it. PURE.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::sources::{Remedy, Source, View};
use crate::tools::analysis::text::shorten;

/// The most rows of a list that are shown.
const MOST_ROWS: usize = 5;
/// How many columns of the first row its sentence tells.
const MOST_TOLD: usize = 3;
/// Our own sessions look, and are gone sooner than this many seconds.
const LONG_FOR_US: f64 = 10.0;
/// A metric, where a list is an object with one field each.
const METRIC: &str = "metric";

/// What one source says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// The tool, or the file of `sql/`.
    pub source: String,
    /// What it says, in a sentence.
    pub says: String,
    /// Its rows.
    pub lists: Vec<Rows>,
    /// Whether it found that something is wrong.
    pub is_wrong: bool,
    /// The command that shows all of it.
    pub command: String,
}

/// Rows of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rows {
    /// What they are.
    pub what: String,
    /// How many there are.
    pub total: usize,
    /// The columns, in the order in which they are shown.
    pub columns: Vec<String>,
    /// The first of them.
    pub rows: Vec<Map<String, Value>>,
}

/// A command that would fix something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fix {
    /// What to type.
    pub command: String,
    /// What it does.
    pub does: String,
}

impl From<&Remedy> for Fix {
    fn from(remedy: &Remedy) -> Self {
        Self { command: remedy.command.to_owned(), does: remedy.does.to_owned() }
    }
}

/// The values that named queries are run with by hand.
const VALUES: &[(&str, &str)] = &[
    ("catalog/idle_connections", "60"),
    ("catalog/pg_stat_statements_slow", "10"),
    ("catalog/table_dead_tuples", "10"),
    ("catalog/unused_indexes", "0"),
    ("performance/collect_statistics.indexes", "10"),
    ("performance/collect_statistics.tables", "10"),
    ("shared/sequence_use", "10"),
];

/// What to type to see all of what a source says.
pub fn command_of(name: &str) -> String {
    if !name.contains('/') {
        return format!("lakeops tools run {name}");
    }
    match VALUES.iter().find(|(query, _)| *query == name) {
        Some((_, value)) => format!("lakeops sql run {name} {value}"),
        None => format!("lakeops sql run {name}"),
    }
}

/// Reads the output of a source. Rows that speak of a word of the question come first.
pub fn evidence(source: &Source, output: &Value, asked: &BTreeSet<String>) -> Evidence {
    let mut lists = Vec::new();
    let mut sentences = Vec::new();
    let mut is_wrong = false;
    let unknown = output.pointer("/not_measured/0/why").and_then(Value::as_str);
    for view in source.views {
        let mut rows = rows(view, output);
        let beyond = rows.iter().filter(|row| is_beyond(row)).count();
        let has_levels = rows.iter().any(|row| row.contains_key("level"));
        is_wrong |= view.matters && if has_levels { beyond > 0 } else { !rows.is_empty() };
        rows.sort_by_key(|row| (!speaks_of(row, asked), !is_beyond(row)));
        sentences.push(match (rows.is_empty(), unknown) {
            // Nothing was found, and not everything was looked at: that is no good news.
            (true, Some(why)) => format!("{} not known: {why}", view.noun.1),
            _ => sentence(view, &rows, has_levels.then_some(beyond)),
        });
        let (total, columns) = (rows.len(), view.columns.iter().map(|it| (*it).to_owned()));
        let (columns, what) = (columns.collect(), view.noun.1.to_owned());
        rows.truncate(MOST_ROWS);
        lists.push(Rows { what, total, columns, rows });
    }
    let command = command_of(source.name);
    Evidence {
        source: source.name.to_owned(),
        says: sentences.join("; "),
        lists,
        is_wrong,
        command,
    }
}

fn rows(view: &View, output: &Value) -> Vec<Map<String, Value>> {
    let shown = |row: &Value| -> Map<String, Value> {
        let Value::Object(fields) = row else {
            return Map::from_iter([("value".to_owned(), simple(row))]);
        };
        let of = |column: &&str| Some(((*column).to_owned(), simple(fields.get(*column)?)));
        view.columns.iter().filter_map(of).collect()
    };
    match output.pointer(view.at) {
        Some(Value::Array(all)) => all.iter().filter(|row| !is_ours(row)).map(shown).collect(),
        Some(Value::Object(fields)) if view.columns.first() == Some(&METRIC) => {
            let named = fields.iter().map(|(name, value)| {
                let mut row = shown(value);
                row.insert(METRIC.to_owned(), Value::String(name.clone()));
                row
            });
            named.filter(|row| row.get("value").is_some_and(|value| !value.is_null())).collect()
        }
        Some(one @ Value::Object(_)) => vec![shown(one)],
        _ => Vec::new(),
    }
}

/// Whether a row is a session of our own that is just looking, such as one that looks for this answer.
fn is_ours(row: &Value) -> bool {
    let of = |field: &str| row.get(field).and_then(Value::as_str);
    let application = of("application").or_else(|| of("application_name"));
    let seconds = ["idle_seconds", "query_seconds", "held_seconds"];
    let lasts = seconds.iter().filter_map(|field| row.get(*field).and_then(Value::as_f64));
    application.is_some_and(|name| name.starts_with("lakeops:"))
        && lasts.fold(0.0, f64::max) < LONG_FOR_US
}

/// A value on one line: lists joined, objects by what they say.
fn simple(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::String(shorten(
            &items.iter().map(|item| text(&simple(item))).collect::<Vec<_>>().join(", "),
        )),
        Value::Object(fields) => {
            let parts = ["fault", "object", "reason", "evidence", "advice", "kind", "name"];
            let said = parts.iter().filter_map(|part| fields.get(*part));
            let said = said.filter(|part| !part.is_null()).map(text);
            Value::String(shorten(&said.collect::<Vec<_>>().join(": ")))
        }
        Value::String(said) => Value::String(plain(said)),
        other => other.clone(),
    }
}

/// A text that does not steer the terminal on which it is shown.
fn plain(said: &str) -> String {
    let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    shorten(&said)
}

/// A value as a person reads it.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(said) => said.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => format!("{}", (float * 1000.0).round() / 1000.0),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

fn is_beyond(row: &Map<String, Value>) -> bool {
    let level = row.get("level").and_then(Value::as_str);
    level.is_some_and(|level| level != "normal" && level != "unknown")
}

/// Whether a row names something of the question: a table, a metric.
fn speaks_of(row: &Map<String, Value>, asked: &BTreeSet<String>) -> bool {
    row.values().filter_map(Value::as_str).any(|value| {
        let mut words = value.split(|c: char| !c.is_alphanumeric());
        words.any(|word| word.len() > 2 && asked.contains(&word.to_lowercase()))
    })
}

fn sentence(view: &View, rows: &[Map<String, Value>], beyond: Option<usize>) -> String {
    let (one, several) = view.noun;
    let Some(first) = rows.first() else { return format!("no {several}") };
    let told = view.columns.iter().filter_map(|column| {
        let value = text(first.get(*column)?);
        (!value.is_empty()).then(|| format!("{} {value}", column.replace('_', " ")))
    });
    let told = told.take(MOST_TOLD).collect::<Vec<_>>().join(", ");
    let count = rows.len();
    let noun = if count == 1 { one } else { several };
    match beyond {
        Some(0) => format!("{count} {noun}, none beyond its level; first {told}"),
        Some(some) => format!("{count} {noun}, {some} beyond their level; first {told}"),
        None if count == 1 => format!("1 {noun}: {told}"),
        None => format!("{count} {noun}, the first: {told}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::analysis::ask::sources;

    fn of(name: &str, output: &Value, asked: &[&str]) -> Evidence {
        let asked = asked.iter().map(|word| (*word).to_owned()).collect();
        evidence(sources::find(name).unwrap(), output, &asked)
    }

    #[test]
    fn what_the_question_speaks_of_comes_first() {
        let finding = |table: &str| json!({ "table": table, "columns": ["a", "b"], "rows": 7.0 });
        let output = json!({ "findings": [finding("s.items"), finding("s.orders")] });
        let found = of("detect_missing_indexes", &output, &["orders", "slow"]);
        assert_eq!(found.lists[0].rows[0]["table"], "s.orders");
        assert_eq!(
            found.says,
            "2 missing indexes, the first: table s.orders, columns a, b, rows 7"
        );
        assert!(found.is_wrong);
        let nothing = of("detect_missing_indexes", &json!({ "findings": [] }), &[]);
        assert_eq!((nothing.says.as_str(), nothing.is_wrong), ("no missing indexes", false));
    }

    #[test]
    fn metrics_are_rows_and_those_beyond_their_level_come_first() {
        let metric =
            |value: f64, level: &str| json!({ "value": value, "unit": "ratio", "level": level });
        let output = json!({ "metrics": {
            "a": metric(0.5, "normal"),
            "cache_hit_ratio": metric(0.9, "critical"),
            "unknown": { "value": null, "unit": "ratio", "level": "unknown" },
        } });
        let found = of("monitor_system_health", &output, &[]);
        assert!(found.is_wrong);
        assert_eq!(found.lists[0].total, 2);
        let says =
            "2 metrics, 1 beyond their level; first metric cache_hit_ratio, value 0.9, unit ratio";
        assert_eq!(found.says, says);
    }

    #[test]
    fn what_was_not_looked_at_is_not_called_well() {
        let why = json!([{ "what": "statements", "why": "no extension", "needs": null }]);
        let found =
            of("analyze_slow_queries", &json!({ "analyses": [], "not_measured": why }), &[]);
        assert_eq!(found.says, "costly statements not known: no extension");
    }

    #[test]
    fn our_own_sessions_are_left_out_unless_they_stay() {
        let session = |name: &str, seconds: f64| json!({ "pid": 1, "application": name, "idle_seconds": seconds });
        let sessions =
            [session("lakeops:1", 0.1), session("lakeops:1", 99.0), session("shop", 0.1)];
        let output = json!({ "idle_in_transaction": sessions });
        let found = of("monitor_connections", &output, &[]);
        assert_eq!((found.lists[3].total, found.is_wrong), (2, false));
    }

    #[test]
    fn texts_do_not_steer_a_terminal() {
        let output = json!({ "rows": [{ "query": "select\u{1b}[2J\n1", "calls": 1 }] });
        let found = of("catalog/pg_stat_statements_slow", &output, &[]);
        assert_eq!(found.lists[0].rows[0]["query"], "select [2J 1");
    }

    #[test]
    fn an_answer_in_another_form_has_no_rows() {
        for output in [json!(null), json!([]), json!({ "rows": 7 }), json!("x")] {
            for source in sources::SOURCES {
                drop(evidence(source, &output, &BTreeSet::new()));
            }
        }
    }
}
