//! One side of a comparison: a table on some branch or database.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::encode::{hash, joined};
use super::keys::{Bucket, Hashes};
use crate::kernel::{Bind, Failure, Ident, QualifiedName, Query, SqlFile, Target};
use crate::postgres::PgReader;
use crate::sql_file;
use crate::tools::context::ReadContext;

/// The columns of a table.
pub(in crate::tools) static COLUMNS: SqlFile = sql_file!("shared/sync_columns");

/// How many blocks one statement reads: 64 MiB, some tenths of a second.
const PIECE: i64 = 8_192;

/// Where a table is; what is not said is as on the step's target.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct Place {
    /// The table or view, as `schema.name`.
    pub(in crate::tools) table: String,
    /// The project.
    #[serde(default)]
    pub(in crate::tools) project: Option<String>,
    /// The branch.
    #[serde(default)]
    pub(in crate::tools) branch: Option<String>,
    /// The database.
    #[serde(default)]
    pub(in crate::tools) database: Option<String>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [&self.project, &self.branch, &self.database];
        parts.into_iter().flatten().try_for_each(|part| write!(f, "{part}/"))?;
        write!(f, "{}", self.table)
    }
}

/// A column as the server describes it.
#[derive(Clone, Debug, Deserialize)]
struct ColumnRow {
    name: String,
    type_name: String,
    key_position: Option<i32>,
    generated: bool,
    blocks: Option<i64>,
    rows: f64,
}

/// A table that is looked at.
pub(in crate::tools) struct Opened {
    reader: PgReader,
    name: QualifiedName,
    columns: Vec<ColumnRow>,
}

/// How much there is, up to a cut.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::tools) struct Totals {
    /// Rows.
    pub(in crate::tools) rows: u64,
    /// The newest moment, as the server writes it; absent without rows or without a column that says.
    pub(in crate::tools) newest: Option<String>,
}

#[derive(Deserialize)]
struct TotalsRow {
    rows: u64,
    newest: Option<String>,
}

#[derive(Deserialize)]
struct BucketRow {
    bucket: i64,
    rows: u64,
    sum: String,
}

#[derive(Deserialize)]
struct HashRow {
    key: Option<String>,
    hash: i64,
}

impl Opened {
    /// Opens a side.
    pub(in crate::tools) async fn at(cx: &ReadContext<'_>, place: &Place) -> Result<Self, Failure> {
        let bad = |error: crate::kernel::sql_text::NameError| {
            Failure::permanent("sync::bad_name", error.to_string())
        };
        let name = QualifiedName::parse(&place.table).map_err(bad)?;
        let other =
            |own: &Option<String>, here: &Option<String>| own.clone().or_else(|| here.clone());
        let target = Target {
            project: other(&place.project, &cx.target.project),
            branch: other(&place.branch, &cx.target.branch),
            database: other(&place.database, &cx.target.database),
        };
        let reader = cx.reader_at(&target).await?;
        let columns: Vec<ColumnRow> =
            reader.rows(&COLUMNS, &[Bind::Text(name.to_string())]).await?;
        if columns.is_empty() {
            let text = format!("there is no table or view `{}` on `{target}`", place.table);
            return Err(Failure::permanent("sync::no_such_table", text).with_help(
                "write `schema.name`; project, branch and database are those of the step unless the \
                 pair names its own",
            ));
        }
        Ok(Self { reader, name, columns })
    }

    /// Ends its session.
    pub(in crate::tools) async fn close(self) {
        self.reader.close().await;
    }

    /// The columns of its primary key, in order.
    pub(in crate::tools) fn primary_key(&self) -> Vec<String> {
        let mut key: Vec<(i32, &String)> = self
            .columns
            .iter()
            .filter_map(|column| Some((column.key_position?, &column.name)))
            .collect();
        key.sort_unstable();
        key.into_iter().map(|(_, name)| name.clone()).collect()
    }

    /// The names of its columns.
    pub(in crate::tools) fn names(&self) -> Vec<&str> {
        self.columns.iter().filter(|column| !column.generated).map(|c| c.name.as_str()).collect()
    }

    /// About how many rows it has.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
    pub(in crate::tools) fn estimate(&self) -> u64 {
        self.columns.first().map_or(0, |column| column.rows.max(0.0) as u64)
    }

    /// Names with their types, as this side knows them.
    fn typed(&self, names: &[String]) -> Result<Vec<(String, String)>, Failure> {
        let known = |name: &String| {
            let found = self.columns.iter().find(|column| column.name == *name);
            found.map(|column| (name.clone(), column.type_name.clone())).ok_or_else(|| {
                let text = format!("`{}` has no column `{name}`", self.name.plain());
                Failure::permanent("sync::no_such_column", text)
            })
        };
        names.iter().map(known).collect()
    }

    /// The conditions of each piece, so that all of them together are the whole table.
    fn pieces(&self) -> Vec<String> {
        let blocks = self.columns.first().and_then(|column| column.blocks).unwrap_or(0);
        let mut pieces = Vec::new();
        let mut from = 0;
        while from + PIECE < blocks {
            let to = from + PIECE;
            pieces.push(format!("ctid >= '({from},0)'::tid and ctid < '({to},0)'::tid"));
            from += PIECE;
        }
        // Blocks that come meanwhile belong to the last one.
        let rest = format!("ctid >= '({from},0)'::tid");
        pieces.push(if from == 0 { "true".to_owned() } else { rest });
        pieces
    }

