//! Deletes the branch of a pull request that was closed.
//!
//! Reads: the project and its branches; the branch policy.
//! Changes: the branch `ci-pr-NUMBER` is deleted for good. One that is gone already is no mistake.
//! Undo: none; `create_branch_on_pr` makes a new one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::kernel::{ChangeSet, Failure, Risk};
use crate::lakebase::BranchName;
use crate::tools::branching::change;
use crate::tools::branching::lifecycle::{self, BranchEvent, What, happened, is_done};
use crate::tools::branching::policy::{Act, Creator, Question, ask};
use crate::tools::branching::survey::Survey;
use crate::tools::branching::{name, place};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, HistoryRow, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(DeleteBranchOnPrClose));

struct DeleteBranchOnPrClose;

/// The pull request.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Its number.
    #[schemars(range(min = 1))]
    pr_number: u64,
}

/// What became of its branch.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The branch.
    branch: String,
    /// Whether it was deleted now.
    deleted: bool,
    /// Whether it was gone before.
    already_gone: bool,
    /// What happened, for the history.
    events: Vec<BranchEvent>,
}

impl WriteTool for DeleteBranchOnPrClose {
    const META: ToolMeta = ToolMeta {
        name: "delete_branch_on_pr_close",
        family: Family::Provisioning,
        risk: Risk::Low,
        revision: 1,
        summary: "Deletes the branch of a closed pull request",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let project = place::project(cx.target)?;
        let survey = Survey::of(cx.lakebase()?, &project).await?;
        judge(cx, &survey, params.pr_number)
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let first = settled.first();
        let fact = |name: &str| first.map(|first| first.change.facts[name].clone());
        let was_there = fact("was_there").is_some_and(|was| was == true);
        let deleted = was_there && first.is_some_and(is_done);
        Output {
            branch: fact("branch")
                .and_then(|id| id.as_str().map(str::to_owned))
                .unwrap_or_default(),
            deleted,
            already_gone: !deleted && first.is_some_and(|first| first.settlement.is_some()),
            events: happened(settled),
        }
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        lifecycle::rows(&output.events)
    }
}

fn judge(cx: &ReadContext<'_>, survey: &Survey, number: u64) -> Result<ChangeSet, Failure> {
    let branch = name::of_pull_request(number);
    let full = BranchName::new(survey.project.as_str(), branch.as_str());
    let reason = format!("PR #{number} is closed");
    let Some(known) = survey.branch(&branch) else {
        let mut change = change::delete_absent(&full, reason);
        change.facts = json!({ "branch": branch, "was_there": false });
        return Ok(ChangeSet::new(vec![change]));
    };
    let question = Question { creator: Creator::Ci, ..Question::new(Act::Delete, &branch) };
    let answer = ask(cx, Some(survey), question)?;
    let mut change = change::delete(&full, known, answer.because(&reason));
    change.risk = answer.risk(Risk::Low);
    change.facts = json!({ "branch": branch, "was_there": true });
    let event = BranchEvent {
        event_type: What::Deleted,
        project_id: survey.project.clone(),
        source_branch: known.source().map(str::to_owned),
        branch_id: branch,
        ttl_seconds: None,
        is_protected: Some(false),
        creator_type: Creator::Ci,
        reason,
    };
    event.mark(&mut change);
    Ok(ChangeSet::new(vec![change, event.publication()]))
}
