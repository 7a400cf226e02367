//! Deletes the branch of a pull request that was closed.
//!
//! Reads: the project and its branches; the branch policy.
//! Changes: the branch `ci-pr-NUMBER` is deleted for good. One that is gone already is no mistake.
//! Undo: none; `create_branch_on_pr` makes a new one.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::kernel::{ChangeSet, Failure, Risk};
use crate::tools::branching::policy::Creator;
use crate::tools::branching::removing::{self, Removed};
use crate::tools::branching::survey::Survey;
use crate::tools::branching::{lifecycle, name, place};
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
    type Output = Removed;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let project = place::project(cx.target)?;
        let survey = Survey::of(cx.lakebase()?, &project).await?;
        let branch = name::of_pull_request(params.pr_number);
        let reason = format!("PR #{} is closed", params.pr_number);
        removing::judge(cx, &survey, (branch, Creator::Ci), reason)
    }

    fn report(&self, settled: &[Settled<'_>]) -> Removed {
        removing::report(settled)
    }

    fn history(&self, output: &Removed) -> Vec<HistoryRow> {
        lifecycle::rows(&output.events)
    }
}
