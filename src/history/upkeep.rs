//! Upkeep of the tables: small files merged, old rows removed, old files and log entries deleted.
//!
//! Without it every tick of a collection adds a file to a table, and both queries and appends slow down
//! with the number of live files. All of it can be done again without harm.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::NaiveDate;
use deltalake::datafusion::common::ScalarValue;
use deltalake::datafusion::prelude::{col, lit};
use deltalake::operations::vacuum;
use deltalake::protocol::checkpoints;
use deltalake::{DeltaTable, ObjectStore as _};
use futures::TryStreamExt as _;
use serde::Serialize;

use super::delta::{self, Moment, TRAVEL_DAYS};
use super::error::HistoryError;
use super::location::Location;
use super::row::day_of;
use super::schema::{DAY, Kept, TableDef};
use super::tables::TABLES;
use crate::config::HistoryConfig;
use crate::kernel::upkeep::Work;
use crate::kernel::{Span, Timestamp};
use crate::tools::context::{FOREVER, StoredTable};

const DAY_MILLIS: i64 = 24 * 3600 * 1000;

/// Files below this size are merged: Delta's own aim for merged files.
const SMALL_FILE: i64 = 100 * 1024 * 1024;

/// How many partitions are merged at a time: each holds the files of one day in memory.
const AT_ONCE: usize = 2;

/// What upkeep did to a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Done {
    rows_before: u64,
    rows_after: u64,
    files_before: u64,
    files_after: u64,
    bytes_before: u64,
    bytes_after: u64,
    files_deleted: u64,
    log_entries_deleted: u64,
}

/// Does one kind of upkeep, and returns the table as it is then.
pub(super) async fn carry_out(
    stored: DeltaTable,
    name: &str,
    work: &Work,
    now: Timestamp,
) -> Result<(DeltaTable, Done), HistoryError> {
    let before = Live::of(&stored, name)?;
    let mut done = Done::default();
    let stored = match work {
        // Whatever asked for it: these rows are the only copies.
        Work::Expire { .. } if is_kept_for_good(name) => stored,
        Work::Expire { before: first } => expire(stored, name, *first, &before).await?,
        Work::Compact => compact(stored, name).await?,
        Work::Clean => clean(stored, name, now, &mut done).await?,
    };
    let after = Live::of(&stored, name)?;
    (done.rows_before, done.rows_after) = (before.rows, after.rows);
    (done.files_before, done.files_after) = (before.files, after.files);
    (done.bytes_before, done.bytes_after) = (before.bytes, after.bytes);
    Ok((stored, done))
}

async fn expire(
    stored: DeltaTable,
    name: &str,
    first: NaiveDate,
    live: &Live,
) -> Result<DeltaTable, HistoryError> {
    if live.oldest_day().is_none_or(|oldest| oldest >= first) {
        return Ok(stored);
    }
    // The days are partitions: whole files go, and none is read.
    let earlier = col(DAY).lt(lit(ScalarValue::Date32(Some(day_of(first)))));
    let failed = HistoryError::delta(name, "removing old days");
    let (stored, _) = stored.delete().with_predicate(earlier).await.map_err(failed)?;
    Ok(stored)
}

async fn compact(stored: DeltaTable, name: &str) -> Result<DeltaTable, HistoryError> {
    let failed = HistoryError::delta(name, "merging its files");
    let (stored, _) = stored.optimize().with_max_concurrent_tasks(AT_ONCE).await.map_err(failed)?;
    Ok(stored)
}

async fn clean(
    stored: DeltaTable,
    name: &str,
    now: Timestamp,
    done: &mut Done,
) -> Result<DeltaTable, HistoryError> {
    let failed = HistoryError::delta(name, "deleting files that no version needs");
    let clock = Arc::new(Fixed(now.as_millis()));
    let (stored, deleted) = stored.vacuum().with_clock(clock).await.map_err(failed)?;
    let log = Log::of(&stored, name).await?;
    let version = stored.version().unwrap_or(0);
    if log.checkpoint.is_none_or(|newest| newest < version) {
        let failed = HistoryError::delta(name, "writing a checkpoint");
        checkpoints::create_checkpoint(&stored, None).await.map_err(failed)?;
    }
    let log_store = stored.log_store();
    let oldest = travel_limit(now);
    let cleaned =
        checkpoints::cleanup_expired_logs_for(version, log_store.as_ref(), oldest, None).await;
    let cleaned = cleaned.map_err(HistoryError::delta(name, "deleting old log entries"))?;
    done.files_deleted = count(deleted.files_deleted.len());
    done.log_entries_deleted = count(cleaned);
    Ok(stored)
}

/// What is stored of every table that has been written to, and what there is to do about it.
pub(super) async fn stored(
    location: &Location,
    config: &HistoryConfig,
    now: Timestamp,
) -> Result<Vec<StoredTable>, HistoryError> {
    let mut all = Vec::new();
    for table in TABLES {
        if let Some(stored) = delta::open(location, table.name, Moment::Now).await? {
            all.push(look(stored, table, config, now).await?);
        }
    }
    Ok(all)
}

