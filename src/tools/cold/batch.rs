//! A batch of rows, and the changes that move it out and back.

use serde::Deserialize;
use serde_json::json;

use super::table::{ColdTable, ROW};
use crate::kernel::{
    ArchiveBatch, Bind, Change, Digest, Failure, Ident, Inverse, Operation, Query, Recovery, Risk,
    SqlStatement, Timestamp,
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

/// The rows of a batch: their keys, and which version each of them is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::tools) struct Batch {
    keys: Vec<Vec<String>>,
    versions: Vec<i64>,
}

#[derive(Deserialize)]
struct Row {
    key: Vec<String>,
    version: i64,
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
}

impl Batch {
    /// Reads which rows there are.
    pub(in crate::tools) async fn read(
        cx: &ReadContext<'_>,
        table: &ColdTable,
        bounds: &Bounds,
    ) -> Result<Self, Failure> {
        let (condition, binds) = bounds.condition(table);
        let prefix = format!("{ROW}.");
        let text = format!(
            "select {} as key, {} as version from {} as {ROW} where {condition} order by {}",
            table.key_array(&prefix),
            ColdTable::version(),
            table.name,
            table.key_list(&prefix),
        );
        let rows = cx.pg.query("rows of a batch", &Query::with_binds(text, binds)).await?;
        let mut batch = Self::default();
        for row in rows {
            let row: Row = serde_json::from_value(row)
                .map_err(|error| Failure::permanent("archive::unreadable", error.to_string()))?;
            batch.keys.push(row.key);
            batch.versions.push(row.version);
        }
        Ok(batch)
    }

    /// How many rows there are.
    pub(in crate::tools) fn len(&self) -> usize {
        self.keys.len()
    }

    /// One array for each column of the key, and one of the versions.
    fn binds(&self, table: &ColdTable) -> Vec<Bind> {
        let columns = table.key().count();
        let column = |place: usize| {
            let texts = self.keys.iter().map(|key| key.get(place).cloned().unwrap_or_default());
            Bind::TextArray(texts.collect())
        };
        let mut binds: Vec<Bind> = (0..columns).map(column).collect();
        binds.push(Bind::IntArray(self.versions.clone()));
        binds
    }

    /// The name of the batch: the same for the same versions of the same rows, and another for others.
    fn id(&self, table: &ColdTable, place: &str) -> String {
        let all = json!([place, table.plain(), self.keys, self.versions]);
        let digest = Digest::of_value(&all);
        format!("{}-{}", table.plain(), digest.as_str().get(..24).unwrap_or(digest.as_str()))
    }
}

/// The changes that move a batch out: copy it, then delete what was copied.
pub(in crate::tools) fn archive(
    table: &ColdTable,
    bounds: &Bounds,
    batch: &Batch,
    place: &str,
) -> Vec<Change> {
    let id = batch.id(table, place);
    let count = batch.len();
    let facts = json!({
        "table": table.plain(),
        "batch": id,
        "rows": count,
        "column": bounds.column,
        "cut_off": bounds.cut_off,
    });
    let why = format!("{count} rows with `{}` before {}", bounds.column, bounds.cut_off);
    let read = SqlStatement::with_binds(read(table), batch.binds(table));
    let copy = ArchiveBatch { table: table.plain(), batch: id.clone(), read };
    let mut copy =
        Change::new(table.plain(), format!("{why} are copied"), Operation::Archive(copy));
    copy.risk = Risk::Low;
    copy.recovery = Recovery::Repeatable;
    copy.facts = facts.clone();

    let mut binds = batch.binds(table);
    binds.extend([
        Bind::Text(id),
        Bind::Text(table.plain()),
        Bind::Text(bounds.column.clone()),
        Bind::Timestamp(bounds.cut_off),
    ]);
    let operation = Operation::sql(delete(table), binds);
    let text = format!("{why} are deleted, except those that have changed since they were copied");
    let mut delete = Change::new(table.plain(), text, operation);
    delete.risk = Risk::High;
    delete.recovery = Recovery::Transactional;
    delete.inverse =
        Inverse::Impossible { why: "`restore_archived_data` brings the rows back".to_owned() };
    delete.cost = [("rows_archived".to_owned(), u64::try_from(count).unwrap_or(u64::MAX))].into();
    delete.facts = facts;
    vec![copy, delete]
}

