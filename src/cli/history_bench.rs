//! How fast the history is on this machine: a collection, a day of ticks, a question about 90 days.
//!
//! The collection is real: a server of its own with as many statements. The days are made up, rows of
//! plausible shape through the same journal and the same appends; what is measured is what they cost.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::bench::{BenchError, engine, make_folder, nobody, peak_memory, run, run_created};
use crate::engine::Engine;
use crate::engine::parts::History;
use crate::history::{self, HistoryWriter, Location};
use crate::journal::event::Compensation;
use crate::journal::store::{Append, Durability, Expect};
use crate::journal::{Event, Journal, MemoryJournal, Outcome, SqliteJournal, Stream};
use crate::kernel::kill::Unarmed;
use crate::kernel::upkeep::Work;
use crate::kernel::{
    BoxFuture, Clock, Digest, IdSource, KillPoints, Query, Redactor, RunId, Timestamp, Upkeep,
};
use crate::plan::Plan;
use crate::postgres::PgEndpoint;
use crate::tools::context::{ReadHistory as _, StoredTable};
use crate::tools::tool::HistoryRow;

const METRICS: &str = "lakebase_metrics";
const STATEMENTS: &str = "pg_stat_history";
const FIVE_MINUTES: Duration = Duration::from_mins(5);
const A_DAY: Duration = Duration::from_hours(24);
/// Files that were replaced are deleted after a week.
const PAST_TRAVEL: Duration = Duration::from_hours(8 * 24);

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct HistorySize {
    /// Statements that are collected.
    pub statements: u32,
    /// Ticks of the day, five minutes apart.
    pub ticks: u32,
    /// Branches in each tick.
    pub branches: u32,
    /// Days that the question is about.
    pub days: u32,
}

impl Default for HistorySize {
    fn default() -> Self {
        Self { statements: 5_000, ticks: 288, branches: 50, days: 90 }
    }
}

/// One collection, from its start until its rows are in Delta.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CollectionFigure {
    /// Rows of statements that it appended.
    pub rows: u64,
    /// The first one, in milliseconds.
    pub cold_ms: u64,
    /// The fastest of three later ones.
    pub warm_ms: u64,
    /// Commits that each made to the table of statements.
    pub commits: u64,
    /// Bytes of the journal after all four.
    pub journal_bytes: u64,
}

/// A day of ticks, and what upkeep makes of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DayFigure {
    /// Ticks.
    pub ticks: u32,
    /// Rows of the day.
    pub rows: u64,
    /// The median append of the first tenth of the ticks, in milliseconds.
    pub first_append_ms: u64,
    /// The same of the last tenth.
    pub last_append_ms: u64,
    /// Live files at the end of the day.
    pub files: u64,
    /// Live files after upkeep.
    pub files_after: u64,
    /// Bytes of live files at the end of the day.
    pub bytes: u64,
    /// And after upkeep.
    pub bytes_after: u64,
    /// Files on disk, log included, at the end of the day.
    pub on_disk: u64,
    /// And after upkeep, when time travel no longer needs what was merged.
    pub on_disk_after: u64,
    /// How long upkeep took, in milliseconds.
    pub upkeep_ms: u64,
    /// Bytes of the journal at the end of the day.
    pub journal_bytes: u64,
}

/// A question about many days.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct QueryFigure {
    /// Days.
    pub days: u32,
    /// Rows of the table.
    pub rows: u64,
    /// Live files of the table.
    pub files: u64,
    /// The first answer, in milliseconds.
    pub first_ms: u64,
    /// The median of five further ones.
    pub median_ms: u64,
}

/// All figures of one call.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct HistoryReport {
    /// A collection.
    pub collection: CollectionFigure,
    /// A day of ticks.
    pub day: DayFigure,
    /// A question.
    pub query: QueryFigure,
    /// The most memory that the process had until the end of the day's upkeep, in bytes, where the system
    /// says so.
    pub peak_memory_bytes: Option<u64>,
    /// Whether the program was built without optimisation: its figures then say little.
    pub debug_build: bool,
}