async fn look(
    stored: DeltaTable,
    table: &TableDef,
    config: &HistoryConfig,
    now: Timestamp,
) -> Result<StoredTable, HistoryError> {
    let name = table.name;
    let live = Live::of(&stored, name)?;
    let log = Log::of(&stored, name).await?;
    let version = stored.version().unwrap_or(0);
    let stale_log_entries = log.stale(version, travel_limit(now));
    let failed = HistoryError::delta(name, "looking for files that no version needs");
    let clock = Arc::new(Fixed(now.as_millis()));
    let stale = stored.vacuum().with_clock(clock).with_dry_run(true).await.map_err(failed)?.1;
    Ok(StoredTable {
        name: name.to_owned(),
        keep: kept(table, config),
        rows: live.rows,
        files: live.files,
        bytes: live.bytes,
        oldest_day: live.oldest_day(),
        mergeable_files: live.mergeable(),
        stale_files: count(stale.files_deleted.len()),
        stale_log_entries,
        versions_since_checkpoint: version - log.checkpoint.unwrap_or(0).min(version),
    })
}

fn is_kept_for_good(name: &str) -> bool {
    super::tables::find(name).is_some_and(|table| table.kept == Kept::Forever)
}

/// How long the rows of a table are kept.
fn kept(table: &TableDef, config: &HistoryConfig) -> Span {
    match table.kept {
        Kept::Measurement => config.keep_measurements,
        Kept::Audit => config.keep_audit,
        Kept::Forever => FOREVER,
    }
}

/// Versions before this time may become unreadable; in milliseconds since 1970.
const fn travel_limit(now: Timestamp) -> i64 {
    now.as_millis().saturating_sub(TRAVEL_DAYS as i64 * DAY_MILLIS)
}

/// The files that the newest version consists of.
#[derive(Default)]
struct Live {
    rows: u64,
    files: u64,
    bytes: u64,
    /// Files that are not full, by day.
    small: BTreeMap<NaiveDate, u64>,
}

impl Live {
    fn of(stored: &DeltaTable, name: &str) -> Result<Self, HistoryError> {
        let failed = HistoryError::delta(name, "reading its files");
        let mut live = Self::default();
        for file in stored.snapshot().map_err(failed)?.log_data().iter() {
            live.files += 1;
            live.rows += file.num_records().map_or(0, count);
            live.bytes += u64::try_from(file.size()).unwrap_or(0);
            let day = file.partition_values_map().remove(DAY).flatten();
            if let Some(day) = day.and_then(|day| day.parse().ok()) {
                *live.small.entry(day).or_default() += u64::from(file.size() < SMALL_FILE);
            }
        }
        Ok(live)
    }

    fn oldest_day(&self) -> Option<NaiveDate> {
        self.small.keys().next().copied()
    }

    fn mergeable(&self) -> u64 {
        self.small.values().filter(|files| **files > 1).sum()
    }
}

/// The entries of the log of a table.
struct Log {
    /// Version, time of writing, whether it is a checkpoint.
    entries: Vec<(u64, i64, bool)>,
    /// The newest checkpoint.
    checkpoint: Option<u64>,
}

impl Log {
    async fn of(stored: &DeltaTable, name: &str) -> Result<Self, HistoryError> {
        let log_store = stored.log_store();
        let failed = |error: deltalake::ObjectStoreError| {
            HistoryError::delta(name, "listing its log")(error.into())
        };
        let found = log_store.object_store(None).list(Some(log_store.log_path()));
        let found: Vec<_> = found.try_collect().await.map_err(failed)?;
        let entry = |file: deltalake::ObjectMeta| {
            let name = file.location.filename()?;
            let version = name.get(..20)?.parse().ok()?;
            let written = file.last_modified.timestamp_millis();
            Some((version, written, name.contains(".checkpoint")))
        };
        let entries: Vec<(u64, i64, bool)> = found.into_iter().filter_map(entry).collect();
        let checkpoint = entries.iter().filter(|entry| entry.2).map(|entry| entry.0).max();
        Ok(Self { entries, checkpoint })
    }

    /// The entries that a clean-up would delete: those before the newest checkpoint that every version
    /// younger than `oldest` can be read from.
    fn stale(&self, version: u64, oldest: i64) -> u64 {
        let young = self.entries.iter().filter(|entry| entry.1 >= oldest).map(|entry| entry.0);
        let first = young.min().unwrap_or(version).min(version);
        let checkpoints = self.entries.iter().filter(|entry| entry.2 && entry.0 <= first);
        let Some(safe) = checkpoints.map(|entry| entry.0).max() else { return 0 };
        count(self.entries.iter().filter(|entry| entry.0 < safe && entry.1 <= oldest).count())
    }
}

/// A clock that stands still, for the library.
#[derive(Debug)]
struct Fixed(i64);

impl vacuum::Clock for Fixed {
    fn current_timestamp_millis(&self) -> i64 {
        self.0
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
