//! Records who waits for whom, and how many sessions are in which state, at one moment.
//!
//! Reads: sessions and locks.
//! Changes: nothing.
//! Undo: nothing to undo.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::kernel::{Failure, Risk, Span, SqlFile, Timestamp};
use crate::sql_file;
use crate::tools::analysis::locks::{Waits, roots};
use crate::tools::analysis::number::share;
use crate::tools::analysis::text::without_literals;
use crate::tools::collection::{Status, is_suspended, keep_quiet};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, HistoryRow, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(CollectSessions));

static LOCKS: SqlFile = sql_file!("performance/collect_sessions.locks");
static CONNECTIONS: SqlFile = sql_file!("performance/collect_sessions.connections");

/// What the query calls sessions of ours.
const US: &str = "lakeops";

struct CollectSessions;

/// When it is not recorded.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// After how long without activity the compute is suspended; `0s`: never. For so long it is left alone
    /// when nobody but us was connected.
    #[serde(default = "five_minutes")]
    suspend_after: Span,
}

const fn five_minutes() -> Span {
    Span::from_secs(300)
}

/// What was recorded.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct Output {
    /// Whether anything was read.
    status: Status,
    /// Why not, when not.
    reason: Option<String>,
    /// When, by the server's clock.
    at: Option<Timestamp>,
    /// Whether anybody but us was connected.
    others_active: Option<bool>,
    /// How many sessions of clients there are.
    connections: u64,
    /// Their share of those that there may be.
    utilization: f64,
    /// How many wait for a lock.
    waiting: u64,
    /// The longest that one of them has waited.
    longest_wait_seconds: f64,
    /// The rows themselves: they go into the history, not into the output.
    #[serde(skip)]
    #[schemars(skip)]
    rows: Vec<HistoryRow>,
}

/// A waiting session as the server gives it; its other columns are those of the history.
#[derive(Deserialize)]
struct Waiting {
    at: Timestamp,
    pid: i32,
    blocked_by: Vec<i32>,
    wait_seconds: Option<f64>,
    query: Option<String>,
    #[serde(flatten)]
    columns: Map<String, Value>,
}

/// Sessions that are alike.
#[derive(Deserialize)]
struct Alike {
    at: Timestamp,
    connections: u64,
    max_connections: u64,
    #[serde(flatten)]
    columns: Map<String, Value>,
}

impl ReadTool for CollectSessions {
    const META: ToolMeta = ToolMeta {
        name: "collect_sessions",
        family: Family::Performance,
        risk: Risk::Low,
        revision: 1,
        summary: "Records lock waits and how many sessions are in which state",
        sql: &[&LOCKS, &CONNECTIONS],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;
    const EARLIER: u32 = 1;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let before = cx.earlier.first().and_then(Before::of).unwrap_or_default();
        let (active, at) = (before.others_active, before.at);
        if let Some(why) = keep_quiet(cx, active, at, params.suspend_after) {
            return Ok(before.skipped(why));
        }
        match look(cx).await {
            Err(failure) if is_suspended(&failure) => Ok(before.skipped(failure.message)),
            other => other,
        }
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        output.rows.clone()
    }
}

/// What this run needs of the output of the run before.
#[derive(Default, Deserialize)]
struct Before {
    at: Option<Timestamp>,
    others_active: Option<bool>,
}

impl Before {
    fn of(output: &Value) -> Option<Self> {
        serde_json::from_value(output.clone()).ok()
    }

    fn skipped(&self, why: String) -> Output {
        Output {
            status: Status::Skipped,
            reason: Some(why),
            at: self.at,
            others_active: self.others_active,
            ..Output::default()
        }
    }
}

async fn look(cx: &ReadContext<'_>) -> Result<Output, Failure> {
    let waiting: Vec<Waiting> = cx.pg.rows(&LOCKS, &[]).await?;
    let alike: Vec<Alike> = cx.pg.rows(&CONNECTIONS, &[]).await?;
    Ok(judge(waiting, alike))
}

