//! Vacuums and analyzes tables, one change for each, and measures what it brought.
//!
//! Reads: table statistics, autovacuum's settings, what holds old snapshots.
//! Changes: `vacuum (analyze)` of each table outside a transaction, within a time budget by its size.
//! Undo: nothing to undo.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kernel::{
    Bind, ByteSize, Change, ChangeSet, Failure, Operation, Query, Risk, Span, SqlFile,
};
use crate::sql_file;
use crate::tools::analysis::vacuum::{Reason, TableRow, blocked_by, reasons};
use crate::tools::context::ReadContext;
use crate::tools::tool::{
    AnyTool, Ending, Family, HistoryRow, Settled, ToolMeta, Write, WriteTool,
};
use crate::tools::vacuum_state::{
    HOLDERS, SETTINGS, SIZE, TABLES, VacuumState, budget, look, parse_names, permitted, useful,
};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(ScheduleVacuumAnalyze));

static GUARD: SqlFile = sql_file!("performance/schedule_vacuum_analyze.guard");

struct ScheduleVacuumAnalyze;

/// Which tables.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The tables as `schema.name`; by default those that autovacuum's own formula calls due.
    #[serde(default)]
    tables: Option<Vec<String>>,
    /// How many tables at most are taken by default, those with the most dead rows first.
    #[serde(default = "twenty")]
    at_most: usize,
    /// From which age on an open transaction makes vacuuming useless.
    #[serde(default = "one_minute")]
    old_after: Span,
    /// Vacuum also what an old snapshot keeps from being cleaned.
    #[serde(default)]
    even_if_blocked: bool,
}

const fn twenty() -> usize {
    20
}

const fn one_minute() -> Span {
    Span::from_secs(60)
}

/// What vacuuming brought.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// How many tables were vacuumed.
    vacuumed: u64,
    /// Dead rows that are gone, of all tables.
    dead_rows_removed: i64,
    /// The tables, in the order in which they were taken.
    tables: Vec<Done>,
}

/// What became of one table.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Done {
    /// The table.
    table: String,
    /// How its change ended; `moot` when it is gone or someone else is vacuuming it.
    ended: Ending,
    /// Dead rows before.
    dead_rows_before: Option<i64>,
    /// Dead rows after.
    dead_rows_after: Option<i64>,
    /// Bytes with indexes and TOAST before.
    bytes_before: Option<u64>,
    /// Bytes with indexes and TOAST after.
    bytes_after: Option<u64>,
    /// How long it took.
    duration_ms: Option<u64>,
}

impl WriteTool for ScheduleVacuumAnalyze {
    const META: ToolMeta = ToolMeta {
        name: "schedule_vacuum_analyze",
        family: Family::Performance,
        risk: Risk::Low,
        revision: 1,
        summary: "Vacuums and analyzes tables and measures what it brought",
        sql: &[&TABLES, &SETTINGS, &HOLDERS, &SIZE, &GUARD],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let names = params.tables.as_deref().map(parse_names).transpose()?;
        let state = look(cx, names.as_deref()).await?;
        let version = cx.pg.server().await?.version_num;
        let chosen = judge(&state, &params, version)?;
        let change = |(table, reasons)| change(table, reasons, budget(cx, table.total_bytes));
        Ok(ChangeSet::new(chosen.into_iter().map(change).collect()))
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let tables: Vec<_> = settled.iter().map(done).collect();
        let removed = |done: &Done| Some(done.dead_rows_before? - done.dead_rows_after?);
        Output {
            vacuumed: tables.iter().filter(|done| done.ended == Ending::Applied).count() as u64,
            dead_rows_removed: tables.iter().filter_map(removed).sum(),
            tables,
        }
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        output.tables.iter().map(history_row).collect()
    }
}

