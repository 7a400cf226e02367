//! Says where storage, connections and other daily measurements go, when they reach their limits, and how
//! well such a forecast would have done before.
//!
//! Reads: the history of metrics, the server's limit of connections.
//! Changes: nothing.
//! Undo: nothing to undo.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kernel::{Bind, ByteSize, Failure, Query, Risk, Target, Timestamp};
use crate::tools::analysis::forecast::{Forecast, MOST_DAYS, Outlook, Point, forecast};
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::analysis::number::rounded;
use crate::tools::context::{ReadContext, ReadHistory};
use crate::tools::tool::{AnyTool, Family, HistoryRow, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(ForecastCapacityNeeds));

/// How far ahead a limit is looked for.
const FARTHEST_DAYS: u32 = 3_650;

const DAY: Duration = Duration::from_hours(24);

struct ForecastCapacityNeeds;

/// What is foretold.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// How many days ahead.
    #[serde(default = "a_month")]
    days_ahead: u32,
    /// The metrics of the history; each day counts by its highest value.
    #[serde(default = "capacity")]
    metrics: Vec<String>,
    /// The limits of metrics. That of `connections` is known where `max_connections` is recorded.
    #[serde(default)]
    limits: BTreeMap<String, f64>,
    /// The limit of `database_size_bytes`.
    #[serde(default = "eight_terabytes")]
    storage_limit: ByteSize,
}

const fn a_month() -> u32 {
    30
}

fn capacity() -> Vec<String> {
    ["database_size_bytes", "connections"].map(str::to_owned).to_vec()
}

/// The most that a Lakebase branch stores.
const fn eight_terabytes() -> ByteSize {
    ByteSize(8 << 40)
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// How many days ahead.
    forecast_period_days: u32,
    /// Each metric, the one that reaches its limit first before the others.
    forecasts: Vec<Told>,
    /// What could not be told, with the reason.
    not_measured: Vec<NotMeasured>,
}

/// Whether a limit is near.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// The limit is expected to be reached within the days that were asked for.
    ReachesLimit,
    /// It may be.
    MayReachLimit,
    /// It is not near.
    Fine,
    /// Nobody said what the limit is.
    NoLimit,
}

/// Where one metric goes.
#[derive(Debug, Serialize, JsonSchema)]
struct Told {
    /// The metric.
    metric: String,
    /// Whether its limit is near.
    verdict: Verdict,
    /// Its newest daily value.
    current: f64,
    /// What a day brings.
    slope_per_day: f64,
    /// What is expected at the end; nine futures of ten lie within its interval.
    predicted: Outlook,
    /// When that is.
    predicted_for: Timestamp,
    /// Its limit.
    limit: Option<f64>,
    /// The days until the limit is reached, as expected; absent when it is not, in ten years.
    days_to_limit: Option<f64>,
    /// The days until it is reached at the earliest, within the interval.
    days_to_limit_earliest: Option<f64>,
    /// The days of measurements that it was told from.
    points: usize,
    /// Since when, where something broke before.
    since: Option<Timestamp>,
    /// Whether weekdays differ.
    weekly: bool,
    /// The share of past days that such a forecast, made before them, held; absent with too few.
    backtest_coverage: Option<f64>,
    /// The median miss of those forecasts, as a share of the value.
    backtest_error: Option<f64>,
}

impl ReadTool for ForecastCapacityNeeds {
    const META: ToolMeta = ToolMeta {
        name: "forecast_capacity_needs",
        family: Family::Performance,
        risk: Risk::Low,
        revision: 1,
        summary: "Says when storage and connections reach their limits, with an interval",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let history = cx.history()?;
        let now = cx.clock.now();
        let mut series = BTreeMap::new();
        for metric in params.metrics.iter().map(String::as_str).chain(["max_connections"]) {
            series.insert(metric.to_owned(), daily(history, cx.target, metric, now).await?);
        }
        Ok(judge(&series, &params))
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        output.forecasts.iter().map(|told| history_row(told, output.forecast_period_days)).collect()
    }
}