/// What is measured with.
pub struct HistoryBench<'a> {
    /// A directory that is the benchmark's own.
    pub dir: &'a Path,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Identifiers.
    pub ids: Arc<dyn IdSource>,
    /// How much.
    pub size: HistorySize,
}

impl HistoryBench<'_> {
    /// Measures. `plan` persists statements; `endpoint` is a server that keeps enough of them.
    pub async fn measure(
        &self,
        endpoint: PgEndpoint,
        plan: &Plan,
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<HistoryReport, BenchError> {
        tell("a collection of statements");
        let collection = self.collection(endpoint, plan).await?;
        tell("a day of ticks");
        let day = self.day().await?;
        // Before the days are made up: that holds a whole one in memory.
        let peak_memory_bytes = peak_memory("self");
        tell("a question about many days");
        let query = self.query(tell).await?;
        let debug_build = cfg!(debug_assertions);
        Ok(HistoryReport { collection, day, query, peak_memory_bytes, debug_build })
    }

    fn writer(
        &self,
        name: &str,
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
    ) -> Result<HistoryWriter, BenchError> {
        let state = self.dir.join(name);
        make_folder(&state)?;
        let kill: Arc<dyn KillPoints> = Arc::new(Unarmed);
        Ok(HistoryWriter::new(self.location(name)?, journal, &state, (clock, kill)))
    }

    fn location(&self, name: &str) -> Result<Location, BenchError> {
        Ok(Location::folder(&self.dir.join(name).join("history"))?)
    }

    fn millis_since(&self, start: Timestamp) -> u64 {
        u64::try_from(self.clock.now().since(start).as_millis()).unwrap_or(u64::MAX)
    }

    async fn collection(
        &self,
        endpoint: PgEndpoint,
        plan: &Plan,
    ) -> Result<CollectionFigure, BenchError> {
        let mut session = PgConnection::connect_with(endpoint.options()).await?;
        session.execute("create extension if not exists pg_stat_statements").await?;
        let columns: Vec<String> = (0..100).map(|n| format!("c{n} int")).collect();
        let table = format!("create table bench ({})", columns.join(", "));
        session.execute(AssertSqlSafe(table)).await?;
        let engine = self.engine(endpoint)?;
        let mut took = Vec::new();
        for _ in 0..4 {
            self.work(&mut session).await?;
            let start = self.clock.now();
            run(engine.clone(), plan.clone()).await?;
            took.push(self.millis_since(start));
        }
        drop(engine);
        let journal_bytes = journal_bytes(&self.dir.join("collection"));
        let location = self.location("collection")?;
        let counted =
            "select count(*) as rows, count(distinct run_id) as runs from pg_stat_history";
        let answer = history::answer(&location, &Query::new(counted), &[], None).await?.rows()?;
        let number = |name: &str| answer.first().and_then(|row| row[name].as_u64()).unwrap_or(0);
        let runs = number("runs").max(1);
        let facts = history::facts(&location).await?;
        let version = facts.iter().find(|facts| facts.table.name == STATEMENTS);
        let commits = version.and_then(|facts| facts.version).unwrap_or(0);
        let (cold, warm) = took.split_first().unwrap_or((&0, &[]));
        Ok(CollectionFigure {
            rows: number("rows") / runs,
            cold_ms: *cold,
            warm_ms: warm.iter().copied().min().unwrap_or(0),
            commits: commits / runs,
            journal_bytes,
        })
    }

    /// Calls every statement once.
    async fn work(&self, session: &mut PgConnection) -> Result<(), BenchError> {
        let statement = |n: u32| format!("select c{}, c{} from bench", n / 100 % 100, n % 100);
        let all: Vec<String> = (0..self.size.statements).map(statement).collect();
        for batch in all.chunks(500) {
            session.execute(sqlx::raw_sql(AssertSqlSafe(batch.join(";")))).await?;
        }
        Ok(())
    }

    fn engine(&self, endpoint: PgEndpoint) -> Result<Engine, BenchError> {
        let state = self.dir.join("collection");
        make_folder(&state)?;
        let journal = SqliteJournal::open(&state, Arc::clone(&self.clock), Redactor::default())?;
        let kept = Arc::<SqliteJournal>::clone(&journal);
        let writer = self.writer("collection", kept, Arc::clone(&self.clock))?;
        let outside = (Arc::clone(&self.clock), Arc::clone(&self.ids));
        let at = (state.as_path(), journal);
        Ok(engine(at, outside, Arc::new(endpoint), Some(Arc::new(writer))))
    }

    async fn day(&self) -> Result<DayFigure, BenchError> {
        let state = self.dir.join("day");
        make_folder(&state)?;
        let journal: Arc<dyn Journal> =
            SqliteJournal::open(&state, Arc::clone(&self.clock), Redactor::default())?;
        let writer = self.writer("day", Arc::clone(&journal), Arc::clone(&self.clock))?;
        let begin = self.clock.now();
        let (mut took, mut rows) = (Vec::new(), 0_u64);
        for tick in 0..self.size.ticks {
            let at = begin.plus(FIVE_MINUTES * tick);
            let made = self.tick(at, 10);
            rows += u64::try_from(made.len()).unwrap_or(0);
            record(journal.as_ref(), &format!("{tick:016x}"), made).await?;
            let start = self.clock.now();
            writer.append_owed().await?;
            took.push(self.millis_since(start));
        }
        let before = totals(&writer.stored().await.map_err(BenchError::History)?);
        let on_disk = files_below(&state.join("history"));
        let journal_bytes = journal_bytes(&state);
        let start = self.clock.now();
        upkeep(&writer).await?;
        let upkeep_ms = self.millis_since(start);
        // A week later, what was merged away is deleted.
        let ahead: Arc<dyn Clock> = Arc::new(Ahead(Arc::clone(&self.clock)));
        let later = self.writer("day", journal, ahead)?;
        upkeep(&later).await?;
        let after = totals(&later.stored().await.map_err(BenchError::History)?);
        let tenth = took.len().div_ceil(10);
        Ok(DayFigure {
            ticks: self.size.ticks,
            rows,
            first_append_ms: median(took.get(..tenth).unwrap_or_default()),
            last_append_ms: median(took.get(took.len() - tenth..).unwrap_or_default()),
            files: before.0,
            files_after: after.0,
            bytes: before.1,
            bytes_after: after.1,
            on_disk,
            on_disk_after: files_below(&state.join("history")),
            upkeep_ms,
            journal_bytes,
        })
    }

    /// Rows of all branches at one moment: so many metrics and statements of each.
    fn tick(&self, at: Timestamp, each: u32) -> Vec<HistoryRow> {
        let mut rows = Vec::new();
        for branch in 0..self.size.branches {
            for n in 0..each {
                rows.push(metric_row(at, branch, n));
                rows.push(statement_row(at, branch, n));
            }
        }
        rows
    }

    async fn query(&self, tell: &(dyn Fn(&str) + Sync)) -> Result<QueryFigure, BenchError> {
        let today = self.clock.now();
        let first = Timestamp::from_millis(
            today.as_millis() - i64::from(self.size.days) * 24 * 3_600 * 1_000,
        );
        for day in 0..self.size.days {
            if day % 10 == 0 {
                tell(&format!("a question about many days: day {day} of {}", self.size.days));
            }
            // A journal for each day: the rows of a day are appended in one commit, as upkeep leaves them.
            let journal: Arc<dyn Journal> =
                Arc::new(MemoryJournal::new(Arc::clone(&self.clock), Redactor::default()));
            let mut rows = Vec::new();
            for tick in 0..288 {
                let at = first.plus(A_DAY * day).plus(FIVE_MINUTES * tick);
                for branch in 0..self.size.branches {
                    rows.extend((0..5).map(|n| metric_row(at, branch, n)));
                }
            }
            record(journal.as_ref(), &format!("{day:016x}"), rows).await?;
            let writer = self.writer("days", journal, Arc::clone(&self.clock))?;
            writer.append_owed().await?;
        }
        let location = self.location("days")?;
        let text = "select day, avg(metric_value) as mean, max(metric_value) as most \
                    from lakebase_metrics where branch_id = 'branch-7' and metric_name = 'metric_3' \
                    group by day order by day";
        let mut took = Vec::new();
        for _ in 0..6 {
            let start = self.clock.now();
            history::answer(&location, &Query::new(text), &[], None).await?.rows()?;
            took.push(self.millis_since(start));
        }
        let facts = history::facts(&location).await?;
        let facts = facts.iter().find(|facts| facts.table.name == METRICS);
        Ok(QueryFigure {
            days: self.size.days,
            rows: facts.and_then(|facts| facts.rows).unwrap_or(0),
            files: facts.and_then(|facts| facts.files).unwrap_or(0),
            first_ms: took.first().copied().unwrap_or(0),
            median_ms: median(took.get(1..).unwrap_or_default()),
        })
    }
}

