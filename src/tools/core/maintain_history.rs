//! Looks after the tables of the history: old rows go, small files are merged, old files are deleted.
//!
//! Reads: which files, days and log entries each table has.
//! Changes: for each table what it needs of three things. *Expire* removes the days past their retention
//! (`[history] keep_measurements`, `keep_audit`). *Compact* merges the small files of a day. *Clean*
//! writes a checkpoint and deletes what only versions older than 7 days need: so far time travel reaches.
//! Undo: merged files need none; rows that expired are gone once they are cleaned away.

use chrono::{Days, NaiveDate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::kernel::upkeep::Work;
use crate::kernel::{
    ByteSize, Change, ChangeSet, Failure, Inverse, Operation, Risk, Span, Timestamp, Upkeep,
};
use crate::tools::context::{FOREVER, ReadContext, StoredTable};
use crate::tools::tool::{AnyTool, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(MaintainHistory));

/// So many versions since the newest checkpoint make opening a table slow.
const MOST_VERSIONS: u64 = 50;

/// Large tables take minutes.
const PATIENCE: Span = Span::from_secs(3_600);

struct MaintainHistory;

/// What is done.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The tables; by default all.
    #[serde(default)]
    tables: Vec<String>,
    /// Whether days past their retention are removed.
    #[serde(default = "yes")]
    expire: bool,
    /// Whether small files are merged.
    #[serde(default = "yes")]
    compact: bool,
    /// Whether checkpoints are written and files deleted that no version needs.
    #[serde(default = "yes")]
    clean: bool,
    /// How long rows are kept, instead of what the configuration says.
    #[serde(default)]
    keep: Option<Span>,
    /// A table is merged when it has at least so many files to merge.
    #[serde(default = "two")]
    min_files: u64,
}

const fn yes() -> bool {
    true
}

const fn two() -> u64 {
    2
}

/// What was done.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct Output {
    /// Each table that something was done to.
    tables: Vec<Tidied>,
    /// Rows that were removed as too old.
    rows_expired: u64,
    /// Files that the tables consisted of before.
    files_before: u64,
    /// And after.
    files_after: u64,
    /// Bytes before.
    bytes_before: u64,
    /// And after.
    bytes_after: u64,
    /// Files that were deleted for good.
    files_deleted: u64,
    /// Log entries that were deleted.
    log_entries_deleted: u64,
}

/// What was done to one table.
#[derive(Debug, Serialize, JsonSchema)]
struct Tidied {
    /// The table.
    table: String,
    /// What was done, in order.
    work: Vec<String>,
    /// Rows before and after.
    rows: (u64, u64),
    /// Files before and after.
    files: (u64, u64),
    /// Bytes before and after.
    bytes: (u64, u64),
}

impl WriteTool for MaintainHistory {
    const META: ToolMeta = ToolMeta {
        name: "maintain_history",
        family: Family::Core,
        risk: Risk::Low,
        revision: 1,
        summary: "Expires old rows of the history, merges and deletes files",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let stored = cx.history()?.stored().await?;
        judge(&stored, &params, cx.clock.now())
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let mut output = Output::default();
        for one in settled {
            if let Some(receipt) = one.receipt()
                && let Ok(done) = serde_json::from_value(receipt.result.clone())
            {
                output.add(one.change, &done);
            }
        }
        for table in &output.tables {
            output.files_before += table.files.0;
            output.files_after += table.files.1;
            output.bytes_before += table.bytes.0;
            output.bytes_after += table.bytes.1;
        }
        output
    }
}

/// What upkeep says of itself.
#[derive(Deserialize)]
struct Done {
    rows_before: u64,
    rows_after: u64,
    files_before: u64,
    files_after: u64,
    bytes_before: u64,
    bytes_after: u64,
    files_deleted: u64,
    log_entries_deleted: u64,
}

impl Output {
    fn add(&mut self, change: &Change, done: &Done) {
        let Operation::History(upkeep) = &change.operation else { return };
        let expires = matches!(upkeep.work, Work::Expire { .. });
        self.rows_expired +=
            if expires { done.rows_before.saturating_sub(done.rows_after) } else { 0 };
        self.files_deleted += done.files_deleted;
        self.log_entries_deleted += done.log_entries_deleted;
        let word = match upkeep.work {
            Work::Expire { .. } => "expire",
            Work::Compact => "compact",
            Work::Clean => "clean",
        };
        match self.tables.iter_mut().find(|table| table.table == upkeep.table) {
            Some(table) => {
                table.work.push(word.to_owned());
                table.rows.1 = done.rows_after;
                table.files.1 = done.files_after;
                table.bytes.1 = done.bytes_after;
            }
            None => self.tables.push(Tidied {
                table: upkeep.table.clone(),
                work: vec![word.to_owned()],
                rows: (done.rows_before, done.rows_after),
                files: (done.files_before, done.files_after),
                bytes: (done.bytes_before, done.bytes_after),
            }),
        }
    }
}