/// The highest value of each day that is over, oldest first. A day that still runs would look low.
async fn daily(
    history: &dyn ReadHistory,
    target: &Target,
    metric: &str,
    now: Timestamp,
) -> Result<Vec<Point>, Failure> {
    let text = "select cast(day as varchar) as day, max(metric_value) as value \
         from lakebase_metrics where metric_name = $1 and metric_value is not null \
         and snapshot_timestamp >= $2 and snapshot_timestamp < $3 \
         and coalesce(project_id, '') = $4 and coalesce(branch_id, '') = $5 \
         and coalesce(database_name, '') = $6 group by day order by day";
    let today = midnight(now);
    let since = today.as_millis() - millis(DAY) * i64::try_from(MOST_DAYS).unwrap_or(0);
    let part = |part: &Option<String>| Bind::Text(part.clone().unwrap_or_default());
    let binds = vec![
        Bind::Text(metric.to_owned()),
        Bind::Timestamp(Timestamp::from_millis(since)),
        Bind::Timestamp(today),
        part(&target.project),
        part(&target.branch),
        part(&target.database),
    ];
    let rows = history.query(&Query::with_binds(text, binds)).await?;
    Ok(rows.iter().filter_map(point).collect())
}

fn point(row: &Value) -> Option<Point> {
    let day = row.get("day")?.as_str()?;
    let at = Timestamp::parse(&format!("{day}T00:00:00Z"))?;
    let value = row.get("value")?.as_f64()?;
    Some(Point { day: days(at), value })
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

fn midnight(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(at.as_millis().div_euclid(millis(DAY)) * millis(DAY))
}

/// Days since 1970.
#[expect(clippy::cast_precision_loss, reason = "days are few")]
fn days(at: Timestamp) -> f64 {
    at.as_millis().div_euclid(millis(DAY)) as f64
}

#[expect(clippy::cast_possible_truncation, reason = "days are few")]
fn timestamp(day: f64) -> Timestamp {
    Timestamp::from_millis(day as i64 * millis(DAY))
}

fn judge(series: &BTreeMap<String, Vec<Point>>, params: &Params) -> Output {
    let mut output = Output {
        forecast_period_days: params.days_ahead,
        forecasts: Vec::new(),
        not_measured: Vec::new(),
    };
    for metric in &params.metrics {
        let points = series.get(metric).map(Vec::as_slice).unwrap_or_default();
        match forecast(points) {
            Ok(found) => {
                let limit = limit(metric, series, params);
                output.forecasts.extend(told(metric, points, &found, (limit, params.days_ahead)));
            }
            Err(too_little) => {
                let what = NotMeasured::new(metric, too_little.to_string());
                output.not_measured.push(what.needs("schedule the workflow `collect_metrics`"));
            }
        }
    }
    let soonest = |told: &Told| told.days_to_limit_earliest.unwrap_or(f64::INFINITY);
    output.forecasts.sort_by(|one, two| {
        one.verdict.cmp(&two.verdict).then_with(|| soonest(one).total_cmp(&soonest(two)))
    });
    output
}

#[expect(clippy::cast_precision_loss, reason = "a limit needs no exact bytes")]
fn limit(metric: &str, series: &BTreeMap<String, Vec<Point>>, params: &Params) -> Option<f64> {
    let recorded = |name: &str| Some(series.get(name)?.last()?.value);
    params.limits.get(metric).copied().or_else(|| match metric {
        "database_size_bytes" => Some(params.storage_limit.0 as f64),
        "connections" => recorded("max_connections"),
        _ => None,
    })
}

fn told(
    metric: &str,
    points: &[Point],
    found: &Forecast,
    (limit, ahead): (Option<f64>, u32),
) -> Option<Told> {
    let last = points.last()?;
    let end = last.day + f64::from(ahead);
    let outlook = found.at(end);
    let (expected, earliest) =
        limit.map_or((None, None), |limit| found.reaches(limit, last.day, FARTHEST_DAYS));
    let within = |day: Option<f64>| day.is_some_and(|day| day <= end);
    let verdict = match limit {
        None => Verdict::NoLimit,
        Some(_) if within(expected) => Verdict::ReachesLimit,
        Some(_) if within(earliest) => Verdict::MayReachLimit,
        Some(_) => Verdict::Fine,
    };
    Some(Told {
        metric: metric.to_owned(),
        verdict,
        current: last.value,
        slope_per_day: rounded(found.slope),
        predicted: Outlook {
            value: rounded(outlook.value),
            lower: rounded(outlook.lower),
            upper: rounded(outlook.upper),
        },
        predicted_for: timestamp(end),
        limit,
        days_to_limit: expected.map(|day| day - last.day),
        days_to_limit_earliest: earliest.map(|day| day - last.day),
        points: found.points,
        since: found.broken_at.map(timestamp),
        weekly: found.weekly,
        backtest_coverage: found.coverage.map(rounded),
        backtest_error: found.error.map(rounded),
    })
}

fn history_row(told: &Told, horizon: u32) -> HistoryRow {
    let reached = |days: Option<f64>| {
        let end = days.map(|days| told.predicted_for.as_millis() + in_millis(days, horizon));
        end.map(Timestamp::from_millis)
    };
    HistoryRow {
        table: "capacity_forecasts".to_owned(),
        row: json!({
            "metric_name": told.metric,
            "method": if told.weekly { "theil_sen_weekly" } else { "theil_sen" },
            "verdict": told.verdict,
            "current_value": told.current,
            "slope_per_day": told.slope_per_day,
            "lower": told.predicted.lower,
            "upper": told.predicted.upper,
            "predicted": told.predicted.value,
            "limit_value": told.limit,
            "coverage": told.backtest_coverage,
            "points": told.points,
            "horizon_days": horizon,
            "predicted_for": told.predicted_for,
            "reaches_limit_at": reached(told.days_to_limit),
            "reaches_limit_earliest": reached(told.days_to_limit_earliest),
            "details": { "backtest_error": told.backtest_error, "since": told.since },
        }),
    }
}

/// From the end of the forecast to a day counted from its beginning.
#[expect(clippy::cast_possible_truncation, reason = "ten years at most")]
fn in_millis(days: f64, horizon: u32) -> i64 {
    (days - f64::from(horizon)) as i64 * millis(DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(days: u32, value: impl Fn(f64) -> f64) -> Vec<Point> {
        (0..days)
            .map(|day| {
                let day = f64::from(day);
                Point { day: 20_000.0 + day, value: value(day) + (day % 2.0) }
            })
            .collect()
    }

    fn judged(series: &BTreeMap<String, Vec<Point>>, params: &Value) -> Output {
        judge(series, &serde_json::from_value(params.clone()).unwrap())
    }

    #[test]
    fn limits_that_are_near_come_first() {
        let all = BTreeMap::from([
            ("database_size_bytes".to_owned(), series(40, |day| 1e9 + 1e6 * day)),
            ("connections".to_owned(), series(40, |day| 20.0 + 2.0 * day)),
            ("max_connections".to_owned(), series(40, |_| 109.0)),
        ]);
        let output = judged(&all, &json!({}));
        let told: Vec<_> =
            output.forecasts.iter().map(|it| (it.metric.as_str(), it.verdict)).collect();
        let expected =
            [("connections", Verdict::ReachesLimit), ("database_size_bytes", Verdict::Fine)];
        assert_eq!(told, expected);
        let connections = &output.forecasts[0];
        let days = connections.days_to_limit.unwrap();
        assert!((4.0..=8.0).contains(&days), "{connections:?}");
        assert!(connections.days_to_limit_earliest.unwrap() <= days);
        assert_eq!(connections.predicted_for, timestamp(20_000.0 + 39.0 + 30.0));
        let rows = ForecastCapacityNeeds.history(&output);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows.iter().try_for_each(crate::history::check), Ok(()));
    }

    #[test]
    fn too_little_is_said_and_not_guessed() {
        let few = BTreeMap::from([("connections".to_owned(), series(10, |day| day))]);
        let output = judged(&few, &json!({"metrics": ["connections"]}));
        assert!(output.forecasts.is_empty());
        assert!(output.not_measured[0].why.contains("10 days"), "{:?}", output.not_measured);
    }

    #[test]
    fn a_metric_may_have_a_limit_of_its_own() {
        let one = BTreeMap::from([("txid_age".to_owned(), series(30, |day| 1e6 * day))]);
        let asked = |limits: Value| {
            let params = json!({"metrics": ["txid_age"], "limits": limits});
            judged(&one, &params).forecasts[0].verdict
        };
        assert_eq!(asked(json!({})), Verdict::NoLimit);
        assert_eq!(asked(json!({"txid_age": 4e7})), Verdict::ReachesLimit);
        assert_eq!(asked(json!({"txid_age": 4e9})), Verdict::Fine);
    }
}
