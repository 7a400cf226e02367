//! Compares how much a table and its copy hold, and how old the copy is.
//!
//! Reads: both sides, piece by piece, up to the newest moment that both have: what came since then is lag
//! and no loss.
//! Changes: nothing.
//! Undo: nothing to undo.

use chrono::{DateTime, NaiveDateTime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::config::policies::Freshness;
use crate::kernel::{Failure, Risk, SqlFile};
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::analysis::number::{rounded, share};
use crate::tools::context::ReadContext;
use crate::tools::sync::{COLUMNS, Opened, Place, Totals};
use crate::tools::tool::{AnyTool, Family, HistoryRow, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(ValidateSyncCompleteness));

struct ValidateSyncCompleteness;

/// What is compared, and what is tolerated.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The table.
    source: Place,
    /// Its copy.
    target: Place,
    /// The column that says when a row was touched last; without one nothing is known about lag.
    #[serde(default = "updated_at")]
    timestamp_column: Option<String>,
    /// How it is synced: what counts as stale follows from the configuration.
    #[serde(default)]
    mode: Mode,
    /// So many rows may differ.
    #[serde(default = "a_thousand")]
    max_drift: u64,
    /// Of small tables not more than this share may differ, either.
    #[serde(default = "a_hundredth")]
    max_drift_ratio: f64,
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the type of the field")]
fn updated_at() -> Option<String> {
    Some("updated_at".to_owned())
}

const fn a_thousand() -> u64 {
    1_000
}

const fn a_hundredth() -> f64 {
    0.01
}

/// How a table is synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// All the time.
    #[default]
    Continuous,
    /// From time to time.
    Batch,
}

/// How the two compare.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// The table.
    source_table: String,
    /// Its copy.
    target_table: String,
    /// `healthy`, `drift_detected` or `stale`.
    status: Status,
    /// Rows of the source up to the cut.
    source_count: u64,
    /// Rows of the target up to the cut.
    target_count: u64,
    /// The difference of the two.
    count_drift: u64,
    /// The newest moment of the source, UTC.
    source_max_ts: Option<String>,
    /// The newest moment of the target, UTC.
    target_max_ts: Option<String>,
    /// The newest moment that both have; rows since then were not counted.
    cut: Option<String>,
    /// How far the target is behind the source.
    freshness_lag_seconds: Option<f64>,
    /// How far it may be behind.
    freshness_limit_seconds: f64,
    /// What could not be measured.
    not_measured: Vec<NotMeasured>,
}

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// Nothing is missing and nothing is old.
    Healthy,
    /// Rows are missing, or there are too many.
    DriftDetected,
    /// The target is too far behind.
    Stale,
}

impl ReadTool for ValidateSyncCompleteness {
    const META: ToolMeta = ToolMeta {
        name: "validate_sync_completeness",
        family: Family::Health,
        risk: Risk::Low,
        revision: 1,
        summary: "Compares how much a table and its copy hold, and how old the copy is",
        sql: SQL,
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let source = Opened::at(cx, &params.source).await?;
        let target = Opened::at(cx, &params.target).await?;
        let measured = measure(&source, &target, params.timestamp_column.as_deref()).await;
        source.close().await;
        target.close().await;
        Ok(judge(&params, measured?, &cx.settings.freshness))
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        let moment = |text: &Option<String>| text.as_ref().map(|text| format!("{text}Z"));
        let row = json!({
            "source_table": output.source_table,
            "target_table": output.target_table,
            "source_count": output.source_count,
            "target_count": output.target_count,
            "count_drift": output.count_drift,
            "source_max_ts": moment(&output.source_max_ts),
            "target_max_ts": moment(&output.target_max_ts),
            "freshness_lag_seconds": output.freshness_lag_seconds,
            "status": output.status,
        });
        vec![HistoryRow { table: "sync_validation_history".to_owned(), row }]
    }
}

const SQL: &[&SqlFile] = &[&COLUMNS];

/// Both sides as they are, and both up to the cut.
struct Measured {
    newest: (Totals, Totals),
    counted: (Totals, Totals),
    cut: Option<String>,
}