fn judge(stored: &[StoredTable], params: &Params, now: Timestamp) -> Result<ChangeSet, Failure> {
    let known = |name: &String| stored.iter().any(|table| table.name == *name);
    if let Some(unknown) = params.tables.iter().find(|name| !known(name)) {
        let text = format!("nothing was ever written to a table `{unknown}` of the history");
        return Err(Failure::permanent("maintain_history::no_table", text)
            .with_help("`lakeops history tables` lists them"));
    }
    let wanted =
        |table: &&StoredTable| params.tables.is_empty() || params.tables.contains(&table.name);
    let mut changes = Vec::new();
    for table in stored.iter().filter(wanted) {
        // What is kept for good is the only copy there is: nobody can say otherwise.
        let keep = params.keep.filter(|_| table.keep != FOREVER).unwrap_or(table.keep);
        let first = first_day(now, keep);
        let expires = params.expire && table.oldest_day.is_some_and(|oldest| oldest < first);
        if expires {
            changes.push(expire(table, first, keep));
        }
        let merges = params.compact && table.mergeable_files >= params.min_files.max(2);
        if merges {
            let why = format!("{} small files share their day with others", table.mergeable_files);
            changes.push(change(table, Work::Compact, why));
        }
        let stale = table.stale_files + table.stale_log_entries;
        let is_long = table.versions_since_checkpoint >= MOST_VERSIONS;
        if params.clean && (expires || merges || stale > 0 || is_long) {
            let why = format!(
                "{} files and {} log entries are needed by no version, {} versions came after the \
                 newest checkpoint",
                table.stale_files, table.stale_log_entries, table.versions_since_checkpoint
            );
            changes.push(change(table, Work::Clean, why));
        }
    }
    Ok(ChangeSet::new(changes))
}

/// The first day of which every moment may still be within the retention.
fn first_day(now: Timestamp, keep: Span) -> NaiveDate {
    let today = now.to_datetime().date_naive();
    today.checked_sub_days(Days::new(keep.0.as_secs() / 86_400)).unwrap_or(NaiveDate::MIN)
}

fn expire(table: &StoredTable, first: NaiveDate, keep: Span) -> Change {
    let oldest = table.oldest_day.map(|day| day.to_string()).unwrap_or_default();
    let why = format!("its oldest rows are of {oldest}, and rows are kept for {keep}");
    let mut change = change(table, Work::Expire { before: first }, why);
    change.inverse = Inverse::Impossible {
        why: "rows past their retention do not come back; older versions show them for 7 days"
            .to_owned(),
    };
    change
}

fn change(table: &StoredTable, work: Work, why: String) -> Change {
    let upkeep = Upkeep { table: table.name.clone(), work };
    let mut change = Change::new(table.name.clone(), why, Operation::History(upkeep));
    change.independent = true;
    change.statement_timeout = Some(PATIENCE);
    change.facts = json!({
        "rows": table.rows,
        "files": table.files,
        "size": ByteSize(table.bytes).to_string(),
    });
    change
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Receipt, Settlement};

    fn table(change: impl FnOnce(&mut StoredTable)) -> StoredTable {
        let mut table = StoredTable {
            name: "table_stats".to_owned(),
            keep: Span::from_secs(90 * 86_400),
            rows: 100,
            files: 1,
            bytes: 1000,
            oldest_day: NaiveDate::from_ymd_opt(2026, 11, 1),
            mergeable_files: 0,
            stale_files: 0,
            stale_log_entries: 0,
            versions_since_checkpoint: 3,
        };
        change(&mut table);
        table
    }

    fn params(text: &str) -> Params {
        serde_json::from_str(text).unwrap()
    }

    fn proposed(table: StoredTable, text: &str) -> Vec<String> {
        let now = Timestamp::parse("2026-11-22T10:00:00Z").unwrap();
        let set = judge(&[table], &params(text), now).unwrap();
        set.changes.iter().map(|change| change.operation.to_string()).collect()
    }

    #[test]
    fn a_table_gets_what_it_needs() {
        assert!(proposed(table(|_| ()), "{}").is_empty());
        let old = || table(|t| t.oldest_day = NaiveDate::from_ymd_opt(2026, 8, 23));
        let told = proposed(old(), "{}");
        assert_eq!(told[0], "expire table_stats: rows of days before 2026-08-24");
        assert_eq!(told.len(), 2, "what expired is cleaned away");
        assert!(proposed(old(), r#"{"expire": false}"#).is_empty());
        assert_eq!(proposed(table(|_| ()), r#"{"keep": "1d", "clean": false}"#).len(), 1);
        let many = || table(|t| t.mergeable_files = 9);
        assert!(proposed(many(), "{}")[0].starts_with("compact"));
        assert!(proposed(many(), r#"{"min_files": 10}"#).is_empty());
        assert!(proposed(table(|t| t.stale_files = 1), "{}")[0].starts_with("clean"));
        assert!(proposed(table(|t| t.versions_since_checkpoint = 50), "{}").len() == 1);
        let now = Timestamp::default();
        let told = judge(&[table(|_| ())], &params(r#"{"tables": ["x"]}"#), now).unwrap_err();
        assert_eq!(told.code, "maintain_history::no_table");
    }

    #[test]
    fn a_report_follows_each_table_from_first_to_last() {
        let of = |work| change(&table(|_| ()), work, String::new());
        let first = NaiveDate::default();
        let changes = [of(Work::Expire { before: first }), of(Work::Compact), of(Work::Clean)];
        let numbers = [(100, 60, 9, 6), (60, 60, 6, 1), (60, 60, 1, 1)];
        let settlements = numbers.map(|(rows, rows_after, files, files_after)| {
            let result = json!({
                "rows_before": rows, "rows_after": rows_after, "files_before": files,
                "files_after": files_after, "bytes_before": 10, "bytes_after": 5,
                "files_deleted": 2, "log_entries_deleted": 0,
            });
            Settlement::Applied { receipt: Receipt { result, ..Receipt::default() } }
        });
        let settled: Vec<Settled<'_>> = changes
            .iter()
            .zip(&settlements)
            .map(|(change, settlement)| Settled { change, settlement: Some(settlement) })
            .collect();
        let output = MaintainHistory.report(&settled);
        assert_eq!((output.rows_expired, output.files_deleted), (40, 6));
        assert_eq!((output.files_before, output.files_after), (9, 1));
        assert_eq!(output.tables[0].work, ["expire", "compact", "clean"]);
        assert_eq!(output.tables[0].rows, (100, 60));
    }
}
