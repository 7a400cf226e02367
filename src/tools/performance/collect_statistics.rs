//! Records what every table and index did and weighs, and how checkpoints went.
//!
//! Each kind has its own cadence: a run records what is due by then, so one schedule serves all. Tables and
//! indexes on which nothing changed since the run before get no row, except in the first run of a day.
//! Counters stand beside the epoch that they belong to; nothing here is a difference.
//!
//! Reads: `pg_stat_user_tables`, `pg_stat_user_indexes`, their I/O, sizes and ages; checkpoints and WAL.
//! Changes: nothing.
//! Undo: nothing to undo.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::kernel::{Bind, Digest, Failure, Risk, Span, SqlFile, Timestamp};
use crate::sql_file;
use crate::tools::analysis::counters::epoch;
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::collection::{Status, is_suspended};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, HistoryRow, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(CollectStatistics));

static DATABASE: SqlFile = sql_file!("performance/collect_statistics.database");
static TABLES: SqlFile = sql_file!("performance/collect_statistics.tables");
static INDEXES: SqlFile = sql_file!("performance/collect_statistics.indexes");
static CHECKPOINTS_14: SqlFile = sql_file!("performance/collect_statistics.checkpoints14");
static CHECKPOINTS_17: SqlFile = sql_file!("performance/collect_statistics.checkpoints17");
static CHECKPOINTS_18: SqlFile = sql_file!("performance/collect_statistics.checkpoints18");

/// Grows with every transaction of the cluster, and says nothing of what was done to the table.
const AGES: [&str; 2] = ["xid_age", "mxid_age"];

/// A run may come a little early and still counts as due.
const EARLY: f64 = 0.1;

struct CollectStatistics;

/// How often each kind is recorded.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Tables, sizes and connections.
    #[serde(default = "five_minutes")]
    tables: Span,
    /// Checkpoints, background writing, WAL.
    #[serde(default = "quarter")]
    checkpoints: Span,
    /// Indexes.
    #[serde(default = "an_hour")]
    indexes: Span,
    /// At most so many tables and indexes, the largest first.
    #[serde(default = "ten_thousand")]
    most: u32,
}

const fn five_minutes() -> Span {
    Span::from_secs(300)
}

const fn quarter() -> Span {
    Span::from_secs(900)
}

const fn an_hour() -> Span {
    Span::from_secs(3_600)
}

const fn ten_thousand() -> u32 {
    10_000
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
    /// The epoch of the counters.
    epoch: Option<String>,
    /// Tables; absent when they were not due.
    tables: Option<Counted>,
    /// Indexes; absent when they were not due.
    indexes: Option<Counted>,
    /// Whether checkpoints were recorded.
    checkpoints: bool,
    /// The bytes of the database.
    database_size_bytes: Option<u64>,
    /// What the next run goes on from.
    #[schemars(skip)]
    memory: Memory,
    /// What could not be measured.
    not_measured: Vec<NotMeasured>,
    /// The rows themselves: they go into the history, not into the output.
    #[serde(skip)]
    #[schemars(skip)]
    rows: Vec<HistoryRow>,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
struct Counted {
    /// In all.
    found: u64,
    /// That changed since the run before, or were recorded because a day began.
    recorded: u64,
}

/// What a run remembers of the one before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Memory {
    /// When each kind was last recorded.
    at: BTreeMap<Group, Timestamp>,
    /// The epoch of the counters.
    epoch: String,
    /// A digest of each table as it was then, by its OID.
    tables: BTreeMap<i64, String>,
    /// The same of each index.
    indexes: BTreeMap<i64, String>,
}

/// What is recorded together.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
enum Group {
    /// Tables, sizes and connections.
    Tables,
    /// Checkpoints, background writing, WAL.
    Checkpoints,
    /// Indexes.
    Indexes,
}

#[derive(Deserialize)]
struct Facts {
    at: Timestamp,
    stats_reset: Option<String>,
    postmaster_start: String,
    in_recovery: bool,
    database_size_bytes: u64,
    connections: u64,
    max_connections: u64,
}

/// A row as the server gives it: its columns are those of the history.
type Columns = Map<String, Value>;

impl ReadTool for CollectStatistics {
    const META: ToolMeta = ToolMeta {
        name: "collect_statistics",
        family: Family::Performance,
        risk: Risk::Low,
        revision: 1,
        summary: "Records statistics of tables, indexes and checkpoints",
        sql: &[&DATABASE, &TABLES, &INDEXES, &CHECKPOINTS_14, &CHECKPOINTS_17, &CHECKPOINTS_18],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;
    const EARLIER: u32 = 1;
    const CARRIED: &'static [&'static str] = &["memory"];

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let memory = cx.earlier.first().and_then(memory_of).unwrap_or_default();
        match collect(cx, &params, memory.clone()).await {
            Err(failure) if is_suspended(&failure) => Ok(Output {
                status: Status::Skipped,
                reason: Some(failure.message),
                memory,
                ..Output::default()
            }),
            other => other,
        }
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        output.rows.clone()
    }
}

