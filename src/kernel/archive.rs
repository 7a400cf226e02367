//! A batch of rows on its way into the archive, as data.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::SqlStatement;

/// Rows of a table that are copied into the archive, in one commit and exactly once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArchiveBatch {
    /// The table that the rows are of, `schema.name`.
    pub table: String,
    /// The batch: what is in the archive under this name is not archived again.
    pub batch: String,
    /// Reads the rows that are still as they were: `key text`, `hash int8`, `row text`, and `lossless
    /// bool`: whether `row` becomes the same row again.
    pub read: SqlStatement,
}

impl fmt::Display for ArchiveBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "archive {} (batch {})", self.table, self.batch)
    }
}