/// A clock of the week after.
struct Ahead(Arc<dyn Clock>);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.0.now().plus(PAST_TRAVEL)
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        self.0.sleep_until(at)
    }
}

fn metric_row(at: Timestamp, branch: u32, n: u32) -> HistoryRow {
    let row = json!({
        "project_id": "bench", "branch_id": format!("branch-{branch}"),
        "metric_name": format!("metric_{n}"), "metric_value": f64::from(branch * 7 + n) / 3.0,
        "threshold_level": "normal", "snapshot_timestamp": at,
    });
    HistoryRow { table: METRICS.to_owned(), row }
}

fn statement_row(at: Timestamp, branch: u32, n: u32) -> HistoryRow {
    let calls = at.as_millis() / 300_000 + i64::from(n);
    let row = json!({
        "project_id": "bench", "branch_id": format!("branch-{branch}"), "dbid": 5, "userid": 10,
        "toplevel": true, "queryid": i64::from(n) * 7_919, "calls": calls, "calls_delta": n,
        "total_exec_time": calls * 3, "total_exec_time_delta": 3, "rows": calls, "window_seconds": 300.0,
        "shared_blks_hit": calls * 11, "shared_blks_hit_delta": 11, "epoch_id": "bench",
        "snapshot_timestamp": at,
    });
    HistoryRow { table: STATEMENTS.to_owned(), row }
}

