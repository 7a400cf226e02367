//! Makes the branch of a pull request, or adopts it when the request is opened again.
//!
//! Reads: the project, its branches and their computes; the branch policy.
//! Changes: the branch `ci-pr-NUMBER`.
//! Undo: a branch that was made is deleted; one that was there stays.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::kernel::{ChangeSet, Failure, Risk, Span};
use crate::tools::branching::change::{Expiry, Point};
use crate::tools::branching::making::{self, Made, Request};
use crate::tools::branching::policy::Creator;
use crate::tools::branching::{lifecycle, name};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, HistoryRow, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(CreateBranchOnPr));

struct CreateBranchOnPr;

/// The pull request.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Its number.
    #[schemars(range(min = 1))]
    pr_number: u64,
    /// The parent of its branch.
    #[serde(default = "staging")]
    source_branch: String,
    /// How long the branch lives; by default as the branch policy says for `ci-`.
    #[serde(default)]
    ttl: Option<Span>,
}

fn staging() -> String {
    "staging".to_owned()
}

impl WriteTool for CreateBranchOnPr {
    const META: ToolMeta = ToolMeta {
        name: "create_branch_on_pr",
        family: Family::Provisioning,
        risk: Risk::Low,
        revision: 1,
        summary: "Makes the branch of a pull request",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Made;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let request = Request {
            wanted: name::of_pull_request(params.pr_number),
            source: Some(params.source_branch),
            point: Point::Head,
            creator: Creator::Ci,
            expiry: params.ttl.map(Expiry::After),
            why: format!("PR #{} is open", params.pr_number),
        };
        making::propose(cx, &request).await
    }

    fn report(&self, settled: &[Settled<'_>]) -> Made {
        making::report(settled)
    }

    fn history(&self, output: &Made) -> Vec<HistoryRow> {
        lifecycle::rows(&output.events)
    }
}
