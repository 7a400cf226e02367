//! Brings archived rows back into their table.
//!
//! Reads: `lakeops.archived_batch`, the archive.
//! Changes: inserts the rows of each batch and notes in the same transaction that it is back, so its copies
//! are not shown any more. The copies themselves stay.
//! Undo: `archive_cold_data_to_delta` archives them again.
//!
//! A row whose key is taken by now stops its batch: neither of the two is thrown away.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Bind, ChangeSet, Failure, Query, Risk, SqlFile};
use crate::sql_file;
use crate::tools::cold::{COLUMNS, ColdTable, READY, REFERENCES, restore};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(RestoreArchivedData));

/// The batches of a table that are in the archive.
pub(super) static BATCHES: SqlFile = sql_file!("health/restore_archived_data.batches");

struct RestoreArchivedData;

/// Which batches.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The table, as `schema.name`.
    table: String,
    /// The batches; by default all of the table.
    #[serde(default)]
    batches: Option<Vec<String>>,
    /// How many batches are brought back at most, the newest first.
    #[serde(default = "a_hundred")]
    most_batches: usize,
}

const fn a_hundred() -> usize {
    100
}

/// What came back.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// How many rows came back.
    rows_restored: u64,
    /// The batches that are back.
    batches: Vec<String>,
}

/// A batch as the target knows it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct BatchRow {
    /// Its name.
    pub(super) batch_id: String,
    /// The keys of rows that stayed hot.
    pub(super) kept_hot: Vec<String>,
}

impl WriteTool for RestoreArchivedData {
    const META: ToolMeta = ToolMeta {
        name: "restore_archived_data",
        family: Family::Health,
        risk: Risk::Medium,
        revision: 1,
        summary: "Brings archived rows back into their table",
        sql: &[&COLUMNS, &REFERENCES, &READY, &BATCHES],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let table = ColdTable::look(cx, &params.table).await?;
        let mut batches = batches(cx, &table).await?;
        if let Some(wanted) = &params.batches {
            if let Some(unknown) =
                wanted.iter().find(|id| !batches.iter().any(|batch| batch.batch_id == **id))
            {
                let text = format!("`{}` has no archived batch `{unknown}`", table.plain());
                return Err(Failure::permanent("archive::no_such_batch", text)
                    .with_help("it may be back already: look into `lakeops.archived_batch`"));
            }
            batches.retain(|batch| wanted.contains(&batch.batch_id));
        }
        batches.truncate(params.most_batches);
        let mut changes = Vec::with_capacity(batches.len());
        for batch in &batches {
            let rows = cold_rows(cx, batch).await?;
            changes.push(restore(&table, &batch.batch_id, &rows));
        }
        Ok(ChangeSet::new(changes))
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let done: Vec<_> = settled.iter().filter(|settled| settled.receipt().is_some()).collect();
        let rows = |settled: &&Settled<'_>| settled.change.facts["rows"].as_u64();
        let name =
            |settled: &&Settled<'_>| settled.change.facts["batch"].as_str().map(str::to_owned);
        Output {
            rows_restored: done.iter().copied().filter_map(|settled| rows(&settled)).sum(),
            batches: done.iter().copied().filter_map(|settled| name(&settled)).collect(),
        }
    }
}

/// The batches of a table that are in the archive, the newest first.
pub(super) async fn batches(
    cx: &ReadContext<'_>,
    table: &ColdTable,
) -> Result<Vec<BatchRow>, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        ready: bool,
    }
    if !cx.pg.row::<Answer>(&READY, &[]).await?.ready {
        return Ok(Vec::new());
    }
    Ok(cx.pg.rows(&BATCHES, &[Bind::Text(table.plain())]).await?)
}

/// The rows of a batch that left their table, as JSON texts.
pub(super) async fn cold_rows(
    cx: &ReadContext<'_>,
    batch: &BatchRow,
) -> Result<Vec<String>, Failure> {
    #[derive(Deserialize)]
    struct Cold {
        row_key: String,
        row: String,
    }
    let text = "select row_key, row from archived_rows where batch_id = $1 order by row_key";
    let query = Query::with_binds(text, vec![Bind::Text(batch.batch_id.clone())]);
    let mut rows = Vec::new();
    for row in cx.history()?.query(&query).await? {
        let cold: Cold = serde_json::from_value(row)
            .map_err(|error| Failure::permanent("archive::unreadable", error.to_string()))?;
        if !batch.kept_hot.contains(&cold.row_key) {
            rows.push(cold.row);
        }
    }
    Ok(rows)
}
