//! Finds tables whose rows are mostly old, and says what it would take to archive them.
//!
//! Reads: the catalogs, and for each candidate the planner's estimate of how many rows are older than the
//! cut-off (`EXPLAIN`; the table itself is not read).
//! Changes: nothing.
//! Undo: nothing to undo.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::policies::ColdData;
use crate::kernel::{Bind, Failure, Ident, QualifiedName, Query, Risk, Span, SqlFile, Timestamp};
use crate::sql_file;
use crate::tools::analysis::number::rounded;
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(IdentifyColdData));

static TABLES: SqlFile = sql_file!("health/identify_cold_data");

/// How many tables are estimated: each costs one `EXPLAIN`.
const MOST_TABLES: usize = 100;

struct IdentifyColdData;

/// What counts as cold.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Rows that were not touched for so long are cold; by default as configured for each table.
    #[serde(default)]
    older_than: Option<Span>,
    /// Tables with fewer rows are left alone; by default as configured.
    #[serde(default)]
    min_rows: Option<u32>,
    /// Tables of which a smaller share is cold are left out.
    #[serde(default = "a_tenth")]
    min_share: f64,
}

const fn a_tenth() -> f64 {
    0.1
}

#[derive(Deserialize)]
struct Row {
    table_name: String,
    rows: f64,
    bytes: f64,
    idle_seconds: Option<f64>,
    has_key: bool,
    moments: Vec<String>,
    referenced_by: Vec<String>,
}

/// Tables with cold rows.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The tables, those with the most cold bytes first.
    candidates: Vec<Candidate>,
    /// About how many rows are cold in all of them.
    total_estimated_cold_rows: f64,
    /// Tables with many rows of which nothing says when one was touched.
    without_moment: Vec<String>,
}

/// A table with cold rows.
#[derive(Debug, Serialize, JsonSchema)]
struct Candidate {
    /// The table.
    table: String,
    /// The column that says when a row was touched last.
    column: String,
    /// Rows from before are cold.
    cut_off: Timestamp,
    /// About how many rows it has.
    live_rows: f64,
    /// About how many of them are cold.
    estimated_cold_rows: f64,
    /// About how many bytes those take.
    estimated_cold_bytes: f64,
    /// How long ago it was read (16 and later).
    idle_seconds: Option<f64>,
    /// Whether its rows can be archived as it is.
    archivable: bool,
    /// What is in the way.
    obstacles: Vec<String>,
}

impl ReadTool for IdentifyColdData {
    const META: ToolMeta = ToolMeta {
        name: "identify_cold_data",
        family: Family::Health,
        risk: Risk::Low,
        revision: 1,
        summary: "Finds tables whose rows are mostly old",
        sql: &[&TABLES],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let policy = &cx.settings.cold_data;
        let least = params.min_rows.map_or(policy.min_rows, u64::from);
        let least = Bind::Int(i64::try_from(least).unwrap_or(i64::MAX));
        let mut rows: Vec<Row> = cx.pg.rows(&TABLES, &[least]).await?;
        rows.truncate(MOST_TABLES);
        let (mut candidates, mut without_moment) = (Vec::new(), Vec::new());
        for row in rows {
            let Some(column) = moment(&row, policy) else {
                without_moment.push(row.table_name);
                continue;
            };
            let cut_off = cut_off(&row.table_name, (&params, policy), cx.clock.now());
            let cold = estimate(cx, (&row.table_name, &column), cut_off).await?;
            if cold > 0.0 && cold >= row.rows * params.min_share {
                candidates.push(candidate(row, column, cut_off, cold));
            }
        }
        candidates.sort_by(|a, b| b.estimated_cold_bytes.total_cmp(&a.estimated_cold_bytes));
        let total_estimated_cold_rows =
            candidates.iter().fold(0.0, |sum, c| sum + c.estimated_cold_rows);
        Ok(Output { candidates, total_estimated_cold_rows, without_moment })
    }
}

fn moment(row: &Row, policy: &ColdData) -> Option<String> {
    let configured = policy.tables.get(&row.table_name).and_then(|table| table.column.clone());
    configured.or_else(|| row.moments.first().cloned())
}