async fn measure(
    source: &Opened,
    target: &Opened,
    moment: Option<&str>,
) -> Result<Measured, Failure> {
    let newest = futures::try_join!(source.totals(moment, None), target.totals(moment, None))?;
    let cut = newest.0.newest.clone().zip(newest.1.newest.clone()).map(|(a, b)| a.min(b));
    let counted = match &cut {
        None => newest.clone(),
        Some(cut) => {
            let cut = Some(cut.as_str());
            futures::try_join!(source.totals(moment, cut), target.totals(moment, cut))?
        }
    };
    Ok(Measured { newest, counted, cut })
}

fn judge(params: &Params, measured: Measured, freshness: &Freshness) -> Output {
    let Measured { newest, counted, cut } = measured;
    let lag = newest.0.newest.as_deref().zip(newest.1.newest.as_deref()).and_then(behind);
    let limit = freshness.tables.get(&params.source.table).unwrap_or(match params.mode {
        Mode::Continuous => &freshness.continuous,
        Mode::Batch => &freshness.batch,
    });
    let (source, target) = (counted.0.rows, counted.1.rows);
    let drift = source.abs_diff(target);
    let drifts =
        drift > params.max_drift || share(drift, source.max(target)) > params.max_drift_ratio;
    let limit = limit.0.as_secs_f64();
    // An empty copy of a table that has rows is the oldest of all.
    let is_stale = lag.is_some_and(|lag| lag > limit)
        || newest.0.newest.is_some() && newest.1.newest.is_none();
    let status = match (is_stale, drifts) {
        (true, _) => Status::Stale,
        (false, true) => Status::DriftDetected,
        (false, false) => Status::Healthy,
    };
    let mut not_measured = Vec::new();
    if lag.is_none() {
        let why = match &params.timestamp_column {
            None => "no column says when a row was touched last".to_owned(),
            Some(column) => format!("`{column}` has no value on one of the two sides"),
        };
        not_measured.push(NotMeasured::new("freshness_lag_seconds", why));
    }
    Output {
        source_table: params.source.to_string(),
        target_table: params.target.to_string(),
        status,
        source_count: source,
        target_count: target,
        count_drift: drift,
        source_max_ts: newest.0.newest,
        target_max_ts: newest.1.newest,
        cut,
        freshness_lag_seconds: lag.map(rounded),
        freshness_limit_seconds: limit,
        not_measured,
    }
}

/// How many seconds the second moment is behind the first.
fn behind((source, target): (&str, &str)) -> Option<f64> {
    let moment = |text: &str| -> Option<DateTime<chrono::Utc>> {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok().map(|at| at.and_utc())
    };
    let lag = moment(source)? - moment(target)?;
    Some(lag.to_std().map_or(0.0, |lag| lag.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(rows: (u64, u64), newest: (Option<&str>, Option<&str>)) -> Output {
        let totals =
            |rows, newest: Option<&str>| Totals { rows, newest: newest.map(str::to_owned) };
        let both = || (totals(rows.0, newest.0), totals(rows.1, newest.1));
        let params = json!({"source": {"table": "public.a"}, "target": {"table": "public.b"}});
        let params = serde_json::from_value(params).unwrap();
        let measured = Measured { newest: both(), counted: both(), cut: None };
        judge(&params, measured, &Freshness::default())
    }

    #[test]
    fn drift_and_age_are_two_things() {
        let (noon, later) = (Some("2026-01-01T12:00:00"), Some("2026-01-01T13:00:00.5"));
        let status = |rows, newest| judged(rows, newest).status;
        assert_eq!(status((100_000, 99_000), (noon, noon)), Status::Healthy);
        assert_eq!(status((200_000, 198_999), (noon, noon)), Status::DriftDetected);
        assert_eq!(status((100, 98), (noon, noon)), Status::DriftDetected, "a small table");
        let stale = judged((100, 100), (later, noon));
        assert_eq!((stale.status, stale.freshness_lag_seconds), (Status::Stale, Some(3_600.5)));
        assert_eq!(status((100, 100), (noon, later)), Status::Healthy, "the copy is ahead");
        assert_eq!(status((100, 0), (noon, None)), Status::Stale);
        let unknown = judged((5, 5), (None, None));
        assert_eq!((unknown.status, unknown.not_measured.len()), (Status::Healthy, 1));
    }

    #[test]
    fn a_comparison_fits_its_table() {
        let rows =
            ValidateSyncCompleteness.history(&judged((5, 5), (Some("2026-01-01T12:00:00"), None)));
        assert_eq!(rows.iter().try_for_each(crate::history::check), Ok(()));
    }
}
