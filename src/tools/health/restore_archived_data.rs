//! Brings archived rows back into their table.
//!
//! Reads: `lakeops.archived_batch`, the archive.
//! Changes: inserts the rows of each batch and notes in the same transaction that it is back, so its copies
//! are not shown any more. The copies themselves stay.
//! Undo: `archive_cold_data_to_delta` archives them again.
//!
//! The rows are read from the archive when their batch's turn comes, so no more than one batch is held at once.
//! A row whose key is taken by now stops its batch: neither of the two is thrown away.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{ChangeSet, Failure, Risk};
use crate::tools::cold::{self, BATCHES, COLUMNS, ColdTable, READY, REFERENCES};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(RestoreArchivedData));

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
    /// How many batches are brought back at most, the newest first; by default all.
    #[serde(default)]
    most_batches: Option<usize>,
}

/// What came back.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// How many rows came back.
    rows_restored: u64,
    /// The batches that are back.
    batches: Vec<String>,
}

impl WriteTool for RestoreArchivedData {
    const META: ToolMeta = ToolMeta {
        name: "restore_archived_data",
        family: Family::Health,
        risk: Risk::Medium,
        revision: 2,
        summary: "Brings archived rows back into their table",
        sql: &[&COLUMNS, &REFERENCES, &READY, &BATCHES],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let table = ColdTable::look(cx, &params.table).await?;
        let mut batches = cold::batches(cx, &table).await?;
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
        batches.truncate(params.most_batches.unwrap_or(usize::MAX));
        cold::check(cx, &table, &batches).await?;
        Ok(ChangeSet::new(batches.iter().map(|batch| cold::restore(&table, batch)).collect()))
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