/// Named tables are taken as they are, or refused; by default those are taken that are due, that we may
/// vacuum, that nobody is vacuuming and that nothing blocks.
fn judge<'a>(
    state: &'a VacuumState,
    params: &Params,
    version_num: u32,
) -> Result<Vec<(&'a TableRow, Vec<Reason>)>, Failure> {
    let with_reasons = |table: &'a TableRow| (table, reasons(table, &state.settings));
    let refuse = |table: &TableRow| {
        permitted(table, version_num)?;
        if params.even_if_blocked {
            return Ok(());
        }
        useful(table, &state.holders, params.old_after)
    };
    let mut tables: Vec<_> = state.tables.iter().map(with_reasons).collect();
    tables.sort_by_key(|(table, _)| std::cmp::Reverse(table.dead_rows));
    if params.tables.is_some() {
        tables.iter().try_for_each(|(table, _)| refuse(table))?;
        return Ok(tables);
    }
    tables.retain(|(table, reasons)| !reasons.is_empty() && !table.vacuum_running);
    let free = |table: &TableRow| {
        let old_after = params.old_after.0.as_secs_f64();
        params.even_if_blocked || blocked_by(table, &state.holders, old_after).is_empty()
    };
    let first = tables.first().map(|(table, _)| *table);
    tables.retain(|(table, _)| table.may_vacuum && free(table));
    // When every due table is out of reach, silence would look like health.
    if let (true, Some(table)) = (tables.is_empty(), first) {
        refuse(table)?;
    }
    tables.truncate(params.at_most);
    Ok(tables)
}

fn change(table: &TableRow, reasons: Vec<Reason>, budget: Span) -> Change {
    let name = &table.table_name;
    let why = if reasons.is_empty() {
        format!("named by the workflow; {} dead rows", table.dead_rows)
    } else {
        let reasons: Vec<_> = reasons.into_iter().map(describe).collect();
        format!("{}; {} dead rows", reasons.join(", "), table.dead_rows)
    };
    let statement = format!("vacuum (analyze) {}", table.qualified());
    let operation = Operation::sql_outside_transaction(statement);
    let bind = vec![Bind::Text(name.clone())];
    let mut change = Change::new(name, why, operation);
    change.guard = Some(Query::with_binds(GUARD.body(), bind.clone()));
    change.measure = Some(Query::with_binds(SIZE.body(), bind));
    change.statement_timeout = Some(budget);
    change.independent = true;
    change.facts = json!({
        "dead_rows": table.dead_rows,
        "size": ByteSize(table.total_bytes),
        "budget": budget,
    });
    change
}

fn describe(reason: Reason) -> &'static str {
    match reason {
        Reason::DeadRows => "more dead rows than autovacuum lets stand",
        Reason::InsertedRows => "many new rows",
        Reason::StaleStatistics => "stale statistics",
        Reason::TransactionAge => "old transactions to freeze",
        Reason::MultixactAge => "old multixacts to freeze",
    }
}

fn done(settled: &Settled<'_>) -> Done {
    let receipt = settled.receipt();
    let before = |key: &str| receipt.and_then(|receipt| receipt.before.get(key));
    let after = |key: &str| receipt.and_then(|receipt| receipt.after.get(key));
    Done {
        table: settled.change.object.clone(),
        ended: settled.ending(),
        dead_rows_before: before("dead_rows").and_then(Value::as_i64),
        dead_rows_after: after("dead_rows").and_then(Value::as_i64),
        bytes_before: before("total_bytes").and_then(Value::as_u64),
        bytes_after: after("total_bytes").and_then(Value::as_u64),
        duration_ms: receipt.and_then(|receipt| receipt.duration_ms),
    }
}

