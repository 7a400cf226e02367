//! Freshness and cold-data policies.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::Span;

/// How old synced data may be before it counts as stale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Freshness {
    /// For tables that are synced continuously.
    pub continuous: Span,
    /// For tables that are synced in batches.
    pub batch: Span,
    /// For single tables, by `schema.table`.
    pub tables: BTreeMap<String, Span>,
}

/// What counts as cold, and what happens to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ColdData {
    /// Rows that were not touched for so long are cold.
    pub after: Span,
    /// Tables with fewer rows are left alone.
    pub min_rows: u64,
    /// Whether rows are deleted once their archive was read back and compared.
    pub delete_after_archive: bool,
    /// Whether a view that unites hot and cold rows is made.
    pub unified_view: bool,
    /// For single tables, by `schema.table`: what differs from the above.
    pub tables: BTreeMap<String, ColdTable>,
}

/// What differs for one table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ColdTable {
    /// Rows that were not touched for so long are cold.
    pub after: Option<Span>,
    /// The column that says when a row was touched last.
    pub column: Option<String>,
    /// Whether rows are deleted once their archive was read back and compared.
    pub delete_after_archive: Option<bool>,
}

impl Default for Freshness {
    fn default() -> Self {
        Self {
            continuous: Span::from_secs(3600),
            batch: Span::from_secs(24 * 3600),
            tables: BTreeMap::new(),
        }
    }
}

impl Default for ColdData {
    fn default() -> Self {
        Self {
            after: Span::from_secs(90 * 24 * 3600),
            min_rows: 100_000,
            delete_after_archive: true,
            unified_view: true,
            tables: BTreeMap::new(),
        }
    }
}
