//! Says what Lakebase costs: by project, branch, endpoint, day and label, and which days were unlike the others.
//!
//! Reads: `system.billing.usage` and `system.billing.list_prices`, by one statement on the connection's SQL
//! warehouse; names of projects, branches and endpoints. No compute of a branch is touched.
//! Changes: nothing.
//! Undo: nothing to undo.
//!
//! Costs are list prices: discounts are not in them. What the list has no price for is counted in its unit
//! and said not to be priced. Rows of a day arrive within about twelve hours; days that may miss some are
//! shown and not judged.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::kernel::{Failure, Risk, Span};
use crate::lakebase;
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::context::ReadContext;
use crate::tools::cost::{self, Amount, Anomaly, Line, Names, Part, Period, Reading, Unjudged};
use crate::tools::tool::{AnyTool, Family, HistoryRow, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(TrackCostAttribution));

struct TrackCostAttribution;

/// Which days, and how they are divided.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// How many days up to today.
    #[serde(default = "thirty")]
    #[schemars(range(min = 1, max = 365))]
    days: u32,
    /// All projects, and not only the one of the target.
    #[serde(default)]
    all_projects: bool,
    /// The keys of labels by which cost is divided; by default those that the projects have.
    #[serde(default)]
    tags: Option<Vec<String>>,
    /// How many of the newest complete days are judged.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 14))]
    judged_days: u32,
    /// Differences below this, in DBU or DSU, are never unusual.
    #[serde(default = "a_tenth")]
    least: f64,
    /// How long after its end a day's rows may still arrive.
    #[serde(default = "half_a_day")]
    settle: Span,
}

const fn thirty() -> u32 {
    30
}

const fn one() -> u32 {
    1
}

const fn a_tenth() -> f64 {
    0.1
}

const fn half_a_day() -> Span {
    Span::from_secs(12 * 3600)
}

/// Whose the cost is.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The first day.
    #[schemars(with = "String")]
    from: NaiveDate,
    /// The last day: today.
    #[schemars(with = "String")]
    to: NaiveDate,
    /// The last day whose rows should all have arrived.
    #[schemars(with = "String")]
    complete_through: NaiveDate,
    /// All of it.
    total: Amount,
    /// By project.
    by_project: Vec<Part>,
    /// By branch: `project/branch`.
    by_branch: Vec<Part>,
    /// By endpoint: `project/branch/endpoint`; storage has none.
    by_endpoint: Vec<Part>,
    /// By day, the newest first.
    by_day: Vec<Part>,
    /// By label: `key=value`. A thing with two labels counts under both.
    by_tag: Vec<Part>,
    /// Days that were unlike those before, the farthest first.
    anomalies: Vec<Anomaly>,
    /// What could not be judged, and why.
    not_judged: Vec<Unjudged>,
    /// What has no price, and what else could not be measured.
    not_measured: Vec<NotMeasured>,
    /// The last day that is recorded in the history.
    #[schemars(with = "Option<String>")]
    recorded_through: Option<NaiveDate>,
    /// The rows themselves: they go into the history, not into the output.
    #[serde(skip)]
    #[schemars(skip)]
    rows: Vec<HistoryRow>,
}

impl ReadTool for TrackCostAttribution {
    const META: ToolMeta = ToolMeta {
        name: "track_cost_attribution",
        family: Family::Health,
        risk: Risk::Low,
        revision: 1,
        summary: "Says what Lakebase costs, for whom, and which days were unlike the others",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;
    const EARLIER: u32 = 1;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let api = cx.lakebase()?;
        let projects = lakebase::projects(api).await?;
        let wanted = if params.all_projects { None } else { cx.target.project.as_deref() };
        let uid = wanted.map(|id| uid_of(&projects, id)).transpose()?;
        let of_projects = || {
            let meant = projects.iter().filter(|one| uid.is_none_or(|uid| one.uid == uid));
            let keys: BTreeSet<_> =
                meant.flat_map(|one| &one.status.custom_tags).map(|tag| tag.key.clone()).collect();
            keys.into_iter().collect()
        };
        let tags: Vec<String> = params.tags.clone().unwrap_or_else(of_projects);
        let period = Period::until(cx.clock.now(), params.days, params.settle);
        let lines = Reading { period, project: uid, tags: &tags }.read(api).await?;
        let names = Names::of(api, &projects, &lines).await?;
        let recorded = cx.earlier.first().and_then(|output| {
            serde_json::from_value(output.get("recorded_through")?.clone()).ok()
        });
        Ok(judge(&lines, &names, (period, &params), recorded))
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        output.rows.clone()
    }
}

fn uid_of<'a>(projects: &'a [lakebase::Project], id: &str) -> Result<&'a str, Failure> {
    projects.iter().find(|one| one.id() == id).map(|one| one.uid.as_str()).ok_or_else(|| {
        let known: Vec<_> = projects.iter().map(lakebase::Project::id).collect();
        Failure::permanent("cost::no_project", format!("there is no project `{id}`")).with_help(
            format!("there are: {}; `all_projects` takes all that were used", known.join(", ")),
        )
    })
}

