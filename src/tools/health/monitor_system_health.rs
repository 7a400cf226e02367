//! Measures the health of the server and the database, each number with its level.
//!
//! Reads: sessions, locks, ages, table statistics; with `depth: full` also I/O, WAL, checkpoints,
//! sequences, replication and what holds old snapshots, as rates from two timed samples.
//! Changes: nothing.
//! Undo: nothing to undo.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::kernel::{Failure, Risk, Span};
use crate::tools::analysis::metric::Metric;
use crate::tools::context::ReadContext;
use crate::tools::health_state::{Depth, Health, SQL, look};
use crate::tools::tool::{AnyTool, Family, HistoryRow, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(MonitorSystemHealth));

struct MonitorSystemHealth;

/// How deep to look.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// `live`: one query, no waiting. `full`: everything, with rates over `interval`.
    #[serde(default)]
    depth: Depth,
    /// The time between the two samples that rates come from.
    #[serde(default = "one_second")]
    interval: Span,
    /// Tables with fewer dead rows do not count for the worst ratio.
    #[serde(default = "a_thousand")]
    min_dead_rows: u32,
}

const fn one_second() -> Span {
    Span::from_secs(1)
}

const fn a_thousand() -> u32 {
    1_000
}

impl ReadTool for MonitorSystemHealth {
    const META: ToolMeta = ToolMeta {
        name: "monitor_system_health",
        family: Family::Health,
        risk: Risk::Low,
        revision: 1,
        summary: "Measures the health of the server and the database",
        sql: SQL,
        secrets: &[],
    };
    type Params = Params;
    type Output = Health;
    // An hour of a run each five minutes.
    const EARLIER: u32 = 12;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Health, Failure> {
        look(cx, (params.depth, params.interval), params.min_dead_rows, cx.earlier).await
    }

    fn history(&self, output: &Health) -> Vec<HistoryRow> {
        let measured = output.metrics.iter().filter(|(_, metric)| metric.value.is_some());
        measured.map(|(name, metric)| history_row(name, metric)).collect()
    }
}

fn history_row(name: &str, metric: &Metric) -> HistoryRow {
    HistoryRow {
        table: "lakebase_metrics".to_owned(),
        row: json!({
            "metric_name": name,
            "metric_value": metric.value,
            "threshold_level": metric.level,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::analysis::level::Level;
    use crate::tools::analysis::metric::Unit;

    #[test]
    fn a_metric_fits_its_table() {
        let (value, unit, level) = (Some(0.5), Unit::Ratio, Level::Warning);
        let metric = Metric { value, unit, level, detail: None };
        let row = history_row("cache_hit_ratio", &metric);
        assert_eq!(crate::history::check(&row), Ok(()));
    }
}