fn history_row(done: &Done) -> HistoryRow {
    let (schema, table) = done.table.split_once('.').unzip();
    let table = table.unwrap_or(&done.table);
    let seconds = done.duration_ms.map(|millis| Duration::from_millis(millis).as_secs_f64());
    HistoryRow {
        table: "vacuum_history".to_owned(),
        row: json!({
            "schema_name": schema,
            "table_name": table,
            "operation_type": "VACUUM ANALYZE",
            "dead_tuples_before": done.dead_rows_before,
            "dead_tuples_after": done.dead_rows_after,
            "bytes_before": done.bytes_before,
            "bytes_after": done.bytes_after,
            "duration_seconds": seconds,
            "status": done.ended,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Receipt, Recovery, Settlement};
    use crate::tools::analysis::vacuum::tests::{holder, settings, table};

    fn state(tables: Vec<TableRow>) -> VacuumState {
        VacuumState { tables, settings: settings(), holders: Vec::new() }
    }

    fn judged(state: &VacuumState, params: Value) -> Result<Vec<String>, Failure> {
        let chosen = judge(state, &serde_json::from_value(params).unwrap(), 170_000)?;
        Ok(chosen.iter().map(|(table, _)| table.table_name.clone()).collect())
    }

    fn due(name: &str, extra: &Value) -> TableRow {
        let mut table = table(extra);
        table.table_name = name.to_owned();
        table.dead_rows = table.dead_rows.max(20_000);
        table
    }

    #[test]
    fn by_default_what_is_due_and_within_reach() {
        let state = state(vec![
            table(&json!({})),
            due("public.b", &json!({})),
            due("public.a", &json!({"dead_rows": 90_000})),
            due("public.running", &json!({"vacuum_running": true})),
            due("public.foreign", &json!({"may_vacuum": false})),
        ]);
        assert_eq!(judged(&state, json!({})).unwrap(), ["public.a", "public.b"]);
        assert_eq!(judged(&state, json!({"at_most": 1})).unwrap(), ["public.a"]);
    }

    #[test]
    fn nothing_due_is_no_failure_and_nothing_reachable_is_one() {
        assert!(judged(&state(vec![table(&json!({}))]), json!({})).unwrap().is_empty());
        let foreign = state(vec![due("public.f", &json!({"may_vacuum": false}))]);
        assert_eq!(judged(&foreign, json!({})).unwrap_err().code, "vacuum::not_permitted");
        let mut blocked = state(vec![due("public.t", &json!({"vacuumed_seconds": null}))]);
        blocked.holders = vec![holder(Some(90.0))];
        assert_eq!(judged(&blocked, json!({})).unwrap_err().code, "vacuum::useless");
        assert_eq!(judged(&blocked, json!({"even_if_blocked": true})).unwrap().len(), 1);
        assert_eq!(judged(&blocked, json!({"old_after": "2m"})).unwrap().len(), 1);
    }

    #[test]
    fn named_tables_need_not_be_due() {
        let state = state(vec![table(&json!({}))]);
        assert_eq!(judged(&state, json!({"tables": ["public.t"]})).unwrap(), ["public.t"]);
    }

    #[test]
    fn the_change_runs_alone_within_its_budget() {
        let change = change(
            &due("public.\"T\"", &json!({"relation_name": "T"})),
            vec![Reason::DeadRows],
            Span::from_secs(9),
        );
        let expected = Operation::sql_outside_transaction("vacuum (analyze) \"public\".\"T\"");
        assert_eq!(change.operation, expected);
        assert_eq!((change.recovery, change.risk), (Recovery::Repeatable, Risk::Low));
        assert_eq!(change.statement_timeout, Some(Span::from_secs(9)));
        assert!(change.independent && change.guard.is_some() && change.measure.is_some());
        assert!(change.why.contains("more dead rows"), "{}", change.why);
    }

    #[test]
    fn the_report_shows_before_and_after() {
        let change = change(&due("public.t", &json!({})), Vec::new(), Span::from_secs(9));
        let settlement = Settlement::Applied {
            receipt: Receipt {
                before: json!({"dead_rows": 100, "total_bytes": 8192}),
                after: json!({"dead_rows": 3, "total_bytes": 8192}),
                duration_ms: Some(12),
                ..Receipt::default()
            },
        };
        let moot = Settlement::Moot;
        let settled = [
            Settled { change: &change, settlement: Some(&settlement) },
            Settled { change: &change, settlement: Some(&moot) },
        ];
        let output = ScheduleVacuumAnalyze.report(&settled);
        assert_eq!((output.vacuumed, output.dead_rows_removed), (1, 97));
        assert_eq!(output.tables[1].ended, Ending::Moot);
        let rows = ScheduleVacuumAnalyze.history(&output);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows.iter().try_for_each(crate::history::check), Ok(()));
    }
}
