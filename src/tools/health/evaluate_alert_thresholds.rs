//! Turns measured numbers into alerts: what fires, what is over, and what people are to be told.
//!
//! Reads: its own last answer, which holds the state of every alert. No database.
//! Changes: nothing.
//! Undo: nothing to undo.
//!
//! The levels are those of the configuration (`[thresholds]`); [`alert`](crate::tools::analysis::alert)
//! says how a number becomes an alert. A metric that this call says nothing about keeps its state, so a
//! frequent look at few numbers and a rare look at all of them can share their alerts.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::settings::{Threshold, Window};
use crate::config::window;
use crate::kernel::{Failure, Risk, Severity, Span, Target, Timestamp};
use crate::tools::analysis::alert::{Alert, Patience, Seen, State, Turn, step};
use crate::tools::analysis::level::Level;
use crate::tools::analysis::number::rounded;
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(EvaluateAlertThresholds));

struct EvaluateAlertThresholds;

/// Numbers, and how patient their alerts are.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The numbers by metric, as `monitor_system_health` returns them.
    metrics: BTreeMap<String, Reading>,
    /// Levels that differ from the configured ones, by metric.
    #[serde(default)]
    thresholds: BTreeMap<String, Threshold>,
    /// How long a number must be beyond its level before its alert fires.
    #[serde(default)]
    hold: Span,
    /// The same for single metrics.
    #[serde(default)]
    holds: BTreeMap<String, Span>,
    /// How long a number must be back before its alert is over.
    #[serde(default)]
    clear: Span,
    /// How much further than its level a number must come back, as a share of the distance between its
    /// two levels.
    #[serde(default = "a_tenth")]
    margin: f64,
    /// How often people are told again of what is critical; by default once.
    #[serde(default)]
    remind: Option<Span>,
    /// When people are not told.
    #[serde(default)]
    silences: Vec<Silence>,
    /// Weekly stretches of time in which people are not told.
    #[serde(default)]
    maintenance: Vec<Window>,
}

const fn a_tenth() -> f64 {
    0.1
}

/// A number.
#[derive(Deserialize, JsonSchema)]
struct Reading {
    /// The number; absent when it could not be measured.
    value: Option<f64>,
    /// What it belongs to, such as the worst table.
    #[serde(default)]
    detail: Option<String>,
}

/// A stretch of time in which people are not told.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Silence {
    /// The metric; `name*` is every one that begins with `name`, `*` every one.
    #[serde(default = "every")]
    metric: String,
    /// Its begin; by default it has begun.
    #[serde(default)]
    from: Option<Timestamp>,
    /// Its end.
    until: Timestamp,
    /// Why.
    reason: String,
}

fn every() -> String {
    "*".to_owned()
}

/// The alerts after this look.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// Whether there is anything to tell.
    act: bool,
    /// The worst level that holds.
    level: Level,
    /// What people are to be told, the worst first.
    transitions: Vec<Transition>,
    /// The metrics whose alerts fire, the worst first.
    firing: Vec<String>,
    /// Those of them that people are not told about at present.
    silenced: Vec<String>,
    /// Metrics that could not be measured; their alerts stay as they were.
    not_measured: Vec<String>,
    /// Every alert that is not quiet: what the next look goes on from.
    alerts: Vec<Alert>,
    /// When this was.
    at: Timestamp,
}

/// What people are to be told about one alert.
#[derive(Debug, Serialize, JsonSchema)]
struct Transition {
    /// The metric.
    metric: String,
    /// What happened.
    turn: Turn,
    /// The level that holds now.
    level: Level,
    /// How bad it is; `info` when it is over.
    severity: Severity,
    /// The number.
    value: Option<f64>,
    /// The level at which people are warned.
    warning: f64,
    /// The level at which someone must act.
    critical: f64,
    /// What the number belongs to.
    detail: Option<String>,
    /// Since when the level holds.
    since: Option<Timestamp>,
    /// The same for every message about this alert, from its begin to its end and for the next time.
    dedup_key: String,
    /// One line.
    title: String,
}

