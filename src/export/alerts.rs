//! Thresholds as alerts of Databricks SQL, over the history in Unity Catalog. PURE.
//!
//! They look at what was measured and recorded, and so work when no server of ours does.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::settings::{Settings, Threshold};

/// How old a measurement may be to count; collection runs every five minutes.
const WINDOW: &str = "INTERVAL 10 MINUTES";
/// The same for syncs, which are validated every quarter of an hour.
const SYNC_WINDOW: &str = "INTERVAL 30 MINUTES";

/// An alert, as the Alerts API v2 takes it.
#[derive(Clone, Debug, Serialize)]
pub struct Alert {
    /// Its name.
    pub display_name: String,
    /// The query.
    pub query_text: String,
    /// The warehouse that runs it.
    pub warehouse_id: String,
    /// When it is triggered.
    pub evaluation: Evaluation,
    /// When it is looked at.
    pub schedule: Schedule,
    /// What people read.
    pub custom_summary: String,
}

/// When an alert is triggered.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// The column.
    pub source: Source,
    /// How it is compared.
    pub comparison_operator: &'static str,
    /// With what.
    pub threshold: Limit,
    /// What no row means.
    pub empty_result_state: &'static str,
    /// Who is told.
    pub notification: Notification,
}

/// A column and its aggregation.
#[derive(Clone, Debug, Serialize)]
pub struct Source {
    /// The column.
    pub name: &'static str,
    /// The aggregation.
    pub aggregation: &'static str,
}

/// `threshold`.
#[derive(Clone, Debug, Serialize)]
pub struct Limit {
    /// The value.
    pub value: LimitValue,
}

/// The value of a threshold.
#[derive(Clone, Debug, Serialize)]
pub struct LimitValue {
    /// A number.
    pub double_value: f64,
}

/// Who is told, and how often.
#[derive(Clone, Debug, Serialize)]
pub struct Notification {
    /// Whether people are told that it is over.
    pub notify_on_ok: bool,
    /// After how long they are told again.
    pub retrigger_seconds: u64,
    /// Who.
    pub subscriptions: Vec<Subscription>,
}

/// One receiver.
#[derive(Clone, Debug, Serialize)]
pub struct Subscription {
    /// A notification destination of the workspace.
    pub destination_id: String,
}

/// `schedule`: its cron has another name than that of a job.
#[derive(Clone, Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the API")]
pub struct Schedule {
    /// Six fields.
    pub quartz_cron_schedule: &'static str,
    /// An IANA zone.
    pub timezone_id: &'static str,
    /// `UNPAUSED`; a target in development mode pauses it.
    pub pause_status: &'static str,
}

/// Where the history is, who runs the queries, and who is told.
#[derive(Clone, Debug)]
pub struct Places {
    /// The catalogue.
    pub catalog: String,
    /// The schema.
    pub schema: String,
    /// The warehouse.
    pub warehouse: String,
    /// The notification destination.
    pub destination: String,
    /// After how long the same is told again, in seconds.
    pub repeat_after: u64,
}

impl Places {
    fn table(&self, name: &str) -> String {
        format!("{}.{}.{name}", self.catalog, self.schema)
    }
}

/// What an alert asks.
struct Question {
    title: String,
    /// It calls its figure `value`.
    query: String,
    /// Whether less is worse.
    less: bool,
    limit: f64,
    summary: &'static str,
}

/// The alerts by their keys: a warning and a critical one for each threshold, and those about syncs, about
/// messages of ours and about collection itself.
pub fn alerts(settings: &Settings, places: &Places) -> BTreeMap<String, Alert> {
    let mut found = BTreeMap::new();
    for (metric, threshold) in settings.thresholds.iter().filter(|(name, _)| is_plain(name)) {
        for (level, limit) in [("warning", threshold.warning), ("critical", threshold.critical)] {
            let question = measured(metric, (level, limit), *threshold, places);
            found.insert(format!("{metric}_{level}"), alert(places, question));
        }
    }
    let freshness = settings.freshness.continuous.0.as_secs_f64();
    let stale = Question {
        title: "lakeops: a synced table is stale".to_owned(),
        query: format!(
            "SELECT freshness_lag_seconds AS value FROM {} WHERE validated_at >= current_timestamp() - {SYNC_WINDOW}",
            places.table("sync_validation_history")
        ),
        less: false,
        limit: freshness,
        summary: "the source is ahead of its copy by more seconds than `[freshness] continuous` allows",
    };
    found.insert("sync_freshness".to_owned(), alert(places, stale));
    for severity in ["warning", "critical"] {
        let told = Question {
            title: format!("lakeops: a {severity} message"),
            query: format!(
                "SELECT count(*) AS value FROM {} WHERE severity = '{severity}' AND raised_at >= \
                 current_timestamp() - {WINDOW}",
                places.table("alerts")
            ),
            less: false,
            limit: 0.0,
            summary: "lakeops told people something: the table `alerts` of the history has it",
        };
        found.insert(format!("message_{severity}"), alert(places, told));
    }
    let stopped = Question {
        title: "lakeops: nothing is collected any more".to_owned(),
        query: format!(
            "SELECT count(*) AS value FROM {} WHERE workflow = 'collect_metrics' AND finished_at >= \
             current_timestamp() - {SYNC_WINDOW}",
            places.table("workflow_runs")
        ),
        less: true,
        limit: 1.0,
        summary: "no run of `collect_metrics` has ended in half an hour: what is not measured is not good",
    };
    found.insert("collection_stopped".to_owned(), alert(places, stopped));
    found
}

/// Whether the name of a metric can stand in a query and in a key as it is.
pub(super) fn is_plain(metric: &str) -> bool {
    !metric.is_empty()
        && metric
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

fn measured(
    metric: &str,
    (level, limit): (&str, f64),
    threshold: Threshold,
    places: &Places,
) -> Question {
    Question {
        title: format!("lakeops: {metric} is {level}"),
        query: format!(
            "SELECT metric_value AS value FROM {} WHERE metric_name = '{metric}' AND \
             snapshot_timestamp >= current_timestamp() - {WINDOW}",
            places.table("lakebase_metrics")
        ),
        less: threshold.critical < threshold.warning,
        limit,
        summary: "a number is beyond its level: `lakeops history chart METRIC` draws it",
    }
}

fn alert(places: &Places, question: Question) -> Alert {
    // The worst of all targets counts.
    let (aggregation, comparison_operator) =
        if question.less { ("MIN", "LESS_THAN") } else { ("MAX", "GREATER_THAN") };
    Alert {
        display_name: question.title,
        query_text: question.query,
        warehouse_id: places.warehouse.clone(),
        evaluation: Evaluation {
            source: Source { name: "value", aggregation },
            comparison_operator,
            threshold: Limit { value: LimitValue { double_value: question.limit } },
            // Nothing is measured while a compute sleeps; `collection_stopped` tells when nothing is at all.
            empty_result_state: "OK",
            notification: Notification {
                notify_on_ok: true,
                retrigger_seconds: places.repeat_after,
                subscriptions: vec![Subscription { destination_id: places.destination.clone() }],
            },
        },
        schedule: Schedule {
            quartz_cron_schedule: "0 0/5 * * * ?",
            timezone_id: "UTC",
            pause_status: "UNPAUSED",
        },
        custom_summary: question.summary.to_owned(),
    }
}
