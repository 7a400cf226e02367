//! Keeps what every statement has cost: all counters of `pg_stat_statements`, and what they grew by.
//!
//! The extension keeps its counters in memory and loses them: at a reset, on Lakebase whenever a compute
//! is suspended, elsewhere in a crash. So each run compares with the one before, within one *epoch* of the
//! counters only: a reset, a restart or another server gives rows without growth, never a negative one.
//! Statements that did nothing since the run before get no row, except in the first run of a day, so that
//! every day can be read by itself. Texts are kept once, in `query_texts`, without their string literals.
//!
//! Known weakness: "nobody but us was active" is judged by the user of a statement. Others who connect as
//! our user cannot be told from us, and neither can those whose statements are hidden from us. A compute
//! that only they use is then left alone for a while: runs lie further apart, and no figure is wrong. So
//! give lakeops a role of its own, with `pg_read_all_stats`.
//!
//! Reads: `pg_stat_statements`, `pg_stat_statements_info`.
//! Changes: nothing.
//! Undo: nothing to undo.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::kernel::{Bind, ByteSize, Digest, Failure, Query, Risk, Span, SqlFile, Timestamp};
use crate::sql_file;
use crate::tools::analysis::counters::{Baseline, Grown, Look, Row, grown};
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::analysis::number::rounded;
use crate::tools::analysis::text::without_literals;
use crate::tools::collection::{Status, is_suspended, keep_quiet};
use crate::tools::context::ReadContext;
use crate::tools::statements_state::{EXTENSION, INFO, Info, Statements};
use crate::tools::tool::{AnyTool, Family, HistoryRow, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(PersistPgStatStatements));

static SAMPLE_14: SqlFile = sql_file!("performance/persist_pg_stat_statements.sample14");
static SAMPLE_15: SqlFile = sql_file!("performance/persist_pg_stat_statements.sample15");
static SAMPLE_17: SqlFile = sql_file!("performance/persist_pg_stat_statements.sample17");
static SAMPLE_18: SqlFile = sql_file!("performance/persist_pg_stat_statements.sample18");
static TEXTS: SqlFile = sql_file!("performance/persist_pg_stat_statements.texts");

/// How many of the costliest statements the output lists.
const LISTED: usize = 10;
/// How much of a text the output shows.
const SHOWN: usize = 120;

struct PersistPgStatStatements;

/// What is kept.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Keeps a row also of every statement that did nothing.
    #[serde(default)]
    all: bool,
    /// Longer texts are cut.
    #[serde(default = "sixteen_kib")]
    max_text: ByteSize,
    /// After how long without activity the compute is suspended; `0s`: never. For so long it is left alone
    /// when nobody but us was active on it.
    #[serde(default = "five_minutes")]
    suspend_after: Span,
}

const fn five_minutes() -> Span {
    Span::from_secs(300)
}

const fn sixteen_kib() -> ByteSize {
    ByteSize(16 << 10)
}

/// What was kept.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct Output {
    /// Whether anything was read.
    status: Status,
    /// Why not, when not.
    reason: Option<String>,
    /// Names the rows of this run in the history.
    snapshot_id: Option<String>,
    /// When, by the server's clock.
    at: Option<Timestamp>,
    /// The epoch of the counters.
    epoch: Option<String>,
    /// How many statements there are.
    statements: u64,
    /// How many rows were kept.
    records: u64,
    /// How many statements did nothing.
    unchanged: u64,
    /// How many began anew since the run before: forgotten and seen again, or reset alone.
    restarted: u64,
    /// How many texts were kept for the first time.
    new_texts: u64,
    /// The time since the run before; absent when there is nothing to compare with.
    window_seconds: Option<f64>,
    /// Why there is nothing to compare with.
    no_window: Option<String>,
    /// How often statements were forgotten, since the counters began.
    dealloc: u64,
    /// The statements that took most time in the window, or since the counters began.
    top: Vec<Top>,
    /// Whether somebody else was active in the window; absent when that cannot be told.
    others_active: Option<bool>,
    /// What the next run goes on from.
    #[schemars(skip)]
    baseline: Baseline,
    /// What could not be measured.
    not_measured: Vec<NotMeasured>,
    /// The rows themselves: they go into the history, not into the output.
    #[serde(skip)]
    #[schemars(skip)]
    rows: Vec<HistoryRow>,
}

