//! Tables of PostgreSQL as a query sees them: read whole, read-only, up to a number of rows.

use std::sync::Arc;

use deltalake::arrow::array::RecordBatch;
use deltalake::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use deltalake::arrow::error::ArrowError;
use deltalake::arrow::json::ReaderBuilder;
use deltalake::datafusion::datasource::{MemTable, TableProvider};
use serde_json::Value;

use super::error::HistoryError;
use super::query::HotTables;
use crate::kernel::{Bind, Ident, QualifiedName, Query};
use crate::postgres::PgError;

/// The rows of a table, in memory.
pub(super) async fn table(
    hot: HotTables<'_>,
    (schema, table): (&str, &str),
) -> Result<Arc<dyn TableProvider>, HistoryError> {
    let (name, plain, columns) = described(hot, (schema, table)).await?;
    let query = Query::with_binds(
        format!("select {} from {name} limit $1", list(&columns)),
        vec![Bind::Int(i64::try_from(hot.most_rows).unwrap_or(i64::MAX).saturating_add(1))],
    );
    let rows = hot.reader.query(&plain, &query).await.map_err(|error| failed(&plain, error))?;
    if u64::try_from(rows.len()).is_ok_and(|found| found > hot.most_rows) {
        let why =
            format!("`{PG}.{plain}` has more than {} rows", hot.most_rows, PG = super::query::PG);
        let help = "a table of PostgreSQL is read whole: raise `--pg-rows`, or query it there with \
                    `lakeops sql run`";
        return Err(HistoryError::refused(why, help));
    }
    in_memory(&plain, &columns, &rows)
}

/// Hot and archived rows of a table, in memory. They are columns of the same types as those of [`table`].
pub(super) async fn unified(
    hot: HotTables<'_>,
    (schema, table): (&str, &str),
) -> Result<Arc<dyn TableProvider>, HistoryError> {
    let (name, plain, columns) = described(hot, (schema, table)).await?;
    let rows = hot.unified.rows(&name.to_string(), hot.most_rows).await.map_err(|source| {
        HistoryError::Postgres { table: plain.clone(), source: Box::new(source) }
    })?;
    // The server reads its own JSON again, so that a value looks the same from both sides.
    let query = Query::with_binds(
        format!(
            "select {} from pg_catalog.jsonb_populate_recordset(null::{name}, $1::jsonb) as both_sides",
            list(&columns)
        ),
        vec![Bind::Json(Value::Array(rows))],
    );
    let rows = hot.reader.query(&plain, &query).await.map_err(|error| failed(&plain, error))?;
    in_memory(&plain, &columns, &rows)
}

/// A table's name, the same for people, and its columns.
async fn described(
    hot: HotTables<'_>,
    (schema, table): (&str, &str),
) -> Result<(QualifiedName, String, Vec<Hot>), HistoryError> {
    let name = QualifiedName::new(schema, table);
    let (plain, whole) = (name.plain(), format!("select * from {name}"));
    let described =
        hot.reader.describe(&plain, &whole).await.map_err(|error| failed(&plain, error))?;
    let columns = described.columns.iter().map(|(name, kind)| Hot::of(name, kind)).collect();
    Ok((name, plain, columns))
}

fn failed(table: &str, error: PgError) -> HistoryError {
    HistoryError::Postgres { table: table.to_owned(), source: Box::new(error.into()) }
}

fn in_memory(
    table: &str,
    columns: &[Hot],
    rows: &[Value],
) -> Result<Arc<dyn TableProvider>, HistoryError> {
    let schema: SchemaRef =
        Arc::new(Schema::new(columns.iter().map(Hot::field).collect::<Vec<_>>()));
    let batches = batches(&schema, rows)
        .map_err(|source| HistoryError::Batch { table: table.to_owned(), source })?;
    Ok(Arc::new(MemTable::try_new(schema, vec![batches])?))
}

/// A column: how it is asked for, and what it becomes.
struct Hot {
    name: String,
    cast: &'static str,
    kind: DataType,
}

impl Hot {
    fn of(name: &str, kind: &str) -> Self {
        let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let (cast, kind) = match kind {
            "INT2" | "INT4" | "INT8" | "OID" => ("::pg_catalog.int8", DataType::Int64),
            "FLOAT4" | "FLOAT8" | "NUMERIC" => ("::pg_catalog.float8", DataType::Float64),
            "BOOL" => ("", DataType::Boolean),
            "TIMESTAMPTZ" | "TIMESTAMP" => ("::pg_catalog.timestamptz", time()),
            // Everything else as PostgreSQL writes it.
            _ => ("::pg_catalog.text", DataType::Utf8),
        };
        Self { name: name.to_owned(), cast, kind }
    }

    fn field(&self) -> Field {
        Field::new(&self.name, self.kind.clone(), true)
    }
}

fn list(columns: &[Hot]) -> String {
    let item = |column: &Hot| {
        let name = Ident::new(&column.name);
        format!("{name}{} as {name}", column.cast)
    };
    columns.iter().map(item).collect::<Vec<_>>().join(", ")
}

fn batches(schema: &SchemaRef, rows: &[Value]) -> Result<Vec<RecordBatch>, ArrowError> {
    let builder = ReaderBuilder::new(Arc::clone(schema)).with_batch_size(rows.len().max(1));
    let mut decoder = builder.build_decoder()?;
    decoder.serialize(rows)?;
    Ok(decoder.flush()?.into_iter().collect())
}
