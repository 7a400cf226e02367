//! Comparing a table with its copy: counts, freshness, and the very rows that differ.
//!
//! Nothing is locked and nothing long is open: tables are read block range by block range, each in a short
//! statement of its own. What such a look finds while both sides are at work can be a row on its way, so
//! differences count once they were seen twice.

mod encode;
mod keys;
mod side;

pub(in crate::tools) use keys::{Bucket, Differences, differences, differing};
pub(in crate::tools) use side::{COLUMNS, Opened, Place, Totals};
