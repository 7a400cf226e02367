//! Finds out why something is wrong: gathers evidence, and ranks causes by what speaks for and against
//! them.
//!
//! Reads: sessions and the lock tree, health with rates, tables with dead rows and what holds their
//! space, sequences, slots; from the history the statements that took most time and what lakeops itself
//! changed lately.
//! Changes: nothing.
//! Undo: nothing to undo.
//!
//! Which clue speaks for which cause is decided by `sops/root_cause.rhai`. How risky a remedy is says the
//! tool that carries it out, and nobody else.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kernel::{Bind, Failure, Query, Risk, Span, Timestamp};
use crate::sop::Scope;
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::analysis::number::rounded;
use crate::tools::analysis::text::shorten;
use crate::tools::analysis::vacuum::{Reason, TableRow, blocked_by, is_switched_off, reasons};
use crate::tools::catalog::Catalog;
use crate::tools::connection_state::{self, Connected, Long};
use crate::tools::context::ReadContext;
use crate::tools::health_state::{self, Depth, Health};
use crate::tools::rules::ROOT_CAUSE;
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};
use crate::tools::vacuum_state::{self, VacuumState};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(DiagnoseRootCause));

/// How many tables are evidence.
const TABLES: usize = 20;
/// How many statements and changes of the history are evidence.
const LATELY: i64 = 10;

struct DiagnoseRootCause;

/// What was noticed, and what counts as long.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The metric that was noticed, such as `lock_wait_seconds`; by default everything is a suspect.
    #[serde(default)]
    metric: Option<String>,
    /// Its value.
    #[serde(default)]
    value: Option<f64>,
    /// A statement that runs for longer is a suspect.
    #[serde(default = "half_a_minute")]
    long_query: Span,
    /// Waits and old snapshots that last for longer weigh more.
    #[serde(default = "five_seconds")]
    patience: Span,
    /// The time between the two samples that rates come from.
    #[serde(default = "one_second")]
    interval: Span,
    /// How far back statements and changes are looked for in the history.
    #[serde(default = "an_hour")]
    lately: Span,
}

const fn half_a_minute() -> Span {
    Span::from_secs(30)
}

const fn five_seconds() -> Span {
    Span::from_secs(5)
}

const fn one_second() -> Span {
    Span::from_secs(1)
}

const fn an_hour() -> Span {
    Span::from_secs(3_600)
}

/// The causes, and what they were judged by.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The metric that was noticed.
    metric: Option<String>,
    /// Its value.
    value: Option<f64>,
    /// The likeliest cause; `unknown` when nothing speaks for any.
    cause: String,
    /// The causes, the likeliest first.
    causes: Vec<Suspect>,
    /// What they were judged by.
    evidence: Evidence,
    /// What could not be measured, and so is no evidence.
    not_measured: Vec<NotMeasured>,
}

/// A possible cause.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Suspect {
    /// Its name.
    cause: String,
    /// One line for people.
    title: String,
    /// What it is about: a session, a table, a slot.
    object: String,
    /// From 0, impossible, to 1, certain.
    score: f64,
    /// What speaks for it.
    evidence_for: Vec<String>,
    /// What speaks against it.
    evidence_against: Vec<String>,
    /// What can be done.
    remedy: Remedy,
}

/// What can be done about a cause.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Remedy {
    /// `end_sessions`, `vacuum`, or `escalate`: a person is needed.
    action: String,
    /// The tool that does it.
    tool: Option<String>,
    /// Its arguments.
    arguments: Value,
    /// Why it helps, or what a person can do.
    why: String,
    /// How risky that tool is; absent without one.
    #[serde(default)]
    risk: Option<Risk>,
}

/// What causes are judged by.
#[derive(Serialize, JsonSchema)]
struct Evidence {
    /// Sessions and the lock tree.
    connections: Connected,
    /// The numbers, sequences, replication slots and what holds old snapshots.
    health: Health,
    /// The tables with the most dead rows and those that must be frozen.
    tables: Vec<TableEvidence>,
    /// Whether autovacuum is on.
    autovacuum: bool,
    /// The statements that took most time lately, by the history.
    statements: Vec<StatementEvidence>,
    /// What lakeops changed lately, the newest first.
    changes: Vec<ChangeEvidence>,
}

