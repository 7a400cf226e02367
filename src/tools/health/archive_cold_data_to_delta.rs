//! Moves a batch of cold rows out of their table into the archive.
//!
//! Reads: which rows there are between two keys, foreign keys that point at them.
//! Changes: copies the rows into the Delta table `archived_rows`, in one commit, and reads them back;
//! then deletes, in one transaction, those that are still the versions that were copied, and notes the
//! batch in `lakeops.archived_batch`, which makes the copies visible.
//! Undo: `restore_archived_data`.
//!
//! `plan_archive` says which batches there are: stretches of keys below a cut-off, and no lists of rows. Which
//! rows a stretch has is read when they are copied, and deleted is what was copied and has not changed since.
//! A row that is changed between the two stays where it is, and its copy is never shown.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kernel::change::Origin;
use crate::kernel::{
    Bind, Change, ChangeSet, Failure, Inverse, Operation, Query, Recovery, Risk, SqlFile, Timestamp,
};
use crate::sql_file;
use crate::tools::cold::{self, Batch, Bounds, COLUMNS, ColdTable, READY, REFERENCES};
use crate::tools::context::ReadContext;
use crate::tools::tool::{
    AnyTool, Ending, Family, HistoryRow, Settled, ToolMeta, Write, WriteTool,
};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(ArchiveColdData));

static CREATE: SqlFile = sql_file!("health/archive_cold_data_to_delta.create");

struct ArchiveColdData;

/// Which rows: a batch of `plan_archive`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The table, as `schema.name`.
    table: String,
    /// The column that says when a row was touched last.
    column: String,
    /// Rows from before are cold.
    cut_off: Timestamp,
    /// Keys after this one; by default from the first one on.
    #[serde(default)]
    after: Option<Vec<String>>,
    /// Keys up to this one.
    upto: Vec<String>,
}

/// What became of the batch.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The table.
    table: Option<String>,
    /// The batch in the archive.
    batch: Option<String>,
    /// The column that says when.
    column: Option<String>,
    /// Rows from before were cold.
    cut_off: Option<String>,
    /// `archived`, `copied` (and not deleted yet) or `no_cold_data`.
    status: Status,
    /// Rows that were copied.
    rows_copied: u64,
    /// Rows that left the table.
    rows_archived: u64,
    /// Rows that changed meanwhile, or that others point at by now, and stayed.
    rows_kept: u64,
}

/// How far a batch came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// Its rows have left the table.
    Archived,
    /// They were copied and are still in the table.
    Copied,
    /// There was nothing to do.
    NoColdData,
}

impl WriteTool for ArchiveColdData {
    const META: ToolMeta = ToolMeta {
        name: "archive_cold_data_to_delta",
        family: Family::Health,
        risk: Risk::High,
        revision: 2,
        summary: "Moves a batch of cold rows out of their table into a Delta table",
        sql: &[&COLUMNS, &REFERENCES, &READY, &CREATE],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let table = ColdTable::look(cx, &params.table).await?;
        table.column(&params.column)?;
        let Params { column, cut_off, after, upto, .. } = params;
        let bounds = Bounds { column, cut_off, after, upto };
        let (condition, binds) = bounds.condition(&table);
        if let Some((reference, key)) = table.pointed_at(cx, (&condition, &binds)).await? {
            let text = format!(
                "`{}` (constraint `{}`) points at cold rows of `{}`, such as {key}",
                reference.child,
                reference.constraint_name,
                table.plain()
            );
            return Err(Failure::permanent("archive::referenced", text).with_help(format!(
                "archive the rows of `{}` first: what is hot may not point at what is cold",
                reference.child
            )));
        }
        let rows = bounds.count(cx, &table).await?;
        if rows == 0 {
            return Ok(ChangeSet::new(Vec::new()));
        }
        let place = format!("{}/{}", cx.target, cx.pg.server().await?.database);
        let id = free_id(cx, bounds.batch_id(&table, &place)).await?;
        let mut changes = prepare(cx).await?;
        changes.extend(cold::archive(&Batch { table: &table, bounds: &bounds, id, rows }));
        Ok(ChangeSet::new(changes))
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let is_copy =
            |settled: &&Settled<'_>| matches!(settled.change.operation, Operation::Archive(_));
        let copy = settled.iter().find(is_copy);
        let delete = settled.iter().find(|settled| !is_copy(settled));
        let facts = settled.first().map_or(&Value::Null, |settled| &settled.change.facts);
        let fact = |name: &str| facts[name].as_str().map(str::to_owned);
        let receipt = delete.and_then(|settled| settled.receipt());
        let number = |name: &str| {
            receipt.and_then(|receipt| receipt.result.get(0)?.get(name)?.as_u64()).unwrap_or(0)
        };
        let rows_copied = copy.and_then(|settled| settled.receipt()?.rows).unwrap_or(0);
        let status = match delete.map(Settled::ending) {
            None => Status::NoColdData,
            Some(Ending::Applied) => Status::Archived,
            Some(_) => Status::Copied,
        };
        // What a recovery found done has no numbers; the rows of the batch are those that were proposed.
        let recovered = receipt.is_some_and(|receipt| receipt.recovered);
        let rows_archived =
            if recovered { facts["rows"].as_u64().unwrap_or(0) } else { number("rows") };
        Output {
            table: fact("table"),
            batch: fact("batch"),
            column: fact("column"),
            cut_off: fact("cut_off"),
            status,
            rows_copied,
            rows_archived,
            rows_kept: number("kept_hot"),
        }
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        if output.status == Status::NoColdData {
            return Vec::new();
        }
        let predicate = output.column.as_ref().zip(output.cut_off.as_ref());
        let row = json!({
            "source_table": output.table,
            "archive_delta_table": "archived_rows",
            "rows_archived": output.rows_archived,
            "predicate": predicate.map(|(column, cut_off)| format!("{column} < {cut_off}")),
            "status": output.status,
        });
        vec![HistoryRow { table: "data_archival_history".to_owned(), row }]
    }
}

