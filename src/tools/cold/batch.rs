//! A batch of rows, and the changes that move it out and back.

use serde_json::json;

use super::copies::BatchRow;
use super::table::{ColdTable, ROW};
use crate::kernel::{
    ArchiveBatch, ArchivedRows, Bind, Change, Digest, Failure, Feed, Ident, Inverse, Operation,
    Query, Recovery, Risk, SqlStatement, Timestamp,
};
use crate::tools::context::ReadContext;

/// Which rows of a table: those that are older than a moment, between two keys.
#[derive(Clone, Debug)]
pub(in crate::tools) struct Bounds {
    /// The column that says when.
    pub(in crate::tools) column: String,
    /// Rows from before are cold.
    pub(in crate::tools) cut_off: Timestamp,
    /// Keys after this one; `None`: from the first one on.
    pub(in crate::tools) after: Option<Vec<String>>,
    /// Keys up to this one.
    pub(in crate::tools) upto: Vec<String>,
}

/// A batch: a stretch of cold rows under a name of its own.
#[derive(Clone, Debug)]
pub(in crate::tools) struct Batch<'a> {
    /// The table.
    pub(in crate::tools) table: &'a ColdTable,
    /// Which rows.
    pub(in crate::tools) bounds: &'a Bounds,
    /// Its name in the archive.
    pub(in crate::tools) id: String,
    /// How many rows it has now.
    pub(in crate::tools) rows: u64,
}

impl Bounds {
    /// The condition, and what it binds.
    pub(in crate::tools) fn condition(&self, table: &ColdTable) -> (String, Vec<Bind>) {
        let key = format!("({})", table.key_list(&format!("{ROW}.")));
        let mut binds = vec![Bind::Timestamp(self.cut_off), Bind::TextArray(self.upto.clone())];
        let mut text = format!(
            "{ROW}.{} < $1::timestamptz and {key} <= {}",
            Ident::new(&self.column),
            table.bound_key(2)
        );
        if let Some(after) = &self.after {
            binds.push(Bind::TextArray(after.clone()));
            text = format!("{text} and {key} > {}", table.bound_key(3));
        }
        (text, binds)
    }

    /// The name of the batch: the same for the same stretch, and another for any other. The same rows of a
    /// branch are another batch than those of its parent, so the place is part of it.
    pub(in crate::tools) fn batch_id(&self, table: &ColdTable, place: &str) -> String {
        let Self { column, cut_off, after, upto } = self;
        let digest = Digest::of_value(&json!([place, table.plain(), column, cut_off, after, upto]));
        format!("{}-{}", table.plain(), digest.as_str().get(..24).unwrap_or(digest.as_str()))
    }

    /// How many rows there are now.
    pub(in crate::tools) async fn count(
        &self,
        cx: &ReadContext<'_>,
        table: &ColdTable,
    ) -> Result<u64, Failure> {
        let (condition, binds) = self.condition(table);
        let text = format!(
            "select pg_catalog.count(*) as rows from {} as {ROW} where {condition}",
            table.name
        );
        let found = cx.pg.query("rows of a batch", &Query::with_binds(text, binds)).await?;
        Ok(found.first().and_then(|row| row["rows"].as_u64()).unwrap_or(0))
    }
}

