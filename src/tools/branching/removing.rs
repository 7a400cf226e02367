//! Deleting one branch: what `delete_branch` and `delete_branch_on_pr_close` propose.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::change;
use super::lifecycle::{BranchEvent, What, happened, is_done};
use super::policy::{Act, Creator, Question, ask};
use super::survey::Survey;
use crate::kernel::{ChangeSet, Failure, Risk};
use crate::lakebase::BranchName;
use crate::tools::ReadContext;
use crate::tools::tool::Settled;

/// What became of the branch.
#[derive(Serialize, JsonSchema)]
pub(in crate::tools) struct Removed {
    /// The branch.
    pub(in crate::tools) branch: String,
    /// Whether it was deleted now.
    pub(in crate::tools) deleted: bool,
    /// Whether it was gone before.
    pub(in crate::tools) already_gone: bool,
    /// What happened, for the history.
    pub(in crate::tools) events: Vec<BranchEvent>,
}

/// Proposes to delete a branch. One that is not there is no mistake.
pub(in crate::tools) fn judge(
    cx: &ReadContext<'_>,
    survey: &Survey,
    (branch, creator): (String, Creator),
    reason: String,
) -> Result<ChangeSet, Failure> {
    let name = BranchName::new(survey.project.as_str(), branch.as_str());
    let Some(known) = survey.branch(&branch) else {
        let mut change = change::delete_absent(&name, reason);
        change.facts = json!({ "branch": branch, "was_there": false });
        return Ok(ChangeSet::new(vec![change]));
    };
    let question = Question { creator, ..Question::new(Act::Delete, &branch) };
    let answer = ask(cx, Some(survey), question)?;
    let mut change = change::delete(&name, known, answer.because(&reason));
    change.risk = answer.risk(Risk::Low);
    change.facts = json!({ "branch": branch, "was_there": true });
    let event = BranchEvent {
        event_type: What::Deleted,
        project_id: survey.project.clone(),
        source_branch: known.source().map(str::to_owned),
        branch_id: branch,
        ttl_seconds: None,
        is_protected: Some(false),
        creator_type: creator,
        reason,
    };
    event.mark(&mut change);
    Ok(ChangeSet::new(vec![change, event.publication()]))
}

/// What became of it.
pub(in crate::tools) fn report(settled: &[Settled<'_>]) -> Removed {
    let first = settled.first();
    let fact = |name: &str| first.map(|first| first.change.facts[name].clone());
    let was_there = fact("was_there").is_some_and(|was| was == true);
    let deleted = was_there && first.is_some_and(is_done);
    Removed {
        branch: fact("branch").and_then(|id| id.as_str().map(str::to_owned)).unwrap_or_default(),
        deleted,
        already_gone: !deleted && first.is_some_and(|first| first.settlement.is_some()),
        events: happened(settled),
    }
}