fn memory_of(output: &Value) -> Option<Memory> {
    serde_json::from_value(output.get("memory")?.clone()).ok()
}

async fn collect(cx: &ReadContext<'_>, params: &Params, memory: Memory) -> Result<Output, Failure> {
    let database: Facts = cx.pg.row(&DATABASE, &[]).await?;
    let server = cx.pg.server().await?;
    let epoch =
        epoch(&[server.place(), Some(&database.postmaster_start), database.stats_reset.as_deref()]);
    let mut record = Record::new(database, epoch, memory);
    let most = [Bind::Int(params.most.into())];
    if record.is_due(Group::Tables, params.tables) {
        let rows: Vec<Columns> = cx.pg.rows(&TABLES, &most).await?;
        record.tables(rows);
    }
    if record.is_due(Group::Indexes, params.indexes) {
        let rows: Vec<Columns> = cx.pg.rows(&INDEXES, &most).await?;
        record.indexes(rows);
    }
    if record.is_due(Group::Checkpoints, params.checkpoints) {
        let row: Columns = cx.pg.row(checkpoints_file(server.version_num), &[]).await?;
        record.checkpoints(row, server.place());
    }
    Ok(record.output)
}

/// The views behind the counters moved between versions.
fn checkpoints_file(version_num: u32) -> &'static SqlFile {
    match version_num {
        180_000.. => &CHECKPOINTS_18,
        170_000.. => &CHECKPOINTS_17,
        _ => &CHECKPOINTS_14,
    }
}

/// A run at work.
struct Record {
    database: Facts,
    /// Whether what the run before saw is of the same epoch.
    continues: bool,
    output: Output,
}

impl Record {
    fn new(database: Facts, epoch: String, mut memory: Memory) -> Self {
        let continues = memory.epoch == epoch;
        memory.epoch.clone_from(&epoch);
        let (at, size) = (Some(database.at), Some(database.database_size_bytes));
        let output = Output {
            at,
            epoch: Some(epoch),
            database_size_bytes: size,
            memory,
            ..Output::default()
        };
        Self { database, continues, output }
    }

    /// Whether a kind is due. Another epoch begins with everything.
    fn is_due(&mut self, group: Group, every: Span) -> bool {
        let Some(last) = self.output.memory.at.get(&group).filter(|_| self.continues) else {
            return true;
        };
        self.database.at.since(*last).as_secs_f64() >= every.0.as_secs_f64() * (1.0 - EARLY)
    }

    /// Whether everything is recorded: nothing is known of before, or a day begins.
    fn is_whole(&self, group: Group) -> bool {
        let day = |at: Timestamp| at.to_datetime().date_naive();
        let last = self.output.memory.at.get(&group).filter(|_| self.continues);
        last.is_none_or(|last| day(*last) != day(self.database.at))
    }

    fn tables(&mut self, rows: Vec<Columns>) {
        let whole = self.is_whole(Group::Tables);
        let before = std::mem::take(&mut self.output.memory.tables);
        let (counted, kept, digests) = changed(rows, "relid", &before, whole);
        for row in kept {
            self.push("table_stats", row, true);
        }
        self.output.tables = Some(counted);
        self.output.memory.tables = digests;
        let Facts { database_size_bytes, connections, max_connections, .. } = &self.database;
        let metrics = [
            ("database_size_bytes", *database_size_bytes),
            ("connections", *connections),
            ("max_connections", *max_connections),
        ];
        for (name, value) in metrics {
            let row = json!({ "metric_name": name, "metric_value": value });
            if let Value::Object(row) = row {
                self.push("lakebase_metrics", row, false);
            }
        }
        self.output.memory.at.insert(Group::Tables, self.database.at);
    }

    fn indexes(&mut self, rows: Vec<Columns>) {
        let whole = self.is_whole(Group::Indexes);
        let before = std::mem::take(&mut self.output.memory.indexes);
        let (counted, kept, digests) = changed(rows, "indexrelid", &before, whole);
        for row in kept {
            self.push("index_stats", row, true);
        }
        self.output.indexes = Some(counted);
        self.output.memory.indexes = digests;
        self.output.memory.at.insert(Group::Indexes, self.database.at);
    }

    fn checkpoints(&mut self, mut row: Columns, place: Option<&str>) {
        // These counters are those of the server, and are reset by themselves.
        let reset = |name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
        let (own, wal) = (reset("stats_reset"), reset("wal_stats_reset"));
        let start = Some(self.database.postmaster_start.as_str());
        let of_server = epoch(&[place, start, own.as_deref(), wal.as_deref()]);
        row.insert("epoch_id".to_owned(), of_server.into());
        row.entry("stats_reset").or_insert(Value::Null);
        self.push("checkpoint_stats", row, false);
        self.output.checkpoints = true;
        self.output.memory.at.insert(Group::Checkpoints, self.database.at);
    }

