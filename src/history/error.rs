//! What the history cannot do, and why.

use std::path::PathBuf;

use deltalake::arrow::error::ArrowError;
use deltalake::datafusion::error::DataFusionError;
use deltalake::errors::DeltaTableError;

use crate::journal::JournalError;
use crate::kernel::Failure;

/// What the history cannot do, and why.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The place is not one.
    #[error("the history cannot be at `{location}`: {why}")]
    Location {
        /// The place.
        location: String,
        /// Why.
        why: String,
    },
    /// This program was built without the storage.
    #[error(
        "the history is at `{location}`, and this program was built without the feature \
         `{feature}`; build it with `cargo build --features {feature}`"
    )]
    NotBuiltIn {
        /// The place.
        location: String,
        /// The Cargo feature.
        feature: &'static str,
    },
    /// A file of the history cannot be made or locked.
    #[error("{path} cannot be used: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process is appending for too long.
    #[error("another process has been appending to the history for {seconds} s; try again later")]
    Busy {
        /// How long.
        seconds: u64,
    },
    /// Delta cannot read or write a table.
    #[error("the history table `{table}` cannot be used while {doing}: {source}")]
    Delta {
        /// The table.
        table: String,
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: Box<DeltaTableError>,
    },
    /// A column of the stored table is of another type than declared.
    #[error(
        "the column `{column}` of the stored table `{table}` is {found}, and this version writes \
         {expected}; move the folder of the table away, and its rows are appended from the journal"
    )]
    OtherType {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The type found.
        found: String,
        /// The type expected.
        expected: String,
    },
    /// A batch could not be made.
    #[error("rows of `{table}` could not be put together: {source}")]
    Batch {
        /// The table.
        table: String,
        /// Why.
        #[source]
        source: ArrowError,
    },
    /// The journal cannot be read.
    #[error("the journal could not be read for the history")]
    Journal(#[from] JournalError),
    /// The query is wrong or cannot be answered.
    #[error("the query cannot be answered: {}", .0.strip_backtrace())]
    Query(#[from] Box<DataFusionError>),
    /// The query, or what it names, is refused.
    #[error("{why}")]
    Refused {
        /// Why.
        why: String,
        /// What to do instead.
        help: String,
    },
    /// A table of PostgreSQL that the query names cannot be read.
    #[error("the table `{table}` of PostgreSQL cannot be read: {source}")]
    Postgres {
        /// The table.
        table: String,
        /// Why.
        #[source]
        source: Box<Failure>,
    },
    /// A result cannot be written.
    #[error("the result cannot be written to {path}: {why}")]
    Unwritable {
        /// Where.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl HistoryError {
    pub(super) fn refused(why: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Refused { why: why.into(), help: help.into() }
    }

    pub(super) fn delta(table: &str, doing: &'static str) -> impl FnOnce(DeltaTableError) -> Self {
        move |source| Self::Delta { table: table.to_owned(), doing, source: Box::new(source) }
    }

    /// What to do next, when there is something to say.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Refused { help, .. } => Some(help),
            _ => None,
        }
    }

    /// As the journal keeps it.
    pub fn to_failure(&self) -> Failure {
        let message = self.to_string();
        let failure = match self {
            Self::Location { .. }
            | Self::NotBuiltIn { .. }
            | Self::OtherType { .. }
            | Self::Batch { .. }
            | Self::Query(_)
            | Self::Refused { .. }
            | Self::Unwritable { .. } => Failure::permanent("history::refused", message),
            Self::File { .. } | Self::Busy { .. } | Self::Delta { .. } | Self::Journal(_) => {
                Failure::transient("history::unavailable", message)
            }
            Self::Postgres { source, .. } => Failure { message, ..(**source).clone() },
        };
        match self.help() {
            Some(help) => failure.with_help(help),
            None => failure,
        }
    }
}

impl From<DataFusionError> for HistoryError {
    fn from(error: DataFusionError) -> Self {
        Self::Query(Box::new(error))
    }
}
