//! Upkeep of a table of the history, as data.

use std::fmt;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

/// What is done to one table of the history. Doing it again does no harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upkeep {
    /// The table.
    pub table: String,
    /// What is done to it.
    pub work: Work,
}

/// A kind of upkeep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub enum Work {
    /// Removes the rows of earlier days. Older versions show them until [`Work::Clean`] reaches them.
    Expire {
        /// The first day that is kept.
        before: NaiveDate,
    },
    /// Merges small files of the same day. No row is added, lost or changed.
    Compact,
    /// Writes a checkpoint, and deletes the files and log entries that no version within the time for
    /// time travel needs.
    Clean,
}

impl fmt::Display for Upkeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = &self.table;
        match &self.work {
            Work::Expire { before } => write!(f, "expire {table}: rows of days before {before}"),
            Work::Compact => write!(f, "compact {table}: merge small files of the same day"),
            Work::Clean => {
                write!(f, "clean {table}: checkpoint, delete files that no version needs any more")
            }
        }
    }
}
