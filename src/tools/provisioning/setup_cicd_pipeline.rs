//! Writes the pipeline files that give every pull request a branch of the database.
//!
//! Reads: the files that are there.
//! Changes: one file for each provider, and the workflow that they run. A file that somebody edited, or that is not ours, is refused
//! unless `overwrite` is set, and then a person is asked.
//! Undo: what was there before is written back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{ChangeSet, Failure, Risk};
use crate::tools::branching::place;
use crate::tools::context::ReadContext;
use crate::tools::pipeline::installed::{FileState, Installed, directory, written};
use crate::tools::pipeline::{PR_WORKFLOW, Provider, Values};
use crate::tools::tool::{AnyTool, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(SetupCicdPipeline));

struct SetupCicdPipeline;

/// Which files, and where.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The root of the repository.
    directory: String,
    /// Who runs the pipelines.
    #[serde(default = "github")]
    providers: Vec<Provider>,
    /// The parent of the branches of pull requests.
    #[serde(default = "staging")]
    source_branch: String,
    /// The connection, as the configuration in the repository calls it.
    #[serde(default = "lakebase")]
    connection: String,
    /// Whether files that were edited, or are not ours, are replaced; asks a person.
    #[serde(default)]
    overwrite: bool,
}

fn github() -> Vec<Provider> {
    vec![Provider::Github]
}

fn staging() -> String {
    "staging".to_owned()
}

fn lakebase() -> String {
    "lakebase".to_owned()
}

/// What became of the files.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The files that were written; those that were as they should be are not among them.
    files: Vec<FileState>,
    /// The secrets that the pipelines need.
    secrets_required: Vec<&'static str>,
    /// The variables that they need.
    variables_required: Vec<&'static str>,
}

impl WriteTool for SetupCicdPipeline {
    const META: ToolMeta = ToolMeta {
        name: "setup_cicd_pipeline",
        family: Family::Provisioning,
        risk: Risk::Low,
        revision: 1,
        summary: "Writes pipeline files: a branch for each pull request",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let project = place::project(cx.target)?;
        let root = directory(&params.directory)?;
        let (source, connection) = (params.source_branch.as_str(), params.connection.as_str());
        let values = Values { project: &project, source, connection };
        let mut providers = params.providers;
        providers.sort_unstable();
        providers.dedup();
        let mut changes = Vec::new();
        for provider in providers {
            let file = Installed::look(&root, (provider.template(), None), &values).await?;
            changes.extend(file.change(params.overwrite)?);
        }
        let workflow = Installed::look(&root, (PR_WORKFLOW, None), &values).await?;
        changes.extend(workflow.change(params.overwrite)?);
        Ok(ChangeSet::new(changes))
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        Output {
            files: written(settled),
            secrets_required: vec!["DATABRICKS_HOST", "DATABRICKS_TOKEN"],
            variables_required: vec!["LAKEOPS_URL"],
        }
    }
}