/// The name of the batch. A stretch that was archived and restored is another batch the next time.
async fn free_id(cx: &ReadContext<'_>, id: String) -> Result<String, Failure> {
    if !cold::is_ready(cx).await? {
        return Ok(id);
    }
    let text = "select pg_catalog.count(*) as earlier from lakeops.archived_batch \
                where batch_id = $1 or pg_catalog.starts_with(batch_id, $1 || '-')";
    let query = Query::with_binds(text, vec![Bind::Text(id.clone())]);
    let found = cx.pg.query("earlier batches of the stretch", &query).await?;
    let earlier = found.first().and_then(|row| row["earlier"].as_u64()).unwrap_or(0);
    Ok(if earlier == 0 { id } else { format!("{id}-{}", earlier + 1) })
}

/// Makes the table of batches where it is not there yet. It is the engine's own, like that of the keys: it
/// stays, and whoever comes second does not need it any more.
async fn prepare(cx: &ReadContext<'_>) -> Result<Vec<Change>, Failure> {
    if cold::is_ready(cx).await? {
        return Ok(Vec::new());
    }
    let why = "it says which archived rows are visible";
    let operation = Operation::sql(CREATE.body(), Vec::new());
    let mut change = Change::new("table lakeops.archived_batch", why, operation);
    change.recovery = Recovery::Repeatable;
    change.inverse = Inverse::Impossible { why: "archived rows are found by it".to_owned() };
    change.origin = Origin::Engine;
    Ok(vec![change])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Receipt, Settlement};

    #[test]
    fn the_report_says_how_far_the_batch_came() {
        let facts = json!({"table": "public.t", "batch": "b", "rows": 3, "column": "at",
            "cut_off": "2026-01-01T00:00:00Z"});
        let batch = crate::kernel::ArchiveBatch {
            table: "public.t".into(),
            batch: "b".into(),
            read: crate::kernel::SqlStatement::new("select 1"),
        };
        let mut copy = Change::new("public.t", "w", Operation::Archive(batch));
        copy.facts = facts.clone();
        let mut delete = Change::new("public.t", "w", Operation::sql("delete", Vec::new()));
        delete.facts = facts;
        let copied =
            Settlement::Applied { receipt: Receipt { rows: Some(3), ..Receipt::default() } };
        let result = json!([{"rows": 2, "kept_hot": 1}]);
        let deleted = Settlement::Applied { receipt: Receipt { result, ..Receipt::default() } };
        let settled = |change, settlement| Settled { change, settlement };
        let tool = ArchiveColdData;
        let output =
            tool.report(&[settled(&copy, Some(&copied)), settled(&delete, Some(&deleted))]);
        assert_eq!((output.rows_copied, output.rows_archived, output.rows_kept), (3, 2, 1));
        assert_eq!(output.status, Status::Archived);
        assert_eq!(tool.history(&output).iter().try_for_each(crate::history::check), Ok(()));
        let output = tool.report(&[settled(&copy, Some(&copied)), settled(&delete, None)]);
        assert_eq!((output.status, output.rows_archived), (Status::Copied, 0));
        assert_eq!(tool.report(&[]).status, Status::NoColdData);
    }
}
