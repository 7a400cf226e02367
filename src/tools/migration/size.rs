//! How large the tables are that a migration works on.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::kernel::{Bind, Failure, SqlFile};
use crate::postgres::PgReader;
use crate::sql_file;

pub(in crate::tools) const TABLE_BYTES: SqlFile = sql_file!("shared/table_bytes");

#[derive(Deserialize)]
struct Row {
    name: String,
    bytes: Option<u64>,
}

/// The bytes of tables by their names as written, indexes and TOAST included. A table that is not there
/// yet has none.
pub(in crate::tools) async fn table_bytes(
    reader: &PgReader,
    mut names: Vec<String>,
) -> Result<BTreeMap<String, u64>, Failure> {
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows: Vec<Row> = reader.rows(&TABLE_BYTES, &[Bind::TextArray(names)]).await?;
    Ok(rows.into_iter().filter_map(|row| Some((row.name, row.bytes?))).collect())
}
