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
    let name = QualifiedName::new(schema, table);
    let plain = name.plain();
    let failed = |error: PgError| HistoryError::Postgres {
        table: plain.clone(),
        source: Box::new(error.into()),
    };
    let whole = format!("select * from {name}");
    let described = hot.reader.describe(&plain, &whole).await.map_err(failed)?;
    let columns: Vec<Hot> =
        described.columns.iter().map(|(name, kind)| Hot::of(name, kind)).collect();
    let query = Query::with_binds(
        format!("select {} from {name} limit $1", list(&columns)),
        vec![Bind::Int(i64::try_from(hot.most_rows).unwrap_or(i64::MAX).saturating_add(1))],
    );
    let rows = hot.reader.query(&plain, &query).await.map_err(failed)?;
    if u64::try_from(rows.len()).is_ok_and(|found| found > hot.most_rows) {
        let why =
            format!("`{PG}.{plain}` has more than {} rows", hot.most_rows, PG = super::query::PG);
        let help = "a table of PostgreSQL is read whole: raise `--pg-rows`, or query it there with \
                    `lakeops sql run`";
        return Err(HistoryError::refused(why, help));
    }
    let schema: SchemaRef =
        Arc::new(Schema::new(columns.iter().map(Hot::field).collect::<Vec<_>>()));
    let batches = batches(&schema, &rows)
        .map_err(|source| HistoryError::Batch { table: plain.clone(), source })?;
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
