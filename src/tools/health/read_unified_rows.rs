//! Reads hot and cold rows of a table as one: each row once, wherever it is.
//!
//! Reads: the table, `lakeops.archived_batch`, the archive.
//! Changes: nothing.
//! Undo: nothing to undo.
//!
//! Which cold rows are visible is decided by the same statement that reads the hot ones, in one snapshot: a
//! row that leaves the table meanwhile is seen on exactly one side.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kernel::{Bind, Failure, Query, Risk};
use crate::tools::cold::{COLUMNS, ColdTable, REFERENCES};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(ReadUnifiedRows));

struct ReadUnifiedRows;

/// Which table.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The table, as `schema.name`.
    table: String,
    /// More rows than this, hot or cold, are refused.
    #[serde(default = "ten_thousand")]
    most_rows: u64,
    /// Only counts them.
    #[serde(default)]
    count_only: bool,
}

const fn ten_thousand() -> u64 {
    10_000
}

/// The rows.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The table.
    table: String,
    /// Rows in the table.
    hot_rows: u64,
    /// Rows in the archive that are visible.
    cold_rows: u64,
    /// The rows as objects, unless they were only counted.
    rows: Vec<Value>,
}

impl ReadTool for ReadUnifiedRows {
    const META: ToolMeta = ToolMeta {
        name: "read_unified_rows",
        family: Family::Health,
        risk: Risk::Low,
        revision: 1,
        summary: "Reads hot and archived rows of a table as one, each row once",
        sql: &[&COLUMNS, &REFERENCES],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let table = ColdTable::look(cx, &params.table).await?;
        // Copies are never removed, so whatever becomes visible meanwhile is among those read after it.
        let found = look(cx, &table, params.most_rows).await?;
        let is_cold = |row: &&Value| row["cold"] == Value::Bool(true);
        let cold = found.iter().filter(is_cold).count();
        let rows = if params.count_only {
            Vec::new()
        } else {
            found.iter().map(|row| row["row"].clone()).collect()
        };
        let count = |rows: usize| u64::try_from(rows).unwrap_or(u64::MAX);
        Ok(Output {
            table: table.plain(),
            hot_rows: count(found.len() - cold),
            cold_rows: count(cold),
            rows,
        })
    }
}

async fn look(cx: &ReadContext<'_>, table: &ColdTable, most: u64) -> Result<Vec<Value>, Failure> {
    let copies = copies(cx, table, most).await?;
    let name = &table.name;
    let hot = format!("select pg_catalog.to_jsonb(hot) as row, false as cold from {name} as hot");
    let (text, binds) = if copies.is_empty() {
        (format!("select * from ({hot}) as hot limit {}", most + 1), Vec::new())
    } else {
        let text = format!(
            "select * from ({hot} union all select pg_catalog.to_jsonb(back), true \
             from pg_catalog.jsonb_array_elements($1::jsonb) as copy (item) \
             join lakeops.archived_batch as b on b.batch_id = copy.item ->> 'batch_id' \
             cross join lateral pg_catalog.jsonb_populate_record(\
             null::{name}, (copy.item ->> 'row')::jsonb) as back \
             where b.restored_at is null and b.source_table = $2 \
             and copy.item ->> 'row_key' <> all (b.kept_hot)) as hot limit {}",
            most + 1
        );
        (text, vec![Bind::Json(json!(copies)), Bind::Text(table.plain())])
    };
    let found = cx.pg.query("hot and cold rows", &Query::with_binds(text, binds)).await?;
    if u64::try_from(found.len()).is_ok_and(|count| count > most) {
        return Err(too_many(table, most));
    }
    Ok(found)
}

/// All copies of the table's rows, visible or not.
async fn copies(cx: &ReadContext<'_>, table: &ColdTable, most: u64) -> Result<Vec<Value>, Failure> {
    if cx.history.is_none() {
        return Ok(Vec::new());
    }
    let text = format!(
        "select batch_id, row_key, row from archived_rows where source_table = $1 limit {}",
        most.saturating_mul(4)
    );
    let query = Query::with_binds(text, vec![Bind::Text(table.plain())]);
    cx.history()?.query(&query).await
}

fn too_many(table: &ColdTable, most: u64) -> Failure {
    let text = format!("`{}` has more than {most} rows, hot and cold", table.plain());
    Failure::permanent("archive::too_many_rows", text)
        .with_help("raise `most_rows`, or query the archive: `lakeops history query`")
}
