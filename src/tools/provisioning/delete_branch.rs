//! Deletes a branch for good.
//!
//! Reads: the project and its branches; the branch policy.
//! Changes: the branch is deleted with its computes. One that is gone already is no mistake; one that is
//! protected, the default, or has children is refused.
//! Undo: none.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::kernel::{ChangeSet, Failure, Risk};
use crate::tools::branching::policy::Creator;
use crate::tools::branching::removing::{self, Removed};
use crate::tools::branching::survey::Survey;
use crate::tools::branching::{lifecycle, place};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, HistoryRow, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(DeleteBranch));

struct DeleteBranch;

/// The branch.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Its name, as it was given to `create_branch`; by default the branch of the target.
    #[serde(default)]
    branch_id: Option<String>,
    /// Who asks.
    #[serde(default)]
    creator_type: Creator,
    /// Why, for the history.
    #[serde(default = "unneeded")]
    reason: String,
}

fn unneeded() -> String {
    "it is not needed any more".to_owned()
}

impl WriteTool for DeleteBranch {
    const META: ToolMeta = ToolMeta {
        name: "delete_branch",
        family: Family::Provisioning,
        risk: Risk::Medium,
        revision: 1,
        summary: "Deletes a branch for good",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Removed;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let project = place::project(cx.target)?;
        let branch = place::branch(params.branch_id.as_deref(), cx.target)?;
        let survey = Survey::of(cx.lakebase()?, &project).await?;
        removing::judge(cx, &survey, (branch, params.creator_type), params.reason)
    }

    fn report(&self, settled: &[Settled<'_>]) -> Removed {
        removing::report(settled)
    }

    fn history(&self, output: &Removed) -> Vec<HistoryRow> {
        lifecycle::rows(&output.events)
    }
}
