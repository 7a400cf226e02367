//! Rewrites bloated tables, so that the file system gets their empty space back.
//!
//! Reads: table statistics, what holds old snapshots.
//! Changes: `vacuum (full, analyze)` of each table: nobody can use it meanwhile, and both copies need
//! room. It waits for its lock only briefly, since everyone else queues behind it.
//! Undo: nothing to undo.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kernel::{
    Bind, ByteSize, Change, ChangeSet, Failure, Operation, Query, Risk, Span, SqlFile,
};
use crate::sql_file;
use crate::tools::analysis::vacuum::{TableRow, bloat};
use crate::tools::context::ReadContext;
use crate::tools::tool::{
    AnyTool, Ending, Family, HistoryRow, Settled, ToolMeta, Write, WriteTool,
};
use crate::tools::vacuum_state::{
    HOLDERS, SETTINGS, SIZE, TABLES, VacuumState, budget, look, parse_names, permitted, useful,
};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(ScheduleVacuumFull));

static GUARD: SqlFile = sql_file!("performance/schedule_vacuum_full.guard");

/// How many bytes a rewrite does in a second, for the estimate that people see.
const BYTES_PER_SECOND: u64 = 50 << 20;

struct ScheduleVacuumFull;

/// Which tables.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The tables as `schema.name`.
    #[schemars(length(min = 1))]
    tables: Vec<String>,
    /// How long to wait for the exclusive lock; by default the configured `lock_timeout`.
    #[serde(default)]
    lock_timeout: Option<Span>,
    /// From which age on an open transaction makes the rewrite useless.
    #[serde(default = "one_minute")]
    old_after: Span,
    /// Rewrite also what an old snapshot keeps from being cleaned.
    #[serde(default)]
    even_if_blocked: bool,
}

const fn one_minute() -> Span {
    Span::from_secs(60)
}

/// What the rewrites brought.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// How many tables were rewritten.
    rewritten: u64,
    /// Bytes that were given back, of all tables.
    bytes_reclaimed: i64,
    /// The tables.
    tables: Vec<Done>,
}

/// What became of one table.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Done {
    /// The table.
    table: String,
    /// How its change ended; `moot` when the name stands for another table now.
    ended: Ending,
    /// Bytes with indexes and TOAST before.
    bytes_before: Option<i64>,
    /// Bytes with indexes and TOAST after.
    bytes_after: Option<i64>,
    /// Dead rows before.
    dead_rows_before: Option<i64>,
    /// Dead rows after.
    dead_rows_after: Option<i64>,
    /// How long it took.
    duration_ms: Option<u64>,
}

impl WriteTool for ScheduleVacuumFull {
    const META: ToolMeta = ToolMeta {
        name: "schedule_vacuum_full",
        family: Family::Performance,
        risk: Risk::High,
        revision: 1,
        summary: "Rewrites bloated tables under an exclusive lock, after approval",
        sql: &[&TABLES, &SETTINGS, &HOLDERS, &SIZE, &GUARD],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let names = parse_names(&params.tables)?;
        let state = look(cx, Some(&names)).await?;
        let version = cx.pg.server().await?.version_num;
        judge(&state, &params, version)?;
        let change = |table: &TableRow| {
            let mut change = change(table, budget(cx, table.total_bytes));
            change.lock_timeout = params.lock_timeout;
            change
        };
        Ok(ChangeSet::new(state.tables.iter().map(change).collect()))
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let tables: Vec<_> = settled.iter().map(done).collect();
        let reclaimed = |done: &Done| Some(done.bytes_before? - done.bytes_after?);
        Output {
            rewritten: tables.iter().filter(|done| done.ended == Ending::Applied).count() as u64,
            bytes_reclaimed: tables.iter().filter_map(reclaimed).sum(),
            tables,
        }
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        output.tables.iter().map(history_row).collect()
    }
}

/// Every named table must be one that we may rewrite, and that is smaller afterwards.
fn judge(state: &VacuumState, params: &Params, version_num: u32) -> Result<(), Failure> {
    if params.tables.is_empty() {
        return Err(Failure::permanent("vacuum::no_tables", "`tables` is empty"));
    }
    state.tables.iter().try_for_each(|table| {
        permitted(table, version_num)?;
        if params.even_if_blocked {
            return Ok(());
        }
        useful(table, &state.holders, params.old_after)
    })
}

fn change(table: &TableRow, budget: Span) -> Change {
    let name = &table.table_name;
    let free = bloat(table).map(|bloat| bloat.bytes);
    let left = table.total_bytes.saturating_sub(free.unwrap_or(0));
    let seconds = table.total_bytes.div_ceil(BYTES_PER_SECOND).max(1);
    let frees = match free {
        Some(free) => format!("frees about {}", ByteSize(free)),
        None => "frees an unknown amount (no statistics)".to_owned(),
    };
    let why = format!(
        "{frees} of {}; nobody can use the table meanwhile, about {}; needs about {} of free disk \
         space. pg_repack or pg_squeeze do the same without the lock where they are installed",
        ByteSize(table.total_bytes),
        Span::from_secs(seconds),
        ByteSize(left),
    );
    let statement = format!("vacuum (full, analyze) {}", table.qualified());
    let operation = Operation::sql_outside_transaction(statement);
    let bind = Bind::Text(name.clone());
    let mut change = Change::new(name, why, operation);
    change.risk = Risk::High;
    let same_table = vec![bind.clone(), Bind::Int(table.oid)];
    change.guard = Some(Query::with_binds(GUARD.body(), same_table));
    change.measure = Some(Query::with_binds(SIZE.body(), vec![bind]));
    change.statement_timeout = Some(budget);
    change.independent = true;
    change.cost = [("bytes_rewritten".to_owned(), table.total_bytes)].into();
    change.facts = json!({
        "size_bytes": table.total_bytes,
        "estimated_free_bytes": free,
        "needs_disk_bytes": left,
        "estimated_seconds": seconds,
        "budget": budget,
    });
    change
}