/// The changes that move a batch out: copy it, then delete what was copied.
///
/// Neither holds a list of rows. Which rows there are is read when they are copied, and which of them are
/// deleted follows from the copies: those that are still the versions that were copied.
pub(in crate::tools) fn archive(batch: &Batch<'_>) -> Vec<Change> {
    let Batch { table, bounds, id, rows } = batch;
    let facts = json!({
        "table": table.plain(),
        "batch": id,
        "rows": rows,
        "column": bounds.column,
        "cut_off": bounds.cut_off,
    });
    let why = format!("{rows} rows with `{}` before {}", bounds.column, bounds.cut_off);
    let (condition, binds) = bounds.condition(table);
    let read = SqlStatement::with_binds(read(table, &condition), binds);
    let copy = ArchiveBatch { table: table.plain(), batch: id.clone(), read };
    let mut copy =
        Change::new(table.plain(), format!("{why} are copied"), Operation::Archive(copy));
    copy.risk = Risk::Low;
    copy.recovery = Recovery::Repeatable;
    copy.facts = facts.clone();

    let binds = vec![
        Bind::Text(id.clone()),
        Bind::Text(table.plain()),
        Bind::Text(bounds.column.clone()),
        Bind::Timestamp(bounds.cut_off),
    ];
    let operation = Operation::FromArchive(ArchivedRows {
        batch: id.clone(),
        feed: Feed::Keys { columns: table.key().count() },
        statement: SqlStatement::with_binds(delete(table), binds),
    });
    let text = format!("{why} are deleted, except those that have changed since they were copied");
    let mut delete = Change::new(table.plain(), text, operation);
    delete.risk = Risk::High;
    delete.recovery = Recovery::Transactional;
    delete.inverse =
        Inverse::Impossible { why: "`restore_archived_data` brings the rows back".to_owned() };
    delete.cost = [("rows_archived".to_owned(), *rows)].into();
    delete.facts = facts;
    vec![copy, delete]
}

/// Reads the rows of a batch as they are.
fn read(table: &ColdTable, condition: &str) -> String {
    let (name, version) = (&table.name, ColdTable::version());
    format!(
        "select {} as key, {version} as hash, pg_catalog.to_jsonb({ROW})::text as row, \
         (pg_catalog.jsonb_populate_record(null::{name}, pg_catalog.to_jsonb({ROW})))::text \
         = {ROW}::text as lossless from {name} as {ROW} where {condition}",
        table.key_text(&format!("{ROW}.")),
    )
}

/// Deletes the rows that are still the versions that were copied, and makes their copies visible.
fn delete(table: &ColdTable) -> String {
    let first = table.key().count() + 2;
    format!(
        "with wanted as (\n  select * from {rows}\n), gone as (\n  delete from {name} as {ROW}\n  \
         using wanted\n  where {joins}\n    and {version} = wanted.lakeops_hash{free}\n  \
         returning {key} as key\n), note as (\n  insert into lakeops.archived_batch\n    \
         (batch_id, source_table, rows, kept_hot, column_name, cut_off)\n  select ${batch}, ${source}, \
         (select pg_catalog.count(*) from gone),\n    array(select {wanted_key} from wanted except \
         select gone.key from gone),\n    ${column}, ${cut}::timestamptz\n  returning rows, kept_hot\n)\n\
         select rows, pg_catalog.cardinality(kept_hot) as kept_hot from note",
        rows = table.bound_rows(),
        name = table.name,
        joins = table.joins(),
        version = ColdTable::version(),
        free = table.nobody_points_here(),
        key = table.key_text(&format!("{ROW}.")),
        wanted_key = table.key_text("wanted."),
        batch = first,
        source = first + 1,
        column = first + 2,
        cut = first + 3,
    )
}

