//! From what a tool said to the typed cells of a row: nothing is dropped or bent on the way. PURE.

use serde_json::{Map, Value};

use super::schema::{Column, Fill, Kind, TableDef};
use super::tables;
use crate::kernel::{Target, Timestamp};
use crate::tools::tool::HistoryRow;

/// A typed value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Null,
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    /// Microseconds since 1970.
    Micros(i64),
    /// Days since 1970.
    Day(i32),
}

/// The cells of one row, in the order of the table's columns.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) cells: Vec<Cell>,
}

/// Where a row comes from: what fills the columns that it does not name.
#[derive(Clone, Debug)]
pub(super) struct Source<'a> {
    /// An id that is the same whenever the row is made from the journal again.
    pub(super) id: String,
    pub(super) run: Option<&'a str>,
    pub(super) step: Option<&'a str>,
    pub(super) target: &'a Target,
    pub(super) at: Timestamp,
}

/// A row that fits no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// No table has this name.
    #[error("the history has no table `{table}`{}", hint(.nearest.as_ref()))]
    NoTable {
        /// The name.
        table: String,
        /// The nearest one that there is.
        nearest: Option<String>,
    },
    /// The row is no object.
    #[error("a row of `{table}` is an object of columns; this one is {found}")]
    NoObject {
        /// The table.
        table: String,
        /// What it is.
        found: String,
    },
    /// The table has no such column.
    #[error("the history table `{table}` has no column `{column}`{}", hint(.nearest.as_ref()))]
    NoColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The nearest one that there is.
        nearest: Option<String>,
    },
    /// The value is of another type.
    #[error("the column `{table}.{column}` is of type {kind}; {found} does not fit")]
    WrongType {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Its type.
        kind: &'static str,
        /// The value.
        found: String,
    },
}

fn hint(nearest: Option<&String>) -> String {
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// Whether the history would take this row. Tests of tools ask it about every row that they make.
pub fn check(row: &HistoryRow) -> Result<(), RowError> {
    let target = Target::default();
    let at = Timestamp::default();
    let source = Source { id: String::new(), run: None, step: None, target: &target, at };
    typed(row, &source).map(drop)
}

/// The typed row of a tool's row.
pub(super) fn typed(
    row: &HistoryRow,
    source: &Source<'_>,
) -> Result<(&'static TableDef, Row), RowError> {
    let Some(table) = tables::find(&row.table) else {
        let names = tables::TABLES.iter().map(|table| table.name);
        return Err(RowError::NoTable {
            table: row.table.clone(),
            nearest: nearest(&row.table, names),
        });
    };
    let Value::Object(given) = &row.row else {
        return Err(RowError::NoObject {
            table: table.name.to_owned(),
            found: shortened(&row.row),
        });
    };
    Ok((table, of(table, given, source)?))
}

/// The typed row of an object of columns.
pub(super) fn of(
    table: &TableDef,
    given: &Map<String, Value>,
    source: &Source<'_>,
) -> Result<Row, RowError> {
    let known = table.columns().filter(|column| given.contains_key(column.name)).count();
    if known < given.len()
        && let Some(unknown) = given.keys().find(|name| table.column(name).is_none())
    {
        return Err(RowError::NoColumn {
            table: table.name.to_owned(),
            column: unknown.clone(),
            nearest: nearest(unknown, table.columns().map(|column| column.name)),
        });
    }
    let mut cells = Vec::with_capacity(table.own.len() + super::schema::ENVELOPE.len());
    let mut at = None;
    for column in table.columns() {
        let cell = match given.get(column.name) {
            Some(value) if !value.is_null() => cell(table, column, value)?,
            _ => filled(column, source, at),
        };
        if column.name == table.time
            && let Cell::Micros(micros) = &cell
        {
            at = Some(*micros);
        }
        cells.push(cell);
    }
    Ok(Row { cells })
}

fn filled(column: &Column, source: &Source<'_>, at: Option<i64>) -> Cell {
    let text = |text: Option<&str>| text.map_or(Cell::Null, |text| Cell::Text(text.to_owned()));
    let recorded = source.at.as_millis().saturating_mul(1_000);
    match column.fill {
        Fill::Null => Cell::Null,
        Fill::RowId => Cell::Text(source.id.clone()),
        Fill::Run => text(source.run),
        Fill::Step => text(source.step),
        Fill::Project => text(source.target.project.as_deref()),
        Fill::Branch => text(source.target.branch.as_deref()),
        Fill::Database => text(source.target.database.as_deref()),
        Fill::RecordedAt => Cell::Micros(recorded),
        // The table's own columns come first, so its time is known by now.
        Fill::Day => day(at.unwrap_or(recorded)),
    }
}

fn day(micros: i64) -> Cell {
    let days = micros.div_euclid(24 * 3600 * 1_000_000);
    Cell::Day(i32::try_from(days).unwrap_or_default())
}

fn cell(table: &TableDef, column: &Column, value: &Value) -> Result<Cell, RowError> {
    let cell = match (column.kind, value) {
        (Kind::Text, Value::String(text)) => Some(Cell::Text(text.clone())),
        (Kind::Int, value) => whole(value).map(Cell::Int),
        (Kind::Float, Value::Number(number)) => number.as_f64().map(Cell::Float),
        (Kind::Bool, Value::Bool(flag)) => Some(Cell::Bool(*flag)),
        (Kind::Time, Value::String(text)) => micros(text).map(Cell::Micros),
        (Kind::Day, Value::String(text)) => text.parse().ok().map(day_of).map(Cell::Day),
        (Kind::Json, value) => Some(Cell::Text(value.to_string())),
        (Kind::Text | Kind::Float | Kind::Bool | Kind::Time | Kind::Day, _) => None,
    };
    cell.ok_or_else(|| RowError::WrongType {
        table: table.name.to_owned(),
        column: column.name.to_owned(),
        kind: column.kind.name(),
        found: shortened(value),
    })
}

/// A whole number; sums of PostgreSQL come as `12.0` or as the text of a `numeric`.
fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let float = number.as_f64()?;
            // Exact: below 2^53 every whole float is one integer.
            (float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0)
                .then(|| format!("{float:.0}").parse().ok())
                .flatten()
        }),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn micros(text: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros())
}

