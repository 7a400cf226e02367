//! Copies a batch of rows into the archive, and reads the copy back.
//!
//! The commit carries the batch as its transaction, so after a crash it is found there and not made again.
//! Whoever deletes the rows afterwards matches each by what it was when it was copied.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::Deserialize;
use serde_json::{Value, json};

use super::applier::wrong_kind;
use super::look::looked;
use super::{Applied, Applier, ApplyContext, Recovered};
use crate::engine::parts::History;
use crate::kernel::{ArchiveBatch, Bind, BoxFuture, Digest, Failure, Operation, Query, Receipt};
use crate::tools::tool::HistoryRow;

/// Copies rows into the archive.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ArchiveApplier;

/// A row as the database gives it.
#[derive(Deserialize)]
struct Hot {
    key: String,
    hash: i64,
    row: String,
    lossless: bool,
}

/// A copy as the archive has it.
#[derive(Deserialize)]
pub(super) struct Copied {
    pub(super) row_key: String,
    pub(super) row_hash: i64,
    pub(super) row: String,
}

/// What a batch holds, read back from the archive.
const COPIES: &str =
    "select row_key, row_hash, row from archived_rows where batch_id = $1 order by row_key";

async fn carry_out(cx: &ApplyContext<'_>) -> Result<Receipt, Failure> {
    let Operation::Archive(batch) = cx.operation else {
        return Err(wrong_kind(cx.operation));
    };
    let history = cx.need_history(", so nothing can be archived")?;
    let rows = read(cx, batch).await?;
    if let Some(row) = rows.iter().find(|row| !row.lossless) {
        let text = format!(
            "row {} of {} would not come back as it is: a column has a type whose JSON form loses \
             something, such as `json` with its white space",
            row.key, batch.table
        );
        return Err(Failure::permanent("archive::lossy", text)
            .with_help("change the column's type (`jsonb` for `json`), or leave this table hot"));
    }
    cx.reach("before effect");
    let stored = rows.iter().map(|row| stored(batch, row)).collect();
    let is_new = history.archive(&batch.batch, stored).await? > 0;
    cx.reach("after effect");
    let copies = copies(history, &batch.batch).await?;
    let copies: BTreeMap<&str, &Copied> =
        copies.iter().map(|copy| (copy.row_key.as_str(), copy)).collect();
    for row in &rows {
        let same_version = copies.get(&*row.key).filter(|copy| copy.row_hash == row.hash);
        // A batch that was there before has what was hot then. What is another version by now stays hot.
        if !is_new && same_version.is_none() {
            continue;
        }
        if same_version.is_none_or(|copy| copy.row != row.row) {
            let text = format!(
                "the copy of row {} of {} in the archive is not what was written; nothing is deleted",
                row.key, batch.table
            );
            return Err(Failure::permanent("archive::not_the_same", text));
        }
    }
    let all: Vec<_> = copies.iter().map(|(key, copy)| json!([key, copy.row_hash])).collect();
    let digest = Digest::of_value(&Value::Array(all));
    let result = json!({ "rows": copies.len(), "digest": digest });
    let count = u64::try_from(copies.len()).ok();
    Ok(Receipt { rows: count, result, ..Receipt::default() })
}

async fn read(cx: &ApplyContext<'_>, batch: &ArchiveBatch) -> Result<Vec<Hot>, Failure> {
    let reader = cx.placed_reader().await?;
    let rows = reader.query("rows to archive", &batch.read).await;
    reader.close().await;
    rows?.into_iter().map(readable).collect()
}

fn readable<T: serde::de::DeserializeOwned>(row: Value) -> Result<T, Failure> {
    serde_json::from_value(row).map_err(unreadable)
}

pub(super) fn unreadable(error: impl Display) -> Failure {
    Failure::permanent("archive::unreadable", error.to_string())
}

fn stored(batch: &ArchiveBatch, row: &Hot) -> HistoryRow {
    HistoryRow {
        table: "archived_rows".to_owned(),
        row: json!({
            "source_table": batch.table,
            "batch_id": batch.batch,
            "row_key": row.key,
            "row_hash": row.hash,
            "row": row.row,
        }),
    }
}

/// What the archive has of a batch, in the order of the keys. Memory is bounded by the size of a batch.
pub(super) async fn copies(history: &dyn History, batch: &str) -> Result<Vec<Copied>, Failure> {
    let query = Query::with_binds(COPIES, vec![Bind::Text(batch.to_owned())]);
    history.reader().query(&query).await?.into_iter().map(readable).collect()
}

impl Applier for ArchiveApplier {
    fn fingerprint<'a>(
        &'a self,
        _cx: &'a ApplyContext<'a>,
    ) -> BoxFuture<'a, Result<Value, Failure>> {
        Box::pin(async { Ok(Value::Null) })
    }

    fn apply<'a>(&'a self, cx: &'a ApplyContext<'a>) -> BoxFuture<'a, Result<Applied, Failure>> {
        Box::pin(looked(cx, carry_out(cx)))
    }

    fn recover<'a>(
        &'a self,
        _cx: &'a ApplyContext<'a>,
        _fingerprint: &'a Value,
    ) -> BoxFuture<'a, Result<Recovered, Failure>> {
        // A batch that is there is found by its transaction and not made again.
        Box::pin(async { Ok(Recovered::NotApplied) })
    }
}