/// A table as evidence.
#[derive(Serialize, JsonSchema)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about a table")]
struct TableEvidence {
    /// The table.
    table: String,
    /// Live rows.
    live_rows: i64,
    /// Dead rows.
    dead_rows: i64,
    /// Dead rows as a share of all.
    dead_ratio: f64,
    /// Whether autovacuum's own formula calls it due.
    due: bool,
    /// Whether it must be frozen.
    needs_freezing: bool,
    /// Whether autovacuum is switched off for it.
    autovacuum_off: bool,
    /// Whether it is being vacuumed now.
    vacuum_running: bool,
    /// Whether we may vacuum it.
    may_vacuum: bool,
    /// How long ago it was vacuumed.
    vacuumed_seconds: Option<f64>,
    /// What makes vacuuming it useless.
    blocked_by: Vec<String>,
}

/// A statement as evidence.
#[derive(Serialize, Deserialize, JsonSchema)]
struct StatementEvidence {
    /// The statement, 200 characters of it.
    query: String,
    /// How often it was called.
    calls: f64,
    /// How long all calls took together.
    total_ms: f64,
}

/// A change as evidence.
#[derive(Serialize, Deserialize, JsonSchema)]
struct ChangeEvidence {
    /// When it was made.
    at: String,
    /// How long ago that was.
    #[serde(default)]
    seconds_ago: f64,
    /// On whose behalf.
    actor: String,
    /// What was done.
    detail: String,
}