    fn push(&mut self, table: &str, mut row: Columns, is_of_object: bool) {
        let at = self.database.at;
        let snapshot =
            format!("{}-{}", self.output.epoch.as_deref().unwrap_or_default(), at.as_millis());
        let mut fill = |name: &str, value: Value| {
            row.entry(name).or_insert(value);
        };
        if table != "lakebase_metrics" {
            fill("snapshot_id", snapshot.into());
        }
        if is_of_object {
            fill("is_replica", self.database.in_recovery.into());
        }
        fill("epoch_id", json!(self.output.epoch));
        fill("stats_reset", json!(self.database.stats_reset));
        fill("postmaster_start", json!(self.database.postmaster_start));
        fill("snapshot_timestamp", json!(at));
        self.output.rows.push(HistoryRow { table: table.to_owned(), row: Value::Object(row) });
    }
}

/// The rows that differ from those of the run before, and what the next run compares with.
fn changed(
    rows: Vec<Columns>,
    oid: &str,
    before: &BTreeMap<i64, String>,
    whole: bool,
) -> (Counted, Vec<Columns>, BTreeMap<i64, String>) {
    let mut counted = Counted::default();
    let (mut kept, mut digests) = (Vec::new(), BTreeMap::new());
    for row in rows {
        let Some(id) = row.get(oid).and_then(Value::as_i64) else { continue };
        let digest = digest(&row);
        counted.found += 1;
        if whole || before.get(&id) != Some(&digest) {
            counted.recorded += 1;
            kept.push(row);
        }
        digests.insert(id, digest);
    }
    (counted, kept, digests)
}

fn digest(row: &Columns) -> String {
    let mut text = String::new();
    for (name, value) in row.iter().filter(|(name, _)| !AGES.contains(&name.as_str())) {
        text.push_str(name);
        text.push_str(&value.to_string());
    }
    Digest::of_bytes(text.as_bytes()).short().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(minute: i64, start: &str) -> Facts {
        let at = Timestamp::from_millis(1_800_000_000_000 + minute * 60_000);
        let row = json!({
            "at": at, "stats_reset": null, "postmaster_start": start, "in_recovery": false,
            "database_size_bytes": 1000, "connections": 3, "max_connections": 100,
        });
        serde_json::from_value(row).unwrap()
    }

    fn table(relid: i64, scans: i64, age: i64) -> Columns {
        let row = json!({ "relid": relid, "seq_scan": scans, "xid_age": age });
        serde_json::from_value(row).unwrap()
    }

    fn tables_of(record: &Record) -> Vec<i64> {
        let rows = record.output.rows.iter().filter(|row| row.table == "table_stats");
        rows.map(|row| row.row["relid"].as_i64().unwrap()).collect()
    }

    #[test]
    fn what_did_not_change_is_left_out_until_a_day_or_an_epoch_begins() {
        let mut first = Record::new(database(0, "p"), "e".into(), Memory::default());
        first.tables(vec![table(1, 5, 10), table(2, 5, 10)]);
        assert_eq!(tables_of(&first), [1, 2]);
        let memory = first.output.memory;
        let mut next = Record::new(database(5, "p"), "e".into(), memory.clone());
        // The age grew by what others did.
        next.tables(vec![table(1, 5, 99), table(2, 6, 99), table(3, 0, 1)]);
        assert_eq!(tables_of(&next), [2, 3]);
        for (minute, epoch) in [(24 * 60, "e"), (5, "f")] {
            let mut whole = Record::new(database(minute, "p"), epoch.into(), memory.clone());
            whole.tables(vec![table(1, 5, 10), table(2, 5, 10)]);
            assert_eq!(tables_of(&whole), [1, 2]);
        }
    }

    #[test]
    fn each_kind_is_due_by_its_own_cadence() {
        let mut memory = Memory { epoch: "e".into(), ..Memory::default() };
        memory.at.insert(Group::Tables, database(0, "p").at);
        memory.at.insert(Group::Indexes, database(0, "p").at);
        let due = |minute, epoch: &str, group, every| {
            Record::new(database(minute, "p"), epoch.into(), memory.clone()).is_due(group, every)
        };
        assert!(due(5, "e", Group::Tables, five_minutes()));
        assert!(!due(4, "e", Group::Tables, five_minutes()));
        assert!(!due(5, "e", Group::Indexes, an_hour()));
        assert!(due(55, "e", Group::Indexes, an_hour()), "a little early is due");
        assert!(due(1, "e", Group::Checkpoints, quarter()), "never recorded");
        assert!(due(1, "f", Group::Indexes, an_hour()), "another epoch");
    }
}