/// A run that is over, with these rows.
async fn record(journal: &dyn Journal, id: &str, rows: Vec<HistoryRow>) -> Result<(), BenchError> {
    let step = "collect".to_owned();
    let events = vec![
        run_created(Digest::of_bytes(id.as_bytes())),
        Event::RunClaimed { by: nobody(), pid: std::process::id() },
        Event::AttemptStarted { step: step.clone(), attempt: 1, arguments: json!({}) },
        Event::StepSucceeded {
            step,
            output: json!({}).into(),
            history: rows.into(),
            seen: Vec::new(),
            fact: None,
        },
        Event::RunFinished {
            outcome: Outcome::Succeeded,
            compensation: Compensation::None,
            outputs: json!({}),
        },
    ];
    let stream = Stream::Run(RunId::new(id));
    let append = Append { stream, expect: Expect::Anything, events };
    journal.append(vec![append], Durability::Synced).await?;
    Ok(())
}

/// Merges and cleans every table.
async fn upkeep(writer: &HistoryWriter) -> Result<(), BenchError> {
    for table in writer.stored().await.map_err(BenchError::History)? {
        for work in [Work::Compact, Work::Clean] {
            let upkeep = Upkeep { table: table.name.clone(), work };
            History::upkeep(writer, &upkeep).await.map_err(BenchError::History)?;
        }
    }
    Ok(())
}

/// Live files and their bytes.
fn totals(stored: &[StoredTable]) -> (u64, u64) {
    stored.iter().fold((0, 0), |sum, table| (sum.0 + table.files, sum.1 + table.bytes))
}

/// The bytes of the journal's files in a state directory.
fn journal_bytes(state: &Path) -> u64 {
    let entries = std::fs::read_dir(state).into_iter().flatten().flatten();
    let is_ours = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("journal.db");
    let ours = entries.filter(|entry| is_ours(&entry.file_name()));
    ours.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}

fn files_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let count = |path: std::path::PathBuf| if path.is_dir() { files_below(&path) } else { 1 };
    entries.flatten().map(|entry| count(entry.path())).sum()
}

fn median(of: &[u64]) -> u64 {
    let mut sorted = of.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}
