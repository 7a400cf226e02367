//! What is there: rows, files and versions of each table.

use super::delta::{self, Moment};
use super::error::HistoryError;
use super::location::Location;
use super::schema::TableDef;
use super::tables::TABLES;

/// What is there of a table; everything is absent while it has no row.
#[derive(Clone, Debug)]
pub struct TableFacts {
    /// The table.
    pub table: &'static TableDef,
    /// Rows, when the files say how many.
    pub rows: Option<u64>,
    /// Live files.
    pub files: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// The newest version.
    pub version: Option<u64>,
}

/// What is there of every table.
pub async fn facts(location: &Location) -> Result<Vec<TableFacts>, HistoryError> {
    let mut all = Vec::with_capacity(TABLES.len());
    for table in TABLES {
        all.push(of(location, table).await?);
    }
    Ok(all)
}

/// What is there of a table.
pub(super) async fn of(
    location: &Location,
    table: &'static TableDef,
) -> Result<TableFacts, HistoryError> {
    let Some(stored) = delta::open(location, table.name, Moment::Now).await? else {
        return Ok(TableFacts { table, rows: None, files: None, bytes: None, version: None });
    };
    let failed = HistoryError::delta(table.name, "reading its files");
    let files = stored.snapshot().map_err(failed)?.log_data();
    let (mut rows, mut bytes, mut count) = (Some(0_u64), 0_u64, 0_u64);
    for file in files.iter() {
        let counted = file.num_records().and_then(|records| u64::try_from(records).ok());
        rows = rows.zip(counted).map(|(sum, more)| sum + more);
        bytes += u64::try_from(file.size()).unwrap_or(0);
        count += 1;
    }
    let version = stored.version();
    Ok(TableFacts { table, rows, files: Some(count), bytes: Some(bytes), version })
}