impl ReadTool for EvaluateAlertThresholds {
    const META: ToolMeta = ToolMeta {
        name: "evaluate_alert_thresholds",
        family: Family::Health,
        risk: Risk::Low,
        revision: 1,
        summary: "Turns measured numbers into alerts that fire and resolve",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;
    // The state of every alert stands in the last answer.
    const EARLIER: u32 = 1;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let mut thresholds = cx.settings.thresholds.clone();
        thresholds.extend(params.thresholds.iter().map(|(name, level)| (name.clone(), *level)));
        judge(&params, &thresholds, &earlier_alerts(cx.earlier), (cx.target, cx.clock.now()))
    }
}

fn earlier_alerts(earlier: &[Value]) -> Vec<Alert> {
    let alerts = earlier.first().and_then(|output| output.get("alerts")).cloned();
    alerts.and_then(|alerts| serde_json::from_value(alerts).ok()).unwrap_or_default()
}

fn judge(
    params: &Params,
    thresholds: &BTreeMap<String, Threshold>,
    earlier: &[Alert],
    (target, now): (&Target, Timestamp),
) -> Result<Output, Failure> {
    let maintenance = under_maintenance(&params.maintenance, now)?;
    let mut alerts: BTreeMap<&str, Alert> =
        earlier.iter().map(|alert| (alert.metric.as_str(), alert.clone())).collect();
    let (mut transitions, mut not_measured) = (Vec::new(), Vec::new());
    for (metric, reading) in &params.metrics {
        let Some(threshold) = thresholds.get(metric) else { continue };
        if reading.value.is_none() {
            not_measured.push(metric.clone());
        }
        let silence = maintenance.or_else(|| silence(&params.silences, metric, now));
        let (value, detail) = (reading.value, reading.detail.as_deref());
        let patience = params.patience(metric);
        let seen = Seen { metric, value, detail, silence };
        let (alert, turn) = step(alerts.get(metric.as_str()), seen, (*threshold, &patience), now);
        transitions.extend(turn.map(|turn| transition(&alert, turn, *threshold, target)));
        alerts.insert(metric, alert);
    }
    transitions.sort_by_key(|turn| (std::cmp::Reverse(turn.level), turn.metric.clone()));
    let mut firing: Vec<&Alert> =
        alerts.values().filter(|alert| alert.level > Level::Normal).collect();
    firing.sort_by_key(|alert| (std::cmp::Reverse(alert.level), &alert.metric));
    let names = |alerts: &[&Alert]| alerts.iter().map(|alert| alert.metric.clone()).collect();
    let silenced: Vec<_> = firing.iter().copied().filter(|a| a.silenced.is_some()).collect();
    Ok(Output {
        act: !transitions.is_empty(),
        level: firing.first().map_or(Level::Normal, |alert| alert.level),
        firing: names(&firing),
        silenced: names(&silenced),
        transitions,
        not_measured,
        alerts: alerts.into_values().filter(|alert| !is_quiet(alert)).collect(),
        at: now,
    })
}

impl Params {
    fn patience(&self, metric: &str) -> Patience {
        Patience {
            hold: self.holds.get(metric).unwrap_or(&self.hold).0,
            clear: self.clear.0,
            margin: self.margin,
            remind: self.remind.map(|span| span.0),
        }
    }
}

fn under_maintenance(windows: &[Window], now: Timestamp) -> Result<Option<&'static str>, Failure> {
    let open = !windows.is_empty() && window::state(windows, now)?["open"] == Value::Bool(true);
    Ok(open.then_some("maintenance"))
}

fn silence<'a>(silences: &'a [Silence], metric: &str, now: Timestamp) -> Option<&'a str> {
    let covers = |silence: &&Silence| {
        let named = match silence.metric.strip_suffix('*') {
            Some(start) => metric.starts_with(start),
            None => metric == silence.metric,
        };
        named && silence.from.is_none_or(|from| from <= now) && now < silence.until
    };
    silences.iter().find(covers).map(|silence| silence.reason.as_str())
}

/// Nothing of it is needed to go on.
fn is_quiet(alert: &Alert) -> bool {
    alert.state == State::Normal && alert.level == Level::Normal && alert.told == Level::Normal
}