impl ReadTool for DiagnoseRootCause {
    const META: ToolMeta = ToolMeta {
        name: "diagnose_root_cause",
        family: Family::Health,
        risk: Risk::Low,
        revision: 1,
        summary: "Ranks the causes of what is wrong, with the evidence for and against each",
        sql: SQL,
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let mut not_measured = Vec::new();
        let evidence = gather(cx, &params, &mut not_measured).await?;
        let scope: Scope = [
            ("anomaly", json!({ "metric": params.metric, "value": params.value })),
            ("evidence", json!(evidence)),
            (
                "limits",
                json!({
                    "long_query": params.long_query.0.as_secs_f64(),
                    "patience": params.patience.0.as_secs_f64(),
                }),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let causes = ranked(&cx.rules.decide(ROOT_CAUSE, &scope)?)?;
        Ok(Output {
            metric: params.metric,
            value: params.value,
            cause: causes.first().map_or("unknown", |cause| &cause.cause).to_owned(),
            causes,
            evidence,
            not_measured,
        })
    }
}

/// The SQL files that evidence comes from.
const SQL: &[&crate::kernel::SqlFile] = &[
    &connection_state::SESSIONS,
    &connection_state::LIMITS,
    &connection_state::PREPARED,
    &health_state::NOW,
    &health_state::COUNTERS_14,
    &health_state::COUNTERS_16,
    &health_state::COUNTERS_17,
    &health_state::SEQUENCES,
    &health_state::REPLICATION,
    &vacuum_state::HOLDERS,
    &vacuum_state::TABLES,
    &vacuum_state::SETTINGS,
];

/// The causes as the SOP ranked them, each remedy with the risk of its tool.
fn ranked(verdict: &Value) -> Result<Vec<Suspect>, Failure> {
    let causes: Vec<Suspect> =
        serde_json::from_value(verdict["causes"].clone()).map_err(|error| {
            let text = format!("`{ROOT_CAUSE}` returned causes of another form: {error}");
            Failure::permanent("diagnose_root_cause::bad_sop", text)
        })?;
    let catalog = Catalog::builtin();
    let with_risk = |mut cause: Suspect| {
        let tool = cause.remedy.tool.as_deref().and_then(|name| catalog.find(name));
        cause.remedy.risk = tool.map(|tool| tool.meta().risk);
        cause
    };
    Ok(causes.into_iter().map(with_risk).collect())
}

async fn gather(
    cx: &ReadContext<'_>,
    params: &Params,
    not_measured: &mut Vec<NotMeasured>,
) -> Result<Evidence, Failure> {
    let long = Long { idle: Span::from_secs(1_800), min_wait: Span::default() };
    let connections = connection_state::look(cx, long).await?;
    let state = vacuum_state::look(cx, None).await?;
    let health = health_state::look(cx, (Depth::Full, params.interval), 1_000, &[]).await?;
    not_measured.extend(connections.not_measured.iter().chain(&health.not_measured).cloned());
    let since = Timestamp::from_millis(
        cx.clock.now().as_millis().saturating_sub_unsigned(params.lately.as_millis()),
    );
    let statements = match lately(cx, STATEMENTS, since).await {
        Ok(rows) => rows.into_iter().filter_map(statement).collect(),
        Err(why) => {
            not_measured.push(NotMeasured::new("statements", why.message));
            Vec::new()
        }
    };
    let changes = match lately(cx, CHANGES, since).await {
        Ok(rows) => rows.into_iter().filter_map(|row| change(row, cx.clock.now())).collect(),
        Err(why) => {
            not_measured.push(NotMeasured::new("changes", why.message));
            Vec::new()
        }
    };
    Ok(Evidence {
        connections,
        health,
        autovacuum: state.settings.autovacuum && state.settings.track_counts,
        tables: tables(&state, params.patience),
        statements,
        changes,
    })
}

/// Statements by the time that they took, of the target.
const STATEMENTS: &str = "select query, sum(calls_delta) as calls, \
    sum(total_exec_time_delta) as total_ms from pg_stat_history \
    where snapshot_timestamp >= cast($1 as timestamp) \
    and ($2 = '' or branch_id = $2) and total_exec_time_delta is not null \
    group by query order by total_ms desc limit 10";

/// What runs of ours changed.
const CHANGES: &str = "select cast(at as varchar) as at, actor, detail from audit \
    where at >= cast($1 as timestamp) and action = 'change_applied' \
    and ($2 = '' or branch_id = $2) order by at desc limit 10";

async fn lately(cx: &ReadContext<'_>, text: &str, since: Timestamp) -> Result<Vec<Value>, Failure> {
    let branch = cx.target.branch.clone().unwrap_or_default();
    let since = since.to_datetime().format("%Y-%m-%dT%H:%M:%S%.3f").to_string();
    let binds = vec![Bind::Text(since), Bind::Text(branch)];
    let mut rows = cx.history()?.query(&Query::with_binds(text, binds)).await?;
    rows.truncate(usize::try_from(LATELY).unwrap_or(usize::MAX));
    Ok(rows)
}

fn statement(row: Value) -> Option<StatementEvidence> {
    let found: StatementEvidence = serde_json::from_value(row).ok()?;
    Some(StatementEvidence {
        query: shorten(&found.query),
        total_ms: rounded(found.total_ms),
        ..found
    })
}

fn change(row: Value, now: Timestamp) -> Option<ChangeEvidence> {
    let found: ChangeEvidence = serde_json::from_value(row).ok()?;
    let at = Timestamp::parse(&found.at).or_else(|| Timestamp::parse(&format!("{}Z", found.at)));
    let seconds_ago = at.map_or(0.0, |at| rounded(now.since(at).as_secs_f64()));
    Some(ChangeEvidence { seconds_ago, detail: shorten(&found.detail), ..found })
}

/// The tables with the most dead rows, and those that must be frozen.
fn tables(state: &VacuumState, old_after: Span) -> Vec<TableEvidence> {
    let mut tables: Vec<_> = state.tables.iter().map(|t| table(t, state, old_after)).collect();
    tables.retain(|table| table.dead_rows > 0 || table.needs_freezing);
    tables.sort_by_key(|table| (!table.needs_freezing, std::cmp::Reverse(table.dead_rows)));
    tables.truncate(TABLES);
    tables
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no exact counts")]
fn table(row: &TableRow, state: &VacuumState, old_after: Span) -> TableEvidence {
    let reasons = reasons(row, &state.settings);
    let blocking = blocked_by(row, &state.holders, old_after.0.as_secs_f64());
    let all = row.live_rows.saturating_add(row.dead_rows).max(1);
    let freezes = |reason: &Reason| matches!(reason, Reason::TransactionAge | Reason::MultixactAge);
    TableEvidence {
        table: row.table_name.clone(),
        live_rows: row.live_rows,
        dead_rows: row.dead_rows,
        dead_ratio: rounded(row.dead_rows as f64 / all as f64),
        due: reasons.contains(&Reason::DeadRows),
        needs_freezing: reasons.iter().any(freezes),
        autovacuum_off: is_switched_off(row),
        vacuum_running: row.vacuum_running,
        may_vacuum: row.may_vacuum,
        vacuumed_seconds: row.vacuumed_seconds.map(rounded),
        blocked_by: blocking.iter().map(|holder| holder.label()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_risk_of_a_remedy_is_that_of_its_tool() {
        let cause = |tool: Value, risk: &str| {
            json!({
                "cause": "c", "title": "t", "object": "o", "score": 0.5, "evidence_for": [],
                "evidence_against": [],
                "remedy": {"action": "a", "tool": tool, "arguments": {}, "why": "w", "risk": risk},
            })
        };
        let verdict = json!({"causes": [
            cause(json!("schedule_vacuum_full"), "low"), cause(json!(null), "low"),
            cause(json!("unheard_of"), "low"),
        ]});
        let risks: Vec<_> =
            ranked(&verdict).unwrap().into_iter().map(|cause| cause.remedy.risk).collect();
        assert_eq!(risks, [Some(Risk::High), None, None]);
        assert!(ranked(&json!({"causes": [{"cause": "c"}]})).is_err());
    }
}