fn done(settled: &Settled<'_>) -> Done {
    let receipt = settled.receipt();
    let before = |key: &str| receipt.and_then(|receipt| receipt.before.get(key)?.as_i64());
    let after = |key: &str| receipt.and_then(|receipt| receipt.after.get(key)?.as_i64());
    Done {
        table: settled.change.object.clone(),
        ended: settled.ending(),
        bytes_before: before("total_bytes"),
        bytes_after: after("total_bytes"),
        dead_rows_before: before("dead_rows"),
        dead_rows_after: after("dead_rows"),
        duration_ms: receipt.and_then(|receipt| receipt.duration_ms),
    }
}

fn history_row(done: &Done) -> HistoryRow {
    let (schema, table) = done.table.split_once('.').unzip();
    let table = table.unwrap_or(&done.table);
    let seconds = done.duration_ms.map(|millis| Duration::from_millis(millis).as_secs_f64());
    let row: Value = json!({
        "schema_name": schema,
        "table_name": table,
        "operation_type": "VACUUM FULL",
        "dead_tuples_before": done.dead_rows_before,
        "dead_tuples_after": done.dead_rows_after,
        "bytes_before": done.bytes_before,
        "bytes_after": done.bytes_after,
        "duration_seconds": seconds,
        "status": done.ended,
    });
    HistoryRow { table: "vacuum_history".to_owned(), row }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Receipt, Recovery, Settlement};
    use crate::tools::analysis::vacuum::tests::{holder, settings, table};

    fn params(extra: Value) -> Params {
        serde_json::from_value(extra).unwrap()
    }

    #[test]
    fn the_change_says_what_it_costs() {
        let change = change(&table(&json!({"live_rows": 16_666})), Span::from_secs(600));
        let expected =
            Operation::sql_outside_transaction("vacuum (full, analyze) \"public\".\"t\"");
        assert_eq!(change.operation, expected);
        assert_eq!((change.risk, change.recovery), (Risk::High, Recovery::Repeatable));
        assert_eq!(change.cost["bytes_rewritten"], 8_241_152);
        for words in ["frees about 4.", "nobody can use the table", "free disk space", "pg_repack"]
        {
            assert!(change.why.contains(words), "{words}: {}", change.why);
        }
        assert_eq!(change.guard.unwrap().binds, [Bind::Text("public.t".into()), Bind::Int(1)]);
        assert!(change.facts["estimated_free_bytes"].as_u64().unwrap() > 4_000_000);
    }

    #[test]
    fn what_is_not_known_is_not_claimed() {
        let blind = table(&json!({"width": null, "columns_known": 0}));
        let change = change(&blind, Span::from_secs(600));
        assert!(change.why.contains("unknown amount"), "{}", change.why);
        assert_eq!(change.facts["estimated_free_bytes"], Value::Null);
    }

    #[test]
    fn refused_where_it_could_not_help() {
        let state = |table: TableRow| VacuumState {
            tables: vec![table],
            settings: settings(),
            holders: vec![holder(Some(90.0))],
        };
        let dead = || table(&json!({"dead_rows": 9, "vacuumed_seconds": null}));
        let code = |table, extra| judge(&state(table), &params(extra), 170_000).map_err(|e| e.code);
        let named = json!({"tables": ["public.t"]});
        assert_eq!(code(dead(), named.clone()), Err("vacuum::useless".into()));
        let forced = json!({"tables": ["public.t"], "even_if_blocked": true});
        assert_eq!(code(dead(), forced), Ok(()));
        let foreign = table(&json!({"may_vacuum": false}));
        assert_eq!(code(foreign, named), Err("vacuum::not_permitted".into()));
        assert_eq!(code(dead(), json!({"tables": []})), Err("vacuum::no_tables".into()));
    }

    #[test]
    fn the_report_counts_bytes() {
        let change = change(&table(&json!({})), Span::from_secs(9));
        let settlement = Settlement::Applied {
            receipt: Receipt {
                before: json!({"total_bytes": 900, "dead_rows": 0}),
                after: json!({"total_bytes": 300, "dead_rows": 0}),
                ..Receipt::default()
            },
        };
        let settled = [Settled { change: &change, settlement: Some(&settlement) }];
        let output = ScheduleVacuumFull.report(&settled);
        assert_eq!((output.rewritten, output.bytes_reclaimed), (1, 600));
    }
}