fn judge(waiting: Vec<Waiting>, alike: Vec<Alike>) -> Output {
    let connections = alike.iter().map(|alike| alike.connections).sum();
    let most = alike.first().map_or(0, |alike| alike.max_connections);
    let longest = waiting.iter().filter_map(|waiting| waiting.wait_seconds);
    let ours = |alike: &Alike| alike.columns.get("application_name") == Some(&json!(US));
    let mut output = Output {
        at: alike.first().map(|alike| alike.at),
        others_active: Some(!alike.iter().all(ours)),
        connections,
        utilization: share(connections, most),
        waiting: u64::try_from(waiting.len()).unwrap_or(u64::MAX),
        longest_wait_seconds: longest.fold(0.0, f64::max),
        ..Output::default()
    };
    let places = places(&waiting);
    output.rows = waiting.into_iter().map(|waiting| lock_row(waiting, &places)).collect();
    output.rows.extend(alike.into_iter().map(connection_row));
    output
}

/// The root and depth of every waiting process. One that waits for two roots is counted with the one that
/// holds up most.
fn places(waiting: &[Waiting]) -> BTreeMap<i32, (i32, u32)> {
    let waits: Waits = waiting
        .iter()
        .map(|waiting| (waiting.pid, waiting.blocked_by.iter().copied().collect()))
        .collect();
    let mut places = BTreeMap::new();
    for root in roots(&waits) {
        for (pid, depth) in root.levels {
            places.entry(pid).or_insert((root.pid, depth));
        }
    }
    places
}

fn lock_row(waiting: Waiting, places: &BTreeMap<i32, (i32, u32)>) -> HistoryRow {
    let place = places.get(&waiting.pid);
    let mut row = waiting.columns;
    let own = [
        ("snapshot_id", json!(snapshot(waiting.at))),
        ("pid", json!(waiting.pid)),
        ("blocked_by", json!(waiting.blocked_by)),
        ("wait_seconds", json!(waiting.wait_seconds)),
        ("root_pid", json!(place.map(|place| place.0))),
        ("depth", json!(place.map(|place| place.1))),
        ("query", json!(waiting.query.map(|query| without_literals(&query)))),
        ("snapshot_timestamp", json!(waiting.at)),
    ];
    row.extend(own.map(|(name, value)| (name.to_owned(), value)));
    HistoryRow { table: "lock_samples".to_owned(), row: Value::Object(row) }
}

fn connection_row(alike: Alike) -> HistoryRow {
    let mut row = alike.columns;
    let own = [
        ("snapshot_id", json!(snapshot(alike.at))),
        ("connections", json!(alike.connections)),
        ("max_connections", json!(alike.max_connections)),
        ("utilization", json!(share(alike.connections, alike.max_connections))),
        ("snapshot_timestamp", json!(alike.at)),
    ];
    row.extend(own.map(|(name, value)| (name.to_owned(), value)));
    HistoryRow { table: "connection_samples".to_owned(), row: Value::Object(row) }
}

fn snapshot(at: Timestamp) -> String {
    at.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(pid: i32, blocked_by: &[i32], seconds: f64) -> Waiting {
        let row = json!({
            "at": "2026-01-01T00:00:00Z", "pid": pid, "blocked_by": blocked_by,
            "wait_seconds": seconds, "query": "update t set a = 'secret'", "lock_type": "tuple",
        });
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn a_waiting_session_is_recorded_with_its_root() {
        let alike = json!([
            { "at": "2026-01-01T00:00:00Z", "connections": 30, "max_connections": 100, "state": "idle" },
            { "at": "2026-01-01T00:00:00Z", "connections": 10, "max_connections": 100, "state": null },
        ]);
        let alike = serde_json::from_value(alike).unwrap();
        let output = judge(vec![waiting(2, &[1], 3.0), waiting(3, &[2], 1.0)], alike);
        assert_eq!((output.connections, output.waiting), (40, 2));
        assert!((output.utilization - 0.4).abs() < 1e-9);
        assert!((output.longest_wait_seconds - 3.0).abs() < 1e-9);
        let row = &output.rows[1].row;
        assert_eq!((&row["root_pid"], &row["depth"]), (&json!(1), &json!(2)));
        assert_eq!(
            (&row["query"], &row["lock_type"]),
            (&json!("update t set a = '…'"), &json!("tuple"))
        );
        assert_eq!(output.rows.len(), 4);
    }
}