/// Reads the rows that are still the versions that were seen.
fn read(table: &ColdTable) -> String {
    let (name, version) = (&table.name, ColdTable::version());
    format!(
        "select {} as key, {version} as hash, pg_catalog.to_jsonb({ROW})::text as row, \
         (pg_catalog.jsonb_populate_record(null::{name}, pg_catalog.to_jsonb({ROW})))::text \
         = {ROW}::text as lossless \
         from {} join {name} as {ROW} on {} where {version} = wanted.lakeops_hash",
        table.key_text(&format!("{ROW}.")),
        table.bound_rows(),
        table.joins(),
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

/// The change that brings a batch back. `rows` are JSON texts.
pub(in crate::tools) fn restore(table: &ColdTable, batch: &str, rows: &[String]) -> Change {
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
    let all = format!("[{}]", rows.join(","));
    let binds = vec![Bind::Text(all), Bind::Text(batch.to_owned())];
    let why = format!("{} archived rows of batch {batch} come back", rows.len());
    let mut change = Change::new(table.plain(), why, Operation::sql(text, binds));
    change.risk = Risk::Medium;
    change.recovery = Recovery::Transactional;
    change.guard = Some(Query::with_binds(
        "select exists (select from lakeops.archived_batch \
         where batch_id = $1 and restored_at is null) as holds",
        vec![Bind::Text(batch.to_owned())],
    ));
    change.inverse =
        Inverse::Impossible { why: "`archive_cold_data_to_delta` archives them again".to_owned() };
    change.independent = true;
    change.facts = json!({ "batch": batch, "rows": rows.len() });
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

    fn batch() -> Batch {
        let keys =
            vec![vec!["nl".to_owned(), "1".to_owned()], vec!["nl".to_owned(), "2".to_owned()]];
        Batch { keys, versions: vec![11, 12] }
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
        let changes = archive(&orders(), &bounds(None), &batch(), "here");
        let kinds: Vec<_> = changes.iter().map(|change| change.operation.kind()).collect();
        assert_eq!(kinds, ["archive", "sql"]);
        assert_eq!((changes[1].risk, changes[1].cost["rows_archived"]), (Risk::High, 2));
        let Operation::Sql { statement, .. } = &changes[1].operation else { panic!() };
        // Two columns of the key, the versions, and four facts of the batch.
        assert_eq!(statement.binds.len(), 7);
        assert!(statement.text.contains("${}".replace("{}", "7").as_str()), "{}", statement.text);
        assert_eq!(statement.binds[0], Bind::TextArray(vec!["nl".to_owned(), "nl".to_owned()]));
    }

    #[test]
    fn other_versions_are_another_batch() {
        let (one, mut other) = (batch(), batch());
        assert_eq!(one.id(&orders(), "here"), batch().id(&orders(), "here"));
        other.versions[0] += 1;
        assert_ne!(one.id(&orders(), "here"), other.id(&orders(), "here"));
        assert_ne!(one.id(&orders(), "here"), one.id(&orders(), "there"));
    }

    #[test]
    fn restored_rows_are_written_once() {
        let rows = ["{\"id\": 1}".to_owned(), "{\"id\": 2}".to_owned()];
        let change = restore(&orders(), "b", &rows);
        let Operation::Sql { statement, .. } = &change.operation else { panic!() };
        assert_eq!(statement.binds[0], Bind::Text("[{\"id\": 1},{\"id\": 2}]".to_owned()));
        assert!(!statement.text.contains("\"total\""), "what is generated is made anew");
        assert!(change.guard.is_some() && change.independent);
    }
}