/// The change that brings a batch back: the rows that left with it, read from the archive at that moment.
pub(in crate::tools) fn restore(table: &ColdTable, batch: &BatchRow) -> Change {
    let columns = table.writable().join(", ");
    let name = &table.name;
    let text = format!(
        "with back as (\n  insert into {name} ({columns}) overriding system value\n  select {columns}\n  \
         from pg_catalog.jsonb_populate_recordset(null::{name}, $1::text::jsonb)\n  returning 1\n), \
         note as (\n  update lakeops.archived_batch set restored_at = pg_catalog.now()\n  \
         where batch_id = $2 and restored_at is null\n  returning 1\n)\n\
         select (select pg_catalog.count(*) from back) as rows, \
         (select pg_catalog.count(*) from note) as batches"
    );
    let operation = Operation::FromArchive(ArchivedRows {
        batch: batch.batch_id.clone(),
        feed: Feed::Rows { rows: batch.rows, except: batch.kept_hot.clone() },
        statement: SqlStatement::with_binds(text, vec![Bind::Text(batch.batch_id.clone())]),
    });
    let why = format!("{} archived rows of batch {} come back", batch.rows, batch.batch_id);
    let mut change = Change::new(table.plain(), why, operation);
    change.risk = Risk::Medium;
    change.recovery = Recovery::Transactional;
    change.guard = Some(Query::with_binds(
        "select exists (select from lakeops.archived_batch \
         where batch_id = $1 and restored_at is null) as holds",
        vec![Bind::Text(batch.batch_id.clone())],
    ));
    change.inverse =
        Inverse::Impossible { why: "`archive_cold_data_to_delta` archives them again".to_owned() };
    change.independent = true;
    change.facts = json!({ "batch": batch.batch_id, "rows": batch.rows });
    change
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::orders;
    use super::*;

    fn bounds(after: Option<&[&str]>) -> Bounds {
        let keys = |key: &[&str]| key.iter().map(|part| (*part).to_owned()).collect();
        Bounds {
            column: "updated_at".to_owned(),
            cut_off: Timestamp::from_millis(0),
            after: after.map(keys),
            upto: keys(&["nl", "9"]),
        }
    }

    #[test]
    fn a_batch_is_bounded_by_age_and_key() {
        let (text, binds) = bounds(Some(&["nl", "0"])).condition(&orders());
        assert!(text.starts_with("lakeops_row.\"updated_at\" < $1::timestamptz and "), "{text}");
        assert!(
            text.contains("(lakeops_row.\"shop\", lakeops_row.\"id\") > (($3::text[])[1]"),
            "{text}"
        );
        assert_eq!(binds.len(), 3);
        assert_eq!(bounds(None).condition(&orders()).1.len(), 2);
    }

    #[test]
    fn rows_are_copied_before_they_are_deleted() {
        let (table, bounds) = (orders(), bounds(None));
        let batch = Batch { table: &table, bounds: &bounds, id: "b".into(), rows: 2 };
        let changes = archive(&batch);
        let kinds: Vec<_> = changes.iter().map(|change| change.operation.kind()).collect();
        assert_eq!(kinds, ["archive", "from_archive"]);
        assert_eq!((changes[1].risk, changes[1].cost["rows_archived"]), (Risk::High, 2));
        let Operation::FromArchive(delete) = &changes[1].operation else { panic!() };
        // Two columns of the key and the versions are fed; four facts of the batch follow.
        assert_eq!(delete.feed, Feed::Keys { columns: 2 });
        assert_eq!(delete.statement.binds.len(), 4);
        assert!(delete.statement.text.contains("$7"), "{}", delete.statement.text);
        // What is approved does not grow with the number of rows, and stays when one of them changes.
        let more = archive(&Batch { rows: 1_000_000, ..batch });
        assert_eq!(more[1].digest(), changes[1].digest());
    }

    #[test]
    fn another_stretch_or_place_is_another_batch() {
        let table = orders();
        let id = bounds(None).batch_id(&table, "here");
        assert_eq!(id, bounds(None).batch_id(&table, "here"));
        assert_ne!(id, bounds(None).batch_id(&table, "there"));
        assert_ne!(id, bounds(Some(&["nl", "0"])).batch_id(&table, "here"));
        let later = Bounds { cut_off: Timestamp::from_millis(1), ..bounds(None) };
        assert_ne!(id, later.batch_id(&table, "here"));
    }

    #[test]
    fn restored_rows_are_written_once() {
        let row = BatchRow { batch_id: "b".into(), rows: 2, kept_hot: vec!["[\"1\"]".into()] };
        let change = restore(&orders(), &row);
        let Operation::FromArchive(back) = &change.operation else { panic!() };
        assert_eq!(back.feed, Feed::Rows { rows: 2, except: row.kept_hot });
        assert!(!back.statement.text.contains("\"total\""), "what is generated is made anew");
        assert!(change.guard.is_some() && change.independent);
    }
}