fn transition(alert: &Alert, turn: Turn, threshold: Threshold, target: &Target) -> Transition {
    let severity = match (turn, alert.level) {
        (Turn::Resolved, _) => Severity::Info,
        (_, Level::Critical) => Severity::Critical,
        _ => Severity::Warning,
    };
    let metric = alert.metric.clone();
    let value = alert.value.map_or_else(|| "not measured".to_owned(), |v| rounded(v).to_string());
    let limit = if alert.level == Level::Critical { threshold.critical } else { threshold.warning };
    let of = alert.detail.as_ref().map(|detail| format!(", {detail}")).unwrap_or_default();
    let title = match turn {
        Turn::Resolved => format!("{metric} is back to normal: {value}{of}"),
        Turn::Fired | Turn::Worsened => format!("{metric} is {value}, beyond {limit}{of}"),
        Turn::Eased => format!("{metric} is better, and still beyond {limit}: {value}{of}"),
        Turn::Reminded => format!("{metric} is still {value}, beyond {limit}{of}"),
    };
    Transition {
        dedup_key: format!("{target}/{metric}"),
        metric,
        turn,
        level: alert.level,
        severity,
        value: alert.value,
        warning: threshold.warning,
        critical: threshold.critical,
        detail: alert.detail.clone(),
        since: alert.since,
        title,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Settings;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn look(params: Value, earlier: &[Value], now: &str) -> Value {
        let params: Params = serde_json::from_value(params).unwrap();
        let thresholds = Settings::default().thresholds;
        let target = Target { project: Some("shop".into()), ..Target::default() };
        let output = judge(&params, &thresholds, &earlier_alerts(earlier), (&target, at(now)));
        serde_json::to_value(output.unwrap()).unwrap()
    }

    fn numbers(utilization: f64) -> Value {
        json!({"metrics": {
            "connection_utilization": {"value": utilization, "unit": "ratio", "level": "normal",
                "detail": "86 of 100"},
            "cache_hit_ratio": {"value": null, "unit": "ratio", "level": "not_measured"},
            "active_sessions": {"value": 1e9, "unit": "count", "level": "normal"},
        }})
    }

    #[test]
    fn an_alert_lives_in_the_answers() {
        let first = look(numbers(0.86), &[], "2026-01-01T00:00:00Z");
        assert_eq!((&first["act"], &first["level"]), (&json!(true), &json!("critical")));
        assert_eq!(first["firing"], json!(["connection_utilization"]), "without a level no alert");
        let turn = &first["transitions"][0];
        assert_eq!((&turn["turn"], &turn["severity"]), (&json!("fired"), &json!("critical")));
        assert_eq!(turn["title"], "connection_utilization is 0.86, beyond 0.85, 86 of 100");
        assert_eq!(first["not_measured"], json!(["cache_hit_ratio"]));

        // A look at other numbers keeps it; one that says the same says nothing new.
        let other =
            look(json!({"metrics": {}}), std::slice::from_ref(&first), "2026-01-01T00:01:00Z");
        assert_eq!((&other["act"], &other["level"]), (&json!(false), &json!("critical")));
        let again = look(numbers(0.87), &[other], "2026-01-01T00:02:00Z");
        assert_eq!(again["transitions"], json!([]));
        let over = look(numbers(0.2), &[again], "2026-01-01T00:03:00Z");
        assert_eq!(over["transitions"][0]["turn"], "resolved");
        assert_eq!(over["transitions"][0]["dedup_key"], turn["dedup_key"]);
        assert_eq!((&over["alerts"], &over["firing"]), (&json!([]), &json!([])));
    }

    #[test]
    fn nobody_is_told_in_a_silence_or_a_window() {
        let mut silent = numbers(0.9);
        silent["silences"] = json!([
            {"metric": "connection*", "until": "2026-01-01T01:00:00Z", "reason": "load test"},
        ]);
        let quiet = look(silent.clone(), &[], "2026-01-01T00:00:00Z");
        assert_eq!((&quiet["act"], &quiet["level"]), (&json!(false), &json!("critical")));
        assert_eq!(quiet["silenced"], json!(["connection_utilization"]));
        let later = look(silent, &[quiet], "2026-01-01T01:00:00Z");
        assert_eq!(later["transitions"][0]["turn"], "fired");
        let mut window = numbers(0.9);
        window["maintenance"] = json!([{"days": ["thu"], "from": "00:00", "to": "02:00"}]);
        assert_eq!(look(window.clone(), &[], "2026-01-01T00:30:00Z")["act"], false);
        assert_eq!(look(window, &[], "2026-01-01T02:30:00Z")["act"], true);
    }
}
