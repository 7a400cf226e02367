//! A batch of rows on its way into the archive and back, as data.

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
    /// Reads the rows: `key text`, `hash int8`, `row text`, and `lossless bool`: whether `row` becomes the
    /// same row again.
    pub read: SqlStatement,
}

impl fmt::Display for ArchiveBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "archive {} (batch {})", self.table, self.batch)
    }
}

/// A statement that is fed with what the archive holds of a batch when it is carried out, so that no change
/// holds a list of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArchivedRows {
    /// The batch.
    pub batch: String,
    /// What it is fed with: its first binds.
    pub feed: Feed,
    /// The statement, with the binds that follow those.
    pub statement: SqlStatement,
}

/// What a statement is fed with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "with", rename_all = "snake_case")]
pub enum Feed {
    /// The keys of the copies, one array of texts for each column of the key, and one of their hashes.
    Keys {
        /// How many columns the key has.
        columns: usize,
    },
    /// The rows that left their table, as one JSON array of objects.
    Rows {
        /// How many they must be: fewer are a failure.
        rows: u64,
        /// The keys of copies whose rows stayed: they are left out.
        except: Vec<String>,
    },
}

impl fmt::Display for ArchivedRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.feed {
            Feed::Keys { .. } => "keys",
            Feed::Rows { .. } => "rows",
        };
        write!(
            f,
            "-- the first binds are the {what} of batch {}\n{}",
            self.batch, self.statement.text
        )
    }
}
