//! Rows that nobody touches any more: which they are, how they leave their table, and how they come back.
//!
//! A row leaves in two steps. First it is copied into the archive, which takes a batch in one commit,
//! exactly once. Then one transaction deletes the rows of the batch *that are still the versions that were
//! copied*, and writes a row of `lakeops.archived_batch`, which makes the copies visible, except for those
//! whose rows stayed. So at every moment each row is seen once: hot, or cold.
//!
//! What a version is: the row's text and the transaction that wrote it. A row that was changed and changed
//! back is another version.

mod batch;
mod copies;
mod table;
mod view;

pub(in crate::tools) use batch::{Batch, Bounds, archive, restore};
pub(in crate::tools) use copies::{
    BATCHES, BatchRow, batches, check, copies, is_ready, missing, readable,
};
#[cfg(test)]
pub(in crate::tools) use table::tests::orders;
pub(in crate::tools) use table::{COLUMNS, ColdTable, REFERENCES};
pub(in crate::tools) use view::{View, in_postgres, in_unity_catalog, literal};

use crate::kernel::SqlFile;
use crate::sql_file;

/// Whether the table of batches is there.
pub(in crate::tools) static READY: SqlFile = sql_file!("shared/archive_ready");