fn judge(
    lines: &[Line],
    names: &Names,
    (period, params): (Period, &Params),
    recorded: Option<NaiveDate>,
) -> Output {
    let joined = |parts: &[&Option<String>]| {
        let parts: Option<Vec<_>> = parts.iter().map(|uid| names.owned(uid.as_deref())).collect();
        parts.map(|parts| parts.join("/"))
    };
    let mut by_day = cost::parts(lines, |line| Some(line.day.to_string()));
    by_day.sort_by(|one, two| two.name.cmp(&one.name));
    let keys: BTreeSet<&String> = lines.iter().flat_map(|line| line.tags.keys()).collect();
    let by_tag = keys
        .into_iter()
        .flat_map(|key| cost::parts(lines, |line| Some(format!("{key}={}", line.tags.get(key)?))));
    let (anomalies, not_judged) =
        cost::anomalies(lines, names, (period, params.judged_days, params.least));
    let mut unpriced: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.cost.is_none()) {
        *unpriced.entry((&line.sku, &line.unit)).or_default() += line.quantity;
    }
    let not_measured = unpriced.into_iter().map(|((sku, unit), quantity)| {
        let what = format!("the cost of {quantity:.6} {unit} of {sku}");
        NotMeasured::new(what, "system.billing.list_prices has no price for it")
    });
    let new = |line: &&Line| {
        line.day <= period.complete && recorded.is_none_or(|recorded| line.day > recorded)
    };
    Output {
        from: period.from,
        to: period.to,
        complete_through: period.complete,
        total: cost::total(lines),
        by_project: cost::parts(lines, |line| names.owned(line.project.as_deref())),
        by_branch: cost::parts(lines, |line| joined(&[&line.project, &line.branch])),
        by_endpoint: cost::parts(lines, |line| {
            joined(&[&line.project, &line.branch, &line.endpoint])
        }),
        by_day,
        by_tag: by_tag.collect(),
        anomalies,
        not_judged,
        not_measured: not_measured.collect(),
        recorded_through: Some(recorded.map_or(period.complete, |day| day.max(period.complete))),
        rows: lines.iter().filter(new).map(|line| row(line, names)).collect(),
    }
}

fn row(line: &Line, names: &Names) -> HistoryRow {
    let start = format!("{}T00:00:00Z", line.day);
    let end = line.day.succ_opt().unwrap_or(line.day);
    HistoryRow {
        table: "cost_attribution".to_owned(),
        row: json!({
            "project_id": names.owned(line.project.as_deref()),
            "branch_id": names.owned(line.branch.as_deref()),
            "endpoint_id": names.owned(line.endpoint.as_deref()),
            "database_name": null,
            "sku_name": line.sku,
            "usage_unit": line.unit,
            "usage_quantity": line.quantity,
            "cost": line.cost.as_ref().map(|(cost, _)| cost),
            "currency": line.cost.as_ref().map(|(_, currency)| currency),
            "tags": line.tags,
            "period_start": start,
            "period_end": format!("{end}T00:00:00Z"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Timestamp;

    fn line(day: &str, endpoint: Option<&str>, cost: Option<f64>) -> Line {
        Line {
            day: day.parse().unwrap(),
            sku: "COMPUTE".into(),
            unit: "DBU".into(),
            quantity: 2.0,
            cost: cost.map(|cost| (cost, "USD".to_owned())),
            project: Some("p1".into()),
            branch: Some("b1".into()),
            endpoint: endpoint.map(str::to_owned),
            tags: [("team".to_owned(), "a".to_owned())].into(),
        }
    }

    #[test]
    fn a_day_is_recorded_once_it_is_complete_and_once() {
        let now = Timestamp::parse("2026-11-27T13:00:00Z").unwrap();
        let params: Params = serde_json::from_value(json!({})).unwrap();
        let period = Period::until(now, 30, params.settle);
        let lines = [
            line("2026-11-25", Some("e1"), Some(1.0)),
            line("2026-11-26", None, None),
            line("2026-11-27", None, None),
        ];
        let output = judge(&lines, &Names::default(), (period, &params), None);
        assert_eq!(output.rows.len(), 2, "today is not over");
        assert_eq!(output.rows.iter().try_for_each(crate::history::check), Ok(()));
        assert_eq!(output.by_endpoint[0].name, "p1/b1/e1");
        assert_eq!((output.by_day.len(), output.by_tag[0].name.as_str()), (3, "team=a"));
        assert_eq!(output.not_measured.len(), 1);
        assert!(output.not_measured[0].what.contains("4.000000 DBU"), "{:?}", output.not_measured);
        let again = judge(&lines, &Names::default(), (period, &params), output.recorded_through);
        assert!(again.rows.is_empty());
        let none = judge(&[], &Names::default(), (period, &params), None);
        assert!(none.total.list_cost.is_empty() && none.by_branch.is_empty());
    }
}