    /// How many rows there are, and the newest; up to a cut, when there is one.
    pub(in crate::tools) async fn totals(
        &self,
        moment: Option<&str>,
        cut: Option<&str>,
    ) -> Result<Totals, Failure> {
        let newest = match moment {
            Some(column) => {
                self.typed(&[column.to_owned()])?;
                format!("pg_catalog.max({})::timestamptz", Ident::new(column))
            }
            None => "null::timestamptz".to_owned(),
        };
        let (cut, binds) = condition(moment, cut);
        let mut totals = Totals::default();
        for piece in self.pieces() {
            let text = format!(
                "select pg_catalog.count(*) as rows, \
                 pg_catalog.to_jsonb(({newest} at time zone 'UTC')) #>> '{{}}' as newest \
                 from {} where {piece}{cut}",
                self.name
            );
            let found: Vec<TotalsRow> = self.rows("sync totals", text, binds.clone()).await?;
            for row in found {
                totals.rows += row.rows;
                // In one form and one zone, so texts are ordered like moments.
                totals.newest = totals.newest.max(row.newest);
            }
        }
        Ok(totals)
    }

    /// The sums of its rows' hashes, by bucket of the key.
    pub(in crate::tools) async fn buckets(
        &self,
        (key, columns): (&[String], &[String]),
        count: i64,
    ) -> Result<BTreeMap<i64, Bucket>, Failure> {
        let (key, row) = (joined(&self.typed(key)?), joined(&self.typed(columns)?));
        let mut buckets: BTreeMap<i64, Bucket> = BTreeMap::new();
        for piece in self.pieces() {
            let text = format!(
                "select {} & {} as bucket, pg_catalog.count(*) as rows, \
                 pg_catalog.sum({})::text as sum from {} where {piece} group by 1",
                hash(&key, 1),
                count - 1,
                hash(&row, 0),
                self.name
            );
            let found: Vec<BucketRow> = self.rows("sync buckets", text, Vec::new()).await?;
            for row in found {
                let sum = row.sum.parse().map_err(|_| {
                    Failure::permanent("sync::bad_sum", format!("`{}` is no sum", row.sum))
                })?;
                buckets.entry(row.bucket).or_default().add(Bucket { rows: row.rows, sum });
            }
        }
        Ok(buckets)
    }

    /// The rows of some buckets.
    pub(in crate::tools) async fn hashes(
        &self,
        (key, columns): (&[String], &[String]),
        (buckets, count): (&[i64], i64),
    ) -> Result<Hashes, Failure> {
        let (key, row) = (joined(&self.typed(key)?), joined(&self.typed(columns)?));
        let mut hashes = Hashes::new();
        for piece in self.pieces() {
            let text = format!(
                "select {key} as key, {} as hash from {} \
                 where {piece} and {} & {} = any ($1::int8[])",
                hash(&row, 0),
                self.name,
                hash(&key, 1),
                count - 1,
            );
            let binds = vec![Bind::IntArray(buckets.to_vec())];
            let found: Vec<HashRow> = self.rows("sync rows", text, binds).await?;
            for row in found {
                hashes.entry(row.key.unwrap_or_default()).or_default().push(row.hash);
            }
        }
        Ok(hashes)
    }

    async fn rows<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
        text: String,
        binds: Vec<Bind>,
    ) -> Result<Vec<T>, Failure> {
        let rows = self.reader.query(name, &Query::with_binds(text, binds)).await?;
        let read = |row: Value| {
            serde_json::from_value(row)
                .map_err(|error| Failure::permanent("sync::unreadable", format!("{name}: {error}")))
        };
        rows.into_iter().map(read).collect()
    }
}

/// Rows up to a cut. A row without a moment is older than every cut.
fn condition(moment: Option<&str>, cut: Option<&str>) -> (String, Vec<Bind>) {
    let Some((column, cut)) = moment.zip(cut) else { return (String::new(), Vec::new()) };
    let column = Ident::new(column);
    let text = format!(
        " and ({column} is null or {column}::timestamptz <= ($1::text || '+00')::timestamptz)"
    );
    (text, vec![Bind::Text(cut.to_owned())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(blocks: Option<i64>) -> Opened {
        let row = ColumnRow {
            name: "id".into(),
            type_name: "bigint".into(),
            key_position: Some(0),
            generated: false,
            blocks,
            rows: -1.0,
        };
        let nowhere = Failure::permanent("test", "nowhere");
        let name = QualifiedName::new("public", "t");
        Opened { reader: PgReader::unavailable(nowhere), name, columns: vec![row] }
    }

    #[test]
    fn pieces_cover_the_table_and_what_it_grows_by() {
        assert_eq!(opened(None).pieces(), ["true"]);
        assert_eq!(opened(Some(PIECE)).pieces(), ["true"]);
        let pieces = opened(Some(2 * PIECE + 1)).pieces();
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[0], "ctid >= '(0,0)'::tid and ctid < '(8192,0)'::tid");
        assert_eq!(pieces[2], "ctid >= '(16384,0)'::tid");
        assert_eq!(opened(None).estimate(), 0);
    }

    #[test]
    fn a_column_that_is_not_there_is_refused() {
        let error = opened(None).typed(&["nope".to_owned()]).unwrap_err();
        assert_eq!(error.message, "`public.t` has no column `nope`");
    }
}
