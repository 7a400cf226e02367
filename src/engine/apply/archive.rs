//! Copies a batch of rows into the archive, and reads the copy back.
//!
//! The commit carries the batch as its transaction, so after a crash it is found there and not made again.
//! Whoever deletes the rows afterwards matches each by what it was when it was copied.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::applier::wrong_kind;
use super::look::looked;
use super::{Applied, Applier, ApplyContext, Recovered};
use crate::kernel::{ArchiveBatch, BoxFuture, Digest, Failure, Operation, Query, Receipt};
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

/// A row as the archive has it.
#[derive(Deserialize, PartialEq)]
struct Cold {
    row_hash: i64,
    row: String,
}

/// What a batch holds, read back from the archive.
const READ_BACK: &str = "select row_key, row_hash, row from archived_rows where batch_id = $1";

async fn carry_out(cx: &ApplyContext<'_>) -> Result<Receipt, Failure> {
    let Operation::Archive(batch) = cx.operation else {
        return Err(wrong_kind(cx.operation));
    };
    let history = cx.history.ok_or_else(|| {
        Failure::permanent("history::none", "no history is kept here, so nothing can be archived")
            .with_help("set `[history] location` in the configuration")
    })?;
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
    let copies = copies(history.reader().query(&of_batch(batch)).await?)?;
    for row in &rows {
        let copy = copies.get(&row.key);
        // A batch that was there before has what was hot then. What is another version by now stays hot.
        if !is_new && copy.is_none_or(|copy| copy.row_hash != row.hash) {
            continue;
        }
        if copy != Some(&Cold { row_hash: row.hash, row: row.row.clone() }) {
            let text = format!(
                "the copy of row {} of {} in the archive is not what was written; nothing is deleted",
                row.key, batch.table
            );
            return Err(Failure::permanent("archive::not_the_same", text));
        }
    }
    let all: Vec<_> = copies.iter().map(|(key, cold)| json!([key, cold.row_hash])).collect();
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
    serde_json::from_value(row)
        .map_err(|error| Failure::permanent("archive::unreadable", error.to_string()))
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

fn of_batch(batch: &ArchiveBatch) -> Query {
    Query::with_binds(READ_BACK, vec![crate::kernel::Bind::Text(batch.batch.clone())])
}

fn copies(rows: Vec<Value>) -> Result<BTreeMap<String, Cold>, Failure> {
    #[derive(Deserialize)]
    struct Copy {
        row_key: String,
        #[serde(flatten)]
        cold: Cold,
    }
    let copy = |row| readable::<Copy>(row).map(|copy| (copy.row_key, copy.cold));
    rows.into_iter().map(copy).collect()
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
