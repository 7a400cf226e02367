//! Lists the branches that can be looked at without waking a compute, or keeping it awake.
//!
//! A compute that nobody but us has used since we last did is left alone, so that it can fall asleep.
//!
//! Reads: the branches of the project and the states of their computes; no database. Without a Lakebase
//! workspace there are no branches, and the target's own is the only one.
//! Changes: nothing.
//! Undo: nothing to undo.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Failure, Risk, Target};
use crate::lakebase::resource::{BranchState, EndpointState, EndpointType};
use crate::lakebase::{self, Endpoint};
use crate::tools::branching::place;
use crate::tools::branching::survey::Survey;
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(ListActiveBranches));

struct ListActiveBranches;

/// Which branches.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Only these; by default all.
    #[serde(default)]
    branches: Vec<String>,
}

/// What can be looked at.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// The branches with an active compute that somebody uses.
    branches: Vec<String>,
    /// The others, each with what it lacks.
    left_alone: Vec<LeftAlone>,
}

/// A branch that is not looked at.
#[derive(Debug, Serialize, JsonSchema)]
struct LeftAlone {
    /// The branch.
    branch: String,
    /// Why.
    why: String,
}

impl ReadTool for ListActiveBranches {
    const META: ToolMeta = ToolMeta {
        name: "list_active_branches",
        family: Family::Performance,
        risk: Risk::Low,
        revision: 1,
        summary: "Lists the branches whose compute is awake",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let Some(api) = cx.workspace else {
            let own = cx.target.branch.clone().unwrap_or_else(|| "main".to_owned());
            let branches = if params.branches.is_empty() { vec![own] } else { params.branches };
            return Ok(Output { branches, left_alone: Vec::new() });
        };
        let project = place::project(cx.target)?;
        let survey = Survey::of(api, &project).await?;
        let mut output = Output { branches: Vec::new(), left_alone: Vec::new() };
        for known in &survey.branches {
            let id = known.branch.id();
            if !params.branches.is_empty() && !params.branches.iter().any(|wanted| wanted == id) {
                continue;
            }
            let state = &known.branch.status.current_state;
            let mut lack = if *state == BranchState::Ready {
                lack(&lakebase::endpoints(api, &project, id).await?)
            } else {
                Some(format!("it is {state}"))
            };
            if let Some(places) = cx.places.filter(|_| lack.is_none()) {
                let branch = Some(id.to_owned());
                let target = Target { project: Some(project.clone()), branch, database: None };
                lack = places.left_alone(&target).await?;
            }
            match lack {
                None => output.branches.push(id.to_owned()),
                Some(why) => output.left_alone.push(LeftAlone { branch: id.to_owned(), why }),
            }
        }
        Ok(output)
    }
}

/// What keeps the computes of a branch from being asked; `None`: nothing does.
fn lack(endpoints: &[Endpoint]) -> Option<String> {
    let writes = |endpoint: &&Endpoint| endpoint.status.endpoint_type == EndpointType::ReadWrite;
    let Some(primary) = endpoints.iter().find(writes) else {
        return Some("it has no compute that writes".to_owned());
    };
    let state = &primary.status.current_state;
    (*state != EndpointState::Active).then(|| format!("its compute is {state}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_compute_that_sleeps_is_left_alone() {
        let endpoint = |state: &str| -> Endpoint {
            let endpoint = json!({
                "name": "projects/shop/branches/production/endpoints/primary",
                "status": {"endpoint_type": "ENDPOINT_TYPE_READ_WRITE", "current_state": state},
            });
            serde_json::from_value(endpoint).unwrap()
        };
        assert_eq!(lack(&[endpoint("ACTIVE")]), None);
        assert!(lack(&[endpoint("IDLE")]).unwrap().starts_with("its compute is"));
        assert!(lack(&[]).is_some());
    }
}