/// A costly statement.
#[derive(Debug, Serialize, JsonSchema)]
struct Top {
    /// Its fingerprint.
    queryid: i64,
    /// The beginning of its text; absent when it is hidden.
    query: Option<String>,
    /// How often it was called.
    calls: f64,
    /// How long it ran, in milliseconds.
    total_ms: f64,
    /// Its share of the time of all statements.
    share: f64,
}

impl ReadTool for PersistPgStatStatements {
    const META: ToolMeta = ToolMeta {
        name: "persist_pg_stat_statements",
        family: Family::Performance,
        risk: Risk::Low,
        revision: 1,
        summary: "Keeps the counters of all statements, and what they grew by",
        sql: &[&EXTENSION, &INFO, &SAMPLE_14, &SAMPLE_15, &SAMPLE_17, &SAMPLE_18, &TEXTS],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;
    const EARLIER: u32 = 1;
    const CARRIED: &'static [&'static str] = &["baseline"];

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let before = cx.earlier.first().and_then(Before::of).unwrap_or_default();
        let (active, at) = (before.others_active, before.baseline.at);
        if let Some(why) = keep_quiet(cx, active, at, params.suspend_after) {
            return Ok(before.skipped(why));
        }
        match collect(cx, &params, &before).await {
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
    baseline: Baseline,
    others_active: Option<bool>,
}

impl Before {
    fn of(output: &Value) -> Option<Self> {
        serde_json::from_value(output.clone()).ok()
    }

    /// Nothing was read; the next run goes on from where this one would have.
    fn skipped(&self, why: String) -> Output {
        Output {
            status: Status::Skipped,
            reason: Some(why),
            others_active: self.others_active,
            baseline: self.baseline.clone(),
            ..Output::default()
        }
    }
}

async fn collect(
    cx: &ReadContext<'_>,
    params: &Params,
    before: &Before,
) -> Result<Output, Failure> {
    let statements = match Statements::find(cx).await? {
        Ok(statements) => statements,
        Err(missing) => {
            return Ok(Output {
                status: Status::NotMeasured,
                reason: Some(missing.why.clone()),
                not_measured: vec![missing],
                ..Output::default()
            });
        }
    };
    let info = statements.info(cx).await?;
    let server = cx.pg.server().await?;
    let file = sample_file(server.version_num);
    let rows: Vec<Map<String, Value>> = statements.rows(cx, file, Vec::new()).await?;
    let epoch = info.epoch(server.place());
    let count = rows.len();
    let look = Look { at: info.at, epoch: epoch.clone(), statements: rows };
    let same_day =
        |at: Timestamp| at.to_datetime().date_naive() == info.at.to_datetime().date_naive();
    let all = params.all || !before.baseline.at.is_some_and(same_day);
    let seen = grown(Some(&before.baseline), look, all);
    let top = costliest(&seen);
    let wanted: BTreeSet<i64> = seen
        .rows
        .iter()
        .filter(|row| !row.known)
        .map(|row| row.key.queryid)
        .chain(top.iter().map(|row| row.key.queryid))
        .collect();
    let texts = texts(cx, &statements, wanted, params.max_text).await?;
    let known = known_texts(cx, &seen, &texts).await?;
    let no_window = seen.window_seconds.is_none().then(|| no_window(&before.baseline, &epoch));
    let mut output = Output {
        snapshot_id: Some(format!("{epoch}-{}", info.at.as_millis())),
        at: Some(info.at),
        statements: u64::try_from(count).unwrap_or(u64::MAX),
        records: u64::try_from(seen.rows.len()).unwrap_or(u64::MAX),
        unchanged: seen.unchanged,
        restarted: seen.restarted,
        window_seconds: seen.window_seconds.map(rounded),
        no_window,
        dealloc: info.dealloc,
        top: top.iter().map(|row| shown(row, &seen, &texts)).collect(),
        others_active: others_active(&seen, &server.user),
        not_measured: info.hidden().into_iter().collect(),
        epoch: Some(epoch),
        ..Output::default()
    };
    output.rows = text_rows(&texts, &known, info.at);
    output.new_texts = u64::try_from(output.rows.len()).unwrap_or(u64::MAX);
    let common = common(&output, &info);
    output.rows.extend(seen.rows.into_iter().map(|row| history_row(row, &common)));
    output.baseline = seen.baseline;
    Ok(output)
}

/// The columns of the view moved between versions.
fn sample_file(version_num: u32) -> &'static SqlFile {
    match version_num {
        180_000.. => &SAMPLE_18,
        170_000.. => &SAMPLE_17,
        150_000.. => &SAMPLE_15,
        _ => &SAMPLE_14,
    }
}

