//! Shows a project with its branches and computes, and what it lacks of a pattern.
//!
//! Reads: the project, its branches and their endpoints.
//! Changes: nothing.
//! Undo: nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Failure, Risk};
use crate::lakebase::resource::{BranchState, EndpointState, EndpointType};
use crate::lakebase::{self, Endpoint};
use crate::tools::branching::pattern::{Pattern, Protection};
use crate::tools::branching::place;
use crate::tools::branching::survey::{Known, Survey};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(InspectProject));

struct InspectProject;

/// What it is compared with.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The pattern that the project should follow; by default none.
    #[serde(default)]
    branching_pattern: Option<Pattern>,
    /// The developers of the pattern `per_developer`.
    #[serde(default)]
    developers: Vec<String>,
    /// Only these branches; by default all.
    #[serde(default)]
    branches: Option<Vec<String>>,
}

/// A project as it is.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// The project.
    project_id: String,
    /// A UUID that is never given twice.
    uid: String,
    /// The major version of PostgreSQL.
    pg_version: Option<i64>,
    /// The branch that is meant when none is said.
    default_branch: Option<String>,
    /// The branches.
    branches: Vec<BranchFacts>,
    /// Whether every branch that was looked at can be used.
    ready: bool,
    /// What the pattern wants and the project has not, in words.
    missing: Vec<String>,
}

/// A branch as it is.
#[derive(Debug, Serialize, JsonSchema)]
struct BranchFacts {
    /// Its id.
    branch: String,
    /// Its `br-…`.
    uid: String,
    /// Its parent.
    source_branch: Option<String>,
    /// Its state.
    state: String,
    /// Whether it is the default branch.
    is_default: bool,
    /// Whether the platform protects it.
    is_protected: bool,
    /// When it goes away; absent: it stays.
    expire_time: Option<String>,
    /// Its children.
    children: Vec<String>,
    /// Its computes.
    endpoints: Vec<EndpointFacts>,
    /// Whether it can be used: it is ready and has a compute that writes, active or asleep.
    usable: bool,
}

/// A compute as it is.
#[derive(Debug, Serialize, JsonSchema)]
struct EndpointFacts {
    /// Its id.
    endpoint: String,
    /// Its `ep-…`.
    uid: String,
    /// Whether it can write.
    read_write: bool,
    /// Its state.
    state: String,
    /// Where it is reached.
    host: Option<String>,
}

impl ReadTool for InspectProject {
    const META: ToolMeta = ToolMeta {
        name: "inspect_project",
        family: Family::Provisioning,
        risk: Risk::Low,
        revision: 1,
        summary: "Shows a project, its branches and computes",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let api = cx.lakebase()?;
        let project = place::project(cx.target)?;
        let survey = Survey::of(api, &project).await?;
        let mut branches = Vec::new();
        for known in &survey.branches {
            let id = known.branch.id();
            if params.branches.as_ref().is_none_or(|wanted| wanted.iter().any(|one| one == id)) {
                let endpoints = lakebase::endpoints(api, &project, id).await?;
                branches.push(branch_facts(known, &endpoints));
            }
        }
        let mut missing = match params.branching_pattern {
            Some(pattern) => missing(&survey, pattern, &params.developers)?,
            None => Vec::new(),
        };
        for wanted in params.branches.iter().flatten() {
            if survey.branch(wanted).is_none() {
                missing.push(format!("there is no branch `{wanted}`"));
            }
        }
        Ok(Output {
            project_id: project,
            uid: survey.found.uid.clone(),
            pg_version: survey.found.status.pg_version,
            default_branch: survey.default_branch().map(str::to_owned),
            ready: branches.iter().all(|branch| branch.usable),
            branches,
            missing,
        })
    }
}

fn branch_facts(known: &Known, endpoints: &[Endpoint]) -> BranchFacts {
    let status = &known.branch.status;
    let at_hand = |endpoint: &Endpoint| {
        endpoint.status.endpoint_type == EndpointType::ReadWrite
            && matches!(endpoint.status.current_state, EndpointState::Active | EndpointState::Idle)
    };
    BranchFacts {
        branch: known.branch.id().to_owned(),
        uid: known.branch.uid.clone(),
        source_branch: known.source().map(str::to_owned),
        state: status.current_state.to_string(),
        is_default: status.default,
        is_protected: status.is_protected,
        expire_time: status.expire_time.map(|at| at.to_string()),
        children: known.children.clone(),
        usable: status.current_state == BranchState::Ready && endpoints.iter().any(at_hand),
        endpoints: endpoints.iter().map(endpoint_facts).collect(),
    }
}

fn endpoint_facts(endpoint: &Endpoint) -> EndpointFacts {
    EndpointFacts {
        endpoint: endpoint.id().to_owned(),
        uid: endpoint.uid.clone(),
        read_write: endpoint.status.endpoint_type == EndpointType::ReadWrite,
        state: endpoint.status.current_state.to_string(),
        host: endpoint.status.hosts.host.clone(),
    }
}

fn missing(
    survey: &Survey,
    pattern: Pattern,
    developers: &[String],
) -> Result<Vec<String>, Failure> {
    let mut missing = Vec::new();
    for wanted in pattern.branches(developers)? {
        let id = &wanted.branch;
        let Some(known) = survey.branch(id) else {
            missing.push(format!("there is no branch `{id}`"));
            continue;
        };
        if wanted.source.is_some() && known.source() != wanted.source {
            let source = wanted.source.unwrap_or_default();
            missing.push(format!("`{id}` does not come from `{source}`"));
        }
        let status = &known.branch.status;
        if wanted.protection == Protection::Platform && !status.is_protected {
            missing.push(format!("`{id}` is not protected"));
        }
        if wanted.ttl.is_some() && status.expire_time.is_none() {
            missing.push(format!("`{id}` does not expire"));
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::branching::survey::tests::{branch, survey};

    #[test]
    fn what_a_pattern_lacks_is_said_in_words() {
        let survey = survey(vec![
            branch("production", None, &json!({"default": true})),
            branch("staging", Some("production"), &json!({})),
            branch("development", Some("staging"), &json!({})),
        ]);
        let found = missing(&survey, Pattern::MultiEnvPipeline, &[]).unwrap();
        assert_eq!(
            found,
            [
                "`production` is not protected",
                "`development` does not come from `production`",
                "`development` does not expire",
            ]
        );
        let alone = missing(&survey, Pattern::PerDeveloper, &["anna".to_owned()]).unwrap();
        assert_eq!(alone[1], "there is no branch `dev-anna`");
    }

    #[test]
    fn a_branch_without_a_compute_cannot_be_used() {
        let survey = survey(vec![branch("production", None, &json!({}))]);
        let known = survey.need("production").unwrap();
        assert!(!branch_facts(known, &[]).usable);
        let endpoint = |state: &str| -> Endpoint {
            let endpoint = json!({
                "name": "projects/shop/branches/production/endpoints/primary",
                "status": {"endpoint_type": "ENDPOINT_TYPE_READ_WRITE", "current_state": state},
            });
            serde_json::from_value(endpoint).unwrap()
        };
        assert!(branch_facts(known, &[endpoint("IDLE")]).usable);
        assert!(!branch_facts(known, &[endpoint("INIT")]).usable);
    }
}
