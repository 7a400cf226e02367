//! What the archive holds of a table: which batches are visible, and their copies.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::READY;
use super::table::ColdTable;
use crate::kernel::{Bind, Failure, Query, SqlFile};
use crate::sql_file;
use crate::tools::context::ReadContext;

/// The batches of a table that are in the archive.
pub(in crate::tools) static BATCHES: SqlFile = sql_file!("shared/archive_batches");

/// How many batches one query of the archive asks for.
const AT_ONCE: usize = 100;

/// A batch as the target knows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(in crate::tools) struct BatchRow {
    /// Its name.
    pub(in crate::tools) batch_id: String,
    /// How many rows left their table with it.
    pub(in crate::tools) rows: u64,
    /// The keys of rows that stayed hot.
    pub(in crate::tools) kept_hot: Vec<String>,
}

/// A copy of a row.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::tools) struct Copied {
    /// Its batch.
    pub(in crate::tools) batch_id: String,
    /// Its key, as a JSON array of texts.
    pub(in crate::tools) row_key: String,
    /// The row, as JSON.
    pub(in crate::tools) row: String,
}

/// Whether the target has a table of batches. One that we may not read is a failure: what it says cannot be
/// left out.
pub(in crate::tools) async fn is_ready(cx: &ReadContext<'_>) -> Result<bool, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        found: bool,
        ready: bool,
    }
    let answer: Answer = cx.pg.row(&READY, &[]).await?;
    if answer.found && !answer.ready {
        let text = "`lakeops.archived_batch` is there, and this role may not read it";
        return Err(Failure::permanent("archive::not_allowed", text).with_help(
            "grant it `select, insert, update` on that table: it says which archived rows are seen",
        ));
    }
    Ok(answer.ready)
}

/// The batches of a table that are in the archive, the newest first.
pub(in crate::tools) async fn batches(
    cx: &ReadContext<'_>,
    table: &ColdTable,
) -> Result<Vec<BatchRow>, Failure> {
    if !is_ready(cx).await? {
        return Ok(Vec::new());
    }
    Ok(cx.pg.rows(&BATCHES, &[Bind::Text(table.plain())]).await?)
}

/// The copies of some batches whose rows left their table. Fewer than left it is a failure.
pub(in crate::tools) async fn copies(
    cx: &ReadContext<'_>,
    batches: &[BatchRow],
) -> Result<Vec<Copied>, Failure> {
    let mut all = Vec::new();
    for some in batches.chunks(AT_ONCE) {
        let places: Vec<_> = (1..=some.len()).map(|place| format!("${place}")).collect();
        let text = format!(
            "select batch_id, row_key, row from archived_rows where batch_id in ({}) \
             order by batch_id, row_key",
            places.join(", ")
        );
        let ids = some.iter().map(|batch| Bind::Text(batch.batch_id.clone())).collect();
        let known: BTreeMap<&str, &BatchRow> =
            some.iter().map(|batch| (batch.batch_id.as_str(), batch)).collect();
        let mut found: BTreeMap<&str, u64> = BTreeMap::new();
        for row in cx.history()?.query(&Query::with_binds(text, ids)).await? {
            let copy: Copied = readable(row)?;
            let Some(batch) = known.get(copy.batch_id.as_str()) else { continue };
            if !batch.kept_hot.contains(&copy.row_key) {
                *found.entry(batch.batch_id.as_str()).or_default() += 1;
                all.push(copy);
            }
        }
        for batch in some {
            let found = found.get(batch.batch_id.as_str()).copied().unwrap_or(0);
            if found != batch.rows {
                return Err(missing(&batch.batch_id, found, batch.rows));
            }
        }
    }
    Ok(all)
}

/// A row of the archive, or of a statement about it.
pub(in crate::tools) fn readable<T: DeserializeOwned>(row: Value) -> Result<T, Failure> {
    serde_json::from_value(row)
        .map_err(|error| Failure::permanent("archive::unreadable", error.to_string()))
}

/// Holds the archive against some batches of a table: what left with them has to be there.
pub(in crate::tools) async fn check(
    cx: &ReadContext<'_>,
    table: &ColdTable,
    batches: &[BatchRow],
) -> Result<(), Failure> {
    if batches.is_empty() {
        return Ok(());
    }
    check_counts(batches, &counts(cx, table).await?)
}

/// How many copies there are of each batch of a table, those of rows that stayed hot included.
async fn counts(cx: &ReadContext<'_>, table: &ColdTable) -> Result<BTreeMap<String, u64>, Failure> {
    #[derive(Deserialize)]
    struct Count {
        batch_id: String,
        copies: u64,
    }
    let text = "select batch_id, count(*) as copies from archived_rows where source_table = $1 \
                group by batch_id";
    let query = Query::with_binds(text, vec![Bind::Text(table.plain())]);
    let read = |row| readable::<Count>(row).map(|count| (count.batch_id, count.copies));
    cx.history()?.query(&query).await?.into_iter().map(read).collect()
}

/// The archive has fewer copies of a batch than rows left their table, or more.
pub(in crate::tools) fn missing(batch: &str, found: u64, wanted: u64) -> Failure {
    let text = format!(
        "{wanted} rows left their table with batch {batch}, and the archive has {found} of them"
    );
    Failure::permanent("archive::copies_missing", text).with_help(
        "the history here may not be the one that they were archived into: look at `[history] location`",
    )
}

/// A batch has a copy of each row that left with it. Rows that stayed may have one, too.
fn check_counts(batches: &[BatchRow], copies: &BTreeMap<String, u64>) -> Result<(), Failure> {
    for batch in batches {
        let found = copies.get(&batch.batch_id).copied().unwrap_or(0);
        let most = batch.rows.saturating_add(u64::try_from(batch.kept_hot.len()).unwrap_or(0));
        if !(batch.rows..=most).contains(&found) {
            return Err(missing(&batch.batch_id, found, batch.rows));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(id: &str, rows: u64, kept: &[&str]) -> BatchRow {
        let kept_hot = kept.iter().map(|key| (*key).to_owned()).collect();
        BatchRow { batch_id: id.to_owned(), rows, kept_hot }
    }

    #[test]
    fn a_count_is_held_against_the_archive() {
        let copies: BTreeMap<_, _> = [("a".to_owned(), 3)].into();
        assert!(check_counts(&[batch("a", 2, &["k"])], &copies).is_ok());
        assert!(check_counts(&[batch("a", 2, &[])], &copies).is_err());
        assert!(check_counts(&[batch("b", 1, &[])], &copies).is_err());
    }
}