fn no_window(before: &Baseline, epoch: &str) -> String {
    if before.at.is_none() {
        return "no run before this one".to_owned();
    }
    if before.epoch != epoch {
        return "the counters were reset, or are those of another server or start".to_owned();
    }
    "the server's clock did not go forward".to_owned()
}

fn time_of(row: &Row) -> f64 {
    let total = || row.columns.get("total_exec_time").and_then(Value::as_f64).unwrap_or(0.0);
    row.exec_time_grown.unwrap_or_else(total)
}

fn costliest(seen: &Grown) -> Vec<&Row> {
    let mut rows: Vec<&Row> = seen.rows.iter().filter(|row| time_of(row) > 0.0).collect();
    rows.sort_by(|a, b| time_of(b).total_cmp(&time_of(a)));
    rows.truncate(LISTED);
    rows
}

fn shown(row: &Row, seen: &Grown, texts: &Texts) -> Top {
    let whole: f64 = seen.rows.iter().map(time_of).sum();
    let calls = || row.columns.get("calls").and_then(Value::as_f64).unwrap_or(0.0);
    let text = texts.get(&(row.key.queryid, row.key.dbid));
    Top {
        queryid: row.key.queryid,
        query: text.map(|text| text.chars().take(SHOWN).collect()),
        calls: row.calls_grown.unwrap_or_else(calls),
        total_ms: rounded(time_of(row)),
        share: rounded(time_of(row) / whole.max(f64::MIN_POSITIVE)),
    }
}

/// Whether a statement of another user grew. Under our own name nobody can be told from us.
fn others_active(seen: &Grown, us: &str) -> Option<bool> {
    seen.window_seconds?;
    let grew = |row: &&Row| row.calls_grown.is_some_and(|calls| calls > 0.0);
    let other = |row: &Row| row.columns.get("user_name").and_then(Value::as_str) != Some(us);
    Some(seen.rows.iter().filter(grew).any(other))
}

/// Texts by fingerprint and database.
type Texts = BTreeMap<(i64, i64), String>;

#[derive(Deserialize)]
struct Text {
    queryid: i64,
    dbid: i64,
    query: String,
}

async fn texts(
    cx: &ReadContext<'_>,
    statements: &Statements,
    wanted: BTreeSet<i64>,
    longest: ByteSize,
) -> Result<Texts, Failure> {
    if wanted.is_empty() {
        return Ok(Texts::new());
    }
    let binds = vec![Bind::IntArray(wanted.into_iter().collect())];
    let found: Vec<Text> = statements.rows(cx, &TEXTS, binds).await?;
    let longest = usize::try_from(longest.0).unwrap_or(usize::MAX);
    let text = |text: Text| {
        let mut masked = without_literals(&text.query);
        if masked.len() > longest {
            masked.truncate(masked.floor_char_boundary(longest));
            masked.push('…');
        }
        ((text.queryid, text.dbid), masked)
    };
    Ok(found.into_iter().map(text).collect())
}