/// Days since 1970.
pub(super) fn day_of(date: chrono::NaiveDate) -> i32 {
    let epoch = chrono::NaiveDate::default();
    i32::try_from(date.signed_duration_since(epoch).num_days()).unwrap_or_default()
}

pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let distance = |known: &str| strsim::damerau_levenshtein(known, name);
    let (distance, near) = known.map(|known| (distance(known), known)).min()?;
    (distance <= name.len() / 3).then(|| near.to_owned())
}

/// A value for a message: not all of it when it is long.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(table: &str, row: Value) -> HistoryRow {
        HistoryRow { table: table.to_owned(), row }
    }

    fn refusal(table: &str, value: Value) -> String {
        check(&row(table, value)).unwrap_err().to_string()
    }

    #[test]
    fn what_does_not_fit_is_told() {
        assert_eq!(
            refusal("lakebase_metric", json!({})),
            "the history has no table `lakebase_metric`; did you mean `lakebase_metrics`?"
        );
        assert_eq!(
            refusal("lakebase_metrics", json!({ "metric_nam": "x" })),
            "the history table `lakebase_metrics` has no column `metric_nam`; did you mean \
             `metric_name`?"
        );
        assert_eq!(
            refusal("lakebase_metrics", json!({ "metric_value": "high" })),
            "the column `lakebase_metrics.metric_value` is of type float; \"high\" does not fit"
        );
        assert!(refusal("lakebase_metrics", json!([1])).contains("this one is [1]"));
        assert!(refusal("table_stats", json!({ "seq_scan": 1.5 })).contains("is of type int; 1.5"));
        let late = json!({ "snapshot_timestamp": "yesterday" });
        assert!(refusal("table_stats", late).contains("is of type time"));
    }

    #[test]
    fn what_the_row_leaves_out_is_filled_in() {
        let target = Target { project: Some("shop".into()), ..Target::default() };
        let at = Timestamp::parse("2026-11-22T23:59:59Z").unwrap();
        let (run, step) = (Some("r1"), Some("look"));
        let source = Source { id: "r1/look/0".into(), run, step, target: &target, at };
        let given = row("lakebase_metrics", json!({ "metric_name": "age", "metric_value": 3 }));
        let (table, row) = typed(&given, &source).unwrap();
        let cell = |name: &str| {
            let place = table.columns().position(|column| column.name == name).unwrap();
            row.cells[place].clone()
        };
        assert_eq!(cell("metric_id"), Cell::Text("r1/look/0".into()));
        assert_eq!(cell("metric_value"), Cell::Float(3.0));
        assert_eq!(cell("project_id"), Cell::Text("shop".into()));
        assert_eq!(cell("branch_id"), Cell::Null);
        assert_eq!(cell("snapshot_timestamp"), Cell::Micros(at.as_millis() * 1000));
        assert_eq!(cell("day"), Cell::Day(20_779));
    }

    #[test]
    fn the_day_is_that_of_the_row() {
        let target = Target::default();
        let at = Timestamp::parse("2026-11-22T00:00:00Z").unwrap();
        let source = Source { id: "x".into(), run: None, step: None, target: &target, at };
        let given = json!({ "executed_at": "2026-11-21T23:30:00+00:00", "bytes_before": 7.0 });
        let (table, row) = typed(&row("vacuum_history", given), &source).unwrap();
        let place = table.columns().position(|column| column.name == "day").unwrap();
        assert_eq!(row.cells[place], Cell::Day(20_778));
    }
}