fn cut_off(table: &str, (params, policy): (&Params, &ColdData), now: Timestamp) -> Timestamp {
    let own = policy.tables.get(table).and_then(|table| table.after);
    let age = params.older_than.or(own).unwrap_or(policy.after);
    Timestamp::from_millis(now.as_millis().saturating_sub_unsigned(age.as_millis()))
}

/// The planner's estimate of how many rows are older: it has a histogram of the column.
async fn estimate(
    cx: &ReadContext<'_>,
    (table, column): (&str, &str),
    cut_off: Timestamp,
) -> Result<f64, Failure> {
    let name = QualifiedName::parse(table)
        .map_err(|error| Failure::permanent("archive::bad_name", error.to_string()))?;
    // A bound value would be estimated as any value.
    let text = format!(
        "explain (format json) select from {name} where {} < timestamptz '{cut_off}'",
        Ident::new(column)
    );
    let rows = cx.pg.query("cold rows", &Query::new(text)).await?;
    Ok(rows.first().and_then(planned_rows).unwrap_or(0.0))
}

fn planned_rows(row: &Value) -> Option<f64> {
    let plan = row.as_object()?.values().next()?;
    plan.get(0)?.pointer("/Plan/Plan Rows")?.as_f64()
}

fn candidate(row: Row, column: String, cut_off: Timestamp, cold: f64) -> Candidate {
    let mut obstacles = Vec::new();
    if !row.has_key {
        obstacles.push("it has no primary key".to_owned());
    }
    let points = |child: &String| format!("rows of {child} may point at cold rows");
    obstacles.extend(row.referenced_by.iter().map(points));
    Candidate {
        archivable: row.has_key,
        obstacles,
        column,
        cut_off,
        live_rows: row.rows,
        estimated_cold_rows: cold,
        estimated_cold_bytes: (row.bytes * (cold / row.rows.max(1.0)).min(1.0)).round(),
        idle_seconds: row.idle_seconds.map(rounded),
        table: row.table_name,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(extra: &Value) -> Row {
        let mut row = json!({"table_name": "public.t", "rows": 1000.0, "bytes": 10_000.0,
            "idle_seconds": null, "has_key": true, "moments": ["updated_at"], "referenced_by": []});
        for (name, value) in extra.as_object().unwrap() {
            row[name] = value.clone();
        }
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn what_is_in_the_way_is_said() {
        let found =
            candidate(row(&json!({})), "updated_at".into(), Timestamp::from_millis(0), 250.0);
        assert!(found.archivable && found.obstacles.is_empty());
        assert!((found.estimated_cold_bytes - 2_500.0).abs() < 1e-9);
        let referenced = row(&json!({"referenced_by": ["items"], "has_key": false}));
        let found = candidate(referenced, "a".into(), Timestamp::from_millis(0), 1.0);
        assert!(!found.archivable);
        assert_eq!(found.obstacles.len(), 2);
    }

    #[test]
    fn the_configuration_of_a_table_comes_first() {
        let mut policy = ColdData::default();
        let own = crate::config::policies::ColdTable {
            after: Some(Span::from_secs(10)),
            column: Some("closed_at".to_owned()),
            delete_after_archive: None,
        };
        policy.tables.insert("public.t".to_owned(), own);
        assert_eq!(moment(&row(&json!({})), &policy).as_deref(), Some("closed_at"));
        assert_eq!(moment(&row(&json!({"moments": []})), &ColdData::default()), None);
        let params: Params = serde_json::from_value(json!({})).unwrap();
        let now = Timestamp::from_millis(20_000);
        assert_eq!(cut_off("public.t", (&params, &policy), now), Timestamp::from_millis(10_000));
    }

    #[test]
    fn the_planner_is_read() {
        let row = json!({"QUERY PLAN": [{"Plan": {"Node Type": "Seq Scan", "Plan Rows": 42}}]});
        assert_eq!(planned_rows(&row), Some(42.0));
        assert_eq!(planned_rows(&json!({})), None);
    }
}