/// Which texts need not be kept: the run before saw the statement, or the history has the text.
async fn known_texts(
    cx: &ReadContext<'_>,
    seen: &Grown,
    texts: &Texts,
) -> Result<BTreeSet<(i64, i64)>, Failure> {
    let fresh: BTreeSet<(i64, i64)> = seen
        .rows
        .iter()
        .filter(|row| !row.known)
        .map(|row| (row.key.queryid, row.key.dbid))
        .collect();
    let mut known: BTreeSet<(i64, i64)> =
        texts.keys().filter(|key| !fresh.contains(key)).copied().collect();
    let Some(history) = cx.history.filter(|_| !fresh.is_empty()) else { return Ok(known) };
    let ids: BTreeSet<i64> = fresh.iter().map(|(queryid, _)| *queryid).collect();
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let mut binds = Vec::new();
    let mut of = |column: &str, part: &Option<String>| match part {
        None => format!("{column} is null"),
        Some(part) => {
            binds.push(Bind::Text(part.clone()));
            format!("{column} = ${}", binds.len())
        }
    };
    let text = format!(
        "select distinct queryid, dbid from query_texts where {} and {} and queryid in ({})",
        of("project_id", &cx.target.project),
        of("branch_id", &cx.target.branch),
        ids.join(", ")
    );
    for row in history.query(&Query::with_binds(text, binds)).await? {
        if let (Some(queryid), Some(dbid)) = (row["queryid"].as_i64(), row["dbid"].as_i64()) {
            known.insert((queryid, dbid));
        }
    }
    Ok(known)
}

fn text_rows(texts: &Texts, known: &BTreeSet<(i64, i64)>, at: Timestamp) -> Vec<HistoryRow> {
    let new = texts.iter().filter(|(key, _)| !known.contains(key));
    let row = |((queryid, dbid), text): (&(i64, i64), &String)| HistoryRow {
        table: "query_texts".to_owned(),
        row: json!({
            "queryid": queryid,
            "dbid": dbid,
            "query_digest": Digest::of_bytes(text.as_bytes()),
            "query": text,
            "first_seen_at": at,
        }),
    };
    new.map(row).collect()
}

/// What all rows of a run share.
fn common(output: &Output, info: &Info) -> Vec<(&'static str, Value)> {
    vec![
        ("snapshot_id", json!(output.snapshot_id)),
        ("window_seconds", json!(output.window_seconds)),
        ("epoch_id", json!(output.epoch)),
        ("stats_reset", json!(info.stats_reset)),
        ("postmaster_start", json!(info.postmaster_start)),
        ("snapshot_timestamp", json!(info.at)),
    ]
}

fn history_row(row: Row, common: &[(&'static str, Value)]) -> HistoryRow {
    let mut columns = row.columns;
    for (name, value) in common {
        columns.insert((*name).to_owned(), value.clone());
    }
    HistoryRow { table: "pg_stat_history".to_owned(), row: Value::Object(columns) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_its_file() {
        let name = |version| sample_file(version).name.rsplit('.').next().unwrap();
        let versions = [140_023, 150_018, 160_014, 170_010, 180_004, 190_000];
        let files = versions.map(name);
        assert_eq!(files, ["sample14", "sample15", "sample15", "sample17", "sample18", "sample18"]);
    }

    #[test]
    fn the_output_of_a_skipped_run_hands_the_baseline_on() {
        let baseline = Baseline {
            at: Some(Timestamp::from_millis(1_000)),
            epoch: "e".to_owned(),
            statements: Vec::new(),
        };
        let before = Before { baseline: baseline.clone(), others_active: Some(true) };
        let skipped = before.skipped("asleep".to_owned());
        let json = serde_json::to_value(&skipped).unwrap();
        assert_eq!((&json["status"], &json["reason"]), (&json!("skipped"), &json!("asleep")));
        assert!(PersistPgStatStatements.history(&skipped).is_empty());
        let next = Before::of(&json).unwrap();
        assert_eq!((next.baseline, next.others_active), (baseline, Some(true)));
    }
}
