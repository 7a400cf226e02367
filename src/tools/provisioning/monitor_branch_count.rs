//! Counts the branches of a project against the platform's limits.
//!
//! Reads: the project and its branches.
//! Changes: nothing.
//! Undo: nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::kernel::{Failure, Risk, Timestamp};
use crate::tools::branching::capacity::{
    MOST_BRANCHES, MOST_PROTECTED, MOST_ROOTS, MOST_UNARCHIVED,
};
use crate::tools::branching::place;
use crate::tools::branching::survey::{Known, Survey};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, HistoryRow, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(MonitorBranchCount));

struct MonitorBranchCount;

/// The limit, where it is another one.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// How many branches may be there that are not archived.
    #[serde(default = "most")]
    #[schemars(range(min = 1))]
    max_limit: usize,
}

const fn most() -> usize {
    MOST_UNARCHIVED
}

/// How many there are.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// The project.
    project_id: String,
    /// Branches that are not archived.
    branch_count: usize,
    /// How many of those may be there.
    max_limit: usize,
    /// The share that is taken, from 0 to 1.
    utilization: f64,
    /// `ok`, `warning` from 80 % on, `critical` from 90 % on.
    level: Level,
    /// Whether somebody should be told.
    alert_triggered: bool,
    /// Branches that are archived.
    archived: usize,
    /// All branches, of 500 at most.
    total: usize,
    /// Branches without a parent, of 3 at most.
    roots: usize,
    /// Branches that the platform protects, of 1 at most.
    protected: usize,
    /// Branches that neither stay for a reason nor expire.
    missing_ttl: Vec<String>,
    /// Branches that have expired and are still there.
    expired: Vec<String>,
    /// Branches whose parent is gone.
    orphans: Vec<String>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Level {
    /// There is room.
    Ok,
    /// There is little room.
    Warning,
    /// There is hardly any.
    Critical,
}

impl ReadTool for MonitorBranchCount {
    const META: ToolMeta = ToolMeta {
        name: "monitor_branch_count",
        family: Family::Provisioning,
        risk: Risk::Low,
        revision: 1,
        summary: "Counts branches against the platform's limits",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let project = place::project(cx.target)?;
        let survey = Survey::of(cx.lakebase()?, &project).await?;
        Ok(judge(&survey, params.max_limit, cx.clock.now()))
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        let level = if output.level == Level::Ok { None } else { Some(output.level) };
        let row = json!({
            "metric_name": "branch_count",
            "metric_value": output.branch_count,
            "threshold_level": level,
        });
        vec![HistoryRow { table: "lakebase_metrics".to_owned(), row }]
    }
}

fn judge(survey: &Survey, max_limit: usize, now: Timestamp) -> Output {
    let all = || survey.branches.iter();
    let named = |wanted: &dyn Fn(&Known) -> bool| -> Vec<String> {
        all().filter(|one| wanted(one)).map(|one| one.branch.id().to_owned()).collect()
    };
    let branch_count = survey.unarchived().count();
    let utilization = share(branch_count, max_limit);
    let fullest =
        [utilization, share(all().count(), MOST_BRANCHES)].into_iter().fold(0.0, f64::max);
    let roots = all().filter(|one| one.branch.is_root()).count();
    let protected = survey.protected().len();
    let beyond = roots > MOST_ROOTS || protected > MOST_PROTECTED;
    let level = match fullest {
        _ if beyond => Level::Critical,
        share if share >= 0.9 => Level::Critical,
        share if share >= 0.8 => Level::Warning,
        _ => Level::Ok,
    };
    Output {
        project_id: survey.project.clone(),
        branch_count,
        max_limit,
        utilization,
        level,
        alert_triggered: level != Level::Ok,
        archived: all().filter(|one| one.is_archived()).count(),
        total: all().count(),
        roots,
        protected,
        missing_ttl: named(&|one| {
            let status = &one.branch.status;
            status.expire_time.is_none() && !one.is_held()
        }),
        expired: named(&|one| one.branch.status.expire_time.is_some_and(|at| at <= now)),
        orphans: named(&|one| one.source().is_some_and(|source| survey.branch(source).is_none())),
    }
}

fn share(part: usize, whole: usize) -> f64 {
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    number(part) / number(whole.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::branching::survey::tests::{branch, survey};

    fn now() -> Timestamp {
        Timestamp::parse("2026-11-22T00:00:00Z").unwrap()
    }

    fn with(more: usize) -> Survey {
        let mut branches = vec![
            branch("production", None, &json!({"default": true, "is_protected": true})),
            branch("old", Some("production"), &json!({"current_state": "ARCHIVED"})),
        ];
        for number in 0..more {
            let id = format!("feat-{number}");
            let expires = json!({"expire_time": "2026-12-01T00:00:00Z"});
            branches.push(branch(&id, Some("production"), &expires));
        }
        survey(branches)
    }

    #[test]
    fn the_archived_are_not_counted() {
        let output = judge(&with(3), 10, now());
        assert_eq!((output.branch_count, output.archived, output.total), (4, 1, 5));
        assert_eq!((output.roots, output.protected), (1, 1));
        assert_eq!((output.level, output.alert_triggered), (Level::Ok, false));
        assert_eq!(output.missing_ttl, ["old"]);
    }

    #[test]
    fn levels() {
        assert_eq!(judge(&with(6), 10, now()).level, Level::Ok);
        assert_eq!(judge(&with(7), 10, now()).level, Level::Warning);
        let output = judge(&with(8), 10, now());
        assert_eq!((output.level, output.alert_triggered), (Level::Critical, true));
        assert!((output.utilization - 0.9).abs() < 1e-9);
    }

    #[test]
    fn what_should_not_be_there_is_named() {
        let late = json!({"expire_time": "2026-11-21T00:00:00Z"});
        let survey = survey(vec![
            branch("production", None, &json!({"default": true})),
            branch("late", Some("production"), &late),
            branch("lost", Some("gone"), &json!({})),
        ]);
        let output = judge(&survey, 10, now());
        assert_eq!(
            (output.expired, output.orphans),
            (vec!["late".into()], vec!["lost".to_owned()])
        );
        assert_eq!(output.missing_ttl, ["lost"]);
    }
}
