//! Has the platform protect a branch, or not any more.
//!
//! Reads: the project and its branches; the branch policy.
//! Changes: the branch's protection; the expiry of a branch that is protected, since a protected branch
//! cannot expire.
//! Undo: the protection and the expiry that were there before. To end protection asks a person.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::kernel::{ChangeSet, Failure, Risk};
use crate::lakebase::BranchName;
use crate::tools::branching::capacity::MOST_PROTECTED;
use crate::tools::branching::change;
use crate::tools::branching::lifecycle::{self, BranchEvent, What, happened, resource};
use crate::tools::branching::place;
use crate::tools::branching::policy::{Act, Creator, Question, ask};
use crate::tools::branching::survey::Survey;
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, HistoryRow, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(ProtectBranch));

struct ProtectBranch;

/// The branch.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Its id; by default the branch of the target.
    #[serde(default)]
    branch_id: Option<String>,
    /// Whether it is to be protected; false ends protection, after a person's approval.
    #[serde(default = "yes")]
    protected: bool,
    /// Who asks.
    #[serde(default)]
    creator_type: Creator,
}

const fn yes() -> bool {
    true
}

/// What became of it.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The project.
    project_id: String,
    /// The branch.
    branch_id: String,
    /// Whether it is protected now, as the platform says.
    protected: bool,
    /// What happened, for the history.
    events: Vec<BranchEvent>,
}

impl WriteTool for ProtectBranch {
    const META: ToolMeta = ToolMeta {
        name: "protect_branch",
        family: Family::Provisioning,
        risk: Risk::Medium,
        revision: 1,
        summary: "Has the platform protect a branch, or not any more",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let project = place::project(cx.target)?;
        let survey = Survey::of(cx.lakebase()?, &project).await?;
        judge(cx, &survey, &params)
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let first = settled.first();
        let fact = |name: &str| {
            let found = first.and_then(|first| first.change.facts[name].as_str());
            found.unwrap_or_default().to_owned()
        };
        let protected =
            first.is_some_and(|first| resource(first)["status"]["is_protected"] == true);
        let events = happened(settled);
        Output { project_id: fact("project_id"), branch_id: fact("branch_id"), protected, events }
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        lifecycle::rows(&output.events)
    }
}

fn judge(cx: &ReadContext<'_>, survey: &Survey, params: &Params) -> Result<ChangeSet, Failure> {
    let branch = place::branch(params.branch_id.as_deref(), cx.target)?;
    let known = survey.need(&branch)?;
    let is_protected = known.branch.status.is_protected;
    if params.protected && !is_protected {
        room_for_protection(survey)?;
    }
    let act = if params.protected { Act::Protect } else { Act::Unprotect };
    let question = Question { creator: params.creator_type, ..Question::new(act, &branch) };
    let answer = if params.protected == is_protected {
        crate::tools::branching::policy::Answer::default()
    } else {
        ask(cx, Some(survey), question)?
    };
    let why = if params.protected {
        "a protected branch is neither deleted nor reset, and does not expire"
    } else {
        "protection is to end"
    };
    let full = BranchName::new(survey.project.as_str(), branch.as_str());
    let facts = (known.branch.uid.as_str(), known.branch.status.expire_time);
    let mut change = change::protect(&full, facts, params.protected, answer.because(why));
    change.risk = answer.risk(change.risk);
    change.facts = json!({ "project_id": survey.project, "branch_id": branch });
    let event = BranchEvent {
        event_type: if params.protected { What::Protected } else { What::Unprotected },
        project_id: survey.project.clone(),
        branch_id: branch,
        source_branch: known.source().map(str::to_owned),
        ttl_seconds: None,
        is_protected: Some(params.protected),
        creator_type: params.creator_type,
        reason: why.to_owned(),
    };
    event.mark(&mut change);
    let told = (params.protected != is_protected).then(|| event.publication());
    Ok(ChangeSet::new(std::iter::once(change).chain(told).collect()))
}

fn room_for_protection(survey: &Survey) -> Result<(), Failure> {
    let protected = survey.protected();
    if protected.len() < MOST_PROTECTED {
        return Ok(());
    }
    let text = format!(
        "the platform protects {MOST_PROTECTED} branch of a project, and of `{}` that is `{}`",
        survey.project,
        protected.join("`, `")
    );
    Err(Failure::permanent("branching::full", text).with_help(
        "end its protection first (`protected: false`), or let the branch policy guard the other one",
    ))
}
