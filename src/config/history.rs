//! `[history]`: where measurements and findings are kept, and how long.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::Span;

const DAY: u64 = 24 * 3600;

/// Where measurements and findings are kept, and how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryConfig {
    /// A folder, or `s3://…`, `abfss://…`, `gs://…` where that was built in. Not set: `history` in the
    /// state directory. Credentials come from the environment, as the tools of the store take them.
    pub location: Option<String>,
    /// How long measurements are kept.
    pub keep_measurements: Span,
    /// How long the audit, findings and what was done are kept.
    pub keep_audit: Span,
    /// How long large sets of rows stay in the journal after they came into the history. Of so much a history
    /// that was lost or moved is made again.
    pub keep_journaled: Span,
    /// How long the events of a run stay in the journal after it was over and the history has them; a day at
    /// least. Then it is sealed: its decisions and the links of the chain stay.
    pub keep_runs: Span,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            location: None,
            keep_measurements: Span::from_secs(90 * DAY),
            keep_audit: Span::from_secs(365 * DAY),
            keep_journaled: Span::from_secs(7 * DAY),
            keep_runs: Span::from_secs(365 * DAY),
        }
    }
}
